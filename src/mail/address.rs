//! Reverse-path and forward-path (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! The local part is kept verbatim, quotes and case included: only its owner may interpret it
//! (RFC 5321 §2.4). Source routes (`<@a,@b:u@d>`) are accepted and stripped, never sent on.
//! No octet that could break a header or a command line (CR, LF, NUL) can be in a parsed path.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::domain::{Destination, DomainError};

/// Octets in a local part at most (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Octets in a path at most, angle brackets included (RFC 5321 §4.5.3.1.3).
pub const PATH_BYTES_MAX: usize = 256;

/// `local-part@domain` with the local part verbatim.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    local: String,
    domain: Destination,
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Missing `@`, bad brackets or stray characters.
    #[error("bad address syntax")]
    Syntax,
    /// Local part over 64 octets, or path over 256.
    #[error("address too long")]
    TooLong,
    /// The right-hand side is not a domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

/// `MAIL FROM:<...>`: a mailbox or the null path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: notifications, never bounced (RFC 5321 §4.5.5).
    Null,
    /// Where failures are told.
    Mailbox(Mailbox),
}

/// `RCPT TO:<...>`: always a mailbox; a bare `<Postmaster>` is completed at intake.
pub type ForwardPath = Mailbox;

impl Mailbox {
    /// Reads `local@domain` without angle brackets.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() + 2 > PATH_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        let mailbox = Self::read(text)?;
        // A domain grows where U-labels become A-labels, and it is those that have to fit a path.
        let rendered = mailbox.to_string().len() + 2;
        if mailbox.local.len() > LOCAL_PART_BYTES_MAX || rendered > PATH_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(mailbox)
    }

    /// Reads what [`fmt::Display`] made, of any length: what was once accepted must stay readable.
    fn read(text: &str) -> Result<Self, AddressError> {
        let at = local_part_end(text).ok_or(AddressError::Syntax)?;
        let (local, rest) = text.split_at(at);
        let domain = rest.strip_prefix('@').ok_or(AddressError::Syntax)?;
        Ok(Self { local: local.to_owned(), domain: Destination::parse(domain)? })
    }

    /// A mailbox of a known domain, e.g. `postmaster` at our own name.
    ///
    /// # Errors
    /// [`AddressError::Syntax`] when `local` is no local part.
    pub fn new(local: &str, domain: Destination) -> Result<Self, AddressError> {
        if local_part_end(local) != Some(local.len()) {
            return Err(AddressError::Syntax);
        }
        Ok(Self { local: local.to_owned(), domain })
    }

    /// The local part exactly as given, quotes included.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The right-hand side.
    pub fn domain(&self) -> &Destination {
        &self.domain
    }

    /// Whether SMTPUTF8 is needed to carry this mailbox (RFC 6531 §3.3).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

/// Length of the local part at the start of `text`; `None` when there is no valid one.
fn local_part_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'"') {
        // RFC 5321 §4.1.2 Quoted-string: qtext and quoted-pairs of printable ASCII.
        let mut i = 1;
        loop {
            match *bytes.get(i)? {
                b'"' => return Some(i + 1),
                b'\\' => {
                    matches!(bytes.get(i + 1)?, 32..=126).then_some(())?;
                    i += 2;
                }
                32..=126 | 128..=255 => i += 1,
                _ => return None,
            }
        }
    }
    let end = bytes.iter().position(|&b| !(is_atext(b) || b == b'.')).unwrap_or(bytes.len());
    let dot_string = &text[..end];
    let well_formed = !dot_string.is_empty() && dot_string.split('.').all(|atom| !atom.is_empty());
    well_formed.then_some(end)
}

fn is_atext(b: u8) -> bool {
    // RFC 5321 §4.1.2 atext; RFC 6531 §3.3 adds UTF-8 (the text is a str, so it is valid UTF-8).
    b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b) || b >= 0x80
}

impl ReversePath {
    /// Reads `<...>`; `<>` is the null path. Source routes are stripped.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match unwrap_path(text)? {
            "" => Ok(Self::Null),
            inner => Mailbox::parse(inner).map(Self::Mailbox),
        }
    }

    /// Whether this is `<>`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The mailbox, unless null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

