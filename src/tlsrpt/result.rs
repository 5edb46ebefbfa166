//! What one TLS session contributes to a report (RFC 8460 §4.2, §4.3).

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mail::Domain;

/// The registered result types (IANA "STARTTLS Validation Result Types"); a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultType {
    /// EHLO lacks STARTTLS, or the command was refused (§4.3.1).
    StarttlsNotSupported,
    /// The certificate does not name the host (§4.3.1).
    CertificateHostMismatch,
    /// The certificate is past its end (§4.3.1).
    CertificateExpired,
    /// No chain to a trusted root (§4.3.1).
    CertificateNotTrusted,
    /// Anything else: handshake alert, MX not in policy (§4.3.3).
    ValidationFailure,
    /// No TLSA record matches or is valid (§4.3.2.1).
    TlsaInvalid,
    /// The resolver gave no valid records (§4.3.2.1).
    DnssecInvalid,
    /// Local rule demands DANE and there is none (§4.3.2.1).
    DaneRequired,
    /// The policy could not be retrieved (§4.3.2.2).
    StsPolicyFetchError,
    /// Retrieved and not valid (§4.3.2.2).
    StsPolicyInvalid,
    /// The policy host failed PKIX (§4.3.2.2).
    StsWebpkiInvalid,
}

/// `policy-type` (RFC 8460 §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyType {
    /// DANE.
    Tlsa,
    /// MTA-STS.
    Sts,
    /// Neither applied.
    NoPolicyFound,
}

/// The policy a session is counted under; equal policies share one entry of a report.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppliedPolicy {
    /// Which kind.
    pub policy_type: PolicyType,
    /// Recipient or next-hop domain; for `tlsa` the TLSA base domain (§4.4).
    pub policy_domain: Domain,
    /// One string per policy line or TLSA record; empty for `no-policy-found`.
    pub policy_string: Arc<[String]>,
    /// The `mx` patterns, only for `sts`.
    pub mx_host: Arc<[String]>,
}

/// One way a session failed; equal details are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailureDetail {
    /// Which result type.
    pub result_type: ResultType,
    /// Our address on that connection; absent where no connection was made.
    pub sending_mta_ip: Option<IpAddr>,
    /// The MX record's name.
    pub receiving_mx_hostname: Option<String>,
    /// The name in its banner or EHLO reply.
    pub receiving_mx_helo: Option<String>,
    /// Its address.
    pub receiving_ip: Option<IpAddr>,
    /// Short text, at most 200 characters, no secrets.
    pub failure_reason_code: Option<String>,
}

/// What one session says about one policy. A session under two policies makes two of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionResult {
    /// Whose `_smtp._tls` record gets the report: the recipient or next-hop domain.
    pub report_domain: Domain,
    /// The policy it is counted under.
    pub policy: AppliedPolicy,
    /// Empty: the session met the policy. Otherwise what failed; the session counts once as failed.
    pub failures: Vec<FailureDetail>,
}
