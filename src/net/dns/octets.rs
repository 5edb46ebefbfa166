//! One DNS reply as octets, read as [`HickoryDns`](super::HickoryDns) reads each reply it gets,
//! without asking anybody: for captured replies and for fuzzing.
//!
//! Pure. A CNAME chain that leads out of the reply is a failure here, since nobody can be asked for
//! its end.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::DnsResponse;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::records::{address, alias_target, both_families, mx_record, tlsa_record, txt_record};
use super::reply::{self, Trust};
use super::resolver::{absolute, conclude};
use super::{Lookup, LookupFailure, LookupFailureKind, MxRecord};
use crate::dane::Tlsa;
use crate::mail::Domain;

/// A reply that can be decoded.
pub struct ReplyOctets {
    response: DnsResponse,
    trust: Trust,
}

impl ReplyOctets {
    /// Decodes a whole reply. With `believe_ad` its AD bit counts, as that of a resolver on this host.
    ///
    /// # Errors
    /// Why it is no DNS message.
    pub fn decode(octets: &[u8], believe_ad: bool) -> Result<Self, String> {
        let trust = if believe_ad { Trust::AdBit } else { Trust::Nothing };
        let response = DnsResponse::from_buffer(octets.to_vec()).map_err(|error| error.to_string())?;
        Ok(Self { response, trust })
    }

    /// As [`Dns::mx`](super::Dns::mx).
    pub fn mx(&self, name: &Domain) -> Lookup<MxRecord> {
        self.read(name, RecordType::MX).keep(mx_record)
    }

    /// As [`Dns::txt`](super::Dns::txt).
    pub fn txt(&self, name: &Domain) -> Lookup<Vec<u8>> {
        self.read(name, RecordType::TXT).keep(txt_record)
    }

    /// As [`Dns::tlsa`](super::Dns::tlsa).
    pub fn tlsa(&self, name: &Domain) -> Lookup<Tlsa> {
        self.read(name, RecordType::TLSA).keep(tlsa_record)
    }

    /// As [`Dns::cname`](super::Dns::cname).
    pub fn cname(&self, name: &Domain) -> Lookup<Domain> {
        self.read(name, RecordType::CNAME).keep(alias_target)
    }

    /// As [`Dns::addresses`](super::Dns::addresses), both families in the one reply.
    pub fn addresses(&self, name: &Domain) -> Lookup<IpAddr> {
        let family = |kind| self.read(name, kind).keep(address);
        both_families(family(RecordType::AAAA), family(RecordType::A))
    }

    fn read(&self, name: &Domain, kind: RecordType) -> Lookup<RData> {
        self.try_read(name, kind).unwrap_or_else(|failure| {
            Lookup::Failed(LookupFailure {
                name: name.to_string(),
                kind: "record",
                bogus: failure.bogus,
                text: failure.text,
            })
        })
    }

    fn try_read(&self, name: &Domain, kind: RecordType) -> Result<Lookup<RData>, LookupFailureKind> {
        let step = reply::read(&self.response, &absolute(name)?, kind, self.trust)?;
        let end = Domain::parse_a_label(&step.end.to_ascii()).unwrap_or_else(|_| name.clone());
        conclude(step.says, step.status, end, step.ttl, Duration::ZERO)
            .map(|(answer, _)| answer)
            .ok_or_else(|| LookupFailureKind::plain("the CNAME chain leads out of the reply"))
    }
}
