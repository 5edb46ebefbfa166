//! Whose turn it is: which claims run, which wait for their destination, which destinations wait in
//! the queue.
//!
//! Bounded in all, per destination, per host address and by what the operator allows. Free places go
//! round the destinations that wait, and the last ones are for destinations that have none, so that a few
//! dozen hosts that never answer do not hold up the mail for all others. How many of the places a
//! destination and a host really get follows how they fare ([`Window`]). Pure memory, `now` is given.
//! Called by `delivery::run`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use jiff::Timestamp;

use super::limits::{self, DestinationLimit};
use super::pace::{Bucket, Signal, Window};
use crate::mail::Destination;

/// Claims that may wait for their destination's turn, per destination: enough that places are
/// filled while the queue is asked for more.
pub(super) const BACKLOG_PER_DESTINATION: usize = 40;
/// Claims that may wait in all, as a multiple of the concurrency, and of two destinations at least.
const BACKLOG_FACTOR: usize = 2;
/// One part in so many of the places is only for destinations that have none.
const RESERVED_PART: usize = 4;
/// Attempts of a destination while it is not known which host they go to: domains by the hundred may
/// live on one, and each would bring its own crowd.
const STRANGERS_MAX: usize = 2;
/// Destinations, and hosts, whose pace is remembered though nothing of theirs runs or waits.
const KNOWN_MAX: usize = 5_000;

/// How many may run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// In all.
    pub(super) all: usize,
    /// To one destination.
    pub(super) per_destination: usize,
    /// To one host address.
    pub(super) per_host: usize,
    /// For some destinations.
    pub(super) limits: Vec<DestinationLimit>,
}

/// What becomes of an offered piece of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<T> {
    /// It runs from now on.
    Start(T),
    /// It is kept for its destination's turn.
    Waits,
    /// There is no room for more of this destination.
    Full(T),
}

/// How a piece of work ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// The host address it was at last.
    pub(super) at: Option<IpAddr>,
    /// What it says of the pace.
    pub(super) signal: Signal,
    /// When it began.
    pub(super) begun: Timestamp,
}

/// See the file's header.
pub(super) struct Turns<T> {
    places: Places,
    lanes: HashMap<Destination, Lane<T>>,
    hosts: HashMap<IpAddr, Host>,
    /// What is shared by the hosts of a table, by its position.
    tables: Vec<Table>,
    running_total: usize,
    waiting_total: usize,
    /// The destinations that wait, the next one first.
    order: VecDeque<Destination>,
    /// Destinations whose further items stay in the queue until they are asked for.
    parked: HashSet<Destination>,
    /// When a rate lets the next one go.
    wake: Option<Timestamp>,
}

/// One destination.
struct Lane<T> {
    running: usize,
    waiting: VecDeque<Waiting<T>>,
    window: Window,
    /// Where its last attempt went; its next one likely goes there too.
    home: Option<IpAddr>,
    /// The operator's table about it.
    table: Option<usize>,
    bucket: Bucket,
}

struct Waiting<T> {
    work: T,
    urgent: bool,
}

/// One host address.
struct Host {
    running: usize,
    window: Window,
    name: String,
    table: Option<usize>,
}

#[derive(Default)]
struct Table {
    running: usize,
    bucket: Bucket,
}

impl<T> Turns<T> {
    /// Nothing runs and nothing waits.
    pub(super) fn new(places: Places) -> Self {
        let mut turns = Self {
            places: Places::default(),
            lanes: HashMap::new(),
            hosts: HashMap::new(),
            tables: Vec::new(),
            running_total: 0,
            waiting_total: 0,
            order: VecDeque::new(),
            parked: HashSet::new(),
            wake: None,
        };
        turns.adopt(places);
        turns
    }

    /// The configuration was read again.
    pub(super) fn adopt(&mut self, places: Places) {
        self.places = places;
        self.tables = self.places.limits.iter().map(|_| Table::default()).collect();
        for (destination, lane) in &mut self.lanes {
            lane.table = table_of(&self.places, destination);
        }
        for host in self.hosts.values_mut() {
            host.table = limits::for_host(&self.places.limits, &host.name);
            if let Some(table) = host.table.and_then(|table| self.tables.get_mut(table)) {
                table.running += host.running;
            }
        }
    }

    /// Takes the work up, keeps it waiting, or gives it back when there is no room; its destination
    /// is parked then. Urgent work heeds what is allowed, not how its destination fares.
    pub(super) fn offer(
        &mut self,
        destination: &Destination,
        work: T,
        urgent: bool,
        now: Timestamp,
    ) -> Offered<T> {
        let waiting = self.know(destination, now).waiting.len();
        if waiting == 0 && self.may_start(destination, urgent, now) {
            self.start(destination, now);
            return Offered::Start(work);
        }
        if waiting >= self.backlog() {
            self.parked.insert(destination.clone());
            return Offered::Full(work);
        }
        if waiting == 0 {
            self.order.push_back(destination.clone());
        }
        self.waiting_total += 1;
        self.know(destination, now).waiting.push_back(Waiting { work, urgent });
        Offered::Waits
    }

