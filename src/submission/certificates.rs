//! Whose client certificates count (mutual TLS), and for whom.
//!
//! A certificate is listed by the SHA-256 of itself or of its public key, which says all (its dates and its
//! issuer do not matter then), or by a name in it, where an authority of `auth.client_ca_file` vouches for
//! it. The names that count are subject alternative names, DNS names and URIs: a common name is not for
//! identities any more (RFC 9525 §2), and who may write what there differs from authority to authority.
//! Pure. Called by `session`; made by `config`.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::{Domain, Pattern};
use crate::net::tls::{ClientAuthorities, ClientCertificate};

/// Octets of a SHA-256.
const SHA256_BYTES: usize = 32;

/// A SHA-256, written as 64 hexadecimal digits, with colons or without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; SHA256_BYTES]);

impl FromStr for Fingerprint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is not a SHA-256 in hexadecimal; `openssl x509 -in FILE -noout -fingerprint -sha256` shows it"
            )
        };
        let digits: Vec<u32> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).ok_or_else(bad))
            .collect::<Result<_, _>>()?;
        let octets: Vec<u8> =
            digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or(0)).collect();
        match octets.try_into() {
            Ok(octets) if digits.len() == 2 * SHA256_BYTES => Ok(Self(octets)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, octet)| {
            if at > 0 {
                f.write_char(':')?;
            }
            write!(f, "{octet:02X}")
        })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A name in a certificate: a DNS name, everything below one (`*.example.org`), or a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectName {
    /// As configuration writes names elsewhere.
    Dns(Pattern),
    /// Compared octet by octet.
    Uri(String),
}

impl SubjectName {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Dns(pattern) => Domain::parse(name).is_ok_and(|name| pattern.matches(&name)),
            Self::Uri(uri) => uri == name,
        }
    }
}

impl FromStr for SubjectName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') { Ok(Self::Uri(text.to_owned())) } else { text.parse().map(Self::Dns) }
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(pattern) => pattern.fmt(f),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

impl Serialize for SubjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SubjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The certificates of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateUser {
    /// The user, in logs, limits and sender rules.
    pub name: String,
    /// Of certificates or their public keys.
    pub sha256: Vec<Fingerprint>,
    /// Names in certificates that an authority vouches for.
    pub subject_names: Vec<SubjectName>,
}

/// All that are listed.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// Who vouches for names.
    pub authorities: Option<ClientAuthorities>,
    /// The first that fits counts.
    pub users: Vec<CertificateUser>,
}

/// What a client has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Of the certificate, so that it can be listed.
    pub(super) sha256: Fingerprint,
    /// Whose it is, or why it does not count.
    pub(super) user: Result<String, String>,
}

impl Certificates {
    /// Whether there is a reason to ask for one.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What a chain shows at `now`, the client's own certificate first.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Option<Shown> {
        let certificate = ClientCertificate::read(chain.first()?)?;
        let sha256 = Fingerprint(certificate.sha256);
        let listed = [sha256, Fingerprint(certificate.key_sha256)];
        let by_sha256 =
            self.users.iter().find(|user| user.sha256.iter().any(|fingerprint| listed.contains(fingerprint)));
        let user = match by_sha256 {
            Some(user) => Ok(user.name.clone()),
            None => self.by_name(&certificate, chain, now),
        };
        Some(Shown { sha256, user })
    }

    fn by_name(
        &self,
        certificate: &ClientCertificate,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<String, String> {
        let fits = |user: &&CertificateUser| {
            user.subject_names.iter().any(|listed| certificate.names.iter().any(|name| listed.matches(name)))
        };
        let Some(user) = self.users.iter().find(fits) else {
            return Err("it is not listed".to_owned());
        };
        let authorities = self.authorities.as_ref().ok_or("no authority is configured")?;
        authorities.verify(chain, now).map(|()| user.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_openssl_writes_them() {
        let colons = ["AB"; 32].join(":");
        let parsed: Fingerprint = colons.parse().unwrap();
        assert_eq!(parsed.to_string(), colons);
        assert_eq!("ab".repeat(32).parse(), Ok(parsed));
        for bad in
            ["", "ab", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32), &format!("{}a", "ab".repeat(32))]
        {
            assert!(bad.parse::<Fingerprint>().unwrap_err().contains("SHA-256"), "{bad}");
        }
    }

    #[test]
    fn names_are_dns_names_trees_and_uris() {
        let matches = |listed: &str, name: &str| listed.parse::<SubjectName>().unwrap().matches(name);
        assert!(matches("app.example", "APP.example"));
        assert!(matches("*.apps.example", "one.apps.example"));
        assert!(!matches("*.apps.example", "apps.example"));
        assert!(!matches("app.example", "other.example"));
        assert!(matches("spiffe://example/app", "spiffe://example/app"));
        assert!(!matches("spiffe://example/app", "spiffe://example/App"));
        assert!(!matches("app.example", "spiffe://example/app"));
        assert!("a b".parse::<SubjectName>().is_err());
    }

    #[test]
    fn a_certificate_counts_by_fingerprint_key_or_a_name_that_is_vouched_for() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let issued = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (one, two, stranger) = (issued("one.example"), issued("two.example"), issued("named.example"));
        let read = |issued: &rcgen::CertifiedKey<rcgen::KeyPair>| {
            ClientCertificate::read(issued.cert.der()).unwrap()
        };
        let user = |name: &str, sha256: [u8; 32]| CertificateUser {
            name: name.to_owned(),
            sha256: vec![Fingerprint(sha256)],
            subject_names: Vec::new(),
        };
        let named = CertificateUser {
            name: "named".to_owned(),
            sha256: Vec::new(),
            subject_names: vec!["named.example".parse().unwrap()],
        };
        let listed = Certificates {
            authorities: None,
            users: vec![
                user("by certificate", read(&one).sha256),
                user("by key", read(&two).key_sha256),
                named,
            ],
        };
        let judge = |issued: &rcgen::CertifiedKey<rcgen::KeyPair>| {
            listed.judge(&[issued.cert.der().clone()], now).unwrap().user
        };
        assert_eq!(judge(&one).as_deref(), Ok("by certificate"));
        assert_eq!(judge(&two).as_deref(), Ok("by key"));
        assert_eq!(judge(&stranger), Err("no authority is configured".to_owned()));
        assert_eq!(judge(&issued("other.example")), Err("it is not listed".to_owned()));
        assert_eq!(listed.judge(&[], now), None);
    }
}
