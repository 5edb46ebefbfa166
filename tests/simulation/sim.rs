//! What all parts of a simulation share: its time, its dice, the Internet, and the book of what
//! happened.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stsrelay::net::{Clock, Randomness};
use tokio::time::Instant;

use crate::disk::SimDisk;
use crate::internet::{Host, Rule, Zone};

/// Events told of a failure.
const LAST: usize = 80;
/// Violations after which a simulation ends.
const ENOUGH: usize = 20;

pub struct Sim {
    pub disk: SimDisk,
    pub time: Time,
    dice: Mutex<StdRng>,
    net: Mutex<Net>,
    book: Mutex<Book>,
    /// Nothing that happens now is seen by anybody: the process is gone.
    dead: AtomicBool,
}

pub struct Net {
    pub hosts: Vec<Host>,
    pub zones: Vec<Zone>,
    /// The resolver itself does not answer.
    pub dns_down: bool,
    /// The relay's local rules, and since when (ms); newest last.
    pub rules: Vec<(u64, Vec<Rule>)>,
}

/// Milliseconds of the simulation; the wall clock beside them may be set.
#[derive(Default)]
pub struct Time {
    state: Mutex<TimeState>,
}

#[derive(Default)]
struct TimeState {
    base: u64,
    began: Option<Instant>,
    /// Milliseconds the wall clock was set by.
    set: i64,
}

impl Time {
    /// Milliseconds since the simulation began.
    pub fn now(&self) -> u64 {
        let state = self.state.lock().unwrap();
        state.base + state.began.map_or(0, |began| began.elapsed().as_millis() as u64)
    }

    /// Within a runtime: its time is the simulation's from here on.
    pub fn begin(&self) {
        self.state.lock().unwrap().began = Some(Instant::now());
    }

    /// Before the runtime is gone.
    pub fn end(&self) {
        let now = self.now();
        let mut state = self.state.lock().unwrap();
        (state.base, state.began) = (now, None);
    }

    /// Between two runtimes.
    pub fn pass(&self, time: Duration) {
        self.state.lock().unwrap().base += time.as_millis() as u64;
    }

    pub fn set_wall(&self, by: i64) {
        self.state.lock().unwrap().set += by;
    }

    /// Wall time in milliseconds of the simulation's own epoch.
    pub fn wall(&self) -> i64 {
        self.now() as i64 + self.state.lock().unwrap().set
    }
}

/// What the relay sees of the time.
pub struct WallClock(pub Arc<Sim>);

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        epoch() + SignedDuration::from_millis(self.0.time.wall())
    }
}

/// When all simulations begin.
pub fn epoch() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// What the relay sees of chance.
pub struct Chance(Mutex<StdRng>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Randomness for Chance {
    fn number(&self) -> u64 {
        self.0.lock().unwrap().random()
    }
}

/// A message that a sender tried to hand over.
pub struct Message {
    pub from_null: bool,
    pub ask: Ask,
    pub recipients: Vec<String>,
    /// Asked for no notices (NOTIFY=NEVER).
    pub quiet: bool,
    /// When (ms) the relay said 250.
    pub acknowledged: Option<u64>,
    pub deliveries: Vec<Delivery>,
    /// Recipients in bounces that arrived.
    pub bounced: Vec<String>,
    pub warned: u32,
}

/// What a message asks of TLS (RFC 8689).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Nothing,
    /// REQUIRETLS
    Required,
    /// `TLS-Required: No`
    NotRequired,
}

pub struct Delivery {
    pub recipient: String,
    pub at: u64,
    /// The relay was told.
    pub heard: bool,
}

