//! How a failure is told: one sentence, the same for everybody who hears of it, and what can be done.
//!
//! Pure. The deferral log, `queue show`, `explain`, delay warnings and bounces all say
//! [`Failure::sentence`], so that whoever is shown one of them can find the others.

use super::outcome::Failure;

impl Failure {
    /// Code and cause: `4.7.5 host mx.example: certificate has expired ...`. No line breaks.
    pub fn sentence(&self) -> String {
        format!("{} {}", self.status, self.text)
    }

    /// What whoever wrote the message can do about it, for somebody who knows no mail system.
    pub fn advice(&self) -> &'static str {
        match (self.status.subject, self.status.detail) {
            (1, 1 | 3 | 6) => {
                "Check the address for mistakes. If it is right, ask the recipient in another way \
                 whether it still exists."
            }
            // RFC 3463 §3.2, RFC 7505 §4.1; (4, 4): no way to the domain.
            (1, 2 | 10) | (4, 4) => {
                "Check the part of the address after the @. If it is right, its owner receives no mail \
                 there at present."
            }
            (2, 2) => "The recipient's mailbox is full. Ask the recipient to make room, and send it again.",
            (2, 3) | (3, 4) => "Send a smaller message, or what makes it large in another way.",
            (4, 6) => {
                "Show this message to your helpdesk: a mail system is set up so that mail runs in circles."
            }
            (6, 7) => "The recipient's mail system knows no international addresses: use plain ones.",
            (6, _) => "The recipient's mail system cannot take this form of message: send it as plain text.",
            // RFC 8689 §4.2.1.
            (7, 30) => {
                "The message asks to be protected on its whole way, which the recipient's mail system does \
                 not promise. If it needs no such protection, send it without that request."
            }
            // RFC 4954 §6: ours at the next hop.
            (7, 8) if self.status.class == 4 || self.reply.is_none() => {
                "Nothing is wrong with your message: your own mail system cannot log in where it hands mail \
                 over. Show this message to your helpdesk."
            }
            (7, _) if self.rule.is_some() => {
                "Nothing is wrong with your message: it waits for a safe way to the recipient, and there is \
                 none. Whoever runs the recipient's mail system can mend that: let them see this message."
            }
            (7, _) => {
                "The recipient's mail system refuses the message by rules of its own; its answer may say \
                 which. Ask the recipient in another way to have it let through."
            }
            (4, _) => {
                "Nothing is wrong with your message: the recipient's mail system could not be reached. Send it \
                 again later, or tell the recipient in another way."
            }
            _ if self.reply.is_some() => {
                "The recipient's mail system refuses the message; its answer says why. Show it to your \
                 helpdesk, or to the recipient in another way."
            }
            _ => "Show this message to your helpdesk.",
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mail::{EnhancedStatus, Failure, Permanence, Reply, Scope};

    fn failure(subject: u16, detail: u16) -> Failure {
        Failure {
            scope: Scope::Host,
            permanence: Permanence::Permanent,
            status: EnhancedStatus::new(5, subject, detail),
            text: "host mx.example: words".to_owned(),
            host: None,
            reply: None,
            rule: None,
        }
    }

    #[test]
    fn the_sentence_has_code_and_cause() {
        assert_eq!(failure(7, 5).sentence(), "5.7.5 host mx.example: words");
    }

    #[test]
    fn the_advice_is_about_what_the_sender_can_change() {
        let forbidden = Failure { rule: Some("dane".to_owned()), ..failure(7, 5) };
        let answered =
            Failure { reply: Some(Reply::new(550, EnhancedStatus::new(5, 0, 0), "no")), ..failure(0, 0) };
        for (failure, words) in [
            (failure(1, 1), "Check the address"),
            (failure(1, 10), "after the @"),
            (failure(2, 2), "full"),
            (failure(3, 4), "smaller"),
            (failure(4, 7), "could not be reached"),
            (failure(7, 30), "without that request"),
            (failure(7, 8), "cannot log in"),
            (forbidden, "let them see this message"),
            (failure(7, 1), "rules of its own"),
            (answered, "its answer says why"),
            (failure(3, 0), "helpdesk"),
        ] {
            assert!(failure.advice().contains(words), "{}: {}", failure.status, failure.advice());
        }
    }
}
