//! The queue in memory: one small slot per item, the schedule, leases, totals.
//!
//! The journal is the truth and this table is what the truth says: every durable change passes
//! [`Table::apply`] in the order of the journal, at run time and at start-up alike, and the index
//! keeps a copy of the slots. Envelopes, recipient states and contents stay in the journal and are
//! read by place; only fresh small messages are kept whole, within a budget. A slot, its key and
//! its places in the schedule take some 200 octets, so a million items take some 200 MB.
//!
//! Never touches the disk, never waits. Callers hold it behind a mutex for a moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::destinations::Destinations;
use super::notions::{EntryState, Filter, Health};
use super::record::{Change, Message};
use super::segments::{Location, Position, Segments};
use crate::mail::{Destination, Mailbox, ReversePath};
use crate::queue::{ItemId, QueueId};

/// Fresh contents kept for their first attempt; beyond it they are read from the journal.
const FRESH_BYTES_MAX: usize = 64 << 20;
/// What a fresh message costs besides its content.
const FRESH_OVERHEAD: usize = 1024;
/// A clock that steps back further than this moves every appointment with it; less is NTP at work.
const REWIND_MICROS: i64 = 60_000_000;
/// Items of parked destinations moved out of the schedule's way under one lock: some milliseconds.
const PARK_STEP: usize = 5_000;

/// Set when an operator stopped the item.
pub(super) const HELD: u8 = 1;
/// Set when an operator removed it while an attempt ran.
pub(super) const DOOMED: u8 = 2;
/// Set after the first attempt.
pub(super) const TRIED: u8 = 4;
/// Set when the journal has a mark for it.
pub(super) const MARKED: u8 = 8;
/// The content is a file.
pub(super) const IN_FILE: u8 = 16;
/// The index has it.
pub(super) const INDEXED: u8 = 32;
/// Its message is in memory for the first attempt.
const FRESH: u8 = 64;

/// An item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
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
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// An attempt that runs.
#[derive(Debug, Clone, Copy)]
struct Lease {
    fence: u64,
    /// May be past: then the item is due again, but the lease's settle is welcome until the item is
    /// claimed anew.
    until: i64,
    length: i64,
    /// Its end is on the way to the journal: it can neither run out nor be used again.
    settling: bool,
    /// Ran out, the item is back in the schedule.
    over: bool,
}

/// A message kept for its first attempt.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    pub message: Arc<Message>,
    /// Absent when it is a file.
    pub body: Option<Bytes>,
    untried: u32,
}

/// A lease as handed out.
#[derive(Debug, Clone)]
pub(super) struct Leased {
    pub id: ItemId,
    pub fence: u64,
    pub slot: Slot,
    pub fresh: Option<Arc<Message>>,
}

/// See the file's header.
pub(super) struct Table {
    items: BTreeMap<ItemId, Slot>,
    leases: HashMap<ItemId, Lease>,
    lease_ends: BTreeSet<(i64, ItemId)>,
    schedule: BTreeSet<(i64, ItemId)>,
    /// Due items of destinations that cannot take more now, by destination. A destination is here
    /// from `park` until nothing of it is left here, or it has no items any more.
    parked: HashMap<u32, BTreeSet<(i64, ItemId)>>,
    fresh: HashMap<QueueId, Fresh>,
    fresh_bytes: usize,
    received: BTreeMap<i64, u32>,
    counts: [u64; 3],
    next_fence: u64,
    latest_now: i64,
    /// Doomed items without a lease: the keeper removes them.
    pub(super) reap: BTreeSet<ItemId>,
    /// Items whose copy in the index is outdated.
    pub(super) dirty: BTreeSet<ItemId>,
    /// Messages whose content file is no longer needed.
    pub(super) trash: Vec<QueueId>,
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
            items: BTreeMap::new(),
            leases: HashMap::new(),
            lease_ends: BTreeSet::new(),
            schedule: BTreeSet::new(),
            parked: HashMap::new(),
            fresh: HashMap::new(),
            fresh_bytes: 0,
            received: BTreeMap::new(),
            counts: [0; 3],
            next_fence: 1,
            latest_now: i64::MIN,
            reap: BTreeSet::new(),
            dirty: BTreeSet::new(),
            trash: Vec::new(),
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

    // ---- Reading ----

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn slot(&self, id: ItemId) -> Option<Slot> {
        self.items.get(&id).copied()
    }

