//! What a domain's owner should know of its MTA-STS and TLS-RPT set-up: facts in, findings out.
//!
//! Pure. Looks at a domain as a stranger does: DNS answers and what its policy host served. The facts
//! are gathered by `cli::check`, those about the MX hosts themselves only where they are asked for.

mod hosts;

use std::fmt;

use serde::Serialize;

pub use self::hosts::{HostLook, HostShowed};
use super::freshness::FetchFault;
use super::record::{self, RecordError};
use super::{Mode, StsPolicy};
use crate::mail::Domain;

/// A policy that lives shorter is forgotten between two mails (RFC 8461 §3.2 expects weeks).
const MAX_AGE_BAD: u32 = 86_400;
/// RFC 8461 §3.2, §10.2: shorter lives leave little time to repair a policy host.
const MAX_AGE_SHORT: u32 = 7 * 86_400;
/// Days before its end at which a certificate is told about; one that is renewed by itself is renewed
/// earlier.
pub const CERTIFICATE_DAYS_SHORT: i64 = 14;

/// What one lookup said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<T> {
    /// Records.
    Found(Vec<T>),
    /// The name exists, without this type.
    NoData,
    /// The name does not exist.
    NoName,
    /// DNS did not answer; with the sentence.
    Failed(String),
}

impl<T> Asked<T> {
    fn records(&self) -> &[T] {
        match self {
            Self::Found(records) => records,
            _ => &[],
        }
    }
}

/// What the `_smtp._tls` record says (RFC 8460 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportRecord {
    /// One usable record.
    Usable {
        /// Where reports go.
        targets: Vec<String>,
        /// Targets that senders cannot use, with the reason.
        unusable: Vec<(String, String)>,
    },
    /// There is none.
    Absent,
    /// There is something wrong with it.
    Bad(String),
    /// DNS did not answer; with the sentence.
    Failed(String),
}

/// What the policy host served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// A body.
    Body(Vec<u8>),
    /// None.
    Trouble {
        /// What kind.
        fault: FetchFault,
        /// One sentence.
        text: String,
    },
}

/// Everything a check looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The policy domain.
    pub domain: Domain,
    /// Preference and exchange of each MX record, `.` as an empty exchange.
    pub mx: Asked<(u16, String)>,
    /// TXT of `_mta-sts`, character-strings joined.
    pub record: Asked<Vec<u8>>,
    /// The policy host's answer.
    pub policy: Served,
    /// When the policy host's certificate ends (`not valid after ...`), if that is within
    /// [`CERTIFICATE_DAYS_SHORT`].
    pub certificate_ends_soon: Option<String>,
    /// What the MX hosts showed; absent where nobody looked.
    pub hosts: Option<Vec<HostLook>>,
    /// `_smtp._tls`
    pub report: ReportRecord,
}

/// How much a finding matters; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Mail is unprotected, or is not delivered.
    High,
    /// Protection is weaker than it looks.
    Medium,
    /// Worth tidying.
    Low,
    /// As it should be.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::High => "HIGH",
            Self::Medium => "MEDIUM",
            Self::Low => "LOW",
            Self::Info => "INFO",
        })
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A word for programs; stays the same between releases.
    pub code: &'static str,
    /// What was found and what to do.
    pub text: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// Questions that DNS did not answer: what depends on them is not judged.
    pub unanswered: Vec<String>,
}

impl Checked {
    /// Whether anything matters much.
    pub fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::High)
    }

    fn add(&mut self, severity: Severity, code: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { severity, code, text: text.into() });
    }
}

/// Judges the facts.
pub fn check(facts: &Facts) -> Checked {
    let mut checked = Checked::default();
    check_mx(facts, &mut checked);
    check_record(facts, &mut checked);
    let policy = check_served(facts, &mut checked);
    if let Some(policy) = &policy {
        check_policy(policy, &mut checked);
        check_match(facts, policy, &mut checked);
    }
    hosts::check_hosts(facts, policy.as_ref(), &mut checked);
    check_certificate(facts, &mut checked);
    check_report(facts, &mut checked);
    checked.findings.sort_by_key(|finding| finding.severity);
    checked
}

