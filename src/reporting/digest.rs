//! What an operator should know of a day: destinations that failed, failures that are new, policies in
//! danger, changes for the worse, and reports that could not be delivered.
//!
//! Made from what is kept anyway and bounded in every list; what is left out is counted. [`Digest::text`]
//! is the same text for the terminal and for the mail. See also: `mailing` (once a day, crash-safe).

pub mod mailing;
mod text;

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::Reporting;
use crate::mail::Domain;
use crate::queue::retry::after;
use crate::store::{ChangeFilter, Policies, ReportEntry, RuaStatus};
use crate::sts::CachedPolicy;
use crate::sts::radar::Noticed;
use crate::tlsrpt::ResultType;
use crate::tlsrpt::report::{Tally, day_end, day_of, day_start};

/// Entries of any one list; more is for `report list`, `policy list` and `policy changes`.
const LIST_MAX: usize = 50;
/// A policy that runs out within this and was not fetched again is told.
const EXPIRES_SOON: std::time::Duration = std::time::Duration::from_secs(48 * 3600);

/// A day, digested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Digest {
    /// The UTC day.
    pub day: Date,
    /// When this was made; the day may not be over.
    pub made_at: Timestamp,
    /// Recipient domains with TLS sessions.
    pub domains: u64,
    /// TLS sessions, counted per policy.
    pub sessions: u64,
    /// Those that failed their policy.
    pub failed: u64,
    /// The domains with most failed sessions.
    pub worst: Shortened<Worst>,
    /// Failures of this day that the day before did not have.
    pub new_failures: Shortened<NewFailure>,
    /// Policies that run out soon or cannot be fetched again.
    pub policies: Shortened<PolicyInDanger>,
    /// What of policies and DNS protects less than before.
    pub changes: Shortened<Noticed>,
    /// Reports of this day and the day before that did not reach their target.
    pub undelivered: Shortened<Undelivered>,
    /// Targets that are left alone at present.
    pub suppressed: Shortened<SuppressedTarget>,
}

/// The first entries of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shortened<T> {
    /// At most 50.
    pub first: Vec<T>,
    /// So many were left out.
    pub more: u64,
}

impl<T> Shortened<T> {
    fn of(mut all: Vec<T>) -> Self {
        let more = all.len().saturating_sub(LIST_MAX) as u64;
        all.truncate(LIST_MAX);
        Self { first: all, more }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

/// A domain that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Worst {
    /// The recipient domain.
    pub domain: Domain,
    /// All its sessions.
    pub sessions: u64,
    /// Failed ones.
    pub failed: u64,
    /// The most frequent way.
    pub result_type: Option<ResultType>,
}

/// A way of failing that is new for a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NewFailure {
    /// The recipient domain.
    pub domain: Domain,
    /// How.
    pub result_type: ResultType,
    /// Sessions.
    pub sessions: u64,
    /// One of the hosts.
    pub mx: Option<String>,
    /// What was said of it.
    pub reason: Option<String>,
}

/// A policy that may end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyInDanger {
    /// The policy domain.
    pub domain: Domain,
    /// The last instant at which it applies.
    pub expires_at: Timestamp,
    /// Fetches that failed in a row.
    pub failures: u32,
    /// The last failure.
    pub why: Option<String>,
}

/// A report that did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// The day it is about.
    pub day: Date,
    /// The report domain.
    pub domain: Domain,
    /// The target.
    pub target: String,
    /// What happened last.
    pub why: String,
}

/// A target that is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressedTarget {
    /// The target.
    pub target: String,
    /// Until when.
    pub until: Timestamp,
    /// The last failure.
    pub why: String,
}

impl Digest {
    /// Whether there is something an operator should look at.
    pub fn is_quiet(&self) -> bool {
        self.new_failures.is_empty()
            && self.policies.is_empty()
            && self.changes.is_empty()
            && self.undelivered.is_empty()
    }
}

impl Reporting {
    /// Digests a day, yesterday unless another is named. Takes time with the number of domains, and gives
    /// way to other work meanwhile.
    pub async fn digest(&self, policies: &Policies, day: Option<Date>) -> Digest {
        let now = self.now();
        let day = day.or_else(|| day_of(now).yesterday().ok()).unwrap_or_else(|| day_of(now));
        let before = day.yesterday().ok();
        let (mut domains, mut sessions, mut failed) = (0, 0u64, 0u64);
        let (mut worst, mut new_failures, mut failing) = (Vec::new(), Vec::new(), 0u64);
        for (number, domain) in self.results().domains(day).into_iter().enumerate() {
            if number % 512 == 511 {
                tokio::task::yield_now().await;
            }
            let Some(tally) = self.results().tally(day, &domain) else { continue };
            domains += 1;
            let counted = count(&tally);
            sessions = sessions.saturating_add(counted.sessions);
            failed = failed.saturating_add(counted.failed);
            if counted.failed == 0 {
                continue;
            }
            let known = before.and_then(|before| self.results().tally(before, &domain));
            new_failures.extend(newly(&tally, known.as_ref()));
            failing += 1;
            worst.push(counted);
            // Bounded, however many domains fail.
            if worst.len() > 4 * LIST_MAX {
                keep_worst(&mut worst);
            }
        }
        keep_worst(&mut worst);
        let mut worst = Shortened::of(worst);
        worst.more = failing.saturating_sub(worst.first.len() as u64);
        new_failures.sort_by_key(|new: &NewFailure| std::cmp::Reverse(new.sessions));
        let end = day_end(day);
        let since = Some(day_start(day));
        let (changes, more) =
            policies.changes().list(&ChangeFilter { since, ..ChangeFilter::default() }, 4 * LIST_MAX);
        let last_at = changes.last().map(|change| change.at);
        let mut changes = Shortened::of(
            changes.iter().filter(|change| change.at <= end).map(|change| (**change).clone()).collect(),
        );
        changes.more += u64::from(more && last_at.is_some_and(|at| at <= end));
        let in_danger = policies.list().iter().filter_map(|policy| danger(policy, now)).collect();
        Digest {
            day,
            made_at: now,
            domains,
            sessions,
            failed,
            worst,
            new_failures: Shortened::of(new_failures),
            policies: Shortened::of(in_danger),
            changes,
            undelivered: Shortened::of(self.undelivered(day)),
            suppressed: Shortened::of(self.suppressed_targets(now)),
        }
    }

