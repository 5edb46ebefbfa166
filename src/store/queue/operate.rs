//! What operators see and do: listings and actions on items, step by step.
//!
//! A step looks at a bounded number of items under the table's lock and reads a bounded number of
//! records without it, so that a filter over a million items holds up nobody and needs no memory for
//! what it does not show.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::evidence::{EvidenceCursor, EvidenceFilter, EvidenceLimits, EvidencePage};
use super::super::journal::Draft;
use super::super::notions::{AdminAction, Claim, Entry, EntryState, Filter, Health, Page, QueueError};
use super::super::read;
use super::super::record::{Change, Mark};
use super::super::room::RoomLimits;
use super::super::shared::{Shared, blocking};
use super::super::table::{DOOMED, HELD, Slot, is_sender, length, micros, timestamp};
use super::Queue;
use crate::queue::{ItemId, QueueId, QueueItem, RecipientState};

/// Items per page at most.
const PAGE_MAX: usize = 10_000;
/// Items an operation writes in one step.
const ADMIN_STEP: usize = 256;
/// Items looked at under one lock: a millisecond.
pub(super) const LOOK_MAX: usize = 20_000;
/// Records read for a page before it is given back as it is, short or empty, with its cursor.
const READS_MAX: usize = 5_000;

impl Queue {
    /// Attempts that evidence is kept of, in the order they were settled: a page of at most `max`.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when a file of the evidence log cannot be read.
    pub async fn evidence(
        &self,
        filter: &EvidenceFilter,
        cursor: Option<EvidenceCursor>,
        max: usize,
    ) -> Result<EvidencePage, QueueError> {
        let (shared, filter) = (Arc::clone(&self.inner.shared), filter.clone());
        blocking(move || {
            // What was settled up to now is to be found.
            shared.move_evidence();
            let files = shared.evidence().files();
            files.find(&filter, cursor, max)
        })
        .await
    }

    /// How long evidence is kept and how much of it, from now on.
    pub fn limit_evidence(&self, limits: EvidenceLimits) {
        self.inner.shared.evidence().set_limits(limits);
    }

    /// How much room there must be for mail to be taken, from now on.
    pub fn limit_room(&self, limits: RoomLimits) {
        self.inner.shared.room.set_limits(limits);
    }

    /// Octets free on the queue's disk, where that can be told.
    pub fn disk_free(&self) -> Option<u64> {
        let shared = &self.inner.shared;
        shared.room.free(shared.disk.as_ref(), &shared.dir)
    }

    /// Whether a message of `octets` can be accepted.
    pub fn health_for(&self, octets: u64) -> Health {
        let shared = &self.inner.shared;
        let (health, items) = {
            let table = shared.table();
            (table.health.clone(), table.counts().iter().sum())
        };
        match health {
            Health::Fine => shared.room.judge(octets, items, shared.disk.as_ref(), &shared.dir),
            trouble => trouble,
        }
    }

    /// A page of items in order of id, after `cursor`. It may be short, even empty, and yet have a
    /// cursor, when many items had to be read to find few.
    ///
    /// # Errors
    /// [`QueueError::Storage`]. An item whose record cannot be read is left out and logged.
    pub async fn list(
        &self,
        filter: &Filter,
        cursor: Option<ItemId>,
        max: usize,
    ) -> Result<Page, QueueError> {
        let max = max.clamp(1, PAGE_MAX);
        let (shared, filter) = (Arc::clone(&self.inner.shared), filter.clone());
        blocking(move || {
            let (mut entries, mut cursor, mut reads) = (Vec::new(), cursor, 0);
            loop {
                let rows: Vec<_> = {
                    let table = shared.table();
                    let (some, stopped) = table.find(&filter, cursor, max - entries.len(), LOOK_MAX);
                    cursor = stopped;
                    let shown =
                        some.into_iter().filter(|(id, slot)| !slot.is(DOOMED) || table.is_leased(*id));
                    shown.map(|(id, slot)| (id, slot, table.entry_state(id, &slot))).collect()
                };
                reads += rows.len();
                entries.extend(rows.into_iter().filter_map(|row| entry(&shared, &filter, row)));
                if cursor.is_none() || entries.len() >= max || reads >= READS_MAX {
                    break;
                }
            }
            // A full page at the very end is the last one.
            if let (Some(at), true) = (cursor, entries.len() >= max) {
                let (more, beyond) = shared.table().find(&filter, Some(at), 1, LOOK_MAX);
                cursor = (!more.is_empty() || beyond.is_some()).then_some(at);
            }
            Ok(Page { entries, cursor })
        })
        .await
    }

