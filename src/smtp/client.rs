//! The client's side of an SMTP session, sans-io (RFC 5321, 3207, 2920).
//!
//! Pure: no socket, no clock. The driver asks [`Session::next_action`], does it, and tells what
//! happened by a `handle_*` method. Called by `delivery::conversation` and by the probe.
//!
//! The life of a session: greeting; EHLO, or HELO where EHLO is unknown; STARTTLS and, inside it,
//! EHLO again with everything heard before forgotten; AUTH, where [`Session::logging_in`] was said; then
//! [`Action::Idle`]. With [`TlsUse::Implicit`] the handshake comes before all of it. From there any number
//! of transactions, each MAIL, RCPT.., DATA, content, final dot, back to idle, or BDAT in place of
//! DATA where the server offers it and [`Session::use_chunking`] was said, even in the same flight as
//! the commands ([`Session::use_one_flight`]); RSET goes ahead of the next one when the last was cut
//! short. QUIT ends it. Whatever else happens ends it at once.
//!
//! Never: MAIL before the handshake where TLS is required; AUTH outside TLS; a reply counted for a command that was
//! not sent yet; a panic, whatever the server says and in whatever order the driver calls.
//! See also: [`super::decoder`] (octets to replies), [`super::extensions`] (EHLO), `delivery::judge`
//! (what an ending means for the recipients).

mod auth;
mod exchange;
mod options;
mod phases;
mod session;
mod states;
mod transaction;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use auth::{AuthFailure, Credentials};
pub use exchange::Chunk;
pub use options::{Timeouts, TlsUse};
pub use phases::Phase;
pub use session::{Session, SessionEnd};
pub use transaction::{Missing, Transaction, TransactionEnd, TransactionRecipient};

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
        /// Time limit for the reply, not for one piece of it: while [`Session::replies_read`] says
        /// the same as at the last `Read`, the time is still running.
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
    /// Send the next chunk: `BDAT`, its exact size, `LAST` with the last one, and its octets as they are
    /// (RFC 3030 §2); then `handle_chunk`.
    SendChunk {
        /// Octets that go out ahead of it, in the same write: the commands of its transaction, where all
        /// goes in one flight ([`Session::use_one_flight`]).
        before: Vec<u8>,
        /// Time limit per block (RFC 5321 §4.5.3.2.5).
        within: Duration,
    },
    /// Ready for [`Session::begin`], or [`Session::quit`]. After a transaction its result is here.
    Idle,
    /// Close the connection; the session is over. [`Session::end`] says why.
    Close,
}
