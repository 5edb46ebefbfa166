//! An item's slot: what is in memory of every item, and the clock and senders in its terms.
//!
//! Pure, part of the table.

use std::time::Duration;

use jiff::Timestamp;

use crate::mail::{Mailbox, ReversePath};
use crate::queue::{ItemId, QueueId};

use super::super::segments::Location;

const MICROS: i64 = 1_000_000;

/// Set when an operator stopped the item.
pub(in crate::store) const HELD: u8 = 1;
/// Set when an operator removed it while an attempt ran.
pub(in crate::store) const DOOMED: u8 = 2;
/// Set after the first attempt.
pub(in crate::store) const TRIED: u8 = 4;
/// Set when the journal has a mark for it.
pub(in crate::store) const MARKED: u8 = 8;
/// The content is a file.
pub(in crate::store) const IN_FILE: u8 = 16;
/// The index has it.
pub(in crate::store) const INDEXED: u8 = 32;
/// Its message is in memory for the first attempt.
pub(super) const FRESH: u8 = 64;

/// An item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Slot {
    /// Its message's Enqueue, body included.
    pub enqueue: Location,
    /// Its latest State, if it was tried.
    pub state: Option<Location>,
    /// Microseconds since the epoch, as all times here.
    pub due: i64,
    /// When `due` was decided.
    pub since: i64,
    pub received: i64,
    /// Hash of the reverse-path, 24 bits.
    pub sender: u32,
    /// Number of the destination.
    pub destination: u32,
    pub flags: u8,
}

impl Slot {
    pub(in crate::store) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// An item's name in 16 octets; ordered as [`ItemId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Key {
    node: u16,
    sequence: u64,
    part: u32,
}

impl From<ItemId> for Key {
    fn from(id: ItemId) -> Self {
        Self { node: id.queue_id.node, sequence: id.queue_id.sequence, part: id.part }
    }
}

impl From<Key> for ItemId {
    fn from(key: Key) -> Self {
        Self { queue_id: QueueId { node: key.node, sequence: key.sequence }, part: key.part }
    }
}

/// An item's appointment in 24 octets; ordered as `(due, id)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Appointment {
    pub(super) due: i64,
    node: u16,
    sequence: u64,
    part: u32,
}

impl Appointment {
    pub(super) fn new(due: i64, id: ItemId) -> Self {
        Self { due, node: id.queue_id.node, sequence: id.queue_id.sequence, part: id.part }
    }

    pub(super) fn id(&self) -> ItemId {
        Key { node: self.node, sequence: self.sequence, part: self.part }.into()
    }
}

/// A slot as it is kept, in 48 octets: `since` and `received` to the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    due: i64,
    enqueue: Location,
    /// Of length 0 when there is none.
    state: Location,
    since: u32,
    received: u32,
    destination: u32,
    /// In the upper 24 bits; flags in the lower 8.
    sender_and_flags: u32,
}

impl From<Slot> for Packed {
    fn from(slot: Slot) -> Self {
        let seconds = |micros: i64| {
            let seconds = micros.div_euclid(MICROS).clamp(0, i64::from(u32::MAX));
            u32::try_from(seconds).unwrap_or(u32::MAX)
        };
        Self {
            due: slot.due,
            enqueue: slot.enqueue,
            state: slot.state.unwrap_or(Location { segment: 0, offset: 0, length: 0 }),
            since: seconds(slot.since),
            received: seconds(slot.received),
            destination: slot.destination,
            sender_and_flags: slot.sender << 8 | u32::from(slot.flags),
        }
    }
}

impl From<Packed> for Slot {
    fn from(packed: Packed) -> Self {
        let [flags, ..] = packed.sender_and_flags.to_le_bytes();
        Self {
            enqueue: packed.enqueue,
            state: Some(packed.state).filter(|state| state.length > 0),
            due: packed.due,
            since: i64::from(packed.since) * MICROS,
            received: i64::from(packed.received) * MICROS,
            sender: packed.sender_and_flags >> 8,
            destination: packed.destination,
            flags,
        }
    }
}

pub(super) fn hash_sender(text: &str) -> u32 {
    // The domain was folded to lower case when it came in.
    let folded = Mailbox::parse(text).map_or_else(|_| text.to_owned(), |mailbox| mailbox.to_string());
    short(crc32fast::hash(folded.as_bytes()))
}

pub(super) fn sender_hash(path: &ReversePath) -> u32 {
    short(crc32fast::hash(path.mailbox().map(ToString::to_string).unwrap_or_default().as_bytes()))
}

/// As much of a hash as a slot keeps; who asks by it compares the sender itself too.
fn short(hash: u32) -> u32 {
    hash >> 8
}

/// Whether this is the sender a filter asks for.
pub(in crate::store) fn is_sender(path: &ReversePath, asked: &str) -> bool {
    match (path.mailbox(), Mailbox::parse(asked)) {
        (None, _) => asked.is_empty(),
        (Some(mailbox), Ok(asked)) => *mailbox == asked,
        (Some(_), Err(_)) => false,
    }
}

/// Microseconds since the epoch.
pub(in crate::store) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Microseconds since the epoch, rounded up: not before `at`.
pub(in crate::store) fn micros_up(at: Timestamp) -> i64 {
    let rest = at.as_nanosecond().rem_euclid(1000);
    at.as_microsecond() + i64::from(rest != 0 && at.as_nanosecond() > 0)
}

/// The instant, or the end of time when it lies beyond.
pub(in crate::store) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Microseconds, or the longest time there is.
pub(in crate::store) fn length(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
