//! How mail comes in: `[[listener]]`, `[tls]`, `[limits]`, `[auth]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::value::{Network, Size, Span};
use super::seconds;
use crate::smtp::body::BareNewlines;
use crate::submission::{
    ClientCertificates, Fingerprint, LockoutOptions, Mechanism, ReceivedClient, Sender, SubjectName,
};

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
