//! What the end of a conversation means for each recipient: finished, same session again, or next host.
//!
//! Pure, and the only place that decides consequences. Policy failures are always transient
//! (RFC 8461 §5, RFC 7672 §2.2); only a host's own 5yz words or a missing capability are permanent.
//! Called by `delivery::attempt`; `QueueItem::settle` makes a transient failure final at expiry.

use crate::mail::{EnhancedStatus, Failure, Outcome, Permanence, Reply, Scope, header};
use crate::smtp::client::{AuthFailure, Missing, Phase, SessionEnd, TransactionEnd};
use crate::tlspolicy::{Demand, Rule, SkipReason, TlsFailure};

/// RFC 4954 §6: authentication credentials invalid, or wanting.
const LOGIN: EnhancedStatus = EnhancedStatus::new(4, 7, 8);

/// What one transaction at one host decided. Recipients are named by their position in the envelope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Finished in this attempt.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Refused as one too many (RFC 5321 §4.5.3.1.10): another transaction in the same session.
    pub again: Vec<usize>,
    /// Another host may do; with the failure here.
    pub next_host: Vec<(usize, Failure)>,
}

/// Reads a transaction's end. `recipients` are the positions given to the transaction, in its order;
/// `rule` is what demands something of the connection ([`TlsPlan::demands`](crate::tlspolicy::TlsPlan::demands)).
pub fn judge(
    end: &TransactionEnd,
    session: Option<&SessionEnd>,
    recipients: &[usize],
    host: &str,
    rule: Option<Demand<'_>>,
) -> Judgement {
    match end {
        TransactionEnd::Answered(replies) => judge_replies(recipients, replies, host),
        TransactionEnd::Unsupported(missing) => {
            let failure = missing_failure(*missing, host);
            Judgement {
                next_host: recipients.iter().map(|index| (*index, failure.clone())).collect(),
                ..Judgement::default()
            }
        }
        TransactionEnd::Broken { replies, uncertain } => {
            let mut judgement = Judgement::default();
            let lost = match session {
                Some(end) => session_failure(end, host, rule),
                None => lost_failure("the connection broke", host),
            };
            for (position, index) in recipients.iter().enumerate() {
                match replies.get(position).and_then(Option::as_ref) {
                    Some(reply) => judgement.outcomes.push((*index, outcome(reply, host, Scope::Recipient))),
                    // I9: the content may have arrived; another host now would surely make it two.
                    None if *uncertain => {
                        let text = format!("{}; it may have been delivered and is sent again", lost.text);
                        let failure = Failure { text, ..lost.clone() };
                        judgement.outcomes.push((*index, Outcome::Deferred(transient(failure))));
                    }
                    None => judgement.next_host.push((*index, lost.clone())),
                }
            }
            judgement
        }
    }
}

fn judge_replies(recipients: &[usize], replies: &[Reply], host: &str) -> Judgement {
    let mut judgement = Judgement::default();
    let some_accepted = replies.iter().any(Reply::is_positive);
    // The same transient words for everybody are the host's trouble: another one may do.
    let host_trouble = replies.first().is_some_and(|first| {
        first.is_transient()
            && replies.len() == recipients.len()
            && replies.iter().all(|reply| reply == first)
    });
    for (position, index) in recipients.iter().enumerate() {
        let Some(reply) = replies.get(position) else {
            judgement.next_host.push((*index, lost_failure("no reply for this recipient", host)));
            continue;
        };
        // RFC 5321 §4.5.3.1.10: 452, or 552 of old, to RCPT after accepted ones = too many.
        if some_accepted && matches!(reply.code, 452 | 552) {
            judgement.again.push(*index);
            continue;
        }
        match outcome(reply, host, if host_trouble { Scope::Host } else { Scope::Recipient }) {
            Outcome::Deferred(failure) if host_trouble => judgement.next_host.push((*index, failure)),
            other => judgement.outcomes.push((*index, other)),
        }
    }
    judgement
}

