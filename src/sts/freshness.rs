//! How long a policy may be trusted and when it must be asked for again (RFC 8461 §3.3, §5.1, §10.2).
//!
//! Pure: facts and `now` in, what to do out. An unexpired policy survives a bumped id, a removed or
//! failing TXT lookup, a failing fetch and a restart; nothing but an HTTPS success makes it live
//! longer (I7). What a fetch brings changes the entry by [`succeeded`] or [`failed`], in one step.
//! Called by `delivery::gather`, which asks, fetches and keeps.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::policy::StsPolicy;
use super::record::RecordError;
use crate::mail::Domain;

/// Between two fetches for one (domain, id) after a failure (RFC 8461 §3.3: five minutes or more).
pub const FETCH_RETRY_WAIT: Duration = Duration::from_secs(5 * 60);
/// The longest wait between two failing refreshes of a policy that is still good: a domain that went
/// away is not asked every five minutes for a year.
pub const REFRESH_RETRY_WAIT_MAX: Duration = Duration::from_secs(6 * 3600);
/// A held policy is fetched anew at least this often (RFC 8461 §3.3, §10.2: daily).
pub const REFRESH_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// ... and not more often than this unless mail asks for it, however short `max_age` is.
pub const REFRESH_WAIT_MIN: Duration = Duration::from_secs(5 * 60);
/// A clock is believed to be off by as much without having been set.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * 60);
/// A message waits as long for a TXT lookup that fails without a cached policy, then goes on without.
pub const UNKNOWN_WAIT_MAX: Duration = Duration::from_secs(3600);
/// A failed fetch is remembered as long, for `policy show`, where no policy is held.
pub const TROUBLE_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What the cache knows of one policy domain; kept over restarts.
///
/// Either part may be missing: a domain whose only fetch failed has no policy but a trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedPolicy {
    /// The policy domain.
    pub domain: Domain,
    /// The last policy fetched and valid.
    pub held: Option<HeldPolicy>,
    /// The last failed fetch since then, if any.
    pub trouble: Option<FetchTrouble>,
}

/// A policy with its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPolicy {
    /// The policy.
    pub policy: StsPolicy,
    /// The TXT id it was fetched under; stored only together with a valid policy.
    pub id: String,
    /// The HTTPS success that made it; its life is `max_age` from here.
    pub fetched_at: Timestamp,
    /// When the daily refetch is due (RFC 8461 §3.3), jittered, however often it fails then.
    pub refresh_at: Timestamp,
}

/// A failed fetch or an invalid policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchTrouble {
    /// The TXT id at that time, if one was seen.
    pub id: Option<String>,
    /// When.
    pub at: Timestamp,
    /// How many in a row.
    pub count: u32,
    /// What kind, for TLS-RPT.
    pub kind: TroubleKind,
    /// One sentence for the operator.
    pub text: String,
}

/// The TLS-RPT result type of a fetch trouble (RFC 8460 §4.3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TroubleKind {
    /// `sts-policy-fetch-error`
    Fetch,
    /// `sts-policy-invalid`
    Invalid,
    /// `sts-webpki-invalid`
    WebPki,
}

/// How a fetch failed, finer than reports tell: for the policy host's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFault {
    /// No connection, none in time, or it broke.
    Unreachable,
    /// The certificate of the policy host.
    Certificate,
    /// It redirects.
    Redirect,
    /// Another status than 200.
    Status,
    /// Another media type than text/plain.
    ContentType,
    /// More octets than a policy may have.
    TooLong,
}

/// What the TXT lookup of a domain said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxtFact {
    /// One usable record with this id.
    Record(String),
    /// An answer without a usable record: no policy is live.
    Unusable(RecordError),
    /// No answer; says nothing about the policy. With the reason.
    Failed(String),
}

impl TxtFact {
    /// The id published now, if one was seen.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Record(id) => Some(id),
            _ => None,
        }
    }
}

/// What applies now and whether to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assessment<'a> {
    /// What applies unless a fetch made at once brings something else.
    pub standing: Standing<'a>,
    /// Whether to fetch.
    pub fetch: Fetch,
}

/// What is known of a domain's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// This policy applies (RFC 8461 §5.1), of whatever mode.
    Policy(&'a HeldPolicy),
    /// The domain has no policy that applies.
    NoPolicy,
    /// Nobody knows: DNS failed and nothing unexpired is held. Defer for at most
    /// [`UNKNOWN_WAIT_MAX`], then go on as without a policy.
    Unknown,
}

/// Whether to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// Before the message goes on: there may be a policy we do not hold.
    Now,
    /// Without keeping anybody waiting: what is held applies.
    Background,
    /// Not now.
    No,
}

impl HeldPolicy {
    /// The last instant at which the policy applies.
    pub fn expires_at(&self) -> Timestamp {
        after(self.fetched_at, Duration::from_secs(self.policy.max_age.into()))
    }

    /// Whether its age is over `max_age` (RFC 8461 §5.1: strictly).
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.expires_at()
    }
}

impl CachedPolicy {
    /// The policy, as long as it applies.
    pub fn live(&self, now: Timestamp) -> Option<&HeldPolicy> {
        self.held.as_ref().filter(|held| !held.is_expired(now))
    }

