mod hello;

use std::path::Path;

use rcgen::{CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::net::testing::{Ca, Leaf};

const NAME: &str = "mx1.example.test";

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn client(ca: &Ca) -> Arc<ClientTls> {
    let (_dir, file) = ca.roots_file();
    let options = ClientOptions { use_system_roots: false, extra_roots_file: Some(file) };
    ClientTls::new(&options).unwrap()
}

/// One handshake of a client that trusts `ca` with a server that shows `leaf`.
async fn facts(ca: &Ca, leaf: &Leaf) -> TlsFacts {
    facts_with(ca, leaf, &[&TLS13, &TLS12]).await
}

async fn facts_with(
    ca: &Ca,
    leaf: &Leaf,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsFacts {
    let (near, far) = duplex(64 * 1024);
    let acceptor = leaf.acceptor(versions);
    let server = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.unwrap();
        assert_eq!(stream.get_ref().1.server_name(), Some(NAME), "SNI is the MX host name");
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        stream.write_all(&byte).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let (mut stream, facts) =
        client(ca).handshake(Box::new(near), &domain(NAME), &domain(NAME)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    server.await.unwrap();
    facts
}

fn pkix() -> Requirement {
    Requirement::Pkix { name: domain(NAME) }
}

#[tokio::test]
async fn a_good_certificate_meets_every_requirement_but_tlsa() {
    let ca = Ca::new();
    let leaf = ca.leaf(&["other.test", "MX1.Example.TEST"]);
    let facts = facts(&ca, &leaf).await;
    assert_eq!(facts.pkix, Ok(()));
    assert_eq!((facts.version, facts.cipher.as_str()), ("TLSv1.3", "TLS13_AES_256_GCM_SHA384"));
    for require in [Requirement::Opportunistic, Requirement::Encrypt, pkix()] {
        assert_eq!(facts.verify(&require), Ok(()));
    }
    let elsewhere = Requirement::Pkix { name: domain("mx2.example.test") };
    assert!(matches!(
        facts.verify(&elsewhere),
        Err(TlsFailure::Certificate(CertificateFailure::NameMismatch(_)))
    ));
    assert_eq!(facts.chain_sha256.len(), 64);
}

#[tokio::test]
async fn tls_1_2_will_do() {
    let ca = Ca::new();
    let facts = facts_with(&ca, &ca.leaf(&[NAME]), &[&TLS12]).await;
    assert_eq!(facts.version, "TLSv1.2");
    assert!(facts.cipher.starts_with("TLS_ECDHE_"), "{}", facts.cipher);
    assert_eq!(facts.verify(&pkix()), Ok(()));
}

/// A bad certificate is told apart, fails what needs PKIX and nothing else.
async fn bad(ca: &Ca, leaf: &Leaf, expected: fn(&CertificateFailure) -> bool, phrase: &str) {
    let facts = facts(ca, leaf).await;
    let failure = facts.pkix.clone().expect_err(phrase);
    assert!(expected(&failure), "{failure:?} instead of {phrase}");
    assert!(failure.to_string().contains(phrase), "{failure}");
    assert_eq!(facts.verify(&Requirement::Encrypt), Ok(()));
    assert_eq!(facts.verify(&pkix()), Err(TlsFailure::Certificate(failure)));
}

/// An extension nobody knows and nobody may overlook.
fn critical(params: &mut rcgen::CertificateParams) {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
}

fn expired(failure: &CertificateFailure) -> bool {
    matches!(failure, CertificateFailure::Expired(_))
}
fn mismatch(failure: &CertificateFailure) -> bool {
    matches!(failure, CertificateFailure::NameMismatch(_))
}
fn untrusted(failure: &CertificateFailure) -> bool {
    matches!(failure, CertificateFailure::NotTrusted(_))
}

#[tokio::test]
async fn each_kind_of_bad_certificate_is_told_apart() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let old = |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2024, 2, 3);
    let client_only = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    bad(&ca, &ca.leaf_with(&[NAME], old), expired, "not valid after 2024-02-03").await;
    bad(&ca, &ca.leaf(&["example.test"]), mismatch, "names example.test").await;
    bad(&ca, &stranger.leaf(&[NAME]), untrusted, "no chain to a trusted root").await;
    let (twin, impostor) = (Ca::named("twin"), Ca::named("twin"));
    bad(&twin, &impostor.leaf(&[NAME]), untrusted, "not signed by its issuer").await;
    bad(&ca, &Leaf::self_signed(&[NAME]), untrusted, "certificate is not trusted").await;
    let early = ca.leaf_with(&[NAME], |params| params.not_before = date_time_ymd(2999, 1, 1));
    bad(&ca, &early, untrusted, "not valid before 2999-01-01").await;
    bad(&ca, &ca.leaf_with(&[NAME], client_only), untrusted, "(not for use by a server)").await;
    bad(&ca, &ca.leaf_with(&[NAME], critical), untrusted, "(a critical extension that is not known)").await;
    // As `openssl req -x509` makes them unless told otherwise.
    let authority = |params: &mut rcgen::CertificateParams| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    bad(&ca, &ca.leaf_with(&[NAME], authority), untrusted, "(an authority's certificate stands for a host)")
        .await;
}

#[tokio::test]
async fn a_certificate_pkix_cannot_read_still_encrypts_and_still_needs_its_key() {
    let ca = Ca::new();
    let mut leaf = ca.leaf_with(&[NAME], critical);
    for versions in [[&TLS13], [&TLS12]] {
        let facts = facts_with(&ca, &leaf, &versions).await;
        assert!(matches!(facts.pkix, Err(CertificateFailure::NotTrusted(_))));
        assert_eq!(facts.verify(&Requirement::Opportunistic), Ok(()));
        let records = vec![tlsa(1, 1, sha256(&leaf.spki()))];
        assert_eq!(facts.verify(&Requirement::Dane { records, names: vec![] }), Ok(()));
    }
    leaf.key = KeyPair::generate().unwrap();
    refused_without_its_key(&ca, &leaf).await;
}

#[tokio::test]
async fn of_several_causes_expiry_comes_before_name_and_name_before_trust() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let old = |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2024, 2, 3);
    bad(&ca, &stranger.leaf_with(&["wrong.test"], old), expired, "not valid after").await;
    bad(&ca, &ca.leaf_with(&["wrong.test"], old), expired, "not valid after").await;
    bad(&ca, &stranger.leaf(&["wrong.test"]), mismatch, "wrong.test").await;
}

