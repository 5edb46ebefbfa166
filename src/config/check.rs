//! What is wrong, or without effect, in a configuration whose shape is right.
//!
//! Reads the files the configuration names and changes nothing. Errors stop everything; notes are
//! for `config check` and the log at start. Called by `cli` (config check), `daemon` (start, reload).

mod admin;
mod auth;
mod overrides;
mod routes;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::load::leaves;
use super::secret::{self, SecretError};
use super::{ConfigError, Dnssec, Listener, ListenerAuth, ListenerTls, Loaded, doors, settings};
use crate::mail::Domain;
use crate::tlsrpt::record::RUA_MAX;

/// RFC 5321 §4.5.3.1.8: a server must take at least so many recipients.
const RECIPIENTS_MIN: usize = 100;
/// RFC 5321 §4.5.3.1.7: a server must take messages of at least so many octets.
const MESSAGE_BYTES_MIN: u64 = 64 * 1024;
/// Below, files would come and go with every few messages; beyond, places in them would not fit in 32
/// bits together with a last group of records.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;
/// A longer random delay would move a day's reports behind the next day's.
const START_DELAY_SECONDS_MAX: u64 = 24 * 3600;

/// A digest is for some operators.
const DIGEST_RECIPIENTS_MAX: usize = 20;

/// RFC 5321 §4.5.3.2.7: how long a server waits for the next command.
const SERVER_IDLE: Duration = Duration::from_secs(300);

/// RFC 8446 §4.6.1: how long a session ticket may serve.
const TICKET_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The findings, in order of the configuration's sections.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Nothing may be started with these.
    pub errors: Vec<ConfigError>,
    /// Worth knowing: set without effect, over, or risky.
    pub notes: Vec<ConfigError>,
}

/// Checks everything that shapes cannot show. Blocking: reads certificate, key and user files.
pub fn check(loaded: &Loaded, now: Timestamp) -> Findings {
    let mut checker = Checker { loaded, found: Findings::default() };
    checker.server();
    checker.listeners();
    checker.tls();
    checker.limits();
    auth::check(&mut checker);
    checker.dns();
    checker.delivery();
    routes::check(&mut checker);
    checker.policy(now);
    checker.evidence();
    checker.tlsrpt();
    checker.digest();
    checker.admin_and_log();
    let hidden = checker.credentials();
    let doors = doors(loaded);
    // Of the system's own servers nothing is said above.
    if let Ok(doors) = &doors
        && loaded.config.dns.dnssec == Dnssec::TrustAd
        && loaded.config.dns.nameservers.is_empty()
        && let Some(why) = doors.dns.distrust()
    {
        checker.note("dns.nameservers", format!("is empty, so /etc/resolv.conf counts: {why}"));
    }
    let unreadable = [settings(loaded).err(), doors.err()];
    for error in unreadable.into_iter().flatten().flatten() {
        // One line per key; the checks above know more.
        let told = checker.found.errors.iter().any(|known| known.key == error.key);
        if !told && !hidden.contains(&error.key) {
            checker.found.errors.push(error);
        }
    }
    checker.found
}

struct Checker<'a> {
    loaded: &'a Loaded,
    found: Findings,
}

/// Evidence of so little time is gone before anybody asks.
const EVIDENCE_SECONDS_MIN: u64 = 3600;
/// Two segments of the log: with less nothing but the latest would be kept.
const EVIDENCE_BYTES_MIN: u64 = 32 << 20;

