use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::key::Algorithm;
use super::*;

const MESSAGE: &str = "From: <tlsrpt@sender.example>\r\nTo: <a@b.example>\r\nSubject: Report  Domain:\r\n x \r\n\
    Date: Sun, 22 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@x>\r\nTLS-Report-Domain: b.example\r\n\
    TLS-Report-Submitter: sender.example\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain\r\n\r\n.leading dot  and blanks \r\n\r\nlast\r\n\r\n\r\n";

fn pem(der: &[u8]) -> Vec<u8> {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der))
        .into_bytes()
}

pub(crate) fn made(domain: &str) -> Signer {
    let pair = Ed25519KeyPair::generate().unwrap();
    let pem = pem(AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref());
    Signer::from_pem(Domain::parse(domain).unwrap(), "tlsrpt", &pem).unwrap()
}

fn signer(pem: &[u8]) -> Result<Signer, String> {
    Signer::from_pem(Domain::parse("sender.example").unwrap(), "tlsrpt", pem)
}

/// Our own reading of RFC 6376 §3.4.2: relaxed header canonicalisation of one field.
fn relaxed(field: &str) -> String {
    let (name, value) = field.split_once(':').unwrap();
    let words: Vec<&str> = value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect();
    format!("{}:{}\r\n", name.trim_end().to_ascii_lowercase(), words.join(" "))
}

/// RFC 6376 §3.4.4: relaxed body canonicalisation.
fn relaxed_body(body: &str) -> String {
    let lines: Vec<String> = body
        .split_terminator("\r\n")
        .map(|line| {
            let mut out = String::new();
            for c in line.chars() {
                match c {
                    ' ' | '\t' if out.ends_with(' ') => {}
                    '\t' => out.push(' '),
                    c => out.push(c),
                }
            }
            out.trim_end_matches(' ').to_owned()
        })
        .collect();
    let kept = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines[..kept].iter().map(|line| format!("{line}\r\n")).collect()
}

fn fields(header: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in header.split_inclusive("\r\n") {
        match line.starts_with([' ', '\t']) {
            true => fields.last_mut().unwrap().push_str(line),
            false => fields.push(line.to_owned()),
        }
    }
    fields
}

fn tag(signature: &str, name: &str) -> Option<String> {
    let value = signature.split_once(':').unwrap().1;
    value.split(';').find_map(|tag| {
        let (found, value) = tag.split_once('=')?;
        (found.trim() == name).then(|| value.split_whitespace().collect())
    })
}

/// The bytes the signature is over, made as a verifier makes them (RFC 6376 §3.7).
pub(crate) fn signed_data(signed: &str) -> (String, Vec<u8>, Vec<u8>) {
    let (header, body) = signed.split_once("\r\n\r\n").unwrap();
    let fields = fields(&format!("{header}\r\n"));
    let signature = fields[0].clone();
    assert!(signature.starts_with("DKIM-Signature: "), "{signature}");
    let bh = BASE64_STANDARD.encode(digest(&SHA256, relaxed_body(body).as_bytes()));
    assert_eq!(tag(&signature, "bh").unwrap(), bh);

    let mut left: Vec<&String> = fields[1..].iter().collect();
    let mut data = String::new();
    for name in tag(&signature, "h").unwrap().split(':') {
        let at = left.iter().rposition(|field| field.split(':').next().unwrap().eq_ignore_ascii_case(name));
        if let Some(at) = at {
            data.push_str(&relaxed(left.remove(at)));
        }
    }
    let b = tag(&signature, "b").unwrap();
    let start = signature.rfind("b=").unwrap();
    let emptied = relaxed(&format!("{}b=;", &signature[..start]));
    data.push_str(emptied.trim_end_matches("\r\n"));
    (signature, data.into_bytes(), BASE64_STANDARD.decode(b).unwrap())
}

/// Whether the first signature of a mail is by this key.
pub(crate) fn verifies(signed: &str, key: &PublicKey) -> bool {
    let (_, data, b) = signed_data(signed);
    match key.algorithm() {
        Algorithm::Rsa => {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.bare()).verify(&data, &b).is_ok()
        }
        Algorithm::Ed25519 => {
            UnparsedPublicKey::new(&ED25519, key.bare()).verify(digest(&SHA256, &data).as_ref(), &b).is_ok()
        }
    }
}