#[tokio::test]
async fn only_dns_ids_count_and_wildcards_only_as_the_whole_left_most_label() {
    let ca = Ca::new();
    let common_name = |params: &mut rcgen::CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, NAME);
    };
    bad(&ca, &ca.leaf_with(&[], common_name), mismatch, "no subject alternative name").await;
    bad(&ca, &ca.leaf_with(&["other.test"], common_name), mismatch, "other.test").await;
    bad(&ca, &ca.leaf(&["127.0.0.1"]), mismatch, NAME).await;
    for names in [["mx*.example.test"], ["*1.example.test"], ["*.test"], ["*.mx1.example.test"], ["*"]] {
        bad(&ca, &ca.leaf(&names), mismatch, names[0]).await;
    }
    // One malformed identifier does not spoil the good one beside it.
    for names in [&["*.example.test"][..], &["mx*.example.test", NAME]] {
        assert_eq!(facts(&ca, &ca.leaf(names)).await.pkix, Ok(()), "{names:?}");
    }
}

#[tokio::test]
async fn an_expired_intermediate_counts_only_when_no_other_path_is_valid() {
    let ca = Ca::new();
    let key = KeyPair::generate().unwrap();
    let old = ca.intermediate(&key, |params| params.not_after = date_time_ymd(2024, 2, 3));
    let new = ca.intermediate(&key, |_| ());
    let leaf = || new.leaf(&[NAME]);
    assert_eq!(facts(&ca, &leaf().showing([&new])).await.pkix, Ok(()));
    assert_eq!(facts(&ca, &leaf().showing([&old, &new])).await.pkix, Ok(()));
    assert_eq!(facts(&ca, &leaf().showing([&new, &old])).await.pkix, Ok(()));
    bad(&ca, &leaf().showing([&old]), expired, "not valid after 2024-02-03").await;
    bad(&ca, &leaf(), untrusted, "no chain").await;
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_whatever_is_required() {
    let ca = Ca::new();
    let mut stolen = ca.leaf(&[NAME]);
    stolen.key = KeyPair::generate().unwrap();
    refused_without_its_key(&ca, &stolen).await;
}

async fn refused_without_its_key(ca: &Ca, stolen: &Leaf) {
    for versions in [[&TLS13], [&TLS12]] {
        let (near, far) = duplex(64 * 1024);
        let acceptor = stolen.acceptor(&versions);
        let server = tokio::spawn(async move { acceptor.accept(far).await.is_err() });
        let refused = client(ca).handshake(Box::new(near), &domain(NAME), &domain(NAME)).await.err().unwrap();
        assert!(matches!(refused, TlsFailure::Handshake(_)), "{refused:?}");
        assert!(server.await.unwrap());
    }
}

#[tokio::test]
async fn what_is_no_tls_is_a_handshake_failure_and_a_closed_connection_is_lost() {
    let ca = Ca::new();
    let play = async |bytes: &'static [u8]| {
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        client(&ca).handshake(Box::new(near), &domain(NAME), &domain(NAME)).await.err().unwrap()
    };
    let protocol_version_alert = b"\x15\x03\x01\x00\x02\x02\x46";
    assert!(matches!(play(protocol_version_alert).await, TlsFailure::Handshake(_)));
    // RFC 8996: a host that knows nothing above TLS 1.1 chooses it, and is left.
    let tls11_server_hello =
        b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x020123456789abcdef0123456789abcdef\x00\xc0\x13\x00";
    assert!(matches!(play(tls11_server_hello).await, TlsFailure::Handshake(_)));
    assert!(matches!(play(b"454 4.7.0 no TLS today\r\n").await, TlsFailure::Handshake(_)));
    assert!(matches!(play(b"").await, TlsFailure::Lost(_)));
}