fn check_mx(facts: &Facts, checked: &mut Checked) {
    let domain = &facts.domain;
    match &facts.mx {
        Asked::Failed(why) => checked.unanswered.push(why.clone()),
        Asked::NoName => checked.add(
            Severity::High,
            "domain-missing",
            format!("{domain} does not exist in DNS: nobody can send mail to it"),
        ),
        Asked::NoData => checked.add(
            Severity::Low,
            "mx-implicit",
            format!(
                "{domain} has no MX record; senders try {domain} itself. Name the mail host by an MX record"
            ),
        ),
        Asked::Found(records) if is_null(records) => checked.add(
            Severity::Info,
            "mx-null",
            format!("{domain} says that it accepts no mail (null MX); MTA-STS has nothing to protect"),
        ),
        Asked::Found(records) => {
            for (preference, exchange) in records {
                if Domain::parse_a_label(exchange).is_err() {
                    checked.add(
                        Severity::Medium,
                        "mx-bad",
                        format!("the MX record \"{preference} {exchange}\" names no host; senders skip it"),
                    );
                }
            }
        }
    }
}

fn check_record(facts: &Facts, checked: &mut Checked) {
    let name = format!("_mta-sts.{}", facts.domain);
    if let Asked::Failed(why) = &facts.record {
        checked.unanswered.push(why.clone());
        return;
    }
    match record::parse(facts.record.records()) {
        Ok(record) => {
            checked.add(Severity::Info, "record", format!("{name} publishes a policy, id {}", record.id));
        }
        Err(RecordError::Absent) => checked.add(
            Severity::High,
            "record-missing",
            format!("{name} has no TXT record that begins \"v=STSv1;\": senders do not look for a policy"),
        ),
        Err(RecordError::Several) => checked.add(
            Severity::High,
            "record-several",
            format!("{name} has several v=STSv1 records: senders use none of them. Keep one"),
        ),
        Err(RecordError::Malformed(what)) => checked.add(
            Severity::High,
            "record-bad",
            format!("the record of {name} is not valid ({what}): senders do not look for a policy"),
        ),
    }
}

fn check_served(facts: &Facts, checked: &mut Checked) -> Option<StsPolicy> {
    let body = match &facts.policy {
        Served::Body(body) => body,
        Served::Trouble { fault, text } => {
            let (code, advice) = match fault {
                FetchFault::Unreachable => ("policy-unreachable", "The policy host must answer there"),
                FetchFault::Certificate => (
                    "policy-certificate",
                    "Senders refuse the policy; the certificate must be trusted and name the policy host",
                ),
                FetchFault::Redirect => ("policy-redirect", "Serve the file under this very URL"),
                FetchFault::Status => ("policy-status", "Serve the file under this very URL"),
                FetchFault::ContentType => {
                    ("policy-content-type", "Serve the file as text/plain, or senders may refuse it")
                }
                FetchFault::TooLong => ("policy-too-long", "Senders read 64 KiB at most"),
            };
            checked.add(Severity::High, code, format!("{text}. {advice}"));
            return None;
        }
    };
    match StsPolicy::parse(body) {
        Ok(policy) => Some(policy),
        Err(error) => {
            checked.add(
                Severity::High,
                "policy-invalid",
                format!("the policy is not valid, senders ignore it: {error}"),
            );
            None
        }
    }
}

fn check_policy(policy: &StsPolicy, checked: &mut Checked) {
    match policy.mode {
        Mode::Enforce => {
            checked.add(Severity::Info, "mode-enforce", "the policy is in mode enforce: mail is protected");
        }
        Mode::Testing => checked.add(
            Severity::Medium,
            "mode-testing",
            "the policy is in mode testing: failures are reported and mail is not protected. \
             Go to enforce when the reports are clean",
        ),
        Mode::None => checked.add(
            Severity::High,
            "mode-none",
            "the policy is in mode none: it protects nothing, as if there were none",
        ),
    }
    let max_age = policy.max_age;
    if max_age < MAX_AGE_BAD {
        checked.add(
            Severity::Medium,
            "max-age-short",
            format!(
                "max_age is {max_age} seconds: senders forget the policy within a day. Use a week or more"
            ),
        );
    } else if max_age < MAX_AGE_SHORT {
        checked.add(
            Severity::Low,
            "max-age-short",
            format!(
                "max_age is {max_age} seconds, less than a week: an outage of the policy host may outlast it"
            ),
        );
    }
    for warning in policy.warnings() {
        checked.add(Severity::Low, "policy-odd", format!("the policy is odd: {warning}"));
    }
}

