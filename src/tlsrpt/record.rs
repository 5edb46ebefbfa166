//! The `_smtp._tls` TXT record (RFC 8460 §3): who wants reports, and where.
//!
//! Pure. Splits first and decodes after, so that an encoded comma stays part of its URI. Never
//! follows header fields of a `mailto:` URI: a record must not choose what our mail says.
//! Called by `reporting`.

use std::fmt;
use std::str::FromStr;

use crate::mail::{Destination, Mailbox};

/// Targets used of one record at most; a record is not a mailing list.
pub const RUA_MAX: usize = 10;
/// Octets of a target at most.
const URI_BYTES_MAX: usize = 2048;

/// A usable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsrptRecord {
    /// Where reports go, in the order named; never empty, schemes we do not know left out, at most
    /// [`RUA_MAX`].
    pub rua: Vec<Rua>,
}

/// One report target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rua {
    /// `mailto:`; address only, header fields of the URI are ignored (RFC 6068).
    Mailto(Mailbox),
    /// `https:`, as published.
    Https(String),
}

/// Why TXT answers hold no usable record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No TXT record begins `v=TLSRPTv1;`.
    #[error("no v=TLSRPTv1 record")]
    Absent,
    /// More than one does.
    #[error("more than one v=TLSRPTv1 record")]
    Several,
    /// One does, but it names no target we can use.
    #[error("bad v=TLSRPTv1 record: {0}")]
    Malformed(&'static str),
}

/// Finds the one record among the TXT records of a name; each item is one record with its
/// character-strings joined without separators.
///
/// # Errors
/// See [`RecordError`].
pub fn parse<T: AsRef<[u8]>>(txts: &[T]) -> Result<TlsrptRecord, RecordError> {
    // RFC 8460 §3: what does not begin so is discarded; exactly one must remain.
    let mut records =
        txts.iter().map(AsRef::as_ref).filter(|txt| has_version(txt)).collect::<Vec<_>>().into_iter();
    let record = records.next().ok_or(RecordError::Absent)?;
    if records.next().is_some() {
        return Err(RecordError::Several);
    }
    let record = std::str::from_utf8(record).map_err(|_| RecordError::Malformed("not UTF-8"))?;
    let targets = record
        .split(';')
        .skip(1)
        .filter_map(|field| field.split_once('='))
        .find(|(name, _)| trim(name) == "rua")
        .map(|(_, value)| value)
        .ok_or(RecordError::Malformed("rua is missing"))?;
    let mut rua = Vec::new();
    for target in targets.split(',').filter_map(|uri| trim(uri).parse::<Rua>().ok()) {
        if rua.len() < RUA_MAX && !rua.contains(&target) {
            rua.push(target);
        }
    }
    match rua.is_empty() {
        true => Err(RecordError::Malformed("rua names no usable mailto: or https: target")),
        false => Ok(TlsrptRecord { rua }),
    }
}

/// `v=TLSRPTv1` in exactly this case, then blanks and a semicolon (RFC 8460 §3, field-delim).
fn has_version(txt: &[u8]) -> bool {
    txt.strip_prefix(b"v=TLSRPTv1").is_some_and(|rest| {
        let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        rest.get(blanks) == Some(&b';')
    })
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

impl FromStr for Rua {
    type Err = ();

    /// One URI; `Err` for schemes we do not know and for what is no URI.
    fn from_str(uri: &str) -> Result<Self, ()> {
        if uri.len() > URI_BYTES_MAX || !uri.bytes().all(|b| b.is_ascii_graphic() || b >= 0x80) {
            return Err(());
        }
        let (scheme, rest) = uri.split_once(':').ok_or(())?;
        if scheme.eq_ignore_ascii_case("mailto") {
            mailbox(rest).map(Self::Mailto).ok_or(())
        } else if scheme.eq_ignore_ascii_case("https") {
            let host = rest.strip_prefix("//").ok_or(())?.split(['/', '?', '#']).next().unwrap_or("");
            // A host, and no user name or password for us to hand on.
            let sound = !host.is_empty() && !host.starts_with(':') && !host.contains('@');
            (sound && uri.is_ascii()).then(|| Self::Https(uri.to_owned())).ok_or(())
        } else {
            Err(())
        }
    }
}

/// The one address of a `mailto:` URI without its scheme (RFC 6068 §2).
fn mailbox(rest: &str) -> Option<Mailbox> {
    let (address, _) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
    let (local, domain) = address.split_once('@')?;
    let (local, domain) = (percent_decoded(local)?, percent_decoded(domain)?);
    let domain = Destination::parse(&domain).ok()?;
    if let Ok(mailbox) = Mailbox::parse(&format!("{local}@{domain}")) {
        return Some(mailbox);
    }
    // RFC 6068 §2: what is not a dot-atom arrives without its quotes often enough.
    let quoted: String =
        local.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
    (!local.is_empty()).then(|| Mailbox::parse(&format!("\"{quoted}\"@{domain}")).ok())?
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let hex = tail.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))?;
            out.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