fn tlsa(selector: u8, matching: u8, data: Vec<u8>) -> Tlsa {
    Tlsa { usage: 3, selector, matching, data }
}

fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

#[tokio::test]
async fn dane_ee_binds_the_certificate_or_the_key_whatever_name_and_date_say() {
    let ca = Ca::new();
    let mut old = ca.leaf_with(&["wrong.test"], |params| params.not_after = date_time_ymd(2024, 2, 3));
    old.chain.truncate(1);
    let facts = facts(&ca, &old).await;
    let (certificate, key) = (old.chain[0].to_vec(), old.spki());
    let sha512 = |data: &[u8]| digest::digest(&digest::SHA512, data).as_ref().to_vec();
    let rows = [
        tlsa(0, 0, certificate.clone()),
        tlsa(0, 1, sha256(&certificate)),
        tlsa(0, 2, sha512(&certificate)),
        tlsa(1, 0, key.clone()),
        tlsa(1, 1, sha256(&key)),
        tlsa(1, 2, sha512(&key)),
    ];
    let no_match = tlsa(1, 1, vec![0; 32]);
    for record in rows {
        let dane = |records| Requirement::Dane { records, names: vec![domain(NAME)] };
        assert_eq!(facts.verify(&dane(vec![record.clone()])), Ok(()), "{record}");
        assert_eq!(facts.verify(&dane(vec![no_match.clone(), record.clone()])), Ok(()), "{record}");
        let both = Requirement::DaneAndPkix {
            records: vec![record.clone()],
            names: vec![domain(NAME)],
            name: domain(NAME),
        };
        assert!(matches!(facts.verify(&both), Err(TlsFailure::Certificate(_))), "{record}");
        for usage in [0, 1, 2] {
            let other = Tlsa { usage, ..record.clone() };
            assert_eq!(facts.verify(&dane(vec![other])), Err(TlsFailure::TlsaMismatch));
        }
    }
    let swapped = tlsa(0, 1, sha256(&key));
    for records in [vec![], vec![no_match], vec![swapped], vec![tlsa(1, 0, vec![])]] {
        let dane = Requirement::Dane { records, names: vec![domain(NAME)] };
        assert_eq!(facts.verify(&dane), Err(TlsFailure::TlsaMismatch));
    }
}

#[tokio::test]
async fn sni_may_differ_from_the_name_that_pkix_is_for() {
    let ca = Ca::new();
    let acceptor = ca.leaf(&[NAME]).acceptor(&[&TLS13]);
    let (near, far) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        let stream = acceptor.accept(far).await.unwrap();
        stream.get_ref().1.server_name().map(str::to_owned)
    });
    let (base, name) = (domain("host.example.test"), domain(NAME));
    let (_stream, facts) = client(&ca).handshake(Box::new(near), &base, &name).await.unwrap();
    assert_eq!(server.await.unwrap().as_deref(), Some("host.example.test"));
    assert_eq!((facts.pkix, facts.sni, facts.name), (Ok(()), base, name));
}

#[tokio::test]
async fn dane_ta_wants_the_chain_the_dates_and_one_of_the_names() {
    let (anchor, other) = (Ca::new(), Ca::new());
    let dane = |ca: &Ca, names: &[&str]| Requirement::Dane {
        records: vec![Tlsa { usage: 2, selector: 0, matching: 1, data: sha256(&ca.der) }],
        names: names.iter().map(|name| domain(name)).collect(),
    };
    let old = |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2024, 2, 3);
    // The client trusts `other` only: under PKIX none of these would pass.
    let good = facts(&other, &anchor.leaf(&["example.test"]).showing([&anchor])).await;
    assert!(good.pkix.is_err());
    assert_eq!(good.verify(&dane(&anchor, &[NAME, "example.test"])), Ok(()));
    let wrong = good.verify(&dane(&anchor, &[NAME])).unwrap_err();
    assert!(matches!(wrong, TlsFailure::Certificate(CertificateFailure::NameMismatch(_))), "{wrong:?}");
    assert!(wrong.to_string().contains(NAME), "{wrong}");
    let expired = facts(&other, &anchor.leaf_with(&[NAME], old).showing([&anchor])).await;
    let failure = expired.verify(&dane(&anchor, &[NAME])).unwrap_err();
    assert!(failure.to_string().contains("not valid after 2024-02-03"), "{failure}");
    // Trust under PKIX makes up for nothing.
    let trusted = facts(&other, &other.leaf(&[NAME]).showing([&other, &anchor])).await;
    assert_eq!(trusted.pkix, Ok(()));
    assert_eq!(trusted.verify(&dane(&anchor, &[NAME])), Err(TlsFailure::TlsaMismatch));
}

