//! TLS as a client towards MX hosts, and as a server towards submitters. The only
//! `ServerCertVerifier` of the crate is in [`verifier`].
//!
//! The handshake always completes where it can; what the certificate proves under PKIX is recorded
//! in [`TlsFacts`] and held against the plan by [`TlsFacts::verify`], so that a testing policy can be
//! reported on a session that is used all the same. The server must prove that it holds the key of
//! the certificate it shows in every case.
//!
//! A session is resumed only where a full handshake has met the very same plan not long ago, and its
//! chain meets it still; see [`sessions`].
//! Called by `delivery::conversation`, `submission`, `net::https` and the composition root.

mod clients;
mod pkix;
mod roots;
mod server;
pub(in crate::net) mod sessions;
pub(in crate::net) mod verifier;

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio_rustls::TlsConnector;

use self::sessions::{Key, Origin, Sessions, Slot};
use super::tcp::Stream;
use super::world::{Clock, SystemClock};
use crate::dane::{self, Mismatch, Tlsa};
use crate::mail::Domain;
use crate::tlspolicy::{CertificateFailure, Requirement, TlsFailure, TlsPlan};

pub use clients::{ClientAuthorities, ClientCertificate};
pub use roots::ClientOptions;
pub use server::{ServerFacts, ServerTls};
pub use sessions::Recalled;

/// What is known of an established session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// IANA name, e.g. `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The key exchange group, e.g. `X25519MLKEM768`.
    pub group: Option<&'static str>,
    /// The name given in SNI.
    pub sni: Domain,
    /// The name held against the certificate under PKIX.
    pub name: Domain,
    /// Whether the chain is PKIX-valid for `name` now.
    pub pkix: Result<(), CertificateFailure>,
    /// SHA-256 over the chain's DER certificates in order, hex.
    pub chain_sha256: String,
    /// What the server showed, its own certificate first.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// When it was shown; dates are held against this.
    pub at: Timestamp,
    /// The session goes back to an earlier handshake, in which the chain was shown; it was held against
    /// the plan again at `at`.
    pub resumed: bool,
}

impl TlsFacts {
    /// Holds the session against a requirement.
    ///
    /// # Errors
    /// What is missing.
    pub fn verify(&self, require: &Requirement) -> Result<(), TlsFailure> {
        match require {
            Requirement::Opportunistic | Requirement::Encrypt => Ok(()),
            Requirement::Pkix { name } => self.verify_pkix(name),
            Requirement::Dane { records, names } => self.verify_dane(records, names),
            Requirement::DaneAndPkix { records, names, name } => {
                self.verify_dane(records, names)?;
                self.verify_pkix(name)
            }
        }
    }

