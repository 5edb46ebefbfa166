//! The key record in DNS (RFC 6376 §3.6.1) beside the key we sign with.
//!
//! Pure: the TXT records come in. Never judges other people's keys. Called by `reporting::keys`.

use base64::Engine;
// With and without `=` at the end, as people paste it.
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT as LENIENT;

use super::key::{Algorithm, PublicKey};

/// What is wrong with a published key, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTrouble {
    /// No record.
    #[error("there is no key record, so the signatures cannot be verified")]
    Missing,
    /// RFC 6376 §3.6.2.2: what verifiers do then is undefined.
    #[error("there are {0} TXT records; verifiers take any of them, or none")]
    Several(usize),
    /// Not a list of tags, or `v=`, `p=` are not as they should be.
    #[error("the record is no DKIM key ({0})")]
    Malformed(&'static str),
    /// `p=` is empty.
    #[error("the key is revoked (p= is empty): all signatures with it fail")]
    Revoked,
    /// `k=` of the record, and ours.
    #[error("the record says k={0}, and the key file holds a key of {1}")]
    OtherType(String, Algorithm),
    /// `p=` is another's.
    #[error("the record holds another key than the key file, so the signatures fail")]
    OtherKey,
    /// `t=y`
    #[error("the key is in test mode (t=y): verifiers treat the mail as if it were not signed")]
    Testing,
    /// `h=` without sha256.
    #[error("h={0} leaves out sha256: the signatures fail")]
    OtherHash(String),
    /// `s=` without `email`.
    #[error("s={0} leaves out email: verifiers of mail ignore the key (RFC 6376 §3.6.1)")]
    NotForMail(String),
    /// `s=` without `tlsrpt`.
    #[error("s={0} leaves out tlsrpt: receivers may ignore the reports (RFC 8460 §3)")]
    NotForReports(String),
}

impl KeyTrouble {
    /// Whether publishing the record of the key file is the way out.
    pub fn wants_record(&self) -> bool {
        !matches!(self, Self::Several(_))
    }
}

/// Compares what is published with the key that signs; nothing where all is well. Each item is one TXT
/// record with its character-strings joined without separators (RFC 6376 §3.6.2.2).
pub fn compare<T: AsRef<[u8]>>(txts: &[T], key: &PublicKey) -> Vec<KeyTrouble> {
    let record = match txts {
        [] => return vec![KeyTrouble::Missing],
        [record] => record.as_ref(),
        several => return vec![KeyTrouble::Several(several.len())],
    };
    match tags(record).and_then(|tags| judge(&tags, key)) {
        Ok(found) => found,
        Err(why) => vec![KeyTrouble::Malformed(why)],
    }
}

type Tags<'a> = Vec<(&'a str, &'a str)>;

/// RFC 6376 §3.2.
fn tags(record: &[u8]) -> Result<Tags<'_>, &'static str> {
    let text = std::str::from_utf8(record).map_err(|_| "not UTF-8")?;
    let mut tags: Tags<'_> = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or("not a list of tags")?;
        let name = name.trim();
        if tags.iter().any(|(known, _)| *known == name) {
            return Err("a tag is there twice");
        }
        tags.push((name, value.trim()));
    }
    Ok(tags)
}

