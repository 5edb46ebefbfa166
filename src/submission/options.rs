//! How mail comes in: one [`Options`], made by the configuration, replaced whole at a reload.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::certificates::Certificates;
use super::lockout::LockoutOptions;
use super::quota::{Rule, Rules};
use super::sasl::Mechanism;
use super::users::Users;
use crate::mail::Domain;
use crate::smtp::body::BareNewlines;

/// How mail comes in.
#[derive(Debug, Clone)]
pub struct Options {
    /// Our name in the greeting, EHLO reply, Received and Message-ID; completes `<Postmaster>`.
    pub hostname: Domain,
    /// Where we listen. At a reload, all but its addresses takes effect for new connections to a
    /// listener of the same name; sockets stay as they are.
    pub listeners: Vec<ListenerOptions>,
    /// Largest message in octets, told by SIZE (RFC 1870); 0 for no limit. Default 50 MB.
    pub message_size: u64,
    /// Recipients per transaction; at least 100 (RFC 5321 §4.5.3.1.8). Default 1000.
    pub recipients: usize,
    /// Connections at a time, over all listeners. When all places are taken the next connection gets that
    /// of a client that only waits; otherwise it waits itself. Default 1000. Read once, when serving
    /// starts.
    pub connections: usize,
    /// Connections at a time from one IPv4 address or one IPv6 /64, trusted networks excepted; more
    /// are answered with 421. Default 50.
    pub connections_per_address: usize,
    /// For one whole command line, from the reply before it (RFC 5321 §4.5.3.2.7). Default 5 min.
    pub command_timeout: Duration,
    /// Between two pieces of a message's content. Default 5 min.
    pub data_timeout: Duration,
    /// For the whole content of one message. Default 1 h.
    pub message_timeout: Duration,
    /// For a TLS handshake, and for a PROXY header. Default 30 s.
    pub handshake_timeout: Duration,
    /// Lines that are no valid command here, and refusals of those who may not submit, between two
    /// messages, before a session ends. Default 10.
    pub errors: u32,
    /// Commands that lead nowhere (NOOP, RSET, VRFY, HELP, EHLO) between two messages; more count as
    /// errors. Default 100.
    pub junk_commands: u32,
    /// After shutdown was asked for: how long a message in transfer may take to end. Default 30 s.
    pub drain_timeout: Duration,
    /// Refuse recipients on the suppression list, but for mail from the null path. Default no.
    pub refuse_suppressed: bool,
    /// Who may authenticate; read with [`Users::load`] from `auth.users_file`.
    pub users: Users,
    /// The only ways to authenticate; empty: all that can be used.
    pub mechanisms: Vec<Mechanism>,
    /// How failed logins are answered.
    pub lockout: LockoutOptions,
    /// Whose client certificates count.
    pub certificates: Arc<Certificates>,
    /// What each user may do.
    pub rules: Rules,
}

impl Options {
    /// The defaults named at each field, without listeners and users.
    pub fn new(hostname: Domain) -> Self {
        Self {
            hostname,
            listeners: Vec::new(),
            message_size: 50_000_000,
            recipients: 1000,
            connections: 1000,
            connections_per_address: 50,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(300),
            message_timeout: Duration::from_secs(3600),
            handshake_timeout: Duration::from_secs(30),
            errors: 10,
            junk_commands: 100,
            drain_timeout: Duration::from_secs(30),
            refuse_suppressed: false,
            users: Users::default(),
            mechanisms: Vec::new(),
            lockout: LockoutOptions::default(),
            certificates: Arc::default(),
            rules: Rules::default(),
        }
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerOptions {
    /// For logs and errors; unique.
    pub name: String,
    /// Addresses and ports.
    pub listen: Vec<SocketAddr>,
    /// When TLS starts.
    pub tls: ListenerTls,
    /// Who must authenticate.
    pub auth: ListenerAuth,
    /// Offer AUTH without TLS too; passwords then travel in clear. Default no.
    pub allow_plaintext_auth: bool,
    /// May relay without AUTH, unless `auth` is `required`.
    pub trusted_networks: Vec<IpNet>,
    /// Proxies: a connection from there must begin with a PROXY header, and is treated as one from the
    /// client named in it. Connections from elsewhere must not. Default none.
    pub proxy_protocol: Vec<IpNet>,
    /// What a CR or LF alone is in DATA content. Default refused.
    pub bare_newlines: BareNewlines,
    /// Whether the Received field names the client. Default yes.
    pub received_client: ReceivedClient,
    /// Whether clients are asked for a certificate. Default no.
    pub client_certificates: ClientCertificates,
    /// Connections at a time, all clients together; 0 for no limit but the one for all listeners.
    /// Default 0.
    pub connections: u32,
    /// What each client without a login may do; its size holds for users too, its connections for nobody.
    pub rule: Rule,
}

impl ListenerOptions {
    /// A listener without TLS, AUTH and trusted networks.
    pub fn new(name: &str, listen: Vec<SocketAddr>) -> Self {
        Self {
            name: name.to_owned(),
            listen,
            tls: ListenerTls::None,
            auth: ListenerAuth::None,
            allow_plaintext_auth: false,
            trusted_networks: Vec::new(),
            proxy_protocol: Vec::new(),
            bare_newlines: BareNewlines::default(),
            received_client: ReceivedClient::default(),
            client_certificates: ClientCertificates::default(),
            connections: 0,
            rule: Rule::default(),
        }
    }

    /// Whether an address is in a trusted network. An IPv4 address mapped into IPv6, as a
    /// dual-stack socket gives it, counts as the IPv4 address it is.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted_networks.iter().any(|network| network.contains(&ip))
    }

    /// Whether an address is one of the proxies that must tell whom they speak for.
    pub fn is_proxy(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.proxy_protocol.iter().any(|network| network.contains(&ip))
    }
}

/// Whether our Received field tells the client's name and address to everyone who gets the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReceivedClient {
    /// It does.
    #[default]
    Full,
    /// Not for clients that have authenticated: people, and where they are.
    OmitForUsers,
    /// Never.
    Omit,
}

/// Whether clients are asked for a certificate in the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    None,
    /// Who shows a listed one may submit, without AUTH unless that is required.
    Optional,
    /// Nobody submits without a listed one.
    Required,
}

/// When TLS starts on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListenerTls {
    /// Never: clear text only.
    #[default]
    None,
    /// After STARTTLS (RFC 3207).
    StartTls,
    /// With the first octet (RFC 8314 §3.3).
    Implicit,
}

/// Who must authenticate on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListenerAuth {
    /// Nobody can; only trusted networks relay.
    #[default]
    None,
    /// Everyone outside the trusted networks.
    Optional,
    /// Everyone, trusted networks too.
    Required,
}