/// RFC 5321 §4.2: the first digit decides.
fn outcome(reply: &Reply, host: &str, scope: Scope) -> Outcome {
    let failure = |permanence| reply_failure(reply, host, scope, permanence, "");
    match reply.code / 100 {
        2 => Outcome::Delivered(reply.clone()),
        5 => Outcome::Failed(failure(Permanence::Permanent)),
        _ => Outcome::Deferred(failure(Permanence::Transient)),
    }
}

fn reply_failure(reply: &Reply, host: &str, scope: Scope, permanence: Permanence, during: &str) -> Failure {
    let class = match permanence {
        Permanence::Permanent => 5,
        Permanence::Transient => 4,
    };
    Failure {
        scope,
        permanence,
        status: reply
            .enhanced
            .filter(|status| status.class == class)
            .unwrap_or(EnhancedStatus::new(class, 0, 0)),
        text: format!("host {host} said{during}: {reply}"),
        host: Some(host.to_owned()),
        reply: Some(reply.clone()),
        rule: None,
    }
}

/// What the end of a session before any transaction means: always the host's failure.
pub fn session_failure(end: &SessionEnd, host: &str, rule: Option<Demand<'_>>) -> Failure {
    match end {
        SessionEnd::Refused { phase, reply } => {
            // RFC 7504 §4, RFC 5321 §3.1: a refusal to talk at all is permanent for this host only.
            // Not under a policy: whoever spoke before TLS has proven nothing and may not make us bounce.
            let permanence = match phase {
                Phase::Greeting | Phase::Hello if reply.is_permanent() && rule.is_none() => {
                    Permanence::Permanent
                }
                _ => Permanence::Transient,
            };
            let during = format!(" in reply to {}", phase.command());
            reply_failure(reply, host, Scope::Host, permanence, &during)
        }
        SessionEnd::BdatUnknown(reply) => {
            lost_failure(&format!("offers CHUNKING and does not understand BDAT: {reply}"), host)
        }
        SessionEnd::Tls(failure) => tls_failure(failure, host, rule),
        SessionEnd::Auth(failure) => auth_failure(failure, host),
        SessionEnd::Lost { text, .. } => lost_failure(text, host),
        SessionEnd::Quit => lost_failure("the session was closed", host),
    }
}

/// Our own login, so our operator's to mend: always transient, whatever the host says.
fn auth_failure(failure: &AuthFailure, host: &str) -> Failure {
    let text = match failure {
        AuthFailure::NotOffered => {
            "does not offer AUTH PLAIN or LOGIN, by which this relay is to log in there".to_owned()
        }
        AuthFailure::Refused(reply) => {
            format!("refused the login of this relay, whose operator has to see to it: {reply}")
        }
        AuthFailure::Odd(code) => format!("answered {code} where this relay logs in"),
    };
    let text = header::sanitize(&format!("host {host} {text}"));
    Failure { status: LOGIN, text, ..lost_failure("", host) }
}

/// What a configured next hop says when it wants a login that it was not given, or not the right one
/// (RFC 4954 §6): our operator's to mend, so nobody is told that the mail cannot go.
pub fn without_login(judgement: Judgement) -> Judgement {
    let outcomes = judgement.outcomes.into_iter().map(|(index, outcome)| match outcome {
        Outcome::Failed(failure)
            if failure.reply.as_ref().is_some_and(|reply| matches!(reply.code, 530 | 534 | 535 | 538)) =>
        {
            let text = format!("{}; the operator of this relay has to see to its login there", failure.text);
            (index, Outcome::Deferred(transient(Failure { text, status: LOGIN, ..failure })))
        }
        other => (index, other),
    });
    Judgement { outcomes: outcomes.collect(), ..judgement }
}

