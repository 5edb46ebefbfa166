//! What attempts, the loop and the operator share: how hosts stand, and which destinations wait for one
//! or have a pause.
//!
//! A lock around `hosts` and [`Pause`]s; decides nothing itself. Held for a look-up only, never while
//! waiting. Called by `delivery::attempt` (asks, tells), `delivery::run` (whose turn), `admin` (shows,
//! clears).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::info;

use super::hosts::{HostStanding, Hosts, Standing};
use super::pace::Pause;
use crate::mail::Destination;
use crate::queue::after;

/// Destinations remembered as waiting; what finds no room is found out again by each of its messages.
const HOLDS_MAX: usize = 20_000;

/// Destinations whose pauses are remembered; a forgotten one begins with a short pause again.
const PAUSES_MAX: usize = 10_000;
/// For a pause of up to so long, messages wait where they are.
const BRIEF: Duration = Duration::from_secs(60);

/// Why a destination's messages are not tried now: none of its hosts may be, or it asked for a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The hosts waited for; none for a pause.
    pub addresses: Vec<SocketAddr>,
    /// When one of them may be tried, or the pause is over.
    pub until: Timestamp,
    /// It will be over, or known, soon: its messages wait where they are.
    pub brief: bool,
    /// One sentence for the operator.
    pub text: String,
}

impl Held {
    /// Waiting for either.
    pub(super) fn or(self, other: Self) -> Self {
        let addresses = self.addresses.iter().chain(&other.addresses).copied().collect();
        let brief = self.brief || other.brief;
        let first = if other.until < self.until { other } else { self };
        Self { addresses, brief, ..first }
    }
}

/// Shared by all who deliver and by the operator's requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traffic {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    hosts: Hosts,
    /// With the instant each began.
    holds: HashMap<Destination, (Timestamp, Held)>,
    /// Of destinations that asked for less lately.
    pauses: HashMap<Destination, Pause>,
}

