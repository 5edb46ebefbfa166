//! Reads trust anchors: DS or DNSKEY records in zone-file form, as `unbound-anchor`, BIND and IANA write them.
//!
//! Comments after `;` and parentheses over several lines are understood; TTL and class may be missing; names
//! are absolute. Files only; who fetches the keys that DS records name is `validating`.

use std::path::Path;

use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, DS};
use hickory_resolver::proto::dnssec::{DigestType, TrustAnchors};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

/// Longest file that is read; the root's anchors are some hundred octets.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What is trusted beforehand.
pub(super) struct Anchors {
    /// Whole keys.
    pub(super) keys: TrustAnchors,
    /// Digests of keys, each with the zone of its key.
    pub(super) digests: Vec<(Name, DS)>,
}

impl Default for Anchors {
    /// The root keys compiled in.
    fn default() -> Self {
        Self { keys: TrustAnchors::default(), digests: Vec::new() }
    }
}

/// The anchors of a file, or those compiled in.
///
/// # Errors
/// One sentence that begins with the configuration key.
pub(super) fn load(file: Option<&Path>) -> Result<Anchors, String> {
    let Some(file) = file else { return Ok(Anchors::default()) };
    let what = |text: String| format!("dns.trust_anchor_file {}: {text}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| what(format!("cannot be read: {error}")))?;
    if text.len() > FILE_BYTES_MAX {
        return Err(what("is too large for a file of DS or DNSKEY records".to_owned()));
    }
    parse(&text).map_err(|error| what(format!("{error}; DS or DNSKEY records are expected")))
}

/// # Errors
/// Which line is wrong, and how; or that nothing is there.
fn parse(text: &str) -> Result<Anchors, String> {
    let mut digests = Vec::new();
    let mut keys = String::new();
    for (line, record) in records(text)? {
        let wrong = |what: String| format!("line {line}: {what}");
        let (owner, kind, data) = split(&record).map_err(wrong)?;
        if kind == "DNSKEY" {
            keys.push_str(&format!("{owner} IN DNSKEY {data}\n"));
            continue;
        }
        let mut name =
            Name::from_ascii(owner).map_err(|error| wrong(format!("{owner:?} is no name: {error}")))?;
        name.set_fqdn(true);
        digests.push((name, digest(&data).map_err(wrong)?));
    }
    let count = keys.lines().count();
    if digests.is_empty() && count == 0 {
        return Err("holds no record".to_owned());
    }
    let keys: TrustAnchors = match count {
        0 => TrustAnchors::empty(),
        _ => keys.parse().map_err(|error| format!("a DNSKEY record cannot be read: {error}"))?,
    };
    Ok(Anchors { keys, digests })
}

/// Records with the number of their first line: comments gone, parentheses opened.
fn records(text: &str) -> Result<Vec<(usize, String)>, String> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.split(';').next().unwrap_or_default();
        let (mut first, mut record) = open.take().unwrap_or((index + 1, String::new()));
        if record.is_empty() {
            first = index + 1;
        }
        record.push(' ');
        record.push_str(line);
        if record.matches('(').count() > record.matches(')').count() {
            open = Some((first, record));
        } else if !record.trim().is_empty() {
            found.push((first, record.replace(['(', ')'], " ")));
        }
    }
    match open {
        Some((line, _)) => Err(format!("line {line}: a parenthesis is not closed")),
        None => Ok(found),
    }
}

/// Owner, type and data of a record; TTL and class are nothing to an anchor.
fn split(record: &str) -> Result<(&str, &'static str, String), String> {
    let mut words = record.split_whitespace();
    let owner = words.next().ok_or("no record")?;
    for word in words.by_ref().take(3) {
        let kind = match word.to_ascii_uppercase().as_str() {
            "DS" => "DS",
            "DNSKEY" => "DNSKEY",
            "IN" => continue,
            _ if word.starts_with(|c: char| c.is_ascii_digit()) => continue,
            other => return Err(format!("{other:?} is neither DS nor DNSKEY")),
        };
        let data: Vec<&str> = words.collect();
        return Ok((owner, kind, data.join(" ")));
    }
    Err("neither DS nor DNSKEY".to_owned())
}

