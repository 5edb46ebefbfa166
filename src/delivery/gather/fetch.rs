//! Fetching policies: one fetch per domain in flight, the result kept and reported before anybody
//! who waits for it goes on.
//!
//! A fetch runs in a task of its own, so that a message that gives up does not end it for the others.
//! Never decides whether to fetch: that is `sts::freshness`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{Semaphore, oneshot};

use super::Inner;
use crate::mail::Domain;
use crate::sts::freshness::{self, TroubleKind};
use crate::sts::{CachedPolicy, FetchTrouble, Mode, StsPolicy, radar};
use crate::tlspolicy::applied;
use crate::tlsrpt::{FailureDetail, ResultType, SessionResult};

/// Fetches in flight at once; each holds a connection and at most 64 KiB.
pub(super) const FETCHES_MAX: usize = 64;
/// A fetch ends after this time, whatever the HTTPS door does (RFC 8461 §3.3 suggests a minute).
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(60);
/// Without a policy a message waits as long: the fetch's own time, and a moment to keep the result.
pub(super) const FIRST_FETCH_WAIT_MAX: Duration = Duration::from_secs(61);
/// With an unexpired policy a message waits for a newer one only as long: whoever forges ids and
/// stalls HTTPS must not stall the mail.
pub(super) const NEWER_FETCH_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a fetch brought.
#[derive(Debug, Clone)]
pub(super) enum Fetched {
    /// A valid policy and the id it is kept under.
    Policy(Arc<StsPolicy>, String),
    /// None.
    Trouble(FetchTrouble),
}

/// A fetch under way: what it brings, or nothing when its task ended early. Those who wait go on in
/// the order in which they came, which a `watch` channel would leave to chance.
type UnderWay = Shared<BoxFuture<'static, Option<Fetched>>>;

/// The fetches in flight.
pub(super) struct Fetches {
    in_flight: Mutex<HashMap<Domain, UnderWay>>,
    permits: Semaphore,
}

impl Fetches {
    pub(super) fn new() -> Self {
        Self { in_flight: Mutex::new(HashMap::new()), permits: Semaphore::new(FETCHES_MAX) }
    }

    pub(super) fn is_in_flight(&self, domain: &Domain) -> bool {
        self.lock().contains_key(domain)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Domain, UnderWay>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a fetch out of the map when it is over, also when its task panicked.
struct InFlight {
    inner: Arc<Inner>,
    domain: Domain,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.inner.fetches.lock().remove(&self.domain);
    }
}

impl Inner {
    /// Starts a fetch, or joins the one in flight. `id` is the TXT id seen, if one was.
    pub(super) fn start_fetch(self: &Arc<Self>, domain: &Domain, id: Option<&str>) -> UnderWay {
        let mut in_flight = self.fetches.lock();
        if let Some(under_way) = in_flight.get(domain) {
            return under_way.clone();
        }
        let (sender, receiver) = oneshot::channel();
        let under_way = receiver.map(Result::ok).boxed().shared();
        in_flight.insert(domain.clone(), under_way.clone());
        let over = InFlight { inner: Arc::clone(self), domain: domain.clone() };
        let id = id.map(str::to_owned);
        tokio::spawn(async move {
            let inner = Arc::clone(&over.inner);
            // The semaphore is never closed; without a permit the sender drops, which waiters notice.
            let Ok(_permit) = inner.fetches.permits.acquire().await else { return };
            let fetched = inner.fetch(&over.domain, id).await;
            // The entry is kept: from here on a new caller need not join this fetch.
            drop(over);
            // Nobody need be waiting.
            let _ = sender.send(fetched);
        });
        under_way
    }

    /// Fetches and waits; `None` when nothing came in time. The fetch goes on.
    pub(super) async fn fetch_and_wait(
        self: &Arc<Self>,
        domain: &Domain,
        id: Option<&str>,
        within: Duration,
    ) -> Option<Fetched> {
        tokio::time::timeout(within, self.start_fetch(domain, id)).await.ok()?
    }

    async fn fetch(&self, domain: &Domain, id: Option<String>) -> Fetched {
        let body = match tokio::time::timeout(FETCH_TIME_MAX, self.https.fetch_policy(domain)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err((error.kind, error.text)),
            Err(_) => Err((
                TroubleKind::Fetch,
                format!("the policy of {domain} did not arrive within {} s", FETCH_TIME_MAX.as_secs()),
            )),
        };
        let body = match body {
            Ok(body) => body,
            Err((kind, text)) => {
                return Fetched::Trouble(self.keep_trouble(domain, id, kind, text, None).await);
            }
        };
        match StsPolicy::parse(&body) {
            Ok(policy) => self.keep_policy(domain, policy, id).await,
            Err(error) => {
                let text = format!("the policy of {domain} is invalid: {error}");
                let kind = TroubleKind::Invalid;
                Fetched::Trouble(self.keep_trouble(domain, id, kind, text, Some(&body)).await)
            }
        }
    }