/// A TLS failure. Under a policy it is the policy's (named by its rule), always transient: RFC 8461 §5.
fn tls_failure(failure: &TlsFailure, host: &str, rule: Option<Demand<'_>>) -> Failure {
    // RFC 3463 X.7.10: encryption needed; X.7.5: cryptographic failure.
    let status = match failure {
        TlsFailure::NotOffered(_) | TlsFailure::Refused(_) => EnhancedStatus::new(4, 7, 10),
        _ => EnhancedStatus::new(4, 7, 5),
    };
    let text = if let Some(rule) = rule {
        // The cause first: listings cut what does not fit.
        format!("host {host}: {failure}; {rule} forbids delivery over such a connection")
    } else {
        format!("host {host}: {failure}")
    };
    Failure {
        scope: Scope::Host,
        permanence: Permanence::Transient,
        status,
        text: header::sanitize(&text),
        host: Some(host.to_owned()),
        reply: None,
        rule: rule.map(|demand| demand.rule.to_string()),
    }
}

/// The failure of a session as a message with REQUIRETLS must take it. What a host lacks is a verdict
/// on it, and the sender is told when all hosts have spoken (RFC 8689 §4.2.1); trouble stays transient.
///
/// A certificate that does not prove enough is a verdict only where nothing but REQUIRETLS asked for
/// the proof: a policy's failure may be an attack or a mistake, and waits (RFC 8461 §5, RFC 7672 §2.2).
pub fn under_requiretls(failure: Failure, end: &SessionEnd) -> Failure {
    let only_asked_here = failure.rule.as_deref() == Some(&Rule::RequireTls.to_string());
    let text = match end {
        SessionEnd::Tls(lacking @ TlsFailure::NotOffered(_)) => lacking.to_string(),
        SessionEnd::Tls(unproven @ (TlsFailure::Certificate(_) | TlsFailure::TlsaMismatch))
            if only_asked_here =>
        {
            unproven.to_string()
        }
        _ => return failure,
    };
    let host = failure.host.as_deref().unwrap_or_default();
    Failure {
        permanence: Permanence::Permanent,
        status: EnhancedStatus::new(5, 7, 10),
        text: header::sanitize(&format!("host {host}: {text}; the message requires TLS (REQUIRETLS)")),
        rule: Some(Rule::RequireTls.to_string()),
        ..failure
    }
}

/// A host that the policy forbids before any connection is made.
pub fn skip_failure(reason: &SkipReason, host: &str) -> Failure {
    let status = match reason.permanence {
        // RFC 8689 §4.2.1.
        Permanence::Permanent => EnhancedStatus::new(5, 7, 30),
        Permanence::Transient => EnhancedStatus::new(4, 7, 5),
    };
    Failure {
        scope: Scope::Host,
        permanence: reason.permanence,
        status,
        text: header::sanitize(&reason.text),
        host: Some(host.to_owned()),
        reply: None,
        rule: Some(reason.rule.to_string()),
    }
}

/// A connection that did not come about, or broke (RFC 3463 X.4.1, X.4.2).
pub fn dial_failure(text: &str, host: &str) -> Failure {
    Failure { status: EnhancedStatus::new(4, 4, 1), ..lost_failure(text, host) }
}

/// A host that is left alone for now, since others could not talk to it.
pub fn held_failure(text: &str, host: &str) -> Failure {
    Failure { text: header::sanitize(text), ..dial_failure("", host) }
}

fn lost_failure(text: &str, host: &str) -> Failure {
    Failure {
        scope: Scope::Host,
        permanence: Permanence::Transient,
        status: EnhancedStatus::new(4, 4, 2),
        text: header::sanitize(&format!("host {host}: {text}")),
        host: Some(host.to_owned()),
        reply: None,
        rule: None,
    }
}

