//! Which daily digests were mailed, so that a restart mails none twice and none is forgotten.
//!
//! The queue id is kept before the mail is queued: cut short between the two, it is looked up in the
//! queue. Called by `reporting`.

use std::path::Path;
use std::sync::Arc;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::ground::Ground;
use super::ledger::Ledger;
use super::queue::QueueError;
use crate::queue::QueueId;

/// Days remembered.
const DAYS_KEPT: i64 = 30;

/// The digests. Cheap to clone.
#[derive(Clone)]
pub struct Digests {
    inner: Arc<Ledger<Mailed>>,
}

/// One day's digest on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailed {
    /// The UTC day it is about.
    pub day: Date,
    /// The mail in our queue.
    pub id: QueueId,
    /// The queue has it. Until then it is under way.
    pub queued: bool,
}

impl Digests {
    /// Opens or creates `digests` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, repaired) = Ledger::open(ground, &data_dir.join("digests"), "digests")?;
        Ok((Self { inner: Arc::new(ledger) }, repaired))
    }

    /// How it stands with a day.
    pub fn get(&self, day: Date) -> Option<Arc<Mailed>> {
        self.inner.get(&day.to_string())
    }

    /// Keeps how it stands; durable when it returns.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn put(&self, mailed: Mailed) -> Result<(), QueueError> {
        let oldest = mailed.day.checked_sub(DAYS_KEPT.days()).unwrap_or(Date::MIN);
        for key in self.inner.keys(|known| known.day < oldest) {
            self.inner.post(key, None);
        }
        self.inner.put(mailed.day.to_string(), mailed).await
    }
}