impl Checker<'_> {
    /// Notes the files that are credentials of a service this process is not, and returns their keys: only the
    /// service sees them, and whoever checks by hand is not told that they are missing.
    fn credentials(&mut self) -> Vec<String> {
        let mut hidden = Vec::new();
        for (key, value) in leaves(&self.loaded.config) {
            if let (true, Some(file)) = (key.ends_with("_file"), value.as_str())
                && let Err(error @ SecretError::NoCredentials) = secret::locate(Path::new(file))
            {
                self.note(&key, error.to_string());
                hidden.push(key);
            }
        }
        hidden
    }

    fn evidence(&mut self) {
        let (keep, max) = (self.loaded.config.evidence.keep.0, self.loaded.config.evidence.max_size.0);
        if keep.as_secs() < EVIDENCE_SECONDS_MIN {
            self.error("evidence.keep", "is less than an hour; to keep none, set evidence.enabled = false");
        }
        if max < EVIDENCE_BYTES_MIN {
            self.error("evidence.max_size", "is less than 32 MiB, two segments of the evidence log");
        }
    }

    fn error(&mut self, key: &str, text: impl Into<String>) {
        self.found.errors.push(self.loaded.error(key, text));
    }

    fn note(&mut self, key: &str, text: impl Into<String>) {
        self.found.notes.push(self.loaded.error(key, text));
    }

    fn is_set(&self, key: &str) -> bool {
        self.loaded.origin(key).is_some()
    }

    fn server(&mut self) {
        let server = &self.loaded.config.server;
        match &server.hostname {
            None => self.error(
                "server.hostname",
                "is not set; give this relay's fully qualified name, for example \"relay.example.org\"",
            ),
            // RFC 5321 §2.3.5, §4.1.1.1: the name in EHLO is fully qualified and means this host to others.
            Some(name) if !is_public_name(name) => self.error(
                "server.hostname",
                format!("\"{name}\" is not a fully qualified name that others could resolve"),
            ),
            Some(_) => {}
        }
        if server.data_dir.exists() && !server.data_dir.is_dir() {
            self.error("server.data_dir", format!("{} is not a directory", server.data_dir.display()));
        }
        if server.data_dir.as_os_str().is_empty() {
            self.error("server.data_dir", "is empty");
        }
        if !SEGMENT_BYTES.contains(&server.journal_segment.0) {
            self.error("server.journal_segment", "must be between 64KiB and 1GiB");
        }
    }

    fn listeners(&mut self) {
        let config = &self.loaded.config;
        if config.listener.is_empty() {
            self.note("listener", "there is none: no mail can be submitted");
        }
        for (index, listener) in config.listener.iter().enumerate() {
            let key = |name: &str| format!("listener[{index}].{name}");
            if listener.name.is_empty() {
                self.error(&key("name"), "is empty");
            }
            if config.listener[..index].iter().any(|earlier| earlier.name == listener.name) {
                self.error(&key("name"), format!("another listener is named {:?} already", listener.name));
            }
            if listener.listen.is_empty() {
                self.error(&key("listen"), "names no address");
            }
            if listener.tls != ListenerTls::None
                && (config.tls.certificate_file.is_none() || config.tls.key_file.is_none())
            {
                self.error(
                    &key("tls"),
                    "TLS needs a certificate; set tls.certificate_file and tls.key_file, or tls = \"none\"",
                );
            }
            let certificates = auth::asks(config, listener);
            if listener.auth != ListenerAuth::None && config.auth.users_file.is_none() && !certificates {
                self.error(
                    &key("auth"),
                    "AUTH needs users; set auth.users_file (lines made by `stsrelay user hash`), or auth = \"none\"",
                );
            }
            auth::listener(self, listener, &key);
            self.reachability(listener, &key);
            self.overlaps(index, listener);
        }
    }

    /// Whether anyone, or everyone, could submit here.
    fn reachability(&mut self, listener: &Listener, key: &dyn Fn(&str) -> String) {
        let offers_auth = listener.auth != ListenerAuth::None
            && (listener.tls != ListenerTls::None || listener.allow_plaintext_auth);
        match listener.auth {
            ListenerAuth::Required if !offers_auth => self.error(
                &key("auth"),
                "AUTH is required but never offered without TLS; set tls, or allow_plaintext_auth = true",
            ),
            ListenerAuth::Optional if !offers_auth => self.note(
                &key("auth"),
                "has no effect: AUTH is never offered without TLS; set tls, or allow_plaintext_auth = true",
            ),
            _ => {}
        }
        let certificates = auth::asks(&self.loaded.config, listener);
        let nobody = !offers_auth && listener.trusted_networks.is_empty() && !certificates;
        if nobody && listener.auth != ListenerAuth::Required {
            self.note(&key("trusted_networks"), "is empty and AUTH is not offered: nobody may submit here");
        }
        if listener.auth != ListenerAuth::Required
            && listener.trusted_networks.iter().any(|network| network.0.prefix_len() == 0)
        {
            self.note(&key("trusted_networks"), "trusts every address: whoever can connect may relay");
        }
        if listener.proxy_protocol.iter().any(|network| network.0.prefix_len() == 0) {
            self.error(
                &key("proxy_protocol"),
                "lets everyone claim any address; name the addresses of your proxies alone",
            );
        }
    }

    fn overlaps(&mut self, index: usize, listener: &Listener) {
        let listeners = &self.loaded.config.listener;
        for (position, address) in listener.listen.iter().enumerate() {
            let earlier_here = listener.listen[..position].iter().map(|a| (listener, a));
            let earlier = listeners[..index].iter().flat_map(|l| l.listen.iter().map(move |a| (l, a)));
            if let Some((other, with)) = earlier.chain(earlier_here).find(|(_, a)| overlap(**a, *address)) {
                let text = if with == address {
                    format!("{address} is taken by listener {:?} already", other.name)
                } else {
                    format!("{address} overlaps {with} of listener {:?}", other.name)
                };
                self.error(&format!("listener[{index}].listen"), text);
            }
        }
    }

    fn limits(&mut self) {
        let limits = &self.loaded.config.limits;
        if limits.recipients == 0 {
            self.error("limits.recipients", "must be at least 1");
        } else if limits.recipients < RECIPIENTS_MIN {
            self.note("limits.recipients", "is below 100, which RFC 5321 §4.5.3.1.8 asks for");
        }
        for (key, number) in [
            ("limits.connections", limits.connections),
            ("limits.connections_per_address", limits.connections_per_address),
        ] {
            if number == 0 {
                self.error(key, "must be at least 1");
            }
        }
        for (key, number) in
            [("limits.errors", limits.errors), ("limits.junk_commands", limits.junk_commands)]
        {
            if number == 0 {
                self.error(key, "must be at least 1");
            }
        }
        for (key, time, wanted) in [
            ("limits.command_timeout", limits.command_timeout, 5 * 60),
            ("limits.data_timeout", limits.data_timeout, 3 * 60),
            ("limits.message_timeout", limits.message_timeout, 0),
            ("limits.handshake_timeout", limits.handshake_timeout, 0),
        ] {
            if time.0.is_zero() {
                self.error(key, "must be more than 0");
            } else if time.0.as_secs() < wanted {
                self.note(key, format!("is below {} minutes, which RFC 5321 §4.5.3.2 asks for", wanted / 60));
            }
        }
        if limits.message_size.0 == 0 {
            self.error("limits.message_size", "must be more than 0");
        } else if limits.message_size.0 < MESSAGE_BYTES_MIN {
            self.note("limits.message_size", "is below 64KiB, which RFC 5321 §4.5.3.1.7 asks for");
        }
    }

    fn tls(&mut self) {
        // RFC 8446 §4.6.1: no ticket is used after seven days.
        if self.loaded.config.tls.session_lifetime.0 > TICKET_LIFE_MAX {
            self.error("tls.session_lifetime", "must be at most 7d (RFC 8446 §4.6.1)");
        }
    }

    fn dns(&mut self) {
        let dns = &self.loaded.config.dns;
        let remote = dns.nameservers.iter().find(|server| !server.0.ip().is_loopback());
        if let (Dnssec::TrustAd, Some(server)) = (dns.dnssec, remote) {
            // Anyone on the way could set the bit.
            let text = format!("\"trust-ad\" needs a resolver on this machine, and {server} is not");
            if self.is_set("dns.dnssec") {
                self.error(
                    "dns.dnssec",
                    format!(
                        "{text}: DANE would be off; use a resolver on this machine, \"validate\" or \"off\""
                    ),
                );
            } else {
                self.note(
                    "dns.dnssec",
                    format!("{text}: all its answers count as insecure, and DANE is off"),
                );
            }
        }
    }

    fn delivery(&mut self) {
        let delivery = &self.loaded.config.delivery;
        let t = &delivery.timeouts;
        let spans = [
            ("timeouts.connect", t.connect),
            ("timeouts.greeting", t.greeting),
            ("timeouts.command", t.command),
            ("timeouts.rcpt", t.rcpt),
            ("timeouts.data", t.data),
            ("timeouts.body", t.body),
            ("timeouts.dot", t.dot),
        ];
        for (key, span) in spans {
            if span.0.is_zero() {
                self.error(&format!("delivery.{key}"), "must be at least 1s");
            }
        }
        if delivery.smtp_port == 0 {
            self.error("delivery.smtp_port", "must not be 0");
        }
        for (key, number) in [
            ("delivery.concurrency", delivery.concurrency),
            ("delivery.concurrency_per_destination", delivery.concurrency_per_destination),
            ("delivery.concurrency_per_host", delivery.concurrency_per_host),
        ] {
            if number == 0 {
                self.error(key, "must be at least 1");
            }
        }
        if delivery.suppression.after == 0 {
            self.error("delivery.suppression.after", "must be at least 1");
        }
        if delivery.suppression.keep.0.is_zero() {
            self.error("delivery.suppression.keep", "must be at least 1s");
        }
        self.schedule("delivery.retry", &delivery.retry);
        self.destinations();
        if self.loaded.config.mta_sts.fetch_timeout.0.is_zero() {
            self.error("mta_sts.fetch_timeout", "must be at least 1s");
        }
        if self.loaded.config.mta_sts.https_port == 0 {
            self.error("mta_sts.https_port", "must not be 0");
        }
        // RFC 5321 §4.5.3.2.7: a server may close a connection that has been idle for 5 minutes.
        if delivery.pool.idle_time.0 >= SERVER_IDLE {
            self.note("delivery.pool.idle_time", "is longer than servers wait for a command: 5 minutes");
        }
        self.source_addresses();
    }

    fn source_addresses(&mut self) {
        const KEY: &str = "delivery.source_addresses";
        let sources = &self.loaded.config.delivery.source_addresses;
        for (index, source) in sources.iter().enumerate() {
            let ip = source.address;
            if ip.is_unspecified() || ip.is_multicast() {
                self.error(KEY, format!("{ip} is not an address to send from"));
            } else if sources[..index].iter().any(|other| other.address == ip) {
                self.error(KEY, format!("{ip} is listed twice"));
            } else if let Err(error) = UdpSocket::bind((ip, 0)) {
                // It may come back, and the others serve meanwhile: no reason not to start.
                self.note(KEY, format!("{ip} cannot be bound on this host: {error}"));
            }
            if let Some(name) = source.hostname.as_ref().filter(|name| !is_public_name(name)) {
                self.error(
                    KEY,
                    format!("\"{name}\" ({ip}) is not a fully qualified name that others could resolve"),
                );
            }
        }
    }

    fn destinations(&mut self) {
        let tables = &self.loaded.config.delivery.destination;
        for (index, table) in tables.iter().enumerate() {
            let key = |name: &str| format!("delivery.destination[{index}].{name}");
            match (&table.domain, &table.mx) {
                (Some(_), None) | (None, Some(_)) => {}
                (None, None) => self.error(
                    &key("domain"),
                    "is missing; give domain = \"example.net\" or mx = \"*.mail.example.net\"",
                ),
                (Some(_), Some(_)) => {
                    self.error(&key("mx"), "is set beside domain; a table is about one of them")
                }
            }
            if table.concurrency == Some(0) {
                self.error(&key("concurrency"), "must be at least 1");
            }
            if table.messages_per_connection == Some(0) {
                self.error(&key("messages_per_connection"), "must be at least 1");
            }
            if (table.concurrency, table.rate, table.messages_per_connection) == (None, None, None) {
                let name = if table.domain.is_some() { "domain" } else { "mx" };
                self.note(&key(name), "has no effect: the table sets no limit");
            }
            let same = |other: &&super::sections::DestinationSection| {
                (&other.domain, &other.mx) == (&table.domain, &table.mx)
            };
            if tables[..index].iter().any(|other| same(&other)) {
                let name = if table.domain.is_some() { "domain" } else { "mx" };
                self.note(
                    &key(name),
                    "has no effect: an earlier table is about the same, and the first one holds",
                );
            }
        }
    }

    fn schedule(&mut self, key: &str, retry: &[super::value::Span]) {
        if retry.is_empty() {
            self.error(key, "is empty; give at least one wait, for example [\"5m\"]");
        } else if retry.iter().any(|wait| wait.0.is_zero()) {
            self.error(key, "each wait must be at least 1s");
        }
    }

    fn policy(&mut self, now: Timestamp) {
        let policy = &self.loaded.config.policy;
        if !policy.mta_sts {
            self.note(
                "policy.mta_sts",
                "MTA-STS policies of recipient domains are neither fetched nor enforced",
            );
        }
        if !policy.dane {
            self.note("policy.dane", "TLSA records of mail hosts are neither looked for nor enforced");
        } else if self.loaded.config.dns.dnssec == Dnssec::Off {
            self.note("policy.dane", "has no effect: dns.dnssec is off, so no TLSA record can be trusted");
        }
        if policy.dane_audit_only {
            self.note(
                "policy.dane_audit_only",
                "what TLSA records demand is logged and reported, and stops no mail",
            );
        }
        overrides::check(self, now);
    }

    fn tlsrpt(&mut self) {
        let tlsrpt = &self.loaded.config.tlsrpt;
        self.schedule("tlsrpt.retry", &tlsrpt.retry);
        if tlsrpt.start_delay.0.as_secs() > START_DELAY_SECONDS_MAX {
            self.error("tlsrpt.start_delay", "must be at most 24h");
        }
        let parts = [
            ("tlsrpt.dkim_domain", tlsrpt.dkim_domain.is_some()),
            ("tlsrpt.dkim_selector", tlsrpt.dkim_selector.is_some()),
            ("tlsrpt.dkim_key_file", tlsrpt.dkim_key_file.is_some()),
        ];
        let signs = parts.iter().any(|(_, set)| *set);
        for (key, set) in parts {
            if signs && !set {
                self.error(key, "is missing; DKIM needs dkim_domain, dkim_selector and dkim_key_file");
            }
        }
        if !(1..=RUA_MAX).contains(&tlsrpt.targets_per_domain) {
            self.error("tlsrpt.targets_per_domain", format!("must be from 1 to {RUA_MAX}"));
        }
        for (key, count) in [
            ("tlsrpt.reports_per_target", tlsrpt.reports_per_target),
            ("tlsrpt.suppress_after", tlsrpt.suppress_after),
        ] {
            if count == 0 {
                self.error(key, "must be at least 1");
            }
        }
        if tlsrpt.suppress_for.0.is_zero() {
            self.error("tlsrpt.suppress_for", "must be at least 1s");
        }
        let denied = tlsrpt.allow_targets.iter().find(|allowed| tlsrpt.deny_targets.contains(allowed));
        if let Some(both) = denied {
            self.note("tlsrpt.allow_targets", format!("{both} is in tlsrpt.deny_targets too, which wins"));
        }
        let denied = tlsrpt.allow_domains.iter().find(|allowed| tlsrpt.deny_domains.contains(allowed));
        if let Some(both) = denied {
            self.note("tlsrpt.allow_domains", format!("{both} is in tlsrpt.deny_domains too, which wins"));
        }
        let second = [
            ("tlsrpt.dkim_second_selector", tlsrpt.dkim_second_selector.is_some()),
            ("tlsrpt.dkim_second_key_file", tlsrpt.dkim_second_key_file.is_some()),
        ];
        let signs_twice = second.iter().any(|(_, set)| *set);
        for (key, _) in second.into_iter().filter(|(_, set)| signs_twice && !set) {
            self.error(
                key,
                "is missing; a second signature needs dkim_second_selector and dkim_second_key_file",
            );
        }
        if signs_twice && !signs {
            let text =
                "is for a second signature; the first needs dkim_domain, dkim_selector and dkim_key_file";
            self.error("tlsrpt.dkim_second_selector", text);
        } else if signs_twice && tlsrpt.dkim_second_selector == tlsrpt.dkim_selector {
            let text = "is tlsrpt.dkim_selector; each key needs a name of its own in DNS";
            self.error("tlsrpt.dkim_second_selector", text);
        }
        if tlsrpt.organization_name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            self.error("tlsrpt.organization_name", "is empty");
        }
        let selectors = [
            ("tlsrpt.dkim_selector", &tlsrpt.dkim_selector),
            ("tlsrpt.dkim_second_selector", &tlsrpt.dkim_second_selector),
        ];
        for (key, selector) in selectors {
            if let Some(Err(error)) = selector.as_deref().map(Domain::parse_a_label) {
                self.error(key, format!("is not a selector: {error}"));
            }
        }
        match (&tlsrpt.from, tlsrpt.is_enabled()) {
            (None, true) => self.error(
                "tlsrpt.from",
                "is not set, but reports are enabled; set it, or tlsrpt.enabled = false",
            ),
            (Some(_), true) if !signs => self.note(
                "tlsrpt.dkim_key_file",
                "reports are mailed without DKIM signature; receivers ignore such reports (RFC 8460 §3)",
            ),
            (Some(from), true) => {
                let aligned = tlsrpt.dkim_domain.as_ref().is_some_and(|signer| match from.domain() {
                    crate::mail::Destination::Domain(domain) => domain.is_within(signer),
                    crate::mail::Destination::Literal(_) => false,
                });
                if !aligned && tlsrpt.dkim_domain.is_some() {
                    self.note(
                        "tlsrpt.dkim_domain",
                        format!("does not cover the domain of tlsrpt.from <{from}>"),
                    );
                }
            }
            (_, false) => self.note(
                if self.is_set("tlsrpt.enabled") { "tlsrpt.enabled" } else { "tlsrpt.from" },
                "no TLS reports are sent; set tlsrpt.from to send them",
            ),
        }
    }

    fn digest(&mut self) {
        let (digest, tlsrpt) = (&self.loaded.config.digest, &self.loaded.config.tlsrpt);
        if digest.after.0.as_secs() > START_DELAY_SECONDS_MAX {
            self.error("digest.after", "must be at most 24h");
        }
        if digest.to.len() > DIGEST_RECIPIENTS_MAX {
            self.error("digest.to", format!("names more than {DIGEST_RECIPIENTS_MAX}; use a list's address"));
        }
        match (digest.to.is_empty(), &digest.from, &tlsrpt.from) {
            (false, None, None) => {
                self.error("digest.from", "is not set, and neither is tlsrpt.from; one must name the sender");
            }
            (true, Some(_), _) => self.note("digest.to", "nobody is named, so no digest is mailed"),
            _ => {}
        }
    }

    fn admin_and_log(&mut self) {
        let config = &self.loaded.config;
        admin::check(self);
        if let Err(text) = parse_level(&config.log.level) {
            self.error("log.level", text);
        }
    }
}

