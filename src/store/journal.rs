//! The journal's one writer: group commit, full disks, failed disks.
//!
//! One loop takes what waits (no timer: what arrives during one sync is the next group), writes it
//! in one go, syncs once, applies it to the table in order and wakes its clients. Contents are
//! written from where they are, never copied together.
//!
//! - A write that finds no room is cut off again. Messages are then refused; what records
//!   deliveries goes on in the space of the reserve file, and when the keeper could make a new
//!   reserve, messages are accepted again.
//! - A disk that became read-only took nothing: nothing is written or delivered until the keeper finds
//!   that it can be written to again; then what was not acknowledged is cut off and all goes on.
//! - Any other failed write, cut or sync is the end: what the kernel did with the data is unknown,
//!   a second sync would say Ok and prove nothing. Nothing is written until a restart has read the
//!   journal afresh.

mod writer;

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::compaction::{Move, Moved};
use super::disk::DiskFile;
use super::frame::Op;
use super::ground::{Loops, Running};
use super::notions::QueueError;
use super::record::Change;
use super::shared::{Shared, closed};
use writer::Writer;

/// A frame to write: all of it or nothing.
pub(super) struct Submission {
    ops: Vec<Op>,
    changes: Vec<Planned>,
    /// Records deliveries or an operator's will; goes on when messages are refused.
    vital: bool,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<(), QueueError>>;

/// A change, the operation that says it, and what may stay in memory of it.
struct Planned {
    change: Change,
    op: usize,
    body: Option<Bytes>,
}

/// A frame being put together; checksums are taken here, by the caller.
#[derive(Default)]
pub(super) struct Draft {
    ops: Vec<Op>,
    changes: Vec<Planned>,
    vital: bool,
}

impl Draft {
    /// A frame that must find room when messages do not.
    pub(super) fn vital() -> Self {
        Self { vital: true, ..Self::default() }
    }

    fn submit(self, reply: Reply) -> Submission {
        Submission { ops: self.ops, changes: self.changes, vital: self.vital, reply }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds everything of another draft.
    pub(super) fn append(&mut self, other: Self) {
        let shift = self.ops.len();
        self.ops.extend(other.ops);
        self.changes.extend(other.changes.into_iter().map(|one| Planned { op: one.op + shift, ..one }));
    }

    /// Adds how an attempt travelled.
    pub(super) fn push_evidence(&mut self, content: Bytes) {
        self.ops.push(Op::new(super::frame::Kind::Evidence, content));
    }

    /// Adds a change, with a message's content.
    pub(super) fn push(&mut self, change: Change, body: Option<Bytes>) {
        let op = self.ops.len();
        self.ops.push(change.op());
        self.ops.extend(body.clone().map(|body| Op::new(super::frame::Kind::Body, body)));
        self.changes.push(Planned { change, op, body });
    }
}

enum Work {
    Commit(Submission),
    Move(Vec<Move>, oneshot::Sender<Result<Moved, QueueError>>),
    Resume(oneshot::Sender<Result<(), QueueError>>),
}

/// The way to the writer. Closing it ends its loop after what waits.
pub(super) struct Journal {
    sender: RwLock<Option<UnboundedSender<Work>>>,
}

impl Journal {
    /// Starts the writer behind `tail`; the table must be as the journal says up to there. A
    /// reservation of queue ids is durable when it returns, unless the disk is full.
    pub(super) fn start(
        shared: Arc<Shared>,
        tail: Tail,
        loops: Loops,
    ) -> Result<(Self, Running<()>), QueueError> {
        let (sender, receiver) = unbounded_channel();
        let ids_below = shared.table().ids_below;
        let mut writer = Writer {
            ids_below,
            shared,
            segment: tail.segment,
            len: tail.len,
            file: tail.file,
            scratch: Vec::new(),
        };
        let (reply, mut answer) = oneshot::channel();
        writer.commit(vec![Draft::vital().submit(reply)]);
        match answer.try_recv() {
            Ok(Ok(()) | Err(QueueError::Full(_))) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(closed()),
        }
        let running = loops.start("queue-journal", writer.run(receiver))?;
        Ok((Self { sender: RwLock::new(Some(sender)) }, running))
    }

    /// Writes a frame; `Ok` means it is durable and applied. It is written even if the caller stops
    /// waiting.
    pub(super) async fn commit(&self, draft: Draft) -> Result<(), QueueError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Commit(draft.submit(reply)));
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Moves messages to the end of the journal, those that are still where they were read.
    pub(super) async fn relocate(&self, moves: Vec<Move>) -> Result<Moved, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Move(moves, reply));
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Asks whether a disk that was read-only can be written to again, and goes on if so.
    pub(super) async fn resume(&self) -> Result<(), QueueError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Resume(reply));
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn send(&self, work: Work) {
        // When the writer is gone, the reply channel is dropped and the caller is told so.
        if let Some(sender) = self.sender.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = sender.send(work);
        }
    }

    /// Takes nothing more; the loop ends when what waits is done.
    pub(super) fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Where writing goes on.
pub(super) struct Tail {
    /// The segment last written, 0 when there is none.
    pub segment: u32,
    pub len: u64,
    /// Absent when a new segment must be begun.
    pub file: Option<Box<dyn DiskFile>>,
}