    /// When the policy held is to be fetched anew, whether or not there is mail for it; `None`
    /// without an unexpired one. After failures the wait doubles up to [`REFRESH_RETRY_WAIT_MAX`].
    pub fn refresh_due_at(&self, now: Timestamp) -> Option<Timestamp> {
        let held = self.live(now)?;
        // A due time further off than any we set comes from a clock that has been set back.
        let far = after(now, REFRESH_WAIT_MAX + CLOCK_SKEW_MAX);
        let due = if held.refresh_at > far { now } else { held.refresh_at };
        let Some(trouble) = self.trouble.as_ref().filter(|trouble| trouble.at <= after(now, CLOCK_SKEW_MAX))
        else {
            return Some(due);
        };
        let doublings = trouble.count.saturating_sub(1).min(10);
        let wait = (FETCH_RETRY_WAIT * 2u32.pow(doublings)).min(REFRESH_RETRY_WAIT_MAX);
        Some(due.max(after(trouble.at, wait)))
    }

    /// Whether nothing worth keeping is left.
    pub fn is_dead(&self, now: Timestamp) -> bool {
        let remembered = self.trouble.as_ref().is_some_and(|trouble| {
            now <= after(trouble.at, TROUBLE_KEPT) && trouble.at <= after(now, CLOCK_SKEW_MAX)
        });
        self.live(now).is_none() && !remembered
    }

    /// The entry as it must be after the clock was set back: a policy fetched "in the future" is
    /// counted as fetched now, so that it never lives longer than `max_age` from here, and is due
    /// for a refetch. `None` when nothing is wrong.
    pub fn anchored(&self, now: Timestamp) -> Option<CachedPolicy> {
        let held = self.held.as_ref().filter(|held| held.fetched_at > after(now, CLOCK_SKEW_MAX))?;
        let held = HeldPolicy { fetched_at: now, refresh_at: now, ..held.clone() };
        Some(CachedPolicy { held: Some(held), ..self.clone() })
    }

    /// Whether a fetch under this id failed less than [`FETCH_RETRY_WAIT`] ago.
    fn is_backed_off(&self, id: &str, now: Timestamp) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| {
            trouble.id.as_deref() == Some(id)
                && now < after(trouble.at, FETCH_RETRY_WAIT)
                && trouble.at <= after(now, CLOCK_SKEW_MAX)
        })
    }
}

/// What applies now and whether to fetch, from the cache's entry and the TXT answer.
pub fn assess<'a>(entry: Option<&'a CachedPolicy>, txt: &TxtFact, now: Timestamp) -> Assessment<'a> {
    let live = entry.and_then(|entry| entry.live(now));
    let refresh = || match entry.and_then(|entry| entry.refresh_due_at(now)) {
        Some(due) if due <= now => Fetch::Background,
        _ => Fetch::No,
    };
    let fetch_under = |id: &str| match entry {
        // RFC 8461 §3.3: limit the rate of further attempts after a failure, per domain and id.
        Some(entry) if entry.is_backed_off(id, now) => Fetch::No,
        _ => Fetch::Now,
    };
    let (standing, fetch) = match (live, txt) {
        // RFC 8461 §3.1: the id is compared for equality only. A changed one asks for a fetch; until
        // that succeeds, what is held applies (§5.1).
        (Some(held), TxtFact::Record(id)) if *id != held.id => (Standing::Policy(held), fetch_under(id)),
        // RFC 8461 §5.1, §10.2: neither a missing nor a failing record ends a policy's life, and the
        // refetch comes when it is due whether the record is there or not.
        (Some(held), _) => (Standing::Policy(held), refresh()),
        (None, TxtFact::Record(id)) => (Standing::NoPolicy, fetch_under(id)),
        (None, TxtFact::Unusable(_)) => (Standing::NoPolicy, Fetch::No),
        (None, TxtFact::Failed(_)) => (Standing::Unknown, Fetch::No),
    };
    Assessment { standing, fetch }
}

/// The entry after an HTTPS success at `now`; `None` when there is nothing to keep, because
/// `max_age: 0` is good for the attempt that asked and no other. `jitter` is in 0.0..1.0.
///
/// A new policy replaces the old one at once, whatever its mode (RFC 8461 §8.3).
pub fn succeeded(
    domain: &Domain,
    policy: StsPolicy,
    id: String,
    now: Timestamp,
    jitter: f64,
) -> Option<CachedPolicy> {
    if policy.max_age == 0 {
        return None;
    }
    let refresh_at = after(now, refresh_wait(policy.max_age, jitter));
    let held = HeldPolicy { policy, id, fetched_at: now, refresh_at };
    Some(CachedPolicy { domain: domain.clone(), held: Some(held), trouble: None })
}

/// The entry after a failed fetch or an invalid body at `now`: what is held stays as it is, its id
/// and its age too (RFC 8461 §5.1); only a policy that has expired is dropped.
pub fn failed(
    domain: &Domain,
    entry: Option<&CachedPolicy>,
    id: Option<String>,
    kind: TroubleKind,
    text: String,
    now: Timestamp,
) -> CachedPolicy {
    let before = entry.and_then(|entry| entry.trouble.as_ref()).map_or(0, |trouble| trouble.count);
    CachedPolicy {
        domain: domain.clone(),
        held: entry.and_then(|entry| entry.live(now)).cloned(),
        trouble: Some(FetchTrouble { id, at: now, count: before.saturating_add(1), kind, text }),
    }
}

/// From a success to the next fetch: about a day, or half the life of a short-lived policy, so that
/// one outage at a known instant cannot end a policy's life (RFC 8461 §10.2); jittered by a quarter.
fn refresh_wait(max_age: u32, jitter: f64) -> Duration {
    let base = REFRESH_WAIT_MAX.min(Duration::from_secs(u64::from(max_age) / 2));
    base.mul_f64(0.75 + 0.25 * jitter.clamp(0.0, 1.0)).max(REFRESH_WAIT_MIN)
}

/// `at + wait`, saturating at the end of time.
fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| at.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
