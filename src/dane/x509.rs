//! Finds in a certificate what PKIX libraries do not tell, or tell only of certificates they like.
//!
//! X.509 version 1, an unknown critical extension and the like make a certificate unusable under
//! PKIX, but not for encryption, nor for DANE-EE (RFC 7672 §3.1.1): mail hosts do show them. Walks
//! DER only as far as needed (RFC 5280 §4.1); bounded by the certificate's own length. Verifies
//! nothing. Pure. Used by [`mod@super::verify`] and by the handshake of `net::tls`.

use jiff::Timestamp;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const UNIQUE_IDS: [u8; 2] = [0x81, 0x82];
const EXTENSIONS: u8 = 0xa3;
/// id-ce-basicConstraints, 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// GeneralName's dNSName.
const DNS_NAME: u8 = 0x82;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// A SubjectPublicKeyInfo and its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKeyInfo<'a> {
    /// All of it, DER (RFC 6698 §1.2, selector 1).
    pub der: &'a [u8],
    /// It without its outer SEQUENCE.
    pub content: &'a [u8],
    /// The AlgorithmIdentifier without its SEQUENCE.
    pub algorithm: &'a [u8],
    /// The key itself.
    pub key: &'a [u8],
}

/// basicConstraints (RFC 5280 §4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// May sign certificates.
    pub ca: bool,
    /// Intermediates that may follow; `None`: any number.
    pub path_length: Option<usize>,
}

/// Reads the key out of a certificate; `None` when it is no certificate.
pub fn public_key(certificate: &[u8]) -> Option<PublicKeyInfo<'_>> {
    key_and_rest(certificate).map(|(key, _)| key)
}

/// Reads a SubjectPublicKeyInfo with nothing after it; `None` when it is none.
pub fn bare_key(info: &[u8]) -> Option<PublicKeyInfo<'_>> {
    let (info, rest) = take(info, SEQUENCE)?;
    if rest.is_empty() { key_info(info) } else { None }
}

/// The basicConstraints of a certificate; `None` without them, or when it is no certificate.
pub fn basic_constraints(certificate: &[u8]) -> Option<BasicConstraints> {
    let (fields, _) = take(extension(certificate, BASIC_CONSTRAINTS)?, SEQUENCE)?;
    let (ca, rest) = match take(fields.content, BOOLEAN) {
        Some((ca, rest)) => (ca.content != [0], rest),
        None => (false, fields.content),
    };
    let path_length = take(rest, INTEGER).map(|(length, _)| match length.content {
        [small @ 0..=0x7f] => usize::from(*small),
        // Longer than any path, or negative, which is no limit to trust: none may follow.
        [0, ..] | [1..=0x7f, ..] => usize::from(u8::MAX),
        _ => 0,
    });
    Some(BasicConstraints { ca, path_length })
}

/// The value of an extension; `None` without it, or when it is no certificate.
fn extension<'a>(certificate: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let (_, mut rest) = key_and_rest(certificate)?;
    for tag in UNIQUE_IDS {
        if let Some((_, after)) = take(rest, tag) {
            rest = after;
        }
    }
    let (extensions, _) = take(rest, EXTENSIONS)?;
    let (extensions, _) = take(extensions.content, SEQUENCE)?;
    let mut extensions = extensions.content;
    while let Some((extension, rest)) = take(extensions, SEQUENCE) {
        extensions = rest;
        let (oid, rest) = take(extension.content, OID)?;
        if oid.content != wanted {
            continue;
        }
        let rest = take(rest, BOOLEAN).map_or(rest, |(_critical, rest)| rest);
        let (value, _) = take(rest, OCTET_STRING)?;
        return Some(value.content);
    }
    None
}

/// What a certificate tells of itself besides its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The issuer's common name, or the first text of its name.
    pub issuer: Option<String>,
    /// The end of its validity; `None` when it is no time.
    pub not_after: Option<Timestamp>,
}

/// Issuer and end of a certificate; `None` when it is none.
pub fn told(certificate: &[u8]) -> Option<Told> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (fields, _) = take(certificate.content, SEQUENCE)?;
    let fields = take(fields.content, VERSION).map_or(fields.content, |(_, rest)| rest);
    let (_serial, rest) = take(fields, INTEGER)?;
    let (_signature, rest) = take(rest, SEQUENCE)?;
    let (issuer, rest) = take(rest, SEQUENCE)?;
    let (validity, _) = take(rest, SEQUENCE)?;
    let issuer = common_name(issuer.content).or_else(|| first_text(issuer.content)).map(str::to_owned);
    Some(Told { issuer, not_after: not_after(validity.content) })
}

