//! An item's slot: what is in memory of every item, and the clock and senders in its terms.
//!
//! Pure, part of the table.

use std::time::Duration;

use jiff::Timestamp;

use crate::mail::{Mailbox, ReversePath};

use super::super::segments::Location;

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
    /// Hash of the reverse-path.
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

pub(super) fn hash_sender(text: &str) -> u32 {
    // The domain was folded to lower case when it came in.
    let folded = Mailbox::parse(text).map_or_else(|_| text.to_owned(), |mailbox| mailbox.to_string());
    crc32fast::hash(folded.as_bytes())
}

pub(super) fn sender_hash(path: &ReversePath) -> u32 {
    crc32fast::hash(path.mailbox().map(ToString::to_string).unwrap_or_default().as_bytes())
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

/// The instant, or the end of time when it lies beyond.
pub(in crate::store) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Microseconds, or the longest time there is.
pub(in crate::store) fn length(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