/// As a URI that reads back to the same target.
impl fmt::Display for Rua {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https(uri) => f.write_str(uri),
            Self::Mailto(mailbox) => {
                f.write_str("mailto:")?;
                for b in mailbox.local().bytes() {
                    match b {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => write!(f, "{}", char::from(b))?,
                        b'-' | b'.' | b'_' | b'~' | b'+' | b'=' | b'\'' | b'*' | b'$' => {
                            write!(f, "{}", char::from(b))?;
                        }
                        _ => write!(f, "%{b:02X}")?,
                    }
                }
                write!(f, "@{}", mailbox.domain())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(txts: &[&str]) -> Result<Vec<String>, RecordError> {
        parse(txts).map(|record| record.rua.iter().map(Rua::to_string).collect())
    }

    #[test]
    fn records_are_read_in_their_full_grammar() {
        let good = |txt: &str, want: &[&str]| assert_eq!(targets(&[txt]).unwrap(), want, "{txt}");
        good("v=TLSRPTv1; rua=mailto:a@b.example", &["mailto:a@b.example"]);
        good("v=TLSRPTv1;rua=mailto:a@b.example;", &["mailto:a@b.example"]);
        good("v=TLSRPTv1 ; rua = mailto:a@b.example ; ", &["mailto:a@b.example"]);
        good(
            "v=TLSRPTv1; x=y; rua=mailto:a@b.example , https://c.example/",
            &["mailto:a@b.example", "https://c.example/"],
        );
        good(
            "v=TLSRPTv1; rua=http://c.example/,ftp://d.example,HTTPS://c.example/p?q=%3B,foo",
            &["HTTPS://c.example/p?q=%3B"],
        );
        good("v=TLSRPTv1; rua=MAILTO:A@B.example", &["mailto:A@b.example"]);
        good("v=TLSRPTv1; rua=mailto:a@b.example,mailto:a@b.example", &["mailto:a@b.example"]);
        good("v=TLSRPTv1; rua=mailto:a@b.example; rua=mailto:c@d.example", &["mailto:a@b.example"]);
    }

    #[test]
    fn exactly_one_record_must_remain() {
        let one = "v=TLSRPTv1; rua=mailto:a@b.example";
        assert_eq!(targets(&[]), Err(RecordError::Absent));
        assert_eq!(targets(&["v=spf1 -all", one]).unwrap(), ["mailto:a@b.example"]);
        assert_eq!(targets(&[one, one]), Err(RecordError::Several));
        assert_eq!(targets(&[one, "v=TLSRPTv1;"]), Err(RecordError::Several));
        for other in ["v=TLSRPTv1", "v=tlsrptv1; rua=mailto:a@b.c", " v=TLSRPTv1;", "v=TLSRPTv12; rua=x", ""]
        {
            assert_eq!(targets(&[other]), Err(RecordError::Absent), "{other}");
        }
    }

    #[test]
    fn a_record_without_usable_target_is_malformed() {
        for bad in [
            "v=TLSRPTv1;",
            "v=TLSRPTv1; ruaa=mailto:a@b.example",
            "v=TLSRPTv1; rua=",
            "v=TLSRPTv1; rua=http://a.example/",
            "v=TLSRPTv1; rua=mailto:nobody",
            "v=TLSRPTv1; rua=mailto:@b.example",
            "v=TLSRPTv1; rua=mailto:a@",
            "v=TLSRPTv1; rua=mailto:a@b.example@c.example",
            "v=TLSRPTv1; rua=mailto:a%0D%0Ab@c.example",
            "v=TLSRPTv1; rua=mailto:a%zz@c.example",
            "v=TLSRPTv1; rua=mailto:a@b%0Ac.example",
            "v=TLSRPTv1; rua=https:///path",
            "v=TLSRPTv1; rua=https://user:pw@c.example/",
            "v=TLSRPTv1; rua=https://c.example/a b",
        ] {
            assert!(matches!(targets(&[bad]), Err(RecordError::Malformed(_))), "{bad}");
        }
        assert!(matches!(parse(&[b"v=TLSRPTv1; rua=\xff"]), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn uris_are_split_first_and_decoded_after_and_header_fields_ignored() {
        let one = |uri: &str| {
            let record = parse(&[format!("v=TLSRPTv1; rua={uri}")]).unwrap();
            assert_eq!(record.rua.len(), 1, "{uri}");
            let Rua::Mailto(mailbox) = &record.rua[0] else { panic!("{uri}") };
            // What is kept in the state of a report is read back to the same target.
            assert_eq!(record.rua[0].to_string().parse(), Ok(record.rua[0].clone()));
            mailbox.to_string()
        };
        assert_eq!(one("mailto:a%2Cb@c.example"), "\"a,b\"@c.example");
        assert_eq!(one("mailto:%22a%2Cb%22@c.example"), "\"a,b\"@c.example");
        assert_eq!(one("mailto:a%40b@c.example"), "\"a@b\"@c.example");
        assert_eq!(one("mailto:a%3Bb%21@c.example"), "\"a;b!\"@c.example");
        assert_eq!(one("mailto:a@b.example?cc=x@y.example&subject=z"), "a@b.example");
        assert_eq!(one("mailto:gr%C3%BCn@b.example"), "grün@b.example");
        assert_eq!(one("mailto:tls+rpt@b.example"), "tls+rpt@b.example");
    }

    #[test]
    fn a_record_names_ten_targets_at_most() {
        let many: Vec<String> = (0..50).map(|n| format!("mailto:a{n}@b.example")).collect();
        assert_eq!(targets(&[&format!("v=TLSRPTv1; rua={}", many.join(","))]).unwrap().len(), RUA_MAX);
    }
}
