//! Tells the operator of destinations that protect their mail less than before: log, counters, list.
//!
//! What is a change and how bad is `sts::radar`'s; here is where the facts come by. Changes nothing
//! about any delivery. Equal facts are told once: what was lost must be seen again first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::{Gather, Inner};
use crate::dane::TlsaAnswer;
use crate::mail::Domain;
use crate::net::dns::Lookup;
use crate::route::DnssecStatus;
use crate::sts::freshness::TxtFact;
use crate::sts::radar::{self, Change, Guard, Now, Severity};
use crate::sts::{CachedPolicy, Mode};

/// Since the start.
#[derive(Debug, Default)]
pub struct PolicyCounters {
    /// Changes that are odd and weaken nothing.
    pub notices: AtomicU64,
    /// Changes after which protection may go.
    pub warnings: AtomicU64,
    /// Changes after which mail is protected less.
    pub alarms: AtomicU64,
    /// Policies that could not be fetched again several times in a row; counted in `alarms` too.
    pub refetch_alarms: AtomicU64,
    /// Fetches that failed.
    pub fetches_failed: AtomicU64,
}

impl Gather {
    /// What was counted since the start.
    pub fn counters(&self) -> &PolicyCounters {
        &self.inner.counters
    }
}

impl Inner {
    /// Logs, counts and lists a change.
    pub(super) fn tell(&self, domain: &Domain, change: Change) {
        let (name, severity) = (change.word(), change.severity());
        let counter = match severity {
            Severity::Notice => &self.counters.notices,
            Severity::Warning => &self.counters.warnings,
            Severity::Alarm => &self.counters.alarms,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match (&change, severity) {
            (Change::RefetchFailing { failures, expires_at, .. }, _) => {
                self.counters.refetch_alarms.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(event = "policy-refetch-alarm", %domain, failures, %expires_at, detail = %change,
                    "MTA-STS policy is about to be lost");
            }
            (_, Severity::Notice) => {
                tracing::info!(event = "policy-change", %domain, change = name, severity = "notice", detail = %change,
                    "destination changed its policy oddly");
            }
            (_, Severity::Warning) => {
                tracing::warn!(event = "policy-change", %domain, change = name, severity = "warning", detail = %change,
                    "destination changed what protects its mail");
            }
            (_, Severity::Alarm) => {
                tracing::warn!(event = "policy-change", %domain, change = name, severity = "alarm", detail = %change,
                    "destination protects its mail less than before");
            }
        }
        self.policies.record_change(domain, change, self.clock.now());
    }

    fn observe(&self, guard: Guard, name: &Domain, now: Now) -> bool {
        self.policies.observe(guard, name, now, self.clock.now())
    }

    /// The MX records of a domain, as looked up.
    pub(super) fn watch_mx<T>(&self, domain: &Domain, lookup: &Lookup<T>) {
        let now = match lookup {
            Lookup::Found(answer) => of_status(answer.status),
            // RFC 5321 §5.1: the domain is its own MX host.
            Lookup::NoData(status) => of_status(*status),
            Lookup::NxDomain(_) => Now::Absent,
            Lookup::Failed(_) => Now::Unknown,
        };
        if self.observe(Guard::Mx, domain, now)
            && let Some(change) = radar::mx_change(now)
        {
            self.tell(domain, change);
        }
    }

    /// The TLSA records of an MX host, as looked up, and what DNSSEC says of its addresses.
    ///
    /// `domain` is whose mail goes there.
    pub(super) fn watch_tlsa(
        &self,
        host: &Domain,
        domain: Option<&Domain>,
        answer: &TlsaAnswer,
        addresses: DnssecStatus,
    ) {
        if let Some(domain) = domain {
            self.served.note(host, domain);
        }
        let now = match answer {
            TlsaAnswer::Secure(records) if !records.is_empty() => Now::Secure,
            TlsaAnswer::Failed(_) => Now::Unknown,
            TlsaAnswer::Insecure => Now::Insecure,
            // RFC 7672 §2.2.2: for an unsigned host they are not even asked for.
            TlsaAnswer::Absent if addresses != DnssecStatus::Secure => Now::Insecure,
            TlsaAnswer::Secure(_) | TlsaAnswer::Absent => Now::Absent,
        };
        if self.observe(Guard::Tlsa, host, now)
            && let Some(change) = radar::tlsa_change(now, self.served.domains(host))
        {
            self.tell(host, change);
        }
    }

    /// The record of a domain whose policy may be held.
    pub(super) fn watch_record(&self, domain: &Domain, entry: Option<&CachedPolicy>, txt: &TxtFact) {
        let now = self.clock.now();
        if !entry.and_then(|entry| entry.live(now)).is_some_and(|held| held.policy.mode != Mode::None) {
            return;
        }
        match txt {
            TxtFact::Record(_) => {
                self.observe(Guard::Record, domain, Now::Secure);
            }
            TxtFact::Unusable(error) => {
                if self.observe(Guard::Record, domain, Now::Absent) {
                    self.tell(domain, radar::record_vanished(&error.to_string()));
                }
            }
            TxtFact::Failed(_) => {}
        }
    }

    /// An entry of the cache as it is: a policy that ran out is told once.
    pub(super) fn watch_policy(&self, entry: &CachedPolicy, now: Timestamp) {
        let Some(held) = entry.held.as_ref().filter(|held| held.policy.mode != Mode::None) else { return };
        if !held.is_expired(now) {
            self.observe(Guard::Policy, &entry.domain, Now::Secure);
        } else if self.observe(Guard::Policy, &entry.domain, Now::Absent) {
            let (mode, expired_at) = (held.policy.mode, held.expires_at());
            self.tell(&entry.domain, Change::PolicyExpired { mode, expired_at });
        }
    }

    /// A domain ended its policy itself, which has been told: it is not told again as run out.
    pub(super) fn unwatch_policy(&self, domain: &Domain) {
        self.observe(Guard::Policy, domain, Now::Absent);
    }
}

/// Hosts remembered with the domains they serve; a forgotten one is told with the domain at hand.
const HOSTS_MAX: usize = 10_000;
/// Domains remembered of a host: enough to know whom to write to.
const DOMAINS_MAX: usize = 8;

/// Whose mail goes to which host, as far as it was seen since the start.
#[derive(Default)]
pub(super) struct Served(Mutex<HashMap<Domain, Vec<Domain>>>);

impl Served {
    fn lock(&self) -> MutexGuard<'_, HashMap<Domain, Vec<Domain>>> {
        // A panic elsewhere leaves at worst a name less in a text.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, host: &Domain, domain: &Domain) {
        let mut served = self.lock();
        if served.len() >= HOSTS_MAX && !served.contains_key(host) {
            served.clear();
        }
        let domains = served.entry(host.clone()).or_default();
        if domains.len() < DOMAINS_MAX && !domains.contains(domain) {
            domains.push(domain.clone());
        }
    }

    fn domains(&self, host: &Domain) -> Vec<Domain> {
        self.lock().get(host).cloned().unwrap_or_default()
    }
}

fn of_status(status: DnssecStatus) -> Now {
    match status {
        DnssecStatus::Secure => Now::Secure,
        DnssecStatus::Insecure => Now::Insecure,
        // RFC 7672 §2.1.1: no fact at all.
        DnssecStatus::Bogus | DnssecStatus::Indeterminate => Now::Unknown,
    }
}
