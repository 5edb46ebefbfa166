//! What gathering writes down: the policy cache and the TLS-RPT tally, as seams towards `store`.
//!
//! Only `store` implements them in the daemon; tests keep everything in memory.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::mail::Domain;
use crate::store::policies::Policies;
use crate::store::queue::QueueError;
use crate::store::results::Results;
use crate::sts::CachedPolicy;
use crate::sts::radar::{Change, Guard, Now};
use crate::tlsrpt::SessionResult;

/// The policy cache; see [`Policies`].
pub(super) trait PolicyCache: Send + Sync {
    fn get(&self, domain: &Domain) -> Option<Arc<CachedPolicy>>;
    fn put(&self, entry: CachedPolicy) -> BoxFuture<'_, Result<(), QueueError>>;
    fn remove<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<bool, QueueError>>;
    fn list(&self) -> Vec<Arc<CachedPolicy>>;
    /// See [`Changes::record`](crate::store::Changes::record).
    fn record_change(&self, domain: &Domain, change: Change, at: Timestamp);
    /// See [`Changes::observe`](crate::store::Changes::observe).
    fn observe(&self, guard: Guard, name: &Domain, now: Now, at: Timestamp) -> bool;
    /// See [`Changes::is_guarded`](crate::store::Changes::is_guarded).
    fn is_guarded(&self, guard: Guard, name: &Domain) -> bool;
}

/// The TLS-RPT tally; see [`Results`].
pub(super) trait Tallies: Send + Sync {
    fn record(&self, at: Timestamp, result: SessionResult);
}

impl PolicyCache for Policies {
    fn get(&self, domain: &Domain) -> Option<Arc<CachedPolicy>> {
        Policies::get(self, domain)
    }

    fn put(&self, entry: CachedPolicy) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(Policies::put(self, entry))
    }

    fn remove<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<bool, QueueError>> {
        Box::pin(Policies::remove(self, domain))
    }

    fn list(&self) -> Vec<Arc<CachedPolicy>> {
        Policies::list(self)
    }

    fn record_change(&self, domain: &Domain, change: Change, at: Timestamp) {
        self.changes().record(domain, change, at);
    }

    fn observe(&self, guard: Guard, name: &Domain, now: Now, at: Timestamp) -> bool {
        self.changes().observe(guard, name, now, at)
    }

    fn is_guarded(&self, guard: Guard, name: &Domain) -> bool {
        self.changes().is_guarded(guard, name)
    }
}

impl Tallies for Results {
    fn record(&self, at: Timestamp, result: SessionResult) {
        Results::record(self, at, result);
    }
}
