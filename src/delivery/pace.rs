//! How much at a time, and how fast: windows that follow success and failure, and configured rates.
//!
//! Pure: facts and `now` in, numbers out. A [`Window`] is kept per destination and per host address; it
//! starts small, grows by one with every round of successes, and halves when the host or the
//! destination shows trouble. A [`Pause`] is the wait of a destination that asked for less. A [`Bucket`] holds a configured rate; it makes work wait and never fail.
//! Called by `delivery::turns` and `delivery::traffic`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::queue::after;

/// Where a window starts: enough for a burst to many destinations to fill the whole concurrency, and
/// what servers take from a stranger.
const WINDOW_START: usize = 5;
/// Successes for one more place at least, however small the window has become: a host that allows one
/// connection is not tried with two after every single message.
const GROWTH_MIN: usize = 10;
/// The first pause of a destination that asks for less.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 60);
/// So many messages of a rate may come together: those of this time.
const BURST: Duration = Duration::from_secs(1);

/// How an attempt ended, as far as pace is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Signal {
    /// Nothing about the host: it was not tried, or it spoke about the message alone.
    #[default]
    None,
    /// A message was taken.
    Good,
    /// It could not be talked to.
    Trouble,
    /// It asks for less.
    Throttled,
}

impl Signal {
    /// What was heard before counts, unless it was nothing.
    pub(super) fn or(self, later: Self) -> Self {
        if self == Self::None { later } else { self }
    }
}

/// Attempts at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    size: usize,
    successes: usize,
    shrunk_at: Option<Timestamp>,
    /// Small because of trouble that a success ends, not because it was asked for.
    trouble: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: WINDOW_START, successes: 0, shrunk_at: None, trouble: false }
    }
}

impl Window {
    /// How many may run, of at most `max`.
    pub(super) fn places(&self, max: usize) -> usize {
        self.size.min(max).max(1)
    }

    /// Nothing was learned that is worth remembering.
    pub(super) fn is_plain(&self) -> bool {
        self.shrunk_at.is_none() && self.size == WINDOW_START
    }

    /// An attempt that began at `begun` ended; whether the window grew.
    pub(super) fn hear(&mut self, signal: Signal, begun: Timestamp, now: Timestamp, max: usize) -> bool {
        match signal {
            Signal::None => false,
            Signal::Good => self.succeeded(max),
            Signal::Trouble | Signal::Throttled => {
                // Of attempts that ran at the same time only the first shrinks it.
                if self.shrunk_at.is_none_or(|at| begun > at || at > now) {
                    // What was never used was no reason.
                    self.size = (self.size.min(max) / 2).max(1);
                    self.successes = 0;
                    self.shrunk_at = Some(now);
                    self.trouble = signal == Signal::Trouble;
                }
                false
            }
        }
    }

    fn succeeded(&mut self, max: usize) -> bool {
        if self.trouble {
            self.trouble = false;
            self.size = self.size.max(WINDOW_START);
        }
        if self.size >= max {
            return false;
        }
        self.successes += 1;
        let grows = self.successes >= self.size.max(GROWTH_MIN);
        if grows {
            self.size += 1;
            self.successes = 0;
        }
        grows
    }
}

/// The wait of a destination that asked for less; longer each time it does so again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pause {
    count: u32,
    begun: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Pause {
    /// An attempt that began at `begun` was asked for less; `jitter` is in 0.0..1.0. Gives the end of the
    /// wait, and whether it is a new one: of attempts that ran at the same time only the first begins it.
    pub(super) fn throttled(&mut self, begun: Timestamp, now: Timestamp, jitter: f64) -> (Timestamp, bool) {
        if let (Some(last), Some(until)) = (self.begun, self.until)
            && begun <= last
            && last <= now
        {
            return (until, false);
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << self.count.min(16)).min(PAUSE_MAX);
        let until = after(now, doubled.mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0)));
        *self = Self { count: self.count.saturating_add(1), begun: Some(now), until: Some(until) };
        (until, true)
    }
}