    /// What is known before a session with this chain is resumed.
    fn of_chain(
        plan: &TlsPlan,
        chain: Arc<[CertificateDer<'static>]>,
        pkix: Result<(), CertificateFailure>,
        at: Timestamp,
    ) -> Self {
        Self {
            version: "",
            cipher: String::new(),
            group: None,
            sni: plan.sni.clone(),
            name: plan.name.clone(),
            pkix,
            chain_sha256: String::new(),
            chain,
            at,
            resumed: true,
        }
    }

    fn verify_pkix(&self, name: &Domain) -> Result<(), TlsFailure> {
        // The verdict was made for one name and proves nothing about another.
        if *name != self.name {
            let text = format!("the session was verified for {}, not for {name}", self.name);
            return Err(TlsFailure::Certificate(CertificateFailure::NameMismatch(text)));
        }
        self.pkix.clone().map_err(TlsFailure::Certificate)
    }

    fn verify_dane(&self, records: &[Tlsa], names: &[Domain]) -> Result<(), TlsFailure> {
        let algorithms = provider().signature_verification_algorithms.all;
        let failure = match dane::verify(records, names, &self.chain, algorithms, pkix::unix_time(self.at)) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        Err(match failure {
            Mismatch::NoMatch => TlsFailure::TlsaMismatch,
            Mismatch::Expired(seconds) => {
                let text = format!(
                    "not valid after {}",
                    pkix::date(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
                );
                TlsFailure::Certificate(CertificateFailure::Expired(text))
            }
            Mismatch::Name(names) => {
                let names: Vec<_> = names.iter().map(Domain::as_str).collect();
                let text = format!("wanted {} under its TLSA records", names.join(" or "));
                TlsFailure::Certificate(CertificateFailure::NameMismatch(text))
            }
        })
    }
}

/// The client side. Cheap to clone behind its `Arc`.
pub struct ClientTls {
    config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    clock: Arc<dyn Clock>,
    sessions: Option<Arc<Sessions>>,
}

impl ClientTls {
    /// Loads the trust anchors. Blocking (reads files).
    ///
    /// # Errors
    /// One sentence: which file and what is wrong, or that there is no trust anchor at all.
    pub fn new(options: &ClientOptions) -> Result<Arc<Self>, String> {
        Self::with_clock(options, Arc::new(SystemClock))
    }

    /// [`ClientTls::new`] with a clock that certificate dates are held against.
    ///
    /// # Errors
    /// As [`ClientTls::new`].
    pub fn with_clock(options: &ClientOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, String> {
        let roots = Arc::new(options.load()?);
        let mut config = base_config(Arc::clone(&roots))?;
        config.dangerous().set_certificate_verifier(verifier::Recording::quiet());
        config.resumption = Resumption::disabled();
        Ok(Arc::new(Self { config: Arc::new(config), roots, clock, sessions: None }))
    }

    /// The same, resuming sessions within `life` of their full handshake; zero is never.
    pub fn resuming(&self, life: Duration) -> Arc<Self> {
        let sessions = (!life.is_zero()).then(|| Arc::new(Sessions::new(life)));
        let (config, roots) = (Arc::clone(&self.config), Arc::clone(&self.roots));
        Arc::new(Self { config, roots, clock: Arc::clone(&self.clock), sessions })
    }

    /// The trust anchors, for policy hosts and report endpoints.
    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// A TLS handshake over a connection after STARTTLS, with SNI `sni` (RFC 8461 §7.1, RFC 7672 §8.1);
    /// `name` is held against the certificate under PKIX.
    ///
    /// TLS 1.2 and 1.3 only. Certificates are judged but not refused here; see [`TlsFacts::verify`].
    /// The caller limits the time.
    ///
    /// # Errors
    /// [`TlsFailure::Handshake`] or [`TlsFailure::Lost`].
    pub async fn handshake(
        &self,
        stream: Box<dyn Stream>,
        sni: &Domain,
        name: &Domain,
    ) -> Result<(Box<dyn Stream>, TlsFacts), TlsFailure> {
        self.shake(Arc::clone(&self.config), stream, sni, name).await
    }

    /// A session that may be resumed for this plan: a full handshake has met it within the time, and the
    /// chain shown then meets it now. To be given to [`ClientTls::handshake_for`].
    pub fn recall(&self, plan: &TlsPlan) -> Option<Recalled> {
        let reference = server_name(&plan.name).ok()?;
        let now = self.clock.now();
        self.sessions.as_ref()?.recall(&Key::of(plan), now, |origin| {
            let pkix = pkix::judge(&origin.chain, &reference, &self.roots, now);
            proves(&plan.require, &pkix)
                && TlsFacts::of_chain(plan, Arc::clone(&origin.chain), pkix, now)
                    .verify(&plan.require)
                    .is_ok()
        })
    }

    /// Forgets the sessions for this plan: one of them did not work.
    pub fn forget(&self, plan: &TlsPlan) {
        if let Some(sessions) = &self.sessions {
            sessions.forget(&Key::of(plan));
        }
    }

    /// [`ClientTls::handshake`] for a plan, resuming `recalled` if the server still knows it; what the
    /// server gives for the next time is kept if the plan is met.
    ///
    /// # Errors
    /// As [`ClientTls::handshake`]; if a session was recalled, a handshake without it may do.
    pub async fn handshake_for(
        &self,
        stream: Box<dyn Stream>,
        plan: &TlsPlan,
        recalled: Option<Recalled>,
    ) -> Result<(Box<dyn Stream>, TlsFacts), TlsFailure> {
        let Some(sessions) = &self.sessions else {
            return self.shake(Arc::clone(&self.config), stream, &plan.sni, &plan.name).await;
        };
        let (offer, begun) = recalled.map(|recalled| (recalled.secret, recalled.origin)).unzip();
        let slot = Slot::new(Arc::clone(sessions), Key::of(plan), offer);
        // Equal but for the store, so that the library takes the verifiers for the same.
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::store(slot.clone());
        let (stream, facts) = self.shake(Arc::new(config), stream, &plan.sni, &plan.name).await?;
        // I10: from here on, and only if the plan is met.
        if proves(&plan.require, &facts.pkix) && facts.verify(&plan.require).is_ok() {
            let origin = match begun {
                Some(origin) if facts.resumed => Some(origin),
                _ if facts.resumed => None,
                _ => Some(Origin { verified_at: facts.at, chain: Arc::clone(&facts.chain) }),
            };
            if let Some(origin) = origin {
                slot.approve(&origin);
            }
        }
        Ok((stream, facts))
    }

    async fn shake(
        &self,
        config: Arc<ClientConfig>,
        stream: Box<dyn Stream>,
        sni: &Domain,
        name: &Domain,
    ) -> Result<(Box<dyn Stream>, TlsFacts), TlsFailure> {
        let (reference, server_name) = (server_name(name)?, server_name(sni)?);
        let connector = TlsConnector::from(config);
        let stream = connector.connect(server_name, stream).await.map_err(handshake_failure)?;
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let at = self.clock.now();
        let facts = TlsFacts {
            version: version(session.protocol_version()),
            cipher: cipher(session.negotiated_cipher_suite()),
            group: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
            sni: sni.clone(),
            name: name.clone(),
            pkix: pkix::judge(chain, &reference, &self.roots, at),
            chain_sha256: chain_sha256(chain),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            at,
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Ok((Box::new(stream), facts))
    }
}

/// Whether the certificate proved something that may be relied on for a while: PKIX, or TLSA records.
/// What was bad may have been mended since, and is to be seen then.
fn proves(require: &Requirement, pkix: &Result<(), CertificateFailure>) -> bool {
    pkix.is_ok() || matches!(require, Requirement::Dane { .. })
}

fn server_name(name: &Domain) -> Result<ServerName<'static>, TlsFailure> {
    ServerName::try_from(name.as_str().to_owned())
        .map_err(|_| TlsFailure::Handshake(format!("{name} cannot be a TLS server name")))
}

/// The one crypto provider; its key exchange starts with the hybrid X25519MLKEM768.
pub(in crate::net) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// TLS 1.2 and 1.3 (RFC 8996: nothing older), PKIX verification, SNI, no client certificate.
pub(in crate::net) fn base_config(roots: Arc<RootCertStore>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `rustls` errors are the peer's doing; everything else is the connection's.
fn handshake_failure(error: io::Error) -> TlsFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => TlsFailure::Handshake(error.to_string()),
        None => TlsFailure::Lost(error.to_string()),
    }
}

fn version(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        // Nothing else is ever offered.
        _ => "TLSv1.2",
    }
}

fn cipher(suite: Option<rustls::SupportedCipherSuite>) -> String {
    suite.map(|suite| format!("{:?}", suite.suite())).unwrap_or_default()
}

fn chain_sha256(chain: &[CertificateDer<'_>]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    chain.iter().for_each(|certificate| context.update(certificate));
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
