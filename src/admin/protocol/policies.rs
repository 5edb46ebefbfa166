//! How cached policies are told: the JSON of `stsrelay policy ... --json` and of the API. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::delivery::explain::facts::LocalFacts;
use crate::mail::Domain;
use crate::queue::retry::after;
use crate::sts::{CachedPolicy, Mode};

/// What is known of the policy of a domain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyView {
    /// The policy domain.
    pub domain: Domain,
    /// Of the policy held; absent where none is.
    pub mode: Option<Mode>,
    /// The TXT id it was fetched under.
    pub id: Option<String>,
    /// Its patterns.
    pub mx: Vec<String>,
    /// Its life in seconds.
    pub max_age: Option<u32>,
    /// The HTTPS success that made it.
    pub fetched_at: Option<Timestamp>,
    /// The last instant at which it applies.
    pub expires_at: Option<Timestamp>,
    /// When the next regular fetch is due.
    pub refresh_at: Option<Timestamp>,
    /// It does not apply any more.
    pub expired: bool,
    /// The last fetch, if it failed.
    pub trouble: Option<PolicyTrouble>,
    /// The local rule for the domain, where one domain is asked for and has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalFacts>,
}

/// A fetch that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyTrouble {
    /// When.
    pub at: Timestamp,
    /// How many in a row.
    pub count: u32,
    /// One sentence.
    pub text: String,
}

impl PolicyView {
    /// What an entry of the cache says at `now`.
    pub fn new(entry: &CachedPolicy, now: Timestamp) -> Self {
        let held = entry.held.as_ref();
        let expires_at =
            held.map(|held| after(held.fetched_at, Duration::from_secs(u64::from(held.policy.max_age))));
        Self {
            domain: entry.domain.clone(),
            mode: held.map(|held| held.policy.mode),
            id: held.map(|held| held.id.clone()),
            mx: held.map(|held| held.policy.mx.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            max_age: held.map(|held| held.policy.max_age),
            fetched_at: held.map(|held| held.fetched_at),
            expires_at,
            refresh_at: held.map(|held| held.refresh_at),
            expired: expires_at.is_some_and(|at| at <= now),
            trouble: entry.trouble.as_ref().map(|trouble| PolicyTrouble {
                at: trouble.at,
                count: trouble.count,
                text: trouble.text.clone(),
            }),
            local: None,
        }
    }
}

/// What a refresh found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RefreshView {
    /// The policy domain.
    pub domain: Domain,
    /// The TXT id published now.
    pub record_id: Option<String>,
    /// Why there is none.
    pub record_trouble: Option<String>,
    /// The mode of the policy fetched, if a fetch was called for and went well.
    pub fetched_mode: Option<String>,
    /// Why it did not.
    pub fetch_trouble: Option<String>,
    /// What is known now.
    pub policy: Option<PolicyView>,
}

impl RefreshView {
    /// Of the answer to a refresh.
    pub fn new(
        domain: Domain,
        record: Result<String, String>,
        fetch: Option<Result<String, String>>,
        entry: Option<&CachedPolicy>,
        now: Timestamp,
    ) -> Self {
        let (record_id, record_trouble) = apart(Some(record));
        let (fetched_mode, fetch_trouble) = apart(fetch);
        let policy = entry.map(|entry| PolicyView::new(entry, now));
        Self { domain, record_id, record_trouble, fetched_mode, fetch_trouble, policy }
    }
}

fn apart(result: Option<Result<String, String>>) -> (Option<String>, Option<String>) {
    match result {
        Some(Ok(good)) => (Some(good), None),
        Some(Err(bad)) => (None, Some(bad)),
        None => (None, None),
    }
}

/// A policy was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForgottenView {
    /// The policy domain.
    pub domain: Domain,
    /// It was.
    pub forgotten: bool,
}