/// Reads `log.level`.
///
/// # Errors
/// A sentence with the words that would be right.
pub fn parse_level(level: &str) -> Result<tracing_subscriber::EnvFilter, String> {
    let bad = || format!("{level:?} is none of off, error, warn, info, debug, trace, and no filter of these");
    // EnvFilter takes any lone word for a target; a mistyped level must not silence the log.
    if level.trim().is_empty() {
        return Err(bad());
    }
    for part in level.split(',') {
        let word = part.rsplit_once('=').map_or(part, |(_, level)| level);
        word.trim().parse::<tracing_subscriber::filter::LevelFilter>().map_err(|_| bad())?;
    }
    // sled speaks of its own files as errors where ours are rebuilt from the journal, and we say so.
    let level = if level.contains("sled") { level.to_owned() } else { format!("sled=off,{level}") };
    tracing_subscriber::EnvFilter::try_new(level).map_err(|_| bad())
}

fn is_public_name(name: &Domain) -> bool {
    let last = name.labels().last().unwrap_or_default();
    name.is_fully_qualified() && !matches!(last, "localhost" | "localdomain")
}

/// Whether two sockets could not be bound at once. The families keep apart: where both have a port,
/// `submission` binds the IPv6 socket for IPv6 alone.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_place = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    // Port 0 is a new one each time.
    same_family && same_place && a.port() == b.port() && a.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_overlap_what_they_cover() {
        for (a, b, expected) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "127.0.0.2:25", false),
            ("127.0.0.1:25", "127.0.0.1:26", false),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("0.0.0.0:25", "[::1]:25", false),
            ("[::]:25", "0.0.0.0:25", false),
            ("[::]:25", "[::1]:25", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (a, b): (SocketAddr, SocketAddr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn levels_are_words_or_filters() {
        for good in ["info", "DEBUG", "off", "info,stsrelay::net=debug", "stsrelay=trace"] {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,stsrelay", "stsrelay=loud"] {
            assert!(parse_level(bad).is_err(), "{bad}");
        }
    }
}
