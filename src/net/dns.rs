//! DNS questions, each answer with its DNSSEC status. The only folder that names hickory.
//!
//! Absolute names only, no search list, no hosts file: `localhost` and the like are asked for as any
//! name is, and refused by the address guard. Called by `delivery::gather`, `reporting` and
//! `net::https`.

mod anchors;
mod cache;
mod octets;
mod recent;
mod records;
mod reply;
mod resolver;
mod upstream;
mod validating;
mod validation;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::dane::Tlsa;
use crate::mail::Domain;
use crate::route::DnssecStatus;

pub use octets::ReplyOctets;
pub use resolver::{Dnssec, HickoryDns, Options};
pub use validation::Validation;

/// What a lookup said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// Records of the type asked for.
    Found(Answer<T>),
    /// The name exists, without this type.
    NoData(DnssecStatus),
    /// The name does not exist.
    NxDomain(DnssecStatus),
    /// SERVFAIL, time-out, bogus, malformed: nothing is known (RFC 7672 §2.1.1).
    Failed(LookupFailure),
}

/// Records with their status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// In the order of the answer; never empty.
    pub records: Vec<T>,
    /// What DNSSEC says of the whole answer, CNAMEs included.
    pub status: DnssecStatus,
    /// The name at the end of the CNAME chain; the name asked for without one.
    pub name: Domain,
    /// How long the answer may be kept.
    pub ttl: Duration,
}

impl<T> Lookup<T> {
    /// The same answer with its records read as something else; those that cannot be are left out.
    fn keep<U>(self, read: impl FnMut(T) -> Option<U>) -> Lookup<U> {
        match self {
            Self::Found(Answer { records, status, name, ttl }) => {
                let records: Vec<_> = records.into_iter().filter_map(read).collect();
                if records.is_empty() {
                    return Lookup::NoData(status);
                }
                Lookup::Found(Answer { records, status, name, ttl })
            }
            Self::NoData(status) => Lookup::NoData(status),
            Self::NxDomain(status) => Lookup::NxDomain(status),
            Self::Failed(failure) => Lookup::Failed(failure),
        }
    }
}

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("DNS lookup of {name} {kind} failed: {text}")]
pub struct LookupFailure {
    /// What was asked for.
    pub name: String,
    /// The record type, e.g. `MX`.
    pub kind: &'static str,
    /// DNSSEC validation said bogus.
    pub bogus: bool,
    /// SERVFAIL, time-out, ...
    pub text: String,
}

/// A failure before it is known whose it is.
#[derive(Debug)]
struct LookupFailureKind {
    bogus: bool,
    text: String,
}

impl LookupFailureKind {
    fn plain(text: &str) -> Self {
        Self { bogus: false, text: text.to_owned() }
    }

    fn bogus(text: &str) -> Self {
        Self { bogus: true, text: text.to_owned() }
    }
}

/// One MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxRecord {
    /// Lower first.
    pub preference: u16,
    /// The exchange as given, without final dot; empty for `.` (RFC 7505). Not yet checked to be a
    /// name: RDATA may hold an address or worse (RFC 5321 §5.1).
    pub exchange: String,
}

/// The DNS door. Absolute names only: no search list is ever applied (RFC 5321 §2.3.5).
pub trait Dns: Send + Sync {
    /// MX records; a CNAME is followed.
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>>;
    /// TXT records, character-strings of each joined without separators; a CNAME is followed.
    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>>;
    /// TLSA records of `_PORT._tcp.HOST`, of any usage and content; a CNAME is followed, and the status is
    /// that of the whole chain (RFC 7672 §2.1.3). Doors without DNSSEC have none.
    fn tlsa<'a>(&'a self, _name: &'a Domain) -> BoxFuture<'a, Lookup<Tlsa>> {
        Box::pin(std::future::ready(Lookup::NoData(DnssecStatus::Insecure)))
    }
    /// [`Dns::tlsa`], past any cache: before a message is given up, which may be because of it. The
    /// answer replaces the cached one.
    fn tlsa_fresh<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Tlsa>> {
        self.tlsa(name)
    }
    /// The CNAME record at a name, not followed: what DNSSEC says of the first alias of a chain that
    /// ends in an unsigned zone (RFC 7672 §2.2.2). Targets that are no host names are left out.
    fn cname<'a>(&'a self, _name: &'a Domain) -> BoxFuture<'a, Lookup<Domain>> {
        Box::pin(std::future::ready(Lookup::NoData(DnssecStatus::Insecure)))
    }
    /// [`Dns::txt`], past any cache: for the check of the policy id before a message is given up
    /// (RFC 8461 §5.1). The answer replaces the cached one.
    fn txt_fresh<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        self.txt(name)
    }
    /// Forgets what was cached about a name.
    fn forget(&self, _name: &Domain) {}
    /// Forgets everything that was cached.
    fn forget_all(&self) {}
    /// How DNSSEC validation does now, past any cache. Doors without DNSSEC have none.
    fn validation(&self) -> BoxFuture<'_, Validation> {
        Box::pin(std::future::ready(Validation::Off("this door has no DNSSEC".to_owned())))
    }
    /// A and AAAA together, IPv6 and IPv4 interleaved in the order to try. Found when either is;
    /// failed only when nothing was found and a lookup failed.
    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Lookup<IpAddr>>;
}
