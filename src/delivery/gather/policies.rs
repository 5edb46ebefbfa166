//! Which MTA-STS policy applies to a domain: TXT answer, cache and fetch brought together.
//!
//! The decision is `sts::freshness`'s; here is what it asks for and what becomes of the answer.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::fetch::{FIRST_FETCH_WAIT_MAX, Fetched, NEWER_FETCH_WAIT_MAX, trouble_result};
use super::routes::{check_status, failure};
use super::{Gather, Inner, Refreshed, StsState};
use crate::mail::{Destination, Domain, EnhancedStatus, Failure, Permanence, Scope};
use crate::net::dns::Lookup;
use crate::route::DnssecStatus;
use crate::store::queue::QueueError;
use crate::sts::freshness::{
    self, FETCH_RETRY_WAIT, Fetch, Standing, TroubleKind, TxtFact, UNKNOWN_WAIT_MAX,
};
use crate::sts::{CachedPolicy, FetchTrouble, record};
use crate::tlspolicy::{LocalRule, local_rule};

/// Forced rounds for one domain are at least this far apart, however many messages expire together.
pub(super) const RECHECK_WAIT: Duration = Duration::from_secs(60);

impl Gather {
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
            if inner.options().mta_sts {
                let options = inner.options();
                if let Some(rule) = local_rule(&options.overrides, domain, None, inner.clock.now()) {
                    tracing::warn!(%domain, "MTA-STS is not applied: local rule {rule}");
                }
            }
            return Ok(StsState::default());
        }
        let txt = inner.txt_fact(domain).await;
        let now = inner.clock.now();
        let entry = inner.entry(domain, now).await;
        inner.watch_record(domain, entry.as_deref(), &txt);
        let assessment = freshness::assess(entry.as_deref(), &txt, now);
        let fetched = match assessment.fetch {
            Fetch::No => None,
            Fetch::Background => {
                // It runs in a task of its own; nobody waits for it.
                drop(inner.start_fetch(domain, txt.id()));
                None
            }
            // RFC 8461 §5.1 allows to fetch behind the first message's back; waiting closes the window.
            Fetch::Now => match assessment.standing {
                Standing::Policy(_) => inner.fetch_and_wait(domain, txt.id(), NEWER_FETCH_WAIT_MAX).await,
                Standing::NoPolicy | Standing::Unknown => Some(
                    inner
                        .fetch_and_wait(domain, txt.id(), FIRST_FETCH_WAIT_MAX)
                        .await
                        .ok_or_else(|| too_many_fetches(domain))?,
                ),
            },
        };
        let trouble = entry.as_ref().and_then(|entry| entry.trouble.clone());
        Ok(match (fetched, assessment.standing) {
            (Some(Fetched::Policy(policy, id)), _) => {
                StsState { policy: Some(policy), id: Some(id), fetched_at: Some(now), trouble: None }
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
                return Err(inner.blamed(policy_unknown(domain, &txt)).await);
            }
            (None, Standing::Unknown) => inner.without_knowing(domain, &txt, trouble, now).await,
        })
    }

    /// Starts resolving the policy that mail for a recipient domain will need in the background, so that
    /// the first attempt finds it. Returns at once; does nothing when the answer is known, under way, or
    /// too many are. To be called within the runtime.
    pub fn prefetch(&self, recipient: &Domain) {
        let hop = self.hop(&Destination::Domain(recipient.clone()));
        let Some(domain) = hop.policy_domain() else { return };
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
        let txt = inner.txt_fact_anew(domain, RECHECK_WAIT).await;
        let now = inner.clock.now();
        let entry = inner.entry(domain, now).await;
        let live = entry.as_ref().and_then(|entry| entry.live(now));
        let fetched = if entry.as_ref().is_some_and(|entry| was_fetched_within(entry, RECHECK_WAIT, now))
            || (live.is_none() && txt.id().is_none())
        {
            None
        } else {
            inner.fetch_and_wait(domain, txt.id(), FIRST_FETCH_WAIT_MAX).await
        };
        match fetched {
            Some(Fetched::Policy(policy, id)) => {
                StsState { policy: Some(policy), id: Some(id), fetched_at: Some(now), trouble: None }
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
        let txt = inner.txt_fact_anew(domain, Duration::ZERO).await;
        let record = match &txt {
            TxtFact::Record(id) => Ok(id.clone()),
            TxtFact::Unusable(error) => Err(format!("_mta-sts.{domain}: {error}")),
            TxtFact::Failed(text) => Err(text.clone()),
        };
        let now = inner.clock.now();
        let entry = inner.entry(domain, now).await;
        let called_for = record.is_ok() || entry.is_some_and(|entry| entry.live(now).is_some());
        let fetch = if called_for {
            inner.fetch_and_wait(domain, txt.id(), FIRST_FETCH_WAIT_MAX).await
        } else {
            None
        };
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
}

impl StsState {
    fn holding(held: &freshness::HeldPolicy) -> Self {
        Self {
            policy: Some(Arc::new(held.policy.clone())),
            id: Some(held.id.clone()),
            fetched_at: Some(held.fetched_at),
            trouble: None,
        }
    }
}

impl Inner {
    /// Whether MTA-STS is switched on, for this domain too.
    fn applies_sts(&self, domain: &Domain) -> bool {
        let options = self.options();
        options.mta_sts
            && (options.overrides.is_empty()
                || local_rule(&options.overrides, domain, None, self.clock.now())
                    .is_none_or(|rule| rule.require != LocalRule::IgnoreSts))
    }

    /// What `_mta-sts` TXT says, asked or remembered.
    pub(super) async fn txt_fact(&self, domain: &Domain) -> TxtFact {
        let question = || async {
            match sts_name(domain) {
                Ok(name) => self.dns.txt(&name).await,
                Err(absent) => absent,
            }
        };
        txt_fact(domain, &self.txts.ask(domain, question).await.lookup)
    }

    /// The same, past every cache but for an answer at most `age` old.
    async fn txt_fact_anew(&self, domain: &Domain, age: Duration) -> TxtFact {
        self.txts.renew(domain, age);
        let question = || async {
            match sts_name(domain) {
                Ok(name) => self.dns.txt_fresh(&name).await,
                Err(absent) => absent,
            }
        };
        txt_fact(domain, &self.txts.ask(domain, question).await.lookup)
    }

    /// The cache's entry, put right if the clock was set back.
    async fn entry(&self, domain: &Domain, now: Timestamp) -> Option<Arc<CachedPolicy>> {
        match self.policies.get(domain) {
            Some(entry) => Some(self.anchor(entry, now).await),
            None => None,
        }
    }

    pub(super) async fn anchor(&self, entry: Arc<CachedPolicy>, now: Timestamp) -> Arc<CachedPolicy> {
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
                let trouble = self.keep_trouble(domain, None, TroubleKind::Fetch, why.clone(), None).await;
                self.tallies.record(now, trouble_result(domain, &trouble, None, None));
                trouble
            }
        };
        StsState { trouble: Some(trouble), ..StsState::default() }
    }
}

/// RFC 8461 §3.1: `_mta-sts.` and the policy domain. A name too long for DNS does not exist.
fn sts_name(domain: &Domain) -> Result<Domain, Lookup<Vec<u8>>> {
    domain.prefixed("_mta-sts").map_err(|_| Lookup::NxDomain(DnssecStatus::Insecure))
}

fn txt_fact(domain: &Domain, lookup: &Lookup<Vec<u8>>) -> TxtFact {
    let (records, status) = match lookup {
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

fn was_fetched_within(entry: &CachedPolicy, wait: Duration, now: Timestamp) -> bool {
    let recent = |at: Timestamp| at <= now && now.duration_since(at).unsigned_abs() <= wait;
    // A trouble without id and policy is a failed TXT lookup: nothing was fetched.
    let fetched = |trouble: &FetchTrouble| trouble.id.is_some() || entry.held.is_some();
    entry.trouble.as_ref().is_some_and(|trouble| fetched(trouble) && recent(trouble.at))
        || entry.held.as_ref().is_some_and(|held| recent(held.fetched_at))
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