impl Facts {
    /// The hosts that mail goes to, by the MX answer; none where it says nothing.
    pub fn mx_hosts(&self) -> Vec<Domain> {
        match &self.mx {
            Asked::Failed(_) | Asked::NoName => Vec::new(),
            Asked::Found(records) if is_null(records) => Vec::new(),
            Asked::NoData => vec![self.domain.clone()],
            Asked::Found(records) => {
                records.iter().filter_map(|(_, exchange)| Domain::parse_a_label(exchange).ok()).collect()
            }
        }
    }
}

fn check_match(facts: &Facts, policy: &StsPolicy, checked: &mut Checked) {
    let silent = match &facts.mx {
        Asked::Failed(_) | Asked::NoName => true,
        Asked::Found(records) => is_null(records),
        Asked::NoData => false,
    };
    if silent {
        return;
    }
    let hosts = facts.mx_hosts();
    if policy.mode == Mode::None {
        return;
    }
    let mismatch = Mismatch::new(policy, &hosts);
    for host in &mismatch.unlisted {
        let (severity, consequence) = match policy.mode {
            Mode::Enforce => (Severity::High, "senders that heed MTA-STS deliver nothing to it"),
            _ => (Severity::Medium, "under enforce nothing would be delivered to it"),
        };
        checked.add(
            severity,
            "mx-not-listed",
            format!("MX host {host} is not listed in the policy: {consequence}. Add \"mx: {host}\""),
        );
    }
    for pattern in &mismatch.unused {
        checked.add(
            Severity::Low,
            "mx-unused",
            format!("the policy lists {pattern}, which no MX record names"),
        );
    }
    if mismatch.unlisted.is_empty() && !hosts.is_empty() {
        checked.add(Severity::Info, "mx-listed", "every MX host is listed in the policy");
    }
}

/// How the hosts of DNS and the patterns of a policy differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// MX hosts that no pattern covers.
    pub unlisted: Vec<Domain>,
    /// Patterns that cover no MX host.
    pub unused: Vec<String>,
}

impl Mismatch {
    /// Compares both ways.
    pub fn new(policy: &StsPolicy, hosts: &[Domain]) -> Self {
        let mut unlisted: Vec<Domain> = hosts.iter().filter(|host| !policy.allows(host)).cloned().collect();
        unlisted.sort();
        unlisted.dedup();
        let unused = policy
            .mx
            .iter()
            .filter(|pattern| !hosts.iter().any(|host| pattern.matches(host)))
            .map(ToString::to_string)
            .collect();
        Self { unlisted, unused }
    }
}

fn check_certificate(facts: &Facts, checked: &mut Checked) {
    if let Some(ends) = &facts.certificate_ends_soon {
        let text = format!("the certificate of mta-sts.{} ends soon ({ends}); renew it", facts.domain);
        checked.add(Severity::Medium, "certificate-ends-soon", text);
    }
}

fn check_report(facts: &Facts, checked: &mut Checked) {
    let name = format!("_smtp._tls.{}", facts.domain);
    match &facts.report {
        ReportRecord::Failed(why) => checked.unanswered.push(why.clone()),
        ReportRecord::Absent => checked.add(
            Severity::Medium,
            "tlsrpt-missing",
            format!("{name} has no TXT record that begins \"v=TLSRPTv1;\": nobody tells you about failures"),
        ),
        ReportRecord::Bad(what) => checked.add(
            Severity::Medium,
            "tlsrpt-bad",
            format!("the record of {name} is not usable ({what}): nobody tells you about failures"),
        ),
        ReportRecord::Usable { targets, unusable } => {
            checked.add(Severity::Info, "tlsrpt", format!("reports go to {}", targets.join(", ")));
            for (target, why) in unusable {
                checked.add(
                    Severity::Low,
                    "tlsrpt-target",
                    format!("no report goes to {target:?} of {name}: {why}"),
                );
            }
        }
    }
}

/// RFC 7505 §3.
fn is_null(records: &[(u16, String)]) -> bool {
    records.iter().all(|(_, exchange)| exchange.is_empty())
}

#[cfg(test)]
mod tests;
