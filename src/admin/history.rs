//! What was counted, minute by minute for a day and hour by hour for a month: the plots of the status page.
//!
//! Totals and `now` go in, columns of a plot come out; `keep` feeds it and writes it down. Only differences
//! of totals are added, so nothing is counted twice, and totals that begin anew (a restart) are taken as they
//! are. A minute without an entry is one in which nobody looked: the relay did not run. Bounded by the number
//! of entries, not by their age, so that a clock that runs ahead for a while takes nothing away. Pure.

pub mod keep;

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::metrics::{Protection, Totals};

/// What is counted.
pub const SERIES: usize = 4 + Protection::ALL.len();
/// Minutes kept: a day, and the one that runs.
const MINUTES_MAX: usize = 24 * 60 + 1;
/// Hours kept: thirty days, and the one that runs.
const HOURS_MAX: usize = 30 * 24 + 1;
/// A clock that steps back by so many seconds and no more goes on in the latest entry: time services do that.
const STEP_BACK_MAX: i64 = 120;
/// The first line of what is kept: this, the format's number, a checksum.
const MAGIC: &str = "stsrelay-history";
/// The format written here.
const FORMAT: u32 = 1;

/// So much of each series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts([u64; SERIES]);

impl Counts {
    /// Recipients of messages taken from clients.
    pub fn accepted(&self) -> u64 {
        self.0[0]
    }

    /// Recipients delivered to.
    pub fn delivered(&self) -> u64 {
        self.0[1]
    }

    /// Attempts after which an item waits for another one.
    pub fn deferred(&self) -> u64 {
        self.0[2]
    }

    /// Recipients given up.
    pub fn failed(&self) -> u64 {
        self.0[3]
    }

    /// Recipients delivered to, in the order of [`Protection::ALL`].
    pub fn protection(&self) -> [u64; Protection::ALL.len()] {
        std::array::from_fn(|at| self.0[4 + at])
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// What came since `last`; all of it when the counting began anew in between.
    fn since(&self, last: &Self) -> Self {
        if self.0.iter().zip(last.0).any(|(now, before)| *now < before) {
            return *self;
        }
        Self(std::array::from_fn(|at| self.0[at] - last.0[at]))
    }
}

impl From<Totals> for Counts {
    fn from(totals: Totals) -> Self {
        let mut counts = [0; SERIES];
        counts[..4].copy_from_slice(&[totals.accepted, totals.delivered, totals.deferred, totals.failed]);
        counts[4..].copy_from_slice(&totals.protection);
        Self(counts)
    }
}

/// What a plot covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// Sixty columns of a minute.
    Hour,
    /// Ninety-six columns of a quarter of an hour.
    #[default]
    Day,
    /// A hundred and twenty columns of six hours: thirty days.
    Month,
}

impl Range {
    /// Seconds of a column, and how many there are.
    pub fn columns(self) -> (i64, usize) {
        match self {
            Self::Hour => (60, 60),
            Self::Day => (15 * 60, 96),
            Self::Month => (6 * 3600, 120),
        }
    }
}

/// One column of a plot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its first instant.
    pub from: Timestamp,
    /// What was counted; absent when nobody looked.
    pub counts: Option<Counts>,
}

/// See the file's header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    minutes: Ring<60, MINUTES_MAX>,
    hours: Ring<3600, HOURS_MAX>,
    /// The totals taken in last; of this process.
    last: Counts,
}

/// Entries of `WIDTH` seconds each, by number since the epoch, ascending; at most `MAX`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ring<const WIDTH: i64, const MAX: usize> {
    entries: VecDeque<(i64, Counts)>,
}

impl<const WIDTH: i64, const MAX: usize> Ring<WIDTH, MAX> {
    /// Adds at this second. Whether entries of a future that was none were dropped for it.
    fn add(&mut self, second: i64, counts: &Counts) -> bool {
        let number = second.div_euclid(WIDTH);
        let step = STEP_BACK_MAX / WIDTH + 1;
        let before = self.entries.len();
        if self.entries.back().is_some_and(|(latest, _)| *latest > number + step) {
            while self.entries.back().is_some_and(|(latest, _)| *latest > number) {
                self.entries.pop_back();
            }
        }
        let dropped = self.entries.len() < before;
        match self.entries.back_mut() {
            Some((latest, sum)) if *latest >= number => sum.add(counts),
            _ => self.entries.push_back((number, *counts)),
        }
        while self.entries.len() > MAX {
            self.entries.pop_front();
        }
        dropped
    }

