//! How messages travelled, kept over restarts: an append-only log of attempts, in segments.
//!
//! An attempt's evidence is one more operation of the frame that settles it, so it is durable with the
//! settlement and costs no sync of its own. The keeper moves it from there into this log: written
//! before the index's checkpoint passes it, synced before its journal segment may leave. At start
//! whatever the log lacks is read from the journal again, told apart by its place there, so that
//! every settled attempt is in the log exactly once.
//!
//! Never holds up mail: on a full disk the oldest evidence gives way and no new is taken, and the log
//! says so. Bounded in time and octets; the oldest segments are dropped first.
//! Inside: `segment` and `filter` (bytes, pure), `log` (writing), `find` (looking up).

#[cfg(test)]
mod cost;
mod filter;
mod find;
mod log;
mod segment;

use std::time::Duration;

use bytes::Bytes;

pub use find::{EvidenceCursor, EvidenceFilter, EvidencePage};
pub(super) use log::Log;
pub(super) use segment::render_draft;

use super::segments::Position;
use crate::queue::{AttemptRecord, EvidenceDraft};

/// The format a segment of the log says it is of; `None` when it says none.
pub(super) fn format_of(head: &[u8]) -> Option<u32> {
    match segment::Header::parse(head) {
        Ok(_) => Some(super::format::EVIDENCE),
        Err(segment::HeaderError::Newer(found)) => Some(found),
        Err(segment::HeaderError::Damaged) => None,
    }
}

/// How long evidence is kept, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceLimits {
    /// `evidence.keep`
    pub keep: Duration,
    /// `evidence.max_size`, octets.
    pub max_bytes: u64,
}

impl Default for EvidenceLimits {
    fn default() -> Self {
        // A month is what questions about a message usually take to come; a gigabyte is some two and
        // a half million attempts.
        Self { keep: Duration::from_secs(30 * 86_400), max_bytes: 1_000_000_000 }
    }
}

/// An attempt as it is settled: for the operator's eyes, and its evidence if that is kept.
#[derive(Debug, Clone)]
pub struct Tried {
    /// What `queue show` tells.
    pub record: AttemptRecord,
    /// How it travelled.
    pub evidence: Option<EvidenceDraft>,
}

impl From<AttemptRecord> for Tried {
    fn from(record: AttemptRecord) -> Self {
        Self { record, evidence: None }
    }
}

/// Evidence that is durable in the journal and not yet in the log. Part of the table.
#[derive(Default)]
pub(super) struct Pending {
    /// Nothing up to here is taken: the log has it.
    pub moved: Option<Position>,
    list: Vec<(Position, Bytes)>,
    bytes: usize,
}

impl Pending {
    /// Takes in an attempt that is durable at this place, unless the log has it.
    pub(super) fn push(&mut self, at: Position, content: Bytes) {
        if self.moved.is_none_or(|moved| at > moved) {
            self.bytes += content.len();
            self.list.push((at, content));
        }
    }

    /// The attempts waiting, oldest first.
    pub(super) fn list(&self) -> Vec<(Position, Bytes)> {
        self.list.clone()
    }

    /// Octets waiting.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest of them are in the log, or given up.
    pub(super) fn done(&mut self, count: usize) {
        if let Some((at, _)) =
            count.checked_sub(1).and_then(|last| self.list.get(last.min(self.list.len().saturating_sub(1))))
        {
            self.moved = Some(*at);
        }
        let gone = self.list.drain(..count.min(self.list.len())).map(|(_, content)| content.len());
        self.bytes -= gone.sum::<usize>();
    }
}
