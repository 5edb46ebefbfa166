//! The queue's part of `answer`: pages, totals, operations in steps, freezing.
//!
//! An operation over many items is many requests, each of which ends soon: the asking side tells how
//! far it is and may stop between two; what is done is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracing::info;

use super::answer::AdminHandles;
use super::protocol::{
    ActCursor, Answer, PAGE_MAX, QueueAction, QueueEntry, QueueFilter, QueueState, QueueTotals,
};
use crate::mail::Destination;
use crate::queue::ItemId;
use crate::store::{AdminAction, Entry, EntryState, Filter, Freeze, Queue, QueueError};

/// Steps of an operation are taken for so long before the asking side hears of them.
const STEPS_FOR: Duration = Duration::from_millis(300);
/// Destinations told of in totals at most, however many are asked for.
const DESTINATIONS_MAX: usize = 1000;

/// The queue keeps whole microseconds; what was given back until an instant is due at most so much later.
const ROUNDED: SignedDuration = SignedDuration::from_micros(1);

impl AdminHandles {
    pub(super) async fn queue_page(
        &self,
        filter: &QueueFilter,
        cursor: Option<ItemId>,
        history: bool,
        max: Option<usize>,
    ) -> Answer {
        let filter = match self.filter(filter) {
            Ok(filter) => filter,
            Err(text) => return Answer::Failed { text },
        };
        let now = self.clock.now();
        let max = max.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        match self.queue.list(&filter, cursor, max).await {
            Ok(page) => Answer::QueuePage {
                entries: page.entries.iter().map(|entry| self.entry(entry, history, now)).collect(),
                cursor: page.cursor,
            },
            Err(error) => failed(&error),
        }
    }

    /// An entry as listed, with what keeps it waiting beside its schedule.
    fn entry(&self, entry: &Entry, history: bool, now: Timestamp) -> QueueEntry {
        let destination = &entry.item.destination;
        let frozen = self.queue.frozen(destination, now);
        let waits = match (&frozen, entry.next_attempt) {
            // Held by an operator: it waits for nothing else.
            (_, None) => None,
            (Some(freeze), Some(_)) => Some(freeze.to_string()),
            // Whose own schedule is later waits for nothing else.
            (None, Some(at)) => self
                .traffic
                .held(destination, now)
                .filter(|held| at.duration_since(held.until) <= ROUNDED)
                .map(|held| held.text),
        };
        QueueEntry { frozen: frozen.is_some(), waits, ..QueueEntry::new(entry, history) }
    }

    /// Takes steps of an operation for a while.
    pub(super) async fn queue_act(
        &self,
        filter: &QueueFilter,
        action: QueueAction,
        reason: Option<&str>,
        cursor: Option<ActCursor>,
        dry_run: bool,
    ) -> Answer {
        let below = cursor.map_or_else(|| self.queue.next_id(), |cursor| cursor.below);
        let wanted = match self.filter(filter) {
            // What the operation itself brings about, bounces of bounces for one, is none of its items.
            Ok(wanted) => Filter { below: Some(below), ..wanted },
            Err(text) => return Answer::Failed { text },
        };
        // Before the items are due, so that the first of them finds nothing held against its hosts; once,
        // so that what the first of them find out spares the others.
        if cursor.is_none() && !dry_run && matches!(action, QueueAction::Retry | QueueAction::Release) {
            self.traffic.clear();
            self.gather.forget_failures();
        }
        let (mut after, begun) = (cursor.and_then(|cursor| cursor.after), Instant::now());
        let (mut count, mut left) = (0, 0);
        let mut trouble = None;
        loop {
            let step = async {
                let (ids, next) = self.queue.matching(&wanted, after).await?;
                let (done, stayed) = self.step(&ids, action, reason, dry_run).await?;
                Ok::<_, QueueError>((done, stayed, next))
            };
            match step.await {
                Ok((done, stayed, next)) => {
                    count += done;
                    left += stayed;
                    after = next;
                }
                Err(error) => {
                    trouble = Some(error.to_string());
                    break;
                }
            }
            if after.is_none() || begun.elapsed() >= STEPS_FOR {
                break;
            }
        }
        if count > 0 && !dry_run {
            info!(?action, ?filter, count, "queue changed by an operator");
        }
        let cursor = after.filter(|_| trouble.is_none()).map(|after| ActCursor { after: Some(after), below });
        Answer::Acted { count, left, cursor, trouble }
    }

