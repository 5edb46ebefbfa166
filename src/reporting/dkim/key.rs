//! Key pairs for signatures: made anew, and their public halves as DNS has them (RFC 6376 §3.6.1,
//! RFC 8463 §4).
//!
//! Never writes a file and never asks DNS. Called by [`super::Signer`], `published` and by `report keygen`.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Octets of a character-string of a TXT record at most (RFC 1035 §3.3).
const STRING_BYTES_MAX: usize = 255;
/// Characters of a line of PEM (RFC 7468 §2).
const PEM_LINE_CHARS: usize = 64;

/// `k=` (RFC 6376 §3.6.1, RFC 8463 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA of 2048 bits, for `rsa-sha256`; every verifier knows it.
    Rsa,
    /// Ed25519, for `ed25519-sha256`; not every verifier does.
    Ed25519,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        })
    }
}

/// What verifiers find in DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// `p=`: of RSA the SubjectPublicKeyInfo, as everybody publishes it; of Ed25519 its 32 octets.
    p: Vec<u8>,
    /// The RSAPublicKey within, which is what RFC 6376 §3.6.1 says.
    bare: Vec<u8>,
}

impl PublicKey {
    /// The public half of a private key; `None` if it is neither RSA nor Ed25519.
    pub fn of_pkcs8(der: &[u8]) -> Option<Self> {
        // Without the public key inside (openssl writes it so) only the unchecked reader takes it.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Some(Self::of_ed25519(&pair));
        }
        Self::of_rsa(&RsaKeyPair::from_pkcs8(der).ok()?).ok()
    }

    fn of_rsa(pair: &RsaKeyPair) -> Result<Self, Unspecified> {
        let public = pair.public_key();
        let p = AsDer::<PublicKeyX509Der<'_>>::as_der(public)?.as_ref().to_vec();
        Ok(Self { algorithm: Algorithm::Rsa, p, bare: public.as_ref().to_vec() })
    }

    fn of_ed25519(pair: &Ed25519KeyPair) -> Self {
        let p = pair.public_key().as_ref().to_vec();
        Self { algorithm: Algorithm::Ed25519, bare: p.clone(), p }
    }

    /// Which kind.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether this is what `p=` says, decoded.
    pub fn is_published_as(&self, p: &[u8]) -> bool {
        self.p == p || self.bare == p
    }

    /// The key alone, without its algorithm.
    #[cfg(test)]
    pub(crate) fn bare(&self) -> &[u8] {
        &self.bare
    }

    /// The TXT record to publish, as one text. It is for all services: verifiers of mail ignore keys that
    /// are not for `email` (RFC 6376 §3.6.1), receivers of reports may ignore keys that are not for `tlsrpt`
    /// (RFC 8460 §3), and not every verifier reads the list `email:tlsrpt` (dkimpy 1.1 takes no key of it).
    pub fn record(&self) -> String {
        format!("v=DKIM1; k={}; s=*; p={}", self.algorithm, BASE64_STANDARD.encode(&self.p))
    }
}

/// A record cut into the character-strings of a TXT record.
pub fn character_strings(record: &str) -> Vec<String> {
    // All of it is ASCII.
    record
        .as_bytes()
        .chunks(STRING_BYTES_MAX)
        .map(|piece| String::from_utf8_lossy(piece).into_owned())
        .collect()
}

/// A key pair of this moment.
pub struct NewKey {
    /// PKCS#8, as `tlsrpt.dkim_key_file` wants it. Secret.
    pub pem: String,
    /// What to publish.
    pub public: PublicKey,
}

/// Makes a key pair; RSA takes some tenths of a second.
///
/// # Errors
/// One sentence; only a broken source of randomness can cause it.
pub fn generate(algorithm: Algorithm) -> Result<NewKey, String> {
    let made = match algorithm {
        Algorithm::Rsa => RsaKeyPair::generate(KeySize::Rsa2048).and_then(|pair| {
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?;
            Ok(NewKey { pem: pem(der.as_ref()), public: PublicKey::of_rsa(&pair)? })
        }),
        Algorithm::Ed25519 => Ed25519KeyPair::generate().and_then(|pair| {
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?;
            Ok(NewKey { pem: pem(der.as_ref()), public: PublicKey::of_ed25519(&pair) })
        }),
    };
    made.map_err(|_| format!("no {algorithm} key could be made"))
}

/// RFC 7468 §10.
fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in character_lines(&text) {
        pem.push_str(line);
        pem.push('\n');
    }
    pem + "-----END PRIVATE KEY-----\n"
}

fn character_lines(ascii: &str) -> impl Iterator<Item = &str> {
    (0..ascii.len())
        .step_by(PEM_LINE_CHARS)
        .filter_map(move |at| ascii.get(at..ascii.len().min(at + PEM_LINE_CHARS)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;
    use crate::reporting::dkim::Signer;

    #[test]
    fn keys_made_are_keys_that_sign_and_their_records_are_their_own() {
        for algorithm in [Algorithm::Rsa, Algorithm::Ed25519] {
            let made = generate(algorithm).unwrap();
            assert!(made.pem.lines().all(|line| line.len() <= 64), "{algorithm}");
            let signer =
                Signer::from_pem(Domain::parse("a.example").unwrap(), "s", made.pem.as_bytes()).unwrap();
            assert_eq!(signer.public(), &made.public);
            let record = made.public.record();
            assert!(record.starts_with(&format!("v=DKIM1; k={algorithm}; s=*; p=")), "{record}");
            let strings = character_strings(&record);
            assert_eq!(strings.concat(), record);
            assert!(strings.iter().all(|string| string.len() <= 255));
            assert_eq!(strings.len(), if algorithm == Algorithm::Rsa { 2 } else { 1 });
            assert_ne!(generate(algorithm).unwrap().public, made.public);
        }
    }

    #[test]
    fn the_public_half_is_that_of_the_private() {
        // The pair of RFC 8410 §10.3.
        let pem = b"-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let signer = Signer::from_pem(Domain::parse("a.example").unwrap(), "s", pem).unwrap();
        assert_eq!(
            signer.public().record(),
            "v=DKIM1; k=ed25519; s=*; p=Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
        );
    }
}