    /// The next work to start, in the order of destinations; call until there is none.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<T> {
        self.wake = None;
        for _ in 0..self.order.len() {
            if self.running_total >= self.places.all {
                return None;
            }
            let destination = self.order.pop_front()?;
            let first = self.lanes.get(&destination).and_then(|lane| lane.waiting.front());
            let Some(urgent) = first.map(|first| first.urgent) else { continue };
            if !self.may_start(&destination, urgent, now) {
                self.order.push_back(destination);
                continue;
            }
            let Some(lane) = self.lanes.get_mut(&destination) else { continue };
            let Some(next) = lane.waiting.pop_front() else { continue };
            if !lane.waiting.is_empty() {
                self.order.push_back(destination.clone());
            }
            self.waiting_total -= 1;
            self.start(&destination, now);
            return Some(next.work);
        }
        None
    }

    /// When a rate lets go what [`Turns::next`] and [`Turns::offer`] kept waiting.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        self.wake
    }

    /// Where the attempts of a destination are counted until they say where they are.
    pub(super) fn home(&self, destination: &Destination) -> Option<IpAddr> {
        self.lanes.get(destination)?.home
    }

    /// A running piece of work goes to a host.
    pub(super) fn moved(
        &mut self,
        destination: &Destination,
        from: Option<IpAddr>,
        to: IpAddr,
        name: &str,
        now: Timestamp,
    ) {
        if let Some(from) = from {
            self.leave(from);
        }
        if self.hosts.len() >= KNOWN_MAX && !self.hosts.contains_key(&to) {
            self.hosts.retain(|_, host| host.running > 0);
        }
        let limits = &self.places.limits;
        self.hosts.entry(to).or_insert_with(|| Host {
            running: 0,
            window: Window::default(),
            name: name.to_owned(),
            table: limits::for_host(limits, name),
        });
        let before = from.and_then(|from| self.hosts.get(&from)?.table);
        self.enter(to, before, now);
        if let Some(lane) = self.lanes.get_mut(destination) {
            lane.home = Some(to);
        }
    }

    /// One piece of work for `destination` ended; whether its window grew.
    pub(super) fn ended(&mut self, destination: &Destination, ended: Ended, now: Timestamp) -> bool {
        let Ended { at, signal, begun } = ended;
        self.running_total = self.running_total.saturating_sub(1);
        if let Some(at) = at {
            self.leave(at);
            if let Some(host) = self.hosts.get_mut(&at) {
                host.window.hear(signal, begun, now, self.places.per_host);
            }
        }
        let Some(lane) = self.lanes.get_mut(destination) else { return false };
        lane.running = lane.running.saturating_sub(1);
        let max = concurrency(&self.places, lane.table);
        lane.window.hear(signal, begun, now, max)
    }

    /// How many more may be claimed.
    pub(super) fn room(&self) -> usize {
        (self.places.all + self.waiting_max()).saturating_sub(self.running_total + self.waiting_total)
    }

    /// Parked destinations that have room again, with how many they may be given.
    pub(super) fn hungry(&self) -> Vec<(Destination, usize)> {
        let backlog = self.backlog();
        let waiting =
            |destination: &Destination| self.lanes.get(destination).map_or(0, |lane| lane.waiting.len());
        self.parked
            .iter()
            .map(|destination| (destination, waiting(destination)))
            .filter(|(_, waiting)| *waiting <= backlog / 2)
            .map(|(destination, waiting)| (destination.clone(), backlog - waiting))
            .collect()
    }

    /// Items of this destination stay in the queue until they are asked for.
    pub(super) fn park(&mut self, destination: &Destination) {
        self.parked.insert(destination.clone());
    }

    /// The queue has no parked items of this destination any more.
    pub(super) fn unpark(&mut self, destination: &Destination) {
        self.parked.remove(destination);
    }

    /// Everything that waits, at shutdown.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = T> {
        self.lanes.into_values().flat_map(|lane| lane.waiting).map(|waiting| waiting.work)
    }

    fn know(&mut self, destination: &Destination, now: Timestamp) -> &mut Lane<T> {
        if self.lanes.len() >= KNOWN_MAX && !self.lanes.contains_key(destination) {
            self.forget(now);
        }
        let places = &self.places;
        self.lanes.entry(destination.clone()).or_insert_with(|| Lane {
            running: 0,
            waiting: VecDeque::new(),
            window: Window::default(),
            home: None,
            table: table_of(places, destination),
            bucket: Bucket::default(),
        })
    }

    /// Forgets who is idle: first those with nothing to remember, then, when that is not enough, all
    /// whose rate is not running.
    fn forget(&mut self, now: Timestamp) {
        let places = &self.places;
        let rated = |lane: &Lane<T>| {
            let rate = lane.table.and_then(|table| places.limits.get(table)?.rate);
            rate.is_some_and(|rate| lane.bucket.next_at(rate, now) > now)
        };
        let idle = |lane: &Lane<T>| lane.running == 0 && lane.waiting.is_empty();
        self.lanes.retain(|_, lane| !idle(lane) || rated(lane) || !lane.window.is_plain());
        if self.lanes.len() > KNOWN_MAX / 2 {
            self.lanes.retain(|_, lane| !idle(lane) || rated(lane));
        }
    }

    /// Rates take note of a clock that stepped back.
    fn heed_clock(&mut self, destination: &Destination, now: Timestamp) {
        let limits = &self.places.limits;
        let rate = |table: Option<usize>| table.and_then(|table| limits.get(table)?.rate);
        let Some(lane) = self.lanes.get_mut(destination) else { return };
        if let Some(rate) = rate(lane.table) {
            lane.bucket.heed_clock(rate, now);
        }
        let shared = lane.home.and_then(|home| self.hosts.get(&home)?.table);
        if let (Some(rate), Some(table)) = (rate(shared), shared.and_then(|at| self.tables.get_mut(at))) {
            table.bucket.heed_clock(rate, now);
        }
    }

    fn may_start(&mut self, destination: &Destination, urgent: bool, now: Timestamp) -> bool {
        if !self.places.limits.is_empty() {
            self.heed_clock(destination, now);
        }
        let Some(lane) = self.lanes.get(destination) else { return false };
        let size = |window: &Window, max: usize| if urgent { max } else { window.places(max) };
        let places = &self.places;
        let shared = places.all - places.all / RESERVED_PART;
        let free = if lane.running == 0 { places.all } else { shared };
        let host = lane.home.and_then(|home| self.hosts.get(&home));
        let at_host = match host {
            Some(host) => host.running < size(&host.window, places.per_host),
            None => lane.running < STRANGERS_MAX,
        };
        if self.running_total >= free
            || !at_host
            || lane.running >= size(&lane.window, concurrency(places, lane.table))
        {
            return false;
        }
        if places.limits.is_empty() {
            return true;
        }
        let limit = |table: Option<usize>| table.and_then(|table| places.limits.get(table));
        let shared = host.and_then(|host| Some((limit(host.table)?, self.tables.get(host.table?)?)));
        if let Some((limit, table)) = shared
            && limit.concurrency.is_some_and(|max| table.running >= max)
        {
            return false;
        }
        let own = limit(lane.table).and_then(|limit| limit.rate).map(|rate| lane.bucket.next_at(rate, now));
        let shared = shared.and_then(|(limit, table)| Some(table.bucket.next_at(limit.rate?, now)));
        let Some(next) = own.into_iter().chain(shared).max().filter(|next| *next > now) else {
            return true;
        };
        self.wake = Some(self.wake.map_or(next, |wake| wake.min(next)));
        false
    }

    fn start(&mut self, destination: &Destination, now: Timestamp) {
        self.running_total += 1;
        let Some(lane) = self.lanes.get_mut(destination) else { return };
        lane.running += 1;
        if let Some(rate) = lane.table.and_then(|table| self.places.limits.get(table)?.rate) {
            lane.bucket.take(rate, now);
        }
        if let Some(home) = lane.home {
            if self.hosts.contains_key(&home) {
                self.enter(home, None, now);
            } else if let Some(lane) = self.lanes.get_mut(destination) {
                lane.home = None;
            }
        }
    }

    /// Counts one more at a host, and against the rate of its table unless that was `charged` before.
    fn enter(&mut self, address: IpAddr, charged: Option<usize>, now: Timestamp) {
        let Some(host) = self.hosts.get_mut(&address) else { return };
        host.running += 1;
        let Some(position) = host.table else { return };
        let Some(table) = self.tables.get_mut(position) else { return };
        table.running += 1;
        let rate = self.places.limits.get(position).and_then(|limit| limit.rate);
        if let (Some(rate), true) = (rate, charged != Some(position)) {
            table.bucket.take(rate, now);
        }
    }

    fn leave(&mut self, address: IpAddr) {
        let Some(host) = self.hosts.get_mut(&address) else { return };
        host.running = host.running.saturating_sub(1);
        if let Some(table) = host.table.and_then(|table| self.tables.get_mut(table)) {
            table.running = table.running.saturating_sub(1);
        }
    }

    /// How many of one destination may wait now: when much waits, one of each.
    fn backlog(&self) -> usize {
        if self.waiting_total < self.waiting_max() / 2 { BACKLOG_PER_DESTINATION } else { 1 }
    }

    /// How many may wait in all.
    fn waiting_max(&self) -> usize {
        self.places.all.saturating_mul(BACKLOG_FACTOR).max(2 * BACKLOG_PER_DESTINATION)
    }
}

fn table_of(places: &Places, destination: &Destination) -> Option<usize> {
    destination.domain().and_then(|domain| limits::for_domain(&places.limits, domain))
}

fn concurrency(places: &Places, table: Option<usize>) -> usize {
    let of_table = table.and_then(|table| places.limits.get(table)?.concurrency);
    of_table.unwrap_or(places.per_destination)
}

#[cfg(test)]
mod tests;
