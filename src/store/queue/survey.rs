//! The queue by destination and state, and what operators have frozen.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::freezes::Freeze;
use super::super::notions::{DestinationTotal, QueueError, Survey};
use super::super::shared::blocking;
use super::super::table::timestamp;
use super::Queue;
use super::operate::LOOK_MAX;
use crate::mail::Destination;

impl Queue {
    /// Totals by destination, most items first, and the freezes in force. Looks at every item, some
    /// at a time: what changes meanwhile is counted as it was before or after.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn survey(&self, now: Timestamp) -> Result<Survey, QueueError> {
        let shared = Arc::clone(&self.inner.shared);
        let mut destinations = blocking(move || {
            let mut totals: BTreeMap<Destination, DestinationTotal> = BTreeMap::new();
            let mut cursor = None;
            loop {
                let (some, next) = shared.table().tally(cursor, LOOK_MAX);
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
                    return Ok(totals.into_values().collect::<Vec<_>>());
                }
            }
        })
        .await?;
        destinations.sort_by_key(|total| std::cmp::Reverse(total.items()));
        let frozen = self.inner.freezes.list(now).iter().map(|freeze| (**freeze).clone()).collect();
        Ok(Survey { destinations, frozen })
    }

    /// Stops deliveries to a destination, or changes why and until when they are stopped; durable
    /// when it returns. Mail for it is still accepted and its items wait.
    ///
    /// # Errors
    /// [`QueueError`], also when too many destinations are frozen.
    pub async fn freeze(&self, freeze: Freeze, now: Timestamp) -> Result<(), QueueError> {
        self.inner.freezes.put(freeze, now).await
    }

    /// Ends a freeze; whether there was one. Its items are looked at when they are due next; to have
    /// them tried at once use [`Queue::admin`].
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn thaw(&self, destination: &Destination) -> Result<bool, QueueError> {
        self.inner.freezes.remove(destination).await
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
