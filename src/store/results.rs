//! TLS-RPT tallies by UTC day and report domain (RFC 8460 §4.1); survive restart and crash.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use super::queue::QueueError;
use crate::mail::Domain;
use crate::tlsrpt::SessionResult;
use crate::tlsrpt::report::Tally;

/// The tallies. Cheap to clone. Recording never waits for the disk (invariant I8): a writer thread
/// appends at once and syncs about once a second.
#[derive(Clone)]
pub struct Results {
    inner: Arc<()>,
}

impl Results {
    /// Opens or creates `results` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        todo!()
    }

    /// Counts one session's result under the UTC day of `at`.
    pub fn record(&self, at: Timestamp, result: SessionResult) {
        todo!()
    }

    /// Days with results, oldest first.
    pub fn days(&self) -> Vec<Date> {
        todo!()
    }

    /// Report domains of a day, in order.
    pub fn domains(&self, day: Date) -> Vec<Domain> {
        todo!()
    }

    /// One domain's tally of a day.
    pub fn tally(&self, day: Date, domain: &Domain) -> Option<Tally> {
        todo!()
    }

    /// Forgets days before `day`.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn forget_before(&self, day: Date) -> Result<(), QueueError> {
        todo!()
    }

    /// Waits until everything recorded so far is on stable storage.
    pub async fn flush(&self) {
        todo!()
    }
}
