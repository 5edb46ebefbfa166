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
    /// One entry per distinct policy, in order of first appearance; at most [`POLICIES_MAX`], and one for
    /// each policy type that stands for all further ones.
    pub policies: Vec<PolicyTally>,
    /// Sessions counted under an entry that stands for several policies.
    #[serde(default)]
    pub policies_cut: u64,
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

/// Distinct failure details kept per policy and day; a report must stay below receivers' limits, which
/// are often 10 MB. Further ones are counted together by result type, so that totals stay true.
pub const DETAILS_MAX: usize = 1000;
/// The same over all policies of a day and domain: at some 300 octets each, 600 KB of JSON; where hosts
/// and certificates say as much as they may, 5 MB.
pub const DETAILS_TOTAL_MAX: usize = 2000;
/// Distinct policies per day and domain: an owner may publish a new one every minute. Ten hosts with TLSA
/// records that are rolled, and a policy that changes, are well below.
pub const POLICIES_MAX: usize = 32;
/// Octets of their texts in all: a single one may have 64 KB (RFC 8461 §3.3). As JSON they are six times
/// as long at the very worst.
pub const POLICY_TEXT_MAX: usize = 512 << 10;
/// Characters of `failure-reason-code` and of host names at most.
const TEXT_CHARS_MAX: usize = 200;
const NAME_CHARS_MAX: usize = 255;
/// What the collective entry of a result type says instead of addresses and names.
pub const DETAILS_CUT_REASON: &str = "further failures of this type, details left out";
/// What stands in the place of the policy's text in an entry for several policies.
pub const POLICIES_CUT_TEXT: &str = "further policies of this day, text left out";

impl Tally {
    /// An empty tally.
    pub fn new(report_domain: Domain) -> Self {
        Self { report_domain, policies: Vec::new(), policies_cut: 0 }
    }

    /// Adds one session's result under its policy.
    pub fn fold(&mut self, result: &SessionResult) {
        let details_total: usize = self.policies.iter().map(|policy| policy.details.len()).sum();
        let known = self.policies.iter().position(|tally| tally.policy == result.policy);
        let index = match known {
            Some(index) => index,
            None if self.has_room_for(&result.policy) => self.add(result.policy.clone()),
            None => {
                self.policies_cut = self.policies_cut.saturating_add(1);
                let kind = result.policy.policy_type;
                let stands_for_several = |tally: &PolicyTally| {
                    tally.policy.policy_type == kind && *tally.policy.policy_string == [POLICIES_CUT_TEXT]
                };
                self.policies
                    .iter()
                    .position(stands_for_several)
                    .unwrap_or_else(|| self.add(without_text(&result.policy)))
            }
        };
        self.policies[index].fold(&result.failures, details_total < DETAILS_TOTAL_MAX);
    }

    fn has_room_for(&self, policy: &AppliedPolicy) -> bool {
        let text: usize = self.policies.iter().map(|tally| text_octets(&tally.policy)).sum();
        self.policies.len() < POLICIES_MAX && text + text_octets(policy) <= POLICY_TEXT_MAX
    }

    fn add(&mut self, policy: AppliedPolicy) -> usize {
        // Most domains have one policy, and there are many domains.
        self.policies.reserve_exact(1);
        self.policies.push(PolicyTally::new(policy));
        self.policies.len() - 1
    }

    /// Sessions counted, all policies together.
    pub fn sessions(&self) -> u64 {
        self.policies
            .iter()
            .fold(0, |sum: u64, policy| sum.saturating_add(policy.successful).saturating_add(policy.failed))
    }

    /// Gives memory back that growing or reading left over.
    pub fn shrink_to_fit(&mut self) {
        self.policies.shrink_to_fit();
        for policy in &mut self.policies {
            policy.details.shrink_to_fit();
        }
    }
}

fn text_octets(policy: &AppliedPolicy) -> usize {
    policy.policy_string.iter().chain(policy.mx_host.iter()).map(String::len).sum()
}

/// The entry for all further policies of a type, told as what it is.
fn without_text(policy: &AppliedPolicy) -> AppliedPolicy {
    AppliedPolicy {
        policy_type: policy.policy_type,
        policy_domain: policy.policy_domain.clone(),
        policy_string: [POLICIES_CUT_TEXT.to_owned()].into(),
        mx_host: [].into(),
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
                    if self.details.is_empty() {
                        // Most that fail do so in one way.
                        self.details.reserve_exact(1);
                    }
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
    /// Whether details or policies were left out; counts never are.
    pub cut: bool,
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
