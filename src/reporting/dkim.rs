//! DKIM signatures of report mail (RFC 6376, RFC 8301, RFC 8463; RFC 8460 §3 demands one).
//!
//! The only file that names mail-auth. Signs finished messages: CRLF lines, before dot-stuffing.
//! Never: the `l=` tag (RFC 8460 §3), SHA-1, RSA keys under 2048 bits (RFC 8301 §3.2).

pub mod key;
pub mod published;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use mail_auth::common::crypto::{CryptoError, DkimKey, Ed25519Key, RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::{DkimSigner, Done};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use self::key::PublicKey;
use crate::mail::Domain;

/// What is signed. A field named twice is over-signed: adding another one breaks the signature
/// (RFC 6376 §5.4.2), and no relay adds these.
const SIGNED_FIELDS: [&str; 18] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "TLS-Report-Domain",
    "TLS-Report-Submitter",
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "TLS-Report-Domain",
    "TLS-Report-Submitter",
];

/// A loaded key with its domain and selector. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    domain: Domain,
    selector: Arc<str>,
    public: Arc<PublicKey>,
    key: Arc<DkimSigner<DkimKey, Done>>,
}

/// Why there is no signer; every text names the file and the trouble.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("DKIM key {file}: {text}")]
pub struct KeyError {
    /// Where the key was to come from.
    pub file: String,
    /// What is wrong, and what is wanted.
    pub text: String,
}

impl Signer {
    /// Reads an RSA or Ed25519 key from a PKCS#8 PEM file. Blocking.
    ///
    /// # Errors
    /// [`KeyError`]: unreadable, no PKCS#8 PEM, of another kind, or RSA under 2048 bits; or a
    /// selector that is no name.
    pub fn load(domain: Domain, selector: &str, key_file: &Path) -> Result<Self, KeyError> {
        let file = key_file.display().to_string();
        let pem = std::fs::read(key_file)
            .map_err(|error| KeyError { file: file.clone(), text: error.to_string() })?;
        Self::from_pem(domain, selector, &pem).map_err(|text| KeyError { file, text })
    }

    /// The same from the text of the file.
    ///
    /// # Errors
    /// One sentence: what is wrong, and what is wanted.
    pub fn from_pem(domain: Domain, selector: &str, pem: &[u8]) -> Result<Self, String> {
        // RFC 6376 §3.1: a selector is one or more labels.
        Domain::parse_a_label(selector).map_err(|error| format!("selector {selector:?}: {error}"))?;
        let (key, public) = key(pem)?;
        let key = DkimSigner::from_key(key)
            .domain(domain.as_str())
            .selector(selector)
            // RFC 6376 §5.4: From is signed; nothing a relay rightly changes is.
            .headers(SIGNED_FIELDS);
        Ok(Self { domain, selector: selector.into(), public: Arc::new(public), key: Arc::new(key) })
    }

    /// `d=`
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// `s=`
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// What has to be in DNS.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The `DKIM-Signature` field for a message, CRLF at its end, to be put in front of it. Takes a
    /// millisecond or so with RSA.
    ///
    /// # Errors
    /// What the key or the library says.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.key.sign(message).map_err(|error| error.to_string())?;
        Ok(signature.to_header().into_bytes())
    }
}

fn key(pem: &[u8]) -> Result<(DkimKey, PublicKey), String> {
    let wanted = "a PKCS#8 PEM file (\"BEGIN PRIVATE KEY\") with an Ed25519 key, or an RSA key of 2048 to \
                  8192 bits, is needed";
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| format!("{error}; {wanted}"))?;
    let public = PublicKey::of_pkcs8(der.secret_pkcs8_der());
    let public = move || public.ok_or_else(|| format!("a key of another kind; {wanted}"));
    // Without the public key inside (openssl writes it so) only the unchecked reader takes it.
    if let Ok(key) = Ed25519Key::from_pkcs8_maybe_unchecked_der(der.secret_pkcs8_der()) {
        return Ok((DkimKey::Ed25519(key), public()?));
    }
    // RFC 8301 §3.2: less than 1024 bits must not, less than 2048 should not be used; the library
    // refuses both.
    let key = RsaKey::<Sha256>::from_key_der(PrivateKeyDer::Pkcs8(der)).map_err(|error| {
        let why = match error {
            mail_auth::Error::Crypto(CryptoError::Library(why)) => why,
            other => other.to_string(),
        };
        format!("unusable key ({why}); {wanted}")
    })?;
    Ok((DkimKey::Rsa(key), public()?))
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("domain", &self.domain)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

/// A signer with a key of this moment.
#[cfg(test)]
pub(crate) fn test_signer(domain: &str) -> Signer {
    tests::made(domain)
}

#[cfg(test)]
pub(crate) mod tests;