    /// The items of a message.
    pub(super) fn parts(&self, id: QueueId) -> impl Iterator<Item = (ItemId, Slot)> {
        let range = ItemId { queue_id: id, part: 0 }..=ItemId { queue_id: id, part: u32::MAX };
        self.items.range(range).map(|(id, slot)| (*id, *slot))
    }

    /// Messages that wait and whose Enqueue is in this segment.
    pub(super) fn enqueued_in(&self, segment: u32) -> HashMap<QueueId, Location> {
        let there = |(id, slot): (&ItemId, &Slot)| {
            (slot.enqueue.segment == segment).then_some((id.queue_id, slot.enqueue))
        };
        self.items.iter().filter_map(there).collect()
    }

    /// Messages with this flag.
    pub(super) fn messages_with(&self, flag: u8) -> BTreeSet<QueueId> {
        self.items.iter().filter_map(|(id, slot)| slot.is(flag).then_some(id.queue_id)).collect()
    }

    pub(super) fn fresh(&self, id: QueueId) -> Option<&Fresh> {
        self.fresh.get(&id)
    }

    /// Items after `cursor` that may match the filter, looking at no more than `look` of them; and
    /// where the search stopped, unless at the end.
    pub(super) fn find(
        &self,
        filter: &Filter,
        cursor: Option<ItemId>,
        max: usize,
        look: usize,
    ) -> (Vec<(ItemId, Slot)>, Option<ItemId>) {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let destination = match &filter.recipient_domain {
            None => None,
            Some(name) => match self.destinations.number(name) {
                None => return (Vec::new(), None),
                number => number,
            },
        };
        let sender = filter.sender.as_deref().map(hash_sender);
        let first = |queue_id| ItemId { queue_id, part: 0 };
        let last = |queue_id| ItemId { queue_id, part: u32::MAX };
        let only = match (filter.item, filter.id) {
            (Some(item), Some(id)) if item.queue_id != id => return (Vec::new(), None),
            (Some(item), _) => Some((item, item)),
            (None, Some(id)) => Some((first(id), last(id))),
            (None, None) => None,
        };
        let lower = match (only, cursor) {
            (Some((from, to)), Some(cursor)) if cursor >= from => {
                if cursor >= to {
                    return (Vec::new(), None);
                }
                Excluded(cursor)
            }
            (Some((from, _)), _) => Included(from),
            (None, Some(cursor)) => Excluded(cursor),
            (None, None) => Unbounded,
        };
        let upper = only.map_or(Unbounded, |(_, to)| Included(to));
        let mut found = Vec::new();
        for (looked, (id, slot)) in self.items.range((lower, upper)).enumerate() {
            let matches = destination.is_none_or(|number| number == slot.destination)
                && sender.is_none_or(|hash| hash == slot.sender);
            if matches {
                found.push((*id, *slot));
            }
            if found.len() >= max || looked + 1 >= look {
                return (found, Some(*id));
            }
        }
        (found, None)
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

    pub(super) fn oldest(&self) -> Option<i64> {
        self.received.first_key_value().map(|(at, _)| *at)
    }

    /// When an item is due, or a lease over, next.
    pub(super) fn next_due(&self) -> Option<i64> {
        let due = self.schedule.first().map(|(at, _)| *at);
        let over = self.lease_ends.first().map(|(at, _)| *at);
        due.into_iter().chain(over).min()
    }

    // ---- Leases ----

    /// Leases up to `max` due items, longest due first; those of parked destinations stay.
    pub(super) fn claim(&mut self, now: i64, max: usize, length: i64) -> Vec<Leased> {
        self.end_leases(now);
        let (mut claimed, mut moved) = (Vec::new(), 0);
        while claimed.len() < max && moved < PARK_STEP {
            let Some((due, id)) = self.schedule.first().copied().filter(|(due, _)| *due <= now) else {
                break;
            };
            let destination = self.items.get(&id).map(|slot| slot.destination);
            match destination.and_then(|number| self.parked.get_mut(&number)) {
                Some(parked) => {
                    self.schedule.remove(&(due, id));
                    parked.insert((due, id));
                    moved += 1;
                }
                None => claimed.extend(self.lease(id, now, length, false)),
            }
        }
        claimed
    }

    /// Leases up to `max` items of a parked destination, longest due first, and tells whether it
    /// stays parked: not when none is left.
    pub(super) fn claim_parked(
        &mut self,
        destination: &Destination,
        now: i64,
        max: usize,
        length: i64,
    ) -> (Vec<Leased>, bool) {
        self.end_leases(now);
        let Some(number) = self.destinations.number(destination) else { return (Vec::new(), false) };
        let mut claimed = Vec::new();
        while claimed.len() < max {
            let Some((_, id)) = self.parked.get(&number).and_then(BTreeSet::first).copied() else { break };
            claimed.extend(self.lease(id, now, length, false));
        }
        if self.parked.get(&number).is_some_and(BTreeSet::is_empty) {
            self.parked.remove(&number);
        }
        (claimed, self.parked.contains_key(&number))
    }

    /// Gives a lease back and parks its destination; false when it is not ours any more.
    pub(super) fn park(&mut self, id: ItemId, fence: u64) -> bool {
        let ours = self.leases.get(&id).is_some_and(|lease| lease.fence == fence && !lease.settling);
        if ours {
            self.update(id, |_, lease| *lease = None);
            if let Some(slot) = self.items.get(&id) {
                self.parked.entry(slot.destination).or_default();
            }
        }
        ours
    }

    /// What ran out is due again.
    fn end_leases(&mut self, now: i64) {
        self.notice(now);
        while let Some((until, id)) = self.lease_ends.first().copied().filter(|(until, _)| *until <= now) {
            self.lease_ends.remove(&(until, id));
            self.update(id, |_, lease| {
                if let Some(lease) = lease {
                    lease.over = true;
                }
            });
        }
    }

    fn lease(&mut self, id: ItemId, now: i64, length: i64, settling: bool) -> Option<Leased> {
        let fence = self.next_fence;
        self.next_fence += 1;
        let until = now.saturating_add(length);
        self.update(id, |_, lease| *lease = Some(Lease { fence, until, length, settling, over: false }));
        let slot = self.slot(id)?;
        let fresh = self.fresh.get(&id.queue_id).filter(|_| !slot.is(TRIED));
        Some(Leased { id, fence, slot, fresh: fresh.map(|fresh| Arc::clone(&fresh.message)) })
    }

    /// Takes an item out of the schedule because its end is being written; false while leased.
    pub(super) fn seize(&mut self, id: ItemId) -> bool {
        let free = self.items.contains_key(&id) && self.leases.get(&id).is_none_or(|lease| lease.over);
        free && self.lease(id, 0, i64::MAX, true).is_some()
    }

    /// Lengthens a lease; false when it is not ours any more.
    pub(super) fn extend(&mut self, id: ItemId, fence: u64, now: i64, length: i64) -> bool {
        let ours = self.leases.get(&id).is_some_and(|lease| lease.fence == fence);
        if ours {
            let until = now.saturating_add(length);
            self.update(id, |_, lease| {
                if let Some(lease) = lease {
                    (lease.until, lease.length, lease.over) = (until, length, false);
                }
            });
        }
        ours
    }

    /// Whether this lease may end its item; if so nothing else can until that is written.
    pub(super) fn begin_settle(&mut self, id: ItemId, fence: u64) -> Option<Slot> {
        self.leases.get(&id).filter(|lease| lease.fence == fence && !lease.settling)?;
        self.update(id, |_, lease| {
            if let Some(lease) = lease {
                (lease.settling, lease.over) = (true, false);
            }
        });
        self.slot(id)
    }

    /// The end could not be written: the lease is as before.
    pub(super) fn abort_settle(&mut self, id: ItemId) {
        self.update(id, |_, lease| {
            // A lease without end was only made to write the end.
            if lease.is_some_and(|lease| lease.until == i64::MAX) {
                *lease = None;
            } else if let Some(lease) = lease {
                lease.settling = false;
            }
        });
    }

    /// Gives a lease back, due at `at`; false when it is not ours any more.
    pub(super) fn unclaim(&mut self, id: ItemId, fence: u64, at: i64) -> bool {
        let ours = self.leases.get(&id).is_some_and(|lease| lease.fence == fence && !lease.settling);
        if ours {
            let now = self.latest_now;
            self.update(id, |slot, lease| {
                *lease = None;
                (slot.due, slot.since) = (at, now);
            });
        }
        ours
    }

    /// Looks at the clock: when it stepped back, appointments keep their distance instead of their
    /// hour.
    pub(super) fn notice(&mut self, now: i64) {
        if now < self.latest_now.saturating_sub(REWIND_MICROS) {
            self.rewind(now);
        }
        self.latest_now = now;
    }

    /// Moves what was decided in the future of `now`, which never was, back to `now`.
    pub(super) fn rewind(&mut self, now: i64) {
        let early = now.saturating_add(REWIND_MICROS);
        let since = |(id, slot): (&ItemId, &Slot)| (slot.since > early).then_some(*id);
        let odd: Vec<ItemId> = self.items.iter().filter_map(since).collect();
        for id in odd {
            self.update(id, |slot, _| {
                slot.due = now.saturating_add(slot.due.saturating_sub(slot.since).max(0));
                slot.since = now;
            });
        }
        let leased: Vec<ItemId> = self.leases.keys().copied().collect();
        for id in leased {
            self.update(id, |_, lease| {
                if let Some(lease) = lease {
                    lease.until = lease.until.min(now.saturating_add(lease.length));
                }
            });
        }
    }

    // ---- Changes that are durable ----

    /// Takes in a change that is durable at `at`; `body` is the content if it may stay in memory.
    /// Harmless when repeated in order, as replaying from a checkpoint does.
    pub(super) fn apply(&mut self, change: Change, at: Location, body: Option<Bytes>) {
        match change {
            Change::Enqueue(message) => self.apply_enqueue(message, at, body),
            Change::State(state) => {
                if let Some(old) = self.items.get(&state.item).and_then(|slot| slot.state) {
                    self.segments.release(old);
                }
                let known = self.update(state.item, |slot, lease| {
                    slot.state = Some(at);
                    slot.flags |= TRIED;
                    (slot.due, slot.since) = (micros(state.due), micros(state.since));
                    *lease = None;
                });
                if known {
                    self.segments.retain(at);
                }
            }
            Change::Mark(mark) => {
                self.update(mark.item, |slot, _| {
                    slot.flags &= !(HELD | DOOMED);
                    slot.flags |= MARKED;
                    slot.flags |= if mark.held { HELD } else { 0 };
                    slot.flags |= if mark.doomed { DOOMED } else { 0 };
                    (slot.due, slot.since) = (micros(mark.due), micros(mark.since));
                });
            }
            Change::Done(item) => self.remove(item),
            Change::Reserve(below) => self.ids_below = self.ids_below.max(below),
        }
    }

    fn apply_enqueue(&mut self, message: Arc<Message>, at: Location, body: Option<Bytes>) {
        let id = message.id;
        self.ids_below = self.ids_below.max(id.sequence.saturating_add(1));
        let old = self.parts(id).next().map(|(_, slot)| slot.enqueue);
        let mut known = false;
        let keep = body.is_some() || message.in_file;
        let cost = FRESH_OVERHEAD + body.as_ref().map_or(0, Bytes::len);
        let fresh = keep && old.is_none() && self.fresh_bytes + cost <= FRESH_BYTES_MAX;
        let mut untried = 0;
        for part in &message.parts {
            let item = ItemId { queue_id: id, part: part.part };
            let Some(destination) = message.destination(part) else { continue };
            known = true;
            if self.items.contains_key(&item) {
                // A copy: what is known of the item is newer.
                self.update(item, |slot, _| slot.enqueue = slot.enqueue.max(at));
                continue;
            }
            untried += 1;
            let received = micros(message.received_at);
            let mut flags = if message.in_file { IN_FILE } else { 0 };
            flags |= if fresh { FRESH } else { 0 };
            let slot = Slot {
                enqueue: at,
                state: None,
                due: received,
                since: received,
                received,
                sender: sender_hash(&message.envelope.reverse_path),
                destination: self.destinations.add(destination),
                flags,
            };
            self.insert(item, slot);
        }
        match old {
            None if known => {
                self.segments.retain(at);
                self.file_bytes += if message.in_file { message.size } else { 0 };
            }
            Some(old) if old < at => {
                self.segments.release(old);
                self.segments.retain(at);
            }
            _ => {}
        }
        if fresh && untried > 0 {
            self.fresh_bytes += cost;
            self.fresh.insert(id, Fresh { message, body, untried });
        }
    }

    /// Puts in an item as the index has it; its destination is already counted.
    pub(super) fn restore(&mut self, id: ItemId, slot: Slot) {
        if self.items.contains_key(&id) {
            return;
        }
        if self.parts(id.queue_id).next().is_none() {
            self.segments.retain(slot.enqueue);
        }
        if let Some(state) = slot.state {
            self.segments.retain(state);
        }
        self.insert(id, slot);
        self.dirty.remove(&id);
    }

    fn insert(&mut self, id: ItemId, slot: Slot) {
        *self.received.entry(slot.received).or_default() += 1;
        self.items.insert(id, slot);
        self.place(id, &slot);
        self.dirty.insert(id);
    }

    fn remove(&mut self, id: ItemId) {
        self.update(id, |slot, lease| {
            // What no longer counts as waiting leaves the fresh messages too.
            slot.flags |= TRIED;
            *lease = None;
        });
        let Some(slot) = self.items.get(&id).copied() else { return };
        self.displace(id, &slot);
        self.items.remove(&id);
        if slot.is(INDEXED) {
            self.dirty.insert(id);
        } else {
            self.dirty.remove(&id);
        }
        if let Some(count) = self.received.get_mut(&slot.received) {
            *count -= 1;
            if *count == 0 {
                self.received.remove(&slot.received);
            }
        }
        self.destinations.remove(slot.destination);
        if self.destinations.name(slot.destination).is_none() {
            // The number may become another destination's.
            self.parked.remove(&slot.destination);
        }
        if let Some(state) = slot.state {
            self.segments.release(state);
        }
        if self.parts(id.queue_id).next().is_none() {
            self.segments.release(slot.enqueue);
            if slot.is(IN_FILE) {
                self.trash.push(id.queue_id);
            }
        }
    }

    /// Compaction moved a message's Enqueue and its items' States.
    pub(super) fn relocate(&mut self, id: QueueId, enqueue: Location, states: &[(ItemId, Location)]) {
        let Some(old) = self.parts(id).next().map(|(_, slot)| slot.enqueue) else { return };
        self.segments.release(old);
        self.segments.retain(enqueue);
        let items: Vec<ItemId> = self.parts(id).map(|(item, _)| item).collect();
        for item in items {
            self.update(item, |slot, _| slot.enqueue = enqueue);
        }
        for (item, state) in states {
            let Some(old) = self.items.get(item).and_then(|slot| slot.state) else { continue };
            self.segments.release(old);
            self.segments.retain(*state);
            self.update(*item, |slot, _| slot.state = Some(*state));
        }
    }

    /// The index has this item now.
    pub(super) fn mark_indexed(&mut self, id: ItemId) -> Option<Slot> {
        let slot = self.items.get_mut(&id)?;
        slot.flags |= INDEXED;
        Some(*slot)
    }

    // ---- Keeping schedule, totals and sets in step ----

    /// The one way to change an item; false when there is none.
    fn update(&mut self, id: ItemId, change: impl FnOnce(&mut Slot, &mut Option<Lease>)) -> bool {
        let Some(mut slot) = self.items.get(&id).copied() else { return false };
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
        self.items.insert(id, slot);
        self.place(id, &slot);
        if slot != before {
            self.dirty.insert(id);
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
        }
        if !self.schedule.remove(&(slot.due, id))
            && let Some(parked) = self.parked.get_mut(&slot.destination)
        {
            parked.remove(&(slot.due, id));
        }
        self.reap.remove(&id);
        if let Some(lease) = self.leases.get(&id) {
            self.lease_ends.remove(&(lease.until, id));
        }
    }

    fn place(&mut self, id: ItemId, slot: &Slot) {
        if let Some(class) = self.class(id, slot) {
            self.counts[class] += 1;
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
                self.schedule.insert((slot.due, id));
            }
        }
    }
}

fn hash_sender(text: &str) -> u32 {
    // The domain was folded to lower case when it came in.
    let folded = Mailbox::parse(text).map_or_else(|_| text.to_owned(), |mailbox| mailbox.to_string());
    crc32fast::hash(folded.as_bytes())
}

fn sender_hash(path: &ReversePath) -> u32 {
    crc32fast::hash(path.mailbox().map(ToString::to_string).unwrap_or_default().as_bytes())
}

/// Whether this is the sender a filter asks for.
pub(super) fn is_sender(path: &ReversePath, asked: &str) -> bool {
    match (path.mailbox(), Mailbox::parse(asked)) {
        (None, _) => asked.is_empty(),
        (Some(mailbox), Ok(asked)) => *mailbox == asked,
        (Some(_), Err(_)) => false,
    }
}

/// Microseconds since the epoch.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The instant, or the end of time when it lies beyond.
pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Microseconds, or the longest time there is.
pub(super) fn length(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
