//! The client's side of an SMTP session, sans-io.
//!
//! The driver asks [`Session::next_action`], does it, and tells what happened by a `handle_*` method.

use std::time::Duration;

use super::extensions::Extensions;
use crate::mail::{BodyType, ForwardPath, Notify, Reply, Ret, ReversePath};
use crate::tlspolicy::TlsFailure;

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write all of these octets, within the time, then `handle_sent`.
    Send {
        /// The octets.
        bytes: Vec<u8>,
        /// Time limit.
        within: Duration,
    },
    /// Read some octets, then `handle_bytes`, `handle_closed` or `handle_timeout`.
    Read {
        /// Time limit.
        within: Duration,
    },
    /// Do the TLS handshake on the connection, hold it against the plan, then `handle_tls`.
    StartTls {
        /// Time limit.
        within: Duration,
    },
    /// Send the stuffed body and its end, each block within the time, then `handle_sent`.
    SendBody {
        /// Time limit per block (RFC 5321 §4.5.3.2.5).
        within: Duration,
    },
    /// Ready for [`Session::begin`], or [`Session::quit`]. After a transaction its result is here.
    Idle,
    /// Close the connection; the session is over. [`Session::end`] says why.
    Close,
}

/// How STARTTLS is to be used on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsUse {
    /// No MAIL before a verified handshake.
    Required,
    /// Used when offered; a session without it goes on in clear.
    IfOffered,
    /// Not even asked for: the second, clear candidate after a failed opportunistic handshake.
    Never,
}

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
    /// or the answer to the final dot.
    Answered(Vec<Reply>),
    /// The server lacks what the message needs; nothing was sent.
    Unsupported(Missing),
    /// The session broke before all was answered; see [`Session::end`]. Recipients refused before
    /// keep their reply. `uncertain`: the final dot was sent, so it may have been delivered (I9).
    Broken {
        /// In order; `None` where nothing was decided.
        replies: Vec<Option<Reply>>,
        /// The final dot was on its way.
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

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// We said QUIT.
    Quit,
    /// The greeting or EHLO was refused with this reply (4yz, 5yz, 421 at any point).
    Refused {
        /// While doing what.
        phase: Phase,
        /// Its words.
        reply: Reply,
    },
    /// TLS was needed or tried and failed.
    Tls(TlsFailure),
    /// Closed, reset, timed out, or not SMTP.
    Lost {
        /// While doing what.
        phase: Phase,
        /// One sentence.
        text: String,
    },
}

/// What the session was doing, with RFC 5321 §4.5.3.2 time limits and phrases in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting for 220.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, until 354.
    Data,
    /// Sending content.
    Body,
    /// The answer to the final dot.
    Dot,
    /// RSET.
    Reset,
    /// QUIT.
    Quit,
}

/// Time limits (RFC 5321 §4.5.3.2), configurable under `[delivery.timeouts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect; used by the driver.
    pub connect: Duration,
    /// 220 greeting: 5 minutes.
    pub greeting: Duration,
    /// EHLO, STARTTLS, MAIL, RSET, the handshake: 5 minutes.
    pub command: Duration,
    /// RCPT: 5 minutes.
    pub rcpt: Duration,
    /// DATA: 2 minutes.
    pub data: Duration,
    /// Each block of content: 3 minutes.
    pub body: Duration,
    /// The final dot: 10 minutes.
    pub dot: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connect: secs(30),
            greeting: secs(300),
            command: secs(300),
            rcpt: secs(300),
            data: secs(120),
            body: secs(180),
            dot: secs(600),
        }
    }
}

/// The session. Made per connection, carries any number of transactions.
#[derive(Debug)]
pub struct Session {
    _private: (),
}

impl Session {
    /// A session on a fresh connection.
    pub fn new(ehlo_name: &str, tls: TlsUse, timeouts: Timeouts) -> Self {
        todo!()
    }
    /// What to do next.
    pub fn next_action(&mut self) -> Action {
        todo!()
    }
    /// The octets are written; or the error's text.
    pub fn handle_sent(&mut self, result: Result<(), String>) {
        todo!()
    }
    /// Octets were read.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        todo!()
    }
    /// The server closed, or reading failed.
    pub fn handle_closed(&mut self, text: &str) {
        todo!()
    }
    /// The time of a `Read` or `StartTls` is over.
    pub fn handle_timeout(&mut self) {
        todo!()
    }
    /// The handshake is done and its plan met; or why not.
    pub fn handle_tls(&mut self, result: Result<(), TlsFailure>) {
        todo!()
    }
    /// Starts a transaction; only when the last action was [`Action::Idle`].
    pub fn begin(&mut self, transaction: Transaction) {
        todo!()
    }
    /// The result of the transaction begun last, once.
    pub fn take_result(&mut self) -> Option<TransactionEnd> {
        todo!()
    }
    /// Says QUIT at the next action; only when idle.
    pub fn quit(&mut self) {
        todo!()
    }
    /// Why the session is over; `None` while it lasts.
    pub fn end(&self) -> Option<&SessionEnd> {
        todo!()
    }
    /// What the server offers now; after TLS only what it said inside (RFC 3207 §4.2).
    pub fn extensions(&self) -> &Extensions {
        todo!()
    }
    /// The name in the banner or EHLO reply (`receiving-mx-helo`).
    pub fn server_name(&self) -> Option<&str> {
        todo!()
    }
    /// Whether the session is inside TLS.
    pub fn is_tls(&self) -> bool {
        todo!()
    }
}
