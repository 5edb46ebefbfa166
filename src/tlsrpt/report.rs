//! A day's report for one domain: folding results, rendering RFC 8460 §4.4 JSON.
//!
//! All forms (JSON, file name, Subject) are made from this one struct (RFC 8460 §5.6).

use jiff::Timestamp;
use jiff::civil::{Date, time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::json;
use super::result::{AppliedPolicy, FailureDetail, ResultType, SessionResult};
use crate::mail::{Domain, Mailbox};

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

/// A report as sent: every form of it is made from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who reports, about whom, when.
    pub label: Label,
    /// What is reported.
    pub tally: Tally,
}

/// What a report is known by; its file name and Subject are made from this (RFC 8460 §5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The domain the report is about.
    pub report_domain: Domain,
    /// `organization-name`
    pub organization_name: String,
    /// `contact-info`: the bare address. Its domain is the submitter (RFC 8460 §5.3).
    pub contact_info: Mailbox,
    /// `report-id`, see [`report_id`]. The same in every retry and for every target.
    pub report_id: String,
    /// First second covered, UTC.
    pub start: Timestamp,
    /// Last second covered, UTC.
    pub end: Timestamp,
}

/// Sessions of a report, all policies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Met their policy.
    pub successful: u64,
    /// Did not.
    pub failed: u64,
}

/// The instant a UTC day begins.
pub fn day_start(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

/// The last second of a UTC day (RFC 8460 §4.1; all known senders name this second).
pub fn day_end(day: Date) -> Timestamp {
    let last = day.to_datetime(time(23, 59, 59, 0));
    last.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

/// The UTC day of an instant.
pub fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// `YYYYMMDD.<random>.<domain>@<submitter>`: unique, and a msg-id (RFC 5322 §3.6.4) as the Subject
/// wants it.
pub fn report_id(day: Date, random: u64, report_domain: &Domain, contact_info: &Mailbox) -> String {
    format!("{}.{random:016x}.{report_domain}@{}", day.strftime("%Y%m%d"), contact_info.domain())
}

impl Report {
    /// The report of a whole day.
    pub fn make(
        tally: Tally,
        day: Date,
        organization_name: &str,
        contact_info: &Mailbox,
        report_id: String,
    ) -> Self {
        let label = Label {
            report_domain: tally.report_domain.clone(),
            organization_name: organization_name.to_owned(),
            contact_info: contact_info.clone(),
            report_id,
            start: day_start(day),
            end: day_end(day),
        };
        Self { label, tally }
    }

    /// The same for the part of the day before `now`, for a day that is not over.
    #[must_use]
    pub fn until(mut self, now: Timestamp) -> Self {
        let end = self.label.end.min(now).max(self.label.start);
        self.label.end = Timestamp::from_second(end.as_second()).unwrap_or(end);
        self
    }

    /// The report text (RFC 8460 §4.4), on one line.
    pub fn render(&self) -> String {
        json::render(self)
    }
}

impl Label {
    /// Reads label and totals back from the text of a report of ours, so that a mail made after a
    /// restart says what its text says.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn read(report_domain: &Domain, json: &str) -> Result<(Self, Totals), String> {
        json::read_label(report_domain, json).map_err(|error| error.to_string())
    }

    /// The domain part of `contact-info`: `TLS-Report-Submitter` (RFC 8460 §5.3).
    pub fn submitter(&self) -> String {
        self.contact_info.domain().to_string()
    }

    /// The name of the compressed text (RFC 8460 §5.1).
    pub fn file_name(&self) -> String {
        format!(
            "{}!{}!{}!{}.json.gz",
            self.submitter(),
            self.report_domain,
            self.start.as_second(),
            self.end.as_second()
        )
    }

    /// The Subject of report mail (RFC 8460 §5.3).
    pub fn subject(&self) -> String {
        format!(
            "Report Domain: {} Submitter: {} Report-ID: <{}>",
            self.report_domain,
            self.submitter(),
            self.report_id
        )
    }
}

#[cfg(test)]
mod tests;
