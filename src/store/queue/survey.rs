//! The queue by destination and state, and what operators have frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::super::freezes::Freeze;
use super::super::notions::{AGE_CLASSES, DestinationTotal, Filter, QueueError, Survey};
use super::super::shared::blocking;
use super::super::table::{micros, timestamp};
use super::Queue;
use super::operate::LOOK_MAX;
use crate::mail::Destination;

/// Items made due under one lock: some milliseconds.
const HURRY_STEP: usize = 5_000;

impl Queue {
    /// Totals by destination, most items first, and the freezes in force. Looks at every item, some
    /// at a time: what changes meanwhile is counted as it was before or after.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn survey(&self, now: Timestamp) -> Result<Survey, QueueError> {
        let shared = Arc::clone(&self.inner.shared);
        let (mut destinations, ages) = blocking(move || {
            let mut totals: BTreeMap<Destination, DestinationTotal> = BTreeMap::new();
            let mut cursor = None;
            let mut ages = [0; AGE_CLASSES.len() + 1];
            let aged = |received| {
                let age = now.duration_since(timestamp(received)).as_secs();
                AGE_CLASSES.iter().take_while(|class| age >= i64::from(**class)).count()
            };
            loop {
                let (some, next) = shared.table().tally(cursor, LOOK_MAX, &aged, &mut ages);
                for (destination, counts, oldest) in some {
                    let oldest = timestamp(oldest);
                    let total = totals
                        .entry(destination.clone())
                        .or_insert_with(|| DestinationTotal::none(destination, oldest));
                    total.active += counts[0];
                    total.deferred += counts[1];
                    total.held += counts[2];
                    total.oldest = total.oldest.min(oldest);
                }
                cursor = next;
                if cursor.is_none() {
                    return Ok((totals.into_values().collect::<Vec<_>>(), ages));
                }
            }
        })
        .await?;
        destinations.sort_by_key(|total| std::cmp::Reverse(total.items()));
        let frozen = self.inner.freezes.list(now).iter().map(|freeze| (**freeze).clone()).collect();
        Ok(Survey { destinations, ages, frozen })
    }

    /// Stops deliveries to a destination, or changes why and until when they are stopped; durable
    /// when it returns. Mail for it is still accepted and its items wait.
    ///
    /// # Errors
    /// [`QueueError`], also when too many destinations are frozen.
    pub async fn freeze(&self, freeze: Freeze, now: Timestamp) -> Result<(), QueueError> {
        let destination = freeze.destination.clone();
        let before = self.inner.freezes.get(&destination, now);
        self.inner.freezes.put(freeze, now).await?;
        if before.is_some() {
            // They wait for the end it had.
            self.hurry([destination].into(), now);
        }
        Ok(())
    }

    /// Ends a freeze; whether there was one. Its items are due then; a restart in between makes no
    /// difference.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn thaw(&self, destination: &Destination, now: Timestamp) -> Result<bool, QueueError> {
        let thawed = self.inner.freezes.end(destination, now).await?;
        if thawed {
            self.hurry([destination.clone()].into(), now);
        }
        Ok(thawed)
    }

    /// What waits for these destinations is due now: it was told to wait for a freeze, and nothing else
    /// looks at it before that is over. In memory: after a restart `Queue::open_over` does the same.
    pub(super) fn hurry(&self, destinations: BTreeSet<Destination>, now: Timestamp) {
        let filter = Filter { among: Some(Arc::new(destinations)), ..Filter::default() };
        let (shared, now) = (&self.inner.shared, micros(now));
        let (mut cursor, mut some) = (None, false);
        loop {
            let mut table = shared.table();
            let (found, next) = table.find(&filter, cursor, HURRY_STEP, LOOK_MAX);
            for (id, _) in found {
                some |= table.hurry(id, now);
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        if some {
            shared.wake.notify_one();
        }
    }

    /// The freeze of a destination that is in force.
    pub fn frozen(&self, destination: &Destination, now: Timestamp) -> Option<Arc<Freeze>> {
        self.inner.freezes.get(destination, now)
    }

    /// All freezes in force, by name.
    pub fn freezes(&self, now: Timestamp) -> Vec<Arc<Freeze>> {
        self.inner.freezes.list(now)
    }
}
