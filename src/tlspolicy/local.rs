//! Local rules: what `[[policy.override]]` demands of a host, which rule holds, how texts name it.
//!
//! Pure. Of the rules in force that match, the strongest holds; of equally strong ones the most specific
//! is named. Rules only add to what remote policies demand; `ignore-sts` alone takes away, and only
//! MTA-STS, and only where no other rule that matches demands anything. A static route's own demand
//! (`[[route]] require`) is one more such rule. Called by `delivery::known`
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
    /// Mail that goes by a static route, which this names.
    Route(String),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(pattern) => write!(f, "{pattern}"),
            Self::Mx(pattern) => write!(f, "mx {pattern}"),
            Self::Route(route) => f.write_str(route),
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
    /// than a domain, and a domain closer than a route.
    fn rank(&self) -> (u8, u8, (bool, usize)) {
        let (closeness, specificity) = match &self.whom {
            Whom::Route(_) => (0, (false, 0)),
            Whom::Domain(pattern) => (1, pattern.specificity()),
            Whom::Mx(pattern) => (2, pattern.specificity()),
        };
        (self.require.strength(), closeness, specificity)
    }

    /// Whether it is about this mail.
    fn matches(&self, course: &Course<'_>) -> bool {
        match &self.whom {
            Whom::Domain(pattern) => {
                let next_hop = course.next_hop.is_some_and(|domain| pattern.matches(domain));
                // It is the next hop's MTA-STS that is applied; that of the recipient domain is not asked for.
                let recipient = course.recipient.filter(|_| self.require != LocalRule::IgnoreSts);
                next_hop || recipient.is_some_and(|domain| pattern.matches(domain))
            }
            Whom::Mx(pattern) => course.host.is_some_and(|host| pattern.matches(host)),
            Whom::Route(_) => false,
        }
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

/// What of mail on its way rules are about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Course<'a> {
    /// The recipient domain; absent for an address literal.
    pub recipient: Option<&'a Domain>,
    /// Whose policies count: the recipient domain, or the next hop of a static route (RFC 8461 §3.4);
    /// absent for an address.
    pub next_hop: Option<&'a Domain>,
    /// Absent before a host is known, when rules for hosts do not count yet.
    pub host: Option<&'a Domain>,
    /// What the static route itself demands.
    pub route: Option<&'a Override>,
}

/// The rule that holds for mail to `domain` at `now`: at `host`, or before a host is known, when rules
/// for hosts do not count yet.
pub fn local_rule<'a>(
    overrides: &'a [Override],
    domain: &Domain,
    host: Option<&Domain>,
    now: Timestamp,
) -> Option<&'a Override> {
    let matching = overrides.iter().filter(|rule| {
        rule.matches(&Course { recipient: Some(domain), next_hop: Some(domain), host, route: None })
    });
    strongest(matching, now)
}

/// [`local_rule`] for mail that may go by a static route.
pub fn local_rule_on<'a>(
    overrides: &'a [Override],
    course: &Course<'a>,
    now: Timestamp,
) -> Option<&'a Override> {
    strongest(overrides.iter().filter(|rule| rule.matches(course)).chain(course.route), now)
}

fn strongest<'a>(rules: impl Iterator<Item = &'a Override>, now: Timestamp) -> Option<&'a Override> {
    rules.filter(|rule| rule.is_in_force(now)).max_by_key(|rule| rule.rank())
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
    fn on_a_static_route_rules_for_the_recipient_and_for_the_next_hop_hold_beside_its_own() {
        use LocalRule::{Dane, Encrypt, IgnoreSts, None as Nothing, Verify};
        let (recipient, next_hop, host) =
            (domain("a.example"), domain("smart.test"), domain("mx.smart.test"));
        let now = Timestamp::from_second(NOW).unwrap();
        let of_route = |require| Override {
            whom: Whom::Route("the route for *".to_owned()),
            require,
            until: None,
            reason: String::new(),
        };
        for (rules, own, expected) in [
            (vec![], Nothing, Nothing),
            (vec![], Verify, Verify),
            (vec![("a.example", Verify)], Encrypt, Verify),
            (vec![("a.example", Encrypt)], Verify, Verify),
            (vec![("smart.test", Dane)], Verify, Dane),
            (vec![("mx *.smart.test", Verify)], Nothing, Verify),
            // The recipient domain's policy is not what is applied here.
            (vec![("a.example", IgnoreSts)], Nothing, Nothing),
            (vec![("smart.test", IgnoreSts)], Nothing, IgnoreSts),
            (vec![("smart.test", IgnoreSts)], Verify, Verify),
        ] {
            let made: Vec<Override> = rules.iter().map(|(whom, of)| rule(whom, *of, None)).collect();
            let own = of_route(own);
            let course = Course {
                recipient: Some(&recipient),
                next_hop: Some(&next_hop),
                host: Some(&host),
                route: Some(&own),
            };
            let holds = local_rule_on(&made, &course, now).map(|rule| rule.require);
            assert_eq!(holds, Some(expected), "{rules:?}");
        }
        let own = of_route(Verify);
        let closer = rule("a.example", Verify, None);
        let course = Course { recipient: Some(&recipient), route: Some(&own), ..Course::default() };
        let named = local_rule_on(std::slice::from_ref(&closer), &course, now).unwrap();
        assert_eq!(named.whom.to_string(), "a.example");
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
