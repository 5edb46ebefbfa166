//! Every configuration key with its default; `config/stsrelay.toml` shows the same for operators.
//!
//! Only shapes and defaults: layers are in `load`, what cannot be seen from a shape is in `check`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::source::SourceAddress;
use super::value::{Nameserver, Network, Size, Span, Until};
use crate::admin::HttpAddress;
use crate::delivery::pace::Rate;
use crate::delivery::pool;
use crate::delivery::static_route::{HopTls, NextHopName, RouteFor};
use crate::mail::{Domain, Mailbox, Pattern};
use crate::queue::RetryOptions;
use crate::smtp::body::BareNewlines;
use crate::smtp::client::Timeouts as ClientTimeouts;
use crate::store::suppressions::SuppressionAnswer;
use crate::submission::{
    ClientCertificates, Fingerprint, LockoutOptions, Mechanism, ReceivedClient, Sender, SubjectName,
};
use crate::tlspolicy::{DaneInsecureMx, DaneWithSts, LocalRule, Whom};
use crate::tlsrpt::record::RUA_MAX;
use crate::tlsrpt::target::TargetPattern;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who we are and where our data is.
    pub server: Server,
    /// Where mail comes in.
    pub listener: Vec<Listener>,
    /// Certificates and trust anchors.
    pub tls: Tls,
    /// What a submitter may ask for.
    pub limits: Limits,
    /// Who may submit.
    pub auth: Auth,
    /// Name resolution.
    pub dns: Dns,
    /// Mail out.
    pub delivery: Delivery,
    /// Mail that is handed to a configured next hop.
    // An empty list would stand outside all sections where the configuration is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RouteSection>,
    /// What is demanded of destinations.
    pub policy: Policy,
    /// MTA-STS fetching.
    pub mta_sts: MtaSts,
    /// Outgoing TLS reports.
    pub tlsrpt: Tlsrpt,
    /// The daily digest.
    pub digest: DigestSection,
    /// How messages travelled, kept.
    pub evidence: Evidence,
    /// Where we may connect to.
    pub network: NetworkSection,
    /// The operator's doors.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Our fully qualified name: EHLO, Received, Message-ID, Reporting-MTA. No default.
    pub hostname: Option<Domain>,
    /// Where everything that survives a restart is kept.
    pub data_dir: PathBuf,
    /// Part of every queue id; different on each relay of a fleet.
    pub node: u16,
    /// A new file of the queue's journal is begun beyond so many octets; a file's space comes back when
    /// its messages are gone. Read once, at start.
    pub journal_segment: Size,
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// For logs.
    pub name: String,
    /// Addresses and ports.
    pub listen: Vec<SocketAddr>,
    /// `none`, `starttls` or `implicit`.
    #[serde(default)]
    pub tls: ListenerTls,
    /// `none`, `optional` or `required`.
    #[serde(default)]
    pub auth: ListenerAuth,
    /// May relay without AUTH.
    #[serde(default)]
    pub trusted_networks: Vec<Network>,
    /// Offer AUTH without TLS too; passwords travel in clear.
    #[serde(default)]
    pub allow_plaintext_auth: bool,
    /// Proxies: a connection from there begins with a PROXY header and counts as its client's.
    #[serde(default)]
    pub proxy_protocol: Vec<Network>,
    /// `refuse` or `normalise`: what becomes of a message with a CR or LF alone.
    #[serde(default)]
    pub bare_newlines: BareNewlines,
    /// `full`, `omit-for-users` or `omit`: whether our Received field names the client.
    #[serde(default)]
    pub received_client: ReceivedClient,
    /// `none`, `optional` or `required`: clients are asked for a certificate.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Connections at a time, all clients together; 0: only `limits.connections` holds.
    #[serde(default)]
    pub connections: u32,
    /// Largest message here.
    #[serde(default)]
    pub message_size: Option<Size>,
    /// Messages an hour of each client without a login; 0: no limit.
    #[serde(default)]
    pub messages_per_hour: u32,
    /// The same of recipients.
    #[serde(default)]
    pub recipients_per_hour: u32,
    /// Senders that clients without a login may have, beside the null sender; empty: all.
    #[serde(default)]
    pub senders: Vec<Sender>,
    /// Hold the From field to `senders` too.
    #[serde(default)]
    pub check_from: bool,
}

