//! Whether a host's words ask for less mail at a time.
//!
//! Pure. What is told apart: no connection, or a greeting refused for now, is the host's and is remembered
//! for all (`hosts`); 421 later, or a 4yz about rates, is the destination's, which gets a pause; any other
//! 4yz is about the recipient (greylisting) or the message, and takes the message's own schedule.
//! Called by `delivery::attempt`.

use crate::mail::Reply;
use crate::smtp::client::{SessionEnd, TransactionEnd};

/// Why the destination gets a pause, one sentence, if it is to get one. `carried` counts the messages of
/// the connection, this one included.
pub(super) fn asks_for_less(
    end: &TransactionEnd,
    session: Option<&SessionEnd>,
    carried: u32,
) -> Option<String> {
    let reply = match (end, session) {
        // RFC 5321 §3.8: 421 at any time. After other messages it is the connection that had enough.
        (TransactionEnd::Broken { .. }, Some(SessionEnd::Refused { reply, .. }))
            if reply.code == 421 && carried <= 1 =>
        {
            reply
        }
        (TransactionEnd::Answered(replies), _) if !replies.iter().any(Reply::is_positive) => {
            replies.iter().find(|reply| is_about_rate(reply))?
        }
        _ => return None,
    };
    Some(format!("it asked for less mail at a time: {reply}"))
}

/// 450, 451 and 452 are said for many reasons; of these only the ones about how much comes how fast.
fn is_about_rate(reply: &Reply) -> bool {
    if !matches!(reply.code, 450..=452) {
        return false;
    }
    if let Some(status) = reply.enhanced {
        match (status.subject, status.detail) {
            // RFC 3463 §3.2, §3.3: about an address or a mailbox, whatever the words are.
            (1 | 2, _) => return false,
            // RFC 3463: system not accepting messages, congestion; and what large hosts use for rates.
            (3, 2) | (4, 5) | (7, 28 | 500..=699) => return true,
            // RFC 3463 §3.6, RFC 5321 §4.5.3.1.10: too many recipients in one transaction.
            (5, 3) => return false,
            _ => {}
        }
    }
    let words = reply.lines.join(" ").to_ascii_lowercase();
    if ["greylist", "graylist", "grey list", "recipients"].iter().any(|word| words.contains(word)) {
        return false;
    }
    let is_word = |word: &str| matches!(word, "rate" | "rates" | "throttled" | "throttling" | "ratelimited");
    words.split(|c: char| !c.is_ascii_alphanumeric()).any(is_word)
        || ["too many", "too fast", "too quickly", "slow down"].iter().any(|phrase| words.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::EnhancedStatus;
    use crate::smtp::client::Phase;

    fn reply(code: u16, enhanced: (u16, u16), text: &str) -> Reply {
        Reply::new(code, EnhancedStatus::new((code / 100) as u8, enhanced.0, enhanced.1), text)
    }

    #[test]
    fn words_about_rates_are_told_from_greylisting_and_from_mailboxes() {
        for (code, enhanced, text, pause) in [
            (450, (7, 1), "Client host rejected: rate limit exceeded", true),
            (451, (4, 5), "congestion", true),
            (452, (3, 2), "system is busy", true),
            (451, (7, 650), "The mail server has been temporarily rate limited", true),
            (450, (0, 0), "Too many connections from your address", true),
            (451, (0, 0), "You are sending too fast, slow down", true),
            // Greylisting, mailboxes and disks keep the message's own schedule.
            (450, (2, 0), "Greylisted, please try again in 300 seconds", false),
            (451, (7, 1), "Greylisting in action, sending rate is fine", false),
            (450, (2, 1), "The user is receiving mail at a rate that prevents delivery", false),
            (452, (2, 2), "mailbox full", false),
            (452, (3, 1), "insufficient system storage", false),
            (452, (5, 3), "too many recipients", false),
            (451, (0, 0), "temporarily unable to separate corporate mail", false),
            // For good, or about other things.
            (550, (7, 1), "rate limit exceeded", false),
            (454, (7, 0), "rate limit", false),
        ] {
            let end = TransactionEnd::Answered(vec![reply(code, enhanced, text)]);
            assert_eq!(asks_for_less(&end, None, 1).is_some(), pause, "{code} {enhanced:?} {text}");
        }
    }

    #[test]
    fn who_took_a_recipient_did_not_ask_for_less() {
        let busy = reply(450, (7, 1), "rate limit");
        let end = TransactionEnd::Answered(vec![reply(250, (0, 0), "taken"), busy]);
        assert_eq!(asks_for_less(&end, None, 1), None);
    }

    #[test]
    fn a_421_asks_for_less_unless_the_connection_carried_enough() {
        let end = TransactionEnd::Broken { replies: vec![None], uncertain: false };
        let said = |code| SessionEnd::Refused { phase: Phase::Mail, reply: reply(code, (7, 0), "busy") };
        assert!(asks_for_less(&end, Some(&said(421)), 1).is_some_and(|text| text.contains("421")));
        assert_eq!(asks_for_less(&end, Some(&said(421)), 2), None);
        let lost = SessionEnd::Lost { phase: Phase::Dot, text: "closed".into() };
        assert_eq!(asks_for_less(&end, Some(&lost), 1), None);
    }
}
