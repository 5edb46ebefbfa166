//! Who has to wait after failed logins.
//!
//! Pure: takes `now`, holds bounded tables, is asked before a check and told how it ended. Nobody can
//! lock out another:
//!
//! ```text
//! a user and a network that have met before   always checked; after failures the answer is late
//! a user from a network that is new to them   refused for 1, 2, 4 ... seconds after some failures
//! a network whose failures are over many names   the same, for names that it has not met
//! a user with failures from many networks     checked later, from networks that are new to them
//! ```
//!
//! A network is an IPv4 address or an IPv6 /64 (see [`super::serve::peer_key`]). Names are kept as keyed
//! hashes, so that names nobody has cost as much as others and nothing can be read from the tables.
//! Nothing is kept over a restart. Called by `auth`.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// A network or user without failure for so long starts afresh.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Entries of each table at most: some megabytes in all.
const ENTRIES_MAX: usize = 10_000;
/// Failures over many names that cost a network nothing, as a multiple of those of one name: an office
/// behind one address has several people who mistype.
const NETWORK_FACTOR: u32 = 4;

/// How failed logins are answered; `auth.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockoutOptions {
    /// Failures of a user from one network that cost nothing: mistyped passwords. Default 5.
    pub failures_free: u32,
    /// The longest a network is refused. Default 5 min.
    pub back_off_max: Duration,
    /// Failures of a user from all networks together, within an hour of each other, from which on
    /// networks that are new to them wait. Default 20.
    pub failures_of_user: u32,
    /// The longest a check, or its answer, is held back. Default 10 s.
    pub slow_down_max: Duration,
    /// How long a network is known to a user after a login. Default 30 d.
    pub known_for: Duration,
}

impl Default for LockoutOptions {
    fn default() -> Self {
        Self {
            failures_free: 5,
            back_off_max: Duration::from_secs(300),
            failures_of_user: 20,
            slow_down_max: Duration::from_secs(10),
            known_for: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// What is done with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Check it after so long.
    After(Duration),
    /// Refuse it, for so long.
    Refuse(Duration),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

/// A user, as a keyed hash of the name, and where from.
type Pair = (u64, IpAddr);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    keys: RandomState,
    pairs: HashMap<Pair, Failures>,
    networks: HashMap<IpAddr, Failures>,
    users: HashMap<u64, Failures>,
    /// The last login.
    known: HashMap<Pair, Instant>,
}

impl Lockout {
    /// What to do with an attempt of `name` from `network`.
    pub(super) fn admit(
        &self,
        options: &LockoutOptions,
        name: &str,
        network: IpAddr,
        now: Instant,
    ) -> Admission {
        let user = self.keys.hash_one(name);
        let pair = (user, network);
        if self.is_known(options, pair, now) {
            return Admission::After(Duration::ZERO);
        }
        let by_pair = rest(options, self.pairs.get(&pair), options.failures_free, now);
        let network_free = options.failures_free.saturating_mul(NETWORK_FACTOR);
        let by_network = rest(options, self.networks.get(&network), network_free, now);
        let wait = by_pair.max(by_network);
        if !wait.is_zero() {
            return Admission::Refuse(wait);
        }
        let failures = live(self.users.get(&user), now);
        Admission::After(doubled(failures, options.failures_of_user, options.slow_down_max))
    }

    /// The attempt failed; the answer is due after what this gives.
    pub(super) fn failed(
        &mut self,
        options: &LockoutOptions,
        name: &str,
        network: IpAddr,
        now: Instant,
    ) -> Duration {
        let user = self.keys.hash_one(name);
        let pair = (user, network);
        let known = self.is_known(options, pair, now);
        let failures = count(&mut self.pairs, pair, now);
        // One name alone never makes others of its network wait.
        if failures <= options.failures_free {
            count(&mut self.networks, network, now);
        }
        if known {
            return doubled(failures, options.failures_free, options.slow_down_max);
        }
        count(&mut self.users, user, now);
        Duration::ZERO
    }

    /// The attempt succeeded.
    pub(super) fn succeeded(&mut self, options: &LockoutOptions, name: &str, network: IpAddr, now: Instant) {
        let pair = (self.keys.hash_one(name), network);
        // Only what this user failed is forgiven: who has one password may not try others' for ever.
        let forgiven =
            self.pairs.remove(&pair).map_or(0, |failures| failures.count.min(options.failures_free));
        if let Some(failures) = self.networks.get_mut(&network) {
            failures.count = failures.count.saturating_sub(forgiven);
        }
        if self.known.len() >= ENTRIES_MAX && !self.known.contains_key(&pair) {
            let oldest = self.known.iter().min_by_key(|(_, at)| **at).map(|(pair, _)| *pair);
            oldest.map(|pair| self.known.remove(&pair));
        }
        self.known.insert(pair, now);
    }

    fn is_known(&self, options: &LockoutOptions, pair: Pair, now: Instant) -> bool {
        self.known.get(&pair).is_some_and(|at| now.saturating_duration_since(*at) < options.known_for)
    }
}

/// Failures that still count.
fn live(failures: Option<&Failures>, now: Instant) -> u32 {
    failures
        .filter(|failures| now.saturating_duration_since(failures.last) < FORGET_AFTER)
        .map_or(0, |failures| failures.count)
}

/// 1, 2, 4 ... seconds from the free failures on.
fn doubled(failures: u32, free: u32, max: Duration) -> Duration {
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(16)).min(max),
    }
}

/// How long is left of what the last failure costs.
fn rest(options: &LockoutOptions, failures: Option<&Failures>, free: u32, now: Instant) -> Duration {
    failures.map_or(Duration::ZERO, |found| {
        let until = found.last + doubled(live(failures, now), free, options.back_off_max);
        until.saturating_duration_since(now)
    })
}

