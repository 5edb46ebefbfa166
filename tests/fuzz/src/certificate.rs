//! What a peer shows in a handshake: a chain of any octets, held against TLSA records of any kind.
//!
//! Input: number of certificates, each with its length; number of records, each with usage, selector,
//! matching type and data, which may be the octets of a certificate shown; names; the rest is ignored.

use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, UnixTime};
use stsrelay::dane::{self, Mismatch, Tlsa, x509};
use stsrelay::mail::Domain;

use super::input::Input;

/// Certificates of one chain; rustls has its own limit, far above.
const CHAIN_MAX: usize = 6;
const RECORDS_MAX: usize = 8;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let seconds = u64::from(input.octet()) << 24 | u64::from(input.octet()) << 16;
    let chain: Vec<CertificateDer<'_>> =
        (0..input.below(CHAIN_MAX)).map(|_| CertificateDer::from(input.long())).collect();
    chain.iter().for_each(|certificate| check_walk(certificate));
    let records: Vec<Tlsa> = (0..input.below(RECORDS_MAX)).map(|_| record(&mut input, &chain)).collect();
    let names: Vec<Domain> = ["mx.example.net", "example.org"].map(domain).to_vec();
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let verify = |records: &[Tlsa], chain: &[CertificateDer<'_>]| {
        dane::verify(records, &names, chain, algorithms.all, at)
    };

    let verdict = verify(&records, &chain);
    let usable = dane::usable(&records);
    if verdict.is_ok() {
        // Something is proven only by a record, and one is enough.
        assert!(!chain.is_empty());
        assert!(records.iter().any(|one| verify(std::slice::from_ref(one), &chain).is_ok()));
    } else {
        assert!(records.iter().all(|one| verify(std::slice::from_ref(one), &chain).is_err()));
        assert!(verify(&usable, &chain).is_err(), "fewer records prove no more");
    }
    if records.iter().all(|record| !record.is_usable()) {
        assert_eq!(verdict, Err(Mismatch::NoMatch));
    }
    if let Some(leaf) = chain.first().filter(|leaf| !leaf.is_empty()) {
        let bound = |usage| Tlsa { usage, selector: 0, matching: 1, data: sha256(leaf) };
        // RFC 7672 §3.1.1: whatever else it says. And the server's own certificate is no issuer.
        assert_eq!(verify(&[bound(3)], &chain), Ok(()));
        assert!(verify(&[bound(2)], std::slice::from_ref(leaf)).is_err());
        assert!(verify(&[bound(1), bound(0), bound(255)], &chain).is_err());
        if let Some(key) = x509::public_key(leaf) {
            let key = Tlsa { usage: 3, selector: 1, matching: 1, data: sha256(key.der) };
            assert_eq!(verify(std::slice::from_ref(&key), &chain), Ok(()));
            assert_eq!(verify(&[vec![key], records].concat(), &chain), Ok(()), "one match is enough");
        }
    }
}

/// Everything found in a certificate is part of it.
fn check_walk(certificate: &[u8]) {
    if let Some(key) = x509::public_key(certificate) {
        for part in [key.der, key.content, key.algorithm, key.key] {
            assert!(part.len() <= certificate.len());
        }
        assert!(certificate.windows(key.der.len()).any(|window| window == key.der));
        assert_eq!(x509::bare_key(key.der), Some(key));
    }
    let names: usize = x509::dns_names(certificate).iter().map(String::len).sum();
    assert!(names <= certificate.len());
    if let Some(told) = x509::told(certificate) {
        assert!(told.issuer.is_none_or(|issuer| issuer.len() <= certificate.len()));
    }
    let _ = (x509::basic_constraints(certificate), x509::common_name(certificate));
}

fn record(input: &mut Input<'_>, chain: &[CertificateDer<'_>]) -> Tlsa {
    let (usage, selector, matching) = (input.octet() % 5, input.octet() % 3, input.octet() % 4);
    let shown = chain.get(usize::from(input.octet()) % CHAIN_MAX).map(AsRef::as_ref);
    let selected = shown.and_then(|certificate: &[u8]| match selector {
        0 => Some(certificate),
        _ => x509::public_key(certificate).map(|key| key.der),
    });
    let data = match (selected, matching) {
        (None, _) => input.short().to_vec(),
        (Some(selected), 0) => selected.to_vec(),
        (Some(selected), 1) => sha256(selected),
        (Some(selected), _) => digest::digest(&digest::SHA512, selected).as_ref().to_vec(),
    };
    Tlsa { usage, selector, matching, data }
}

fn sha256(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, octets).as_ref().to_vec()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}
