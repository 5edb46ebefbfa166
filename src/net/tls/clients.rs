//! Certificates of clients: asking for them, and what one says and proves.
//!
//! The handshake takes any certificate whose key the client shows to have; whether that counts for
//! anything is asked afterwards, with today's lists, also of a resumed session. So a client with a
//! certificate that is not listed is not cut off by an alert nobody can read. Called by [`super::ServerTls`]
//! and `submission::certificates`.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

/// Asks for a certificate and takes any, or none.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    pub(super) fn new() -> Self {
        Self { algorithms: super::provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: with a list of names a client might keep one back that is listed by its fingerprint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        ParsedCertificate::try_from(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a client's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate.
    pub sha256: [u8; 32],
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key_sha256: [u8; 32],
    /// Its subject alternative names that are DNS names, without wildcards, and URIs.
    pub names: Vec<String>,
}

impl ClientCertificate {
    /// Reads one; `None` for what is no certificate, which no handshake lets through.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let parsed = EndEntityCert::try_from(der).ok()?;
        let names = parsed.valid_dns_names().filter(|name| !name.contains('*'));
        Some(Self {
            sha256: sha256(der),
            key_sha256: sha256(&parsed.subject_public_key_info()),
            names: names.chain(parsed.valid_uri_names()).map(str::to_owned).collect(),
        })
    }
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    out
}

/// Certification authorities whose clients are known by the names in their certificates.
#[derive(Debug, Clone)]
pub struct ClientAuthorities {
    roots: RootCertStore,
}

impl ClientAuthorities {
    /// Reads them from a PEM file. Blocking.
    ///
    /// # Errors
    /// One sentence: the file, what is wrong.
    pub fn load(file: &Path) -> Result<Self, String> {
        let what = |text: String| format!("{}: {text}", file.display());
        let pem = std::fs::read(file).map_err(|error| what(format!("cannot be read: {error}")))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| what(format!("not valid PEM: {error}")))?;
            roots.add(certificate).map_err(|error| what(format!("a certificate cannot be used: {error}")))?;
        }
        if roots.is_empty() {
            return Err(what("holds no certificate in PEM form".into()));
        }
        Ok(Self { roots })
    }

    /// Whether a chain, the client's own certificate first, leads to one of them at `now`, for use by a
    /// client (RFC 5280 §4.2.1.12).
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), String> {
        let (leaf, intermediates) = chain.split_first().ok_or("there is no certificate")?;
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let algorithms = super::provider().signature_verification_algorithms.all;
        let anchors = &self.roots.roots;
        let verified = EndEntityCert::try_from(leaf).and_then(|leaf| {
            let usage = KeyUsage::client_auth();
            leaf.verify_for_usage(algorithms, anchors, intermediates, now, usage, None, None).map(|_| ())
        });
        verified.map_err(|error| match error {
            webpki::Error::CertExpired { .. } => "it has expired".to_owned(),
            webpki::Error::CertNotValidYet { .. } => "it is not valid yet".to_owned(),
            webpki::Error::UnknownIssuer => "no listed authority has issued it".to_owned(),
            webpki::Error::CaUsedAsEndEntity => "it is an authority's own".to_owned(),
            webpki::Error::RequiredEkuNotFoundContext(_) => "it is not for clients".to_owned(),
            error => format!("it cannot be used: {error:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::Ca;
    use rcgen::{ExtendedKeyUsagePurpose, SanType};

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn authorities(ca: &Ca) -> ClientAuthorities {
        let (_folder, file) = ca.roots_file();
        ClientAuthorities::load(&file).unwrap()
    }

    #[test]
    fn a_certificate_says_its_names_and_fingerprints() {
        let leaf = Ca::new().leaf_with(&["app.example", "*.wild.example"], |params| {
            params.subject_alt_names.push(SanType::URI("spiffe://example/app".try_into().unwrap()));
        });
        let read = ClientCertificate::read(&leaf.chain[0]).unwrap();
        assert_eq!(read.names, ["app.example", "spiffe://example/app"]);
        assert_eq!(read.sha256, sha256(&leaf.chain[0]));
        assert_ne!(read.sha256, read.key_sha256);
        assert_eq!(ClientCertificate::read(&CertificateDer::from(vec![0x30, 0])), None);
    }

    #[test]
    fn a_chain_leads_to_a_listed_authority_for_clients_and_for_now() {
        let ca = Ca::new();
        let good = authorities(&ca);
        assert_eq!(good.verify(&ca.leaf(&["app.example"]).chain, now()), Ok(()));
        let client = |params: &mut rcgen::CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        };
        assert_eq!(good.verify(&ca.leaf_with(&["app.example"], client).chain, now()), Ok(()));
        let bad = |chain: &[CertificateDer<'_>], what: &str| {
            assert_eq!(good.verify(chain, now()).unwrap_err(), what);
        };
        bad(&Ca::new().leaf(&["app.example"]).chain, "no listed authority has issued it");
        let server = ca.leaf_with(&["app.example"], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        bad(&server.chain, "it is not for clients");
        let over =
            ca.leaf_with(&["app.example"], |params| params.not_after = rcgen::date_time_ymd(2025, 1, 1));
        bad(&over.chain, "it has expired");
        let early =
            ca.leaf_with(&["app.example"], |params| params.not_before = rcgen::date_time_ymd(2027, 1, 1));
        bad(&early.chain, "it is not valid yet");
        bad(&[], "there is no certificate");
    }

    #[test]
    fn a_file_of_authorities_is_named_when_it_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert!(ClientAuthorities::load(&file).unwrap_err().contains("ca.pem: cannot be read"));
        std::fs::write(&file, "nothing").unwrap();
        assert!(ClientAuthorities::load(&file).unwrap_err().contains("holds no certificate"));
    }
}
