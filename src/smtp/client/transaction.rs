//! One mail transaction as asked for and as ended, and its commands in words.
//!
//! What the server does not list is never sent (RFC 5321 §3.3); what the message cannot do without
//! is checked before anything is sent. Used by `exchange`, which runs it.

use crate::mail::{BodyType, ForwardPath, Notify, Reply, Ret, ReversePath};
use crate::smtp::extensions::Extensions;

/// One MAIL transaction.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// MAIL FROM
    pub reverse_path: ReversePath,
    /// RCPT TO, never empty.
    pub recipients: Vec<TransactionRecipient>,
    /// BODY=
    pub body: BodyType,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// RET=
    pub ret: Option<Ret>,
    /// ENVID= as xtext
    pub envid: Option<String>,
    /// REQUIRETLS must be offered and is sent.
    pub require_tls: bool,
    /// Octets of the content, CRLFs counted, stuffing not (RFC 1870 §6).
    pub size: u64,
}

/// One RCPT.
#[derive(Debug, Clone)]
pub struct TransactionRecipient {
    /// RCPT TO
    pub path: ForwardPath,
    /// NOTIFY=
    pub notify: Option<Notify>,
    /// ORCPT= as given
    pub orcpt: Option<String>,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionEnd {
    /// Every recipient has its deciding reply, in order: the refusal of MAIL, of its RCPT, of DATA,
    /// or the answer to the final dot. A 2yz is always the answer to the final dot: delivered.
    /// Everything else here is 4yz (never 421) or 5yz.
    Answered(Vec<Reply>),
    /// The server lacks what the message needs; nothing was sent.
    Unsupported(Missing),
    /// The session broke before all was answered; see [`super::Session::end`]. Recipients refused
    /// before keep their reply.
    Broken {
        /// In order; `None` where nothing was decided. Never positive.
        replies: Vec<Option<Reply>>,
        /// The final dot was sent and not answered: the message may have been delivered (I9).
        uncertain: bool,
    },
}

/// An extension the message needs and the server does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// RFC 6531
    SmtpUtf8,
    /// RFC 6152, and the content has 8-bit octets
    EightBitMime,
    /// RFC 8689
    RequireTls,
    /// RFC 1870: the server takes at most this many octets.
    Size(u64),
}

impl Transaction {
    /// What the server would have to offer, and does not.
    pub(super) fn missing(&self, offers: &Extensions, is_tls: bool) -> Option<Missing> {
        // RFC 8689 §2: REQUIRETLS means nothing outside TLS.
        if self.require_tls && !(is_tls && offers.require_tls) {
            return Some(Missing::RequireTls);
        }
        // RFC 6531 §3.2: not to a server that does not offer it.
        if self.needs_smtputf8() && !offers.smtputf8 {
            return Some(Missing::SmtpUtf8);
        }
        // RFC 6152 §3: 8-bit content only where it is welcome.
        if self.body == BodyType::EightBitMime && !offers.eight_bit_mime {
            return Some(Missing::EightBitMime);
        }
        match offers.size {
            // RFC 1870 §4: zero, or no number, is no fixed limit.
            Some(limit) if limit > 0 && self.size > limit => Some(Missing::Size(limit)),
            _ => None,
        }
    }

    fn needs_smtputf8(&self) -> bool {
        let in_path = |path: &ForwardPath| path.needs_smtputf8();
        self.smtputf8
            || self.reverse_path.mailbox().is_some_and(in_path)
            || self.recipients.iter().any(|recipient| in_path(&recipient.path))
    }

    /// `MAIL FROM:<...>` with the parameters the server takes, CRLF included.
    pub(super) fn mail_command(&self, offers: &Extensions) -> String {
        let mut line = format!("MAIL FROM:{}", self.reverse_path);
        if offers.size.is_some() {
            line += &format!(" SIZE={}", self.size);
        }
        if self.body == BodyType::EightBitMime && offers.eight_bit_mime {
            line += " BODY=8BITMIME";
        }
        if self.needs_smtputf8() && offers.smtputf8 {
            line += " SMTPUTF8";
        }
        if self.require_tls && offers.require_tls {
            line += " REQUIRETLS";
        }
        // RFC 3461 §5.2.1, §5.2.2: on to the next hop unchanged, or not at all.
        if offers.dsn {
            match self.ret {
                Some(Ret::Full) => line += " RET=FULL",
                Some(Ret::Headers) => line += " RET=HDRS",
                None => {}
            }
            if let Some(envid) = self.envid.as_deref().filter(|text| is_parameter(text, offers)) {
                line += &format!(" ENVID={envid}");
            }
        }
        line + "\r\n"
    }
}

impl TransactionRecipient {
    /// `RCPT TO:<...>` with the parameters the server takes, CRLF included.
    pub(super) fn rcpt_command(&self, offers: &Extensions) -> String {
        let mut line = format!("RCPT TO:<{}>", self.path);
        // RFC 3461 §5.2.1: NOTIFY is passed on, never added.
        if offers.dsn {
            if let Some(words) = self.notify.and_then(notify_words) {
                line += &format!(" NOTIFY={words}");
            }
            if let Some(orcpt) = self.orcpt.as_deref().filter(|text| is_parameter(text, offers)) {
                line += &format!(" ORCPT={orcpt}");
            }
        }
        line + "\r\n"
    }
}

fn notify_words(notify: Notify) -> Option<String> {
    let Notify::When(when) = notify else { return Some("NEVER".to_owned()) };
    let words: Vec<&str> = [(when.success, "SUCCESS"), (when.failure, "FAILURE"), (when.delay, "DELAY")]
        .into_iter()
        .filter_map(|(wanted, word)| wanted.then_some(word))
        .collect();
    // RFC 3461 §4.1: an empty list cannot be said.
    (!words.is_empty()).then(|| words.join(","))
}

/// Whether the text can stand in a command line without changing it: a last guard, parameters are
/// parsed at intake. Non-ASCII only where SMTPUTF8 is (RFC 5321 §4.1.2 esmtp-value, RFC 6531 §3.3).
fn is_parameter(text: &str, offers: &Extensions) -> bool {
    let fits = |c: char| c.is_ascii_graphic() || (offers.smtputf8 && !c.is_ascii() && !c.is_control());
    !text.is_empty() && text.chars().all(|c| fits(c) && !c.is_whitespace())
}
