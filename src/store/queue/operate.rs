//! What operators see and do: listings and actions on items.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::evidence::{EvidenceCursor, EvidenceFilter, EvidenceLimits, EvidencePage};
use super::super::journal::Draft;
use super::super::notions::{AdminAction, Entry, EntryState, Filter, Page, QueueError};
use super::super::read;
use super::super::record::{Change, Mark};
use super::super::shared::{Shared, blocking};
use super::super::table::{DOOMED, HELD, Slot, is_sender, timestamp};
use super::Queue;
use crate::queue::{ItemId, QueueItem};

/// Items per page at most.
const PAGE_MAX: usize = 10_000;
/// Items an operation writes in one step.
const ADMIN_STEP: usize = 256;
/// Items looked at under one lock.
const LOOK_MAX: usize = 20_000;

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

    /// A page of items in order of id, after `cursor`.
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
            let (mut found, mut cursor) = (Vec::new(), cursor);
            // One more than wanted tells whether this is the end.
            while found.len() <= max {
                let table = shared.table();
                let (some, stopped) = table.find(&filter, cursor, max + 1 - found.len(), LOOK_MAX);
                let shown = some.into_iter().filter(|(id, slot)| !slot.is(DOOMED) || table.is_leased(*id));
                found.extend(shown.map(|(id, slot)| (id, slot, table.entry_state(id, &slot))));
                drop(table);
                cursor = stopped;
                if cursor.is_none() {
                    break;
                }
            }
            let more = found.len() > max;
            found.truncate(max);
            let cursor = found.last().map(|(id, ..)| *id).filter(|_| more);
            let entries = found.into_iter().filter_map(|row| entry(&shared, &filter, row)).collect();
            Ok(Page { entries, cursor })
        })
        .await
    }

    /// Does `action` to every item the filter names; returns how many there were. Items in an
    /// attempt are held or deleted as soon as it ends; what it delivers stays delivered.
    ///
    /// # Errors
    /// As for [`Queue::enqueue`]; items before the error are done.
    pub async fn admin(
        &self,
        filter: &Filter,
        action: AdminAction,
        now: Timestamp,
    ) -> Result<u64, QueueError> {
        self.inner.shared.refusal()?;
        let (mut count, mut cursor) = (0, None);
        loop {
            let (shared, wanted) = (Arc::clone(&self.inner.shared), filter.clone());
            let (ids, next) = blocking(move || {
                let (found, next) = shared.table().find(&wanted, cursor, ADMIN_STEP, LOOK_MAX);
                let named = |(id, slot): &(ItemId, Slot)| !slot.is(DOOMED) && names(&shared, &wanted, *id);
                Ok((found.iter().filter(|row| named(row)).map(|(id, _)| *id).collect::<Vec<_>>(), next))
            })
            .await?;
            let mut draft = Draft::vital();
            {
                let mut table = self.inner.shared.table();
                for id in ids {
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
            cursor = next;
            if cursor.is_none() {
                return Ok(count);
            }
        }
    }
}

fn entry(shared: &Shared, filter: &Filter, row: (ItemId, Slot, EntryState)) -> Option<Entry> {
    let (id, slot, state) = row;
    match read::item(shared, id) {
        Ok(item) => {
            let item = item.filter(|item| sent_by(filter, item))?;
            let next_attempt = (state != EntryState::Held).then(|| timestamp(slot.due));
            Some(Entry { item, state, next_attempt })
        }
        Err(error) => {
            tracing::error!(queue_id = %id, %error, "a queued message cannot be read");
            None
        }
    }
}

fn sent_by(filter: &Filter, item: &QueueItem) -> bool {
    let asked = filter.sender.as_deref();
    asked.is_none_or(|asked| is_sender(&item.envelope.reverse_path, asked))
}

/// Whether the filter really names the item: senders are looked up by hash.
fn names(shared: &Shared, filter: &Filter, id: ItemId) -> bool {
    filter.sender.is_none()
        || read::item(shared, id).ok().flatten().is_some_and(|item| sent_by(filter, &item))
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
