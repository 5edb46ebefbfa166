//! A test CA and leaf certificates of every kind.

use std::sync::Arc;

use jiff::ToSpan;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use stsrelay::net::{Clock, SystemClock};

/// A certification authority.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
}

/// What is wrong with a certificate, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Good,
    /// notAfter has passed.
    Expired,
    /// notAfter is some days ahead.
    EndsSoon,
    /// Signed by itself.
    SelfSigned,
    /// Only a CN, no SAN.
    CommonNameOnly,
}

impl Pki {
    /// A new CA.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no trouble");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "stsrelay test CA");
        let key = KeyPair::generate().expect("a key can be made");
        let root = params.self_signed(&key).expect("a root can be made");
        Self { issuer: Issuer::new(params, key), root }
    }

    /// The root in PEM, for `tls.extra_roots_file`.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The root in DER.
    pub fn root_der(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// A leaf for these names.
    pub fn leaf(&self, names: &[&str], kind: Kind) -> Leaf {
        let sans: Vec<String> = match kind {
            Kind::CommonNameOnly => Vec::new(),
            _ => names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut params = CertificateParams::new(sans).expect("test names are names");
        params.distinguished_name.push(DnType::CommonName, *names.first().unwrap_or(&"nobody"));
        if kind == Kind::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        if kind == Kind::EndsSoon {
            let end = SystemClock.now().to_zoned(TimeZone::UTC).date().saturating_add(5.days());
            let (month, day) = (end.month().unsigned_abs(), end.day().unsigned_abs());
            params.not_after = date_time_ymd(end.year().into(), month, day);
        }
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = match kind {
            Kind::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        }
        .expect("a leaf can be made");
        Leaf { certificate, key }
    }
}

/// A leaf certificate and its key.
pub struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Leaf {
    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// The key's SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// The key in DER, PKCS#8.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The key in PEM, PKCS#8.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A server with this certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = self.key_der();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has safe versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .expect("the key fits the certificate");
        Arc::new(config)
    }
}
