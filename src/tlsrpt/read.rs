//! Reading the TLS reports that others send: whatever form they come in, however they deviate.
//!
//! `unpack` finds reports in files (JSON, gzip, zip, mail, mbox), `json` reads one, [`Sums`] adds
//! them up. Tolerant: what can be understood is taken and each deviation from RFC 8460 is named;
//! what cannot be understood is told and never guessed. Foreign texts come out cleaned: no control
//! character of theirs reaches a terminal. Bounded in octets, depth and number, see `unpack`.
//! Pure. Called by `cli::report::read`.

mod json;
pub mod mbox;
mod mime;
mod sums;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

pub use sums::{Counted, Failed, FailedSum, Sum, Sums};
pub use unpack::{Found, MAIL_BYTES_MAX, UNPACKED_BYTES_MAX, unpack};

/// A report of another sender, as far as it could be understood. Texts are as sent, cleaned and cut.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadReport {
    /// `organization-name`
    pub organization_name: Option<String>,
    /// `contact-info`
    pub contact_info: Option<String>,
    /// `report-id`
    pub report_id: Option<String>,
    /// `start-datetime`
    pub start_datetime: Option<Timestamp>,
    /// `end-datetime`
    pub end_datetime: Option<Timestamp>,
    /// One per policy, in the order of the report.
    pub policies: Vec<ReadPolicy>,
    /// Where it departs from RFC 8460.
    pub deviations: BTreeSet<Deviation>,
}

/// What a report says about one policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadPolicy {
    /// `policy-type`, unknown ones included.
    pub policy_type: String,
    /// `policy-domain`
    pub policy_domain: Option<String>,
    /// `policy-string`, one per line or record.
    pub policy_string: Vec<String>,
    /// `mx-host`
    pub mx_host: Vec<String>,
    /// `total-successful-session-count`
    pub total_successful_session_count: u64,
    /// `total-failure-session-count`
    pub total_failure_session_count: u64,
    /// `failure-details`
    pub failure_details: Vec<ReadFailure>,
}

/// One failure detail.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReadFailure {
    /// `result-type`, unknown ones included.
    pub result_type: String,
    /// `sending-mta-ip`
    pub sending_mta_ip: Option<String>,
    /// `receiving-mx-hostname`
    pub receiving_mx_hostname: Option<String>,
    /// `receiving-mx-helo`
    pub receiving_mx_helo: Option<String>,
    /// `receiving-ip`
    pub receiving_ip: Option<String>,
    /// `failed-session-count`
    pub failed_session_count: u64,
    /// `failure-reason-code`
    pub failure_reason_code: Option<String>,
    /// `additional-information`
    pub additional_information: Option<String>,
}

/// A way a report departs from RFC 8460, as seen in the wild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deviation {
    /// A byte order mark in front (RFC 8259 §8.1 forbids it).
    ByteOrderMark,
    /// UTF-16 instead of UTF-8.
    Utf16,
    /// Octets that are not UTF-8, replaced.
    NotUtf8,
    /// Something behind the report, ignored.
    TrailingOctets,
    /// The gzip file is damaged behind the report.
    GzipDamaged,
    /// Several reports in one list.
    ListOfReports,
    /// The media type is not `application/tlsrpt+json` or `+gzip`, or not the one of this encoding.
    ContentType,
    /// The file name does not end as the encoding asks (§5.1).
    FileName,
    /// Another spelling of a key.
    KeySpelling,
    /// A number as text.
    NumberAsText,
    /// A count that is none, taken as 0.
    CountUnreadable,
    /// A failure detail without count, taken as 1.
    CountMissing,
    /// A text that is a number or something else.
    TextOfOtherType,
    /// `policy-string` is one text.
    PolicyStringNotArray,
    /// `policy-string` holds a JSON list within a text.
    PolicyStringPacked,
    /// `mx-host` is one text.
    MxHostNotArray,
    /// `mx-host-pattern`, the name of a draft.
    MxHostPattern,
    /// `failure-details` is not a list.
    FailureDetailsNotArray,
    /// `failure-error-code`, the name of a draft.
    FailureErrorCode,
    /// `policies` is not a list.
    PoliciesNotArray,
    /// No `policies`.
    PoliciesMissing,
    /// Something in `policies` that is no policy, left out.
    PolicyUnreadable,
    /// The members of `policy` stand beside `summary`.
    PolicyFlat,
    /// No `summary`: counted from the failure details.
    SummaryMissing,
    /// No `organization-name`.
    OrganizationMissing,
    /// No `contact-info`.
    ContactMissing,
    /// No `report-id`.
    ReportIdMissing,
    /// No usable `date-range`.
    DateRangeMissing,
    /// A date without zone, taken as UTC.
    DateWithoutZone,
    /// A date in another form than RFC 3339's.
    DateForm,
    /// The range ends before it begins.
    DateRangeReversed,
    /// A policy type that is not of RFC 8460.
    PolicyTypeUnknown,
    /// A result type that is not registered.
    ResultTypeUnknown,
}

