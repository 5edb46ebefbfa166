//! The names DANE for SMTP speaks of: where TLSA records are, and whom a certificate may name.

use crate::mail::Domain;

/// The owner of the TLSA records of a base domain: `_PORT._tcp.BASE` (RFC 6698 §3, RFC 7672 §2.2.3).
/// `None` when that is longer than a name can be, so that there are no records.
pub fn tlsa_name(base: &Domain, port: u16) -> Option<Domain> {
    base.prefixed(&format!("_{port}._tcp")).ok()
}

/// How the next hop led to the host, as far as DNSSEC vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop<'a> {
    /// The recipient domain, before any CNAME.
    pub domain: &'a Domain,
    /// Where its CNAME chain ends, if it is an alias.
    pub expanded: Option<&'a Domain>,
}

/// The reference identities for usage 2 (RFC 7672 §3.2.2): the TLSA base domain, and the next hop where
/// it is vouched for, that is: where the MX records are secure, or the host is the next hop itself.
pub fn reference_names(base: &Domain, next_hop: Option<NextHop<'_>>) -> Vec<Domain> {
    let mut names = vec![base.clone()];
    let more = next_hop.into_iter().flat_map(|hop| std::iter::once(hop.domain).chain(hop.expanded));
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn tlsa_records_are_below_the_base_domain_at_the_real_port() {
        assert_eq!(tlsa_name(&domain("mx.example.org"), 25), Some(domain("_25._tcp.mx.example.org")));
        assert_eq!(tlsa_name(&domain("mx.example.org"), 2525), Some(domain("_2525._tcp.mx.example.org")));
        let long = [["a"; 60].join("."), ["b"; 60].join("."), "c".to_owned()].join(".");
        assert!(tlsa_name(&domain(&long), 25).is_some());
        assert_eq!(tlsa_name(&domain(&format!("{long}.{}", "d".repeat(10))), 25), None);
    }

    #[test]
    fn the_base_domain_comes_first_and_no_name_twice() {
        let (base, hop, end) = (domain("mx.example.org"), domain("example.org"), domain("example.net"));
        assert_eq!(reference_names(&base, None), std::slice::from_ref(&base));
        let plain = NextHop { domain: &hop, expanded: None };
        assert_eq!(reference_names(&base, Some(plain)), [base.clone(), hop.clone()]);
        let alias = NextHop { domain: &hop, expanded: Some(&end) };
        assert_eq!(reference_names(&base, Some(alias)), [base.clone(), hop.clone(), end.clone()]);
        let itself = NextHop { domain: &base, expanded: Some(&base) };
        assert_eq!(reference_names(&base, Some(itself)), [base]);
    }
}