    /// The next items that the filter names, at most some hundred of them; and where to go on, unless
    /// at the end.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn matching(
        &self,
        filter: &Filter,
        cursor: Option<ItemId>,
    ) -> Result<(Vec<ItemId>, Option<ItemId>), QueueError> {
        self.inner.shared.refusal()?;
        let (shared, filter) = (Arc::clone(&self.inner.shared), filter.clone());
        blocking(move || {
            let (found, next) = shared.table().find(&filter, cursor, ADMIN_STEP, LOOK_MAX);
            let named = |(id, slot): &(ItemId, Slot)| !slot.is(DOOMED) && names(&shared, &filter, *id);
            Ok((found.iter().filter(|row| named(row)).map(|(id, _)| *id).collect(), next))
        })
        .await
    }

    /// Does `action` to these items in one durable step; returns how many there were. Items in an
    /// attempt are held or deleted as soon as it ends; what it delivers stays delivered.
    ///
    /// # Errors
    /// As for [`Queue::enqueue`]; then nothing was changed.
    pub async fn change(
        &self,
        ids: &[ItemId],
        action: AdminAction,
        now: Timestamp,
    ) -> Result<u64, QueueError> {
        self.inner.shared.refusal()?;
        let (mut draft, mut count) = (Draft::vital(), 0);
        {
            let mut table = self.inner.shared.table();
            for &id in ids {
                let Some(slot) = table.slot(id) else { continue };
                count += 1;
                if action == AdminAction::Delete && table.seize(id) {
                    draft.push(Change::Done(id), None);
                } else if let Some(mark) = mark(id, &slot, action, table.is_leased(id), now) {
                    draft.push(Change::Mark(mark), None);
                }
            }
        }
        if !draft.is_empty() {
            self.inner.journal.commit(draft).await?;
        }
        Ok(count)
    }

    /// Does `action` to every item the filter names, step by step; returns how many there were.
    ///
    /// # Errors
    /// As for [`Queue::change`]; items before the error are done.
    pub async fn admin(
        &self,
        filter: &Filter,
        action: AdminAction,
        now: Timestamp,
    ) -> Result<u64, QueueError> {
        let (mut count, mut cursor) = (0, None);
        loop {
            let (ids, next) = self.matching(filter, cursor).await?;
            count += self.change(&ids, action, now).await?;
            cursor = next;
            if cursor.is_none() {
                return Ok(count);
            }
        }
    }

    /// Leases these items whether they are due or not, held ones too; those in an attempt, gone or
    /// unreadable are left out.
    ///
    /// # Errors
    /// As [`Queue::claim_due`].
    pub async fn claim_items(
        &self,
        ids: &[ItemId],
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Claim>, QueueError> {
        self.inner.shared.refusal()?;
        let leased = {
            let mut table = self.inner.shared.table();
            ids.iter().filter_map(|id| table.claim_item(*id, micros(now), length(lease))).collect()
        };
        self.claims(leased, now, lease).await
    }

    /// Messages queued from now on have this id or a later one.
    pub fn next_id(&self) -> QueueId {
        QueueId { node: self.inner.node, sequence: self.inner.shared.next_id() }
    }
}

fn entry(shared: &Shared, filter: &Filter, row: (ItemId, Slot, EntryState)) -> Option<Entry> {
    let (id, slot, state) = row;
    match read::item(shared, id) {
        Ok(item) => {
            let item = item.filter(|item| is_meant(filter, item))?;
            let next_attempt = (state != EntryState::Held).then(|| timestamp(slot.due));
            Some(Entry { item, state, next_attempt })
        }
        Err(error) => {
            tracing::error!(queue_id = %id, %error, "a queued message cannot be read");
            None
        }
    }
}

/// What only the record tells: senders are looked up by hash, errors are not in memory at all.
fn is_meant(filter: &Filter, item: &QueueItem) -> bool {
    let by_sender =
        filter.sender.as_deref().is_none_or(|asked| is_sender(&item.envelope.reverse_path, asked));
    by_sender && filter.error.as_deref().is_none_or(|asked| last_error_has(item, asked))
}

/// Whether the last error of the item, or of one of its recipients, has these words; their case does
/// not matter.
fn last_error_has(item: &QueueItem, asked: &str) -> bool {
    let asked = asked.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&asked);
    item.history.last().is_some_and(|attempt| has(&attempt.result))
        || item.recipients.iter().any(|status| match &status.state {
            RecipientState::Pending(Some(failure)) => has(&failure.text),
            _ => false,
        })
}

/// Whether the filter really names the item.
fn names(shared: &Shared, filter: &Filter, id: ItemId) -> bool {
    (filter.sender.is_none() && filter.error.is_none())
        || read::item(shared, id).ok().flatten().is_some_and(|item| is_meant(filter, &item))
}

/// What an operator's action leaves of an item; nothing when it is so already.
fn mark(id: ItemId, slot: &Slot, action: AdminAction, leased: bool, now: Timestamp) -> Option<Mark> {
    let as_it_is = Mark {
        item: id,
        held: slot.is(HELD),
        doomed: slot.is(DOOMED),
        due: timestamp(slot.due),
        since: timestamp(slot.since),
    };
    let (due, since) = (now, now);
    match action {
        AdminAction::Retry => (!leased).then_some(Mark { due, since, ..as_it_is }),
        AdminAction::Hold => (!as_it_is.held).then_some(Mark { held: true, ..as_it_is }),
        AdminAction::Release => as_it_is.held.then_some(Mark { held: false, due, since, ..as_it_is }),
        AdminAction::Delete => Some(Mark { doomed: true, ..as_it_is }),
    }
}