/// `listener.tls`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTls {
    /// Clear text only.
    #[default]
    None,
    /// STARTTLS is offered.
    Starttls,
    /// TLS from the first octet (RFC 8314).
    Implicit,
}

/// `listener.auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerAuth {
    /// Not offered.
    #[default]
    None,
    /// Offered; needed outside the trusted networks.
    Optional,
    /// Needed by everyone.
    Required,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM chain for our listeners.
    pub certificate_file: Option<PathBuf>,
    /// Its PEM key.
    pub key_file: Option<PathBuf>,
    /// Added trust anchors (PEM) for MX hosts, policy hosts and report endpoints.
    pub extra_roots_file: Option<PathBuf>,
    /// Trust what the system trusts.
    pub use_system_roots: bool,
    /// How long after its full handshake a session with an MX host may be resumed; 0 is never.
    pub session_lifetime: Span,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message, also told in EHLO (RFC 1870).
    pub message_size: Size,
    /// Recipients per transaction; at least 100 (RFC 5321 §4.5.3.1.8).
    pub recipients: usize,
    /// Connections at a time, over all listeners; when all places are taken, who only waits loses its
    /// own to the next. Read once, at start.
    pub connections: usize,
    /// Connections at a time from one address, trusted networks excepted; more are refused.
    pub connections_per_address: usize,
    /// For one command line (RFC 5321 §4.5.3.2.7).
    pub command_timeout: Span,
    /// Between two pieces of content.
    pub data_timeout: Span,
    /// For the whole content of a message.
    pub message_timeout: Span,
    /// For a TLS handshake, and for a PROXY header.
    pub handshake_timeout: Span,
    /// Errors between two messages before a session ends.
    pub errors: u32,
    /// NOOP, RSET, VRFY, HELP and EHLO between two messages that are no errors yet.
    pub junk_commands: u32,
    /// No message is taken that would leave less of the disk free than this; 0: no such limit.
    pub disk_free: Size,
    /// Nor while the queue has so many items; 0: no such limit.
    pub queue_items: u64,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Lines `name:argon2id` and `name:{SCRAM-SHA-256}...`; made by `stsrelay user hash`.
    pub users_file: Option<PathBuf>,
    /// The only SASL mechanisms; empty: all that can be used.
    pub mechanisms: Vec<Mechanism>,
    /// Failures of a user from one network that cost nothing.
    pub failures_free: u32,
    /// The longest a network is refused after more of them.
    pub back_off_max: Span,
    /// Failures of a user from all networks together, from which on networks new to them wait.
    pub failures_of_user: u32,
    /// The longest a check, or its answer, is held back.
    pub slow_down_max: Span,
    /// How long a network is known to a user after a login.
    pub known_for: Span,
    /// Messages an hour of each user; 0: no limit.
    pub messages_per_hour: u32,
    /// Recipients an hour of each user; 0: no limit.
    pub recipients_per_hour: u32,
    /// Largest message of each user.
    pub message_size: Option<Size>,
    /// Connections at a time of each user; 0: no limit.
    pub connections: u32,
    /// Authorities (PEM) that vouch for names in client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// What single users may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<AuthUser>,
    /// Client certificates that count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_certificate: Vec<ClientCertificateSection>,
}

/// `[[auth.user]]`: where it says nothing, `[auth]` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthUser {
    /// Of the users file, or of a client certificate.
    pub name: String,
    /// Senders the user may have; empty: all.
    #[serde(default)]
    pub senders: Vec<Sender>,
    /// Hold the From field to `senders` too.
    #[serde(default)]
    pub check_from: bool,
    /// See [`Auth::messages_per_hour`].
    #[serde(default)]
    pub messages_per_hour: Option<u32>,
    /// See [`Auth::recipients_per_hour`].
    #[serde(default)]
    pub recipients_per_hour: Option<u32>,
    /// See [`Auth::message_size`].
    #[serde(default)]
    pub message_size: Option<Size>,
    /// See [`Auth::connections`].
    #[serde(default)]
    pub connections: Option<u32>,
}

