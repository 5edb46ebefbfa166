//! Gathers what `tlspolicy::decide` and the walk over hosts need: route, addresses, MTA-STS policy.
//!
//! Every answer is kept in memory for its TTL, and equal questions asked at the same time are one
//! question, so a thousand messages to one domain ask DNS and HTTPS a handful of times.
//! Policies live in `store::Policies` and survive restarts; `sts::freshness` decides what applies.
//! Never decides about hosts and never connects to one. Called by `delivery::attempt`, by
//! `submission` (prefetch at RCPT) and by the admin socket (refresh, forget).

mod answers;
mod fetch;
mod kept;
mod refresher;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::answers::Answers;
use self::fetch::{Fetched, Fetches};
use self::kept::{PolicyCache, Tallies};
use crate::mail::{Destination, Domain, EnhancedStatus, Failure, Permanence, Scope};
use crate::net::dns::{Dns, Lookup, LookupFailure, MxRecord};
use crate::net::https::Https;
use crate::net::world::{Clock, World};
use crate::route::{DnssecStatus, MxFacts, MxHost, Route};
use crate::store::policies::Policies;
use crate::store::queue::QueueError;
use crate::store::results::Results;
use crate::sts::freshness::{
    self, FETCH_RETRY_WAIT, Fetch, Standing, TroubleKind, TxtFact, UNKNOWN_WAIT_MAX,
};
use crate::sts::{CachedPolicy, FetchTrouble, StsPolicy, record};
use crate::tlspolicy::{LocalRule, Override, override_for};

pub use self::fetch::trouble_result;

/// Prefetches under way at once; mail that finds no policy ready asks for it itself.
const PREFETCHES_MAX: usize = 64;
/// Addresses of one host tried at most; more would only lengthen an attempt.
const ADDRESSES_MAX: usize = 16;
/// Forced rounds for one domain are at least this far apart, however many messages expire together.
const RECHECK_WAIT: Duration = Duration::from_secs(60);

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
    inner: Arc<Inner>,
}

/// Shared by all clones and by the tasks of fetches.
struct Inner {
    clock: Arc<dyn Clock>,
    dns: Arc<dyn Dns>,
    https: Arc<dyn Https>,
    policies: Arc<dyn PolicyCache>,
    tallies: Arc<dyn Tallies>,
    options: watch::Receiver<Arc<Options>>,
    mx: Answers<MxRecord>,
    hosts: Answers<IpAddr>,
    /// By policy domain, not by `_mta-sts` name.
    txts: Answers<Vec<u8>>,
    fetches: Fetches,
    prefetches: Arc<Semaphore>,
}

impl Gather {
    /// Over the doors of `world`; keeps policies in `policies`, counts failing fetches in `results`.
    pub fn new(
        world: World,
        policies: Policies,
        results: Results,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        let World { clock, dns, https, .. } = world;
        Self::with_doors(clock, dns, https, Arc::new(policies), Arc::new(results), options)
    }

