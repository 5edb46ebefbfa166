//! What an operator leaves out of reports: our own addresses, and what MX hosts call themselves.
//!
//! Pure. Called by `reporting` when a report is made of a tally; the tally itself keeps everything.

use super::report::{PolicyTally, Tally};
use super::result::FailureDetail;

/// What is left out. RFC 8460 §7 leaves it to senders how much of their network they show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Omit {
    /// `sending-mta-ip`
    pub sending_mta_ip: bool,
    /// `receiving-mx-helo`
    pub receiving_mx_helo: bool,
}

impl Tally {
    /// The tally without it; details that become equal are counted together.
    #[must_use]
    pub fn without(mut self, omit: Omit) -> Self {
        if omit != Omit::default() {
            self.policies.iter_mut().for_each(|policy| strip(policy, omit));
        }
        self
    }
}

fn strip(policy: &mut PolicyTally, omit: Omit) {
    let mut kept: Vec<(FailureDetail, u64)> = Vec::with_capacity(policy.details.len());
    let mut places = std::collections::HashMap::new();
    for (mut detail, count) in policy.details.drain(..) {
        if omit.sending_mta_ip {
            detail.sending_mta_ip = None;
        }
        if omit.receiving_mx_helo {
            detail.receiving_mx_helo = None;
        }
        match places.get(&detail) {
            Some(&place) => {
                let (_, known): &mut (FailureDetail, u64) = &mut kept[place];
                *known = known.saturating_add(count);
            }
            None => {
                places.insert(detail.clone(), kept.len());
                kept.push((detail, count));
            }
        }
    }
    policy.details = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;
    use crate::tlsrpt::{AppliedPolicy, PolicyType, ResultType, SessionResult};

    fn tally() -> Tally {
        let domain = Domain::parse("example.org").unwrap();
        let mut tally = Tally::new(domain.clone());
        for (ip, helo) in [("192.0.2.1", "a"), ("192.0.2.2", "a"), ("192.0.2.2", "b")] {
            tally.fold(&SessionResult {
                report_domain: domain.clone(),
                policy: AppliedPolicy {
                    policy_type: PolicyType::NoPolicyFound,
                    policy_domain: domain.clone(),
                    policy_string: [].into(),
                    mx_host: [].into(),
                },
                failures: vec![FailureDetail {
                    result_type: ResultType::CertificateExpired,
                    sending_mta_ip: Some(ip.parse().unwrap()),
                    receiving_mx_hostname: Some("mx.example.org".into()),
                    receiving_mx_helo: Some(helo.into()),
                    receiving_ip: Some("198.51.100.1".parse().unwrap()),
                    failure_reason_code: None,
                }],
            });
        }
        tally
    }

    #[test]
    fn what_is_left_out_makes_details_equal_and_no_session_is_lost() {
        for (sending_mta_ip, receiving_mx_helo, counts) in [
            (false, false, &[1, 1, 1][..]),
            (true, false, &[2, 1]),
            (false, true, &[1, 2]),
            (true, true, &[3]),
        ] {
            let tally = tally().without(Omit { sending_mta_ip, receiving_mx_helo });
            let details = &tally.policies[0].details;
            assert_eq!(details.iter().map(|(_, count)| *count).collect::<Vec<_>>(), counts);
            for (detail, _) in details {
                assert_eq!(detail.sending_mta_ip.is_none(), sending_mta_ip);
                assert_eq!(detail.receiving_mx_helo.is_none(), receiving_mx_helo);
                assert!(detail.receiving_ip.is_some() && detail.receiving_mx_hostname.is_some());
            }
            assert_eq!(tally.sessions(), 3);
        }
    }
}
