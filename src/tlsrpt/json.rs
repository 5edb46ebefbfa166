//! A report in JSON, exactly as RFC 8460 §4.4 lays it out (I-JSON, RFC 7493).
//!
//! Absent things are absent: no empty strings or arrays for what does not apply. Called by
//! [`Report::render`].

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::{DETAILS_CUT_REASON, Label, POLICIES_CUT_TEXT, PolicyTally, Report, Totals};
use super::result::{FailureDetail, PolicyType, ResultType};
use crate::mail::{Domain, Mailbox};

/// The greatest integer I-JSON readers hold exactly (RFC 7493 §2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Document<'a> {
    organization_name: Cow<'a, str>,
    date_range: DateRange,
    contact_info: String,
    report_id: &'a str,
    policies: Vec<Policy<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Policy<'a> {
    policy: PolicyBody<'a>,
    summary: Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_details: Vec<Detail<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyBody<'a> {
    policy_type: PolicyType,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policy_string: Vec<Cow<'a, str>>,
    policy_domain: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mx_host: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Detail<'a> {
    result_type: ResultType,
    #[serde(skip_serializing_if = "Option::is_none")]
    sending_mta_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_helo: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_ip: Option<String>,
    failed_session_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason_code: Option<Cow<'a, str>>,
}

/// The report on one line.
pub(super) fn render(report: &Report) -> String {
    let label = &report.label;
    let document = Document {
        organization_name: sound(&label.organization_name),
        date_range: DateRange {
            start_datetime: label.start.to_string(),
            end_datetime: label.end.to_string(),
        },
        contact_info: label.contact_info.to_string(),
        report_id: &label.report_id,
        policies: report.tally.policies.iter().map(policy).collect(),
    };
    serde_json::to_string(&document).expect("strings and integers always have a JSON form")
}

fn policy(tally: &PolicyTally) -> Policy<'_> {
    let applied = &tally.policy;
    // RFC 8460 §4.4: no strings without a policy, mx-host for sts alone.
    let (policy_string, mx_host) = match applied.policy_type {
        PolicyType::NoPolicyFound => (&[][..], &[][..]),
        PolicyType::Tlsa => (&applied.policy_string[..], &[][..]),
        PolicyType::Sts => (&applied.policy_string[..], &applied.mx_host[..]),
    };
    Policy {
        policy: PolicyBody {
            policy_type: applied.policy_type,
            policy_string: policy_string.iter().map(|line| sound(line)).collect(),
            policy_domain: applied.policy_domain.as_str(),
            mx_host,
        },
        summary: Summary {
            total_successful_session_count: tally.successful.min(INTEGER_MAX),
            total_failure_session_count: tally.failed.min(INTEGER_MAX),
        },
        failure_details: tally.details.iter().map(|(failure, count)| detail(failure, *count)).collect(),
    }
}

fn detail(failure: &FailureDetail, count: u64) -> Detail<'_> {
    // An IPv4 address in IPv6 clothing is an IPv4 address to its reader.
    let address = |ip: &std::net::IpAddr| ip.to_canonical().to_string();
    Detail {
        result_type: failure.result_type,
        sending_mta_ip: failure.sending_mta_ip.as_ref().map(address),
        receiving_mx_hostname: failure.receiving_mx_hostname.as_deref(),
        receiving_mx_helo: failure.receiving_mx_helo.as_deref().map(sound),
        receiving_ip: failure.receiving_ip.as_ref().map(address),
        failed_session_count: count.min(INTEGER_MAX),
        failure_reason_code: failure.failure_reason_code.as_deref().map(sound),
    }
}

/// RFC 7493 §2.1: strings of I-JSON hold no noncharacters; those of others, who may say anything, may.
fn sound(text: &str) -> Cow<'_, str> {
    let unsound = |c: char| matches!(u32::from(c), 0xFDD0..=0xFDEF) || u32::from(c) & 0xFFFE == 0xFFFE;
    match text.contains(unsound) {
        true => text.replace(unsound, "\u{FFFD}").into(),
        false => text.into(),
    }
}

/// What [`Label::read`] needs of a document of ours.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Head {
    organization_name: String,
    date_range: Range,
    contact_info: Mailbox,
    report_id: String,
    policies: Vec<Counted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Range {
    start_datetime: Timestamp,
    end_datetime: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Counted {
    policy: Applied,
    summary: Counts,
    #[serde(default)]
    failure_details: Vec<Reason>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Applied {
    #[serde(default)]
    policy_string: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Reason {
    #[serde(default)]
    failure_reason_code: Option<String>,
}

impl Counted {
    /// Whether this entry says that something was left out.
    fn is_cut(&self) -> bool {
        self.policy.policy_string == [POLICIES_CUT_TEXT]
            || self
                .failure_details
                .iter()
                .any(|detail| detail.failure_reason_code.as_deref() == Some(DETAILS_CUT_REASON))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Counts {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

/// Reads label and totals back from a document of ours.
pub(super) fn read_label(report_domain: &Domain, json: &str) -> Result<(Label, Totals), serde_json::Error> {
    let head: Head = serde_json::from_str(json)?;
    let label = Label {
        report_domain: report_domain.clone(),
        organization_name: head.organization_name,
        contact_info: head.contact_info,
        report_id: head.report_id,
        start: head.date_range.start_datetime,
        end: head.date_range.end_datetime,
    };
    let totals = head.policies.iter().fold(Totals::default(), |sum, counted| Totals {
        successful: sum.successful.saturating_add(counted.summary.total_successful_session_count),
        failed: sum.failed.saturating_add(counted.summary.total_failure_session_count),
        cut: sum.cut || counted.is_cut(),
    });
    Ok((label, totals))
}
