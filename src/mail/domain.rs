//! Domain names and address literals as mail uses them (RFC 5321 §2.3.5, §4.1.3; RFC 5891).
//!
//! A [`Domain`] is always an A-label name in lower case without a final dot, so that comparison is
//! equality of strings. U-labels are converted at the border (UTS 46). Never holds an address:
//! [`Destination`] is the type for "a domain or an address literal".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Octets in a domain name at most (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 253;

/// A DNS name: A-labels, lower case, no final dot, at least one label.
///
/// Labels are letters, digits, `-` and `_` (the underscore for service names such as
/// `_mta-sts.example`), 1 to 63 octets, at most 253 octets in all. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

/// Why a text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing there.
    #[error("empty domain name")]
    Empty,
    /// Over 253 octets, or a label over 63.
    #[error("domain name too long")]
    TooLong,
    /// An empty label, as in `a..b`.
    #[error("empty label in domain name")]
    EmptyLabel,
    /// A character or a hyphen where none may be.
    #[error("domain name has a bad label: {0:?}")]
    BadLabel(String),
    /// Unicode that IDNA refuses (RFC 5891).
    #[error("domain name is not valid under IDNA: {0:?}")]
    Idna(String),
    /// An IP address where a name is wanted.
    #[error("an IP address is not a domain name")]
    Address,
}

impl Domain {
    /// Reads a domain name; a final root dot is dropped, U-labels become A-labels.
    ///
    /// # Errors
    /// See [`DomainError`]. A dotted-quad IPv4 address is refused (RFC 5321 §5.1: MX data is a name).
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            // RFC 6531 §3.7.1: A-labels for DNS and EHLO.
            idna::domain_to_ascii(text).map_err(|_| DomainError::Idna(text.to_owned()))?
        };
        Self::parse_ascii_lower(ascii)
    }

    /// Reads a name that must already be in A-label form; case is folded, U-labels are refused.
    ///
    /// # Errors
    /// See [`DomainError`].
    pub fn parse_a_label(text: &str) -> Result<Self, DomainError> {
        if !text.is_ascii() {
            return Err(DomainError::BadLabel(text.to_owned()));
        }
        Self::parse(text)
    }

    fn parse_ascii_lower(name: String) -> Result<Self, DomainError> {
        if name.len() > DOMAIN_BYTES_MAX {
            return Err(DomainError::TooLong);
        }
        if name.parse::<Ipv4Addr>().is_ok() {
            return Err(DomainError::Address);
        }
        for label in name.split('.') {
            let bytes = label.as_bytes();
            match bytes {
                [] => return Err(DomainError::EmptyLabel),
                _ if bytes.len() > 63 => return Err(DomainError::TooLong),
                [b'-', ..] | [.., b'-'] => return Err(DomainError::BadLabel(label.to_owned())),
                _ if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) => {
                    return Err(DomainError::BadLabel(label.to_owned()));
                }
                _ => {}
            }
        }
        Ok(Self(name.into()))
    }

    /// The name: A-labels, lower case, no final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from left to right.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether the name has at least two labels (RFC 5321 §2.3.5: only fully-qualified names go out).
    pub fn is_fully_qualified(&self) -> bool {
        self.0.contains('.')
    }

    /// Whether this is `tree` or a name below it.
    pub fn is_within(&self, tree: &Domain) -> bool {
        self.0.strip_suffix(tree.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// `prefix` + `.` + this name, for service names such as `_mta-sts`.
    ///
    /// # Errors
    /// [`DomainError::TooLong`] when the result does not fit, or what is wrong with `prefix`.
    pub fn prefixed(&self, prefix: &str) -> Result<Domain, DomainError> {
        Self::parse_a_label(&format!("{prefix}.{self}"))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Domain {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Domain::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Where a path's right-hand side points: a domain, or an address literal that has no policy domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// A domain name; MX routing applies.
    Domain(Domain),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3): no MX, no MTA-STS, no DANE.
    Literal(IpAddr),
}

impl Destination {
    /// Reads a domain or a bracketed address literal.
    ///
    /// # Errors
    /// See [`DomainError`]; a literal that is no IPv4 or `IPv6:` address is a bad label.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let Some(inner) = text.strip_prefix('[') else {
            return Domain::parse(text).map(Self::Domain);
        };
        let bad = || DomainError::BadLabel(text.to_owned());
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        // RFC 5321 §4.1.3: the IPv6 tag is case-insensitive as all ABNF strings are.
        if inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:")) {
            return inner[5..].parse::<Ipv6Addr>().map(|ip| Self::Literal(ip.into())).map_err(|_| bad());
        }
        inner.parse::<Ipv4Addr>().map(|ip| Self::Literal(ip.into())).map_err(|_| bad())
    }

    /// The domain, if it is one.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Domain(domain) => Some(domain),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Literal(IpAddr::V4(ip)) => write!(f, "[{ip}]"),
            Self::Literal(IpAddr::V6(ip)) => write!(f, "[IPv6:{ip}]"),
        }
    }
}

impl FromStr for Destination {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Destination::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_to_lower_case_a_labels_without_root_dot() {
        let good = |text: &str, want: &str| assert_eq!(Domain::parse(text).unwrap().as_str(), want, "{text}");
        good("MX1.Example.TEST.", "mx1.example.test");
        good("bücher.example", "xn--bcher-kva.example");
        good("_mta-sts.example", "_mta-sts.example");
        good("localhost", "localhost");
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let bad = |text: &str| assert!(Domain::parse(text).is_err(), "{text:?}");
        bad("");
        bad(".");
        bad("a..b");
        bad("-a.example");
        bad("a-.example");
        bad("a b.example");
        bad("192.0.2.1");
        bad(&format!("{}.example", "a".repeat(64)));
        bad(&["a"; 130].join("."));
        bad("a\r\n.example");
        assert!(Domain::parse_a_label("bücher.example").is_err());
    }

    #[test]
    fn a_tree_holds_itself_and_what_is_below_and_no_lookalike() {
        let tree = Domain::parse("example.net").unwrap();
        assert!(tree.is_within(&tree));
        assert!(Domain::parse("a.b.example.net").unwrap().is_within(&tree));
        assert!(!Domain::parse("badexample.net").unwrap().is_within(&tree));
    }

    #[test]
    fn address_literals_of_both_families_round_trip() {
        for text in ["[192.0.2.1]", "[IPv6:2001:db8::1]", "example.org"] {
            assert_eq!(Destination::parse(text).unwrap().to_string(), text);
        }
        for text in ["[192.0.2]", "[2001:db8::1]", "[IPv6:x]", "[192.0.2.1", "[]"] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }
}
