//! The targets of reports beyond their syntax: by which name one is known, and how an operator names
//! several.
//!
//! Pure. Called by `reporting`, `delivery` and `config`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::Rua;
use crate::mail::{Domain, Mailbox, Pattern};

/// As every URL of a [`Rua`] begins, in any case.
const SCHEME: &str = "https://";

impl Rua {
    /// The domain of an address, the host of a URL; none for address literals.
    pub fn host(&self) -> Option<Domain> {
        match self {
            Self::Mailto(mailbox) => mailbox.domain().domain().cloned(),
            Self::Https(url) => {
                let authority = url.get(SCHEME.len()..)?.split(['/', '?', '#']).next()?;
                let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
                Domain::parse(name.trim_end_matches('.')).ok()
            }
        }
    }

    /// The name it is counted and remembered by: what differs in spelling alone is the same.
    pub fn key(&self) -> String {
        match self {
            Self::Mailto(mailbox) => {
                let lower = Mailbox::new(&mailbox.local().to_ascii_lowercase(), mailbox.domain().clone());
                Self::Mailto(lower.unwrap_or_else(|_| mailbox.clone())).to_string()
            }
            Self::Https(url) => {
                let from = SCHEME.len().min(url.len());
                let end = url[from..].find(['/', '?', '#']).map_or(url.len(), |at| at + from);
                let (start, rest) = url.split_at(end);
                // What follows `#` is not sent.
                format!("{}{}", start.to_ascii_lowercase(), rest.split('#').next().unwrap_or_default())
            }
        }
    }
}

/// Targets as configuration names them: one address, or everything at a host (`example.net`,
/// `*.example.net`), be it the domain of an address or the host of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPattern {
    /// This address.
    Address(Mailbox),
    /// Addresses and URLs at such a host.
    Host(Pattern),
}

impl TargetPattern {
    /// Whether it is about this target.
    pub fn matches(&self, rua: &Rua) -> bool {
        match self {
            Self::Address(address) => matches!(rua, Rua::Mailto(mailbox) if same(mailbox, address)),
            Self::Host(pattern) => rua.host().is_some_and(|host| pattern.matches(&host)),
        }
    }
}

/// Local parts differ in case at no mail system that matters here, and a victim must be found again.
fn same(one: &Mailbox, other: &Mailbox) -> bool {
    one.local().eq_ignore_ascii_case(other.local()) && one.domain() == other.domain()
}

impl FromStr for TargetPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        if address.contains('@') {
            return Mailbox::parse(address).map(Self::Address).map_err(|error| format!("{text:?}: {error}"));
        }
        text.parse().map(Self::Host).map_err(|_| {
            format!("{text:?} is no target; write \"user@example.net\", \"example.net\" or \"*.example.net\"")
        })
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(pattern) => write!(f, "{pattern}"),
        }
    }
}

impl Serialize for TargetPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rua(text: &str) -> Rua {
        text.parse().unwrap()
    }

    #[test]
    fn a_target_is_counted_under_one_name() {
        for (one, other) in
            [("mailto:A@b.example", "MAILTO:a@B.example"), ("https://A.example/x#y", "HTTPS://a.example/x")]
        {
            assert_eq!(rua(one).key(), rua(other).key());
        }
        assert_ne!(rua("https://a.example/x").key(), rua("https://a.example/X").key());
        assert_eq!(rua("https://a.example").key(), "https://a.example");
    }
}
