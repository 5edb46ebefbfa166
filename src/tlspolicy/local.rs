//! Local rules: what `[[policy.override]]` demands of a host, which rule holds, how texts name it.
//!
//! Pure. Of the rules in force that match, the strongest holds; of equally strong ones the most specific
//! is named. Rules only add to what remote policies demand; `ignore-sts` alone takes away, and only
//! MTA-STS, and only where no other rule that matches demands anything. Called by `delivery::known`
//! (each host), `delivery::gather` (is MTA-STS asked for at all) and `delivery::explain`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mail::{Domain, Pattern};

/// `[[policy.override]] require`, from weakest to strongest, and the one exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalRule {
    /// No rule.
    #[default]
    None,
    /// TLS is mandatory, unauthenticated.
    Encrypt,
    /// TLS with a PKIX certificate for the MX host is mandatory.
    Verify,
    /// Mandatory DANE (RFC 7672 §6): DNSSEC-secure MX records and a usable TLSA record that matches.
    Dane,
    /// MTA-STS of this domain is not applied; logged at every use.
    IgnoreSts,
}

impl LocalRule {
    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Encrypt => "encrypt",
            Self::Verify => "verify",
            Self::Dane => "dane",
            Self::IgnoreSts => "ignore-sts",
        }
    }

    /// Which of two holds. An exception is weaker than any demand, so that two rules never weaken each
    /// other.
    fn strength(self) -> u8 {
        match self {
            Self::None => 0,
            Self::IgnoreSts => 1,
            Self::Encrypt => 2,
            Self::Verify => 3,
            Self::Dane => 4,
        }
    }
}

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Mail for these recipient domains, at every host.
    Domain(Pattern),
    /// These MX hosts, whatever the recipient domain.
    Mx(Pattern),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(pattern) => write!(f, "{pattern}"),
            Self::Mx(pattern) => write!(f, "mx {pattern}"),
        }
    }
}

/// A local override as configured (`[[policy.override]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Whom it is for.
    pub whom: Whom,
    /// What it demands.
    pub require: LocalRule,
    /// In force before this instant; `None` for ever.
    pub until: Option<Timestamp>,
    /// Why, for the log.
    pub reason: String,
}

impl Override {
    /// Whether its time is not over.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// What decides between rules that match: strength, then how closely they match; a host is closer
    /// than a domain.
    fn rank(&self) -> (u8, bool, (bool, usize)) {
        let (of_host, pattern) = match &self.whom {
            Whom::Domain(pattern) => (false, pattern),
            Whom::Mx(pattern) => (true, pattern),
        };
        (self.require.strength(), of_host, pattern.specificity())
    }
}

/// `"verify" for *.example.net (ticket 4711), until 2027-02-01T00:00:00Z`
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {}", self.require.word(), self.whom)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        self.until.map_or(Ok(()), |until| write!(f, ", until {until}"))
    }
}

/// The rule that holds for mail to `domain` at `now`: at `host`, or before a host is known, when rules
/// for hosts do not count yet.
pub fn local_rule<'a>(
    overrides: &'a [Override],
    domain: &Domain,
    host: Option<&Domain>,
    now: Timestamp,
) -> Option<&'a Override> {
    let matches = |rule: &&Override| match &rule.whom {
        Whom::Domain(pattern) => pattern.matches(domain),
        Whom::Mx(pattern) => host.is_some_and(|host| pattern.matches(host)),
    };
    overrides.iter().filter(matches).filter(|rule| rule.is_in_force(now)).max_by_key(|rule| rule.rank())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn rule(whom: &str, require: LocalRule, until: Option<i64>) -> Override {
        let whom = match whom.strip_prefix("mx ") {
            Some(host) => Whom::Mx(host.parse().unwrap()),
            None => Whom::Domain(whom.parse().unwrap()),
        };
        let until = until.map(|seconds| Timestamp::from_second(seconds).unwrap());
        Override { whom, require, until, reason: "ticket".to_owned() }
    }

    fn holds(rules: &[Override]) -> (LocalRule, String) {
        let (mail, host) = (domain("sub.example.org"), domain("mx.example.net"));
        let now = Timestamp::from_second(NOW).unwrap();
        local_rule(rules, &mail, Some(&host), now)
            .map(|rule| (rule.require, rule.whom.to_string()))
            .unwrap_or_default()
    }

    #[test]
    fn a_rule_is_for_a_domain_a_tree_or_a_host_while_it_lasts() {
        use LocalRule::{Encrypt, None as Nothing};
        for (whom, until, expected) in [
            ("sub.example.org", None, Encrypt),
            ("example.org", None, Nothing),
            ("*.example.org", None, Encrypt),
            ("*.sub.example.org", None, Nothing),
            ("other.example", None, Nothing),
            ("mx.example.net", None, Nothing),
            ("mx mx.example.net", None, Encrypt),
            ("mx *.example.net", None, Encrypt),
            ("mx sub.example.org", None, Nothing),
            ("sub.example.org", Some(NOW + 1), Encrypt),
            ("sub.example.org", Some(NOW), Nothing),
        ] {
            assert_eq!(holds(&[rule(whom, Encrypt, until)]).0, expected, "{whom} {until:?}");
        }
        let now = Timestamp::from_second(NOW).unwrap();
        let rules = [rule("mx mx.example.net", Encrypt, None)];
        assert_eq!(local_rule(&rules, &domain("sub.example.org"), None, now), None);
    }

    #[test]
    fn the_strongest_holds_and_of_equals_the_most_specific_is_named() {
        use LocalRule::{Dane, Encrypt, IgnoreSts, None as Nothing, Verify};
        let (exact, tree, host) = ("sub.example.org", "*.example.org", "mx *.example.net");
        for (rules, expected) in [
            (vec![(tree, Verify), (exact, Encrypt)], (Verify, tree)),
            (vec![(tree, Verify), (host, Dane)], (Dane, host)),
            (vec![(exact, Verify), (host, Encrypt)], (Verify, exact)),
            (vec![(exact, Verify), (tree, Verify)], (Verify, exact)),
            (vec![(exact, Verify), (host, Verify)], (Verify, host)),
            // What one rule demands, no other takes away.
            (vec![(exact, IgnoreSts), (tree, Encrypt)], (Encrypt, tree)),
            (vec![(exact, Nothing), (tree, Encrypt)], (Encrypt, tree)),
            (vec![(exact, IgnoreSts), (tree, Nothing)], (IgnoreSts, exact)),
        ] {
            let made: Vec<Override> = rules.iter().map(|(whom, of)| rule(whom, *of, None)).collect();
            assert_eq!(holds(&made), (expected.0, expected.1.to_owned()), "{rules:?}");
            let reversed: Vec<Override> = made.into_iter().rev().collect();
            assert_eq!(holds(&reversed), (expected.0, expected.1.to_owned()), "{rules:?}");
        }
        let expired = [rule(exact, Dane, Some(0)), rule(tree, IgnoreSts, None)];
        assert_eq!(holds(&expired).0, IgnoreSts);
    }

    #[test]
    fn texts_say_what_for_whom_and_why() {
        assert_eq!(
            rule("mx *.example.net", LocalRule::IgnoreSts, Some(0)).to_string(),
            "\"ignore-sts\" for mx *.example.net (ticket), until 1970-01-01T00:00:00Z"
        );
        let bare = Override { reason: String::new(), ..rule("a.example", LocalRule::Dane, None) };
        assert_eq!(bare.to_string(), "\"dane\" for a.example");
    }
}
