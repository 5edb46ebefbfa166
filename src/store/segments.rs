//! The journal's segments as memory knows them: how long each is and how much of it still counts.
//!
//! Segments leave the disk strictly in order, oldest first. So whatever ended an item is always on
//! disk for longer than whatever began it, copies included, and a rebuild cannot bring a message
//! back to life. Pure memory, part of the table.

use std::collections::BTreeMap;

/// Dead octets tolerated, in segments, before the oldest one is copied forward however alive it is.
const SLACK_SEGMENTS: u64 = 4;

/// Where an operation is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub segment: u32,
    pub offset: u32,
    /// Octets; of an Enqueue with the body's operation.
    pub length: u32,
}

/// A place between frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub segment: u32,
    pub offset: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Segment {
    len: u64,
    live: u64,
    /// Something in it was damaged: worth keeping.
    spoiled: bool,
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Segments {
    map: BTreeMap<u32, Segment>,
}

/// What to do about the oldest segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cleaning {
    /// Nothing in these counts: unlink them in this order.
    Unlink(Vec<u32>),
    /// Copy what counts in this one to the end of the journal.
    Copy(u32),
}

impl Segments {
    /// A segment is this long now.
    pub(super) fn set_len(&mut self, segment: u32, len: u64) {
        self.map.entry(segment).or_default().len = len;
    }

    pub(super) fn len(&self, segment: u32) -> Option<u64> {
        self.map.get(&segment).map(|segment| segment.len)
    }

    /// Something in a segment is damaged.
    pub(super) fn spoil(&mut self, segment: u32) {
        self.map.entry(segment).or_default().spoiled = true;
    }

    pub(super) fn is_spoiled(&self, segment: u32) -> bool {
        self.map.get(&segment).is_some_and(|segment| segment.spoiled)
    }

    pub(super) fn remove(&mut self, segment: u32) {
        self.map.remove(&segment);
    }

    pub(super) fn retain(&mut self, at: Location) {
        if let Some(segment) = self.map.get_mut(&at.segment) {
            segment.live += u64::from(at.length);
        }
    }

    pub(super) fn release(&mut self, at: Location) {
        if let Some(segment) = self.map.get_mut(&at.segment) {
            segment.live = segment.live.saturating_sub(u64::from(at.length));
        }
    }

    /// Octets of a segment that are still needed.
    pub(super) fn live(&self, segment: u32) -> u64 {
        self.map.get(&segment).map_or(0, |segment| segment.live)
    }

    /// Octets on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.map.values().map(|segment| segment.len).sum()
    }

    /// What the oldest segments are ready for; never the one being written.
    pub(super) fn cleaning(&self, segment_bytes: u64) -> Option<Cleaning> {
        let (&oldest, segment) = self.map.first_key_value()?;
        if self.map.len() < 2 {
            return None;
        }
        if segment.live == 0 {
            let before_last = self.map.iter().take(self.map.len() - 1);
            let dead = before_last.take_while(|(_, segment)| segment.live == 0);
            return Some(Cleaning::Unlink(dead.map(|(number, _)| *number).collect()));
        }
        let live: u64 = self.map.values().map(|segment| segment.live).sum();
        let dead = self.bytes().saturating_sub(live);
        let worthwhile = segment.live < segment.len / 4 || dead > live.max(SLACK_SEGMENTS * segment_bytes);
        worthwhile.then_some(Cleaning::Copy(oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u32, length: u32) -> Location {
        Location { segment, offset: 64, length }
    }

    #[test]
    fn only_the_oldest_segment_is_cleaned_and_never_the_one_being_written() {
        let mut segments = Segments::default();
        segments.set_len(1, 1000);
        assert_eq!(segments.cleaning(1000), None);
        segments.set_len(2, 1000);
        segments.retain(at(1, 400));
        assert_eq!(segments.cleaning(1000), None, "segment 2 is dead, but 1 is in front of it");
        segments.release(at(1, 200));
        assert_eq!(segments.cleaning(1000), Some(Cleaning::Copy(1)));
        segments.release(at(1, 200));
        assert_eq!(segments.cleaning(1000), Some(Cleaning::Unlink(vec![1])));
        segments.remove(1);
        assert_eq!(segments.cleaning(1000), None);
    }

    #[test]
    fn much_dead_space_behind_a_live_segment_moves_it() {
        let mut segments = Segments::default();
        for segment in 1..=7 {
            segments.set_len(segment, 1000);
        }
        segments.retain(at(1, 1000));
        assert_eq!(segments.cleaning(1000), Some(Cleaning::Copy(1)));
    }
}
