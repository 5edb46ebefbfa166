//! Leases: which items are in an attempt, until when, and who may end it.
//!
//! In memory only: a restart forgets them and every item is due at its time. Part of the table.

use std::sync::Arc;

use super::super::dense::Dense;
use super::super::record::Message;
use super::Table;
use super::slot::{DOOMED, HELD, Slot, TRIED};
use crate::mail::Destination;
use crate::queue::ItemId;

/// A clock that steps back further than this moves every appointment with it; less is NTP at work.
const REWIND_MICROS: i64 = 60_000_000;
/// Items of parked destinations moved out of the schedule's way under one lock: some milliseconds.
const PARK_STEP: usize = 5_000;

/// An attempt that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) fence: u64,
    /// May be past: then the item is due again, but the lease's settle is welcome until the item is
    /// claimed anew.
    pub(super) until: i64,
    pub(super) length: i64,
    /// Its end is on the way to the journal: it can neither run out nor be used again.
    pub(super) settling: bool,
    /// Ran out, the item is back in the schedule.
    pub(super) over: bool,
}

/// A lease as handed out.
#[derive(Debug, Clone)]
pub(in crate::store) struct Leased {
    pub id: ItemId,
    pub fence: u64,
    pub slot: Slot,
    pub fresh: Option<Arc<Message>>,
}

impl Table {
    /// Leases up to `max` due items, longest due first; those of parked destinations stay.
    pub(in crate::store) fn claim(&mut self, now: i64, max: usize, length: i64) -> Vec<Leased> {
        self.end_leases(now);
        let (mut claimed, mut moved) = (Vec::new(), 0);
        while claimed.len() < max && moved < PARK_STEP {
            let first = self.schedule.first().map(|(appointment, ())| appointment);
            let Some(appointment) = first.filter(|appointment| appointment.due <= now) else { break };
            let id = appointment.id();
            let destination = self.slot(id).map(|slot| slot.destination);
            match destination.and_then(|number| self.parked.get_mut(&number)) {
                Some(parked) => {
                    self.schedule.remove(&appointment);
                    parked.insert(appointment, ());
                    moved += 1;
                }
                None => claimed.extend(self.lease(id, now, length, false)),
            }
        }
        claimed
    }

    /// Leases up to `max` items of a parked destination, longest due first, and tells whether it
    /// stays parked: not when none is left.
    pub(in crate::store) fn claim_parked(
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
            let Some((first, ())) = self.parked.get(&number).and_then(Dense::first) else { break };
            claimed.extend(self.lease(first.id(), now, length, false));
        }
        if self.parked.get(&number).is_some_and(Dense::is_empty) {
            self.parked.remove(&number);
        }
        (claimed, self.parked.contains_key(&number))
    }

    /// Leases an item whether it is due or not; not while it is leased or only waits for its removal.
    pub(in crate::store) fn claim_item(&mut self, id: ItemId, now: i64, length: i64) -> Option<Leased> {
        // Leases run out where due items are claimed: whoever does that knows whether the clock was set.
        self.notice(now);
        let slot = self.slot(id)?;
        let free = !slot.is(DOOMED) && !self.is_leased(id);
        free.then(|| self.lease(id, now, length, false)).flatten()
    }

    /// Gives a lease back and parks its destination; false when it is not ours any more.
    pub(in crate::store) fn park(&mut self, id: ItemId, fence: u64) -> bool {
        let ours = self.leases.get(&id).is_some_and(|lease| lease.fence == fence && !lease.settling);
        if ours {
            self.update(id, |_, lease| *lease = None);
            if let Some(slot) = self.slot(id) {
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
    pub(in crate::store) fn seize(&mut self, id: ItemId) -> bool {
        let free = self.items.contains(&id.into()) && self.leases.get(&id).is_none_or(|lease| lease.over);
        free && self.lease(id, 0, i64::MAX, true).is_some()
    }

    /// Lengthens a lease; false when it is not ours any more.
    pub(in crate::store) fn extend(&mut self, id: ItemId, fence: u64, now: i64, length: i64) -> bool {
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

    /// The clock was set forward by so much: attempts go on as long as they would have.
    pub(in crate::store) fn lengthen(&mut self, by: i64) {
        let leased: Vec<ItemId> = self.leases.keys().copied().collect();
        for id in leased {
            self.update(id, |_, lease| {
                if let Some(lease) = lease {
                    lease.until = lease.until.saturating_add(by);
                }
            });
        }
    }

    /// Whether this lease may end its item; if so nothing else can until that is written.
    pub(in crate::store) fn begin_settle(&mut self, id: ItemId, fence: u64) -> Option<Slot> {
        self.leases.get(&id).filter(|lease| lease.fence == fence && !lease.settling)?;
        self.update(id, |_, lease| {
            if let Some(lease) = lease {
                (lease.settling, lease.over) = (true, false);
            }
        });
        self.slot(id)
    }

    /// The end could not be written: the lease is as before.
    pub(in crate::store) fn abort_settle(&mut self, id: ItemId) {
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
    pub(in crate::store) fn unclaim(&mut self, id: ItemId, fence: u64, at: i64) -> bool {
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

    /// Makes an item due that waits for its time; whether it did.
    pub(in crate::store) fn hurry(&mut self, id: ItemId, now: i64) -> bool {
        let waits = self.slot(id).is_some_and(|slot| slot.due > now && !slot.is(DOOMED | HELD));
        waits
            && !self.leases.contains_key(&id)
            && self.update(id, |slot, _| (slot.due, slot.since) = (now, now))
    }

    /// Looks at the clock: when it stepped back, appointments keep their distance instead of their
    /// hour.
    pub(in crate::store) fn notice(&mut self, now: i64) {
        if now < self.latest_now.saturating_sub(REWIND_MICROS) {
            self.rewind(now);
        }
        self.latest_now = now;
    }

    /// Moves what was decided in the future of `now`, which never was, back to `now`.
    pub(in crate::store) fn rewind(&mut self, now: i64) {
        let early = now.saturating_add(REWIND_MICROS);
        let since = |(id, slot): (ItemId, Slot)| (slot.since > early).then_some(id);
        let odd: Vec<ItemId> = self.all().filter_map(since).collect();
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
}
