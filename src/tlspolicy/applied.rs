//! How the policies we apply stand in TLS-RPT reports (RFC 8460 §4.4).
//!
//! Pure. Used by the verdict for sessions and by `delivery::gather` for fetches that failed.

use std::sync::Arc;

use crate::dane::Tlsa;
use crate::mail::Domain;
use crate::sts::{Mode, StsPolicy};
use crate::tlsrpt::{AppliedPolicy, PolicyType};

/// Characters of a `failure-reason-code` at most: short text, and the report stays small.
pub const REASON_CHARS_MAX: usize = 200;

/// An MTA-STS policy: its lines as declared, its patterns.
pub fn sts(policy_domain: &Domain, policy: &StsPolicy) -> AppliedPolicy {
    AppliedPolicy {
        policy_type: PolicyType::Sts,
        policy_domain: policy_domain.clone(),
        policy_string: Arc::clone(policy.lines()),
        mx_host: Arc::clone(policy.patterns()),
    }
}

/// Lines of a policy that does not validate, and characters of each, that are reported at most: it may be
/// anything, such as a web page of 64 KB.
const DECLARED_LINES_MAX: usize = 50;
const DECLARED_CHARS_MAX: usize = 500;

/// What a domain serves where its MTA-STS policy should be, and is none: its lines as declared, "including
/// any errors that may be present" (RFC 8460 §4.5), cut to a sane length. Nothing in it is applied.
pub fn declared(policy_domain: &Domain, body: &[u8]) -> AppliedPolicy {
    let text = String::from_utf8_lossy(body);
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    AppliedPolicy {
        policy_type: PolicyType::Sts,
        policy_domain: policy_domain.clone(),
        policy_string: text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .take(DECLARED_LINES_MAX)
            .map(|line| line.chars().take(DECLARED_CHARS_MAX).map(printable).collect())
            .collect(),
        mx_host: Arc::default(),
    }
}

/// A TLSA record set, usable or not: one string per record. No records when the lookup failed.
pub fn tlsa(base_domain: &Domain, records: &[Tlsa]) -> AppliedPolicy {
    let mut policy_string: Vec<String> = records.iter().map(ToString::to_string).collect();
    // Resolvers shuffle a record set; it is one policy all the same, and one entry of a report.
    policy_string.sort_unstable();
    AppliedPolicy {
        policy_type: PolicyType::Tlsa,
        policy_domain: base_domain.clone(),
        policy_string: policy_string.into(),
        mx_host: Arc::default(),
    }
}

/// Neither applied.
pub fn none(policy_domain: &Domain) -> AppliedPolicy {
    AppliedPolicy {
        policy_type: PolicyType::NoPolicyFound,
        policy_domain: policy_domain.clone(),
        policy_string: Arc::default(),
        mx_host: Arc::default(),
    }
}

/// The entry to count under with this policy: mode none is as no policy (RFC 8461 §5).
pub fn of(policy_domain: &Domain, policy: Option<&StsPolicy>) -> AppliedPolicy {
    match policy {
        Some(policy) if policy.mode != Mode::None => sts(policy_domain, policy),
        _ => none(policy_domain),
    }
}

/// A `failure-reason-code`: one line of bounded length.
pub fn reason_code(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}

/// The reason for a host that no pattern of the policy covers.
pub fn mx_not_in_policy(mx: &Domain) -> String {
    reason_code(&format!("mx-not-in-policy:{mx}"))
}
