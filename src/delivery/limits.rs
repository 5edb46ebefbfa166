//! What the operator allows for some destinations: `[[delivery.destination]]`.
//!
//! Pure. The first table that matches holds. A table with `domain` holds for each recipient domain it
//! matches, one by one; a table with `mx` for all domains together whose mail goes to hosts it matches.
//! Called by `delivery::turns` (concurrency, rate) and `delivery::attempt` (messages per connection).

use super::pace::Rate;
use crate::mail::{Domain, Pattern};

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
