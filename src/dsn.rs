//! Bounces, delay warnings and success notices (RFC 3461, RFC 3464, RFC 6522, RFC 6533).
//!
//! Pure: composes bytes from facts; the queue carries them like any message.

use jiff::Timestamp;

use crate::mail::{Domain, Envelope, Failure, Reply};

/// What a notice says of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Given up.
    Failed(Failure),
    /// Still trying, with the last failure.
    Delayed {
        /// The last failure.
        failure: Failure,
        /// Given up at this instant.
        will_retry_until: Timestamp,
    },
    /// Handed to a host without DSN (`relayed`, RFC 3461 §5.2.2).
    Relayed(Reply),
}

/// Everything a notice is made of.
#[derive(Debug, Clone)]
pub struct NoticeFacts<'a> {
    /// Our name: Reporting-MTA, From domain, Message-ID.
    pub hostname: &'a Domain,
    /// The message's envelope.
    pub envelope: &'a Envelope,
    /// Our name for the message.
    pub queue_id: String,
    /// When it came in.
    pub received_at: Timestamp,
    /// When the notice is made.
    pub now: Timestamp,
    /// `(position in the envelope, what happened)`; never empty.
    pub recipients: Vec<(usize, Notice)>,
    /// The start of the stored message: whole header at least, whole message if `complete`.
    pub original: &'a [u8],
    /// `original` is the whole message.
    pub complete: bool,
    /// For Message-ID and MIME boundary.
    pub random: u64,
}

/// A notice ready to be queued: null reverse-path, recipient = the reverse-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposedNotice {
    /// Its envelope.
    pub envelope: Envelope,
    /// Its content, CRLF lines, without Received.
    pub content: Vec<u8>,
}

/// Composes one notice about recipients of one kind, or several kinds; `None` when the reverse-path
/// is null (invariant I3). The caller has already left out recipients whose NOTIFY forbids it.
pub fn compose(facts: &NoticeFacts<'_>) -> Option<ComposedNotice> {
    todo!()
}
