//! What many reports say together: by organisation, by policy domain, by failure.
//!
//! A report is counted once, by its sender and report-id, however often it comes (RFC 8460 §4.4 makes
//! the id unique). Sessions are added per policy: a session judged by DANE and by MTA-STS is reported
//! under both. Bounded in rows. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ReadReport;

/// Rows of one table kept; what comes after is counted in the totals alone.
const ROWS_MAX: usize = 100_000;
/// Organisations remembered of a failure.
const NAMES_MAX: usize = 5;

/// Counts of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sum {
    /// Reports in which it occurs.
    pub reports: u64,
    /// Sessions that met their policy.
    pub successful: u64,
    /// Sessions that did not.
    pub failed: u64,
}

impl Sum {
    fn add(&mut self, successful: u64, failed: u64) {
        self.successful = self.successful.saturating_add(successful);
        self.failed = self.failed.saturating_add(failed);
    }

    /// All sessions.
    pub fn sessions(&self) -> u64 {
        self.successful.saturating_add(self.failed)
    }

    /// Failed ones of a hundred; 0 without sessions.
    pub fn failed_percent(&self) -> f64 {
        match self.sessions() {
            0 => 0.0,
            sessions => self.failed as f64 * 100.0 / sessions as f64,
        }
    }
}

/// One way of failing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failed {
    /// `result-type`
    pub result_type: String,
    /// `receiving-mx-hostname`
    pub receiving_mx_hostname: Option<String>,
    /// `failure-reason-code`
    pub failure_reason_code: Option<String>,
}

/// Of one way of failing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FailedSum {
    /// Sessions.
    pub sessions: u64,
    /// Who reported it; the first few.
    pub organizations: BTreeSet<String>,
    /// Policy domains concerned; the first few.
    pub domains: BTreeSet<String>,
}

/// See the file's header.
#[derive(Debug, Default)]
pub struct Sums {
    /// Everything.
    pub total: Sum,
    /// By sender.
    pub organizations: BTreeMap<String, Sum>,
    /// By policy domain and policy type.
    pub domains: BTreeMap<(String, String), Sum>,
    /// By failure.
    pub failures: BTreeMap<Failed, FailedSum>,
    /// Reports that came again, not counted again.
    pub duplicates: u64,
    /// Rows that did not fit any more.
    pub cut: u64,
    seen: BTreeMap<(String, String), u64>,
}

/// Whether a report was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It was.
    Once,
    /// It was before, and says the same.
    Again,
    /// One with its id was before, and says something else.
    AgainOtherwise,
}

impl Sums {
    /// Counts a report, unless it was counted before.
    pub fn add(&mut self, report: &ReadReport) -> Counted {
        let sender = report.sender().to_owned();
        let content = digest(report);
        // Without an id the content is the id.
        let id = report.report_id.clone().unwrap_or_else(|| format!("{content:016x}"));
        if let Some(known) = self.seen.get(&(sender.clone(), id.clone())) {
            self.duplicates += 1;
            return if *known == content { Counted::Again } else { Counted::AgainOtherwise };
        }
        self.seen.insert((sender.clone(), id), content);
        self.total.reports += 1;
        let mut domains = BTreeSet::new();
        let mut whole = Sum { reports: 1, ..Sum::default() };
        for policy in &report.policies {
            let (successful, failed) =
                (policy.total_successful_session_count, policy.total_failure_session_count);
            whole.add(successful, failed);
            let domain = policy.policy_domain.clone().unwrap_or_else(|| "(none)".to_owned());
            let key = (domain.clone(), policy.policy_type.clone());
            let first = domains.insert(key.clone());
            if let Some(row) = row(&mut self.domains, key, &mut self.cut) {
                row.reports += u64::from(first);
                row.add(successful, failed);
            }
            for failure in &policy.failure_details {
                let key = Failed {
                    result_type: failure.result_type.clone(),
                    receiving_mx_hostname: failure.receiving_mx_hostname.clone(),
                    failure_reason_code: failure.failure_reason_code.clone(),
                };
                if let Some(row) = row(&mut self.failures, key, &mut self.cut) {
                    row.sessions = row.sessions.saturating_add(failure.failed_session_count);
                    remember(&mut row.organizations, &sender);
                    remember(&mut row.domains, &domain);
                }
            }
        }
        self.total.add(whole.successful, whole.failed);
        if let Some(row) = row(&mut self.organizations, sender, &mut self.cut) {
            row.reports += 1;
            row.add(whole.successful, whole.failed);
        }
        Counted::Once
    }
}

fn row<'m, K: Ord, V: Default>(rows: &'m mut BTreeMap<K, V>, key: K, cut: &mut u64) -> Option<&'m mut V> {
    if rows.len() >= ROWS_MAX && !rows.contains_key(&key) {
        *cut += 1;
        return None;
    }
    Some(rows.entry(key).or_default())
}

fn remember(names: &mut BTreeSet<String>, name: &str) {
    if names.len() < NAMES_MAX && !names.contains(name) {
        names.insert(name.to_owned());
    }
}

/// A number for what a report says, whatever form it came in.
fn digest(report: &ReadReport) -> u64 {
    let said = (&report.policies, report.start_datetime, report.end_datetime);
    let text = serde_json::to_vec(&said).unwrap_or_default();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(first)
}
