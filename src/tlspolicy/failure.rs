//! The one total map from what went wrong in TLS to the RFC 8460 §4.3 result type.

use serde::{Deserialize, Serialize};

use crate::tlsrpt::ResultType;

/// Why TLS, or the proof wanted of it, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TlsFailure {
    /// EHLO did not offer STARTTLS, or EHLO itself was refused (text says which).
    #[error("STARTTLS not available: {0}")]
    NotOffered(String),
    /// EHLO offered STARTTLS and the command was refused: a host that can, and would not now.
    #[error("STARTTLS not available: {0}")]
    Refused(String),
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
            // RFC 8460 §4.3.1: one type for both.
            Self::NotOffered(_) | Self::Refused(_) => ResultType::StarttlsNotSupported,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_registered_result_type() {
        let text = || "x".to_owned();
        for (failure, name) in [
            (TlsFailure::NotOffered(text()), "starttls-not-supported"),
            (TlsFailure::Refused(text()), "starttls-not-supported"),
            (TlsFailure::Certificate(CertificateFailure::Expired(text())), "certificate-expired"),
            (TlsFailure::Certificate(CertificateFailure::NameMismatch(text())), "certificate-host-mismatch"),
            (TlsFailure::Certificate(CertificateFailure::NotTrusted(text())), "certificate-not-trusted"),
            (TlsFailure::Handshake(text()), "validation-failure"),
            (TlsFailure::Injected, "validation-failure"),
            (TlsFailure::Lost(text()), "validation-failure"),
            (TlsFailure::TlsaMismatch, "tlsa-invalid"),
        ] {
            let json = serde_json::to_string(&failure.result_type()).unwrap();
            assert_eq!(json, format!("\"{name}\""), "{failure:?}");
        }
    }

    #[test]
    fn every_cause_reads_as_a_sentence_of_its_own() {
        let expired = CertificateFailure::Expired("on 2026-01-01".to_owned());
        assert_eq!(TlsFailure::Certificate(expired).to_string(), "certificate has expired (on 2026-01-01)");
        assert_eq!(
            TlsFailure::NotOffered("not in the EHLO reply".to_owned()).to_string(),
            "STARTTLS not available: not in the EHLO reply"
        );
    }
}