fn judge(tags: &Tags<'_>, key: &PublicKey) -> Result<Vec<KeyTrouble>, &'static str> {
    let tag = |wanted: &str| tags.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    // RFC 6376 §3.6.1: optional, but then the first and no other.
    if let Some(at) = tags.iter().position(|(name, _)| *name == "v") {
        if tags[at].1 != "DKIM1" {
            return Err("v= is not DKIM1");
        }
        if at != 0 {
            return Err("v= is not its first tag");
        }
    }
    let p: String = tag("p").ok_or("p= is missing")?.split_whitespace().collect();
    if p.is_empty() {
        return Ok(vec![KeyTrouble::Revoked]);
    }
    let p = LENIENT.decode(p).map_err(|_| "p= is not base64")?;
    let mut found = Vec::new();
    let kind = tag("k").unwrap_or("rsa");
    if kind != key.algorithm().to_string() {
        found.push(KeyTrouble::OtherType(kind.to_owned(), key.algorithm()));
    } else if !key.is_published_as(&p) {
        found.push(KeyTrouble::OtherKey);
    }
    let has = |list: &str, wanted: &str| list.split(':').any(|item| item.trim() == wanted);
    if tag("t").is_some_and(|flags| has(flags, "y")) {
        found.push(KeyTrouble::Testing);
    }
    if let Some(hashes) = tag("h").filter(|hashes| !has(hashes, "sha256")) {
        found.push(KeyTrouble::OtherHash(hashes.to_owned()));
    }
    if let Some(services) = tag("s").filter(|services| !has(services, "*")) {
        if !has(services, "email") {
            found.push(KeyTrouble::NotForMail(services.to_owned()));
        }
        if !has(services, "tlsrpt") {
            found.push(KeyTrouble::NotForReports(services.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::key::generate;
    use super::*;

    #[test]
    fn records_are_compared_with_the_key_tag_by_tag() {
        let rsa = generate(Algorithm::Rsa).unwrap().public;
        let key = generate(Algorithm::Ed25519).unwrap().public;
        let other = generate(Algorithm::Ed25519).unwrap().public;
        let own = key.record();
        let p = own.rsplit_once("p=").unwrap().1.to_owned();
        let good = |txt: &str| assert_eq!(compare(&[txt], &key), [], "{txt}");
        good(&own);
        good(&format!("k=ed25519; p={p}"));
        good(&format!("k=ed25519;p={};", p.trim_end_matches('=')));
        good(&format!(
            " v=DKIM1 ; k = ed25519 ; n=note ; t=s ; s=* ; h=sha1 : sha256 ; p= {} {} ",
            &p[..9],
            &p[9..]
        ));
        assert_eq!(compare(&[rsa.record().replace("k=rsa; ", "")], &rsa), [], "rsa is the default");

        let bad = |txt: &str, wanted: &[KeyTrouble]| assert_eq!(compare(&[txt], &key), wanted, "{txt}");
        bad("v=DKIM1; k=ed25519; p=", &[KeyTrouble::Revoked]);
        bad(&other.record(), &[KeyTrouble::OtherKey]);
        bad(&rsa.record(), &[KeyTrouble::OtherType("rsa".into(), Algorithm::Ed25519)]);
        bad(&format!("{own}; t=y:s"), &[KeyTrouble::Testing]);
        bad(&format!("k=ed25519; h=sha1; p={p}"), &[KeyTrouble::OtherHash("sha1".into())]);
        bad(&format!("k=ed25519; s=tlsrpt; p={p}"), &[KeyTrouble::NotForMail("tlsrpt".into())]);
        bad(&format!("k=ed25519; s=email; p={p}"), &[KeyTrouble::NotForReports("email".into())]);
        let both = [KeyTrouble::OtherKey, KeyTrouble::Testing];
        bad(&format!("{}; t=y", other.record()), &both);
        for (txt, why) in [
            ("hello", "not a list of tags"),
            ("v=spf1; p=YQ==", "v= is not DKIM1"),
            ("k=ed25519; v=DKIM1; p=YQ==", "v= is not its first tag"),
            ("v=DKIM1; k=ed25519", "p= is missing"),
            ("v=DKIM1; p=YQ==; p=YQ==", "a tag is there twice"),
            ("v=DKIM1; p=!", "p= is not base64"),
        ] {
            bad(txt, &[KeyTrouble::Malformed(why)]);
        }
        assert_eq!(compare::<&str>(&[], &key), [KeyTrouble::Missing]);
        assert_eq!(compare(&[&own, &own], &key), [KeyTrouble::Several(2)]);
        // A verifier that reads RFC 6376 to the letter wants the key without its algorithm.
        let bare = LENIENT.encode(rsa.bare());
        assert_eq!(compare(&[format!("p={bare}")], &rsa), []);
    }
}
