//! The one `ServerCertVerifier`: lets every certificate pass, and no bad handshake signature.
//!
//! For connections whose certificate is judged afterwards (MX hosts), and for TLS-RPT endpoints,
//! whose certificate errors are told in the log and otherwise ignored (RFC 8460 §3). Policy hosts
//! are never connected to with it. Certificates that PKIX validation cannot read serve for
//! encryption all the same; their key must have signed the handshake like any other.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::pkix;
use crate::dane::x509;
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

impl Recording {
    /// What the library does for TLS 1.2, for a certificate it cannot read.
    fn verify_with_bare_key(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Option<HandshakeSignatureValid> {
        let info = x509::public_key(cert)?;
        let (_, candidates) = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme)?;
        let verified = candidates.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == info.algorithm
                && algorithm.verify_signature(info.key, message, dss.signature()).is_ok()
        });
        verified.then(HandshakeSignatureValid::assertion)
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
        match ParsedCertificate::try_from(cert) {
            Ok(_) => verify_tls12_signature(message, cert, dss, &self.algorithms),
            Err(unreadable) => self.verify_with_bare_key(message, cert, dss).ok_or(unreadable),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let unreadable = match ParsedCertificate::try_from(cert) {
            Ok(_) => return verify_tls13_signature(message, cert, dss, &self.algorithms),
            Err(error) => error,
        };
        let key = x509::public_key(cert).ok_or(unreadable)?;
        let key = SubjectPublicKeyInfoDer::from(key.der);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