/// `[[auth.client_certificate]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateSection {
    /// The user whose certificate it is.
    pub name: String,
    /// SHA-256 of certificates, or of their public keys.
    #[serde(default)]
    pub sha256: Vec<Fingerprint>,
    /// DNS names and URIs in certificates that an authority of `auth.client_ca_file` has issued.
    #[serde(default)]
    pub subject_names: Vec<SubjectName>,
}

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Empty: the system's.
    pub nameservers: Vec<Nameserver>,
    /// `off`, `trust-ad` or `validate`.
    pub dnssec: Dnssec,
    /// DS or DNSKEY records for `validate`.
    pub trust_anchor_file: Option<PathBuf>,
    /// A name known to be signed: whether it is secure shows that validation works. Empty: nobody looks.
    pub dnssec_probe: String,
    /// Keep answers at least so long.
    pub cache_min_ttl: Span,
}

/// `dns.dnssec`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dnssec {
    /// Every answer counts as insecure.
    Off,
    /// The AD bit of a validating resolver on this machine.
    TrustAd,
    /// We validate.
    Validate,
}

/// `[delivery]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Port of MX hosts.
    pub smtp_port: u16,
    /// Addresses to send from; empty: the system decides.
    pub source_addresses: Vec<SourceAddress>,
    /// Attempts at the same time.
    pub concurrency: usize,
    /// Attempts at the same time to one destination.
    pub concurrency_per_destination: usize,
    /// Attempts at the same time to one host address.
    pub concurrency_per_host: usize,
    /// Waits after the first, second, ... failed attempt; the last one repeats.
    pub retry: Vec<Span>,
    /// Then a message is given up and bounced.
    pub lifetime: Span,
    /// Then the sender is warned, once.
    pub delay_warning: Span,
    /// Content by BDAT where a host offers CHUNKING (RFC 3030).
    pub chunking: bool,
    /// Octets per second that a host must take of a message's content, on average.
    pub minimum_rate: Size,
    // Before the tables, so that an empty list shows under `[delivery]`.
    /// Limits for some destinations.
    pub destination: Vec<DestinationSection>,
    /// Recipients that do not exist.
    pub suppression: Suppression,
    /// How long to wait for MX hosts.
    pub timeouts: Timeouts,
    /// How long open connections are kept for the next message.
    pub pool: Pool,
}

/// `[delivery.pool]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Time without use.
    pub idle_time: Span,
    /// Age from which a connection is not used again.
    pub age: Span,
    /// Messages on one connection.
    pub messages: u32,
    /// Idle connections in all.
    pub connections: usize,
    /// Idle connections to one host.
    pub connections_per_host: usize,
}

/// `[[delivery.destination]]`: `domain` or `mx`, and at least one limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationSection {
    /// Each recipient domain with this name, or below it.
    pub domain: Option<Pattern>,
    /// All MX hosts with this name, or below it, together.
    pub mx: Option<Pattern>,
    /// Attempts at the same time.
    pub concurrency: Option<usize>,
    /// Attempts a unit of time.
    pub rate: Option<Rate>,
    /// Messages on one connection.
    pub messages_per_connection: Option<u32>,
}

/// `[delivery.suppression]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Suppression {
    /// Remember recipients whose mail system says that they do not exist.
    pub enabled: bool,
    /// Hard bounces after which a recipient is on the list.
    pub after: u32,
    /// How long it stays there, from the last bounce.
    pub keep: Span,
    /// What becomes of mail to it.
    pub answer: SuppressionAnswer,
}

/// `[delivery.timeouts]` (RFC 5321 §4.5.3.2)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP connection.
    pub connect: Span,
    /// 220 greeting.
    pub greeting: Span,
    /// EHLO, STARTTLS with its handshake, MAIL, RSET.
    pub command: Span,
    /// RCPT.
    pub rcpt: Span,
    /// DATA.
    pub data: Span,
    /// Each block of content.
    pub body: Span,
    /// Reply to the final dot.
    pub dot: Span,
}

