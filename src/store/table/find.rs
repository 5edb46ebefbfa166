//! Finding items for listings and operators. Part of the table.

use super::super::notions::Filter;
use super::Table;
use super::slot::{Slot, hash_sender};
use crate::queue::ItemId;

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
                && sender.is_none_or(|hash| hash == slot.sender);
            if matches {
                found.push((id, slot));
            }
            if found.len() >= max || looked + 1 >= look {
                return (found, Some(id));
            }
        }
        (found, None)
    }
}
