//! Reads one DNS reply: follows its CNAME chain, tells records, NODATA and NXDOMAIN apart.
//!
//! Pure. The chain may lead out of the reply; then the question goes on at its end.

use std::time::Duration;

use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::LookupFailureKind;
use crate::route::DnssecStatus;

/// CNAMEs followed at most, over all replies to one question; longer chains are broken or hostile.
pub(super) const CNAMES_MAX: usize = 12;

/// How the status of a reply is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Not at all.
    Nothing,
    /// By the AD bit of a resolver on this host (RFC 4035 §3.2.3).
    AdBit,
    /// By the proof on each record.
    Proofs,
}

/// What one reply says.
#[derive(Debug)]
pub(super) struct Step {
    /// The end of the chain.
    pub(super) end: Name,
    /// How many CNAMEs lead there.
    pub(super) cnames: usize,
    pub(super) status: DnssecStatus,
    /// Of chain and records, or of the denial.
    pub(super) ttl: Duration,
    pub(super) says: Says,
}

#[derive(Debug)]
pub(super) enum Says {
    Records(Vec<RData>),
    NoData,
    NxDomain,
    /// The chain leaves the reply: ask for its end.
    GoOn,
}

/// Reads a reply to the question `(name, kind)`.
///
/// # Errors
/// [`LookupFailureKind`] for a loop and for proofs that fail.
pub(super) fn read(
    reply: &Message,
    name: &Name,
    kind: RecordType,
    trust: Trust,
) -> Result<Step, LookupFailureKind> {
    let mut end = name.clone();
    let mut cnames = 0;
    let mut used: Vec<&Record> = Vec::new();
    while let Some((record, target)) = cname(reply, &end, kind) {
        cnames += 1;
        if cnames > CNAMES_MAX {
            return Err(LookupFailureKind::plain("CNAME chain too long or in a circle"));
        }
        used.push(record);
        end = target.clone();
    }
    let found: Vec<&Record> =
        reply.answers.iter().filter(|record| record.record_type() == kind && record.name == end).collect();
    used.extend(&found);
    let mut status = status(&used, reply, trust)?;
    let soa_ttl = negative_ttl(reply);
    let says = if !found.is_empty() {
        Says::Records(found.iter().map(|record| record.data.clone()).collect())
    } else if reply.metadata.response_code == ResponseCode::NXDomain {
        // RFC 6604 §3: the code is about the end of the chain.
        Says::NxDomain
    } else if cnames > 0 && soa_ttl.is_none() {
        Says::GoOn
    } else {
        Says::NoData
    };
    let denied = matches!(says, Says::NoData | Says::NxDomain);
    if denied && trust == Trust::Proofs {
        status = weaker(status, denial_status(reply));
    }
    let chain_ttl = used.iter().map(|record| record.ttl).min();
    // RFC 2308 §5: a denial without SOA is not kept.
    let ttl =
        if denied { soa_ttl.map(|soa| chain_ttl.map_or(soa, |chain| chain.min(soa))) } else { chain_ttl };
    let ttl = Duration::from_secs(ttl.unwrap_or(0).into());
    Ok(Step { end, cnames, status, ttl, says })
}

/// The weaker of two, for an answer put together from several.
pub(super) fn weaker(a: DnssecStatus, b: DnssecStatus) -> DnssecStatus {
    // RFC 7672 §2.1.3: one insecure link makes the whole chain insecure.
    if a == DnssecStatus::Secure { b } else { a }
}

fn cname<'a>(reply: &'a Message, name: &Name, kind: RecordType) -> Option<(&'a Record, &'a Name)> {
    if kind == RecordType::CNAME {
        return None;
    }
    reply.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *name => Some((record, &target.0)),
        _ => None,
    })
}

fn status(used: &[&Record], reply: &Message, trust: Trust) -> Result<DnssecStatus, LookupFailureKind> {
    match trust {
        Trust::Nothing => Ok(DnssecStatus::Insecure),
        Trust::AdBit if reply.metadata.authentic_data => Ok(DnssecStatus::Secure),
        Trust::AdBit => Ok(DnssecStatus::Insecure),
        Trust::Proofs => used.iter().try_fold(DnssecStatus::Secure, |so_far, record| match record.proof {
            Proof::Secure => Ok(so_far),
            Proof::Insecure => Ok(DnssecStatus::Insecure),
            // RFC 7672 §2.1.1: neither bogus nor indeterminate data may be used.
            Proof::Bogus => Err(LookupFailureKind::bogus("DNSSEC validation failed")),
            Proof::Indeterminate => Err(LookupFailureKind::plain("DNSSEC validation could not be completed")),
        }),
    }
}

/// A denial that passed validation is secure when all it rests on is.
fn denial_status(reply: &Message) -> DnssecStatus {
    let denial = reply.authorities.iter().filter(|record| record.record_type() != RecordType::RRSIG);
    let mut proofs = denial.map(|record| record.proof).peekable();
    if proofs.peek().is_some() && proofs.all(|proof| proof == Proof::Secure) {
        DnssecStatus::Secure
    } else {
        DnssecStatus::Insecure
    }
}

/// RFC 2308 §5: the lesser of the SOA's own TTL and its MINIMUM field.
fn negative_ttl(reply: &Message) -> Option<u32> {
    reply.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    })
}
