//! Which certification authorities are trusted for MX hosts and policy hosts.
//!
//! The system's, plus those of a file. A system without any (a bare container) falls back to the
//! list compiled in, and says so in the log.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Trust anchors of the client side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// `tls.use_system_roots`
    pub use_system_roots: bool,
    /// `tls.extra_roots_file`: PEM, trusted besides.
    pub extra_roots_file: Option<PathBuf>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { use_system_roots: true, extra_roots_file: None }
    }
}

impl ClientOptions {
    /// Reads them. Blocking.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn load(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if self.use_system_roots {
            add_system_roots(&mut roots);
        }
        if let Some(file) = &self.extra_roots_file {
            add_file(&mut roots, file)?;
        }
        if roots.is_empty() {
            return Err("no trust anchors: tls.use_system_roots is false and tls.extra_roots_file is \
                        not set, so no certificate could ever be verified"
                .into());
        }
        Ok(roots)
    }
}

fn add_system_roots(roots: &mut RootCertStore) {
    let system = rustls_native_certs::load_native_certs();
    // A system store may hold certificates this library cannot read; the others still count.
    let (added, ignored) = roots.add_parsable_certificates(system.certs);
    if added == 0 {
        let errors: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            errors = errors.join("; "),
            "the system has no trust anchors; the compiled-in Mozilla list is used"
        );
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    } else {
        tracing::debug!(added, ignored, "system trust anchors read");
    }
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let what = |text: String| format!("tls.extra_roots_file {}: {text}", file.display());
    let pem = std::fs::read(file).map_err(|error| what(format!("cannot be read: {error}")))?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| what(format!("not valid PEM: {error}")))?;
        roots.add(certificate).map_err(|error| what(format!("a certificate cannot be used: {error}")))?;
    }
    if roots.len() == before {
        return Err(what("holds no certificate in PEM form".into()));
    }
    Ok(())
}
