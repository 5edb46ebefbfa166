//! A whole DNS reply, read as the resolver reads it, and what is made of its records: a route, a
//! policy id, usable TLSA records, addresses the guard has seen.
//!
//! The first octet says whether the AD bit is believed. Questions are about fixed names.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use stsrelay::dane;
use stsrelay::mail::Domain;
use stsrelay::net::dns::{Answer, Lookup, ReplyOctets};
use stsrelay::net::guard::AddressGuard;
use stsrelay::route::{DnssecStatus, HOSTS_MAX, MxFacts, Route, RouteError};
use stsrelay::{sts, tlsrpt};

use super::address::check_domain;

/// Longest life of an answer, as `net::dns` has it.
const TTL_SECONDS_MAX: u64 = 86_400;
/// Octets of a message over TCP at most.
const MESSAGE_BYTES_MAX: usize = 65_535;

pub fn run(data: &[u8]) {
    let Some((&first, octets)) = data.split_first() else { return };
    let believe_ad = first & 1 == 1;
    if octets.len() > MESSAGE_BYTES_MAX {
        return;
    }
    let Ok(reply) = ReplyOctets::decode(octets, believe_ad) else { return };
    for name in ["a.test", "_mta-sts.a.test", "_25._tcp.mx.a.test", "mx.a.test"] {
        let name = Domain::parse(name).expect("a domain");
        if let Some(answer) = found(reply.mx(&name), believe_ad) {
            check_route(&name, &answer.records, answer.status);
        }
        if let Some(answer) = found(reply.txt(&name), believe_ad) {
            let _ = (sts::record::parse(&answer.records), tlsrpt::record::parse(&answer.records));
        }
        if let Some(answer) = found(reply.tlsa(&name), believe_ad) {
            let usable = dane::usable(&answer.records);
            assert!(usable.iter().all(|record| record.is_usable() && answer.records.contains(record)));
            assert_eq!(dane::usable(&usable), usable);
        }
        if let Some(answer) = found(reply.cname(&name), believe_ad) {
            answer.records.iter().for_each(check_domain);
        }
        if let Some(answer) = found(reply.addresses(&name), believe_ad) {
            let guard = AddressGuard::default();
            for ip in answer.records {
                assert_eq!(guard.check(ip).is_ok(), guard.check(ip.to_canonical()).is_ok(), "{ip}");
            }
        }
    }
}

/// An answer is never empty, never secure without a word for it, never kept for ever.
fn found<T>(lookup: Lookup<T>, believe_ad: bool) -> Option<Answer<T>> {
    let secure = |status| status != DnssecStatus::Secure || believe_ad;
    match lookup {
        Lookup::Found(answer) => {
            assert!(!answer.records.is_empty() && answer.ttl.as_secs() <= TTL_SECONDS_MAX);
            assert!(secure(answer.status));
            check_domain(&answer.name);
            Some(answer)
        }
        Lookup::NoData(status) | Lookup::NxDomain(status) => {
            assert!(secure(status));
            None
        }
        Lookup::Failed(failure) => {
            assert!(!failure.to_string().contains(['\r', '\n']));
            None
        }
    }
}

fn check_route(domain: &Domain, records: &[stsrelay::net::dns::MxRecord], status: DnssecStatus) {
    let records: Vec<(u16, &str)> =
        records.iter().map(|record| (record.preference, record.exchange.as_str())).collect();
    let mut rng = SmallRng::seed_from_u64(records.len() as u64);
    let mut build = |own: &[Domain]| Route::build(domain, MxFacts::Records(&records), status, own, &mut rng);
    match build(&[]) {
        Ok(route) => {
            assert!(!route.implicit && (1..=HOSTS_MAX).contains(&route.hosts.len()));
            assert!(route.hosts.is_sorted_by_key(|host| host.preference));
            for (index, host) in route.hosts.iter().enumerate() {
                check_domain(&host.name);
                assert!(route.hosts[..index].iter().all(|other| other.name != host.name));
            }
            // RFC 5321 §5.1: of a host of our own name and all worse ones nothing is left.
            let own = &route.hosts[route.hosts.len() / 2];
            match build(std::slice::from_ref(&own.name)) {
                Ok(route) => assert!(route.hosts.iter().all(|host| host.preference < own.preference)),
                Err(error) => assert_eq!(error, RouteError::Loop),
            }
        }
        Err(RouteError::NullMx) => assert!(records.iter().all(|(_, exchange)| exchange.is_empty())),
        Err(error) => assert_eq!(error, RouteError::NoHost),
    }
}
