//! Certificates for the tests of this folder.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// A certification authority.
pub(super) struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
}

impl Ca {
    /// A root.
    pub(super) fn new() -> Self {
        Self::named(&format!("test root {}", rand::random::<u64>()))
    }

    /// A root of this name.
    pub(super) fn named(name: &str) -> Self {
        let params = ca_params(name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { params, key, pem: certificate.pem(), der: certificate.der().clone() }
    }

    /// A second certificate authority below this one, with a key that may be shared.
    pub(super) fn intermediate(&self, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params("test intermediate");
        change(&mut params);
        let key = KeyPair::from_pem(&key.serialize_pem()).unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Self { params, key, pem: certificate.pem(), der: certificate.der().clone() }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A server certificate for these names (an address gives an IP SAN).
    pub(super) fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |_| ())
    }

    /// The same, changed.
    pub(super) fn leaf_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let (params, key) = leaf_params(names, change);
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Leaf { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    /// The root as `tls.extra_roots_file`.
    pub(super) fn roots_file(&self) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("roots.pem");
        std::fs::write(&file, &self.pem).unwrap();
        (dir, file)
    }
}

/// A server's certificate and key.
pub(super) struct Leaf {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) pem: String,
    pub(super) key: KeyPair,
}

impl Leaf {
    /// Signed by nobody.
    pub(super) fn self_signed(names: &[&str]) -> Self {
        let (params, key) = leaf_params(names, |_| ());
        let certificate = params.self_signed(&key).unwrap();
        Self { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    /// With more certificates shown after it.
    pub(super) fn showing<'a>(mut self, more: impl IntoIterator<Item = &'a Ca>) -> Self {
        self.chain.extend(more.into_iter().map(|ca| ca.der.clone()));
        self
    }

    pub(super) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    pub(super) fn spki(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// An acceptor that shows this chain, whether or not the key belongs to it.
    pub(super) fn acceptor(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> tokio_rustls::TlsAcceptor {
        let provider = super::tls::provider();
        let key = provider.key_provider.load_private_key(self.key_der()).unwrap();
        let certified = rustls::sign::CertifiedKey::new(self.chain.clone(), key);
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn leaf_params(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    (params, KeyPair::generate().unwrap())
}