/// The dNSNames of a certificate (RFC 5280 §4.2.1.6); none when it is no certificate.
pub fn dns_names(certificate: &[u8]) -> Vec<String> {
    let names = || -> Option<Vec<String>> {
        let value = extension(certificate, SUBJECT_ALT_NAME)?;
        let (names, _) = take(value, SEQUENCE)?;
        let (mut rest, mut found) = (names.content, Vec::new());
        while let Some(tag) = rest.first().copied() {
            let (name, after) = take(rest, tag)?;
            rest = after;
            if tag == DNS_NAME {
                found.extend(std::str::from_utf8(name.content).ok().map(str::to_owned));
            }
        }
        Some(found)
    };
    names().unwrap_or_default()
}

/// The first text of a Name: of most, the organisation or the common name.
fn first_text(mut name: &[u8]) -> Option<&str> {
    let mut found = None;
    while let Some((set, rest)) = take(name, SET) {
        name = rest;
        let (attribute, _) = take(set.content, SEQUENCE)?;
        let (_, value) = take(attribute.content, OID)?;
        let (value, _) = take(value, *value.first()?)?;
        // The last one is the most specific.
        found = std::str::from_utf8(value.content).ok().or(found);
    }
    found
}

/// RFC 5280 §4.1.2.5: UTCTime to 2049, GeneralizedTime from 2050 on, both in UTC with seconds.
fn not_after(validity: &[u8]) -> Option<Timestamp> {
    let (_, rest) = take(validity, *validity.first()?)?;
    let (time, _) = take(rest, *rest.first()?)?;
    let text = std::str::from_utf8(time.content).ok()?.strip_suffix('Z')?;
    let text = match rest.first() {
        Some(&UTC_TIME) if text.len() == 12 => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        Some(&GENERALIZED_TIME) => text.to_owned(),
        _ => return None,
    };
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i8>().ok();
    let year = text.get(..4)?.parse::<i16>().ok()?;
    let date = jiff::civil::DateTime::new(
        year,
        number(4, 6)?,
        number(6, 8)?,
        number(8, 10)?,
        number(10, 12)?,
        number(12, 14)?,
        0,
    );
    Some(date.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// The most specific common name of a Name without its outer SEQUENCE (RFC 5280 §4.1.2.4).
pub fn common_name(mut name: &[u8]) -> Option<&str> {
    let mut found = None;
    while let Some((set, rest)) = take(name, SET) {
        name = rest;
        let mut attributes = set.content;
        while let Some((attribute, rest)) = take(attributes, SEQUENCE) {
            attributes = rest;
            let (oid, value) = take(attribute.content, OID)?;
            if oid.content == COMMON_NAME {
                let (&tag, _) = value.split_first()?;
                let (value, _) = take(value, tag)?;
                found = std::str::from_utf8(value.content).ok();
            }
        }
    }
    found
}

fn key_and_rest(certificate: &[u8]) -> Option<(PublicKeyInfo<'_>, &[u8])> {
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
    let (info, rest) = take(rest, SEQUENCE)?;
    Some((key_info(info)?, rest))
}

fn key_info(info: Element<'_>) -> Option<PublicKeyInfo<'_>> {
    let (algorithm, rest) = take(info.content, SEQUENCE)?;
    let (bits, _) = take(rest, BIT_STRING)?;
    // The first octet counts unused bits; keys are whole octets.
    let key = bits.content.strip_prefix(&[0])?;
    Some(PublicKeyInfo { der: info.der, content: info.content, algorithm: algorithm.content, key })
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
    use rcgen::{BasicConstraints as Limit, CertificateParams, DnType, IsCa, KeyPair, PublicKeyData};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, KeyPair) {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    #[test]
    fn the_key_is_found_and_damage_finds_none() {
        let (certificate, key) = certificate(|_| ());
        let found = public_key(&certificate).unwrap();
        assert_eq!(found.der, key.subject_public_key_info());
        assert!(found.der.ends_with(found.key) && found.key.len() == 65, "an uncompressed P-256 point");
        assert_eq!(bare_key(found.der), Some(found));
        assert_eq!(bare_key(&[found.der, b"x"].concat()), None);
        for end in 0..certificate.len() {
            assert_eq!(public_key(&certificate[..end]), None, "cut at {end}");
        }
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x80",
            b"\x30\x84\x01\x00\x00\x00",
            b"\x30\x83\xff\xff\xff",
            b"\x02\x01\x00",
        ] {
            assert_eq!(public_key(bytes), None);
        }
    }

    #[test]
    fn version_1_leaves_the_version_out() {
        let info = b"\x30\x09\x30\x03\x06\x01\x2a\x03\x02\x00\x07";
        let fields = [&b"\x02\x01\x01\x30\x00\x30\x00\x30\x00\x30\x00"[..], info].concat();
        let inner = [&[SEQUENCE, fields.len() as u8], &fields[..]].concat();
        let certificate = [&[SEQUENCE, inner.len() as u8], &inner[..]].concat();
        let found = public_key(&certificate).unwrap();
        assert_eq!((found.der, found.algorithm, found.key), (&info[..], &b"\x06\x01\x2a"[..], &b"\x07"[..]));
        assert_eq!(basic_constraints(&certificate), None);
    }

    #[test]
    fn constraints_are_read_as_written() {
        for (is_ca, expected) in [
            (IsCa::NoCa, None),
            (IsCa::ExplicitNoCa, Some(BasicConstraints { ca: false, path_length: None })),
            (IsCa::Ca(Limit::Unconstrained), Some(BasicConstraints { ca: true, path_length: None })),
            (IsCa::Ca(Limit::Constrained(0)), Some(BasicConstraints { ca: true, path_length: Some(0) })),
            (IsCa::Ca(Limit::Constrained(3)), Some(BasicConstraints { ca: true, path_length: Some(3) })),
        ] {
            let (der, _) = certificate(|params| params.is_ca = is_ca);
            assert_eq!(basic_constraints(&der), expected, "{is_ca:?}");
        }
    }

    #[test]
    fn the_common_name_is_found() {
        let (der, _) = certificate(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "not.this.test");
            params.distinguished_name.push(DnType::CommonName, "mx.example.test");
        });
        let der = rustls::pki_types::CertificateDer::from(der);
        let parsed = webpki::EndEntityCert::try_from(&der).unwrap();
        assert_eq!(common_name(parsed.subject()), Some("mx.example.test"));
        assert_eq!(common_name(b""), None);
        assert_eq!(common_name(b"\x31\x05\x30\x03\x06\x01\x2a"), None);
    }

    #[test]
    fn issuer_end_and_names_are_read_as_written() {
        let at = |text: &str| text.parse::<Timestamp>().ok();
        for (year, expected) in [
            (1970, at("1970-03-04T00:00:00Z")),
            (2049, at("2049-03-04T00:00:00Z")),
            // RFC 5280 §4.1.2.5: GeneralizedTime from here on.
            (2050, at("2050-03-04T00:00:00Z")),
            (9999, at("9999-03-04T00:00:00Z")),
        ] {
            let (der, _) = certificate(|params| {
                params.not_after = rcgen::date_time_ymd(year, 3, 4);
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.distinguished_name.push(DnType::OrganizationName, "Some Org");
                params.distinguished_name.push(DnType::CommonName, "Some CA");
            });
            let told = told(&der).unwrap();
            assert_eq!(told.issuer.as_deref(), Some("Some CA"), "{year}");
            assert_eq!(told.not_after, expected, "{year}");
        }
        let (der, _) = certificate(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Only Org");
        });
        assert_eq!(told(&der).unwrap().issuer.as_deref(), Some("Only Org"));
        let (der, _) = certificate(|params| params.distinguished_name = rcgen::DistinguishedName::new());
        assert_eq!(told(&der).unwrap().issuer, None);
        let (der, _) = certificate(|params| {
            let ip = rcgen::SanType::IpAddress("192.0.2.1".parse().unwrap());
            let wild = rcgen::SanType::DnsName("*.b.test".try_into().unwrap());
            params.subject_alt_names.extend([ip, wild]);
        });
        assert_eq!(dns_names(&der), ["a.test", "*.b.test"]);
        let (der, _) = certificate(|params| params.subject_alt_names.clear());
        assert_eq!(dns_names(&der), [""; 0]);
    }

    #[test]
    fn an_end_that_is_no_time_is_none() {
        let validity = |tag: u8, text: &str| {
            let begin = b"\x17\x0d260101000000Z";
            [&begin[..], &[tag, text.len() as u8], text.as_bytes()].concat()
        };
        assert_eq!(not_after(&validity(UTC_TIME, "991231235959Z")), "1999-12-31T23:59:59Z".parse().ok());
        for (tag, text) in [
            (UTC_TIME, "2601010000Z"),
            (UTC_TIME, "260101000000"),
            (UTC_TIME, "261301000000Z"),
            (UTC_TIME, "26010100000\u{e9}"),
            (GENERALIZED_TIME, "20500101000000+0100"),
            (GENERALIZED_TIME, "2050Z"),
            (INTEGER, "260101000000Z"),
            (UTC_TIME, ""),
        ] {
            assert_eq!(not_after(&validity(tag, text)), None, "{tag} {text}");
        }
        assert_eq!(not_after(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = (public_key(&bytes), bare_key(&bytes), basic_constraints(&bytes), common_name(&bytes));
            let _ = (told(&bytes), dns_names(&bytes), first_text(&bytes), not_after(&bytes));
        }

        #[test]
        fn no_damage_panics(at in 0usize..400, octet: u8) {
            static DER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut der = DER.get_or_init(|| certificate(|_| ()).0).clone();
            let at = at % der.len();
            der[at] = octet;
            let _ = (public_key(&der), basic_constraints(&der), told(&der), dns_names(&der));
        }
    }
}
