//! From the configuration to each module's `Options`: what `daemon` hands out, at start and at reload.
//!
//! Reads the files the configuration names (certificate, key, trust anchors, users, DKIM key), each
//! through the module that owns it; what cannot be read is an error at its key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::auth::{certificates, listener_rule, lockout, rules, users};
use super::{ConfigError, Dnssec, ListenerAuth, ListenerTls, Loaded};
use crate::admin::HttpOptions;
use crate::delivery::evidence::EvidenceOptions;
use crate::delivery::limits::{DestinationLimit, Whom};
use crate::delivery::static_route::StaticRoute;
use crate::delivery::{self, gather, pool};
use crate::mail::{Destination, Domain, Mailbox};
use crate::net::dns::{self, HickoryDns};
use crate::net::guard::AddressGuard;
use crate::net::tls::{ClientOptions, ClientTls, ServerTls};
use crate::net::{https, tcp};
use crate::queue::RetryOptions;
use crate::reporting;
use crate::smtp::client::{Credentials, Timeouts};
use crate::store::suppressions::{SuppressionAnswer, SuppressionOptions};
use crate::store::targets::SuppressRule;
use crate::store::{EvidenceLimits, QueueOptions, RoomLimits};
use crate::submission::{self, Certificates, ListenerOptions, Users};
use crate::tlspolicy::{DaneUse, Override};
use crate::tlsrpt::omit::Omit;

mod auth;

/// A message in transfer at shutdown may take so long to end; within the daemon's own limit.
const DRAIN: Duration = Duration::from_secs(20);
/// Characters of the admin token at least: what can be guessed guards nothing.
const TOKEN_BYTES_MIN: usize = 16;

/// Everything the daemon is made of, ready to be handed out.
pub struct Settings {
    /// Story 1.
    pub submission: submission::Options,
    /// Certificate of the listeners, if there is one.
    pub server_tls: Option<ServerTls>,
    /// Story 2.
    pub delivery: delivery::Options,
    /// Its facts.
    pub gather: gather::Options,
    /// Story 3.
    pub reporting: reporting::Options,
    /// Where the queue is kept.
    pub queue: QueueOptions,
    /// How much evidence is kept, and how long.
    pub evidence: EvidenceLimits,
    /// How much room there must be for mail to be taken.
    pub room: RoomLimits,
    /// Metrics and health over HTTP, where they are wanted.
    pub http: Option<HttpOptions>,
}

/// What the doors to the outside are made of; read once, at start.
pub struct Doors {
    /// DNS.
    pub dns: HickoryDns,
    /// HTTPS.
    pub https: https::Options,
    /// TCP.
    pub tcp: tcp::Options,
    /// TLS as a client.
    pub client_tls: Arc<ClientTls>,
    /// Which addresses may be connected to.
    pub guard: AddressGuard,
}

/// Makes all options. Blocking: reads files.
///
/// # Errors
/// One error per file or value that cannot be used.
pub fn settings(loaded: &Loaded) -> Result<Settings, Vec<ConfigError>> {
    let config = &loaded.config;
    let mut errors = Vec::new();
    let server_tls = keep(server_tls(loaded), &mut errors);
    let users = keep(users(loaded), &mut errors);
    let certificates = keep(certificates(loaded), &mut errors);
    let Some(certificates) = certificates else { return Err(errors) };
    let admin = &config.admin;
    let token = keep(admin_token(loaded, "admin.token_file", &admin.token_file), &mut errors);
    let read_token = keep(admin_token(loaded, "admin.read_token_file", &admin.read_token_file), &mut errors);
    let routes = routes(loaded).map_err(|more| errors.extend(more)).ok();
    let signers = keep(signers(loaded), &mut errors);
    let hostname = config.server.hostname.clone();
    if hostname.is_none() {
        errors.push(loaded.error("server.hostname", "is not set"));
    }
    let (Some(hostname), Some(server_tls), Some(users), Some(signers), Some(routes), Some(token)) =
        (hostname, server_tls, users, signers, routes, token)
    else {
        return Err(errors);
    };
    let Some(read_token) = read_token else { return Err(errors) };
    if token.is_some() && token == read_token {
        let text = "holds the token of admin.token_file, which would let its readers change things";
        return Err(vec![loaded.error("admin.read_token_file", text)]);
    }
    Ok(Settings {
        submission: submission_options(loaded, hostname.clone(), users, certificates),
        server_tls,
        delivery: delivery_options(loaded, hostname.clone()),
        gather: gather_options(loaded, hostname.clone(), routes),
        http: config.admin.http.clone().map(|address| {
            let hostname = hostname.clone();
            HttpOptions { address, token, read_token, hostname }
        }),
        reporting: reporting_options(loaded, hostname, signers)
            .map_err(|error| vec![loaded.error("tlsrpt.from", error)])?,
        queue: QueueOptions { data_dir: config.server.data_dir.clone(), node: config.server.node },
        room: RoomLimits { disk_free: config.limits.disk_free.0, items: config.limits.queue_items },
        evidence: EvidenceLimits { keep: config.evidence.keep.0, max_bytes: config.evidence.max_size.0 },
    })
}

