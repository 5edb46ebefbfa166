//! From MX answers to the ordered list of hosts to try (RFC 5321 §5.1, RFC 7505).
//!
//! Pure: the answers and the random numbers are given. Never filters by policy: that would break
//! loop trimming (RFC 8461 §8.4); each host is decided on when its turn comes.
//! Called by `delivery::gather`.

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::mail::{Domain, EnhancedStatus, Failure, Permanence, Scope};

/// Hosts of a route at most. Far more than any sane domain has, and enough that a policy which
/// forbids the first few still leaves some; bounds the time of one attempt.
pub const HOSTS_MAX: usize = 32;

/// What DNSSEC says of an answer (RFC 4035 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnssecStatus {
    /// Validated.
    Secure,
    /// Proven unsigned, or no validation took place.
    Insecure,
    /// Validation failed.
    Bogus,
    /// It cannot be told.
    Indeterminate,
}

/// One host of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxHost {
    /// The name as in the MX record, before any CNAME: what policies, SNI and certificates speak of.
    pub name: Domain,
    /// Lower first; 0 for an implicit MX.
    pub preference: u16,
}

/// Where mail for a domain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In the order to try; never empty.
    pub hosts: Vec<MxHost>,
    /// Status of the MX answer (or of the proof that there is none).
    pub status: DnssecStatus,
    /// Where the CNAME chain of the domain's MX answer ends, if it is an alias; filled in by whoever
    /// asked.
    pub expanded: Option<Domain>,
    /// No MX records: the domain itself is the host (RFC 5321 §5.1).
    pub implicit: bool,
}

/// What the MX lookup of a domain said, lookup failures left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MxFacts<'a> {
    /// Preference and exchange of each record, the exchange as given without final dot; empty for
    /// `.` (RFC 7505).
    Records(&'a [(u16, &'a str)]),
    /// The domain exists, without MX records.
    NoRecords,
    /// The domain does not exist.
    NoDomain,
}

/// Why there is no route. Lasting, all of them: DNS gave a definite answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// NXDOMAIN (RFC 5321 §5.1).
    #[error("the domain does not exist (NXDOMAIN)")]
    NoDomain,
    /// `MX 0 .` alone (RFC 7505 §3).
    #[error("the domain accepts no mail (null MX, RFC 7505)")]
    NullMx,
    /// There are MX records, and none of them names a host.
    #[error("no MX record of the domain names a usable host")]
    NoHost,
    /// The best host is ourselves (RFC 5321 §5.1).
    #[error("mail loops back: this relay is the best MX host of the domain")]
    Loop,
}

impl RouteError {
    /// The failure to tell a sender of mail for `domain`.
    pub fn failure(self, domain: &Domain) -> Failure {
        let status = match self {
            // RFC 3463 §3.2: bad destination system address.
            Self::NoDomain => EnhancedStatus::new(5, 1, 2),
            // RFC 7505 §4.1.
            Self::NullMx => EnhancedStatus::new(5, 1, 10),
            // RFC 3463 §3.5: unable to route; routing loop detected.
            Self::NoHost => EnhancedStatus::new(5, 4, 4),
            Self::Loop => EnhancedStatus::new(5, 4, 6),
        };
        Failure {
            scope: Scope::Domain,
            permanence: Permanence::Permanent,
            status,
            text: format!("no route to {domain}: {self}"),
            host: None,
            reply: None,
            rule: None,
        }
    }
}

impl Route {
    /// The route for `domain`; hosts of equal preference are shuffled by `rng`.
    ///
    /// `own_names` are the names of this host: an MX host of such a name is left out with all hosts
    /// of its preference and worse (RFC 5321 §5.1).
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn build(
        domain: &Domain,
        facts: MxFacts<'_>,
        status: DnssecStatus,
        own_names: &[Domain],
        rng: &mut impl Rng,
    ) -> Result<Self, RouteError> {
        let (mut hosts, implicit) = match facts {
            MxFacts::NoDomain => return Err(RouteError::NoDomain),
            // RFC 5321 §5.1: without MX records the domain itself is the host, with preference 0.
            MxFacts::NoRecords | MxFacts::Records([]) => {
                (vec![MxHost { name: domain.clone(), preference: 0 }], true)
            }
            MxFacts::Records(records) => (named_hosts(records)?, false),
        };
        // RFC 5321 §5.1: shuffle, then sort by preference; the sort is stable.
        hosts.shuffle(rng);
        hosts.sort_by_key(|host| host.preference);
        keep_best_of_each_name(&mut hosts);
        let own =
            hosts.iter().filter(|host| own_names.contains(&host.name)).map(|host| host.preference).min();
        if let Some(own) = own {
            hosts.retain(|host| host.preference < own);
            if hosts.is_empty() {
                return Err(RouteError::Loop);
            }
        }
        hosts.truncate(HOSTS_MAX);
        Ok(Self { hosts, status, expanded: None, implicit })
    }
}

/// The hosts named by MX records. Never falls back to the domain's own address: there are MX
/// records (RFC 5321 §5.1).
fn named_hosts(records: &[(u16, &str)]) -> Result<Vec<MxHost>, RouteError> {
    // RFC 7505 §3: null MX is a single record; a `.` among others says nothing.
    if records.iter().all(|(_, exchange)| exchange.is_empty()) {
        return Err(RouteError::NullMx);
    }
    let hosts: Vec<MxHost> = records
        .iter()
        // RFC 5321 §5.1: the RDATA is a name; an address or anything else is skipped.
        .filter_map(|&(preference, exchange)| {
            Domain::parse_a_label(exchange).ok().map(|name| MxHost { name, preference })
        })
        .collect();
    if hosts.is_empty() { Err(RouteError::NoHost) } else { Ok(hosts) }
}