    fn with_doors(
        clock: Arc<dyn Clock>,
        dns: Arc<dyn Dns>,
        https: Arc<dyn Https>,
        policies: Arc<dyn PolicyCache>,
        tallies: Arc<dyn Tallies>,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        let inner = Inner {
            clock,
            dns,
            https,
            policies,
            tallies,
            options,
            mx: Answers::new("MX"),
            hosts: Answers::new("A and AAAA"),
            txts: Answers::new("TXT"),
            fetches: Fetches::new(),
            prefetches: Arc::new(Semaphore::new(PREFETCHES_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where mail for `destination` goes (RFC 5321 §5.1).
    ///
    /// # Errors
    /// A failure of scope `Domain`: transient 4.4.3 when DNS does not answer; permanent 5.1.2 when
    /// the domain does not exist, 5.1.10 for a null MX, 5.4.4 when no MX names a host, 5.4.6 when
    /// all that is left is ourselves.
    pub async fn route(&self, destination: &Destination) -> Result<NextHop, Failure> {
        let domain = match destination {
            Destination::Domain(domain) => domain,
            Destination::Literal(ip) if self.inner.options().own_addresses.contains(ip) => {
                return Err(loops_back(format!("{destination} is an address of this relay")));
            }
            Destination::Literal(ip) => return Ok(NextHop::Literal(*ip)),
        };
        let inner = &self.inner;
        let known = inner.mx.ask(domain, || inner.dns.mx(domain)).await;
        let records: Vec<(u16, &str)>;
        let (facts, status) = match &known.lookup {
            Lookup::Found(answer) => {
                records = answer.records.iter().map(|mx| (mx.preference, mx.exchange.as_str())).collect();
                (MxFacts::Records(&records), answer.status)
            }
            Lookup::NoData(status) => (MxFacts::NoRecords, *status),
            Lookup::NxDomain(status) => (MxFacts::NoDomain, *status),
            // RFC 5321 §5.1, RFC 7672 §2.1.2: a failed MX lookup delays the mail.
            Lookup::Failed(failure) => return Err(dns_failure(Scope::Domain, failure)),
        };
        check_status(|| domain.to_string(), "MX", status)
            .map_err(|failure| dns_failure(Scope::Domain, &failure))?;
        Route::build(domain, facts, status, &inner.options().own_names, &mut rand::rng())
            .map(NextHop::Route)
            .map_err(|error| error.failure(domain))
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
        let (inner, name) = (&self.inner, &host.name);
        let known = inner.hosts.ask(name, || inner.dns.addresses(name)).await;
        let answer = match &known.lookup {
            Lookup::Found(answer) => answer,
            Lookup::NoData(_) => return Err(no_address(name, "it has no A or AAAA record")),
            Lookup::NxDomain(_) => return Err(no_address(name, "it does not exist (NXDOMAIN)")),
            Lookup::Failed(failure) => return Err(at_host(name, dns_failure(Scope::Host, failure))),
        };
        check_status(|| name.to_string(), "A and AAAA", answer.status)
            .map_err(|failure| at_host(name, dns_failure(Scope::Host, &failure)))?;
        let own = &inner.options().own_addresses;
        // RFC 5321 §5.1: the relay finds itself in the list by address.
        if let Some(ip) = answer.records.iter().find(|ip| own.contains(ip)) {
            let what = format!("mx host {name} has the address {ip} of this relay");
            return Err(at_host(name, loops_back(what)));
        }
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(answer.records.len().min(ADDRESSES_MAX));
        for ip in &answer.records {
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(ip) {
                addresses.push(*ip);
            }
        }
        Ok(addresses)
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
        let inner = &self.inner;
        if !inner.applies_sts(domain) {
            return Ok(StsState::default());
        }
        let txt = inner.txt_fact(domain).await;
        let now = inner.clock.now();
        let entry = inner.entry(domain, now).await;
        let assessment = freshness::assess(entry.as_deref(), &txt, now);
        let fetched = match assessment.fetch {
            Fetch::No => None,
            Fetch::Background => {
                inner.start_fetch(domain, txt.id());
                None
            }
            // RFC 8461 §5.1 allows to fetch behind the first message's back; waiting closes the window.
            Fetch::Now => match (inner.fetch_and_wait(domain, txt.id()).await, assessment.standing) {
                (None, Standing::NoPolicy | Standing::Unknown) => return Err(too_many_fetches(domain)),
                (fetched, _) => fetched,
            },
        };
        let trouble = entry.as_ref().and_then(|entry| entry.trouble.clone());
        Ok(match (fetched, assessment.standing) {
            (Some(Fetched::Policy(policy, id)), _) => {
                StsState { policy: Some(policy), id: Some(id), trouble: None }
            }
            // RFC 8461 §5.1: the fetch failed; what is held applies, or else there is no policy.
            (Some(Fetched::Trouble(trouble)), Standing::Policy(held))
                if !held.is_expired(inner.clock.now()) =>
            {
                StsState { trouble: Some(trouble), ..StsState::holding(held) }
            }
            (Some(Fetched::Trouble(trouble)), _) => {
                StsState { trouble: Some(trouble), ..StsState::default() }
            }
            (None, Standing::Policy(held)) => StsState { trouble, ..StsState::holding(held) },
            (None, Standing::NoPolicy) => StsState { trouble, ..StsState::default() },
            (None, Standing::Unknown) if waiting_since < UNKNOWN_WAIT_MAX => {
                return Err(policy_unknown(domain, &txt));
            }
            (None, Standing::Unknown) => inner.without_knowing(domain, &txt, trouble, now).await,
        })
    }

    /// Starts resolving the policy of `domain` in the background, so that the first attempt finds
    /// it. Returns at once; does nothing when the answer is known, under way, or too many are.
    /// To be called within the runtime.
    pub fn prefetch(&self, domain: &Domain) {
        if self.inner.txts.is_known(domain) || !self.inner.applies_sts(domain) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.inner.prefetches).try_acquire_owned() else { return };
        let (gather, domain) = (self.clone(), domain.clone());
        tokio::spawn(async move {
            // What goes wrong is kept in the cache and told by the attempt that finds it.
            let _ = gather.sts(&domain, Duration::ZERO).await;
            drop(permit);
        });
    }

    /// Asks TXT and HTTPS anew, whatever is cached and however the last fetch went, before a message
    /// is bounced because of a policy (RFC 8461 §5.1). Calls within a minute share one round.
    pub async fn recheck(&self, domain: &Domain) -> StsState {
        let inner = &self.inner;
        if !inner.applies_sts(domain) {
            return StsState::default();
        }
        inner.txts.renew(domain, RECHECK_WAIT);
        let txt = inner.txt_fact(domain).await;
        let now = inner.clock.now();
        let entry = inner.entry(domain, now).await;
        let live = entry.as_ref().and_then(|entry| entry.live(now));
        let fetched = if entry.as_ref().is_some_and(|entry| was_fetched_within(entry, RECHECK_WAIT, now))
            || (live.is_none() && txt.id().is_none())
        {
            None
        } else {
            inner.fetch_and_wait(domain, txt.id()).await
        };
        match fetched {
            Some(Fetched::Policy(policy, id)) => {
                StsState { policy: Some(policy), id: Some(id), trouble: None }
            }
            Some(Fetched::Trouble(trouble)) => {
                StsState { trouble: Some(trouble), ..live.map(StsState::holding).unwrap_or_default() }
            }
            None => StsState {
                trouble: entry.as_ref().and_then(|entry| entry.trouble.clone()),
                ..live.map(StsState::holding).unwrap_or_default()
            },
        }
    }

    /// The operator's `policy refresh`: asks TXT and HTTPS anew.
    pub async fn refresh(&self, domain: &Domain) -> Refreshed {
        let inner = &self.inner;
        inner.txts.renew(domain, Duration::ZERO);
        let txt = inner.txt_fact(domain).await;
        let record = match &txt {
            TxtFact::Record(id) => Ok(id.clone()),
            TxtFact::Unusable(error) => Err(format!("_mta-sts.{domain}: {error}")),
            TxtFact::Failed(text) => Err(text.clone()),
        };
        let now = inner.clock.now();
        let entry = inner.entry(domain, now).await;
        let called_for = record.is_ok() || entry.is_some_and(|entry| entry.live(now).is_some());
        let fetch = if called_for { inner.fetch_and_wait(domain, txt.id()).await } else { None };
        let fetch = fetch.map(|fetched| match fetched {
            Fetched::Policy(policy, _) => Ok(policy),
            Fetched::Trouble(trouble) => Err(trouble),
        });
        Refreshed { record, fetch, entry: inner.policies.get(domain) }
    }

    /// The operator's `policy forget`: drops the cached policy and all answers kept for the domain;
    /// whether a policy was known.
    ///
    /// # Errors
    /// [`QueueError`] when the store fails.
    pub async fn forget(&self, domain: &Domain) -> Result<bool, QueueError> {
        let inner = &self.inner;
        inner.txts.forget(domain);
        inner.mx.forget(domain);
        inner.hosts.forget(domain);
        inner.policies.remove(domain).await
    }

    /// Refetches every held policy about once a day, before it expires, whether or not mail goes to
    /// its domain (RFC 8461 §3.3, §10.2); returns when `shutdown` is cancelled.
    pub async fn run_refresher(&self, shutdown: CancellationToken) {
        self.inner.refresh_until(&shutdown).await;
    }
}

impl StsState {
    fn holding(held: &freshness::HeldPolicy) -> Self {
        Self { policy: Some(Arc::new(held.policy.clone())), id: Some(held.id.clone()), trouble: None }
    }
}

impl Inner {
    fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.borrow())
    }

    /// Whether MTA-STS is switched on, for this domain too.
    fn applies_sts(&self, domain: &Domain) -> bool {
        let options = self.options();
        options.mta_sts
            && (options.overrides.is_empty()
                || override_for(&options.overrides, domain, self.clock.now()) != LocalRule::IgnoreSts)
    }

    /// What `_mta-sts` TXT says, asked or remembered.
    async fn txt_fact(&self, domain: &Domain) -> TxtFact {
        let question = || async {
            // RFC 8461 §3.1: `_mta-sts.` and the policy domain. A name too long for DNS does not exist.
            match domain.prefixed("_mta-sts") {
                Ok(name) => self.dns.txt(&name).await,
                Err(_) => Lookup::NxDomain(DnssecStatus::Insecure),
            }
        };
        let known = self.txts.ask(domain, question).await;
        let (records, status) = match &known.lookup {
            Lookup::Found(answer) => (answer.records.as_slice(), answer.status),
            Lookup::NoData(status) | Lookup::NxDomain(status) => (&[][..], *status),
            Lookup::Failed(failure) => return TxtFact::Failed(failure.to_string()),
        };
        if let Err(failure) = check_status(|| format!("_mta-sts.{domain}"), "TXT", status) {
            return TxtFact::Failed(failure.to_string());
        }
        match record::parse(records) {
            Ok(record) => TxtFact::Record(record.id),
            Err(error) => TxtFact::Unusable(error),
        }
    }

    /// The cache's entry, put right if the clock was set back.
    async fn entry(&self, domain: &Domain, now: Timestamp) -> Option<Arc<CachedPolicy>> {
        match self.policies.get(domain) {
            Some(entry) => Some(self.anchor(entry, now).await),
            None => None,
        }
    }

    async fn anchor(&self, entry: Arc<CachedPolicy>, now: Timestamp) -> Arc<CachedPolicy> {
        let Some(anchored) = entry.anchored(now) else { return entry };
        tracing::warn!(domain = %entry.domain,
            "MTA-STS policy was fetched in the future: the clock was set back; counting its life from now");
        self.put(anchored.clone()).await;
        Arc::new(anchored)
    }

    /// The message waited long enough: it goes on as without a policy, and that is counted once per
    /// while.
    async fn without_knowing(
        &self,
        domain: &Domain,
        txt: &TxtFact,
        trouble: Option<FetchTrouble>,
        now: Timestamp,
    ) -> StsState {
        let TxtFact::Failed(why) = txt else { return StsState::default() };
        let told = |trouble: &FetchTrouble| {
            trouble.id.is_none() && now.duration_since(trouble.at).unsigned_abs() < FETCH_RETRY_WAIT
        };
        let trouble = match trouble.filter(told) {
            Some(trouble) => trouble,
            // A fetch under way will write down more than we know.
            None if self.fetches.is_in_flight(domain) => return StsState::default(),
            None => {
                tracing::warn!(%domain, error = %why,
                    "going on without knowing whether there is an MTA-STS policy: DNS has failed for an hour");
                let trouble = self.keep_trouble(domain, None, TroubleKind::Fetch, why.clone()).await;
                self.tallies.record(now, trouble_result(domain, &trouble, None));
                trouble
            }
        };
        StsState { trouble: Some(trouble), ..StsState::default() }
    }
}

fn was_fetched_within(entry: &CachedPolicy, wait: Duration, now: Timestamp) -> bool {
    let recent = |at: Timestamp| at <= now && now.duration_since(at).unsigned_abs() <= wait;
    // A trouble without id and policy is a failed TXT lookup: nothing was fetched.
    let fetched = |trouble: &FetchTrouble| trouble.id.is_some() || entry.held.is_some();
    entry.trouble.as_ref().is_some_and(|trouble| fetched(trouble) && recent(trouble.at))
        || entry.held.as_ref().is_some_and(|held| recent(held.fetched_at))
}

/// RFC 7672 §2.1.1: bogus and indeterminate answers are failures, not facts.
fn check_status(
    name: impl FnOnce() -> String,
    kind: &'static str,
    status: DnssecStatus,
) -> Result<(), LookupFailure> {
    let (bogus, text) = match status {
        DnssecStatus::Secure | DnssecStatus::Insecure => return Ok(()),
        DnssecStatus::Bogus => (true, "DNSSEC validation failed"),
        DnssecStatus::Indeterminate => (false, "DNSSEC validation could not be completed"),
    };
    Err(LookupFailure { name: name(), kind, bogus, text: text.to_owned() })
}

fn failure(scope: Scope, permanence: Permanence, status: EnhancedStatus, text: String) -> Failure {
    Failure { scope, permanence, status, text, host: None, reply: None, rule: None }
}

fn at_host(host: &Domain, failure: Failure) -> Failure {
    Failure { host: Some(host.to_string()), ..failure }
}

/// RFC 3463 §3.5: directory server failure, which DNS is.
fn dns_failure(scope: Scope, lookup: &LookupFailure) -> Failure {
    failure(scope, Permanence::Transient, EnhancedStatus::new(4, 4, 3), lookup.to_string())
}

fn loops_back(what: String) -> Failure {
    let text = format!("mail loops back: {what}");
    failure(Scope::Domain, Permanence::Permanent, EnhancedStatus::new(5, 4, 6), text)
}

fn no_address(host: &Domain, why: &str) -> Failure {
    let text = format!("mail host {host} cannot be reached: {why}");
    at_host(host, failure(Scope::Host, Permanence::Permanent, EnhancedStatus::new(5, 4, 4), text))
}

fn too_many_fetches(domain: &Domain) -> Failure {
    // RFC 3463 §3.5: mail system congestion, our own.
    let text = format!(
        "the MTA-STS policy of {domain} could not be fetched in time: too many fetches are under way"
    );
    let status = EnhancedStatus::new(4, 4, 5);
    failure(Scope::Domain, Permanence::Transient, status, text)
}

fn policy_unknown(domain: &Domain, txt: &TxtFact) -> Failure {
    let why = match txt {
        TxtFact::Failed(why) => why,
        _ => "no answer",
    };
    let text = format!(
        "it is not known whether {domain} has an MTA-STS policy: {why}; the message waits up to an hour for an answer"
    );
    failure(Scope::Domain, Permanence::Transient, EnhancedStatus::new(4, 4, 3), text)
}

#[cfg(test)]
mod tests;
