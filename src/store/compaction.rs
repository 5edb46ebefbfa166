//! Moving messages that still wait from the oldest segment to the end of the journal.
//!
//! The keeper gathers what the oldest segment still holds; the journal's writer checks each move
//! against the table at the instant of writing, alone in its group, so that no change can slip in
//! between. A message moves with its items' states and marks in one frame: a rebuild that finds
//! only the copy finds everything.

use bytes::Bytes;

use super::frame::{Kind, Op};
use super::read;
use super::record::{Change, Mark, Message};
use super::segments::Location;
use super::shared::Shared;
use super::table::{DOOMED, HELD, MARKED, Table, timestamp};
use crate::queue::{ItemId, QueueId};

/// Octets moved in one group: what a client may have to wait for.
const MOVE_BYTES: usize = 4 << 20;

/// A message to move, as it was read.
pub(super) struct Move {
    message: Message,
    from: Location,
    body: Option<Bytes>,
    states: Vec<(ItemId, Location, Bytes)>,
}

/// How much was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub messages: usize,
}

/// A move that holds at this instant.
pub(super) struct Plan {
    pub ops: Vec<Op>,
    id: QueueId,
    has_body: bool,
    /// Which operation is which item's state.
    states: Vec<(ItemId, usize)>,
}

impl Move {
    /// The frame to write, unless the message changed or left since it was read.
    pub(super) fn plan(mut self, table: &Table) -> Option<Plan> {
        let id = self.message.id;
        let parts: Vec<_> = table.parts(id).collect();
        if parts.is_empty() || parts.iter().any(|(_, slot)| slot.enqueue != self.from) {
            return None;
        }
        self.message.parts.retain(|part| parts.iter().any(|(item, _)| item.part == part.part));
        let mut ops = vec![Change::Enqueue(self.message.into()).op()];
        let has_body = self.body.is_some();
        ops.extend(self.body.map(|body| Op::new(Kind::Body, body)));
        let mut states = Vec::new();
        for (item, slot) in parts {
            if let Some(state) = slot.state {
                let read = self.states.iter().find(|(id, at, _)| *id == item && *at == state)?;
                states.push((item, ops.len()));
                ops.push(Op::new(Kind::State, read.2.clone()));
            }
            if slot.is(MARKED) {
                let (held, doomed) = (slot.is(HELD), slot.is(DOOMED));
                let (due, since) = (timestamp(slot.due), timestamp(slot.since));
                ops.push(Change::Mark(Mark { item, held, doomed, due, since }).op());
            }
        }
        Some(Plan { ops, id, has_body, states })
    }
}

impl Plan {
    /// Tells the table where everything is now.
    pub(super) fn apply(&self, table: &mut Table, places: &[Location]) {
        let body = if self.has_body { places[1].length } else { 0 };
        let enqueue = Location { length: places[0].length + body, ..places[0] };
        let states: Vec<_> = self.states.iter().map(|(item, op)| (*item, places[*op])).collect();
        table.relocate(self.id, enqueue, &states);
    }
}

/// The messages of a segment that still wait, in the order of the disk and in groups to be moved at once.
pub(super) fn waiting(shared: &Shared, segment: u32) -> Vec<Vec<(QueueId, Location)>> {
    let mut waiting: Vec<_> = shared.table().enqueued_in(segment).into_iter().collect();
    waiting.sort_unstable_by_key(|(_, at)| at.offset);
    let (mut groups, mut group, mut octets) = (Vec::new(), Vec::new(), 0);
    for one in waiting {
        octets += one.1.length as usize;
        group.push(one);
        if octets >= MOVE_BYTES {
            groups.push(std::mem::take(&mut group));
            octets = 0;
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

/// Reads a group, and tells what of it cannot be read. No more of the segment than that: mostly it is a
/// small part. Blocking.
pub(super) fn gather(shared: &Shared, group: &[(QueueId, Location)]) -> (Vec<Move>, Vec<QueueId>) {
    let (mut moves, mut unreadable) = (Vec::new(), Vec::new());
    for (id, from) in group {
        match gather_one(shared, *id, *from) {
            Some(one) => moves.push(one),
            None => unreadable.push(*id),
        }
    }
    (moves, unreadable)
}

fn gather_one(shared: &Shared, id: QueueId, from: Location) -> Option<Move> {
    let (message, body) = read::message_at(shared, from).ok().filter(|(message, _)| message.id == id)?;
    let slots: Vec<_> = shared.table().parts(id).collect();
    let states: Option<Vec<_>> = slots
        .into_iter()
        .filter_map(|(item, slot)| slot.state.map(|at| (item, at)))
        .map(|(item, at)| Some((item, at, read::op(shared, at, Kind::State).ok()?)))
        .collect();
    Some(Move { message, from, body, states: states? })
}