/// What happened.
#[derive(Default)]
pub struct Book {
    pub messages: Vec<Message>,
    /// Acknowledged, and not known to be settled.
    pub unsettled: BTreeSet<usize>,
    pub violations: Vec<String>,
    /// When (ms) the process ended without being asked.
    pub crashes: Vec<u64>,
    /// Times (ms) of a disk that failed or was full, or of a relay that was not running.
    pub troubles: Vec<(u64, u64)>,
    /// Times (ms) at which the wall clock was set.
    pub jumps: Vec<u64>,
    /// Those at which it was set back.
    pub set_back: Vec<u64>,
    /// Times (ms) of name servers in trouble.
    pub dns_troubles: Vec<(u64, u64)>,
    /// Per (endpoint, start of day): when a report was taken, and whether that was heard.
    pub reports: BTreeMap<(String, String), Vec<(u64, bool)>>,
    pub counts: Counts,
    pub trace: u64,
    pub events: u64,
    last: VecDeque<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub acknowledged: u64,
    pub refused: u64,
    pub deliveries: u64,
    pub duplicates: u64,
    pub bounces: u64,
    pub sessions: u64,
    pub handshakes: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub restarts: u64,
    pub failed_starts: u64,
    pub reports: u64,
    pub report_mails: u64,
    /// Sessions that reports told of and hosts knew of.
    pub tallied: u64,
    pub reloads: u64,
    /// Queue indexes that were lost or cut short.
    pub indexes_harmed: u64,
    /// Recipients held to the time at which their mail could go.
    pub timed: u64,
    /// Recipients by what their message asked.
    pub required: u64,
    pub not_required: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.deliveries += other.deliveries;
        self.duplicates += other.duplicates;
        self.bounces += other.bounces;
        self.sessions += other.sessions;
        self.handshakes += other.handshakes;
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.restarts += other.restarts;
        self.failed_starts += other.failed_starts;
        self.reports += other.reports;
        self.report_mails += other.report_mails;
        self.tallied += other.tallied;
        self.reloads += other.reloads;
        self.indexes_harmed += other.indexes_harmed;
        self.timed += other.timed;
        self.required += other.required;
        self.not_required += other.not_required;
    }
}

impl Sim {
    pub fn new(disk: SimDisk, seed: u64, net: Net) -> Self {
        Self {
            disk,
            time: Time::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            net: Mutex::new(net),
            book: Mutex::default(),
            dead: AtomicBool::new(true),
        }
    }

    pub fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap()
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Whether the process is gone: nobody outside sees what is still done in its name.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst) || self.disk.is_stopped()
    }

    pub fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }

    /// From now on these local rules hold.
    pub fn holds(&self, rules: &[Rule]) {
        let now = self.time.now();
        self.net().rules.push((now, rules.to_vec()));
    }

    /// A number below `end`.
    pub fn roll(&self, end: u64) -> u64 {
        self.dice.lock().unwrap().random_range(0..end)
    }

    /// One time in `of`.
    pub fn once_in(&self, of: u64) -> bool {
        self.roll(of) == 0
    }

    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }

    /// Seconds between these two.
    pub fn seconds(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.roll((to - from) * 1000))
    }

    /// Writes an event down; equal runs have equal events.
    pub fn note(&self, text: impl std::fmt::Display) {
        let at = self.time.now();
        let wall = epoch() + SignedDuration::from_millis(self.time.wall());
        let line = format!(
            "{:>4}d{:02}:{:02}:{:02}.{:03} [{wall:.0}] {text}",
            at / 86_400_000,
            at / 3_600_000 % 24,
            at / 60_000 % 60,
            at / 1000 % 60,
            at % 1000
        );
        if std::env::var_os("SIM_TRACE").is_some() {
            eprintln!("{line}");
        }
        let mut book = self.book();
        book.events += 1;
        for byte in line.bytes() {
            book.trace = (book.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if book.last.len() == LAST {
            book.last.pop_front();
        }
        book.last.push_back(line);
    }

    /// Something that must never happen has happened.
    pub fn violation(&self, text: impl std::fmt::Display) {
        let text = format!("VIOLATION: {text}");
        self.note(&text);
        let many = {
            let mut book = self.book();
            book.violations.push(text);
            book.violations.len() >= ENOUGH
        };
        if many {
            // What went wrong may go on for ever.
            self.disk.stop();
            self.disk.died.notify_one();
        }
    }

    /// Whether nothing more needs to be seen.
    pub fn is_over(&self) -> bool {
        self.book().violations.len() >= ENOUGH
    }
}

impl Net {
    /// The domain of a mailbox, if it is one of the simulation's.
    pub fn zone_of(&self, mailbox: &str) -> Option<usize> {
        let domain = mailbox.rsplit('@').next().unwrap_or_default();
        self.zones.iter().position(|zone| zone.name.as_str() == domain)
    }
}

impl Book {
    /// Whether the clock was set between these times.
    pub fn jumped(&self, from: u64, to: u64) -> bool {
        self.jumps.iter().any(|at| (from..=to).contains(at))
    }

    /// Whether the process ended or the disk was in trouble between these times.
    pub fn disturbed(&self, from: u64, to: u64) -> bool {
        self.crashes.iter().any(|at| (from..=to).contains(at))
            || self.troubles.iter().any(|(begin, end)| *begin <= to && *end >= from)
    }

    pub fn last_events(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}
