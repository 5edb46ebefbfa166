//! What an operator sets about reports (`[tlsrpt]`).

use std::time::Duration;

use super::digest::mailing::{DIGEST_AFTER, DigestOptions};
use super::dkim::Signer;
use super::hygiene::Hygiene;
use crate::mail::{Domain, Mailbox};
use crate::tlsrpt::omit::Omit;

/// The settings of story 3.
#[derive(Debug, Clone)]
pub struct Options {
    /// `tlsrpt.enabled`: whether reports are made and sent. Default true.
    pub enabled: bool,
    /// `server.hostname`: Message-ID of report mail.
    pub hostname: Domain,
    /// `tlsrpt.organization_name`: who reports, free text, never empty.
    pub organization_name: String,
    /// `tlsrpt.contact_info`: whom to ask about reports. Its domain is the submitter (RFC 8460 §5.3).
    pub contact_info: Mailbox,
    /// `tlsrpt.from`: From and reverse-path of report mail; should be read by someone.
    pub from: Mailbox,
    /// `tlsrpt.dkim_domain`, `dkim_selector`, `dkim_key_file`, and those of a second key: a signature each
    /// (RFC 8463 §3: one of RSA, one of Ed25519). Without any report mail goes out unsigned, which receivers
    /// ignore (RFC 8460 §3).
    pub dkim: Vec<Signer>,
    /// `tlsrpt.start_delay`: each report of a day starts at a random time within this after 00:00 UTC, so
    /// that not all senders report at once, nor one to all (RFC 8460 §4.1). Default [`START_DELAY`].
    pub start_delay: Duration,
    /// `tlsrpt.retry`: waits after the first, second, ... failed try of an endpoint, a record lookup
    /// or the hand-over to the queue; the last one repeats, for 24 hours. Default [`RETRY`].
    pub retry: Vec<Duration>,
    /// Who gets reports, and how many.
    pub hygiene: Hygiene,
    /// `tlsrpt.include_sending_ip`, `tlsrpt.include_mx_helo`: what reports leave out.
    pub omit: Omit,
    /// `[digest]`
    pub digest: DigestOptions,
}

/// The default of [`Options::start_delay`].
pub const START_DELAY: Duration = Duration::from_secs(4 * 3600);
/// The default of [`Options::retry`].
pub const RETRY: [Duration; 4] = [
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(2 * 3600),
];

impl Options {
    /// The given settings, everything else at its default.
    pub fn new(hostname: Domain, organization_name: String, contact_info: Mailbox, from: Mailbox) -> Self {
        let digest = DigestOptions { to: Vec::new(), from: from.clone(), after: DIGEST_AFTER };
        Self {
            enabled: true,
            hostname,
            organization_name,
            contact_info,
            from,
            dkim: Vec::new(),
            start_delay: START_DELAY,
            retry: RETRY.to_vec(),
            hygiene: Hygiene::default(),
            omit: Omit::default(),
            digest,
        }
    }

    /// What would make receivers ignore reports sent by mail, one sentence each, for `config check`.
    pub fn warnings(&self) -> Vec<String> {
        let Some(signer) = self.dkim.first() else {
            return vec![
                "reports by mail go out unsigned and receivers ignore them (RFC 8460 §3): set \
                 tlsrpt.dkim_domain, dkim_selector and dkim_key_file"
                    .to_owned(),
            ];
        };
        // RFC 8460 §3: the signing domain is the reporting domain.
        let aligned = |mailbox: &Mailbox| {
            mailbox.domain().domain().is_some_and(|domain| domain.is_within(signer.domain()))
        };
        [("from", &self.from), ("contact_info", &self.contact_info)]
            .into_iter()
            .filter(|(_, mailbox)| !aligned(mailbox))
            .map(|(key, mailbox)| {
                format!(
                    "tlsrpt.{key} {mailbox} is not within tlsrpt.dkim_domain {}: receivers may ignore reports",
                    signer.domain()
                )
            })
            .collect()
    }

    /// The wait after a first failure.
    pub(super) fn retry_first(&self) -> Duration {
        self.retry.first().copied().unwrap_or(RETRY[0])
    }
}

#[cfg(test)]
mod tests {
    use super::super::dkim::test_signer;
    use super::*;

    #[test]
    fn what_receivers_would_ignore_is_told() {
        let mailbox = |text: &str| Mailbox::parse(text).unwrap();
        let hostname = Domain::parse("relay.example.org").unwrap();
        let contact = mailbox("postmaster@example.org");
        let mut options =
            Options::new(hostname, "Example".into(), contact, mailbox("tlsrpt@reports.example.org"));
        assert!(options.warnings()[0].contains("tlsrpt.dkim_domain"));
        options.dkim = vec![test_signer("example.org")];
        assert_eq!(options.warnings(), [""; 0]);
        options.dkim = vec![test_signer("example.net")];
        assert_eq!(options.warnings().len(), 2);
        assert!(options.warnings()[0].starts_with("tlsrpt.from tlsrpt@reports.example.org"));
    }
}
