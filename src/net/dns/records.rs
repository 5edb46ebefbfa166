//! Records as the rest of the house knows them.
//!
//! Pure. What is no record of the kind asked for, or names no host, is left out.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{RData, RecordType};

use super::reply;
use super::{Answer, Lookup, MxRecord};
use crate::dane::Tlsa;
use crate::mail::Domain;

/// IPv6 and IPv4 answers as one.
pub(super) fn both_families(v6: Lookup<IpAddr>, v4: Lookup<IpAddr>) -> Lookup<IpAddr> {
    match (v6, v4) {
        (Lookup::Found(v6), Lookup::Found(v4)) => {
            let mut records = Vec::with_capacity(v6.records.len() + v4.records.len());
            let (mut sixes, mut fours) = (v6.records.into_iter(), v4.records.into_iter());
            // RFC 8305 §4: families take turns, so that a dead one costs one attempt.
            loop {
                let pair = (sixes.next(), fours.next());
                records.extend(pair.0);
                records.extend(pair.1);
                if pair == (None, None) {
                    break;
                }
            }
            let status = reply::weaker(v6.status, v4.status);
            Lookup::Found(Answer { records, status, name: v6.name, ttl: v6.ttl.min(v4.ttl) })
        }
        (Lookup::Found(found), _) | (_, Lookup::Found(found)) => Lookup::Found(found),
        (Lookup::Failed(failure), _) | (_, Lookup::Failed(failure)) => Lookup::Failed(failure),
        (Lookup::NxDomain(a), Lookup::NxDomain(b)) => Lookup::NxDomain(reply::weaker(a, b)),
        (Lookup::NoData(a) | Lookup::NxDomain(a), Lookup::NoData(b) | Lookup::NxDomain(b)) => {
            Lookup::NoData(reply::weaker(a, b))
        }
    }
}

pub(super) fn mx_record(data: RData) -> Option<MxRecord> {
    let RData::MX(mx) = data else { return None };
    let exchange = mx.exchange.to_ascii();
    let exchange = exchange.strip_suffix('.').unwrap_or(&exchange).to_owned();
    Some(MxRecord { preference: mx.preference, exchange })
}

pub(super) fn txt_record(data: RData) -> Option<Vec<u8>> {
    // RFC 8461 §3.1, RFC 7208 §3.3: joined without anything between.
    if let RData::TXT(txt) = data { Some(txt.txt_data.concat()) } else { None }
}

pub(super) fn tlsa_record(data: RData) -> Option<Tlsa> {
    let RData::TLSA(tlsa) = data else { return None };
    Some(Tlsa {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data,
    })
}

pub(super) fn alias_target(data: RData) -> Option<Domain> {
    let RData::CNAME(target) = data else { return None };
    Domain::parse_a_label(&target.0.to_ascii()).ok()
}

pub(super) fn address(data: RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

/// As failures name it.
pub(super) fn kind_text(kind: RecordType) -> &'static str {
    match kind {
        RecordType::MX => "MX",
        RecordType::TXT => "TXT",
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::TLSA => "TLSA",
        RecordType::CNAME => "CNAME",
        _ => "record",
    }
}
