//! The real DNS door: a stub towards recursive resolvers, with a cache, and DNSSEC by their AD bit
//! or by validation of our own.

mod look;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use self::look::probe_name;
use super::anchors;
use super::cache::Cache;
use super::recent::Recent;
use super::records::{address, alias_target, both_families, kind_text, mx_record, tlsa_record, txt_record};
use super::reply::{self, Says, Step, Trust};
use super::upstream::{TROUBLE, Upstream};
use super::validating::Validating;
use super::validation::Validation;
use super::{Answer, Dns, Lookup, LookupFailure, LookupFailureKind, MxRecord};
use crate::dane::Tlsa;
use crate::mail::Domain;
use crate::route::DnssecStatus;

/// The EDNS0 payload size that is not fragmented anywhere (DNS flag day 2020).
const UDP_PAYLOAD_BYTES: u16 = 1232;
/// One lookup takes this long at most, whatever the number of servers and links of a chain.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);
/// A refused question is asked once more unchecked, to learn why, for so long at most.
const UNCHECKED_TIME_MAX: Duration = Duration::from_secs(3);
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
    /// `dns.trust_anchor_file`: DS or DNSKEY records in zone-file form, for [`Dnssec::Validate`]; `None`:
    /// the root keys compiled in.
    pub trust_anchor_file: Option<PathBuf>,
    /// `dns.dnssec_probe`: a name known to be signed, asked about to see whether validation works; empty:
    /// nothing is asked.
    pub dnssec_probe: String,
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
            dnssec_probe: ".".to_owned(),
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
    upstream: Upstream,
    /// Where we validate.
    validating: Option<Validating>,
    trust: Trust,
    /// Why nothing is secure, if so.
    distrust: Option<String>,
    probe: Option<Name>,
    recent: Recent,
    cache_min_ttl: Duration,
    cache: Cache,
}

/// RFC 4035 §3.2.2: whether the resolver may keep from us what fails its validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checking {
    Enabled,
    Disabled,
}

impl HickoryDns {
    /// Prepares to ask; sends nothing yet. Blocking (reads files).
    ///
    /// # Errors
    /// One sentence: no name server known, or the trust anchor file cannot be used.
    pub fn new(options: Options) -> Result<Self, String> {
        let servers = if options.nameservers.is_empty() { system_servers()? } else { options.nameservers };
        let probe = probe_name(&options.dnssec_probe)?;
        let distrust = distrust(options.dnssec, &servers);
        if let (Dnssec::TrustAd, Some(why)) = (options.dnssec, &distrust) {
            tracing::warn!("{why}");
        }
        let trust = match options.dnssec {
            _ if distrust.is_some() => Trust::Nothing,
            Dnssec::Validate => Trust::Proofs,
            Dnssec::Off | Dnssec::TrustAd => Trust::AdBit,
        };
        let upstream = Upstream::new(servers, options.timeout);
        let validating = match trust {
            Trust::Proofs => {
                let anchors = anchors::load(options.trust_anchor_file.as_deref())?;
                Some(Validating::new(upstream.clone(), anchors))
            }
            Trust::Nothing | Trust::AdBit => None,
        };
        Ok(Self {
            upstream,
            validating,
            trust,
            distrust,
            probe,
            recent: Recent::default(),
            cache_min_ttl: options.cache_min_ttl,
            cache: Cache::default(),
        })
    }

    /// Why no answer counts as secure, and DANE is off; `None` when some may.
    pub fn distrust(&self) -> Option<&str> {
        self.distrust.as_deref()
    }

    async fn cached(&self, name: &Domain, kind: RecordType) -> Lookup<RData> {
        match self.cache.get(name, kind) {
            Some(answer) => answer,
            None => self.fresh(name, kind).await,
        }
    }

