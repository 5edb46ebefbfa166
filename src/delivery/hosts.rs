//! What is remembered of hosts that could not be talked to: facts and `now` in, a verdict out.
//!
//! Pure. A host is an address and a port: whether it can be reached does not depend on the name by which
//! a domain calls it. Only what concerns the connection itself is remembered (no connection, a greeting
//! or EHLO refused for now, a session lost before mail could be said), never a policy's failure: a domain
//! whose policy is broken says nothing about the others on the same host. After a failure the host is
//! left alone for a time that doubles with each further one; when it is over, one attempt at a time goes
//! to see (RFC 5321 §4.5.4.1). Called by `delivery::traffic`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::queue::after;

/// After the first failure: long enough to spare the host a crowd, short enough for a restart.
const WAIT_MIN: Duration = Duration::from_secs(15);
/// At most: who was away for days is noticed within so long.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Waits are stretched or shortened by up to this part, so that hosts do not come in step.
const JITTER: f64 = 0.2;
/// An attempt that went to see and was never heard of again counts as failed after this time: longer
/// than the connection and the greeting may take together (RFC 5321 §4.5.3.2.1).
const PROBE_MAX: Duration = Duration::from_secs(7 * 60);
/// Hosts remembered; a forgotten one is merely tried again.
const HOSTS_MAX: usize = 10_000;

/// What may be done with a host now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is known against it, or it is this attempt's turn to see whether it is back.
    Open,
    /// Left alone until then.
    NotBefore {
        /// The end of the wait.
        until: Timestamp,
        /// Why, one sentence.
        text: String,
    },
    /// Another attempt is seeing whether it is back.
    Probed {
        /// Heard of by then, or taken for failed.
        by: Timestamp,
        /// Why, one sentence.
        text: String,
    },
}

/// A host that is left alone, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStanding {
    /// Its name, as in the MX record of whoever met the last failure.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// In a row.
    pub failures: u32,
    /// When somebody may go to see; past when somebody may.
    pub until: Timestamp,
    /// What the last failure was.
    pub cause: String,
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: HashMap<SocketAddr, Status>,
}

#[derive(Debug)]
struct Status {
    /// As in the MX record of whoever met the last failure.
    name: String,
    /// In a row.
    failures: u32,
    until: Timestamp,
    /// The wait that ends at `until`: a clock that steps back must not make it longer.
    wait: Duration,
    /// Somebody sees, until then.
    probed: Option<Timestamp>,
    cause: String,
}

impl Status {
    /// When the wait ends, whatever the clock did: one that steps back begins it anew, once.
    fn ends(&mut self, now: Timestamp) -> Timestamp {
        self.until = self.until.min(after(now, self.wait));
        self.until
    }
}

impl Hosts {
    /// Whether a host may be tried; the first to ask after its wait goes to see, and has to say
    /// [`Hosts::reached`], [`Hosts::failed`] or [`Hosts::unseen`] afterwards.
    pub(super) fn ask(&mut self, address: SocketAddr, now: Timestamp) -> Standing {
        let Some(status) = self.hosts.get_mut(&address) else { return Standing::Open };
        let until = status.ends(now);
        let named = |status: &Status| format!("host {} [{}]", status.name, address.ip());
        if now < until {
            let text = format!("{} is not tried until {until:.0} because {}", named(status), status.cause);
            return Standing::NotBefore { until, text };
        }
        if let Some(by) = status.probed.filter(|by| now < *by && *by <= after(now, PROBE_MAX)) {
            let text = format!("{} is being tried by another message, after {}", named(status), status.cause);
            return Standing::Probed { by, text };
        }
        status.probed = Some(after(now, PROBE_MAX));
        Standing::Open
    }

    /// Whether a host that was not to be tried still is not; asks for no turn.
    pub(super) fn is_left_alone(&mut self, address: SocketAddr, now: Timestamp) -> bool {
        self.hosts.get_mut(&address).is_some_and(|status| {
            now < status.ends(now) || status.probed.is_some_and(|by| now < by && by <= after(now, PROBE_MAX))
        })
    }