/// A configured rate: `100/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    messages: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Unit {
    const ALL: [(Self, &'static str, u64); 4] =
        [(Self::Second, "s", 1), (Self::Minute, "m", 60), (Self::Hour, "h", 3600), (Self::Day, "d", 86_400)];

    fn row(self) -> (&'static str, u64) {
        match self {
            Self::Second => ("s", 1),
            Self::Minute => ("m", 60),
            Self::Hour => ("h", 3600),
            Self::Day => ("d", 86_400),
        }
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (messages, unit) = text.split_once('/')?;
            let messages = messages.parse().ok().filter(|messages| *messages > 0)?;
            let unit = Unit::ALL.iter().find(|(_, name, _)| *name == unit)?.0;
            Some(Self { messages, unit })
        };
        read().ok_or_else(|| format!("{text:?} is not a rate; write it like \"100/m\" (s, m, h or d)"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.messages, self.unit.row().0)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Rate {
    /// Between two messages.
    fn interval(self) -> Duration {
        Duration::from_secs(self.unit.row().1) / self.messages
    }

    /// How far ahead of its rate work may run.
    fn lead(self) -> Duration {
        BURST.saturating_sub(self.interval())
    }
}

/// What is left of a rate now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When the rate would have been kept exactly by what was taken so far.
    even_at: Option<Timestamp>,
}

impl Bucket {
    /// Takes note of a clock that stepped back: it costs one interval from now on. To be called before
    /// [`Bucket::next_at`]; that alone would move with the clock until it is where it was.
    pub(super) fn heed_clock(&mut self, rate: Rate, now: Timestamp) {
        let latest = after(now, rate.lead() + rate.interval());
        self.even_at = self.even_at.map(|at| at.min(latest));
    }

    /// When the next message may go; `now` or before when it may at once.
    pub(super) fn next_at(&self, rate: Rate, now: Timestamp) -> Timestamp {
        let Some(even_at) = self.even_at else { return now };
        SignedDuration::try_from(rate.lead())
            .ok()
            .and_then(|lead| even_at.checked_sub(lead).ok())
            .unwrap_or(now)
    }

    /// One message goes.
    pub(super) fn take(&mut self, rate: Rate, now: Timestamp) {
        self.heed_clock(rate, now);
        let even_at = self.even_at.map_or(now, |at| at.max(now));
        self.even_at = Some(after(even_at, rate.interval()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn grown(window: &mut Window, successes: usize, max: usize) -> usize {
        for n in 0..successes {
            window.hear(Signal::Good, at(n as i64), at(n as i64), max);
        }
        window.places(max)
    }

    #[test]
    fn a_window_starts_small_and_grows_to_its_bound() {
        let mut window = Window::default();
        assert_eq!((window.places(20), window.places(2)), (5, 2));
        assert!(window.is_plain());
        assert_eq!(grown(&mut window, 9, 20), 5);
        assert_eq!(grown(&mut window, 1, 20), 6);
        assert_eq!(grown(&mut window, 300, 20), 20);
        assert_eq!(grown(&mut window, 3000, 20), 20);
        assert_eq!(window.places(100), 20, "never beyond what was in use");
    }

    #[test]
    fn trouble_halves_it_once_for_all_that_ran_together_and_a_success_ends_it() {
        let mut window = Window::default();
        grown(&mut window, 300, 20);
        for _ in 0..20 {
            window.hear(Signal::Trouble, at(1000), at(2000), 20);
        }
        assert_eq!(window.places(20), 10);
        for again in 0..5 {
            window.hear(Signal::Trouble, at(3000 + again), at(3000 + again), 20);
        }
        assert_eq!(window.places(20), 1);
        window.hear(Signal::Good, at(4000), at(4000), 20);
        assert_eq!(window.places(20), WINDOW_START, "the host is back");
    }

    #[test]
    fn who_asks_for_less_is_approached_slowly() {
        let mut window = Window::default();
        for n in 0..3 {
            window.hear(Signal::Throttled, at(n), at(n), 20);
        }
        assert_eq!(window.places(20), 1);
        assert_eq!(grown(&mut window, GROWTH_MIN - 1, 20), 1);
        assert_eq!(grown(&mut window, 1, 20), 2);
    }

    #[test]
    fn pauses_grow_and_attempts_that_ran_together_begin_one() {
        let mut pause = Pause::default();
        assert_eq!(pause.throttled(at(0), at(100), 0.0), (at(10_100), true));
        assert_eq!(pause.throttled(at(50), at(200), 0.9), (at(10_100), false));
        let mut now = 10_100;
        let waits: Vec<i64> = (0..7)
            .map(|_| {
                let (until, new) = pause.throttled(at(now), at(now), 0.0);
                let wait = until.duration_since(at(now)).as_secs();
                assert!(new);
                now += wait * 1000;
                wait
            })
            .collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 600, 600]);
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        for good in ["100/m", "1/s", "5000/h", "1/d"] {
            assert_eq!(good.parse::<Rate>().unwrap().to_string(), good);
        }
        for bad in ["", "100", "0/m", "-1/m", "100/w", "1.5/s", "/m", "100/", "m/100", "99999999999/s"] {
            assert!(bad.parse::<Rate>().unwrap_err().contains("100/m"), "{bad}");
        }
    }

    #[test]
    fn a_slow_rate_spreads_evenly_and_a_fast_one_allows_a_second_together() {
        let (slow, mut bucket): (Rate, _) = ("60/m".parse().unwrap(), Bucket::default());
        assert!(bucket.next_at(slow, at(0)) <= at(0));
        bucket.take(slow, at(0));
        assert_eq!(bucket.next_at(slow, at(1)), at(1000));
        let (fast, mut bucket): (Rate, _) = ("100/s".parse().unwrap(), Bucket::default());
        let together = (0..1000)
            .take_while(|_| {
                let may = bucket.next_at(fast, at(0)) <= at(0);
                if may {
                    bucket.take(fast, at(0));
                }
                may
            })
            .count();
        assert_eq!(together, 100);
    }

    proptest! {
        /// However work comes, no span of time sees more than the rate's share of it and one burst.
        #[test]
        fn a_rate_is_never_exceeded(
            messages in 1u32..300, unit in 0usize..3,
            steps in proptest::collection::vec(0i64..3000, 1..200),
        ) {
            let rate = Rate { messages, unit: Unit::ALL[unit].0 };
            let mut bucket = Bucket::default();
            let (mut now, mut taken) = (0i64, 0u32);
            for step in steps {
                now += step;
                while bucket.next_at(rate, at(now)) <= at(now) {
                    bucket.take(rate, at(now));
                    taken += 1;
                }
                let share = f64::from(messages) * now as f64 / 1000.0 / Unit::ALL[unit].2 as f64;
                let burst = (BURST.as_secs_f64() / rate.interval().as_secs_f64()).max(1.0);
                prop_assert!(f64::from(taken) <= share + burst + 1.0, "{taken} by {now}");
            }
        }

        /// A clock that steps back by any amount makes work wait for an interval, however often it is
        /// looked at meanwhile.
        #[test]
        fn a_clock_that_steps_back_stops_nothing(back in 0i64..10_000_000, messages in 1u32..100) {
            let rate = Rate { messages, unit: Unit::Minute };
            let mut bucket = Bucket::default();
            bucket.take(rate, at(0));
            let interval = i64::try_from(rate.interval().as_millis()).unwrap();
            for looked in 0..=10 {
                let now = at(-back + interval * looked / 10);
                bucket.heed_clock(rate, now);
                prop_assert!(bucket.next_at(rate, now) <= after(at(-back), rate.interval()));
            }
            let then = after(at(-back), rate.interval());
            prop_assert!(bucket.next_at(rate, then) <= then);
        }
    }
}