fn missing_failure(missing: Missing, host: &str) -> Failure {
    let rule = (missing == Missing::RequireTls).then(|| Rule::RequireTls.to_string());
    let (status, text) = match missing {
        // RFC 6531 §3.5
        Missing::SmtpUtf8 => {
            (EnhancedStatus::new(5, 6, 7), "does not offer SMTPUTF8, which the message needs".into())
        }
        // RFC 6152 §3: never 8-bit content to a host without 8BITMIME.
        Missing::EightBitMime => {
            (EnhancedStatus::new(5, 6, 3), "does not offer 8BITMIME, which the message needs".into())
        }
        // RFC 8689 §4.2.1
        Missing::RequireTls => {
            (EnhancedStatus::new(5, 7, 30), "does not offer REQUIRETLS, which the message asks for".into())
        }
        // RFC 1870 §6.1
        Missing::Size(limit) => (
            EnhancedStatus::new(5, 3, 4),
            format!("takes messages of at most {limit} octets; this one is larger"),
        ),
    };
    Failure {
        scope: Scope::Host,
        permanence: Permanence::Permanent,
        status,
        text: format!("host {host} {text}"),
        host: Some(host.to_owned()),
        reply: None,
        rule,
    }
}

fn transient(failure: Failure) -> Failure {
    Failure { permanence: Permanence::Transient, status: failure.status.with_class(4), ..failure }
}

/// The outcome for a recipient whose hosts are all exhausted: the failures in the order met.
///
/// One transient failure is enough to try again; among those of a kind a policy's is the most
/// telling, then the last.
pub fn exhausted(failures: &[Failure]) -> Outcome {
    let of = |wanted: &dyn Fn(&&Failure) -> bool| failures.iter().rev().find(wanted).cloned();
    let is_transient = |failure: &&Failure| failure.permanence == Permanence::Transient;
    if let Some(failure) =
        of(&|failure| is_transient(failure) && failure.rule.is_some()).or_else(|| of(&is_transient))
    {
        return Outcome::Deferred(failure);
    }
    match failures.iter().rev().find(|failure| failure.rule.is_some()).or(failures.last()) {
        Some(failure) => Outcome::Failed(failure.clone()),
        None => Outcome::Deferred(lost_failure("no host was tried", "(none)")),
    }
}

