//! What others and we are told: `[tlsrpt]` and `[digest]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::value::Span;
use super::seconds;
use crate::mail::{Domain, Mailbox, Pattern};
use crate::tlsrpt::record::RUA_MAX;
use crate::tlsrpt::target::TargetPattern;

/// `[tlsrpt]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tlsrpt {
    /// Send reports. Without it: yes if `from` is set.
    pub enabled: Option<bool>,
    /// `organization-name` of the reports; our hostname without it.
    pub organization_name: Option<String>,
    /// `contact-info` of the reports; `from` without it.
    pub contact_info: Option<Mailbox>,
    /// Sender of mailed reports.
    pub from: Option<Mailbox>,
    /// `d=` of their DKIM signature.
    pub dkim_domain: Option<Domain>,
    /// `s=` of their DKIM signature.
    pub dkim_selector: Option<String>,
    /// PKCS#8 PEM, RSA or Ed25519.
    pub dkim_key_file: Option<PathBuf>,
    /// `s=` of a second signature.
    pub dkim_second_selector: Option<String>,
    /// Its key, of the other kind.
    pub dkim_second_key_file: Option<PathBuf>,
    /// Report DANE results to the MX host's own TLS-RPT record as well, where it has one.
    pub mx_host_reports: bool,
    /// Each report starts at a random time of its own within this after 00:00 UTC.
    pub start_delay: Span,
    /// Waits after failed deliveries of a report; the last one repeats, for 24 hours.
    pub retry: Vec<Span>,
    /// Reports are made of these recipient domains alone, unless empty.
    pub allow_domains: Vec<Pattern>,
    /// No reports of these recipient domains.
    pub deny_domains: Vec<Pattern>,
    /// Reports go to these addresses and hosts alone, unless empty.
    pub allow_targets: Vec<TargetPattern>,
    /// No reports to these addresses and hosts.
    pub deny_targets: Vec<TargetPattern>,
    /// Targets used of one domain's record, in their order.
    pub targets_per_domain: usize,
    /// Reports of one day to one target.
    pub reports_per_target: u32,
    /// A target that failed so often in a row is left alone.
    pub suppress_after: u32,
    /// For so long from its last failure.
    pub suppress_for: Span,
    /// Tell our own address of each connection (`sending-mta-ip`).
    pub include_sending_ip: bool,
    /// Tell what MX hosts call themselves (`receiving-mx-helo`).
    pub include_mx_helo: bool,
}

/// `[digest]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DigestSection {
    /// Who is mailed the daily digest; nobody if empty.
    pub to: Vec<Mailbox>,
    /// Its sender; `tlsrpt.from` without it.
    pub from: Option<Mailbox>,
    /// So long after 00:00 UTC.
    pub after: Span,
}

impl Default for DigestSection {
    fn default() -> Self {
        Self { to: Vec::new(), from: None, after: seconds(6 * 3600) }
    }
}

impl Default for Tlsrpt {
    fn default() -> Self {
        Self {
            enabled: None,
            organization_name: None,
            contact_info: None,
            from: None,
            dkim_domain: None,
            dkim_selector: None,
            dkim_key_file: None,
            dkim_second_selector: None,
            dkim_second_key_file: None,
            mx_host_reports: true,
            start_delay: seconds(4 * 3600),
            retry: vec![seconds(300), seconds(900), seconds(3600), seconds(7200)],
            allow_domains: Vec::new(),
            deny_domains: Vec::new(),
            allow_targets: Vec::new(),
            deny_targets: Vec::new(),
            targets_per_domain: RUA_MAX,
            reports_per_target: 1000,
            suppress_after: 3,
            suppress_for: seconds(7 * 24 * 3600),
            include_sending_ip: true,
            include_mx_helo: true,
        }
    }
}

impl Tlsrpt {
    /// Whether reports are sent.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(self.from.is_some())
    }
}
