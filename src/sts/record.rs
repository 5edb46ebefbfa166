//! The `_mta-sts` TXT record (RFC 8461 §3.1).
//!
//! Pure. Only says whether a policy is published and under which id; never what it is.
//! Called by `delivery::gather` with the answer of one TXT lookup.

/// A usable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsRecord {
    /// Opaque equality token, 1 to 32 alphanumerics (RFC 8461 §3.1).
    pub id: String,
}

/// Characters in an id at most (RFC 8461 §3.1).
pub const ID_BYTES_MAX: usize = 32;
/// Characters in the name of an extension field at most (RFC 8461 §3.1).
const FIELD_NAME_BYTES_MAX: usize = 32;

/// Why TXT answers hold no usable record. Each of them means "no live policy": an unexpired cached
/// policy still applies (RFC 8461 §3.1, §5.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No TXT record begins `v=STSv1;`.
    #[error("no v=STSv1 record")]
    Absent,
    /// More than one does.
    #[error("more than one v=STSv1 record")]
    Several,
    /// One does, but its syntax is wrong.
    #[error("bad v=STSv1 record: {0}")]
    Malformed(&'static str),
}

/// Finds the one record among the TXT records of a name; each item is one record with its
/// character-strings already joined without separators.
///
/// # Errors
/// See [`RecordError`].
pub fn parse<T: AsRef<[u8]>>(txts: &[T]) -> Result<StsRecord, RecordError> {
    // RFC 8461 §3.1: records that do not begin with the version are dropped before counting; what
    // remains must be exactly one, however good or bad.
    let mut survivors = txts.iter().filter_map(|txt| fields_after_version(txt.as_ref()));
    match (survivors.next(), survivors.next()) {
        (None, _) => Err(RecordError::Absent),
        (Some(_), Some(_)) => Err(RecordError::Several),
        (Some(fields), None) => parse_fields(fields),
    }
}

/// What follows `v=STSv1` and its `;`; `None` for a record of something else.
fn fields_after_version(txt: &[u8]) -> Option<&[u8]> {
    // Erratum 6285: the grammar allows blanks before the first `;`.
    txt.strip_prefix(b"v=STSv1").map(trim_start).and_then(|rest| rest.strip_prefix(b";"))
}

fn parse_fields(fields: &[u8]) -> Result<StsRecord, RecordError> {
    let mut parts: Vec<&[u8]> = fields.split(|&b| b == b';').map(trim).collect();
    // The final `;` is optional.
    if parts.len() > 1 && parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    let mut id = None;
    for part in parts {
        if part.is_empty() {
            return Err(RecordError::Malformed("empty field"));
        }
        let Some(equals) = part.iter().position(|&b| b == b'=') else {
            return Err(RecordError::Malformed("field without \"=\""));
        };
        let (name, value) = (&part[..equals], &part[equals + 1..]);
        if name == b"id" {
            // RFC 8461 §3.2: of a repeated field the first counts, the others are ignored.
            if id.is_none() {
                id = Some(parse_id(value)?);
            }
        } else if !is_field_name(name) {
            return Err(RecordError::Malformed("bad field name"));
        } else if value.is_empty() || !value.iter().all(|&b| b.is_ascii_graphic() && b != b'=') {
            return Err(RecordError::Malformed("bad field value"));
        }
    }
    id.map(|id| StsRecord { id }).ok_or(RecordError::Malformed("no id"))
}

fn parse_id(value: &[u8]) -> Result<String, RecordError> {
    match value.len() {
        0 => Err(RecordError::Malformed("empty id")),
        len if len > ID_BYTES_MAX => Err(RecordError::Malformed("id longer than 32 characters")),
        _ if !value.iter().all(u8::is_ascii_alphanumeric) => {
            Err(RecordError::Malformed("id has characters other than letters and digits"))
        }
        _ => Ok(value.iter().copied().map(char::from).collect()),
    }
}

