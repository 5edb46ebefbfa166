//! What the operator allows for some destinations: `[[delivery.destination]]`.
//!
//! Pure. The first table that matches holds. A table with `domain` holds for each recipient domain it
//! matches, one by one; a table with `mx` for all domains together whose mail goes to hosts it matches.
//! Called by `delivery::turns` (concurrency, rate) and `delivery::attempt` (messages per connection).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pace::Rate;
use crate::mail::Domain;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationLimit {
    /// Whom it is about.
    pub whom: Whom,
    /// Attempts at a time at most.
    pub concurrency: Option<usize>,
    /// Attempts a unit of time at most.
    pub rate: Option<Rate>,
    /// Messages on one connection at most.
    pub messages_per_connection: Option<u32>,
}

/// Whom a table is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Recipient domains.
    Domain(Pattern),
    /// MX hosts.
    Mx(Pattern),
}

/// A name, or `*.` and a name for every name below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    below: bool,
    name: Domain,
}

impl Pattern {
    /// Whether it is about this name.
    pub fn matches(&self, name: &Domain) -> bool {
        if self.below { name != &self.name && name.is_within(&self.name) } else { name == &self.name }
    }
}

impl FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        let name = Domain::parse(name)
            .map_err(|error| format!("{text:?}: {error}; write \"example.net\" or \"*.example.net\""))?;
        Ok(Self { below, name })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The table about a recipient domain, if there is one, by position.
pub(super) fn for_domain(limits: &[DestinationLimit], domain: &Domain) -> Option<usize> {
    limits.iter().position(|limit| matches!(&limit.whom, Whom::Domain(pattern) if pattern.matches(domain)))
}

/// The table about an MX host, if there is one, by position.
pub(super) fn for_host(limits: &[DestinationLimit], host: &str) -> Option<usize> {
    // Address literals are no names, and no table is about them.
    let host = limits.first().and_then(|_| Domain::parse_a_label(host).ok())?;
    limits.iter().position(|limit| matches!(&limit.whom, Whom::Mx(pattern) if pattern.matches(&host)))
}

/// Messages that may go over one connection of a domain's to a host.
pub(super) fn messages_per_connection(
    limits: &[DestinationLimit],
    domain: Option<&Domain>,
    host: &str,
) -> Option<u32> {
    let of = |table: Option<usize>| limits.get(table?)?.messages_per_connection;
    let both = [of(domain.and_then(|domain| for_domain(limits, domain))), of(for_host(limits, host))];
    both.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(whom: Whom, messages: u32) -> DestinationLimit {
        DestinationLimit { whom, concurrency: None, rate: None, messages_per_connection: Some(messages) }
    }

    #[test]
    fn patterns_are_names_or_everything_below_a_name() {
        let matches = |pattern: &str, name: &str| {
            pattern.parse::<Pattern>().unwrap().matches(&Domain::parse(name).unwrap())
        };
        assert!(matches("example.net", "EXAMPLE.net"));
        assert!(!matches("example.net", "a.example.net"));
        assert!(matches("*.example.net", "a.b.example.net"));
        assert!(!matches("*.example.net", "example.net"));
        assert!(!matches("*.example.net", "badexample.net"));
        for bad in ["", "*", "*.", "a..b", "mx*.example.net", "192.0.2.1"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_table_holds_and_of_domain_and_host_the_stricter() {
        let pattern = |text: &str| text.parse::<Pattern>().unwrap();
        let limits = [
            limit(Whom::Domain(pattern("a.example")), 7),
            limit(Whom::Domain(pattern("*.example")), 3),
            limit(Whom::Domain(pattern("a.example")), 1),
            limit(Whom::Mx(pattern("*.big.example")), 5),
        ];
        let domain = |text: &str| Domain::parse(text).unwrap();
        let per = |of: &str, host: &str| messages_per_connection(&limits, Some(&domain(of)), host);
        assert_eq!(for_domain(&limits, &domain("a.example")), Some(0));
        assert_eq!(per("a.example", "mx.other.example"), Some(7));
        assert_eq!(per("a.example", "mx.big.example"), Some(5));
        assert_eq!(per("b.example", "mx.big.example"), Some(3));
        assert_eq!(per("elsewhere.test", "mx.elsewhere.test"), None);
        assert_eq!(messages_per_connection(&limits, None, "[192.0.2.1]"), None);
    }
}
