//! The real DNS door: a stub towards recursive resolvers, with a cache, and DNSSEC by their AD bit
//! or by validation of our own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Edns, Message, Query};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::cache::Cache;
use super::reply::{self, Says, Step, Trust};
use super::upstream::Upstream;
use super::{Answer, Dns, Lookup, LookupFailure, LookupFailureKind, MxRecord};
use crate::dane::Tlsa;
use crate::mail::Domain;
use crate::route::DnssecStatus;

/// The EDNS0 payload size that is not fragmented anywhere (DNS flag day 2020).
const UDP_PAYLOAD_BYTES: u16 = 1232;
/// One lookup takes this long at most, whatever the number of servers and links of a chain.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest life of an answer in memory (RFC 8767 §4 advises a cap; a day is what resolvers use).
const TTL_MAX: Duration = Duration::from_secs(86_400);
/// Longest life of a denial (RFC 2308 §5: one to three hours work well).
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3 * 3600);

/// How to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `dns.nameservers`, asked in this order; empty: those of `/etc/resolv.conf`.
    pub nameservers: Vec<SocketAddr>,
    /// `dns.dnssec`
    pub dnssec: Dnssec,
    /// `dns.trust_anchor_file`: DNSKEY records in zone-file form, for [`Dnssec::Validate`]; `None`:
    /// the root keys compiled in.
    pub trust_anchor_file: Option<PathBuf>,
    /// `dns.cache_min_ttl`: shorter lives are raised to this.
    pub cache_min_ttl: Duration,
    /// How long one server has for its reply, retransmissions included.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            dnssec: Dnssec::TrustAd,
            trust_anchor_file: None,
            cache_min_ttl: Duration::ZERO,
            timeout: Duration::from_secs(5),
        }
    }
}

/// Where [`DnssecStatus::Secure`] comes from (`dns.dnssec`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dnssec {
    /// Nowhere: every answer is insecure.
    Off,
    /// The AD bit, believed only when every name server is on this host (RFC 7672 §2.1.1).
    #[default]
    TrustAd,
    /// Validation from the trust anchors, here.
    Validate,
}

/// The real door. Cheap to share behind an `Arc`.
pub struct HickoryDns {
    asking: Asking,
    trust: Trust,
    cache_min_ttl: Duration,
    cache: Cache,
}

enum Asking {
    Plain(Upstream),
    Validating(DnssecDnsHandle<Upstream>),
}

impl HickoryDns {
    /// Prepares to ask; sends nothing yet. Blocking (reads files).
    ///
    /// # Errors
    /// One sentence: no name server known, or the trust anchor file cannot be used.
    pub fn new(options: Options) -> Result<Self, String> {
        let servers = if options.nameservers.is_empty() { system_servers()? } else { options.nameservers };
        let trust = trust(options.dnssec, &servers);
        let upstream = Upstream::new(servers, options.timeout);
        let asking = if trust == Trust::Proofs {
            let anchors = trust_anchors(options.trust_anchor_file.as_deref())?;
            Asking::Validating(DnssecDnsHandle::with_trust_anchor(upstream, Arc::new(anchors)))
        } else {
            Asking::Plain(upstream)
        };
        Ok(Self { asking, trust, cache_min_ttl: options.cache_min_ttl, cache: Cache::default() })
    }

    /// Forgets every cached answer.
    pub fn clear(&self) {
        self.cache.clear();
    }

    async fn cached(&self, name: &Domain, kind: RecordType) -> Lookup<RData> {
        match self.cache.get(name, kind) {
            Some(answer) => answer,
            None => self.fresh(name, kind).await,
        }
    }

    async fn fresh(&self, name: &Domain, kind: RecordType) -> Lookup<RData> {
        let asked = tokio::time::timeout(LOOKUP_TIME_MAX, self.resolve(name, kind)).await;
        let failed = |kind_of: LookupFailureKind| {
            Lookup::Failed(LookupFailure {
                name: name.to_string(),
                kind: kind_text(kind),
                bogus: kind_of.bogus,
                text: kind_of.text,
            })
        };
        match asked {
            Ok(Ok((answer, ttl))) => {
                self.cache.put(name, kind, &answer, ttl);
                answer
            }
            Ok(Err(failure)) => failed(failure),
            Err(_) => failed(LookupFailureKind::plain("no answer in time")),
        }
    }

    /// Asks until the CNAME chain ends; gives the answer and how long it may be kept.
    async fn resolve(
        &self,
        name: &Domain,
        kind: RecordType,
    ) -> Result<(Lookup<RData>, Duration), LookupFailureKind> {
        let mut at = absolute(name)?;
        let mut end = name.clone();
        let mut cnames = 0;
        let mut status = DnssecStatus::Secure;
        let mut ttl = TTL_MAX;
        loop {
            let step = self.step(&at, kind).await?;
            cnames += step.cnames;
            if cnames > reply::CNAMES_MAX {
                return Err(LookupFailureKind::plain("CNAME chain too long or in a circle"));
            }
            status = reply::weaker(status, step.status);
            ttl = ttl.min(step.ttl);
            // An alias may point at what is no host name. The answer still stands; the last name of
            // the chain that is one is told.
            if let Ok(name) = Domain::parse_a_label(&step.end.to_ascii()) {
                end = name;
            }
            at = step.end;
            if let Some(concluded) = conclude(step.says, status, end.clone(), ttl, self.cache_min_ttl) {
                return Ok(concluded);
            }
        }
    }

