//! The queue in memory: one small slot per item, the schedule, leases, totals.
//!
//! The journal is the truth and this table is what the truth says: every durable change passes
//! [`Table::apply`] in the order of the journal, at run time and at start-up alike, and the index
//! keeps a copy of the slots. Envelopes, recipient states and contents stay in the journal and are
//! read by place; only fresh small messages are kept whole, within a budget. A slot with its key takes
//! 64 octets and its place in the schedule 24, so a million items take some 100 MB.
//!
//! Never touches the disk, never waits. Callers hold it behind a mutex for a moment.

mod apply;
mod find;
mod leases;
mod slot;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::dense::Dense;
use super::destinations::Destinations;
use super::evidence::Pending;
use super::notions::{EntryState, Health};
use super::record::Message;
use super::segments::{Location, Position, Segments};
use crate::queue::{ItemId, QueueId};
use leases::Lease;
pub(super) use leases::Leased;
use slot::{Appointment, FRESH, Key, Packed};
pub(super) use slot::{
    DOOMED, HELD, IN_FILE, INDEXED, MARKED, Slot, TRIED, is_sender, length, micros, micros_up, timestamp,
};

/// What a fresh message costs besides its content.
const FRESH_OVERHEAD: usize = 1024;

/// A message kept for its first attempt.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    pub message: Arc<Message>,
    /// Absent when it is a file.
    pub body: Option<Bytes>,
    untried: u32,
}