/// Counts one more failure; gives how many there are.
fn count<K: Eq + Hash + Copy>(table: &mut HashMap<K, Failures>, key: K, now: Instant) -> u32 {
    if table.len() >= ENTRIES_MAX && !table.contains_key(&key) {
        table.retain(|_, old| now.saturating_duration_since(old.last) < FORGET_AFTER);
        if table.len() >= ENTRIES_MAX
            && let Some(victim) = table.keys().next().copied()
        {
            table.remove(&victim);
        }
    }
    let failures = live(table.get(&key), now).saturating_add(1);
    table.insert(key, Failures { count: failures, last: now });
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GO: Admission = Admission::After(Duration::ZERO);

    fn network(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    struct Setting {
        lockout: Lockout,
        options: LockoutOptions,
        now: Instant,
    }

    impl Setting {
        fn new() -> Self {
            Self { lockout: Lockout::default(), options: LockoutOptions::default(), now: Instant::now() }
        }
        fn admit(&self, name: &str, from: u8) -> Admission {
            self.lockout.admit(&self.options, name, network(from), self.now)
        }
        fn fail(&mut self, name: &str, from: u8) -> Duration {
            self.lockout.failed(&self.options, name, network(from), self.now)
        }
        fn succeed(&mut self, name: &str, from: u8) {
            self.lockout.succeeded(&self.options, name, network(from), self.now);
        }
    }

    #[test]
    fn a_network_that_is_new_to_a_user_waits_longer_with_each_failure() {
        let mut s = Setting::new();
        for _ in 0..5 {
            assert_eq!(s.admit("alice", 1), GO);
            assert_eq!(s.fail("alice", 1), Duration::ZERO);
        }
        assert_eq!(s.admit("alice", 1), Admission::Refuse(SECOND));
        s.now += SECOND;
        assert_eq!(s.admit("alice", 1), GO);
        s.fail("alice", 1);
        assert_eq!(s.admit("alice", 1), Admission::Refuse(2 * SECOND));
        for _ in 0..40 {
            s.fail("alice", 1);
        }
        assert_eq!(s.admit("alice", 1), Admission::Refuse(300 * SECOND));
        s.now += FORGET_AFTER;
        assert_eq!(s.admit("alice", 1), GO);
    }

    #[test]
    fn a_network_that_a_user_has_logged_in_from_is_always_served() {
        let mut s = Setting::new();
        s.succeed("alice", 1);
        for _ in 0..100 {
            s.fail("alice", 2);
            s.fail("alice", 1);
            s.fail("bob", 1);
            s.fail(&s.now.elapsed().as_nanos().to_string(), 1);
            assert_eq!(s.admit("alice", 1), GO);
        }
        // Who guesses there is slowed down by late answers.
        assert_eq!(s.fail("alice", 1), 10 * SECOND);
        s.succeed("alice", 1);
        assert_eq!(s.fail("alice", 1), Duration::ZERO);
        // For as long as it is known.
        s.now += s.options.known_for;
        assert_eq!(s.admit("alice", 1), GO);
        for _ in 0..6 {
            s.fail("alice", 1);
        }
        assert!(matches!(s.admit("alice", 1), Admission::Refuse(_)));
    }

    #[test]
    fn one_user_who_fails_never_makes_another_wait() {
        let mut s = Setting::new();
        for _ in 0..1000 {
            s.fail("alice", 1);
        }
        assert_eq!(s.admit("bob", 1), GO, "the same network");
        // From elsewhere alice herself is slowed down, and never refused.
        assert_eq!(s.admit("alice", 2), Admission::After(10 * SECOND));
        assert_eq!(s.admit("bob", 2), GO);
    }

    #[test]
    fn a_network_that_tries_many_names_waits_and_one_password_of_its_own_does_not_help() {
        let mut s = Setting::new();
        for name in 0..20 {
            assert_eq!(s.admit(&name.to_string(), 1), GO);
            s.fail(&name.to_string(), 1);
            s.succeed("mallory", 1);
        }
        assert_eq!(s.admit("alice", 1), Admission::Refuse(SECOND));
        assert_eq!(s.admit("mallory", 1), GO);
        assert_eq!(s.admit("alice", 2), GO);
    }

    #[test]
    fn a_user_who_is_guessed_from_many_networks_is_checked_later_from_new_ones() {
        let mut s = Setting::new();
        s.succeed("alice", 200);
        for from in 0..21 {
            s.fail("alice", from);
        }
        assert_eq!(s.admit("alice", 100), Admission::After(2 * SECOND));
        assert_eq!(s.admit("alice", 200), GO);
        assert_eq!(s.admit("bob", 100), GO);
        s.succeed("alice", 100);
        assert_eq!(s.admit("alice", 100), GO);
    }

    #[test]
    fn mistakes_are_forgiven_with_the_right_password() {
        let mut s = Setting::new();
        for _ in 0..4 {
            for _ in 0..5 {
                s.fail("alice", 1);
            }
            s.succeed("alice", 1);
        }
        assert_eq!(s.admit("bob", 1), GO);
        s.fail("bob", 1);
        assert_eq!(s.admit("carol", 1), GO);
    }

    #[test]
    fn the_tables_are_bounded() {
        let mut s = Setting::new();
        for n in 0..ENTRIES_MAX as u32 + 5 {
            let from = IpAddr::from(n.to_be_bytes());
            s.lockout.failed(&s.options, &n.to_string(), from, s.now);
            s.lockout.succeeded(&s.options, &format!("x{n}"), from, s.now);
        }
        let Lockout { pairs, networks, users, known, .. } = &s.lockout;
        assert_eq!([pairs.len(), networks.len(), users.len(), known.len()], [ENTRIES_MAX; 4]);
    }
}