/// Of hosts sorted by preference, the first of each name stays.
fn keep_best_of_each_name(hosts: &mut Vec<MxHost>) {
    let mut seen = std::collections::HashSet::with_capacity(hosts.len());
    hosts.retain(|host| seen.insert(host.name.clone()));
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn build_seeded(facts: MxFacts<'_>, own: &[&str], seed: u64) -> Result<Route, RouteError> {
        let own: Vec<Domain> = own.iter().map(|name| domain(name)).collect();
        let mut rng = StdRng::seed_from_u64(seed);
        Route::build(&domain("example.org"), facts, DnssecStatus::Insecure, &own, &mut rng)
    }

    fn build(records: &[(u16, &str)], own: &[&str]) -> Result<Vec<String>, RouteError> {
        let route = build_seeded(MxFacts::Records(records), own, 7)?;
        assert!(!route.implicit && !route.hosts.is_empty());
        Ok(route.hosts.iter().map(|host| format!("{} {}", host.preference, host.name)).collect())
    }

    #[test]
    fn hosts_are_sorted_by_preference() {
        let hosts = build(&[(20, "b.example"), (10, "a.example"), (30, "c.example")], &[]).unwrap();
        assert_eq!(hosts, ["10 a.example", "20 b.example", "30 c.example"]);
    }

    #[test]
    fn equals_are_tried_in_every_order_and_never_before_better_ones() {
        let records = [(10, "a.example"), (10, "b.example"), (10, "c.example"), (5, "first.example")];
        let orders: std::collections::HashSet<Vec<Domain>> = (0..200)
            .map(|seed| build_seeded(MxFacts::Records(&records), &[], seed).unwrap())
            .inspect(|route| assert_eq!(route.hosts[0].name, domain("first.example")))
            .map(|route| route.hosts.into_iter().map(|host| host.name).collect())
            .collect();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn without_mx_records_the_domain_is_the_host() {
        for facts in [MxFacts::NoRecords, MxFacts::Records(&[])] {
            let route = build_seeded(facts, &[], 1).unwrap();
            assert!(route.implicit);
            assert_eq!(route.hosts, [MxHost { name: domain("example.org"), preference: 0 }]);
        }
    }

    #[test]
    fn a_missing_domain_and_a_null_mx_are_lasting_failures() {
        assert_eq!(build_seeded(MxFacts::NoDomain, &[], 1), Err(RouteError::NoDomain));
        assert_eq!(build(&[(0, "")], &[]), Err(RouteError::NullMx));
        assert_eq!(build(&[(10, "")], &[]), Err(RouteError::NullMx));
        let failure = RouteError::NullMx.failure(&domain("example.org"));
        assert_eq!((failure.permanence, failure.scope), (Permanence::Permanent, Scope::Domain));
        assert_eq!(failure.status.to_string(), "5.1.10");
        assert_eq!(failure.text, "no route to example.org: the domain accepts no mail (null MX, RFC 7505)");
        for (error, code) in
            [(RouteError::NoDomain, "5.1.2"), (RouteError::NoHost, "5.4.4"), (RouteError::Loop, "5.4.6")]
        {
            assert_eq!(error.failure(&domain("example.org")).status.to_string(), code);
        }
    }

    #[test]
    fn a_root_exchange_among_others_is_ignored() {
        assert_eq!(build(&[(0, ""), (10, "a.example")], &[]).unwrap(), ["10 a.example"]);
    }

    #[test]
    fn an_exchange_that_is_no_name_is_skipped_and_never_replaced_by_the_domain() {
        let records =
            [(5, "192.0.2.1"), (6, "a..b"), (7, "-x.example"), (8, "a b.example"), (10, "mx.example")];
        assert_eq!(build(&records, &[]).unwrap(), ["10 mx.example"]);
        assert_eq!(build(&records[..4], &[]), Err(RouteError::NoHost));
    }

    #[test]
    fn a_host_named_twice_is_tried_once_at_its_better_preference() {
        let records = [(20, "A.example"), (10, "a.EXAMPLE"), (15, "b.example")];
        assert_eq!(build(&records, &[]).unwrap(), ["10 a.example", "15 b.example"]);
    }

    #[test]
    fn our_own_name_cuts_its_preference_and_worse() {
        let records =
            [(10, "better.example"), (20, "same.example"), (20, "Relay.Example"), (30, "worse.example")];
        assert_eq!(build(&records, &["relay.example"]).unwrap(), ["10 better.example"]);
        assert_eq!(build(&records[1..], &["relay.example"]), Err(RouteError::Loop));
        assert_eq!(build(&[(5, "relay.example")], &["x.example", "relay.example"]), Err(RouteError::Loop));
        // The implicit MX too: the domain is our own name and has no MX.
        assert_eq!(build_seeded(MxFacts::NoRecords, &["example.org"], 1), Err(RouteError::Loop));
        // A name below ours is another host.
        assert_eq!(build(&[(5, "mx.relay.example")], &["relay.example"]).unwrap().len(), 1);
    }

    #[test]
    fn the_number_of_hosts_is_bounded_and_the_best_are_kept() {
        let names: Vec<String> = (0..500).map(|i| format!("mx{i}.example")).collect();
        let records: Vec<(u16, &str)> =
            names.iter().enumerate().rev().map(|(i, name)| (i as u16, name.as_str())).collect();
        let hosts = build(&records, &[]).unwrap();
        assert_eq!(hosts.len(), HOSTS_MAX);
        assert_eq!(hosts[0], "0 mx0.example");
        // Trimming looks at all of them, so that the cut hides no loop.
        assert_eq!(build(&records, &["mx0.example"]), Err(RouteError::Loop));
    }
}
