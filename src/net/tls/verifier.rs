//! The one `ServerCertVerifier`: lets every certificate pass, and no bad handshake signature.
//!
//! For connections whose certificate is judged afterwards (MX hosts), and for TLS-RPT endpoints,
//! whose certificate errors are told in the log and otherwise ignored (RFC 8460 §3). Policy hosts
//! are never connected to with it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::pkix;
use crate::net::world::{Clock, SystemClock};

/// See the module.
#[derive(Debug)]
pub(in crate::net) struct Recording {
    algorithms: WebPkiSupportedAlgorithms,
    tell: Option<Arc<RootCertStore>>,
}

impl Recording {
    /// Says nothing: the caller judges the chain after the handshake.
    pub(super) fn quiet() -> Arc<Self> {
        Arc::new(Self { algorithms: super::provider().signature_verification_algorithms, tell: None })
    }

    /// Logs what is wrong with a chain under these roots, and lets it pass.
    pub(in crate::net) fn telling(roots: Arc<RootCertStore>) -> Arc<Self> {
        Arc::new(Self { algorithms: super::provider().signature_verification_algorithms, tell: Some(roots) })
    }
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.tell {
            let chain: Vec<_> = std::iter::once(end_entity)
                .chain(intermediates)
                .map(|der| der.clone().into_owned())
                .collect();
            if let Err(failure) = pkix::judge(&chain, server_name, roots, SystemClock.now()) {
                let host = server_name.to_str();
                tracing::warn!(%host, %failure, "certificate of a report endpoint ignored");
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