    async fn step(
        &self,
        ids: &[ItemId],
        action: QueueAction,
        reason: Option<&str>,
        dry_run: bool,
    ) -> Result<(u64, u64), QueueError> {
        let action = match action {
            _ if dry_run => return Ok((ids.len() as u64, 0)),
            QueueAction::Bounce => {
                let given = self.giving_up.give_up(ids, reason).await?;
                return Ok((given.done, given.left));
            }
            QueueAction::Retry => AdminAction::Retry,
            QueueAction::Hold => AdminAction::Hold,
            QueueAction::Release => AdminAction::Release,
            QueueAction::Delete => AdminAction::Delete,
        };
        Ok((self.queue.change(ids, action, self.clock.now()).await?, 0))
    }

    pub(super) async fn queue_totals(&self, destinations: usize) -> Answer {
        let survey = match self.queue.survey(self.clock.now()).await {
            Ok(survey) => survey,
            Err(error) => return failed(&error),
        };
        let max = destinations.min(DESTINATIONS_MAX);
        let totals = QueueTotals::new(&self.queue.stats(), &survey, &self.queue.health(), max);
        let dnssec = Some(self.gather.validation().await.to_string());
        Answer::QueueTotals(Box::new(QueueTotals { dnssec, ..totals }))
    }

    pub(super) async fn queue_freeze(
        &self,
        destination: Destination,
        reason: Option<String>,
        until: Option<Timestamp>,
    ) -> Answer {
        let now = self.clock.now();
        if until.is_some_and(|until| until <= now) {
            return Answer::Failed { text: "the end of the freeze is past".to_owned() };
        }
        info!(%destination, reason, until = until.map(tracing::field::display), "frozen by an operator");
        match self.queue.freeze(Freeze { destination, reason, since: now, until }, now).await {
            Ok(()) => Answer::Changed { count: 1 },
            Err(error) => failed(&error),
        }
    }

    pub(super) async fn queue_thaw(&self, destination: &Destination) -> Answer {
        match self.queue.thaw(destination, self.clock.now()).await {
            Ok(true) => {
                info!(%destination, "thawed by an operator");
                Answer::Changed { count: 1 }
            }
            Ok(false) => Answer::Nothing { text: format!("{destination} is not frozen") },
            Err(error) => failed(&error),
        }
    }

    fn filter(&self, asked: &QueueFilter) -> Result<Filter, String> {
        filter(&self.queue, asked, self.clock.now())
    }
}

/// What the store is to look for.
pub(super) fn filter(queue: &Queue, asked: &QueueFilter, now: Timestamp) -> Result<Filter, String> {
    let state = match asked.state {
        Some(QueueState::Active) => Some(EntryState::Active),
        Some(QueueState::Deferred) => Some(EntryState::Deferred),
        Some(QueueState::Held) => Some(EntryState::Held),
        Some(QueueState::Frozen) | None => None,
    };
    let among = (asked.state == Some(QueueState::Frozen)).then(|| {
        let frozen = queue.freezes(now);
        Arc::new(frozen.iter().map(|freeze| freeze.destination.clone()).collect::<BTreeSet<_>>())
    });
    Ok(Filter { state, among, ..Filter::try_from(asked)? })
}

fn failed(error: &QueueError) -> Answer {
    Answer::Failed { text: error.to_string() }
}
