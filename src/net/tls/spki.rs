//! Finds the public key in a certificate that PKIX validation cannot even read.
//!
//! X.509 version 1, an unknown critical extension and the like make a certificate unusable under
//! PKIX, but not for encryption, nor for DANE-EE (RFC 7672 §3.1.1): mail hosts do show them. Walks
//! DER only as far as the key (RFC 5280 §4.1); bounded by the certificate's own length. Pure.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// A SubjectPublicKeyInfo and its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PublicKeyInfo<'a> {
    /// All of it, DER (RFC 6698 §1.2, selector 1).
    pub(super) der: &'a [u8],
    /// The AlgorithmIdentifier without its SEQUENCE.
    pub(super) algorithm: &'a [u8],
    /// The key itself.
    pub(super) key: &'a [u8],
}

/// Reads the key out of a certificate; `None` when it is no certificate.
pub(super) fn of(certificate: &[u8]) -> Option<PublicKeyInfo<'_>> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (mut fields, _) = take(certificate.content, SEQUENCE)?;
    // Version 1 leaves the version out.
    if let Some((_, rest)) = take(fields.content, VERSION) {
        fields.content = rest;
    }
    let (_serial, rest) = take(fields.content, INTEGER)?;
    let (_signature, rest) = take(rest, SEQUENCE)?;
    let (_issuer, rest) = take(rest, SEQUENCE)?;
    let (_validity, rest) = take(rest, SEQUENCE)?;
    let (_subject, rest) = take(rest, SEQUENCE)?;
    let (info, _) = take(rest, SEQUENCE)?;
    let (algorithm, rest) = take(info.content, SEQUENCE)?;
    let (bits, _) = take(rest, BIT_STRING)?;
    // The first octet counts unused bits; keys are whole octets.
    let key = bits.content.strip_prefix(&[0])?;
    Some(PublicKeyInfo { der: info.der, algorithm: algorithm.content, key })
}

#[derive(Clone, Copy)]
struct Element<'a> {
    der: &'a [u8],
    content: &'a [u8],
}

/// Takes one element with this tag off the front.
fn take(input: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (&first, rest) = input.split_first()?;
    if first != tag {
        return None;
    }
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // Up to 16 MB; no certificate of a handshake is longer. 0x80 is BER, not DER.
        0x81..=0x83 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (octets.iter().fold(0, |sum, &octet| sum << 8 | usize::from(octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let der = &input[..input.len() - rest.len()];
    Some((Element { der, content }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::Ca;

    #[test]
    fn the_key_is_found_and_damage_finds_none() {
        let leaf = Ca::new().leaf(&["a.test"]);
        let certificate = leaf.chain[0].to_vec();
        let found = of(&certificate).unwrap();
        assert_eq!(found.der, leaf.spki());
        assert!(found.der.ends_with(found.key) && found.key.len() == 65, "an uncompressed P-256 point");
        for end in 0..certificate.len() {
            assert_eq!(of(&certificate[..end]), None, "cut at {end}");
        }
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x80",
            b"\x30\x84\x01\x00\x00\x00",
            b"\x30\x83\xff\xff\xff",
            b"\x02\x01\x00",
        ] {
            assert_eq!(of(bytes), None);
        }
    }

    #[test]
    fn version_1_leaves_the_version_out() {
        let info = b"\x30\x09\x30\x03\x06\x01\x2a\x03\x02\x00\x07";
        let fields = [&b"\x02\x01\x01\x30\x00\x30\x00\x30\x00\x30\x00"[..], info].concat();
        let inner = [&[SEQUENCE, fields.len() as u8], &fields[..]].concat();
        let certificate = [&[SEQUENCE, inner.len() as u8], &inner[..]].concat();
        let found = of(&certificate).unwrap();
        assert_eq!((found.der, found.algorithm, found.key), (&info[..], &b"\x06\x01\x2a"[..], &b"\x07"[..]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = of(&bytes);
        }
    }
}
