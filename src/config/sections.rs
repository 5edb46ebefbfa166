//! Every configuration key with its default; `config/stsrelay.toml` shows the same for operators.
//!
//! Only shapes and defaults: layers are in `load`, what cannot be seen from a shape is in `check`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::value::{Nameserver, Network, Size, Span};
use crate::admin::HttpAddress;
use crate::mail::Domain;
use crate::smtp::body::BareNewlines;
use crate::submission::{ClientCertificates, ReceivedClient};

mod incoming;
mod outgoing;
mod reports;
mod rules;

pub use incoming::*;
pub use outgoing::*;
pub use reports::*;
pub use rules::*;

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

impl Default for Evidence {
    fn default() -> Self {
        Self { enabled: true, keep: seconds(30 * 86_400), max_size: Size(1_000_000_000), addresses: true }
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