#[test]
fn rsa_signatures_verify_under_our_own_reading_of_the_rfc() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let signer = signer(&pem(der.as_ref())).unwrap();
    let signed = [signer.sign(MESSAGE.as_bytes()).unwrap(), MESSAGE.into()].concat();
    let (signature, data, b) = signed_data(std::str::from_utf8(&signed).unwrap());
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key()).verify(&data, &b).unwrap();

    let tags = ["v", "a", "c", "d", "s"].map(|name| tag(&signature, name).unwrap());
    assert_eq!(tags, ["1", "rsa-sha256", "relaxed/relaxed", "sender.example", "tlsrpt"]);
    assert_eq!(tag(&signature, "l"), None, "RFC 8460 §3");
    let h: Vec<String> = tag(&signature, "h").unwrap().split(':').map(str::to_ascii_lowercase).collect();
    for name in SIGNED_FIELDS {
        let name = name.to_ascii_lowercase();
        assert_eq!(h.iter().filter(|signed| **signed == name).count(), 2, "{name} signed and over-signed");
    }
    for never in ["received", "return-path", "comments", "keywords", "dkim-signature"] {
        assert!(!h.iter().any(|signed| signed == never), "{never}");
    }
    assert!(signature.split("\r\n").all(|line| line.len() <= 100), "{signature}");

    let added = std::str::from_utf8(&signed).unwrap().replacen("\r\nFrom:", "\r\nFrom: <x@y>\r\nFrom:", 1);
    let (_, data, b) = signed_data(&added);
    assert!(
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key()).verify(&data, &b).is_err()
    );
}

#[test]
fn ed25519_signatures_are_over_the_hash() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let signer = signer(&pem(der.as_ref())).unwrap();
    let signed = [signer.sign(MESSAGE.as_bytes()).unwrap(), MESSAGE.into()].concat();
    let (signature, data, b) = signed_data(std::str::from_utf8(&signed).unwrap());
    assert_eq!(tag(&signature, "a").unwrap(), "ed25519-sha256");
    // RFC 8463 §3: PureEdDSA over the SHA-256 of the canonical header.
    let hash = digest(&SHA256, &data);
    UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(hash.as_ref(), &b).unwrap();
}

#[test]
fn keys_as_openssl_writes_them_are_read() {
    // Made for this test with `openssl genpkey -algorithm ed25519`.
    let pem = b"-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIP9XNoXas5jzemw5nrxPDB22Md0l757hgpKcy1of5yNc\n\
        -----END PRIVATE KEY-----\n";
    assert!(signer(pem).is_ok());
}

#[test]
fn unusable_keys_are_refused_with_file_and_trouble() {
    // Made for this test with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:512`.
    let rsa512 = b"-----BEGIN PRIVATE KEY-----\n\
        MIIBUwIBADANBgkqhkiG9w0BAQEFAASCAT0wggE5AgEAAkEAwUMFYxesA1SPNnvr\n\
        4XUfnbeb5coWS3HF9mxlcUE5q8jynMiJoNp2oWTDGOftUFCQ7mJdPnnfXc1dwUAz\n\
        RB4E/wIDAQABAkAeo5d5DEmzBXbm9mKBDeaDRJasqYs7TsBJvwmeGO8hsqUke9yt\n\
        +3i+DysXt4Jw3XoCRooj+QSlwayZ6emzdUNBAiEA80XqVQ5tkCD64dDgjJmpR1uI\n\
        sYYY7y8fUJCCs0JvEBECIQDLX1GvR0XBdLyjkDTbjgBDH9JRbhaDTs0jIRs8j27U\n\
        DwIgYA4qIZ2Jy1AKX6GPGFUQDvnodlgBfme30KLOyKMhoVECIE1HOBvZglkjibbB\n\
        SkSPbewTwHBu26EjpXGO1/GoMx3jAiAjzg61IofKV5P2P+GLLBnj1igujY90jjIE\n\
        aMHuWTHokQ==\n-----END PRIVATE KEY-----\n";
    for bad in [&rsa512[..], b"", b"nonsense", &pem(b"\x30\x03\x02\x01\x00")] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dkim.key");
        std::fs::write(&file, bad).unwrap();
        let error =
            Signer::load(Domain::parse("sender.example").unwrap(), "tlsrpt", &file).unwrap_err().to_string();
        assert!(error.contains("dkim.key") && error.contains("PKCS#8 PEM"), "{error}");
    }
    let missing = Signer::load(Domain::parse("a.example").unwrap(), "s", Path::new("/nonexistent/dkim.key"));
    assert!(missing.unwrap_err().to_string().contains("/nonexistent/dkim.key"));
    let pair = Ed25519KeyPair::generate().unwrap();
    let good = pem(AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref());
    assert!(Signer::from_pem(Domain::parse("a.example").unwrap(), "a;b", &good).is_err());
}

#[test]
fn an_international_domain_signs_under_its_a_labels() {
    let signed = made("bücher.example").sign(MESSAGE.as_bytes()).unwrap();
    let signature = String::from_utf8(signed).unwrap();
    assert_eq!(tag(&signature, "d").unwrap(), "xn--bcher-kva.example");
}

#[test]
fn a_signer_does_not_show_its_key() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let signer = signer(&pem(AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref())).unwrap();
    assert_eq!(format!("{signer:?}"), r#"Signer { domain: "sender.example", selector: "tlsrpt", .. }"#);
}
