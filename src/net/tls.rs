//! TLS as a client towards MX hosts, and as a server towards submitters. The only
//! `ServerCertVerifier` of the crate.
//!
//! The handshake always completes where it can; what the certificate proves under PKIX is recorded
//! in [`TlsFacts`] and held against the plan by [`TlsFacts::verify`], so that a testing policy can be
//! reported on a session that is used all the same.

use std::sync::Arc;

use super::tcp::Stream;
use crate::mail::Domain;
use crate::tlspolicy::{CertificateFailure, Requirement, TlsFailure};

/// What is known of an established session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// IANA name, e.g. `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The name given in SNI and held against the certificate.
    pub name: Domain,
    /// Whether the chain is PKIX-valid for `name` now.
    pub pkix: Result<(), CertificateFailure>,
    /// SHA-256 over the chain's DER certificates in order, hex.
    pub chain_sha256: String,
}

impl TlsFacts {
    /// Holds the session against a requirement.
    ///
    /// # Errors
    /// What is missing.
    pub fn verify(&self, require: &Requirement) -> Result<(), TlsFailure> {
        todo!()
    }
}

/// The client side. Cheap to clone behind its `Arc`.
pub struct ClientTls {
    _private: (),
}

impl ClientTls {
    /// A TLS handshake over a connection after STARTTLS, with SNI `name` (RFC 8461 §7.1).
    ///
    /// TLS 1.2 and 1.3 only. Certificates are judged but not refused here; see [`TlsFacts::verify`].
    ///
    /// # Errors
    /// [`TlsFailure::Handshake`] or [`TlsFailure::Lost`].
    pub async fn handshake(
        self: &Arc<Self>,
        stream: Box<dyn Stream>,
        name: &Domain,
    ) -> Result<(Box<dyn Stream>, TlsFacts), TlsFailure> {
        let _ = (stream, name);
        todo!()
    }
}