impl Deviation {
    /// The word it goes by, in JSON too.
    pub fn word(self) -> &'static str {
        match self {
            Self::ByteOrderMark => "byte-order-mark",
            Self::Utf16 => "utf16",
            Self::NotUtf8 => "not-utf8",
            Self::TrailingOctets => "trailing-octets",
            Self::GzipDamaged => "gzip-damaged",
            Self::ListOfReports => "list-of-reports",
            Self::ContentType => "content-type",
            Self::FileName => "file-name",
            Self::KeySpelling => "key-spelling",
            Self::NumberAsText => "number-as-text",
            Self::CountUnreadable => "count-unreadable",
            Self::CountMissing => "count-missing",
            Self::TextOfOtherType => "text-of-other-type",
            Self::PolicyStringNotArray => "policy-string-not-array",
            Self::PolicyStringPacked => "policy-string-packed",
            Self::MxHostNotArray => "mx-host-not-array",
            Self::MxHostPattern => "mx-host-pattern",
            Self::FailureDetailsNotArray => "failure-details-not-array",
            Self::FailureErrorCode => "failure-error-code",
            Self::PoliciesNotArray => "policies-not-array",
            Self::PoliciesMissing => "policies-missing",
            Self::PolicyUnreadable => "policy-unreadable",
            Self::PolicyFlat => "policy-flat",
            Self::SummaryMissing => "summary-missing",
            Self::OrganizationMissing => "organization-missing",
            Self::ContactMissing => "contact-missing",
            Self::ReportIdMissing => "report-id-missing",
            Self::DateRangeMissing => "date-range-missing",
            Self::DateWithoutZone => "date-without-zone",
            Self::DateForm => "date-form",
            Self::DateRangeReversed => "date-range-reversed",
            Self::PolicyTypeUnknown => "policy-type-unknown",
            Self::ResultTypeUnknown => "result-type-unknown",
        }
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl ReadReport {
    /// Sessions that met their policy, all policies together.
    pub fn successful(&self) -> u64 {
        self.policies.iter().fold(0, |sum, policy| sum.saturating_add(policy.total_successful_session_count))
    }

    /// Sessions that did not.
    pub fn failed(&self) -> u64 {
        self.policies.iter().fold(0, |sum, policy| sum.saturating_add(policy.total_failure_session_count))
    }

    /// Who reports: its name, else its contact.
    pub fn sender(&self) -> &str {
        self.organization_name.as_deref().or(self.contact_info.as_deref()).unwrap_or("(unnamed)")
    }
}

/// Characters kept of any one text of a report.
const TEXT_CHARS_MAX: usize = 1000;

/// A foreign text, safe to show: what could steer a terminal or turn the direction of writing becomes
/// `?`, and what is too long is cut.
pub fn clean(text: &str) -> String {
    let mut out: String =
        text.chars().take(TEXT_CHARS_MAX).map(|c| if is_steering(c) { '?' } else { c }).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

fn is_steering(c: char) -> bool {
    // C0, DEL and C1; then line ends, marks of direction and fillers of Unicode.
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}
