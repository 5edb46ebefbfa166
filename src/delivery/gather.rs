//! Gathers what `tlspolicy::decide` and the walk over hosts need: route, addresses, TLSA records,
//! MTA-STS policy.
//!
//! Every answer is kept in memory for its TTL, and equal questions asked at the same time are one
//! question, so a thousand messages to one domain ask DNS and HTTPS a handful of times.
//! Policies live in `store::Policies` and survive restarts; `sts::freshness` decides what applies.
//! Never decides about hosts and never connects to one. Called by `delivery::attempt`, by
//! `submission` (prefetch at RCPT) and by the admin socket (refresh, forget).

mod answers;
mod fetch;
mod kept;
mod policies;
mod radar;
mod refresher;
mod routes;
mod tlsa;
mod validator;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::answers::Answers;
use self::fetch::Fetches;
use self::kept::{PolicyCache, Tallies};
use self::validator::Watch;
use super::static_route::{Hop, StaticRoute};
use crate::dane::{Tlsa, TlsaAnswer};
use crate::mail::{Destination, Domain};
use crate::net::dns::{Dns, MxRecord};
use crate::net::https::Https;
use crate::net::world::{Clock, Randomness, World};
use crate::route::Route;
use crate::store::policies::Policies;
use crate::store::results::Results;
use crate::sts::{CachedPolicy, FetchTrouble, StsPolicy};
use crate::tlspolicy::Override;

pub use self::radar::PolicyCounters;

/// Prefetches under way at once; mail that finds no policy ready asks for it itself.
const PREFETCHES_MAX: usize = 64;

/// What of the configuration gathering needs; replaced as a whole at a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `policy.mta_sts`: off means no lookup and no policy. Default on.
    pub mta_sts: bool,
    /// `[[policy.override]]`; for a domain under `ignore-sts` nothing is asked.
    pub overrides: Vec<Override>,
    /// Names we are an MX host by: `server.hostname` and further names of this host. An MX host with
    /// such a name, and all hosts of its preference and worse, are left out (RFC 5321 §5.1).
    pub own_names: Vec<Domain>,
    /// Look for TLSA records: `policy.dane`, unless `dns.dnssec` is off.
    pub dane: bool,
    /// `delivery.smtp_port`: where mail goes that no route gives another port.
    pub smtp_port: u16,
    /// `[[route]]`
    pub routes: Vec<Arc<StaticRoute>>,
    /// Where we take mail, for the same rule. Not other ports: another MTA may live on port 25 of this host.
    pub own_sockets: Vec<SocketAddr>,
}

/// What a hop comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// MX hosts in the order to try, equals shuffled anew for each call.
    Route(Route),
    /// An address: direct, without MTA-STS and DANE (RFC 8461 §3.4).
    Literal(IpAddr),
}

/// What is known of one MX host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAnswers {
    /// In the order to try, never empty.
    pub addresses: Vec<IpAddr>,
    /// What its TLSA records say; absent where none were asked for.
    pub tlsa: TlsaAnswer,
    /// The base domain of those records: the host, or what it is an alias of.
    pub tlsa_base: Domain,
}

/// Whether an attempt heeds DANE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// As configured.
    Dane,
    /// The same, and TLSA records are asked for past every cache: before a message is given up, which
    /// may be because of them.
    DaneAfresh,
    /// Not at all: report mail (RFC 8460 §3).
    Nothing,
}

/// What MTA-STS says for a domain now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StsState {
    /// The policy that applies, of any mode; `None` without one.
    pub policy: Option<Arc<StsPolicy>>,
    /// The TXT id it was fetched under.
    pub id: Option<String>,
    /// When it was fetched; for evidence.
    pub fetched_at: Option<Timestamp>,
    /// The last fetch went wrong: for logs and `explain`. It is counted for TLS-RPT already, once
    /// per failing fetch.
    pub trouble: Option<FetchTrouble>,
}