/// `[[route]]`: a configured next hop for some mail, or for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSection {
    /// Recipient domains: one, all below a name, or `*` for all mail.
    pub domain: RouteFor,
    /// Where it goes.
    pub next_hop: NextHopName,
    /// How TLS begins there.
    #[serde(default)]
    pub tls: HopTls,
    /// What the next hop must show.
    #[serde(default)]
    pub require: Option<LocalRule>,
    /// With what we log in.
    #[serde(default)]
    pub username: Option<String>,
    /// The password to it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Discover and enforce MTA-STS.
    pub mta_sts: bool,
    /// Look for TLSA records and enforce them.
    pub dane: bool,
    /// What must pass where both apply.
    pub dane_with_sts: DaneWithSts,
    /// Whether TLSA records count for hosts named by MX records without DNSSEC.
    pub dane_insecure_mx: DaneInsecureMx,
    /// TLSA records are looked at, logged and reported, and stop nothing.
    pub dane_audit_only: bool,
    /// Local rules.
    pub r#override: Vec<Override>,
}

/// `[[policy.override]]`: `domain` or `mx`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Recipient domains: one, or all below a name.
    #[serde(default)]
    pub domain: Option<Pattern>,
    /// MX hosts likewise, whatever the recipient domain.
    #[serde(default)]
    pub mx: Option<Pattern>,
    /// What is demanded.
    pub require: LocalRule,
    /// In force up to and with this day; without it, for ever.
    #[serde(default)]
    pub until: Option<Until>,
    /// For the log.
    #[serde(default)]
    pub reason: String,
}

/// `[mta_sts]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MtaSts {
    /// Port of policy hosts.
    pub https_port: u16,
    /// For a whole fetch (RFC 8461 §3.3).
    pub fetch_timeout: Span,
    /// Policies that do not come as text/plain are none (RFC 8461 §3.2).
    pub require_text_plain: bool,
}

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

/// `[evidence]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evidence {
    /// Keep how each delivery attempt went: policy, TLSA records, certificates, TLS, verdict, reply.
    pub enabled: bool,
    /// Dropped after this.
    pub keep: Span,
    /// The oldest is dropped beyond this.
    pub max_size: Size,
    /// With senders' and recipients' addresses; otherwise with the recipient domain alone.
    pub addresses: bool,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSection {
    /// Networks we may connect to though they are not globally routable.
    pub allow_private_destinations: Vec<Network>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Unix socket for the command line.
    pub socket: PathBuf,
    /// Metrics, health, the API: an address, or `unix:/PATH`.
    pub http: Option<HttpAddress>,
    /// Holds the token asked for there; needed where that address is not loopback.
    pub token_file: Option<PathBuf>,
    /// Holds a token that reads and changes nothing.
    pub read_token_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text`, `json` or `journald`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,stsrelay::net=debug`.
    pub level: String,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people, on standard error.
    Text,
    /// One object a line, on standard error.
    Json,
    /// Fields for systemd's journal.
    Journald,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            listener: vec![Listener {
                name: "smarthost".to_owned(),
                listen: vec![
                    SocketAddr::from(([127, 0, 0, 1], 2525)),
                    SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 2525),
                ],
                tls: ListenerTls::None,
                auth: ListenerAuth::None,
                trusted_networks: ["127.0.0.0/8", "::1/128"]
                    .map(|text| text.parse().expect("a constant network"))
                    .to_vec(),
                allow_plaintext_auth: false,
                proxy_protocol: Vec::new(),
                bare_newlines: BareNewlines::default(),
                received_client: ReceivedClient::default(),
                client_certificates: ClientCertificates::default(),
                connections: 0,
                message_size: None,
                messages_per_hour: 0,
                recipients_per_hour: 0,
                senders: Vec::new(),
                check_from: false,
            }],
            tls: Tls::default(),
            limits: Limits::default(),
            auth: Auth::default(),
            dns: Dns::default(),
            delivery: Delivery::default(),
            route: Vec::new(),
            policy: Policy::default(),
            mta_sts: MtaSts::default(),
            tlsrpt: Tlsrpt::default(),
            digest: DigestSection::default(),
            evidence: Evidence::default(),
            network: NetworkSection::default(),
            admin: Admin::default(),
            log: Log::default(),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        let lockout = LockoutOptions::default();
        Self {
            users_file: None,
            mechanisms: Vec::new(),
            failures_free: lockout.failures_free,
            back_off_max: Span(lockout.back_off_max),
            failures_of_user: lockout.failures_of_user,
            slow_down_max: Span(lockout.slow_down_max),
            known_for: Span(lockout.known_for),
            messages_per_hour: 0,
            recipients_per_hour: 0,
            message_size: None,
            connections: 0,
            client_ca_file: None,
            user: Vec::new(),
            client_certificate: Vec::new(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            hostname: None,
            data_dir: PathBuf::from("/var/lib/stsrelay"),
            node: 1,
            journal_segment: Size(64 << 20),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate_file: None,
            key_file: None,
            extra_roots_file: None,
            use_system_roots: true,
            session_lifetime: seconds(3600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: Size(50_000_000),
            recipients: 1000,
            connections: 1000,
            connections_per_address: 50,
            command_timeout: seconds(300),
            data_timeout: seconds(300),
            message_timeout: seconds(3600),
            handshake_timeout: seconds(30),
            errors: 10,
            junk_commands: 100,
            disk_free: Size(256_000_000),
            queue_items: 1_000_000,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            dnssec: Dnssec::TrustAd,
            trust_anchor_file: None,
            dnssec_probe: ".".to_owned(),
            cache_min_ttl: seconds(0),
        }
    }
}

