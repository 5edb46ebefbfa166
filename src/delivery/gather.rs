//! Gathers what `tlspolicy::decide` and the walk over hosts need: route, addresses, MTA-STS policy.
//!
//! Every answer is kept in memory for its TTL, and equal questions asked at the same time are one
//! question, so a thousand messages to one domain ask DNS and HTTPS a handful of times.
//! Policies live in `store::Policies` and survive restarts; `sts::freshness` decides what applies.
//! Never decides about hosts and never connects to one. Called by `delivery::attempt`, by
//! `submission` (prefetch at RCPT) and by the admin socket (refresh, forget).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::mail::{Destination, Domain, Failure};
use crate::net::world::World;
use crate::route::{MxHost, Route};
use crate::store::policies::Policies;
use crate::store::queue::QueueError;
use crate::store::results::Results;
use crate::sts::{CachedPolicy, FetchTrouble, StsPolicy};
use crate::tlspolicy::Override;

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
    /// Addresses we take mail at on `delivery.smtp_port`, for the same rule. Not those of listeners
    /// on other ports: another MTA may live on port 25 of this host.
    pub own_addresses: Vec<IpAddr>,
}

/// Where mail for a destination goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// MX hosts in the order to try, equals shuffled anew for each call.
    Route(Route),
    /// An address literal: direct, without MTA-STS and DANE (RFC 8461 §3.4).
    Literal(IpAddr),
}

/// What MTA-STS says for a domain now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StsState {
    /// The policy that applies, of any mode; `None` without one.
    pub policy: Option<Arc<StsPolicy>>,
    /// The TXT id it was fetched under.
    pub id: Option<String>,
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
    _inner: Arc<()>,
}

impl Gather {
    /// Over the doors of `world`; keeps policies in `policies`, counts failing fetches in `results`.
    pub fn new(
        world: World,
        policies: Policies,
        results: Results,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        let _ = (world, policies, results, options);
        todo!()
    }

    /// Where mail for `destination` goes (RFC 5321 §5.1).
    ///
    /// # Errors
    /// A failure of scope `Domain`: transient 4.4.3 when DNS does not answer; permanent 5.1.2 when
    /// the domain does not exist, 5.1.10 for a null MX, 5.4.4 when no MX names a host, 5.4.6 when
    /// all that is left is ourselves.
    pub async fn route(&self, destination: &Destination) -> Result<NextHop, Failure> {
        let _ = destination;
        todo!()
    }

    /// The addresses of a host in the order to try, never empty. Not yet held against the address
    /// guard: the dialling door does that.
    ///
    /// # Errors
    /// A failure of scope `Host`: transient 4.4.3 when DNS does not answer, permanent 5.4.4 when the
    /// host has no address (whether that is final depends on the other hosts: the caller decides).
    /// Of scope `Domain`, permanent 5.4.6, when the host is ourselves: hosts of the same or a worse
    /// preference must not be tried either.
    pub async fn addresses(&self, host: &MxHost) -> Result<Vec<IpAddr>, Failure> {
        let _ = host;
        todo!()
    }

    /// The MTA-STS policy that applies to `domain` now; fetched first where one is published and not
    /// held. One fetch per domain is in flight; waiting for it is bounded.
    ///
    /// `waiting_since` is how long the message has been in the queue.
    ///
    /// # Errors
    /// A transient failure of scope `Domain` when nothing is known: the TXT lookup failed without an
    /// unexpired policy in the cache and the message has waited for less than an hour; or the fetch
    /// could not be started in time because too many others are in flight.
    pub async fn sts(&self, domain: &Domain, waiting_since: Duration) -> Result<StsState, Failure> {
        let _ = (domain, waiting_since);
        todo!()
    }

    /// Starts resolving the policy of `domain` in the background, so that the first attempt finds
    /// it. Returns at once; does nothing when the answer is known, under way, or too many are.
    pub fn prefetch(&self, domain: &Domain) {
        let _ = domain;
        todo!()
    }

    /// Asks TXT and HTTPS anew, whatever is cached and however the last fetch went, before a message
    /// is bounced because of a policy (RFC 8461 §5.1). Calls within a minute share one round.
    pub async fn recheck(&self, domain: &Domain) -> StsState {
        let _ = domain;
        todo!()
    }

    /// The operator's `policy refresh`: asks TXT and HTTPS anew.
    pub async fn refresh(&self, domain: &Domain) -> Refreshed {
        let _ = domain;
        todo!()
    }

    /// The operator's `policy forget`: drops the cached policy and all answers kept for the domain;
    /// whether a policy was known.
    ///
    /// # Errors
    /// [`QueueError`] when the store fails.
    pub async fn forget(&self, domain: &Domain) -> Result<bool, QueueError> {
        let _ = domain;
        todo!()
    }

    /// Refetches every held policy about once a day, before it expires, whether or not mail goes to
    /// its domain (RFC 8461 §3.3, §10.2); returns when `shutdown` is cancelled.
    pub async fn run_refresher(&self, shutdown: CancellationToken) {
        let _ = shutdown;
        todo!()
    }
}