/// See the file's header.
pub(super) struct Table {
    items: Dense<Key, Packed>,
    leases: HashMap<ItemId, Lease>,
    lease_ends: BTreeSet<(i64, ItemId)>,
    schedule: Dense<Appointment, ()>,
    /// Due items of destinations that cannot take more now, by destination. A destination is here
    /// from `park` until nothing of it is left here, or it has no items any more.
    parked: HashMap<u32, Dense<Appointment, ()>>,
    fresh: HashMap<QueueId, Fresh>,
    fresh_bytes: usize,
    /// Items by the second they were received in; as `counts`.
    received: [BTreeMap<i64, u32>; 3],
    counts: [u64; 3],
    next_fence: u64,
    latest_now: i64,
    /// Doomed items without a lease: the keeper removes them.
    pub(super) reap: BTreeSet<ItemId>,
    /// Items whose copy in the index is outdated.
    pub(super) dirty: Dense<Key, ()>,
    /// Messages whose content file is no longer needed.
    pub(super) trash: Vec<QueueId>,
    /// How attempts travelled, on its way to the evidence log.
    pub(super) evidence: Pending,
    pub(super) destinations: Destinations,
    pub(super) segments: Segments,
    /// Octets of content files.
    pub(super) file_bytes: u64,
    /// Everything before is applied.
    pub(super) position: Position,
    /// Queue ids below are or may be in use, durably.
    pub(super) ids_below: u64,
    pub(super) health: Health,
    /// Not even settling finds room.
    pub(super) starved: bool,
    pub(super) closed: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            items: Dense::default(),
            leases: HashMap::new(),
            lease_ends: BTreeSet::new(),
            schedule: Dense::default(),
            parked: HashMap::new(),
            fresh: HashMap::new(),
            fresh_bytes: 0,
            received: Default::default(),
            counts: [0; 3],
            next_fence: 1,
            latest_now: i64::MIN,
            reap: BTreeSet::new(),
            dirty: Dense::default(),
            trash: Vec::new(),
            evidence: Pending::default(),
            destinations: Destinations::default(),
            segments: Segments::default(),
            file_bytes: 0,
            position: Position::default(),
            ids_below: 1,
            health: Health::Fine,
            starved: false,
            closed: false,
        }
    }

    /// The latest time any caller has told.
    pub(super) fn latest_now(&self) -> Option<i64> {
        (self.latest_now > i64::MIN).then_some(self.latest_now)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The messages, once for each of their items.
    pub(super) fn ids(&self) -> impl Iterator<Item = QueueId> {
        self.all().map(|(id, _)| id.queue_id)
    }

    pub(super) fn slot(&self, id: ItemId) -> Option<Slot> {
        self.items.get(&id.into()).map(|packed| (*packed).into())
    }

    /// The items of a message.
    pub(super) fn parts(&self, id: QueueId) -> impl Iterator<Item = (ItemId, Slot)> {
        let key = |part| Bound::Included(ItemId { queue_id: id, part }.into());
        self.slots(key(0), key(u32::MAX))
    }

    /// Items in order of id.
    fn slots(&self, lower: Bound<Key>, upper: Bound<Key>) -> impl Iterator<Item = (ItemId, Slot)> {
        self.items.range(lower, upper).map(|(key, packed)| (key.into(), packed.into()))
    }

    fn all(&self) -> impl Iterator<Item = (ItemId, Slot)> {
        self.slots(Bound::Unbounded, Bound::Unbounded)
    }

    /// Messages that wait and whose Enqueue is in this segment.
    pub(super) fn enqueued_in(&self, segment: u32) -> BTreeMap<QueueId, Location> {
        let there = |(id, slot): (ItemId, Slot)| {
            (slot.enqueue.segment == segment).then_some((id.queue_id, slot.enqueue))
        };
        self.all().filter_map(there).collect()
    }

    /// Messages with this flag.
    pub(super) fn messages_with(&self, flag: u8) -> BTreeSet<QueueId> {
        self.all().filter_map(|(id, slot)| slot.is(flag).then_some(id.queue_id)).collect()
    }

    pub(super) fn fresh(&self, id: QueueId) -> Option<&Fresh> {
        self.fresh.get(&id)
    }

    /// How an item stands.
    pub(super) fn entry_state(&self, id: ItemId, slot: &Slot) -> EntryState {
        let leased = self.leases.get(&id).is_some_and(|lease| !lease.over);
        match () {
            () if leased => EntryState::Active,
            () if slot.is(HELD) => EntryState::Held,
            () if slot.is(TRIED) => EntryState::Deferred,
            () => EntryState::Active,
        }
    }

    pub(super) fn is_leased(&self, id: ItemId) -> bool {
        self.leases.get(&id).is_some_and(|lease| !lease.over)
    }

    /// Active, deferred, held.
    pub(super) fn counts(&self) -> [u64; 3] {
        self.counts
    }

    /// The second the oldest active, deferred and held items were received in.
    pub(super) fn oldest(&self) -> [Option<i64>; 3] {
        self.received.each_ref().map(|seconds| seconds.first_key_value().map(|(at, _)| *at))
    }

    /// When an item is due, or a lease over, next.
    pub(super) fn next_due(&self) -> Option<i64> {
        let due = self.schedule.first().map(|(appointment, ())| appointment.due);
        let over = self.lease_ends.first().map(|(at, _)| *at);
        due.into_iter().chain(over).min()
    }

    /// The one way to change an item; false when there is none.
    fn update(&mut self, id: ItemId, change: impl FnOnce(&mut Slot, &mut Option<Lease>)) -> bool {
        let Some(mut slot) = self.slot(id) else { return false };
        self.displace(id, &slot);
        let mut lease = self.leases.remove(&id);
        let before = slot;
        change(&mut slot, &mut lease);
        if before.is(FRESH) && slot.is(TRIED | HELD) {
            slot.flags &= !FRESH;
            self.forget_fresh(id.queue_id);
        }
        if let Some(lease) = lease {
            self.leases.insert(id, lease);
        }
        self.items.insert(id.into(), slot.into());
        self.place(id, &slot);
        if slot != before {
            self.dirty.insert(id.into(), ());
        }
        true
    }

    fn forget_fresh(&mut self, id: QueueId) {
        let Some(fresh) = self.fresh.get_mut(&id) else { return };
        fresh.untried = fresh.untried.saturating_sub(1);
        if fresh.untried == 0 {
            self.fresh_bytes -= FRESH_OVERHEAD + fresh.body.as_ref().map_or(0, Bytes::len);
            self.fresh.remove(&id);
        }
    }

    /// Where an item is counted; nowhere once it only waits for its removal.
    fn class(&self, id: ItemId, slot: &Slot) -> Option<usize> {
        let going = slot.is(DOOMED) && !self.is_leased(id);
        let class = match self.entry_state(id, slot) {
            EntryState::Active => 0,
            EntryState::Deferred => 1,
            EntryState::Held => 2,
        };
        (!going).then_some(class)
    }

    fn displace(&mut self, id: ItemId, slot: &Slot) {
        if let Some(class) = self.class(id, slot) {
            self.counts[class] -= 1;
            if let Some(items) = self.received[class].get_mut(&slot.received) {
                *items -= 1;
                if *items == 0 {
                    self.received[class].remove(&slot.received);
                }
            }
        }
        let appointment = Appointment::new(slot.due, id);
        if self.schedule.remove(&appointment).is_none()
            && let Some(parked) = self.parked.get_mut(&slot.destination)
        {
            parked.remove(&appointment);
        }
        self.reap.remove(&id);
        if let Some(lease) = self.leases.get(&id) {
            self.lease_ends.remove(&(lease.until, id));
        }
    }

    fn place(&mut self, id: ItemId, slot: &Slot) {
        if let Some(class) = self.class(id, slot) {
            self.counts[class] += 1;
            *self.received[class].entry(slot.received).or_default() += 1;
        }
        match self.leases.get(&id) {
            Some(lease) if !lease.over => {
                if !lease.settling {
                    self.lease_ends.insert((lease.until, id));
                }
            }
            _ if slot.is(DOOMED) => {
                self.reap.insert(id);
            }
            _ if slot.is(HELD) => {}
            _ => {
                self.schedule.insert(Appointment::new(slot.due, id), ());
            }
        }
    }
}
