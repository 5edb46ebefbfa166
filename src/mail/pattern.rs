//! A name, or everything below a name, as configuration writes it: `example.net`, `*.example.net`.
//!
//! Pure. Never matches parts of a label. Used for destinations' limits and for local rules.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Domain;

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

    /// Greater for the more specific of two patterns that match one name: the name itself, then the
    /// longer tree.
    pub fn specificity(&self) -> (bool, usize) {
        (!self.below, self.name.labels().count())
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

impl From<Domain> for Pattern {
    fn from(name: Domain) -> Self {
        Self { below: false, name }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        for bad in ["", "*", "*.", ".example.net", "a..b", "mx*.example.net", "192.0.2.1"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_more_specific_than_trees_and_small_trees_than_large_ones() {
        let of = |text: &str| text.parse::<Pattern>().unwrap().specificity();
        assert!(of("a.example.net") > of("*.example.net"));
        assert!(of("*.b.example.net") > of("*.example.net"));
    }
}
