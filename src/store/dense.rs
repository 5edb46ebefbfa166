//! An ordered map that wastes little: sorted chunks instead of a tree of half full nodes.
//!
//! What is put in at the end, as queue ids and due times mostly are, fills its chunks wholly; what is
//! put in anywhere fills them by some 70 %. Finding is two binary searches, changing moves at most
//! one chunk's octets. Pure memory; used by the table for everything that grows with the queue.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Entries of a chunk at most: a few kilobytes to move, and little overhead for each entry.
const CHUNK: usize = 64;
/// Chunks shorter than this are joined with the one before.
const THIN: usize = CHUNK / 4;

/// See the file's header.
#[derive(Debug, Clone)]
pub(super) struct Dense<K, V> {
    /// By a key not above the chunk's first and above the last one of the chunk before; no chunk is
    /// empty.
    chunks: BTreeMap<K, Vec<(K, V)>>,
    len: usize,
}

impl<K, V> Default for Dense<K, V> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new(), len: 0 }
    }
}

impl<K: Ord + Copy, V: Copy> Dense<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let (_, chunk) = self.chunks.range(..=*key).next_back()?;
        let at = chunk.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts an entry in, or another value for its key; whether the key is new.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        let Some((&bound, chunk)) = self.chunks.range_mut(..=key).next_back() else {
            return self.insert_first(key, value);
        };
        let at = match chunk.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => {
                chunk[at].1 = value;
                return false;
            }
            Err(at) => at,
        };
        self.len += 1;
        if chunk.len() < CHUNK {
            chunk.insert(at, (key, value));
            return true;
        }
        // Behind the end a new chunk begins, so that what grows at its end leaves no room unused.
        let mut behind = if at == CHUNK { Vec::new() } else { chunk.split_off(CHUNK / 2) };
        match behind.first() {
            Some(_) if at <= CHUNK / 2 => chunk.insert(at, (key, value)),
            Some(_) => behind.insert(at - CHUNK / 2, (key, value)),
            None => behind.push((key, value)),
        }
        debug_assert!(bound <= chunk[0].0);
        self.chunks.insert(behind[0].0, behind);
        true
    }

    /// The key is below all others.
    fn insert_first(&mut self, key: K, value: V) -> bool {
        self.len += 1;
        let first = self.chunks.first_key_value().map(|(_, chunk)| chunk.len());
        let mut chunk = match first {
            Some(len) if len < CHUNK => self.chunks.pop_first().map_or_else(Vec::new, |(_, chunk)| chunk),
            _ => Vec::new(),
        };
        chunk.insert(0, (key, value));
        self.chunks.insert(key, chunk);
        true
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (&bound, chunk) = self.chunks.range_mut(..=*key).next_back()?;
        let at = chunk.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(&bound);
        } else if chunk.len() < THIN {
            if chunk.capacity() > CHUNK / 2 {
                chunk.shrink_to(THIN);
            }
            self.join(bound);
        }
        Some(value)
    }

    /// Appends a thin chunk to the one before it, if that has room to spare.
    fn join(&mut self, bound: K) {
        let Some(len) = self.chunks.get(&bound).map(Vec::len) else { return };
        let Some((_, before)) = self.chunks.range_mut(..bound).next_back() else { return };
        if before.len() + len > CHUNK - THIN {
            return;
        }
        // Taken out and put in again: two chunks cannot be changed at once.
        let before_bound = self.chunks.range(..bound).next_back().map(|(bound, _)| *bound);
        let Some(thin) = self.chunks.remove(&bound) else { return };
        if let Some(before) = before_bound.and_then(|bound| self.chunks.get_mut(&bound)) {
            before.extend(thin);
        }
    }

    pub(super) fn first(&self) -> Option<(K, V)> {
        self.chunks.first_key_value().and_then(|(_, chunk)| chunk.first().copied())
    }

    /// Entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.chunks.values().flatten().copied()
    }

    /// Entries between two bounds, in order.
    pub(super) fn range(&self, lower: Bound<K>, upper: Bound<K>) -> impl Iterator<Item = (K, V)> {
        let begin = match lower {
            Bound::Included(key) | Bound::Excluded(key) => {
                self.chunks.range(..=key).next_back().map(|(bound, _)| *bound)
            }
            Bound::Unbounded => None,
        };
        let chunks = match begin {
            Some(bound) => self.chunks.range(bound..),
            None => self.chunks.range(..),
        };
        let below = move |key: &K| match lower {
            Bound::Included(lower) => *key < lower,
            Bound::Excluded(lower) => *key <= lower,
            Bound::Unbounded => false,
        };
        let within = move |key: &K| match upper {
            Bound::Included(upper) => *key <= upper,
            Bound::Excluded(upper) => *key < upper,
            Bound::Unbounded => true,
        };
        let rows = chunks.flat_map(|(_, chunk)| chunk).copied();
        rows.skip_while(move |(key, _)| below(key)).take_while(move |(key, _)| within(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the standard map, after every step.
        #[test]
        fn it_is_an_ordered_map(steps in proptest::collection::vec((0u8..4, 0u16..900), 1..3000)) {
            let (mut ours, mut theirs) = (Dense::default(), BTreeMap::new());
            for (number, (what, key)) in steps.into_iter().enumerate() {
                match what {
                    0 => prop_assert_eq!(ours.remove(&key), theirs.remove(&key)),
                    // Mostly ascending, as ids are.
                    1 => {
                        let key = number as u16 + 1000;
                        prop_assert_eq!(ours.insert(key, number), theirs.insert(key, number).is_none());
                    }
                    _ => prop_assert_eq!(ours.insert(key, number), theirs.insert(key, number).is_none()),
                }
                prop_assert_eq!(ours.len(), theirs.len());
                prop_assert_eq!(ours.first(), theirs.first_key_value().map(|(k, v)| (*k, *v)));
                prop_assert_eq!(ours.get(&key), theirs.get(&key));
            }
            prop_assert!(ours.iter().eq(theirs.iter().map(|(k, v)| (*k, *v))));
            for key in [0u16, 17, 450, 899, 1000, 2500] {
                let bounds = [Bound::Included(key), Bound::Excluded(key), Bound::Unbounded];
                for lower in bounds {
                    for upper in [Bound::Included(key + 40), Bound::Excluded(key + 40), Bound::Unbounded] {
                        let expected = theirs.range((lower, upper)).map(|(k, v)| (*k, *v));
                        prop_assert!(ours.range(lower, upper).eq(expected));
                    }
                }
            }
        }
    }

    #[test]
    fn what_grows_at_the_end_and_leaves_at_the_front_wastes_nothing() {
        let mut dense = Dense::default();
        for key in 0..10_000u32 {
            dense.insert(key, ());
        }
        assert_eq!(dense.chunks.len(), 10_000usize.div_ceil(CHUNK));
        for key in 0..9_900 {
            assert_eq!(dense.first(), Some((key, ())));
            dense.remove(&key);
        }
        assert_eq!(dense.chunks.len(), 3);
        // Few left of each chunk: they move together.
        let mut dense: Dense<u32, ()> = Dense::default();
        (0..10_000).for_each(|key| assert!(dense.insert(key, ())));
        (0..10_000).filter(|key| key % 50 != 0).for_each(|key| assert!(dense.remove(&key).is_some()));
        assert_eq!(dense.len(), 200);
        assert!(dense.chunks.len() < 20, "{}", dense.chunks.len());
    }
}
