//! Chains of every kind against records of every kind.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints,
    PublicKeyData, date_time_ymd,
};

use super::*;

const MX: &str = "mx.example.org";
/// 2027-01-15; certificates are valid from 1975 to 4096 unless a test says otherwise.
const NOW: u64 = 1_800_000_000;

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    der: CertificateDer<'static>,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Ca {
    fn root(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params("root");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        Self { params, key, der }
    }

    fn leaf(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
    }

    fn spki(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }
}

fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

fn sha512(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA512, data).as_ref().to_vec()
}

fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Tlsa {
    Tlsa { usage, selector, matching, data: data.to_vec() }
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn check(records: &[Tlsa], chain: &[&CertificateDer<'static>]) -> Result<(), Mismatch> {
    check_for(&[MX], records, chain)
}

fn check_for(names: &[&str], records: &[Tlsa], chain: &[&CertificateDer<'static>]) -> Result<(), Mismatch> {
    let names: Vec<Domain> = names.iter().map(|name| domain(name)).collect();
    let chain: Vec<CertificateDer<'static>> = chain.iter().map(|der| (*der).clone()).collect();
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
    verify(records, &names, &chain, algorithms, now)
}

fn spki(certificate: &[u8]) -> &[u8] {
    x509::public_key(certificate).unwrap().der
}

#[test]
fn usage_3_binds_the_leaf_alone_whatever_names_and_dates_say() {
    let ca = Ca::root(|_| ());
    let old = ca.leaf(&["wrong.test"], |params| params.not_after = date_time_ymd(2024, 2, 3));
    for (selector, data) in [(0, &old[..]), (1, spki(&old))] {
        for record in [
            record(3, selector, 0, data),
            record(3, selector, 1, &sha256(data)),
            record(3, selector, 2, &sha512(data)),
        ] {
            assert_eq!(check(std::slice::from_ref(&record), &[&old]), Ok(()), "{record}");
            assert_eq!(check(std::slice::from_ref(&record), &[&old, &ca.der]), Ok(()), "{record}");
            // Only the leaf: the same certificate further up proves nothing.
            let other = ca.leaf(&[MX], |_| ());
            assert_eq!(check(&[record], &[&other, &old]), Err(Mismatch::NoMatch));
        }
    }
    assert_eq!(check(&[record(3, 0, 1, &sha256(&ca.der))], &[&old, &ca.der]), Err(Mismatch::NoMatch));
    assert_eq!(check(&[record(3, 1, 1, &sha256(&old))], &[&old]), Err(Mismatch::NoMatch), "selector swapped");
}

#[test]
fn nothing_matches_without_records_without_a_chain_or_under_other_usages() {
    let ca = Ca::root(|_| ());
    let leaf = ca.leaf(&[MX], |_| ());
    assert_eq!(check(&[], &[&leaf]), Err(Mismatch::NoMatch));
    assert_eq!(check(&[record(3, 0, 1, &sha256(b""))], &[]), Err(Mismatch::NoMatch));
    for usage in [0, 1, 4, 255] {
        for certificate in [&leaf, &ca.der] {
            let record = record(usage, 0, 1, &sha256(certificate));
            assert_eq!(check(&[record], &[&leaf, &ca.der]), Err(Mismatch::NoMatch), "{usage}");
        }
    }
    let garbage = CertificateDer::from(b"garbage".to_vec());
    for usage in [2, 3] {
        let records = [record(usage, 1, 1, &sha256(b"")), record(usage, 1, 1, &sha256(&ca.spki()))];
        assert_eq!(check(&records, &[&garbage, &ca.der]), Err(Mismatch::NoMatch));
    }
}

#[test]
fn usage_2_wants_a_chain_to_the_named_anchor() {
    let root = Ca::root(|_| ());
    let middle = root.below("middle", |_| ());
    let leaf = middle.leaf(&[MX], |_| ());
    let chain = [&leaf, &middle.der, &root.der];
    for anchor in [&root, &middle] {
        let spki = anchor.spki();
        for (selector, data) in [(0, &anchor.der[..]), (1, &spki[..])] {
            for record in [
                record(2, selector, 0, data),
                record(2, selector, 1, &sha256(data)),
                record(2, selector, 2, &sha512(data)),
            ] {
                assert_eq!(check(std::slice::from_ref(&record), &chain), Ok(()), "{record}");
            }
        }
    }
    // A digest names nobody who is not shown (RFC 7671 §5.2.2).
    let digest = record(2, 0, 1, &sha256(&root.der));
    assert_eq!(check(std::slice::from_ref(&digest), &[&leaf, &middle.der]), Err(Mismatch::NoMatch));
    // The link between is missing.
    assert_eq!(check(&[digest], &[&leaf, &root.der]), Err(Mismatch::NoMatch));
    // The leaf is no anchor.
    assert_eq!(check(&[record(2, 0, 1, &sha256(&leaf))], &chain), Err(Mismatch::NoMatch));
}

#[test]
fn a_shown_anchor_that_did_not_sign_proves_nothing() {
    let (real, twin) = (Ca::root(|_| ()), Ca::root(|_| ()));
    let leaf = real.leaf(&[MX], |_| ());
    for record in [
        record(2, 0, 1, &sha256(&twin.der)),
        record(2, 1, 1, &sha256(&twin.spki())),
        record(2, 0, 0, &twin.der),
        record(2, 1, 0, &twin.spki()),
    ] {
        assert_eq!(check(&[record], &[&leaf, &real.der, &twin.der]), Err(Mismatch::NoMatch));
    }
    // Nor one that says it may not sign.
    let server = Ca::root(|params| params.is_ca = IsCa::ExplicitNoCa);
    let leaf = server.leaf(&[MX], |_| ());
    let record = record(2, 0, 1, &sha256(&server.der));
    assert_eq!(check(&[record], &[&leaf, &server.der]), Err(Mismatch::NoMatch));
}

#[test]
fn an_anchor_may_be_in_dns_only() {
    let root = Ca::root(|_| ());
    let middle = root.below("middle", |_| ());
    let (leaf, direct) = (middle.leaf(&[MX], |_| ()), root.leaf(&[MX], |_| ()));
    for record in [record(2, 0, 0, &root.der), record(2, 1, 0, &root.spki())] {
        let records = std::slice::from_ref(&record);
        assert_eq!(check(records, &[&leaf, &middle.der]), Ok(()), "{record}");
        assert_eq!(check(records, &[&direct]), Ok(()), "{record}");
        // Its chain must still be whole, and the name right.
        assert_eq!(check(records, &[&leaf]), Err(Mismatch::NoMatch), "{record}");
        assert!(matches!(check_for(&["b.test"], records, &[&direct]), Err(Mismatch::Name(_))), "{record}");
    }
}

#[test]
fn usage_2_wants_dates_and_purpose_that_hold() {
    let root = Ca::root(|_| ());
    let records = [record(2, 0, 1, &sha256(&root.der))];
    let old = root.leaf(&[MX], |params| params.not_after = date_time_ymd(2024, 2, 3));
    assert_eq!(check(&records, &[&old, &root.der]), Err(Mismatch::Expired(1_706_918_400)));
    let early = root.leaf(&[MX], |params| params.not_before = date_time_ymd(2999, 1, 1));
    assert_eq!(check(&records, &[&early, &root.der]), Err(Mismatch::NoMatch));
    let client = root.leaf(&[MX], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(check(&records, &[&client, &root.der]), Err(Mismatch::NoMatch));
    let stale = root.below("middle", |params| params.not_after = date_time_ymd(2024, 2, 3));
    let below = stale.leaf(&[MX], |_| ());
    assert!(matches!(check(&records, &[&below, &stale.der, &root.der]), Err(Mismatch::Expired(_))));
    // Expired, and of another issuer besides: that is no match.
    let stranger = Ca::root(|_| ()).leaf(&[MX], |params| params.not_after = date_time_ymd(2024, 2, 3));
    assert_eq!(check(&records, &[&stranger, &root.der]), Err(Mismatch::NoMatch));
    // A usage 3 record beside it still matches.
    let both = [records[0].clone(), record(3, 1, 1, &sha256(spki(&old)))];
    assert_eq!(check(&both, &[&old, &root.der]), Ok(()));
}

#[test]
fn usage_2_wants_one_of_the_reference_names() {
    let root = Ca::root(|_| ());
    let records = [record(2, 1, 1, &sha256(&root.spki()))];
    let named = |names: &[&str]| {
        let leaf = root.leaf(names, |_| ());
        check_for(&[MX, "example.net"], &records, &[&leaf, &root.der])
    };
    for names in [&[MX][..], &["MX.Example.ORG"], &["example.net"], &["*.example.org"], &["x.test", MX]] {
        assert_eq!(named(names), Ok(()), "{names:?}");
    }
    for name in ["other.test", "m*.example.org", "*.org", "*.mx.example.org", "example.org"] {
        let wanted = vec![domain(MX), domain("example.net")];
        assert_eq!(named(&[name]), Err(Mismatch::Name(wanted)), "{name}");
    }
}

#[test]
fn the_common_name_counts_only_without_dns_names() {
    let root = Ca::root(|_| ());
    let records = [record(2, 1, 1, &sha256(&root.spki()))];
    let with = |names: &[&str], common_name: &str| {
        let leaf = root.leaf(names, |params| params.distinguished_name.push(DnType::CommonName, common_name));
        check(&records, &[&leaf, &root.der])
    };
    assert_eq!(with(&[], MX), Ok(()));
    assert_eq!(with(&["192.0.2.1"], "Mx.Example.Org"), Ok(()));
    assert_eq!(with(&[], "*.example.org"), Ok(()));
    assert!(matches!(with(&["other.test"], MX), Err(Mismatch::Name(_))));
    for name in ["other.test", "*.org", "*", "m*.example.org", "*.mx.example.org"] {
        assert!(matches!(with(&[], name), Err(Mismatch::Name(_))), "{name}");
    }
}

#[test]
fn constraints_of_the_anchor_bind_the_path() {
    let limited = |length| {
        let root = Ca::root(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length)));
        let middle = root.below("middle", |_| ());
        let leaf = middle.leaf(&[MX], |_| ());
        let records = [record(2, 0, 1, &sha256(&root.der)), record(2, 0, 0, &root.der)];
        let direct = root.leaf(&[MX], |_| ());
        assert_eq!(check(&records, &[&direct, &root.der]), Ok(()));
        records.map(|record| check(&[record], &[&leaf, &middle.der, &root.der]))
    };
    assert_eq!(limited(0), [Err(Mismatch::NoMatch), Err(Mismatch::NoMatch)]);
    assert_eq!(limited(1), [Ok(()), Ok(())]);
    let elsewhere = Ca::root(|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.net".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let records = [record(2, 0, 1, &sha256(&elsewhere.der))];
    let (inside, outside) = (elsewhere.leaf(&["mx.example.net"], |_| ()), elsewhere.leaf(&[MX], |_| ()));
    assert_eq!(check(&records, &[&outside, &elsewhere.der]), Err(Mismatch::NoMatch));
    assert_eq!(check_for(&["mx.example.net"], &records, &[&inside, &elsewhere.der]), Ok(()));
}