    fn undelivered(&self, day: Date) -> Vec<Undelivered> {
        let mut found = Vec::new();
        for day in [Some(day), day.yesterday().ok()].into_iter().flatten() {
            for entry in self.reports().of_day(day) {
                found.extend(self.undelivered_of(&entry));
                if found.len() > 20 * LIST_MAX {
                    return found;
                }
            }
        }
        found
    }

    fn undelivered_of(&self, entry: &ReportEntry) -> Vec<Undelivered> {
        let why = |target: &crate::store::RuaState| match target.status {
            RuaStatus::GivenUp => Some(target.last.clone().unwrap_or_default()),
            RuaStatus::Queued(id) => {
                let end = self.reports().targets().mail(id)?;
                (!end.delivered).then(|| end.text.clone())
            }
            RuaStatus::Waiting(_) | RuaStatus::Accepted | RuaStatus::Withheld => None,
        };
        let told = |target: &crate::store::RuaState| {
            Some(Undelivered {
                day: entry.day,
                domain: entry.domain.clone(),
                target: target.rua.clone(),
                why: why(target)?,
            })
        };
        entry.targets.iter().filter_map(told).collect()
    }

    fn suppressed_targets(&self, now: Timestamp) -> Vec<SuppressedTarget> {
        let rule = self.options().hygiene.suppress;
        let suppressed = |standing: std::sync::Arc<crate::store::targets::Standing>| {
            let until = standing.suppressed_until(rule).filter(|until| now < *until)?;
            Some(SuppressedTarget { target: standing.target.clone(), until, why: standing.reason.clone() })
        };
        self.reports().targets().standings().into_iter().filter_map(suppressed).collect()
    }
}

fn count(tally: &Tally) -> Worst {
    let failed = tally.policies.iter().fold(0u64, |sum, policy| sum.saturating_add(policy.failed));
    let mut by_type: std::collections::BTreeMap<ResultType, u64> = std::collections::BTreeMap::new();
    for (detail, count) in tally.policies.iter().flat_map(|policy| &policy.details) {
        *by_type.entry(detail.result_type).or_default() += count;
    }
    let result_type = by_type.into_iter().max_by_key(|(_, count)| *count).map(|(kind, _)| kind);
    Worst { domain: tally.report_domain.clone(), sessions: tally.sessions(), failed, result_type }
}

fn keep_worst(worst: &mut Vec<Worst>) {
    worst.sort_by(|a, b| b.failed.cmp(&a.failed).then_with(|| a.domain.cmp(&b.domain)));
    worst.truncate(LIST_MAX);
}

/// Ways of failing that were not there the day before.
fn newly(tally: &Tally, before: Option<&Tally>) -> Vec<NewFailure> {
    let details = |tally: &Tally| -> Vec<(crate::tlsrpt::FailureDetail, u64)> {
        tally.policies.iter().flat_map(|policy| policy.details.clone()).collect()
    };
    let known: BTreeSet<ResultType> =
        before.map(details).unwrap_or_default().iter().map(|(detail, _)| detail.result_type).collect();
    let mut new: Vec<NewFailure> = Vec::new();
    for (detail, sessions) in details(tally) {
        if known.contains(&detail.result_type) {
            continue;
        }
        match new.iter_mut().find(|new| new.result_type == detail.result_type) {
            Some(new) => new.sessions = new.sessions.saturating_add(sessions),
            None => new.push(NewFailure {
                domain: tally.report_domain.clone(),
                result_type: detail.result_type,
                sessions,
                mx: detail.receiving_mx_hostname,
                reason: detail.failure_reason_code,
            }),
        }
    }
    new
}

fn danger(policy: &CachedPolicy, now: Timestamp) -> Option<PolicyInDanger> {
    let held = policy.held.as_ref()?;
    let expires_at = held.expires_at();
    if expires_at < now {
        return None;
    }
    let failures = policy.trouble.as_ref().map_or(0, |trouble| trouble.count);
    // A short-lived policy that is fetched again in time is in no danger.
    let overdue = expires_at < after(now, EXPIRES_SOON) && held.refresh_at < now;
    (failures > 0 || overdue).then(|| PolicyInDanger {
        domain: policy.domain.clone(),
        expires_at,
        failures,
        why: policy.trouble.as_ref().map(|trouble| trouble.text.clone()),
    })
}