fn digest(data: &str) -> Result<DS, String> {
    let parsed = RData::try_from_str(RecordType::DS, data)
        .map_err(|error| format!("the DS record cannot be read: {error}"))?;
    let RData::DNSSEC(DNSSECRData::DS(ds)) = parsed else {
        return Err("the DS record cannot be read".to_owned());
    };
    // RFC 8624 §3.3: SHA-1 proves too little for what everything rests on.
    let octets = match ds.digest_type() {
        DigestType::SHA256 => 32,
        DigestType::SHA384 => 48,
        other => {
            let number = u8::from(other);
            return Err(format!("digest type {number} is not accepted; use 2 (SHA-256) or 4 (SHA-384)"));
        }
    };
    let hex: usize = data.split_whitespace().skip(3).map(str::len).sum();
    if hex != 2 * octets {
        return Err(format!("the digest of the DS record has {hex} hexadecimal digits, not {}", 2 * octets));
    }
    Ok(ds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";
    /// An Ed25519 key of no zone.
    const KEY: &str = "257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=";

    fn counts(text: &str) -> (usize, usize) {
        let anchors = parse(text).unwrap();
        (anchors.keys.len(), anchors.digests.len())
    }

    #[test]
    fn ds_and_dnskey_records_are_read_as_tools_write_them() {
        for (text, expected) in [
            (format!(". IN DS 20326 8 2 {DIGEST}\n"), (0, 1)),
            (format!(".\t172800\tIN\tDS\t20326 8 2 {DIGEST} ;; from IANA"), (0, 1)),
            (format!(". DS 20326 8 2 {} {}", &DIGEST[..30], &DIGEST[30..]), (0, 1)),
            (
                format!(
                    "; a comment\n\n. IN DS 20326 8 2 (\n  {} ; half\n  {} )\n",
                    &DIGEST[..8],
                    &DIGEST[8..]
                ),
                (0, 1),
            ),
            (format!(". 3600 IN DNSKEY {KEY} ;{{id = 1 (ksk)}}\n"), (1, 0)),
            (format!(". DNSKEY {KEY}\n. IN ds 1 8 2 {DIGEST}\nexample IN DS 2 13 2 {DIGEST}\n"), (1, 2)),
        ] {
            assert_eq!(counts(&text), expected, "{text}");
        }
        let anchors = parse(&format!("Example IN DS 2 13 2 {DIGEST}")).unwrap();
        let (owner, ds) = &anchors.digests[0];
        assert!(owner.is_fqdn() && owner.to_ascii().eq_ignore_ascii_case("example."));
        assert_eq!((ds.key_tag(), ds.digest().len()), (2, 32));
    }

    #[test]
    fn what_is_no_anchor_is_told_with_its_line() {
        for (text, words) in [
            (String::new(), "holds no record"),
            ("; nothing\n\n".to_owned(), "holds no record"),
            ("\nwhat is this".to_owned(), "line 2: \"IS\" is neither DS nor DNSKEY"),
            (".".to_owned(), "line 1: neither DS nor DNSKEY"),
            (
                ". IN DS 20326 8 2 E06D44B8".to_owned(),
                "line 1: the digest of the DS record has 8 hexadecimal digits",
            ),
            (format!(". IN DS 20326 8 2 {DIGEST}0"), "has 65 hexadecimal digits, not 64"),
            (format!(". IN DS 20326 8 1 {}", &DIGEST[..40]), "digest type 1 is not accepted"),
            (format!(". IN DS x 8 2 {DIGEST}"), "the DS record cannot be read"),
            (format!(". IN DS 20326 8 2 Z{}", &DIGEST[1..]), "the DS record cannot be read"),
            (". IN DNSKEY 257 3 15 ???".to_owned(), "a DNSKEY record cannot be read"),
            (format!(". IN DS 20326 8 2 ( {DIGEST}"), "line 1: a parenthesis is not closed"),
            (format!("a..b IN DS 20326 8 2 {DIGEST}"), "is no name"),
        ] {
            let error = parse(&text).err().unwrap_or_else(|| panic!("taken: {text}"));
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
