//! Finding items for listings and operators. Part of the table.

use super::super::notions::Filter;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use jiff::Timestamp;

use super::Table;
use super::slot::{Slot, hash_sender, micros};
use crate::mail::Destination;
use crate::queue::ItemId;

/// Items of a destination: active, deferred, held; and the second the oldest was received in.
pub(in crate::store) type Tally = (Destination, [u64; 3], i64);

impl Table {
    /// Items after `cursor` that may match the filter, looking at no more than `look` of them; and
    /// where the search stopped, unless at the end.
    pub(in crate::store) fn find(
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
        let among: Option<BTreeSet<u32>> = filter
            .among
            .as_ref()
            .map(|names| names.iter().filter_map(|name| self.destinations.number(name)).collect());
        let sender = filter.sender.as_deref().map(hash_sender);
        let second = |at: Timestamp| micros(at).div_euclid(1_000_000) * 1_000_000;
        let (before, after) = (filter.received_before.map(second), filter.received_after.map(second));
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
                Excluded(cursor.into())
            }
            (Some((from, _)), _) => Included(from.into()),
            (None, Some(cursor)) => Excluded(cursor.into()),
            (None, None) => Unbounded,
        };
        let upper = only.map_or(Unbounded, |(_, to)| Included(to.into()));
        let mut found = Vec::new();
        for (looked, (id, slot)) in self.slots(lower, upper).enumerate() {
            let matches = destination.is_none_or(|number| number == slot.destination)
                && among.as_ref().is_none_or(|numbers| numbers.contains(&slot.destination))
                && sender.is_none_or(|hash| hash == slot.sender)
                && before.is_none_or(|before| slot.received <= before)
                && after.is_none_or(|after| slot.received >= after)
                && filter.state.is_none_or(|state| state == self.entry_state(id, &slot))
                // Without a State nothing ever failed.
                && (filter.error.is_none() || slot.state.is_some())
                && filter.below.is_none_or(|below| {
                    id.queue_id.node != below.node || id.queue_id.sequence < below.sequence
                });
            if matches {
                found.push((id, slot));
            }
            if found.len() >= max || looked + 1 >= look {
                return (found, Some(id));
            }
        }
        (found, None)
    }

    /// Items after `cursor`, no more than `look` of them, counted by destination, and in `ages` by the
    /// class that `aged` gives for when they were received; and where counting stopped, unless at the end.
    pub(in crate::store) fn tally(
        &self,
        cursor: Option<ItemId>,
        look: usize,
        aged: &dyn Fn(i64) -> usize,
        ages: &mut [u64],
    ) -> (Vec<Tally>, Option<ItemId>) {
        let lower = cursor.map_or(Bound::Unbounded, |cursor| Bound::Excluded(cursor.into()));
        let mut counted: BTreeMap<u32, ([u64; 3], i64)> = BTreeMap::new();
        let mut stopped = None;
        for (looked, (id, slot)) in self.slots(lower, Bound::Unbounded).enumerate() {
            if let Some(class) = self.class(id, &slot) {
                let (counts, oldest) = counted.entry(slot.destination).or_insert(([0; 3], slot.received));
                counts[class] += 1;
                *oldest = slot.received.min(*oldest);
                if let Some(class) = ages.get_mut(aged(slot.received)) {
                    *class += 1;
                }
            }
            if looked + 1 >= look {
                stopped = Some(id);
                break;
            }
        }
        let named =
            |(number, (counts, oldest))| Some((self.destinations.name(number)?.clone(), counts, oldest));
        (counted.into_iter().filter_map(named).collect(), stopped)
    }
}
