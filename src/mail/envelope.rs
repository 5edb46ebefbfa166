//! A message's envelope: everything SMTP says about it outside its content.
//!
//! What the submitter asked for (DSN parameters, BODY, SMTPUTF8, REQUIRETLS) is kept in the queue
//! and sent on unchanged where the next hop allows it (RFC 3461 §5.2.1, RFC 6152 §2, RFC 8689 §4.1).

use serde::{Deserialize, Serialize};

use super::address::{ForwardPath, ReversePath};

/// The envelope of one message, with all its recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where failures are told; null is never bounced (invariant I3).
    pub reverse_path: ReversePath,
    /// In the order given; never empty.
    pub recipients: Vec<Recipient>,
    /// `BODY=` of MAIL (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// `SMTPUTF8` of MAIL (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// `RET=` of MAIL (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` of MAIL, still xtext-encoded as given (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// What was asked about TLS (RFC 8689).
    pub tls: TlsRequest,
}

/// One recipient with its DSN parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// `RCPT TO:`
    pub path: ForwardPath,
    /// `NOTIFY=` (RFC 3461 §4.1); `None` when not given.
    pub notify: Option<Notify>,
    /// `ORCPT=` as given: `addr-type;xtext` (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

/// `NOTIFY=` (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// No notification of any kind.
    Never,
    /// Those listed; at least one is set.
    When(NotifyWhen),
}

/// The list form of `NOTIFY=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NotifyWhen {
    /// `SUCCESS`
    pub success: bool,
    /// `FAILURE`
    pub failure: bool,
    /// `DELAY`
    pub delay: bool,
}

impl Recipient {
    /// A recipient without DSN parameters.
    pub fn plain(path: ForwardPath) -> Self {
        Self { path, notify: None, orcpt: None }
    }

    /// Whether a failure is to be told (RFC 3461 §5.2: no NOTIFY means yes).
    pub fn wants_failure(&self) -> bool {
        match self.notify {
            None => true,
            Some(Notify::Never) => false,
            Some(Notify::When(when)) => when.failure,
        }
    }

    /// Whether a delay may be told (RFC 3461 §5.2.5: no NOTIFY means it may).
    pub fn wants_delay(&self) -> bool {
        match self.notify {
            None => true,
            Some(Notify::Never) => false,
            Some(Notify::When(when)) => when.delay,
        }
    }

    /// Whether success is to be told (RFC 3461 §5.2: only when asked).
    pub fn wants_success(&self) -> bool {
        matches!(self.notify, Some(Notify::When(NotifyWhen { success: true, .. })))
    }
}

/// `BODY=`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// `7BIT`, also when nothing was said.
    #[default]
    SevenBit,
    /// `8BITMIME` (RFC 6152).
    EightBitMime,
}

/// `RET=` (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ret {
    /// Return the whole message in a failure DSN.
    Full,
    /// Return the headers only.
    Headers,
}

/// What the message itself asks of TLS (RFC 8689).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TlsRequest {
    /// Nothing: policies decide.
    #[default]
    None,
    /// `REQUIRETLS` on MAIL: never in clear, never unauthenticated (RFC 8689 §4.2.1).
    Required,
    /// `TLS-Required: No`: try TLS, but deliver anyway (RFC 8689 §4.2.2). From the message's header,
    /// and on report mail made by the daemon itself (RFC 8460 §3).
    NotRequired,
}