const fn seconds(count: u64) -> Span {
    Span(std::time::Duration::from_secs(count))
}

impl Default for Delivery {
    fn default() -> Self {
        let retry = RetryOptions::default();
        Self {
            smtp_port: 25,
            source_addresses: Vec::new(),
            concurrency: 500,
            concurrency_per_destination: 20,
            concurrency_per_host: 50,
            retry: retry.retry.into_iter().map(Span).collect(),
            lifetime: Span(retry.lifetime),
            delay_warning: Span(retry.delay_warning),
            chunking: true,
            minimum_rate: Size(ClientTimeouts::default().octets_per_second),
            suppression: Suppression::default(),
            timeouts: Timeouts::default(),
            destination: Vec::new(),
            pool: Pool::default(),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        let of = pool::Options::default();
        Self {
            idle_time: Span(of.idle_time),
            age: Span(of.age),
            messages: of.messages,
            connections: of.connections,
            connections_per_host: of.connections_per_host,
        }
    }
}

impl Default for Suppression {
    fn default() -> Self {
        let month = std::time::Duration::from_secs(30 * 86_400);
        Self { enabled: false, after: 2, keep: Span(month), answer: SuppressionAnswer::Refuse }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let of = ClientTimeouts::default();
        Self {
            connect: Span(of.connect),
            greeting: Span(of.greeting),
            command: Span(of.command),
            rcpt: Span(of.rcpt),
            data: Span(of.data),
            body: Span(of.body),
            dot: Span(of.dot),
        }
    }
}

impl Override {
    /// Whom it is for; absent where the shape is right and neither key is set.
    pub fn whom(&self) -> Option<Whom> {
        let by_domain = self.domain.clone().map(Whom::Domain);
        by_domain.or_else(|| self.mx.clone().map(Whom::Mx))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mta_sts: true,
            dane: true,
            dane_with_sts: DaneWithSts::Both,
            dane_insecure_mx: DaneInsecureMx::Use,
            dane_audit_only: false,
            r#override: Vec::new(),
        }
    }
}

impl Default for Evidence {
    fn default() -> Self {
        Self { enabled: true, keep: seconds(30 * 86_400), max_size: Size(1_000_000_000), addresses: true }
    }
}

impl Default for MtaSts {
    fn default() -> Self {
        Self { https_port: 443, fetch_timeout: seconds(60), require_text_plain: true }
    }
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

impl Default for Admin {
    fn default() -> Self {
        let socket = PathBuf::from("/run/stsrelay/admin.sock");
        Self { socket, http: None, token_file: None, read_token_file: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl Tlsrpt {
    /// Whether reports are sent.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(self.from.is_some())
    }
}
