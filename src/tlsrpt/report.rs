//! A day's report for one domain: folding results, rendering RFC 8460 §4.4 JSON.
//!
//! All forms (JSON, file name, Subject) are made from this one struct (RFC 8460 §5.6).

use serde::{Deserialize, Serialize};

use super::result::{AppliedPolicy, FailureDetail, ResultType, SessionResult};
use crate::mail::Domain;

/// The tally of one day and one report domain: what `store::results` keeps and a report is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Whose `_smtp._tls` record gets the report.
    pub report_domain: Domain,
    /// One entry per distinct policy, in order of first appearance; at most [`POLICIES_MAX`].
    pub policies: Vec<PolicyTally>,
    /// Sessions under further policies, counted nowhere else.
    #[serde(default)]
    pub sessions_cut: u64,
}

/// Counts under one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTally {
    /// The policy.
    pub policy: AppliedPolicy,
    /// `total-successful-session-count`
    pub successful: u64,
    /// `total-failure-session-count`
    pub failed: u64,
    /// Equal details counted together; bounded, see [`DETAILS_MAX`].
    pub details: Vec<(FailureDetail, u64)>,
    /// Sessions whose detail did not fit any more; still in `failed`.
    pub details_cut: u64,
}

/// Distinct failure details kept per policy and day; a report must stay below receivers' limits.
/// Further ones are counted together by result type, so that totals stay true.
pub const DETAILS_MAX: usize = 1000;
/// The same over all policies of a day and domain: at some 600 octets each, 2 MB of JSON.
pub const DETAILS_TOTAL_MAX: usize = 4000;
/// Distinct policies per day and domain: a policy may have 64 KB (RFC 8461 §3.3) and its owner may
/// publish a new one every minute.
pub const POLICIES_MAX: usize = 16;
/// Characters of `failure-reason-code` and of host names at most.
const TEXT_CHARS_MAX: usize = 200;
const NAME_CHARS_MAX: usize = 255;
/// What the collective entry of a result type says instead of addresses and names.
pub const DETAILS_CUT_REASON: &str = "further failures of this type, details left out";

impl Tally {
    /// An empty tally.
    pub fn new(report_domain: Domain) -> Self {
        Self { report_domain, policies: Vec::new(), sessions_cut: 0 }
    }

    /// Adds one session's result under its policy.
    pub fn fold(&mut self, result: &SessionResult) {
        let details_total: usize = self.policies.iter().map(|policy| policy.details.len()).sum();
        let known = self.policies.iter().position(|tally| tally.policy == result.policy);
        let index = match known {
            Some(index) => index,
            None if self.policies.len() >= POLICIES_MAX => {
                self.sessions_cut = self.sessions_cut.saturating_add(1);
                return;
            }
            None => {
                self.policies.push(PolicyTally::new(result.policy.clone()));
                self.policies.len() - 1
            }
        };
        self.policies[index].fold(&result.failures, details_total < DETAILS_TOTAL_MAX);
    }

    /// Sessions counted, all policies together.
    pub fn sessions(&self) -> u64 {
        self.policies.iter().fold(self.sessions_cut, |sum, policy| {
            sum.saturating_add(policy.successful).saturating_add(policy.failed)
        })
    }
}

impl PolicyTally {
    fn new(policy: AppliedPolicy) -> Self {
        Self { policy, successful: 0, failed: 0, details: Vec::new(), details_cut: 0 }
    }

    fn fold(&mut self, failures: &[FailureDetail], room: bool) {
        if failures.is_empty() {
            self.successful = self.successful.saturating_add(1);
            return;
        }
        self.failed = self.failed.saturating_add(1);
        let mut cut = false;
        for (nth, failure) in failures.iter().enumerate() {
            // RFC 8460 §4.4: failed-session-count counts sessions, so a detail counts once in each.
            if failures[..nth].contains(failure) {
                continue;
            }
            let failure = bounded(failure);
            if !self.count(&failure) {
                if room && self.details.len() < DETAILS_MAX {
                    self.details.push((failure, 1));
                } else {
                    cut = true;
                    self.count_collectively(failure.result_type);
                }
            }
        }
        self.details_cut = self.details_cut.saturating_add(u64::from(cut));
    }

    /// Counts a detail that is already there.
    fn count(&mut self, failure: &FailureDetail) -> bool {
        let Some((_, count)) = self.details.iter_mut().find(|(known, _)| known == failure) else {
            return false;
        };
        *count = count.saturating_add(1);
        true
    }

    /// One entry per result type beyond the limit; result types are few, so this is bounded too.
    fn count_collectively(&mut self, result_type: ResultType) {
        let collective = FailureDetail {
            result_type,
            sending_mta_ip: None,
            receiving_mx_hostname: None,
            receiving_mx_helo: None,
            receiving_ip: None,
            failure_reason_code: Some(DETAILS_CUT_REASON.to_owned()),
        };
        if !self.count(&collective) {
            self.details.push((collective, 1));
        }
    }
}

/// The detail with every text cut to its limit and made printable: banners and alerts are foreign.
fn bounded(failure: &FailureDetail) -> FailureDetail {
    let cut = |text: &Option<String>, max: usize| {
        text.as_ref()
            .map(|text| text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect())
    };
    FailureDetail {
        receiving_mx_hostname: cut(&failure.receiving_mx_hostname, NAME_CHARS_MAX),
        receiving_mx_helo: cut(&failure.receiving_mx_helo, NAME_CHARS_MAX),
        failure_reason_code: cut(&failure.failure_reason_code, TEXT_CHARS_MAX),
        ..failure.clone()
    }
}

/// A report as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Filled by the owner of this file.
    pub report_id: String,
}