    /// It answers: nothing is held against it any more. Whether something was.
    pub(super) fn reached(&mut self, address: SocketAddr) -> bool {
        self.hosts.remove(&address).is_some()
    }

    /// Nobody went there after all, or the trouble was ours.
    pub(super) fn unseen(&mut self, address: SocketAddr) {
        if let Some(status) = self.hosts.get_mut(&address) {
            status.probed = None;
        }
    }

    /// It could not be talked to. `jitter` is in 0.0..1.0. Gives the end of the wait when this began
    /// one; of attempts that ran at the same time only the first does.
    pub(super) fn failed(
        &mut self,
        address: SocketAddr,
        name: &str,
        cause: &str,
        now: Timestamp,
        jitter: f64,
    ) -> Option<Timestamp> {
        if self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(&address) {
            self.forget_some();
        }
        let status = self.hosts.entry(address).or_insert_with(|| Status {
            name: String::new(),
            failures: 0,
            until: Timestamp::MIN,
            wait: Duration::ZERO,
            probed: None,
            cause: String::new(),
        });
        name.clone_into(&mut status.name);
        cause.clone_into(&mut status.cause);
        if status.failures > 0 && now < status.ends(now) {
            return None;
        }
        let doubled = WAIT_MIN.saturating_mul(1 << status.failures.min(16)).min(WAIT_MAX);
        let factor = 1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0);
        status.failures = status.failures.saturating_add(1);
        status.wait = doubled.mul_f64(factor);
        status.until = after(now, status.wait);
        status.probed = None;
        Some(status.until)
    }

    /// Those that failed and were not reached since, by name; at most `max`.
    pub(super) fn list(&self, max: usize) -> Vec<HostStanding> {
        let standing = |(address, status): (&SocketAddr, &Status)| HostStanding {
            name: status.name.clone(),
            address: *address,
            failures: status.failures,
            until: status.until,
            cause: status.cause.clone(),
        };
        let mut listed: Vec<HostStanding> = self.hosts.iter().take(max).map(standing).collect();
        listed.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
        listed
    }

    /// An operator wants everything tried now.
    pub(super) fn clear(&mut self) {
        self.hosts.clear();
    }

    /// Those whose wait ends first go: they were about to be tried anyway.
    fn forget_some(&mut self) {
        let mut ends: Vec<Timestamp> = self.hosts.values().map(|status| status.until).collect();
        ends.sort_unstable();
        let Some(limit) = ends.get(ends.len() / 10).copied() else { return };
        self.hosts.retain(|_, status| status.until > limit);
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "mx.example.net";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn ip(last: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(0xC000_0200 + last), 25).into()
    }

    fn wait_of(hosts: &mut Hosts, now: Timestamp) -> i64 {
        let until = hosts.failed(ip(1), HOST, "it refused the connection", now, 0.5).unwrap();
        until.duration_since(now).as_secs()
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_quarter_of_an_hour() {
        let mut hosts = Hosts::default();
        let mut now = at(0);
        let waits: Vec<i64> = (0..9)
            .map(|_| {
                let wait = wait_of(&mut hosts, now);
                now += SignedDuration::from_secs(wait);
                wait
            })
            .collect();
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 900, 900, 900]);
        assert!(hosts.reached(ip(1)) && !hosts.reached(ip(1)));
        assert_eq!(wait_of(&mut hosts, now), 15, "forgotten with the first success");
    }

    #[test]
    fn attempts_that_fail_together_count_once() {
        let mut hosts = Hosts::default();
        assert_eq!(wait_of(&mut hosts, at(0)), 15);
        for _ in 0..20 {
            assert_eq!(hosts.failed(ip(1), HOST, "it refused the connection", at(1), 0.5), None);
        }
        assert_eq!(wait_of(&mut hosts, at(15)), 30);
    }

    #[test]
    fn one_at_a_time_goes_to_see_and_the_others_learn_of_it() {
        let mut hosts = Hosts::default();
        assert_eq!(hosts.ask(ip(1), at(0)), Standing::Open);
        wait_of(&mut hosts, at(0));
        let Standing::NotBefore { until, text } = hosts.ask(ip(1), at(1)) else { panic!("open") };
        assert_eq!(until, at(15));
        assert!(text.contains(HOST) && text.contains("192.0.2.1") && text.contains("refused"), "{text}");
        assert_eq!(hosts.ask(ip(2), at(1)), Standing::Open, "another host");
        assert_eq!(hosts.ask(ip(1), at(15)), Standing::Open);
        assert!(matches!(hosts.ask(ip(1), at(16)), Standing::Probed { .. }));
        hosts.unseen(ip(1));
        assert_eq!(hosts.ask(ip(1), at(16)), Standing::Open, "it did not go after all");
        assert_eq!(hosts.ask(ip(1), at(17 + PROBE_MAX.as_secs() as i64)), Standing::Open, "never came back");
        hosts.clear();
        assert_eq!(hosts.ask(ip(1), at(17)), Standing::Open);
        assert_eq!(hosts.ask(ip(1), at(17)), Standing::Open);
    }

    #[test]
    fn a_clock_that_steps_back_does_not_lengthen_a_wait() {
        let mut hosts = Hosts::default();
        wait_of(&mut hosts, at(0));
        let day = SignedDuration::from_hours(24);
        let Standing::NotBefore { until, .. } = hosts.ask(ip(1), at(0) - day) else { panic!("open") };
        assert!(until <= at(15) - day);
        // And it ends: the wait does not go along with the clock until it is where it was.
        assert!(matches!(hosts.ask(ip(1), at(14) - day), Standing::NotBefore { .. }));
        assert_eq!(hosts.ask(ip(1), at(15) - day), Standing::Open);
        hosts.unseen(ip(1));
        hosts.ask(ip(1), at(15));
        assert!(!matches!(hosts.ask(ip(1), at(15) - day), Standing::Probed { .. }));
    }

    #[test]
    fn a_crowd_of_dead_hosts_takes_bounded_memory() {
        let mut hosts = Hosts::default();
        for number in 0..2 * HOSTS_MAX as u32 {
            hosts.failed(ip(number), HOST, "no answer", at(i64::from(number)), 0.5);
            assert!(hosts.hosts.len() <= HOSTS_MAX);
        }
        assert!(hosts.hosts.contains_key(&ip(2 * HOSTS_MAX as u32 - 1)), "the latest is known");
    }

    proptest! {
        /// Whatever happens, a host is never left alone for longer than the longest wait, and never
        /// seen by two at a time.
        #[test]
        fn waits_are_bounded_and_probes_are_single(
            steps in proptest::collection::vec((0u8..4, 0i64..2000, 0.0f64..1.0), 1..60)
        ) {
            let mut hosts = Hosts::default();
            let (mut now, mut probing) = (at(0), false);
            for (what, later, jitter) in steps {
                now += SignedDuration::from_secs(later);
                match what {
                    0 | 1 => match hosts.ask(ip(1), now) {
                        Standing::NotBefore { until, .. } => {
                            prop_assert!(until > now);
                            prop_assert!(until <= after(now, WAIT_MAX.mul_f64(1.0 + JITTER)));
                        }
                        Standing::Probed { by, .. } => prop_assert!(probing && by > now),
                        Standing::Open => probing = hosts.hosts.contains_key(&ip(1)),
                    },
                    2 => {
                        if hosts.failed(ip(1), HOST, "no answer", now, jitter).is_some() {
                            probing = false;
                        }
                    }
                    _ => {
                        hosts.reached(ip(1));
                        probing = false;
                        prop_assert_eq!(hosts.ask(ip(1), now), Standing::Open);
                    }
                }
            }
        }
    }
}
