//! TLS towards submitters: certificate and key from PEM files, and what a session negotiated.
//!
//! A [`ServerTls`] never changes; a reload loads another one and hands it to new connections.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::clients::AnyCertificate;
use crate::dane::x509;

/// A certificate chain with its key, ready to accept. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// The same, asking clients for a certificate; with sessions of its own, which keep that.
    asking: Arc<ServerConfig>,
    ends_at: Option<Timestamp>,
}

impl ServerTls {
    /// Reads both files and proves that they belong together. Blocking. To reload, load again.
    ///
    /// # Errors
    /// One sentence: which file, what is wrong.
    pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Self, String> {
        let chain = read_chain(certificate_file)?;
        let key = read_key(key_file)?;
        // Any certificate of a chain that ends makes the chain end.
        let ends_at = chain.iter().filter_map(|certificate| x509::told(certificate)?.not_after).min();
        let provider = super::provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "tls.key_file {} does not belong to the first certificate of tls.certificate_file {}",
                key_file.display(),
                certificate_file.display()
            ),
            Error::InvalidCertificate(_) => format!(
                "tls.certificate_file {}: the first certificate cannot be used: {error}",
                certificate_file.display()
            ),
            _ => format!("tls.key_file {}: the key cannot be used: {error}", key_file.display()),
        })?;
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let builder = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                // RFC 8996: nothing below TLS 1.2.
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .map_err(|error| format!("TLS cannot be set up: {error}"))
        };
        let config = builder()?.with_no_client_auth().with_cert_resolver(resolver.clone());
        let anybody = Arc::new(AnyCertificate::new());
        let asking = builder()?.with_client_cert_verifier(anybody).with_cert_resolver(resolver);
        Ok(Self { config: Arc::new(config), asking: Arc::new(asking), ends_at })
    }

    /// When the first certificate of the chain ends; `None` when none of them tells.
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.ends_at
    }

    /// For a new connection, at once or after STARTTLS.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// The same, asking the client for a certificate, and taking any or none.
    pub fn asking_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.asking))
    }
}

/// What a submitter's session negotiated, for `Received` (RFC 8314 §7.4) and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// IANA name, e.g. `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
}

impl ServerFacts {
    /// Reads them off an established session.
    pub fn of(session: &rustls::ServerConnection) -> Self {
        Self {
            version: super::version(session.protocol_version()),
            cipher: super::cipher(session.negotiated_cipher_suite()),
        }
    }
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let what = |text: String| format!("tls.certificate_file {}: {text}", file.display());
    let pem = std::fs::read(file).map_err(|error| what(format!("cannot be read: {error}")))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| what(format!("not valid PEM: {error}")))?;
    if chain.is_empty() {
        return Err(what("holds no certificate in PEM form".into()));
    }
    Ok(chain)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let what = |text: String| format!("tls.key_file {}: {text}", file.display());
    let pem = std::fs::read(file).map_err(|error| what(format!("cannot be read: {error}")))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound => what("holds no unencrypted private key in PEM form".into()),
        error => what(format!("not valid PEM: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::Ca;

    #[test]
    fn nothing_is_taken_before_the_handshake_ends_and_sessions_are_kept_here_alone() {
        let leaf = Ca::new().leaf(&["relay.test"]);
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(&certificate, &leaf.pem).unwrap();
        std::fs::write(&key, leaf.key.serialize_pem()).unwrap();
        let server = ServerTls::load(&certificate, &key).unwrap();
        // RFC 9325 §3.10: SMTP has no profile for early data.
        assert_eq!((server.config.max_early_data_size, server.asking.max_early_data_size), (0, 0));
        // §3.4: no ticket that a key of ours would have to be rotated for.
        assert!(!server.config.ticketer.enabled());
        assert!(server.ends_at().is_some());
    }
}
