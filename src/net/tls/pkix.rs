//! What a certificate chain proves under PKIX for one name at one instant (RFC 5280, RFC 6125).
//!
//! Only SAN DNS-IDs count: no common name, no IP address; a wildcard only as the whole left-most
//! label (RFC 8461 §3.3, §4.2). Every chain that can be built is tried. Pure.

use jiff::Timestamp;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use crate::tlspolicy::CertificateFailure;

/// Judges a chain, the server's own certificate first.
///
/// RFC 8460 §4.3.1: several causes may hold at once; one is told: past its end, before a wrong name,
/// before no trust.
pub(super) fn judge(
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    roots: &RootCertStore,
    now: Timestamp,
) -> Result<(), CertificateFailure> {
    let not_trusted = |error: Error| CertificateFailure::NotTrusted(describe(&error));
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(CertificateFailure::NotTrusted("the server showed no certificate".into()));
    };
    let leaf = ParsedCertificate::try_from(leaf).map_err(not_trusted)?;
    let algorithms = super::provider().signature_verification_algorithms.all;
    let trusted =
        verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, unix_time(now), algorithms);
    if let Err(error) = &trusted
        && is_expired(error)
    {
        return Err(CertificateFailure::Expired(describe(error)));
    }
    verify_server_name(&leaf, name).map_err(|error| CertificateFailure::NameMismatch(describe(&error)))?;
    trusted.map_err(not_trusted)
}

fn is_expired(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(error, Error::InvalidCertificate(Expired | ExpiredContext { .. }))
}

/// A short phrase for logs, bounces and reports.
pub(super) fn describe(error: &Error) -> String {
    use CertificateError as Is;
    let Error::InvalidCertificate(error) = error else { return error.to_string() };
    match error {
        Is::ExpiredContext { not_after, .. } => format!("not valid after {}", date(*not_after)),
        Is::NotValidYetContext { not_before, .. } => format!("not valid before {}", date(*not_before)),
        Is::NotValidForNameContext { expected, presented } if presented.is_empty() => {
            format!("no subject alternative name, wanted {}", expected.to_str())
        }
        Is::NotValidForNameContext { expected, presented } => {
            // A certificate may hold hundreds of names; a line may not.
            const NAMES_SHOWN_MAX: usize = 5;
            let names: Vec<_> = presented.iter().take(NAMES_SHOWN_MAX).map(|id| id_name(id)).collect();
            let more = if presented.len() > NAMES_SHOWN_MAX { ", ..." } else { "" };
            format!("wanted {}, it names {}{more}", expected.to_str(), names.join(", "))
        }
        Is::UnknownIssuer => "no chain to a trusted root".into(),
        Is::BadSignature => "a certificate is not signed by its issuer".into(),
        Is::BadEncoding => "malformed certificate".into(),
        Is::UnsupportedSignatureAlgorithmContext { .. }
        | Is::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "a signature algorithm that is not accepted, SHA-1 for example".into()
        }
        Is::InvalidPurposeContext { .. } | Is::InvalidPurpose => "not for use by a server".into(),
        Is::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::UnsupportedCriticalExtension) => {
                "a critical extension that is not known".into()
            }
            Some(webpki::Error::CaUsedAsEndEntity) => "an authority's certificate stands for a host".into(),
            _ => format!("it cannot be used as it is: {}", other.0),
        },
        other => other.to_string(),
    }
}

/// `DnsName("a.example")` as the library shows it, without its wrapping.
fn id_name(shown: &str) -> &str {
    shown.strip_prefix("DnsName(\"").and_then(|rest| rest.strip_suffix("\")")).unwrap_or(shown)
}

pub(super) fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "an unknown date".into(), |instant| instant.to_string())
}

pub(super) fn unix_time(now: Timestamp) -> UnixTime {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}
