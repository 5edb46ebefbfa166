//! The MTA-STS policy cache, kept over restarts (RFC 8461 §3.3, §10), and beside it what of all
//! policies changed for the worse.
//!
//! Keeps what it is told and decides nothing: how long a policy may be trusted is `sts::freshness`'s
//! business.

use std::path::Path;
use std::sync::Arc;

use super::changes::Changes;
use super::ground::Ground;
use super::ledger::Ledger;
use super::queue::QueueError;
use crate::mail::Domain;
use crate::sts::CachedPolicy;

/// A durable map from policy domain to what is known of its policy. Cheap to clone; reads are from
/// memory. A damaged entry is dropped and reported, never fatal.
#[derive(Clone)]
pub struct Policies {
    inner: Arc<Ledger<CachedPolicy>>,
    changes: Changes,
}

impl Policies {
    /// Opens or creates `policies`, `changes` and `guards` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), data_dir)
    }

    /// [`Policies::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Policies::open`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, mut repaired) = Ledger::open(ground, &data_dir.join("policies"), "policies")?;
        let (changes, more) = Changes::open_over(ground, data_dir)?;
        repaired.extend(more);
        Ok((Self { inner: Arc::new(ledger), changes }, repaired))
    }

    /// What changed for the worse.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What is known of this domain.
    pub fn get(&self, domain: &Domain) -> Option<Arc<CachedPolicy>> {
        self.inner.get(domain.as_str())
    }

    /// Keeps an entry; durable when it returns.
    ///
    /// # Errors
    /// [`QueueError`]; the entry is in memory all the same.
    pub async fn put(&self, entry: CachedPolicy) -> Result<(), QueueError> {
        self.inner.put(entry.domain.to_string(), entry).await
    }

    /// Forgets a domain; whether it was known.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn remove(&self, domain: &Domain) -> Result<bool, QueueError> {
        self.inner.remove(domain.as_str()).await
    }

    /// All entries in order of domain.
    pub fn list(&self) -> Vec<Arc<CachedPolicy>> {
        self.inner.list()
    }
}
