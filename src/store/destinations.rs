//! Destinations by number, each with its count of items: a name is kept once however many wait.
//!
//! Pure memory, part of the table.

use std::collections::HashMap;

use crate::mail::Destination;

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    numbers: HashMap<Destination, u32>,
    entries: Vec<Option<(Destination, u64)>>,
    free: Vec<u32>,
}

impl Destinations {
    /// One more item for this destination; its number.
    pub(super) fn add(&mut self, destination: &Destination) -> u32 {
        if let Some(&number) = self.numbers.get(destination) {
            if let Some(Some((_, count))) = self.entries.get_mut(number as usize) {
                *count += 1;
            }
            return number;
        }
        let entry = Some((destination.clone(), 1));
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.numbers.insert(destination.clone(), number);
        number
    }

    /// One item less.
    pub(super) fn remove(&mut self, number: u32) {
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        let Some((destination, count)) = entry else { return };
        *count -= 1;
        if *count == 0 {
            self.numbers.remove(destination);
            *entry = None;
            self.free.push(number);
        }
    }

    /// The number of a destination that has items.
    pub(super) fn number(&self, destination: &Destination) -> Option<u32> {
        self.numbers.get(destination).copied()
    }

    /// The destination of a number.
    pub(super) fn name(&self, number: u32) -> Option<&Destination> {
        self.entries.get(number as usize)?.as_ref().map(|(destination, _)| destination)
    }

    /// Those with the most items, most first.
    pub(super) fn top(&self, max: usize) -> Vec<(Destination, u64)> {
        let mut all: Vec<&(Destination, u64)> = self.entries.iter().flatten().collect();
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.into_iter().take(max).cloned().collect()
    }
}