fn is_field_name(name: &[u8]) -> bool {
    name.len() <= FIELD_NAME_BYTES_MAX
        && name.first().is_some_and(u8::is_ascii_alphanumeric)
        && name.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_start(bytes);
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_the_grammar_allows_are_read() {
        let good = |txt: &str, want: &str| {
            assert_eq!(parse(&[txt]), Ok(StsRecord { id: want.to_owned() }), "{txt:?}");
        };
        good("v=STSv1; id=20160831085700Z;", "20160831085700Z");
        good("v=STSv1;id=1", "1");
        good("v=STSv1; id=1; ", "1"); // blanks after the final ;
        good("v=STSv1; id=1  ", "1"); // blanks at the end
        good("v=STSv1 ; id=1", "1"); // erratum 6285
        good("v=STSv1\t;\tid=1\t;\t", "1");
        good("v=STSv1; x=1; id=2", "2"); // any order after v
        good("v=STSv1; id=1; foo=bar;", "1"); // unknown fields
        good("v=STSv1; a_b-c.d=!~; id=1", "1");
        good("v=STSv1; ID=9; id=1", "1"); // names are case-sensitive: ID is unknown
        good("v=STSv1; id=1; id=2", "1"); // the first wins
        good("v=STSv1; id=1; id=", "1"); // later ones are ignored
        good("v=STSv1; id=abcDEF0123456789abcDEF0123456789;", "abcDEF0123456789abcDEF0123456789");
    }

    #[test]
    fn a_survivor_with_bad_syntax_is_no_policy() {
        let bad = |txt: &str| {
            assert!(matches!(parse(&[txt]), Err(RecordError::Malformed(_))), "{txt:?}");
        };
        bad("v=STSv1;"); // no id
        bad("v=STSv1; ");
        bad("v=STSv1; foo=bar;");
        bad("v=STSv1; id=;");
        bad("v=STSv1; id;");
        bad("v=STSv1; id=abcDEF0123456789abcDEF01234567890"); // 33 characters
        bad("v=STSv1; id=2024-01-01"); // not alphanumeric
        bad("v=STSv1; id=é");
        bad("v=STSv1; id =1"); // no blanks around =
        bad("v=STSv1; id= 1");
        bad("v=STSv1;; id=1"); // empty field
        bad("v=STSv1; id=1;;");
        bad("v=STSv1; id=1; foo");
        bad("v=STSv1; id=1; foo=");
        bad("v=STSv1; id=1; foo=a=b");
        bad("v=STSv1; id=1; -foo=a");
        bad("v=STSv1; id=; id=1"); // the first wins, and it is bad
        bad("v=STSv1; id=1 id=2");
    }

    #[test]
    fn what_does_not_begin_with_the_version_is_not_looked_at() {
        let absent = |txts: &[&str]| assert_eq!(parse(txts), Err(RecordError::Absent), "{txts:?}");
        absent(&[]);
        absent(&[""]);
        absent(&["v=spf1 -all"]);
        absent(&["V=STSv1; id=1"]);
        absent(&["v=stsv1; id=1"]);
        absent(&["v=STSv10; id=1"]);
        absent(&["v=STSv1"]);
        absent(&["v=STSv1 id=1"]);
        absent(&[" v=STSv1; id=1"]);
        absent(&["id=1; v=STSv1;"]);
    }

    #[test]
    fn exactly_one_survivor_counts() {
        let one = StsRecord { id: "1".to_owned() };
        assert_eq!(parse(&["v=spf1 -all", "v=STSv1; id=1;", "x"]), Ok(one));
        assert_eq!(parse(&["v=STSv1; id=1;", "v=STSv1; id=1;"]), Err(RecordError::Several));
        assert_eq!(parse(&["v=STSv1; id=1;", "v=STSv1; bad"]), Err(RecordError::Several));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(txts in proptest::collection::vec(any::<Vec<u8>>(), 0..4), tail in any::<Vec<u8>>()) {
            let _ = parse(&txts);
            let _ = parse(&[[b"v=STSv1;".as_slice(), &tail].concat()]);
        }

        #[test]
        fn every_valid_id_is_found(id in "[A-Za-z0-9]{1,32}") {
            prop_assert_eq!(parse(&[format!("v=STSv1; id={id};")]), Ok(StsRecord { id }));
        }
    }
}
