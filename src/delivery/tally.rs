//! What a connection contributes to TLS-RPT (RFC 8460 §4): one result per policy it was judged by.
//!
//! Pure. Reports never change a delivery (invariant I8); this file only reads what was seen.

use std::net::IpAddr;

use super::conversation::TlsSeen;
use crate::mail::Domain;
use crate::tlspolicy::{CertificateFailure, Expectation, Requirement, SkipReason, TlsFailure, TlsPlan};
use crate::tlsrpt::{FailureDetail, ResultType, SessionResult};

/// Characters of a failure-reason-code at most.
const REASON_CHARS_MAX: usize = 200;

/// The ends of a connection, as reports name them.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// `sending-mta-ip`
    pub local: Option<IpAddr>,
    /// `receiving-ip`
    pub remote: Option<IpAddr>,
    /// `receiving-mx-helo`
    pub helo: Option<String>,
}

/// The results of one connection; empty when no STARTTLS decision was reached (RFC 8460 §4.3.4
/// leaves plain connection trouble out).
pub fn of_session(report_domain: &Domain, plan: &TlsPlan, seen: &TlsSeen, ends: &Ends) -> Vec<SessionResult> {
    if *seen == TlsSeen::NotReached {
        return Vec::new();
    }
    plan.report_on
        .iter()
        .map(|on| SessionResult {
            report_domain: report_domain.clone(),
            policy: on.policy.clone(),
            failures: failures(&on.expects, plan, seen)
                .into_iter()
                .map(|(result_type, reason)| detail(&plan.name, ends, result_type, reason))
                .collect(),
        })
        .collect()
}

/// The results of a host that was not even connected to.
pub fn of_skip(report_domain: &Domain, mx: &Domain, reason: &SkipReason) -> Vec<SessionResult> {
    reason
        .report
        .iter()
        .map(|(policy, result_type, reason)| SessionResult {
            report_domain: report_domain.clone(),
            policy: policy.clone(),
            failures: vec![detail(mx, &Ends::default(), *result_type, Some(reason.clone()))],
        })
        .collect()
}

fn failures(expects: &Expectation, plan: &TlsPlan, seen: &TlsSeen) -> Vec<(ResultType, Option<String>)> {
    let of_failure = |failure: &TlsFailure| (failure.result_type(), reason(failure));
    let mut failures = Vec::new();
    if let Expectation::Never(why) = expects {
        // RFC 8460 §4.3.3: no type of its own for "MX not in policy".
        failures.push((ResultType::ValidationFailure, Some(why.clone())));
    }
    match (seen, expects) {
        (TlsSeen::NotReached, _) => {}
        (TlsSeen::Clear(failure) | TlsSeen::Failed(failure), _) => failures.push(of_failure(failure)),
        (TlsSeen::Established(_), Expectation::Tls) => {}
        (TlsSeen::Established(facts), Expectation::Pkix | Expectation::Never(_)) => {
            if let Err(failure) = &facts.pkix {
                failures.push((failure.result_type(), certificate_reason(failure)));
            }
        }
        (TlsSeen::Established(facts), Expectation::Tlsa) => {
            let dane = match &plan.require {
                Requirement::DaneAndPkix { records, names, .. } => {
                    Requirement::Dane { records: records.clone(), names: names.clone() }
                }
                other => other.clone(),
            };
            if let Err(failure) = facts.verify(&dane) {
                failures.push(of_failure(&failure));
            }
        }
    }
    failures
}

fn reason(failure: &TlsFailure) -> Option<String> {
    match failure {
        TlsFailure::Certificate(failure) => certificate_reason(failure),
        other => Some(other.to_string()),
    }
}

fn certificate_reason(failure: &CertificateFailure) -> Option<String> {
    Some(failure.to_string())
}

fn detail(mx: &Domain, ends: &Ends, result_type: ResultType, reason: Option<String>) -> FailureDetail {
    FailureDetail {
        result_type,
        sending_mta_ip: ends.local,
        receiving_mx_hostname: Some(mx.as_str().to_owned()),
        receiving_mx_helo: ends.helo.clone(),
        receiving_ip: ends.remote,
        failure_reason_code: reason.map(|text| text.chars().take(REASON_CHARS_MAX).collect()),
    }
}
