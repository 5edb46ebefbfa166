//! The words of the queue's boundary: what goes in, what comes out, what can go wrong.
//!
//! Plain data, no disk; `queue` has the verbs.

use std::path::PathBuf;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::body::Body;
use super::freezes::Freeze;
use crate::mail::{Destination, Envelope};
use crate::queue::{ItemId, QueueId, QueueItem};

/// A message about to be queued.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// From [`Queue::allocate_id`](super::Queue::allocate_id); already named in the Received field.
    pub id: QueueId,
    /// Its envelope; the queue makes one item per destination.
    pub envelope: Envelope,
    /// The content as it will be sent: CRLF lines, our Received field in front.
    pub body: Body,
    /// When it was received.
    pub received_at: Timestamp,
    /// See [`QueueItem::is_report`].
    pub is_report: bool,
    /// See [`QueueItem::expires_at`].
    pub expires_at: Option<Timestamp>,
}

/// An item leased to one delivery; settle it, or let the lease run out and it is due again.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The item.
    pub item: QueueItem,
    /// Fencing token: a settle with an outdated one is refused.
    pub fence: u64,
    /// The lease ends here, as long as nobody sets the clock.
    pub leased_until: Timestamp,
    /// When the lease was given or lengthened last, whatever the clock says.
    pub leased_at: Instant,
}

/// Why the queue refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// No space: answer 452, nothing was kept.
    #[error("no space left for the queue: {0}")]
    Full(String),
    /// The disk may not be written to now: answer 452, nothing was kept. Passes by itself.
    #[error("the queue's disk is read-only: {0}")]
    ReadOnly(String),
    /// The journal cannot be trusted to write any more: answer 451, accept nothing.
    #[error("queue storage failed: {0}")]
    Storage(String),
    /// The store was written by a newer stsrelay; nothing was changed.
    #[error(
        "{} is of format {found}, which a newer stsrelay wrote; this one ({version}) knows formats up to {known}; \
         nothing was changed: go back to the newer release, or export the queue with it \
         (stsrelay queue export) and import it here into an empty data directory",
        path.display(), version = env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format we know of such files.
        known: u32,
    },
    /// The claim is no longer ours, or the item is gone.
    #[error("the claim on {0} is no longer valid")]
    Fenced(ItemId),
    /// No such message or item.
    #[error("no such message in the queue: {0}")]
    Unknown(String),
}

/// How an item stands, for listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// Waiting for its first attempt or in one.
    Active,
    /// Waiting for another attempt.
    Deferred,
    /// Stopped by an operator.
    Held,
}

/// One line of a listing.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The item, with its history.
    pub item: QueueItem,
    /// How it stands.
    pub state: EntryState,
    /// When it is tried next; absent when held.
    pub next_attempt: Option<Timestamp>,
}

/// Which items a listing or an operation is about; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// This message, or this item of it.
    pub id: Option<QueueId>,
    /// This item only.
    pub item: Option<ItemId>,
    /// Exactly this reverse-path mailbox, without brackets; empty for the null path.
    pub sender: Option<String>,
    /// This destination.
    pub recipient_domain: Option<Destination>,
    /// One of these destinations.
    pub among: Option<Arc<BTreeSet<Destination>>>,
    /// Standing like this.
    pub state: Option<EntryState>,
    /// Received in this second or before.
    pub received_before: Option<Timestamp>,
    /// Received in this second or after.
    pub received_after: Option<Timestamp>,
    /// The last error has these words, in whatever case.
    pub error: Option<String>,
    /// Not the messages of this id's node from this id on: those queued since an operation began.
    pub below: Option<QueueId>,
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// In order of queue id.
    pub entries: Vec<Entry>,
    /// Pass it on to get the next page; absent at the end.
    pub cursor: Option<ItemId>,
}

/// What an operator does to items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminAction {
    /// Due now.
    Retry,
    /// Not tried until released.
    Hold,
    /// Undo a hold; due now.
    Release,
    /// Removed without a bounce.
    Delete,
}

/// Totals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Items waiting for their first attempt or in one.
    pub active: u64,
    /// Items waiting for another attempt.
    pub deferred: u64,
    /// Items held.
    pub held: u64,
    /// Octets of journal segments and body files.
    pub bytes: u64,
    /// When the oldest message in the queue was received.
    pub oldest: Option<Timestamp>,
    /// The same of active, deferred and held items.
    pub oldest_by_state: [Option<Timestamp>; 3],
    /// Items per destination, most first, at most 20.
    pub destinations: Vec<(Destination, u64)>,
}

/// Ages up to which items are told apart in a [`Survey`], seconds: an hour, four, a day, two. What is older
/// than the last is a class of its own.
pub const AGE_CLASSES: [u32; 4] = [3_600, 14_400, 86_400, 172_800];

/// The queue by destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Most items first.
    pub destinations: Vec<DestinationTotal>,
    /// Items by age, in the classes of [`AGE_CLASSES`] and one for all that is older.
    pub ages: [u64; AGE_CLASSES.len() + 1],
    /// In order of name.
    pub frozen: Vec<Freeze>,
}

/// Items of one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationTotal {
    /// Which.
    pub destination: Destination,
    /// Waiting for their first attempt or in one.
    pub active: u64,
    /// Waiting for another attempt.
    pub deferred: u64,
    /// Held.
    pub held: u64,
    /// When the oldest was received, to the second.
    pub oldest: Timestamp,
}

impl DestinationTotal {
    pub(super) fn none(destination: Destination, oldest: Timestamp) -> Self {
        Self { destination, active: 0, deferred: 0, held: 0, oldest }
    }

    /// In all states.
    pub fn items(&self) -> u64 {
        self.active + self.deferred + self.held
    }
}

/// Whether messages can be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Fine,
    /// There is room only for what was accepted already: 452 until there is more. Nothing is wrong.
    Low(String),
    /// The disk is full: 452 until there is space again.
    Full(String),
    /// The disk is read-only: 452, and nothing is delivered, until it can be written to again.
    ReadOnly(String),
    /// The journal failed: 451 until restart.
    Failed(String),
}

impl Health {
    /// Why no messages are accepted, in words; `None` while they are.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Fine => None,
            Self::Low(text) => Some(format!("no room for more mail: {text}")),
            Self::Full(text) => Some(format!("disk full: {text}")),
            Self::ReadOnly(text) => Some(format!("disk read-only: {text}")),
            Self::Failed(text) => Some(format!("storage failed: {text}")),
        }
    }
}
