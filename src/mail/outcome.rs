//! What became of a recipient in one attempt.
//!
//! The consequence (next host, defer, bounce) is decided once, in `delivery::judge`, from scope and
//! permanence; the words here are what operators, DSNs and logs show.

use serde::{Deserialize, Serialize};

use super::reply::{EnhancedStatus, Reply};

/// The result of one attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The next hop took responsibility with this reply.
    Delivered(Reply),
    /// Not now; tried again until the lifetime ends.
    Deferred(Failure),
    /// Never; the sender is told.
    Failed(Failure),
}

/// Whom a failure hits (RFC 3463 subjects; Postfix calls it session, site, message, recipient).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// One recipient of the transaction.
    Recipient,
    /// This message, whoever receives it (size, 8-bit, content).
    Message,
    /// This MX host: another one may do.
    Host,
    /// The whole destination.
    Domain,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permanence {
    /// 4yz, time-outs, DNS trouble, and every policy failure (RFC 8461 §5).
    Transient,
    /// 5yz and facts such as a null MX.
    Permanent,
}

/// A failure, with everything an operator or a sender needs to understand it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whom it hits.
    pub scope: Scope,
    /// Whether trying again can help.
    pub permanence: Permanence,
    /// RFC 3463 code in the class of `permanence`.
    pub status: EnhancedStatus,
    /// One sentence: what failed, for whom, which rule. No line breaks.
    pub text: String,
    /// The MX host it happened at, if any: its name as in the MX record.
    pub host: Option<String>,
    /// The host's reply, if it said one (only then DSNs carry Diagnostic-Code, RFC 3464 §2.3.6).
    pub reply: Option<Reply>,
    /// The policy rule that decided, for failures of policy: `mta-sts enforce`, `dane`, ...
    pub rule: Option<String>,
}