    async fn step(&self, name: &Name, kind: RecordType) -> Result<Step, LookupFailureKind> {
        let request = request(name, kind, self.trust);
        let sent = match &self.asking {
            Asking::Plain(upstream) => upstream.send(request).first_answer().await,
            Asking::Validating(handle) => handle.send(request).first_answer().await,
        };
        let response = match sent {
            Ok(response) => response,
            Err(NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. })) => *response,
            Err(NetError::Dns(DnsError::Nsec { proof: Proof::Bogus, .. } | DnsError::DnssecBogus)) => {
                return Err(LookupFailureKind::bogus("DNSSEC validation failed"));
            }
            Err(error) => return Err(LookupFailureKind::plain(&error.to_string())),
        };
        reply::read(&response, name, kind, self.trust)
    }
}

impl Dns for HickoryDns {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>> {
        Box::pin(async move { self.cached(domain, RecordType::MX).await.keep(mx_record) })
    }

    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        Box::pin(async move { self.cached(name, RecordType::TXT).await.keep(txt_record) })
    }

    fn txt_fresh<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        Box::pin(async move { self.fresh(name, RecordType::TXT).await.keep(txt_record) })
    }

    fn tlsa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Tlsa>> {
        Box::pin(async move { self.cached(name, RecordType::TLSA).await.keep(tlsa_record) })
    }

    fn tlsa_fresh<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Tlsa>> {
        Box::pin(async move { self.fresh(name, RecordType::TLSA).await.keep(tlsa_record) })
    }

    fn cname<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Domain>> {
        Box::pin(async move { self.cached(name, RecordType::CNAME).await.keep(alias_target) })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Lookup<IpAddr>> {
        Box::pin(async move {
            let (v6, v4) =
                tokio::join!(self.cached(host, RecordType::AAAA), self.cached(host, RecordType::A));
            both_families(v6.keep(address), v4.keep(address))
        })
    }
}

/// The answer where a chain ends, and how long it may be kept; `None` when the chain goes on.
pub(super) fn conclude(
    says: Says,
    status: DnssecStatus,
    name: Domain,
    ttl: Duration,
    min: Duration,
) -> Option<(Lookup<RData>, Duration)> {
    let answer = match says {
        Says::GoOn => return None,
        Says::NoData => Lookup::NoData(status),
        Says::NxDomain => Lookup::NxDomain(status),
        Says::Records(records) => {
            let ttl = ttl.min(TTL_MAX).max(min);
            return Some((Lookup::Found(Answer { records, status, name, ttl }), ttl));
        }
    };
    Some((answer, ttl.min(NEGATIVE_TTL_MAX).max(min)))
}

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

/// RFC 5321 §2.3.5: names are absolute.
pub(super) fn absolute(name: &Domain) -> Result<Name, LookupFailureKind> {
    let mut absolute =
        Name::from_ascii(name.as_str()).map_err(|error| LookupFailureKind::plain(&error.to_string()))?;
    absolute.set_fqdn(true);
    Ok(absolute)
}

fn request(name: &Name, kind: RecordType, trust: Trust) -> DnsRequest {
    let mut message = Message::query();
    message.add_query(Query::query(name.clone(), kind));
    message.metadata.recursion_desired = true;
    // RFC 6840 §5.7: AD asks for the AD bit; DO as well, for resolvers that know only that.
    message.metadata.authentic_data = trust != Trust::Nothing;
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES).set_dnssec_ok(trust != Trust::Nothing);
    message.set_edns(edns);
    let mut options = DnsRequestOptions::default();
    options.edns_payload_len = UDP_PAYLOAD_BYTES;
    options.edns_set_dnssec_ok = trust != Trust::Nothing;
    DnsRequest::new(message, options)
}

fn trust(dnssec: Dnssec, servers: &[SocketAddr]) -> Trust {
    match dnssec {
        Dnssec::Off => Trust::Nothing,
        Dnssec::Validate => Trust::Proofs,
        Dnssec::TrustAd => match servers.iter().find(|server| !server.ip().to_canonical().is_loopback()) {
            None => Trust::AdBit,
            Some(server) => {
                // RFC 7672 §2.1.1: the AD bit counts only over a path nobody can write on.
                tracing::warn!(
                    %server,
                    "dns.dnssec = \"trust-ad\" needs a resolver on this host; every answer counts as \
                     insecure and DANE is not used"
                );
                Trust::Nothing
            }
        },
    }
}

fn trust_anchors(file: Option<&Path>) -> Result<TrustAnchors, String> {
    let Some(file) = file else { return Ok(TrustAnchors::default()) };
    let what = |text: String| format!("dns.trust_anchor_file {}: {text}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| what(format!("cannot be read: {error}")))?;
    let anchors: TrustAnchors =
        text.parse().map_err(|error| what(format!("not DNSKEY records in zone-file form: {error}")))?;
    // Counts the root's keys; the others show only by not being absent from the text.
    if anchors.is_empty() && !text.contains("DNSKEY") {
        return Err(what("holds no DNSKEY record".into()));
    }
    Ok(anchors)
}

fn system_servers() -> Result<Vec<SocketAddr>, String> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf()
        .map_err(|error| format!("dns.nameservers is empty and /etc/resolv.conf cannot be used: {error}"))?;
    let mut servers: Vec<SocketAddr> = Vec::new();
    for server in config.name_servers() {
        let port = server.connections.first().map_or(53, |connection| connection.port);
        let address = SocketAddr::new(server.ip, port);
        if !servers.contains(&address) {
            servers.push(address);
        }
    }
    if servers.is_empty() {
        return Err("dns.nameservers is empty and /etc/resolv.conf names no server".into());
    }
    Ok(servers)
}

fn kind_text(kind: RecordType) -> &'static str {
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
