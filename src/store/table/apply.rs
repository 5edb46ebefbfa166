//! Taking in what is durable: at run time in the order of the journal, at start by replaying it.
//!
//! Part of the table.

use std::sync::Arc;

use bytes::Bytes;

use super::super::record::{Change, Message};
use super::super::segments::Location;
use super::slot::{DOOMED, FRESH, HELD, IN_FILE, INDEXED, MARKED, Packed, Slot, TRIED, micros, sender_hash};
use super::{FRESH_OVERHEAD, Fresh, Table};
use crate::queue::{ItemId, QueueId};

/// Fresh contents kept for their first attempt; beyond it they are read from the journal, where they have
/// just been written. Three thousand of 10 KB: more of them wait only where delivery does not keep up.
const FRESH_BYTES_MAX: usize = 32 << 20;

impl Table {
    /// Takes in a change that is durable at `at`; `body` is the content if it may stay in memory.
    /// Harmless when repeated in order, as replaying from a checkpoint does.
    pub(in crate::store) fn apply(&mut self, change: Change, at: Location, body: Option<Bytes>) {
        match change {
            Change::Enqueue(message) => self.apply_enqueue(message, at, body),
            Change::State(state) => {
                if let Some(old) = self.slot(state.item).and_then(|slot| slot.state) {
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
            if self.items.contains(&item.into()) {
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
    pub(in crate::store) fn restore(&mut self, id: ItemId, slot: Slot) {
        if self.items.contains(&id.into()) {
            return;
        }
        if self.parts(id.queue_id).next().is_none() {
            self.segments.retain(slot.enqueue);
        }
        if let Some(state) = slot.state {
            self.segments.retain(state);
        }
        self.insert(id, slot);
        self.dirty.remove(&id.into());
    }

    fn insert(&mut self, id: ItemId, slot: Slot) {
        let packed = Packed::from(slot);
        let slot = Slot::from(packed);
        self.items.insert(id.into(), packed);
        self.place(id, &slot);
        self.dirty.insert(id.into(), ());
    }

    fn remove(&mut self, id: ItemId) {
        self.update(id, |slot, lease| {
            // What no longer counts as waiting leaves the fresh messages too.
            slot.flags |= TRIED;
            *lease = None;
        });
        let Some(slot) = self.slot(id) else { return };
        self.displace(id, &slot);
        self.items.remove(&id.into());
        if slot.is(INDEXED) {
            self.dirty.insert(id.into(), ());
        } else {
            self.dirty.remove(&id.into());
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
    pub(in crate::store) fn relocate(
        &mut self,
        id: QueueId,
        enqueue: Location,
        states: &[(ItemId, Location)],
    ) {
        let Some(old) = self.parts(id).next().map(|(_, slot)| slot.enqueue) else { return };
        self.segments.release(old);
        self.segments.retain(enqueue);
        let items: Vec<ItemId> = self.parts(id).map(|(item, _)| item).collect();
        for item in items {
            self.update(item, |slot, _| slot.enqueue = enqueue);
        }
        for (item, state) in states {
            let Some(old) = self.slot(*item).and_then(|slot| slot.state) else { continue };
            self.segments.release(old);
            self.segments.retain(*state);
            self.update(*item, |slot, _| slot.state = Some(*state));
        }
    }

    /// The index is about to have this item.
    pub(in crate::store) fn mark_indexed(&mut self, id: ItemId) -> Option<(ItemId, Slot)> {
        let mut slot = self.slot(id)?;
        if !slot.is(INDEXED) {
            slot.flags |= INDEXED;
            self.items.insert(id.into(), slot.into());
        }
        Some((id, slot))
    }
}