    async fn keep_policy(&self, domain: &Domain, policy: StsPolicy, id: Option<String>) -> Fetched {
        let now = self.clock.now();
        let before = self.policies.get(domain);
        let held = before.as_ref().and_then(|entry| entry.held.as_ref());
        for warning in policy.warnings() {
            tracing::warn!(%domain, warning, "MTA-STS policy is odd");
        }
        log_fetched(domain, held.map(|held| &held.policy), &policy);
        if let Some(held) = held {
            let changes = radar::policy_changes((&held.policy, &held.id), (&policy, id.as_deref()));
            changes.into_iter().for_each(|change| self.tell(domain, change));
        }
        if policy.mode == Mode::None || policy.max_age == 0 {
            self.unwatch_policy(domain);
        }
        // Without a record to be seen now, the policy stays under the id it was known by.
        let id = id.or_else(|| held.map(|held| held.id.clone())).unwrap_or_default();
        let shared = Arc::new(policy.clone());
        match freshness::succeeded(domain, policy, id.clone(), now, self.random.fraction()) {
            Some(entry) => {
                self.watch_policy(&entry, now);
                self.put(entry).await;
            }
            None => {
                if let Err(error) = self.policies.remove(domain).await {
                    tracing::error!(%domain, %error, "MTA-STS policy could not be removed from the cache");
                }
            }
        }
        Fetched::Policy(shared, id)
    }

    /// Writes down that a fetch failed, counts it for TLS-RPT and tells the operator. `declared` is what was
    /// fetched and is no policy.
    pub(super) async fn keep_trouble(
        &self,
        domain: &Domain,
        id: Option<String>,
        kind: TroubleKind,
        text: String,
        declared: Option<&[u8]>,
    ) -> FetchTrouble {
        let now = self.clock.now();
        let before = self.policies.get(domain);
        self.counters.fetches_failed.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = &before {
            self.watch_policy(before, now);
        }
        let has_record = id.is_some();
        let entry = freshness::failed(domain, before.as_deref(), id, kind, text.clone(), now);
        let count = entry.trouble.as_ref().map_or(1, |trouble| trouble.count);
        let trouble = entry.trouble.clone().unwrap_or(FetchTrouble { id: None, at: now, count, kind, text });
        let held = entry.held.as_ref().map(|held| &held.policy);
        let protects = held.is_some_and(|policy| policy.mode != Mode::None);
        // RFC 8461 §6: report a failing fetch where a record is published, or a policy that is not
        // "none" is cached.
        if has_record || protects {
            self.tallies.record(now, trouble_result(domain, &trouble, held, declared));
        }
        if protects {
            // RFC 8461 §3.3, §10.2: the operator should know before the policy expires.
            let expires_at = entry.held.as_ref().map(|held| held.expires_at());
            tracing::warn!(%domain, error = %trouble.text, failures = count, expires_at = ?expires_at,
                "MTA-STS policy could not be refreshed; the cached one stays in force until it expires");
            let change = expires_at.and_then(|at| radar::refetch_alarm(count, at, now, &trouble.text));
            change.into_iter().for_each(|change| self.tell(domain, change));
        } else {
            tracing::info!(%domain, error = %trouble.text, failures = count, "MTA-STS policy could not be fetched");
        }
        self.put(entry).await;
        trouble
    }

    pub(super) async fn put(&self, entry: CachedPolicy) {
        let domain = entry.domain.clone();
        if let Err(error) = self.policies.put(entry).await {
            tracing::error!(%domain, %error,
                "MTA-STS policy is in force but could not be saved; it will be lost at a restart");
        }
    }
}

/// One line per fetch; what became weaker is told by `radar`.
fn log_fetched(domain: &Domain, before: Option<&StsPolicy>, after: &StsPolicy) {
    match before {
        Some(before) if before.text() == after.text() => {
            tracing::debug!(%domain, mode = %after.mode, "MTA-STS policy refreshed");
        }
        _ => {
            tracing::info!(%domain, mode = %after.mode, max_age = after.max_age, "MTA-STS policy fetched");
        }
    }
}

/// A failed fetch as TLS-RPT counts it: once, without a connection, under the policy that is still
/// held and applied, else under what was fetched though it is no policy (RFC 8460 §4.5), else under
/// `no-policy-found` (RFC 8460 §4.3.2.2).
pub(super) fn trouble_result(
    domain: &Domain,
    trouble: &FetchTrouble,
    held: Option<&StsPolicy>,
    declared: Option<&[u8]>,
) -> SessionResult {
    let result_type = match trouble.kind {
        TroubleKind::Fetch => ResultType::StsPolicyFetchError,
        TroubleKind::Invalid => ResultType::StsPolicyInvalid,
        TroubleKind::WebPki => ResultType::StsWebpkiInvalid,
    };
    let failure = FailureDetail {
        result_type,
        sending_mta_ip: None,
        receiving_mx_hostname: None,
        receiving_mx_helo: None,
        receiving_ip: None,
        failure_reason_code: Some(applied::reason_code(&trouble.text)),
    };
    SessionResult {
        report_domain: domain.clone(),
        policy: match (held.filter(|held| held.mode != Mode::None), declared) {
            (None, Some(body)) => applied::declared(domain, body),
            (held, _) => applied::of(domain, held),
        },
        failures: vec![failure],
    }
}