    async fn fresh(&self, name: &Domain, kind: RecordType) -> Lookup<RData> {
        // What goes wrong with the questions that validation asks on its own is noted by the upstream.
        let noted = TROUBLE.scope(RefCell::default(), async {
            let asked = tokio::time::timeout(LOOKUP_TIME_MAX, self.resolve(name, kind)).await;
            (asked, TROUBLE.with(RefCell::take))
        });
        let (asked, trouble) = noted.await;
        let failed = |failure: LookupFailureKind| {
            Lookup::Failed(LookupFailure {
                name: name.to_string(),
                kind: kind_text(kind),
                bogus: failure.bogus,
                text: failure.text,
            })
        };
        match (asked, trouble) {
            (Ok(Ok((answer, ttl))), _) => {
                if status_of(&answer) == Some(DnssecStatus::Secure) {
                    self.recent.secure();
                }
                self.cache.put(name, kind, &answer, ttl);
                answer
            }
            // RFC 4033 §5: without the keys nothing is proven wrong.
            (Ok(Err(failure)), Some(trouble)) if failure.bogus && self.trust == Trust::Proofs => failed(
                LookupFailureKind::plain(&format!("DNSSEC validation could not be completed: {trouble}")),
            ),
            (Ok(Err(failure)), _) => {
                if failure.bogus {
                    self.recent.bogus(name);
                }
                failed(failure)
            }
            (Err(_), Some(trouble)) if self.trust == Trust::Proofs => {
                failed(LookupFailureKind::plain(&format!("no answer in time: {trouble}")))
            }
            (Err(_), _) => failed(LookupFailureKind::plain("no answer in time")),
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
        let request = request(name, kind, self.trust, Checking::Enabled);
        let sent = match &self.validating {
            None => self.upstream.send(request).first_answer().await,
            Some(validating) => validating.handle(name).await?.send(request).first_answer().await,
        };
        let response = match sent {
            Ok(response) => response,
            Err(NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. })) => *response,
            Err(NetError::Dns(DnsError::Nsec { proof: Proof::Bogus, .. } | DnsError::DnssecBogus)) => {
                return Err(LookupFailureKind::bogus("DNSSEC validation failed"));
            }
            Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)))
                if self.trust == Trust::AdBit && self.is_there_unchecked(name, kind).await =>
            {
                return Err(LookupFailureKind::bogus(
                    "DNSSEC validation failed: the resolver answers only with checking disabled",
                ));
            }
            Err(error) => return Err(LookupFailureKind::plain(&error.to_string())),
        };
        reply::read(&response, name, kind, self.trust)
    }

    /// RFC 4035 §5.5: whether a resolver that refused to answer did so because validation failed. The
    /// answer itself is not used.
    async fn is_there_unchecked(&self, name: &Name, kind: RecordType) -> bool {
        let request = request(name, kind, self.trust, Checking::Disabled);
        let asked = self.upstream.send(request).first_answer();
        tokio::time::timeout(UNCHECKED_TIME_MAX, asked).await.is_ok_and(|answer| answer.is_ok())
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

    fn forget(&self, name: &Domain) {
        self.cache.forget(name);
    }

    fn forget_all(&self) {
        self.cache.clear();
    }

    fn validation(&self) -> BoxFuture<'_, Validation> {
        Box::pin(self.look())
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

/// RFC 5321 §2.3.5: names are absolute.
pub(super) fn absolute(name: &Domain) -> Result<Name, LookupFailureKind> {
    let mut absolute =
        Name::from_ascii(name.as_str()).map_err(|error| LookupFailureKind::plain(&error.to_string()))?;
    absolute.set_fqdn(true);
    Ok(absolute)
}

pub(super) fn request(name: &Name, kind: RecordType, trust: Trust, checking: Checking) -> DnsRequest {
    let mut message = Message::query();
    message.add_query(Query::query(name.clone(), kind));
    message.metadata.recursion_desired = true;
    // RFC 6840 §5.7: AD asks for the AD bit; DO as well, for resolvers that know only that.
    message.metadata.authentic_data = trust != Trust::Nothing;
    message.metadata.checking_disabled = checking == Checking::Disabled;
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES).set_dnssec_ok(trust != Trust::Nothing);
    message.set_edns(edns);
    let mut options = DnsRequestOptions::default();
    options.edns_payload_len = UDP_PAYLOAD_BYTES;
    options.edns_set_dnssec_ok = trust != Trust::Nothing;
    DnsRequest::new(message, options)
}

/// Why no answer of these servers counts as secure.
fn distrust(dnssec: Dnssec, servers: &[SocketAddr]) -> Option<String> {
    match dnssec {
        Dnssec::Off => Some("dns.dnssec = \"off\"".to_owned()),
        Dnssec::Validate => None,
        // RFC 7672 §2.1.1: the AD bit counts only over a path nobody can write on.
        Dnssec::TrustAd => servers.iter().find(|server| !server.ip().to_canonical().is_loopback()).map(|server| {
            format!(
                "dns.dnssec = \"trust-ad\" needs a resolver on this machine, and {server} is not: every answer \
                 counts as insecure, and DANE is off"
            )
        }),
    }
}

fn status_of<T>(lookup: &Lookup<T>) -> Option<DnssecStatus> {
    match lookup {
        Lookup::Found(answer) => Some(answer.status),
        Lookup::NoData(status) | Lookup::NxDomain(status) => Some(*status),
        Lookup::Failed(_) => None,
    }
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