/// What an operator's `policy refresh` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refreshed {
    /// The TXT id published now, or why there is none.
    pub record: Result<String, String>,
    /// How the fetch went; `None` when no fetch was called for (no record and nothing cached).
    pub fetch: Option<Result<Arc<StsPolicy>, FetchTrouble>>,
    /// What is known afterwards.
    pub entry: Option<Arc<CachedPolicy>>,
}

/// The gatherer. Cheap to clone.
#[derive(Clone)]
pub struct Gather {
    inner: Arc<Inner>,
}

/// Shared by all clones and by the tasks of fetches.
struct Inner {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    dns: Arc<dyn Dns>,
    https: Arc<dyn Https>,
    policies: Arc<dyn PolicyCache>,
    tallies: Arc<dyn Tallies>,
    options: watch::Receiver<Arc<Options>>,
    mx: Answers<MxRecord>,
    hosts: Answers<IpAddr>,
    /// By owner name, `_25._tcp.mx.example`.
    tlsas: Answers<Tlsa>,
    /// The same, asked past every cache before messages were given up.
    tlsas_afresh: Answers<Tlsa>,
    /// Of MX hosts that are secure aliases into unsigned zones, to be told from unsigned hosts.
    aliases: Answers<Domain>,
    /// By policy domain, not by `_mta-sts` name.
    txts: Answers<Vec<u8>>,
    fetches: Fetches,
    prefetches: Arc<Semaphore>,
    counters: PolicyCounters,
    served: radar::Served,
    validator: Watch,
}

impl Gather {
    /// Over the doors of `world`; keeps policies in `policies`, counts failing fetches in `results`.
    pub fn new(
        world: World,
        policies: Policies,
        results: Results,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        let World { clock, random, dns, https, .. } = world;
        Self::with_doors((clock, random), dns, https, Arc::new(policies), Arc::new(results), options)
    }

    fn with_doors(
        (clock, random): (Arc<dyn Clock>, Arc<dyn Randomness>),
        dns: Arc<dyn Dns>,
        https: Arc<dyn Https>,
        policies: Arc<dyn PolicyCache>,
        tallies: Arc<dyn Tallies>,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        let inner = Inner {
            clock,
            random,
            dns,
            https,
            policies,
            tallies,
            options,
            mx: Answers::new("MX"),
            hosts: Answers::new("A and AAAA"),
            tlsas: Answers::new("TLSA"),
            tlsas_afresh: Answers::new("TLSA"),
            aliases: Answers::new("CNAME"),
            txts: Answers::new("TXT"),
            fetches: Fetches::new(),
            prefetches: Arc::new(Semaphore::new(PREFETCHES_MAX)),
            counters: PolicyCounters::default(),
            served: radar::Served::default(),
            validator: Watch::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where mail for a destination is handed over, by the routes as they are now.
    pub fn hop(&self, destination: &Destination) -> Hop {
        let options = self.inner.options();
        Hop::of(destination, &options.routes, options.smtp_port)
    }

    /// Refetches every held policy about once a day, before it expires, whether or not mail goes to
    /// its domain (RFC 8461 §3.3, §10.2); returns when `shutdown` is cancelled.
    pub async fn run_refresher(&self, shutdown: CancellationToken) {
        self.inner.refresh_until(&shutdown).await;
    }
}

impl Options {
    /// Whether a connection to this place would come back to us.
    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        self.own_sockets.iter().any(|own| {
            let everywhere = own.ip().is_unspecified() && ip.is_loopback();
            own.port() == port && (own.ip() == ip || everywhere)
        })
    }

    /// Whether a host that is named so would be us.
    fn is_own_name(&self, host: &Domain, port: u16) -> bool {
        self.own_names.contains(host) && self.own_sockets.iter().any(|own| own.port() == port)
    }
}

impl Inner {
    fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.borrow())
    }
}

#[cfg(test)]
mod tests;