#[tokio::test]
async fn a_tlsa_mismatch_is_not_rescued_by_pkix() {
    let ca = Ca::new();
    let facts = facts(&ca, &ca.leaf(&[NAME])).await;
    let both = Requirement::DaneAndPkix {
        records: vec![tlsa(1, 1, vec![7; 32])],
        names: vec![domain(NAME)],
        name: domain(NAME),
    };
    assert_eq!(facts.verify(&both), Err(TlsFailure::TlsaMismatch));
}

#[test]
fn facts_without_a_certificate_prove_nothing() {
    let facts = TlsFacts {
        group: None,
        version: "TLSv1.3",
        cipher: String::new(),
        sni: domain(NAME),
        name: domain(NAME),
        pkix: Err(CertificateFailure::NotTrusted("none".into())),
        chain_sha256: String::new(),
        chain: Arc::new([]),
        at: Timestamp::UNIX_EPOCH,
        resumed: false,
    };
    let empty = tlsa(0, 1, sha256(b""));
    let dane = Requirement::Dane { records: vec![empty], names: vec![] };
    assert_eq!(facts.verify(&dane), Err(TlsFailure::TlsaMismatch));
}

/// A server loaded from files, as `submission` uses it.
#[tokio::test]
async fn a_server_loads_its_files_and_serves_with_them() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[NAME]);
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&certificate, format!("{}{}", leaf.pem, ca.pem)).unwrap();
    std::fs::write(&key, leaf.key.serialize_pem()).unwrap();
    let server = ServerTls::load(&certificate, &key).unwrap();
    let (near, far) = duplex(64 * 1024);
    let accepted = tokio::spawn(async move { server.acceptor().accept(far).await });
    let (_stream, facts) = client(&ca).handshake(Box::new(near), &domain(NAME), &domain(NAME)).await.unwrap();
    let accepted = accepted.await.unwrap().unwrap();
    assert_eq!(facts.pkix, Ok(()));
    let own = ServerFacts::of(accepted.get_ref().1);
    assert_eq!((own.version, own.cipher), (facts.version, facts.cipher));
}

#[test]
fn files_that_cannot_serve_are_named_with_what_is_wrong() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[NAME]);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let certificate = file("c.pem", &leaf.pem);
    let key = file("k.pem", &leaf.key.serialize_pem());
    let other_key = file("other.pem", &KeyPair::generate().unwrap().serialize_pem());
    let empty = file("empty.pem", "");
    let garbage = file("garbage.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let not_x509 = file("not.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = dir.path().join("missing.pem");
    let fails = |certificate: &Path, key: &Path, file: &Path, phrase: &str| {
        let error = ServerTls::load(certificate, key).err().expect(phrase);
        assert!(error.contains(phrase), "{error}");
        assert!(error.contains(&file.display().to_string()), "{error}");
    };
    fails(&missing, &key, &missing, "cannot be read");
    fails(&certificate, &missing, &missing, "cannot be read");
    fails(&empty, &key, &empty, "no certificate in PEM form");
    fails(&garbage, &key, &garbage, "not valid PEM");
    fails(&not_x509, &key, &not_x509, "cannot be used");
    fails(&certificate, &certificate, &certificate, "no unencrypted private key");
    fails(&certificate, &other_key, &other_key, "does not belong to");
}

#[test]
fn trust_anchor_files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let load = |content: Option<&str>| {
        let file = dir.path().join("roots.pem");
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let options = ClientOptions { use_system_roots: false, extra_roots_file: Some(file) };
        ClientTls::new(&options).err().expect("an error")
    };
    assert!(load(None).contains("roots.pem: cannot be read"));
    assert!(load(Some("nothing here")).contains("holds no certificate"));
    assert!(
        load(Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
            .contains("cannot be used")
    );
    let nothing = ClientOptions { use_system_roots: false, extra_roots_file: None };
    assert!(ClientTls::new(&nothing).err().unwrap().contains("no trust anchors"));
    assert!(ClientTls::new(&ClientOptions::default()).is_ok());
}
