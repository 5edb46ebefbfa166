//! What metrics show that is not counted as it happens: the queue, the policy cache, reports, at one moment.
//!
//! Costs a look at what is in memory; never touches the disk. Called by `http` for each scrape.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;

use super::answer::AdminHandles;
use crate::metrics::Snapshot;
use crate::net::dns::Validation;
use crate::store::{Health, RuaStatus};
use crate::sts::Mode;

impl AdminHandles {
    /// What can be read now.
    pub(in crate::admin) fn snapshot(&self) -> Snapshot {
        let stats = self.queue.stats();
        let now = self.clock.now();
        let age = |oldest: Option<Timestamp>| {
            let age = oldest.and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok());
            age.unwrap_or_default()
        };
        let [active, deferred, held] = stats.oldest_by_state.map(age);
        let validation = match self.gather.last_validation() {
            None => None,
            Some(Validation::Works) => Some("works"),
            Some(Validation::Off(_)) => Some("off"),
            Some(Validation::Missing(_)) => Some("missing"),
            Some(Validation::Broken(_)) => Some("broken"),
            Some(Validation::Silent(_)) => Some("silent"),
        };
        let mut policies = [("enforce", 0), ("testing", 0), ("none", 0)];
        for entry in self.policies.list() {
            let Some(held) = &entry.held else { continue };
            policies[match held.policy.mode {
                Mode::Enforce => 0,
                Mode::Testing => 1,
                Mode::None => 2,
            }]
            .1 += 1;
        }
        let mut reports = [("waiting", 0), ("queued", 0), ("accepted", 0), ("given up", 0), ("withheld", 0)];
        for entry in self.reports.list() {
            for target in &entry.targets {
                reports[match target.status {
                    RuaStatus::Waiting(_) => 0,
                    RuaStatus::Queued(_) => 1,
                    RuaStatus::Accepted => 2,
                    RuaStatus::GivenUp => 3,
                    RuaStatus::Withheld => 4,
                }]
                .1 += 1;
            }
        }
        let counters = self.gather.counters();
        Snapshot {
            queue_items: vec![("active", stats.active), ("deferred", stats.deferred), ("held", stats.held)],
            queue_octets: stats.bytes,
            queue_oldest: vec![("active", active), ("deferred", deferred), ("held", held)],
            dnssec: ["works", "off", "missing", "broken", "silent"]
                .map(|state| (state, u64::from(validation == Some(state))))
                .to_vec(),
            writable: self.queue.health() == Health::Fine,
            disk_free: self.queue.disk_free().unwrap_or(0),
            policies: policies.to_vec(),
            policy_changes: vec![
                ("notice", counters.notices.load(Relaxed)),
                ("warning", counters.warnings.load(Relaxed)),
                ("alarm", counters.alarms.load(Relaxed)),
            ],
            policy_fetches_failed: counters.fetches_failed.load(Relaxed),
            policy_refetch_alarms: counters.refetch_alarms.load(Relaxed),
            reports: reports.to_vec(),
        }
    }
}
