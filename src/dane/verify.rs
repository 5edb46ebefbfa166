//! Holds a certificate chain against TLSA records (RFC 7672 §3, RFC 7671 §5).
//!
//! Usage 3 binds the server's own certificate or key, whatever its names and dates say. Usage 2 names
//! a trust anchor: the chain must lead to it, be valid now, and the server's certificate must name the
//! host. Pure; called by `net::tls`.
//!
//! Never looks at other trust anchors (RFC 7671 §5.2.2), and never asks for Certificate Transparency
//! (RFC 7671 §4.2). The dates of a trust anchor itself do not count (RFC 5280 §6.1.1: it is no part of
//! the path); its constraints do (RFC 7671 §5.2.1).

use aws_lc_rs::digest;
use rustls::pki_types::{
    CertificateDer, Der, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use super::{Tlsa, x509};
use crate::mail::Domain;

/// Why a chain proves nothing under the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// No record matches, or no valid chain leads to what matches.
    NoMatch,
    /// The chain leads to a trust anchor of the records, but a certificate of it is past its end
    /// (seconds since 1970).
    Expired(u64),
    /// The chain is valid, but the server's certificate names none of these.
    Name(Vec<Domain>),
}

/// Verifies a chain, the server's own certificate first. `names` are the reference identities for
/// usage 2, see [`reference_names`](super::reference_names).
///
/// # Errors
/// [`Mismatch`]: what comes closest.
pub fn verify(
    records: &[Tlsa],
    names: &[Domain],
    chain: &[CertificateDer<'_>],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: UnixTime,
) -> Result<(), Mismatch> {
    let Some((leaf, issuers)) = chain.split_first() else { return Err(Mismatch::NoMatch) };
    let records = || records.iter().filter(|record| record.is_usable());
    // RFC 7672 §3.1.1: neither names nor dates count for usage 3.
    if records().any(|record| record.usage == 3 && matches(record, leaf)) {
        return Ok(());
    }
    let anchors: Vec<Anchor> =
        records().filter(|record| record.usage == 2).flat_map(|record| anchors(record, chain)).collect();
    if anchors.is_empty() {
        return Err(Mismatch::NoMatch);
    }
    verify_path(leaf, issuers, &anchors, names, algorithms, now)
}

/// Whether the record's data is that of the certificate (RFC 6698 §2.1).
fn matches(record: &Tlsa, certificate: &[u8]) -> bool {
    let selected = match record.selector {
        0 => certificate,
        _ => x509::public_key(certificate).map(|key| key.der).unwrap_or_default(),
    };
    if selected.is_empty() {
        return false;
    }
    match record.matching {
        0 => selected == record.data,
        1 => digest::digest(&digest::SHA256, selected).as_ref() == record.data,
        _ => digest::digest(&digest::SHA512, selected).as_ref() == record.data,
    }
}

/// A trust anchor with the length of path it allows.
struct Anchor {
    anchor: TrustAnchor<'static>,
    path_length: Option<usize>,
}

impl Anchor {
    /// `None` for what cannot be an anchor: no certificate, or one that says it is no authority.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let constraints = x509::basic_constraints(certificate);
        if constraints.is_some_and(|constraints| !constraints.ca) {
            return None;
        }
        let anchor = anchor_from_trusted_cert(certificate).ok()?.to_owned();
        let path_length = constraints.and_then(|constraints| constraints.path_length);
        Some(Self { anchor, path_length })
    }
}

/// The trust anchors a usage 2 record gives for this chain.
fn anchors(record: &Tlsa, chain: &[CertificateDer<'_>]) -> Vec<Anchor> {
    // The server's own certificate is no issuer, so usage 2 never matches it.
    let shown = chain.iter().skip(1).filter(|certificate| matches(record, certificate));
    let shown: Vec<_> = shown.filter_map(Anchor::of).collect();
    if !shown.is_empty() || record.matching != 0 {
        return shown;
    }
    // RFC 7671 §5.2.2, §5.2.3: full data is anchor enough, though the server does not show it.
    if record.selector == 0 {
        return Anchor::of(&CertificateDer::from(&record.data[..])).into_iter().collect();
    }
    let Some(key) = x509::bare_key(&record.data) else { return Vec::new() };
    // A bare key has no name: it stands for whoever is said to have issued a certificate of the chain.
    chain
        .iter()
        .filter_map(|certificate| {
            let subject = EndEntityCert::try_from(certificate).ok()?.issuer().to_vec();
            let anchor = TrustAnchor {
                subject: Der::from(subject),
                subject_public_key_info: Der::from(key.content.to_vec()),
                name_constraints: None,
            };
            Some(Anchor { anchor, path_length: None })
        })
        .collect()
}

fn verify_path(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    anchors: &[Anchor],
    names: &[Domain],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: UnixTime,
) -> Result<(), Mismatch> {
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| Mismatch::NoMatch)?;
    let trusted: Vec<TrustAnchor<'_>> = anchors.iter().map(|anchor| anchor.anchor.clone()).collect();
    let short_enough = |path: &VerifiedPath<'_>| {
        // RFC 5280 §4.2.1.9: self-issued certificates do not count.
        let between =
            path.intermediate_certificates().filter(|issuer| issuer.subject() != issuer.issuer()).count();
        let allowed = anchors
            .iter()
            .filter(|anchor| anchor.anchor == *path.anchor())
            .any(|anchor| anchor.path_length.is_none_or(|most| between <= most));
        if allowed { Ok(()) } else { Err(webpki::Error::PathLenConstraintViolated) }
    };
    let path_at = |time| {
        let usage = KeyUsage::server_auth();
        leaf.verify_for_usage(algorithms, &trusted, issuers, time, usage, None, Some(&short_enough))
            .map(|_| ())
    };
    path_at(now).map_err(|error| match error {
        // Dates are looked at first: only a chain that was good on its last day has nothing but expired.
        webpki::Error::CertExpired { not_after, .. } if path_at(not_after).is_ok() => {
            Mismatch::Expired(not_after.as_secs())
        }
        _ => Mismatch::NoMatch,
    })?;
    if names.iter().any(|name| is_named(&leaf, name)) { Ok(()) } else { Err(Mismatch::Name(names.to_vec())) }
}

/// RFC 7672 §3.2.3: DNS-IDs; the common name only where the certificate has none.
fn is_named(leaf: &EndEntityCert<'_>, name: &Domain) -> bool {
    let Ok(server_name) = ServerName::try_from(name.as_str()) else { return false };
    if leaf.verify_is_valid_for_subject_name(&server_name).is_ok() {
        return true;
    }
    leaf.valid_dns_names().next().is_none()
        && x509::common_name(leaf.subject()).is_some_and(|pattern| covers(pattern, name))
}

/// RFC 7672 §3.2.3: a wildcard is the whole first label and stands for one label.
fn covers(pattern: &str, name: &Domain) -> bool {
    match pattern.strip_prefix("*.") {
        Some(tree) => name
            .as_str()
            .split_once('.')
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(tree) && rest.contains('.')),
        None => name.as_str().eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests;