    fn columns(&self, last: i64, width: i64, count: usize) -> Vec<Option<Counts>> {
        let mut columns = vec![None; count];
        for (number, counts) in &self.entries {
            let back = last - (number * WIDTH).div_euclid(width);
            let at = usize::try_from(back).ok().and_then(|back| count.checked_sub(back + 1));
            if let Some(column) = at.and_then(|at| columns.get_mut(at)) {
                column.get_or_insert_with(Counts::default).add(counts);
            }
        }
        columns
    }

    fn is_sound(&self) -> bool {
        let ascending = self.entries.iter().zip(self.entries.iter().skip(1)).all(|(a, b)| a.0 < b.0);
        // Columns are worked out from these: what no clock shows is damage.
        let sane = self.entries.iter().all(|(number, _)| (0..=i64::MAX / (4 * WIDTH)).contains(number));
        ascending && sane && self.entries.len() <= MAX
    }
}

impl History {
    /// Takes in the totals as they are now. Whether the clock had been set back, so that entries were dropped
    /// whose time has not come yet.
    pub fn observe(&mut self, totals: Totals, now: Timestamp) -> bool {
        let counts = Counts::from(totals);
        let new = counts.since(&self.last);
        self.last = counts;
        let second = now.as_second();
        self.minutes.add(second, &new) | self.hours.add(second, &new)
    }

    /// The columns of a plot that ends now, the oldest first.
    pub fn columns(&self, range: Range, now: Timestamp) -> Vec<Column> {
        let (width, count) = range.columns();
        let last = now.as_second().div_euclid(width);
        let counted = match range {
            Range::Hour | Range::Day => self.minutes.columns(last, width, count),
            Range::Month => self.hours.columns(last, width, count),
        };
        let first = last - count as i64 + 1;
        let column = |(number, counts)| {
            let from = Timestamp::from_second(number * width).unwrap_or(now);
            Column { from, counts }
        };
        (first..=last).zip(counted).map(column).collect()
    }

    /// The form it is kept in.
    pub fn render(&self) -> Vec<u8> {
        let kept = Kept { minutes: self.minutes.entries.clone(), hours: self.hours.entries.clone() };
        // Numbers and lists alone cannot fail to serialise.
        let body = serde_json::to_vec(&kept).unwrap_or_default();
        let mut out = format!("{MAGIC} {FORMAT} {:08x}\n", crc32fast::hash(&body)).into_bytes();
        out.extend_from_slice(&body);
        out
    }

    /// Reads what [`History::render`] wrote.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence's end.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = || "is damaged".to_owned();
        let line = bytes.iter().position(|b| *b == b'\n').ok_or_else(damaged)?;
        let (head, body) = (&bytes[..line], &bytes[line + 1..]);
        let head = std::str::from_utf8(head).map_err(|_| damaged())?;
        let mut words = head.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(damaged());
        }
        let format: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(damaged)?;
        if format > FORMAT {
            return Err(format!("is of format {format}, and this release writes {FORMAT}"));
        }
        if words.next() != Some(&format!("{:08x}", crc32fast::hash(body))) || words.next().is_some() {
            return Err(damaged());
        }
        let kept: Kept = serde_json::from_slice(body).map_err(|_| damaged())?;
        let (minutes, hours) = (Ring { entries: kept.minutes }, Ring { entries: kept.hours });
        let history = Self { minutes, hours, last: Counts::default() };
        if history.minutes.is_sound() && history.hours.is_sound() { Ok(history) } else { Err(damaged()) }
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    minutes: VecDeque<(i64, Counts)>,
    hours: VecDeque<(i64, Counts)>,
}

/// All columns together.
pub fn sum(columns: &[Column]) -> Counts {
    let mut sum = Counts::default();
    columns.iter().filter_map(|column| column.counts).for_each(|counts| sum.add(&counts));
    sum
}

#[cfg(test)]
mod tests;
