//! The one total map from what went wrong in TLS to the RFC 8460 §4.3 result type.

use serde::{Deserialize, Serialize};

use crate::tlsrpt::ResultType;

/// Why TLS, or the proof wanted of it, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TlsFailure {
    /// EHLO did not offer STARTTLS, or the command was refused (text says which).
    #[error("STARTTLS not available: {0}")]
    NotOffered(String),
    /// The certificate does not prove what is required.
    #[error("{0}")]
    Certificate(CertificateFailure),
    /// Handshake alert, protocol or cipher mismatch, garbage instead of TLS.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// Bytes arrived between the STARTTLS reply and the handshake (RFC 3207 §4.2; CVE-2011-0411).
    #[error("data injected after the STARTTLS reply")]
    Injected,
    /// The connection broke or timed out during the handshake.
    #[error("connection lost during TLS handshake: {0}")]
    Lost(String),
    /// No TLSA record matches (RFC 7672 §3).
    #[error("no TLSA record matches the certificate")]
    TlsaMismatch,
}

/// What is wrong with a certificate chain under PKIX (RFC 5280, RFC 6125).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CertificateFailure {
    /// Past notAfter.
    #[error("certificate has expired ({0})")]
    Expired(String),
    /// No SAN DNS-ID matches (CN never counts).
    #[error("certificate does not name the host ({0})")]
    NameMismatch(String),
    /// No chain to a trusted root, not yet valid, bad signature, constraint, self-signed.
    #[error("certificate is not trusted ({0})")]
    NotTrusted(String),
}

impl TlsFailure {
    /// The result type to report.
    pub fn result_type(&self) -> ResultType {
        match self {
            Self::NotOffered(_) => ResultType::StarttlsNotSupported,
            Self::Certificate(failure) => failure.result_type(),
            Self::Handshake(_) | Self::Injected | Self::Lost(_) => ResultType::ValidationFailure,
            Self::TlsaMismatch => ResultType::TlsaInvalid,
        }
    }
}

impl CertificateFailure {
    /// The result type to report.
    pub fn result_type(&self) -> ResultType {
        match self {
            Self::Expired(_) => ResultType::CertificateExpired,
            Self::NameMismatch(_) => ResultType::CertificateHostMismatch,
            Self::NotTrusted(_) => ResultType::CertificateNotTrusted,
        }
    }
}