fn keep<T>(result: Result<T, ConfigError>, errors: &mut Vec<ConfigError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

/// An error of a module that names the key itself, as `tls.key_file FILE: trouble`.
fn named(loaded: &Loaded, text: &str, or: &str) -> ConfigError {
    match text.split_once(' ') {
        Some((key, rest)) if super::load::known_keys().iter().any(|known| known == key) => {
            loaded.error(key, rest)
        }
        _ => loaded.error(or, text),
    }
}

/// Where a file of the configuration is.
fn located(loaded: &Loaded, key: &str, file: &Path) -> Result<PathBuf, ConfigError> {
    super::secret::locate(file).map_err(|error| loaded.error(key, error.to_string()))
}

/// The same for a key that need not be set.
fn located_if_set(
    loaded: &Loaded,
    key: &str,
    file: Option<&PathBuf>,
) -> Result<Option<PathBuf>, ConfigError> {
    file.map(|file| located(loaded, key, file)).transpose()
}

fn server_tls(loaded: &Loaded) -> Result<Option<ServerTls>, ConfigError> {
    let tls = &loaded.config.tls;
    match (&tls.certificate_file, &tls.key_file) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let certificate = located(loaded, "tls.certificate_file", certificate)?;
            let key = located(loaded, "tls.key_file", key)?;
            ServerTls::load(&certificate, &key)
                .map(Some)
                .map_err(|text| named(loaded, &text, "tls.certificate_file"))
        }
        (Some(_), None) => Err(loaded.error("tls.key_file", "is missing; tls.certificate_file is set")),
        (None, Some(_)) => Err(loaded.error("tls.certificate_file", "is missing; tls.key_file is set")),
    }
}

