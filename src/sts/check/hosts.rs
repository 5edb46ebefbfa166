//! What the MX hosts themselves showed, where the owner asked for a look at them (`check --connect`).

use super::{Checked, Facts, Severity};
use crate::mail::Domain;
use crate::sts::{Mode, StsPolicy};

/// A host that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLook {
    /// As in the MX record.
    pub host: Domain,
    /// What there was.
    pub showed: HostShowed,
}

/// What a host showed at the SMTP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostShowed {
    /// STARTTLS, with a trusted certificate for its name.
    Good,
    /// STARTTLS, and what is wrong with the certificate.
    BadCertificate(String),
    /// No TLS session came about; why.
    NoTls(String),
    /// It could not be talked to from here; why.
    Unreachable(String),
}

/// Judges what hosts showed by what the policy makes of it.
pub(super) fn check_hosts(facts: &Facts, policy: Option<&StsPolicy>, checked: &mut Checked) {
    let Some(hosts) = &facts.hosts else { return };
    let (severity, consequence) = match policy.map(|policy| policy.mode) {
        Some(Mode::Enforce) => (Severity::High, "senders that heed MTA-STS deliver nothing to it"),
        Some(Mode::Testing) => (Severity::Medium, "under enforce nothing would be delivered to it"),
        Some(Mode::None) | None => (Severity::Low, "no policy could be enforced there"),
    };
    for HostLook { host, showed } in hosts {
        match showed {
            HostShowed::Good => {}
            HostShowed::BadCertificate(why) => checked.add(
                severity,
                "mx-certificate",
                format!("the certificate of MX host {host} is not good ({why}): {consequence}"),
            ),
            HostShowed::NoTls(why) => {
                checked.add(
                    severity,
                    "mx-no-tls",
                    format!("MX host {host} does no TLS ({why}): {consequence}"),
                );
            }
            HostShowed::Unreachable(why) => checked.add(
                Severity::Low,
                "mx-unreachable",
                format!("MX host {host} could not be looked at from here: {why}"),
            ),
        }
    }
    if !hosts.is_empty() && hosts.iter().all(|look| look.showed == HostShowed::Good) {
        checked.add(Severity::Info, "mx-certificates", "every MX host has TLS and a trusted certificate");
    }
}
