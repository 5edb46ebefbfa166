//! What a connection contributes to TLS-RPT (RFC 8460 §4): one result per policy it was judged by.
//!
//! Pure. Reports never change a delivery (invariant I8); this file only reads what was seen.

use std::net::IpAddr;

use super::conversation::TlsSeen;
use crate::mail::Domain;
use crate::tlspolicy::applied::reason_code;
use crate::tlspolicy::{CertificateFailure, Expectation, Requirement, SkipReason, TlsFailure, TlsPlan};
use crate::tlsrpt::{FailureDetail, PolicyType, ResultType, SessionResult};

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
            failures: failures(&on.expects, seen)
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

/// The same for the hosts themselves. A DANE policy is the TLSA base domain's, and that is where RFC 8460
/// §1.1 and §3 look for the record; the recipient domain hears of it as well, as all senders do.
pub fn for_mx_hosts(results: &[SessionResult]) -> Vec<SessionResult> {
    results
        .iter()
        .filter(|result| result.policy.policy_type == PolicyType::Tlsa)
        // Without MX records the recipient domain is the host.
        .filter(|result| result.policy.policy_domain != result.report_domain)
        .map(|result| SessionResult { report_domain: result.policy.policy_domain.clone(), ..result.clone() })
        .collect()
}

fn failures(expects: &Expectation, seen: &TlsSeen) -> Vec<(ResultType, Option<String>)> {
    let of_failure = |failure: &TlsFailure| (failure.result_type(), reason(failure));
    let mut failures = Vec::new();
    if let Expectation::Never(result_type, why) = expects {
        failures.push((*result_type, Some(why.clone())));
    }
    match (seen, expects) {
        (TlsSeen::NotReached, _) => {}
        (TlsSeen::Clear(failure) | TlsSeen::Failed(failure), _) => failures.push(of_failure(failure)),
        (TlsSeen::Established(_), Expectation::Tls) => {}
        (
            TlsSeen::Established(facts),
            Expectation::Pkix | Expectation::Never(ResultType::ValidationFailure, _),
        ) => {
            if let Err(failure) = &facts.pkix {
                failures.push((failure.result_type(), certificate_reason(failure)));
            }
        }
        (TlsSeen::Established(_), Expectation::Never(..)) => {}
        // RFC 8460 §4.3.2.1: mail flowed, but none of the records could have matched.
        (TlsSeen::Established(_), Expectation::Tlsa { records, .. }) if records.is_empty() => {
            failures.push((ResultType::TlsaInvalid, Some("no usable TLSA record".to_owned())));
        }
        (TlsSeen::Established(facts), Expectation::Tlsa { records, names }) => {
            let dane = Requirement::Dane { records: records.clone(), names: names.clone() };
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
        failure_reason_code: reason.map(|text| reason_code(&text)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_lc_rs::digest;

    use super::*;
    use crate::dane::{Tlsa, TlsaAnswer};
    use crate::mail::TlsRequest;
    use crate::net::tls::TlsFacts;
    use crate::route::DnssecStatus;
    use crate::sts::StsPolicy;
    use crate::tlspolicy::{DaneUse, DaneWithSts, HostFacts, LocalRule, Verdict, decide};
    use crate::tlsrpt::AppliedPolicy;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    /// The plan for an alias host, under an enforced policy if wanted.
    fn plan(records: Vec<Tlsa>, enforced: bool) -> TlsPlan {
        let text = "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 86400\n";
        let facts = HostFacts {
            mx: domain("mx.example.org"),
            policy_domain: domain("example.org"),
            expanded: None,
            mx_status: DnssecStatus::Secure,
            sts: enforced.then(|| Arc::new(StsPolicy::parse(text.as_bytes()).unwrap())),
            sts_id: None,
            sts_trouble: None,
            tlsa: TlsaAnswer::Secure(records),
            tlsa_base: domain("host.example.net"),
            request: TlsRequest::None,
            local: LocalRule::None,
            local_text: None,
            dane_use: DaneUse::Enforce,
            dane_with_sts: DaneWithSts::Both,
        };
        match decide(&facts) {
            Verdict::Use(plan) => plan,
            Verdict::Skip(skip) => panic!("{skip:?}"),
        }
    }

    /// A session in which the host showed this certificate, untrusted under PKIX.
    fn showed(certificate: &[u8]) -> TlsSeen {
        TlsSeen::Established(TlsFacts {
            group: None,
            version: "TLSv1.3",
            cipher: String::new(),
            sni: domain("host.example.net"),
            name: domain("mx.example.org"),
            pkix: Err(CertificateFailure::NotTrusted("no chain".to_owned())),
            chain_sha256: String::new(),
            chain: Arc::new([certificate.to_vec().into()]),
            at: jiff::Timestamp::UNIX_EPOCH,
            resumed: false,
        })
    }

    /// Of each policy: type, domain, failures.
    fn counted(plan: &TlsPlan, seen: &TlsSeen) -> Vec<String> {
        let entry = |result: SessionResult| {
            let failures = result.failures.iter().map(|failure| {
                assert_eq!(failure.receiving_mx_hostname.as_deref(), Some("mx.example.org"));
                serde_json::to_string(&failure.result_type).unwrap()
            });
            let failures: Vec<_> = failures.collect();
            let AppliedPolicy { policy_type, policy_domain, .. } = result.policy;
            format!("{policy_type:?} {policy_domain} {}", failures.join(" ").replace('"', ""))
        };
        of_session(&domain("example.org"), plan, seen, &Ends::default()).into_iter().map(entry).collect()
    }

    #[test]
    fn dane_and_mta_sts_are_counted_side_by_side() {
        let data = digest::digest(&digest::SHA256, b"certificate").as_ref().to_vec();
        let record = Tlsa { usage: 3, selector: 0, matching: 1, data };
        let alone = plan(vec![record.clone()], false);
        let both = plan(vec![record], true);
        assert_eq!(counted(&alone, &showed(b"certificate")), ["Tlsa host.example.net "]);
        assert_eq!(counted(&alone, &showed(b"other")), ["Tlsa host.example.net tlsa-invalid"]);
        assert_eq!(
            counted(&both, &showed(b"certificate")),
            ["Tlsa host.example.net ", "Sts example.org certificate-not-trusted"]
        );
        assert_eq!(
            counted(&both, &showed(b"other")),
            ["Tlsa host.example.net tlsa-invalid", "Sts example.org certificate-not-trusted"]
        );
        let clear = TlsSeen::Clear(TlsFailure::NotOffered("not in the EHLO reply".to_owned()));
        assert_eq!(
            counted(&both, &clear),
            ["Tlsa host.example.net starttls-not-supported", "Sts example.org starttls-not-supported"]
        );
    }

    #[test]
    fn an_mx_host_hears_of_dane_alone_and_under_its_own_name() {
        let record = Tlsa { usage: 3, selector: 0, matching: 1, data: vec![1; 32] };
        let clear = TlsSeen::Clear(TlsFailure::NotOffered("not in the EHLO reply".to_owned()));
        let plan = plan(vec![record], true);
        let results = of_session(&domain("example.org"), &plan, &clear, &Ends::default());
        let of_hosts = for_mx_hosts(&results);
        assert_eq!((results.len(), of_hosts.len()), (2, 1));
        assert_eq!(of_hosts[0].report_domain, domain("host.example.net"));
        assert_eq!((&of_hosts[0].policy, &of_hosts[0].failures), (&results[0].policy, &results[0].failures));
        assert_eq!(for_mx_hosts(&of_hosts), [], "the host that is the recipient domain is told once");
    }

    #[test]
    fn records_nobody_can_match_are_told_though_mail_flows() {
        let unusable = Tlsa { usage: 1, selector: 1, matching: 1, data: vec![1; 32] };
        let plan = plan(vec![unusable], false);
        assert_eq!(plan.require, Requirement::Encrypt);
        assert_eq!(counted(&plan, &showed(b"certificate")), ["Tlsa host.example.net tlsa-invalid"]);
    }
}
