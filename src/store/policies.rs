//! The MTA-STS policy cache, kept over restarts (RFC 8461 §3.3, §10).
//!
//! Keeps what it is told and decides nothing: how long a policy may be trusted is `sts::freshness`'s
//! business.

use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, RealDisk};
use super::ledger::Ledger;
use super::queue::QueueError;
use crate::mail::Domain;
use crate::sts::CachedPolicy;

/// A durable map from policy domain to what is known of its policy. Cheap to clone; reads are from
/// memory. A damaged entry is dropped and reported, never fatal.
#[derive(Clone)]
pub struct Policies {
    inner: Arc<Ledger<CachedPolicy>>,
}

impl Policies {
    /// Opens or creates `policies` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_on(Arc::new(RealDisk), data_dir)
    }

    pub(super) fn open_on(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, repaired) = Ledger::open(disk, &data_dir.join("policies"), "policies")?;
        Ok((Self { inner: Arc::new(ledger) }, repaired))
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
