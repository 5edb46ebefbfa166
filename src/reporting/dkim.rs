//! DKIM signatures of report mail (RFC 6376, RFC 8301, RFC 8463; RFC 8460 §3 demands one).
//!
//! The only file that names mail-auth. Signs finished messages: CRLF lines, before dot-stuffing.
//! Never: the `l=` tag (RFC 8460 §3), SHA-1, RSA keys under 1024 bits (RFC 8301 §3.2).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::mail::Domain;

/// A loaded key with its domain and selector. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    inner: Arc<()>,
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
    /// [`KeyError`]: unreadable, no PKCS#8 PEM, of another kind, or RSA under 1024 bits.
    pub fn load(domain: Domain, selector: &str, key_file: &Path) -> Result<Self, KeyError> {
        todo!()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}
