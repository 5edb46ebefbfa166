//! The queue's boundary.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::mail::{Destination, Domain, Envelope};
use crate::queue::{AttemptRecord, ItemId, QueueId, QueueItem, Settlement};

/// Where and how the queue is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueOptions {
    /// `server.data_dir`; the queue lives in `queue/` below it.
    pub data_dir: PathBuf,
    /// Part of every queue id.
    pub node: u16,
}

/// A durable queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<()>,
}

/// A message about to be queued.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// From [`Queue::allocate_id`]; already named in the Received field.
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

/// A message's content. Small ones are in memory, large ones in a file. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Body {
    /// At most 1 MB.
    Memory(Bytes),
    /// A finished file of the store's own, durable before the message is.
    File {
        /// Where.
        path: PathBuf,
        /// Octets.
        len: u64,
    },
}

impl Body {
    /// Octets.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes a body in pieces while a transaction runs; memory first, a spool file beyond 1 MB.
/// Dropping it unfinished leaves nothing behind.
pub struct BodyWriter {
    _private: (),
}

/// Reads a stored body in pieces.
pub struct BodyReader {
    _private: (),
}

/// An item leased to one delivery; settle it, or let the lease run out and it is due again.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The item.
    pub item: QueueItem,
    /// Fencing token: a settle with an outdated one is refused.
    pub fence: u64,
    /// The lease ends here.
    pub leased_until: Timestamp,
}

/// Why the queue refused.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No space: answer 452, nothing was kept.
    #[error("no space left for the queue: {0}")]
    Full(String),
    /// The journal cannot be trusted to write any more: answer 451, accept nothing.
    #[error("queue storage failed: {0}")]
    Storage(String),
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
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// This message, or this item of it.
    pub id: Option<QueueId>,
    /// This item only.
    pub item: Option<ItemId>,
    /// Exactly this reverse-path mailbox, without brackets; empty for the null path.
    pub sender: Option<String>,
    /// This destination.
    pub recipient_domain: Option<Destination>,
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
#[derive(Debug, Clone, Default, Serialize)]
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
    /// Items per destination, most first, at most 20.
    pub destinations: Vec<(Destination, u64)>,
}

/// Whether messages can be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Fine,
    /// The disk is full: 452 until there is space again.
    Full(String),
    /// The journal failed: 451 until restart.
    Failed(String),
}

impl Queue {
    /// Opens or creates the queue, replaying or rebuilding the index from the journal as needed.
    /// Returns what was repaired, one sentence each, for the operator; empty when all was well.
    ///
    /// Blocking: call before the runtime serves, or from a blocking thread.
    ///
    /// # Errors
    /// [`QueueError::Storage`] names the path and the trouble, e.g. in use by another process.
    pub fn open(options: &QueueOptions, now: Timestamp) -> Result<(Self, Vec<String>), QueueError> {
        todo!()
    }

    /// A new queue id, never used before on this node.
    pub fn allocate_id(&self) -> QueueId {
        todo!()
    }

    /// Starts a body.
    pub fn body_writer(&self) -> BodyWriter {
        todo!()
    }

    /// Queues a message; `Ok` means body and envelope are on stable storage (invariant I1).
    ///
    /// # Errors
    /// [`QueueError::Full`] or [`QueueError::Storage`]; then nothing of it is kept.
    pub async fn enqueue(&self, message: NewMessage) -> Result<QueueId, QueueError> {
        todo!()
    }

    /// Leases up to `max` due items, longest due first. Never blocks on the disk for fresh messages.
    pub async fn claim_due(
        &self,
        now: Timestamp,
        max: usize,
        lease: Duration,
    ) -> Result<Vec<Claim>, QueueError> {
        todo!()
    }

    /// Lengthens a lease while a long attempt runs.
    pub async fn extend(&self, claim: &mut Claim, now: Timestamp, lease: Duration) -> Result<(), QueueError> {
        todo!()
    }

    /// Ends a claim: new recipient states, the attempt for the record, and messages born of it
    /// (bounce, delay warning), all in one durable step (invariant I2). `warned` marks the delay
    /// warning as sent.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when the claim is outdated: nothing was changed.
    pub async fn settle(
        &self,
        claim: Claim,
        settlement: &Settlement,
        attempt: AttemptRecord,
        born: Vec<NewMessage>,
    ) -> Result<(), QueueError> {
        todo!()
    }

    /// Gives a claim back without an attempt (shutdown, no permit): due again at `at`.
    pub async fn unclaim(&self, claim: Claim, at: Timestamp) -> Result<(), QueueError> {
        todo!()
    }

    /// The content of a message.
    pub async fn body(&self, id: QueueId) -> Result<Body, QueueError> {
        todo!()
    }

    /// When the next item is due, if any waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Resolves when something became due earlier than was known, e.g. by `enqueue` or `retry`.
    pub async fn wakeup(&self) {
        todo!()
    }

    /// A page of items in order of id, after `cursor`.
    pub async fn list(
        &self,
        filter: &Filter,
        cursor: Option<ItemId>,
        max: usize,
    ) -> Result<Page, QueueError> {
        todo!()
    }

    /// Does `action` to every item the filter names; returns how many there were. Items in an
    /// attempt are held or deleted as soon as it ends; what it delivers stays delivered.
    pub async fn admin(
        &self,
        filter: &Filter,
        action: AdminAction,
        now: Timestamp,
    ) -> Result<u64, QueueError> {
        todo!()
    }

    /// Totals.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Whether messages can be accepted.
    pub fn health(&self) -> Health {
        todo!()
    }

    /// Flushes, marks the store CLEAN and stops its threads. Later calls fail.
    pub async fn close(&self) {
        todo!()
    }
}

impl BodyWriter {
    /// Appends.
    ///
    /// # Errors
    /// [`QueueError::Full`] or [`QueueError::Storage`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        todo!()
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the body. A file is synced by [`Queue::enqueue`] at the latest.
    ///
    /// # Errors
    /// [`QueueError::Full`] or [`QueueError::Storage`].
    pub async fn finish(self) -> Result<Body, QueueError> {
        todo!()
    }
}

impl Body {
    /// Opens it for reading in pieces.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when the file is gone or unreadable.
    pub async fn reader(&self) -> Result<BodyReader, QueueError> {
        todo!()
    }

    /// The first octets, at most `max`: for headers in a DSN.
    ///
    /// # Errors
    /// As for [`Body::reader`].
    pub async fn head(&self, max: usize) -> Result<Bytes, QueueError> {
        todo!()
    }
}

impl BodyReader {
    /// The next piece (some 64 KB), or `None` at the end.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, QueueError> {
        todo!()
    }
}

/// Placeholder for listings by domain.
pub type DestinationDomain = Domain;
