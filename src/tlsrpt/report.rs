//! A day's report for one domain: folding results, rendering RFC 8460 §4.4 JSON.
//!
//! All forms (JSON, file name, Subject) are made from this one struct (RFC 8460 §5.6).

use serde::{Deserialize, Serialize};

use super::result::{AppliedPolicy, FailureDetail, SessionResult};
use crate::mail::Domain;

/// The tally of one day and one report domain: what `store::results` keeps and a report is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Whose `_smtp._tls` record gets the report.
    pub report_domain: Domain,
    /// One entry per distinct policy, in order of first appearance.
    pub policies: Vec<PolicyTally>,
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
pub const DETAILS_MAX: usize = 1000;

impl Tally {
    /// An empty tally.
    pub fn new(report_domain: Domain) -> Self {
        Self { report_domain, policies: Vec::new() }
    }

    /// Adds one session's result under its policy.
    pub fn fold(&mut self, result: &SessionResult) {
        todo!()
    }
}

/// A report as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Filled by the owner of this file.
    pub report_id: String,
}