/// Takes the brackets and a source route off a path: `<@a,@b:u@d>` gives `u@d`.
///
/// # Errors
/// [`AddressError::Syntax`] for missing brackets or a broken route; [`AddressError::TooLong`].
pub fn unwrap_path(text: &str) -> Result<&str, AddressError> {
    if text.len() > PATH_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).ok_or(AddressError::Syntax)?;
    if !inner.starts_with('@') {
        return Ok(inner);
    }
    // RFC 5321 §4.1.2 A-d-l: accepted and ignored.
    let (route, mailbox) = inner.split_once(':').ok_or(AddressError::Syntax)?;
    for hop in route.split(',') {
        let hop = hop.strip_prefix('@').ok_or(AddressError::Syntax)?;
        Destination::parse(hop)?;
    }
    Ok(mailbox)
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// With angle brackets, as on the wire: `<user@example.org>` or `<>`.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

impl Serialize for Mailbox {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Mailbox::read(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for ReversePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReversePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        match inner.ok_or_else(|| serde::de::Error::custom(AddressError::Syntax))? {
            "" => Ok(Self::Null),
            inner => Mailbox::read(inner).map(Self::Mailbox).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;

    #[test]
    fn local_parts_are_kept_verbatim() {
        for text in
            ["User@example.org", "\"a B\"@example.org", "\"a\\\"b\"@example.org", "o'neil+x@[192.0.2.1]"]
        {
            assert_eq!(Mailbox::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Mailbox::parse("U@EXAMPLE.org").unwrap().to_string(), "U@example.org");
        assert!(Mailbox::parse("grüße@example.org").unwrap().needs_smtputf8());
    }

    #[test]
    fn bad_addresses_are_refused() {
        for text in [
            "a",
            "@b.c",
            "a@",
            "a@b..c",
            ".a@b.c",
            "a.@b.c",
            "a..b@c.d",
            "a b@c.d",
            "\"a@b.c",
            "a\r\n@b.c",
            "\"a\r\nb\"@c.d",
            "a\0@b.c",
            "a@b.c>",
            "a@[1.2.3]",
            "a@b@c.d",
        ] {
            assert!(Mailbox::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Mailbox::parse(&format!("{}@b.c", "a".repeat(65))), Err(AddressError::TooLong));
        assert!(Mailbox::parse(&format!("{}@b.c", "a".repeat(64))).is_ok());
    }

    #[test]
    fn what_does_not_fit_a_path_once_its_domain_is_in_a_labels_is_refused() {
        let local = "a".repeat(64);
        // 93 octets of U-labels are 247 of A-labels.
        let wide = vec!["ä"; 31].join(".");
        assert_eq!(Mailbox::parse(&format!("{local}@{wide}")), Err(AddressError::TooLong));
        assert!(Mailbox::parse(&format!("a@{wide}")).is_ok());
        assert_eq!(ReversePath::parse(&format!("<{local}@{wide}>")), Err(AddressError::TooLong));
    }

    #[test]
    fn what_was_accepted_can_be_read_back_however_long() {
        let host = Domain::parse(&format!("{}.example", vec!["x"; 120].join("."))).unwrap();
        let mailbox = Mailbox::new("Postmaster", Destination::Domain(host)).unwrap();
        let text = serde_json::to_string(&mailbox).unwrap();
        assert!(text.len() > PATH_BYTES_MAX);
        assert_eq!(serde_json::from_str::<Mailbox>(&text).unwrap(), mailbox);
        let path = ReversePath::Mailbox(mailbox);
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<ReversePath>(&text).unwrap(), path);
        assert_eq!(serde_json::from_str::<ReversePath>("\"<>\"").unwrap(), ReversePath::Null);
        for bad in ["\"\"", "\"<\"", "\"a@b.c\"", "\"<a>\"", "\"<@b.c>\""] {
            assert!(serde_json::from_str::<ReversePath>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn source_routes_are_stripped_and_null_is_null() {
        let path = ReversePath::parse("<@a.example,@b.example:u@d.example>").unwrap();
        assert_eq!(path.to_string(), "<u@d.example>");
        assert!(ReversePath::parse("<>").unwrap().is_null());
        assert!(ReversePath::parse("u@d.example").is_err());
        assert!(ReversePath::parse("<@a,b:u@d.example>").is_err());
    }
}
