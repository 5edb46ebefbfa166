//! The MTA-STS policy cache, kept over restarts (RFC 8461 §3.3, §10).

use std::path::Path;
use std::sync::Arc;

use super::disk::RealDisk;
use super::ledger::Ledger;
use super::queue::QueueError;
use crate::mail::Domain;
use crate::sts::CachedPolicy;

/// A durable map from policy domain to what is known of its policy. Cheap to clone; reads are from
/// memory. A damaged entry is dropped and reported, never fatal.
#[derive(Clone)]
pub struct Policies {
    ledger: Ledger<Domain, CachedPolicy>,
}

impl Policies {
    /// Opens or creates `policies` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, repairs) =
            Ledger::open(Arc::new(RealDisk), data_dir.join("policies/ledger"), "policy cache")?;
        Ok((Self { ledger }, repairs))
    }

    /// What is known of this domain.
    pub fn get(&self, domain: &Domain) -> Option<Arc<CachedPolicy>> {
        self.ledger.get(domain)
    }

    /// Keeps an entry; durable when it returns.
    ///
    /// # Errors
    /// [`QueueError`]; the entry is in memory all the same.
    pub async fn put(&self, entry: CachedPolicy) -> Result<(), QueueError> {
        self.ledger.set(entry.domain.clone(), Some(entry)).await
    }

    /// Forgets a domain; whether it was known.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn remove(&self, domain: &Domain) -> Result<bool, QueueError> {
        let known = self.get(domain).is_some();
        if known {
            self.ledger.set(domain.clone(), None).await?;
        }
        Ok(known)
    }

    /// All entries in order of domain.
    pub fn list(&self) -> Vec<Arc<CachedPolicy>> {
        self.ledger.values()
    }
}