/// No host of the domain has an address (5.4.4): names vanish for a moment when zones are edited, so the
/// first attempt does not bounce for it.
pub fn not_at_once(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(failure)
            if failure.status == EnhancedStatus::new(5, 4, 4) && failure.reply.is_none() =>
        {
            Outcome::Deferred(transient(failure))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlspolicy::CertificateFailure;

    const HOST: &str = "mx1.example.test";

    fn reply(code: u16, enhanced: Option<(u16, u16)>) -> Reply {
        let enhanced =
            enhanced.map(|(subject, detail)| EnhancedStatus::new((code / 100) as u8, subject, detail));
        Reply { code, enhanced, lines: vec!["words".into()] }
    }

    fn answered(replies: Vec<Reply>) -> Judgement {
        let recipients: Vec<usize> = (0..replies.len()).collect();
        judge(&TransactionEnd::Answered(replies), None, &recipients, HOST, Some(Rule::StsEnforce.into()))
    }

    #[test]
    fn each_recipient_gets_its_own_reply() {
        let judgement = answered(vec![reply(250, None), reply(550, Some((1, 1))), reply(450, Some((2, 1)))]);
        assert!(matches!(&judgement.outcomes[0], (0, Outcome::Delivered(_))));
        assert!(matches!(&judgement.outcomes[1], (1, Outcome::Failed(f)) if f.status.to_string() == "5.1.1"));
        assert!(
            matches!(&judgement.outcomes[2], (2, Outcome::Deferred(f)) if f.status.to_string() == "4.2.1")
        );
        assert!(judgement.again.is_empty() && judgement.next_host.is_empty());
    }

    #[test]
    fn too_many_recipients_go_again_in_the_same_session_only_when_some_were_accepted() {
        for code in [452, 552] {
            assert_eq!(answered(vec![reply(250, None), reply(code, None)]).again, [1], "{code}");
        }
        let alone = answered(vec![reply(552, None)]);
        assert!(matches!(&alone.outcomes[..], [(0, Outcome::Failed(_))]));
    }

    #[test]
    fn the_same_transient_answer_for_all_is_the_hosts_and_another_may_do() {
        let judgement = answered(vec![reply(451, None), reply(451, None)]);
        assert_eq!(judgement.next_host.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(judgement.next_host[0].1.scope, Scope::Host);
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_not_believed() {
        let odd = Reply { enhanced: Some(EnhancedStatus::new(2, 0, 0)), ..reply(550, None) };
        assert!(
            matches!(&answered(vec![odd]).outcomes[0].1, Outcome::Failed(f) if f.status.to_string() == "5.0.0")
        );
    }

    #[test]
    fn a_break_after_the_final_dot_is_deferred_and_never_sent_to_another_host_at_once() {
        let lost = SessionEnd::Lost { phase: Phase::Dot, text: "timed out".into() };
        let end = TransactionEnd::Broken { replies: vec![None, Some(reply(550, None))], uncertain: true };
        let judgement = judge(&end, Some(&lost), &[4, 7], HOST, None);
        assert!(judgement.next_host.is_empty());
        assert!(matches!(&judgement.outcomes[0], (4, Outcome::Deferred(f)) if f.text.contains("sent again")));
        assert!(matches!(&judgement.outcomes[1], (7, Outcome::Failed(_))));
        let end = TransactionEnd::Broken { replies: vec![None], uncertain: false };
        assert_eq!(judge(&end, Some(&lost), &[4], HOST, None).next_host.len(), 1);
    }

    #[test]
    fn a_policy_failure_is_transient_and_names_its_rule() {
        let end = SessionEnd::Tls(TlsFailure::Certificate(CertificateFailure::Expired("2020-01-01".into())));
        let failure = session_failure(&end, HOST, Some(Rule::StsEnforce.into()));
        assert_eq!(failure.permanence, Permanence::Transient);
        assert_eq!(failure.status.to_string(), "4.7.5");
        assert_eq!(failure.rule.as_deref(), Some("mta-sts enforce"));
        assert!(failure.text.contains(HOST) && failure.text.contains("expired"), "{}", failure.text);
        let stripped = SessionEnd::Tls(TlsFailure::NotOffered("EHLO lacks it".into()));
        assert_eq!(
            session_failure(&stripped, HOST, Some(Rule::StsEnforce.into())).status.to_string(),
            "4.7.10"
        );
    }

    #[test]
    fn what_a_host_lacks_for_requiretls_is_final_and_trouble_is_not() {
        let under = |failure: TlsFailure, rule: Rule| {
            let end = SessionEnd::Tls(failure);
            under_requiretls(session_failure(&end, HOST, Some(rule.into())), &end)
        };
        let lacking = || TlsFailure::NotOffered("the EHLO reply does not list it".into());
        let expired = || TlsFailure::Certificate(CertificateFailure::Expired("2020-01-01".into()));
        for (failure, rule, status) in [
            (lacking(), Rule::RequireTls, "5.7.10"),
            (lacking(), Rule::StsEnforce, "5.7.10"),
            (TlsFailure::Refused("refused with 454 later".into()), Rule::RequireTls, "4.7.10"),
            (expired(), Rule::RequireTls, "5.7.10"),
            (expired(), Rule::StsEnforce, "4.7.5"),
            (TlsFailure::TlsaMismatch, Rule::Dane, "4.7.5"),
            (TlsFailure::Handshake("alert".into()), Rule::RequireTls, "4.7.5"),
            (TlsFailure::Lost("reset".into()), Rule::RequireTls, "4.7.5"),
            (TlsFailure::Injected, Rule::RequireTls, "4.7.5"),
        ] {
            let failure = under(failure, rule);
            assert_eq!(failure.status.to_string(), status, "{failure:?}");
            let permanent = failure.permanence == Permanence::Permanent;
            assert_eq!(permanent, status.starts_with('5'), "{failure:?}");
            assert!(!permanent || failure.rule.as_deref() == Some("requiretls"), "{failure:?}");
        }
        let lost = SessionEnd::Lost { phase: Phase::Greeting, text: "timed out".into() };
        assert_eq!(under_requiretls(session_failure(&lost, HOST, None), &lost).status.class, 4);
        let missing = missing_failure(Missing::RequireTls, HOST);
        assert_eq!(
            (missing.status.to_string().as_str(), missing.rule.as_deref()),
            ("5.7.30", Some("requiretls"))
        );
        let gone = Failure { permanence: Permanence::Permanent, ..dial_failure("no address", HOST) };
        assert!(
            matches!(exhausted(&[missing, gone]), Outcome::Failed(f) if f.status.to_string() == "5.7.30")
        );
    }

    #[test]
    fn a_refused_greeting_is_permanent_for_the_host_and_421_never_is() {
        let refused = |phase, code| SessionEnd::Refused { phase, reply: reply(code, None) };
        let permanence = |end| session_failure(&end, HOST, None).permanence;
        assert_eq!(permanence(refused(Phase::Greeting, 554)), Permanence::Permanent);
        assert_eq!(permanence(refused(Phase::Greeting, 421)), Permanence::Transient);
        assert_eq!(permanence(refused(Phase::Mail, 421)), Permanence::Transient);
        let enforced = session_failure(&refused(Phase::Greeting, 554), HOST, Some(Rule::StsEnforce.into()));
        assert_eq!(enforced.permanence, Permanence::Transient, "spoken by nobody we know");
    }

    #[test]
    fn a_login_that_is_refused_or_missing_never_bounces() {
        for failure in [
            AuthFailure::NotOffered,
            AuthFailure::Refused(reply(535, Some((7, 8)))),
            AuthFailure::Refused(reply(454, None)),
            AuthFailure::Odd(334),
        ] {
            let failure = session_failure(&SessionEnd::Auth(failure), HOST, Some(Rule::LocalOverride.into()));
            assert_eq!(failure.permanence, Permanence::Transient, "{failure:?}");
            assert_eq!(failure.status, LOGIN);
            assert!(failure.text.contains(HOST), "{}", failure.text);
        }
        let judgement = without_login(answered(vec![reply(530, Some((7, 0))), reply(550, None)]));
        let [(0, Outcome::Deferred(wants)), (1, Outcome::Failed(_))] = &judgement.outcomes[..] else {
            panic!("{judgement:?}");
        };
        assert_eq!(wants.status, LOGIN);
    }

    #[test]
    fn only_missing_addresses_are_not_believed_at_once() {
        let of = |status| Failure { permanence: Permanence::Permanent, status, ..dial_failure("", HOST) };
        let gone = Outcome::Failed(of(EnhancedStatus::new(5, 4, 4)));
        assert!(matches!(not_at_once(gone), Outcome::Deferred(f) if f.status.to_string() == "4.4.4"));
        let null_mx = Outcome::Failed(of(EnhancedStatus::new(5, 1, 10)));
        assert_eq!(not_at_once(null_mx.clone()), null_mx);
    }

    #[test]
    fn one_transient_host_is_enough_to_try_again_and_a_policys_words_win() {
        let permanent = missing_failure(Missing::SmtpUtf8, HOST);
        let down = dial_failure("connection refused", HOST);
        let policy =
            session_failure(&SessionEnd::Tls(TlsFailure::TlsaMismatch), HOST, Some(Rule::Dane.into()));
        assert!(matches!(exhausted(std::slice::from_ref(&permanent)), Outcome::Failed(_)));
        assert!(matches!(exhausted(&[down.clone(), permanent.clone()]), Outcome::Deferred(_)));
        assert!(matches!(exhausted(&[policy, down]), Outcome::Deferred(f) if f.rule.is_some()));
    }
}