/// `admin.token_file`, `admin.read_token_file`: the first line.
fn admin_token(loaded: &Loaded, key: &str, file: &Option<PathBuf>) -> Result<Option<String>, ConfigError> {
    let (Some(_), Some(file)) = (&loaded.config.admin.http, file) else { return Ok(None) };
    let file = located(loaded, key, file)?;
    let wrong = |text: &str| loaded.error(key, format!("{}: {text}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|error| wrong(&error.to_string()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    let usable = token.len() >= TOKEN_BYTES_MIN && token.bytes().all(|b| b.is_ascii_graphic());
    if !usable {
        return Err(wrong(&format!(
            "the first line must be a token of at least {TOKEN_BYTES_MIN} visible ASCII characters"
        )));
    }
    Ok(Some(token.to_owned()))
}

fn signers(loaded: &Loaded) -> Result<Vec<reporting::Signer>, ConfigError> {
    let tlsrpt = &loaded.config.tlsrpt;
    let second = "tlsrpt.dkim_second_key_file";
    let keys = [
        ("tlsrpt.dkim_key_file", &tlsrpt.dkim_selector, &tlsrpt.dkim_key_file),
        (second, &tlsrpt.dkim_second_selector, &tlsrpt.dkim_second_key_file),
    ];
    let mut signers: Vec<reporting::Signer> = Vec::new();
    for (key, selector, file) in keys {
        let (Some(domain), Some(selector), Some(file)) = (&tlsrpt.dkim_domain, selector, file) else {
            continue;
        };
        let signer = reporting::Signer::load(domain.clone(), selector, &located(loaded, key, file)?)
            .map_err(|error| loaded.error(key, format!("{}: {}", error.file, error.text)))?;
        signers.push(signer);
    }
    if let [one, two] = &signers[..]
        && one.public().algorithm() == two.public().algorithm()
    {
        // RFC 8463 §3: so that who does not know one algorithm knows the other.
        let kind = one.public().algorithm();
        let text = format!("is a key of {kind}, as tlsrpt.dkim_key_file is; one is for rsa, one for ed25519");
        return Err(loaded.error(second, text));
    }
    Ok(signers)
}

fn routes(loaded: &Loaded) -> Result<Vec<Arc<StaticRoute>>, Vec<ConfigError>> {
    let (mut routes, mut errors) = (Vec::new(), Vec::new());
    for (index, route) in loaded.config.route.iter().enumerate() {
        let credentials = match (&route.username, &route.password_file) {
            (Some(username), Some(file)) => {
                let read = super::secret::read(file).map_err(|error| error.to_string());
                match read.and_then(|password| Credentials::new(username, &password)) {
                    Ok(credentials) => Some(credentials),
                    Err(text) => {
                        errors.push(loaded.error(&format!("route[{index}].password_file"), text));
                        continue;
                    }
                }
            }
            // One alone is an error: checked.
            _ => None,
        };
        let require = route.require.unwrap_or_default();
        let (whom, next_hop) = (route.domain.clone(), route.next_hop.clone());
        routes.push(Arc::new(StaticRoute::new(whom, next_hop, route.tls, require, credentials)));
    }
    if errors.is_empty() { Ok(routes) } else { Err(errors) }
}

/// Opens the doors. Blocking: reads trust anchors.
///
/// # Errors
/// One error per file or value that cannot be used.
pub fn doors(loaded: &Loaded) -> Result<Doors, Vec<ConfigError>> {
    let config = &loaded.config;
    let mut errors = Vec::new();
    let anchors = located_if_set(loaded, "dns.trust_anchor_file", config.dns.trust_anchor_file.as_ref());
    let roots = located_if_set(loaded, "tls.extra_roots_file", config.tls.extra_roots_file.as_ref());
    let (Some(anchors), Some(roots)) = (keep(anchors, &mut errors), keep(roots, &mut errors)) else {
        return Err(errors);
    };
    let dns_options = dns::Options {
        nameservers: config.dns.nameservers.iter().map(|server| server.0).collect(),
        dnssec: match config.dns.dnssec {
            Dnssec::Off => dns::Dnssec::Off,
            Dnssec::TrustAd => dns::Dnssec::TrustAd,
            Dnssec::Validate => dns::Dnssec::Validate,
        },
        trust_anchor_file: anchors,
        dnssec_probe: config.dns.dnssec_probe.clone(),
        cache_min_ttl: config.dns.cache_min_ttl.0,
        ..dns::Options::default()
    };
    let client_options =
        ClientOptions { use_system_roots: config.tls.use_system_roots, extra_roots_file: roots };
    let dns = keep(
        HickoryDns::new(dns_options).map_err(|text| named(loaded, &text, "dns.nameservers")),
        &mut errors,
    );
    let client_tls = ClientTls::new(&client_options);
    let client_tls =
        keep(client_tls.map_err(|text| named(loaded, &text, "tls.use_system_roots")), &mut errors);
    let (Some(dns), Some(client_tls)) = (dns, client_tls) else { return Err(errors) };
    Ok(Doors {
        dns,
        client_tls: client_tls.resuming(config.tls.session_lifetime.0),
        https: https::Options {
            https_port: config.mta_sts.https_port,
            fetch_timeout: config.mta_sts.fetch_timeout.0,
            require_text_plain: config.mta_sts.require_text_plain,
            ..https::Options::default()
        },
        tcp: tcp::Options {
            source_addresses: config
                .delivery
                .source_addresses
                .iter()
                .map(|source| tcp::Source { address: source.address, hostname: source.hostname.clone() })
                .collect(),
        },
        guard: AddressGuard::new(
            config.network.allow_private_destinations.iter().map(|network| network.0).collect(),
        ),
    })
}

fn submission_options(
    loaded: &Loaded,
    hostname: Domain,
    users: Users,
    certificates: Arc<Certificates>,
) -> submission::Options {
    let config = &loaded.config;
    submission::Options {
        listeners: config
            .listener
            .iter()
            .map(|listener| ListenerOptions {
                name: listener.name.clone(),
                listen: listener.listen.clone(),
                tls: match listener.tls {
                    ListenerTls::None => submission::ListenerTls::None,
                    ListenerTls::Starttls => submission::ListenerTls::StartTls,
                    ListenerTls::Implicit => submission::ListenerTls::Implicit,
                },
                auth: match listener.auth {
                    ListenerAuth::None => submission::ListenerAuth::None,
                    ListenerAuth::Optional => submission::ListenerAuth::Optional,
                    ListenerAuth::Required => submission::ListenerAuth::Required,
                },
                allow_plaintext_auth: listener.allow_plaintext_auth,
                trusted_networks: listener.trusted_networks.iter().map(|network| network.0).collect(),
                proxy_protocol: listener.proxy_protocol.iter().map(|network| network.0).collect(),
                bare_newlines: listener.bare_newlines,
                received_client: listener.received_client,
                client_certificates: listener.client_certificates,
                connections: listener.connections,
                rule: listener_rule(listener),
            })
            .collect(),
        message_size: config.limits.message_size.0,
        recipients: config.limits.recipients,
        connections: config.limits.connections,
        connections_per_address: config.limits.connections_per_address,
        command_timeout: config.limits.command_timeout.0,
        data_timeout: config.limits.data_timeout.0,
        message_timeout: config.limits.message_timeout.0,
        handshake_timeout: config.limits.handshake_timeout.0,
        errors: config.limits.errors,
        junk_commands: config.limits.junk_commands,
        refuse_suppressed: config.delivery.suppression.enabled
            && config.delivery.suppression.answer == SuppressionAnswer::Refuse,
        users,
        mechanisms: config.auth.mechanisms.clone(),
        lockout: lockout(loaded),
        certificates,
        rules: rules(loaded),
        drain_timeout: DRAIN,
        ..submission::Options::new(hostname)
    }
}

fn delivery_options(loaded: &Loaded, hostname: Domain) -> delivery::Options {
    let config = &loaded.config;
    let delivery = &config.delivery;
    let timeouts = &delivery.timeouts;
    delivery::Options {
        hostname,
        concurrency: delivery.concurrency,
        concurrency_per_destination: delivery.concurrency_per_destination,
        concurrency_per_host: delivery.concurrency_per_host,
        limits: limits(loaded),
        retry: RetryOptions {
            retry: spans(&delivery.retry),
            lifetime: delivery.lifetime.0,
            delay_warning: delivery.delay_warning.0,
        },
        timeouts: Timeouts {
            connect: timeouts.connect.0,
            greeting: timeouts.greeting.0,
            command: timeouts.command.0,
            rcpt: timeouts.rcpt.0,
            data: timeouts.data.0,
            body: timeouts.body.0,
            dot: timeouts.dot.0,
            octets_per_second: delivery.minimum_rate.0,
        },
        chunking: delivery.chunking,
        pool: pool::Options {
            idle_time: delivery.pool.idle_time.0,
            age: delivery.pool.age.0,
            messages: delivery.pool.messages,
            connections: delivery.pool.connections,
            connections_per_host: delivery.pool.connections_per_host,
        },
        dane_with_sts: config.policy.dane_with_sts,
        dane_insecure_mx: config.policy.dane_insecure_mx,
        dane_use: if config.policy.dane_audit_only { DaneUse::Audit } else { DaneUse::Enforce },
        count_for_mx_hosts: config.tlsrpt.mx_host_reports,
        overrides: overrides(loaded),
        evidence: EvidenceOptions { enabled: config.evidence.enabled, addresses: config.evidence.addresses },
        suppression: delivery.suppression.enabled.then_some(SuppressionOptions {
            after: delivery.suppression.after,
            keep: delivery.suppression.keep.0,
            answer: delivery.suppression.answer,
        }),
    }
}

fn gather_options(loaded: &Loaded, hostname: Domain, routes: Vec<Arc<StaticRoute>>) -> gather::Options {
    let config = &loaded.config;
    let own_sockets: Vec<SocketAddr> =
        config.listener.iter().flat_map(|listener| listener.listen.iter().copied()).collect();
    gather::Options {
        mta_sts: config.policy.mta_sts,
        dane: config.policy.dane && config.dns.dnssec != Dnssec::Off,
        smtp_port: config.delivery.smtp_port,
        overrides: overrides(loaded),
        own_names: vec![hostname],
        routes,
        own_sockets,
    }
}

fn reporting_options(
    loaded: &Loaded,
    hostname: Domain,
    dkim: Vec<reporting::Signer>,
) -> Result<reporting::Options, String> {
    let (tlsrpt, digest) = (&loaded.config.tlsrpt, &loaded.config.digest);
    // Without a sender nothing is sent, but `report preview` still shows what would be.
    let from = match &tlsrpt.from {
        Some(from) => from.clone(),
        None => Mailbox::new("postmaster", Destination::Domain(hostname.clone()))
            .map_err(|error| error.to_string())?,
    };
    let organization_name = tlsrpt.organization_name.clone().unwrap_or_else(|| hostname.to_string());
    let contact_info = tlsrpt.contact_info.clone().unwrap_or_else(|| from.clone());
    Ok(reporting::Options {
        enabled: tlsrpt.is_enabled(),
        dkim,
        start_delay: tlsrpt.start_delay.0,
        retry: spans(&tlsrpt.retry),
        hygiene: reporting::Hygiene {
            allow_domains: tlsrpt.allow_domains.clone(),
            deny_domains: tlsrpt.deny_domains.clone(),
            allow_targets: tlsrpt.allow_targets.clone(),
            deny_targets: tlsrpt.deny_targets.clone(),
            targets_per_domain: tlsrpt.targets_per_domain,
            reports_per_target: tlsrpt.reports_per_target,
            suppress: SuppressRule { after: tlsrpt.suppress_after, keep: tlsrpt.suppress_for.0 },
        },
        omit: Omit { sending_mta_ip: !tlsrpt.include_sending_ip, receiving_mx_helo: !tlsrpt.include_mx_helo },
        digest: reporting::DigestOptions {
            to: digest.to.clone(),
            from: digest.from.clone().unwrap_or_else(|| from.clone()),
            after: digest.after.0,
        },
        ..reporting::Options::new(hostname, organization_name, contact_info, from)
    })
}

fn limits(loaded: &Loaded) -> Vec<DestinationLimit> {
    let tables = loaded.config.delivery.destination.iter();
    tables
        .filter_map(|table| {
            // One of them is set: checked.
            let by_domain = table.domain.clone().map(Whom::Domain);
            Some(DestinationLimit {
                whom: by_domain.or_else(|| table.mx.clone().map(Whom::Mx))?,
                concurrency: table.concurrency,
                rate: table.rate,
                messages_per_connection: table.messages_per_connection,
            })
        })
        .collect()
}

fn overrides(loaded: &Loaded) -> Vec<Override> {
    loaded
        .config
        .policy
        .r#override
        .iter()
        .filter_map(|rule| {
            Some(Override {
                // One is set: checked.
                whom: rule.whom()?,
                require: rule.require,
                until: rule.until.map(|until| until.end()),
                reason: rule.reason.clone(),
            })
        })
        .collect()
}

fn spans(spans: &[super::value::Span]) -> Vec<Duration> {
    spans.iter().map(|span| span.0).collect()
}