impl State {
    /// Those who wait for this host look again.
    fn release(&mut self, address: SocketAddr) -> bool {
        let before = self.holds.len();
        self.holds.retain(|_, (_, held)| !held.addresses.contains(&address));
        self.holds.len() != before
    }
}

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst a host that is tried too early.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a host may be tried; see [`Hosts::ask`].
    pub(super) fn ask(&self, address: SocketAddr, now: Timestamp) -> Result<(), Held> {
        let held = |until, brief, text| Held { addresses: vec![address], until, brief, text };
        match self.lock().hosts.ask(address, now) {
            Standing::Open => Ok(()),
            Standing::NotBefore { until, text } => Err(held(until, false, text)),
            Standing::Probed { by, text } => Err(held(by, true, text)),
        }
    }

    /// A host answered.
    pub(super) fn reached(&self, address: SocketAddr, name: &str) {
        let released = {
            let mut state = self.lock();
            if !state.hosts.reached(address) {
                return;
            }
            state.release(address)
        };
        info!(mx = name, %address, "host can be reached again");
        if released {
            self.shared.changed.notify_one();
        }
    }

    /// A host could not be talked to; see [`Hosts::failed`].
    pub(super) fn failed(&self, address: SocketAddr, name: &str, cause: &str, now: Timestamp, jitter: f64) {
        let until = {
            let mut state = self.lock();
            let until = state.hosts.failed(address, name, cause, now, jitter);
            if until.is_some() {
                state.release(address);
            }
            until
        };
        if let Some(until) = until {
            info!(mx = name, %address, %until, cause, "host is left alone for a while");
            self.shared.changed.notify_one();
        }
    }

    /// The attempt that was to see has not; another one may.
    pub(super) fn unseen(&self, address: SocketAddr) {
        let mut state = self.lock();
        state.hosts.unseen(address);
        if state.release(address) {
            self.shared.changed.notify_one();
        }
    }

    /// A destination waits from now on, unless a host of its may be tried by now.
    pub(super) fn hold(&self, destination: &Destination, held: Held, now: Timestamp) {
        let mut state = self.lock();
        if !held.addresses.iter().all(|address| state.hosts.is_left_alone(*address, now)) {
            return;
        }
        if state.holds.len() >= HOLDS_MAX {
            state.holds.retain(|_, (_, held)| held.until > now);
        }
        if state.holds.len() < HOLDS_MAX {
            state.holds.insert(destination.clone(), (now, held));
        }
    }

    /// A destination asked an attempt that began at `begun` for less; gives the end of its pause.
    pub(super) fn throttled(
        &self,
        destination: &Destination,
        cause: &str,
        (begun, now): (Timestamp, Timestamp),
        jitter: f64,
    ) -> Timestamp {
        let (until, new) = {
            let mut state = self.lock();
            if state.pauses.len() >= PAUSES_MAX && !state.pauses.contains_key(destination) {
                state.pauses.clear();
            }
            state.pauses.entry(destination.clone()).or_default().throttled(begun, now, jitter)
        };
        if new {
            info!(%until, cause, "destination gets a pause");
            let text = format!("{destination} is not tried until {until:.0} because {cause}");
            let brief = until <= after(now, BRIEF);
            self.hold(destination, Held { addresses: Vec::new(), until, brief, text }, now);
        }
        until
    }

    /// A destination takes more than before: its next pause, if any, is short again.
    pub(super) fn eased(&self, destination: &Destination) {
        self.lock().pauses.remove(destination);
    }

    /// Why a destination's messages are not tried now; nothing when they may be.
    pub fn held(&self, destination: &Destination, now: Timestamp) -> Option<Held> {
        let mut state = self.lock();
        if state.holds.is_empty() {
            return None;
        }
        match state.holds.get(destination) {
            // A clock that stepped back must not make the wait longer: it is found out again.
            Some((since, held)) if *since <= now && now < held.until => Some(held.clone()),
            Some(_) => {
                state.holds.remove(destination);
                None
            }
            None => None,
        }
    }

    /// Hosts that could not be talked to and were not reached since, by name; at most `max`.
    pub fn hosts(&self, max: usize) -> Vec<HostStanding> {
        self.lock().hosts.list(max)
    }

    /// An operator wants everything tried now: nothing is held against any host.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.hosts.clear();
        state.holds.clear();
        state.pauses.clear();
        self.shared.changed.notify_one();
    }

    /// Resolves when a destination that waited may look again; for one waiter.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;

    #[test]
    fn who_waits_for_a_host_looks_again_when_it_is_back_or_stays_away() {
        let traffic = Traffic::default();
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let (dead, other): (SocketAddr, SocketAddr) =
            ("192.0.2.1:25".parse().unwrap(), "192.0.2.1:587".parse().unwrap());
        let to = |name| Destination::Domain(Domain::parse(name).unwrap());
        let (one, two) = (to("one.example"), to("two.example"));
        for address in [dead, other] {
            traffic.failed(address, "mx.example", "it does not answer", at(0), 0.5);
        }
        let both = traffic.ask(dead, at(1)).unwrap_err().or(traffic.ask(other, at(1)).unwrap_err());
        traffic.hold(&one, both, at(1));
        traffic.hold(&two, traffic.ask(other, at(1)).unwrap_err(), at(1));
        assert!(traffic.held(&one, at(1)).is_some());
        traffic.reached(dead, "mx.example");
        assert_eq!(traffic.held(&one, at(1)), None, "one of its hosts is back");
        let [left] = &traffic.hosts(10)[..] else { panic!("{:?}", traffic.hosts(10)) };
        assert_eq!((left.address, left.failures, left.cause.as_str()), (other, 1, "it does not answer"));
        assert!(traffic.held(&two, at(14)).is_some_and(|held| held.text.contains("does not answer")));
        assert_eq!(traffic.held(&two, at(15)), None, "the wait is over");
        assert_eq!(traffic.ask(other, at(15)), Ok(()));
        let probed = traffic.ask(other, at(15)).unwrap_err();
        assert!(probed.brief);
        traffic.hold(&two, probed, at(15));
        traffic.failed(other, "mx.example", "it does not answer", at(16), 0.5);
        assert_eq!(traffic.held(&two, at(16)), None, "it looks again and learns of the new wait");
        assert!(!traffic.ask(other, at(16)).unwrap_err().brief);
        traffic.clear();
        assert_eq!(traffic.ask(other, at(16)), Ok(()));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_lengthen_the_wait_of_a_destination() {
        let traffic = Traffic::default();
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let dead: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let to = |name| Destination::Domain(Domain::parse(name).unwrap());
        let (one, two) = (to("one.example"), to("two.example"));
        traffic.failed(dead, "mx.example", "it does not answer", at(0), 0.5);
        traffic.hold(&one, traffic.ask(dead, at(1)).unwrap_err(), at(1));
        traffic.throttled(&two, "421 slow down", (at(0), at(1)), 0.5);
        for destination in [&one, &two] {
            assert!(traffic.held(destination, at(2)).is_some());
            assert_eq!(traffic.held(destination, at(-86_400)), None, "{destination}");
        }
    }
}
