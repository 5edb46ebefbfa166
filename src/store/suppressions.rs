//! Recipients that do not exist, as their own mail systems said: remembered for a while, over restarts.
//!
//! Keeps what it is told and answers who is on the list; who is told of it, and what becomes of mail to
//! them, is `delivery`'s and `submission`'s business. Bounded in number and time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Ground;
use super::ledger::Ledger;
use super::queue::QueueError;
use crate::mail::Mailbox;
use crate::mail::header::sanitize;
use crate::queue::retry::after;

/// Recipients remembered at most; some 300 octets each. Beyond it the ones that end first go.
pub const ENTRIES_MAX: usize = 50_000;
/// Characters kept of why a recipient is on the list.
const REASON_CHARS_MAX: usize = 200;

/// `[delivery.suppression]`, where it is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuppressionOptions {
    /// Hard bounces after which a recipient is on the list.
    pub after: u32,
    /// How long, from the last one.
    pub keep: Duration,
    /// What becomes of mail to such a recipient.
    pub answer: SuppressionAnswer,
}

/// What becomes of mail to a recipient on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuppressionAnswer {
    /// Refused at RCPT.
    #[default]
    Refuse,
    /// Accepted, and bounced without a try.
    Bounce,
}

/// Who put a recipient on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuppressedBy {
    /// Hard bounces.
    Bounces,
    /// An operator.
    Operator,
}

/// A recipient, suppressed or on the way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// Whom.
    pub address: Mailbox,
    /// By whom.
    pub by: SuppressedBy,
    /// Hard bounces so far.
    pub bounces: u32,
    /// The first one, or when an operator added it.
    pub first_at: Timestamp,
    /// The last one.
    pub last_at: Timestamp,
    /// On the list from this instant; absent while there were too few bounces.
    pub since: Option<Timestamp>,
    /// Forgotten at this instant.
    pub until: Timestamp,
    /// The last refusal, or the operator's reason. One line of ASCII.
    pub reason: String,
}

impl Suppressed {
    /// Whether mail to it is suppressed at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.until && self.since.is_some_and(|since| since <= now)
    }

    /// Why, for the submitter, the log and the bounce. One line of ASCII.
    pub fn sentence(&self) -> String {
        let since = self.since.unwrap_or(self.last_at).strftime("%Y-%m-%d");
        let until = self.until.strftime("%Y-%m-%d");
        let because = match self.by {
            SuppressedBy::Bounces => "its mail system said",
            SuppressedBy::Operator => "added by an operator",
        };
        let reason = &self.reason;
        format!(
            "the recipient is on this relay's suppression list since {since}, until {until}; {because}: {reason}"
        )
    }
}

/// The durable list. Cheap to clone; reads are from memory.
#[derive(Clone)]
pub struct Suppressions {
    inner: Arc<Ledger<Suppressed>>,
}

impl Suppressions {
    /// Opens or creates `suppressions` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), data_dir)
    }

    /// [`Suppressions::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Suppressions::open`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, repaired) = Ledger::open(ground, &data_dir.join("suppressions"), "suppressions")?;
        Ok((Self { inner: Arc::new(ledger) }, repaired))
    }

    /// What is known of a recipient at `now`.
    pub fn get(&self, address: &Mailbox, now: Timestamp) -> Option<Arc<Suppressed>> {
        self.inner.get(&address.to_string()).filter(|entry| now < entry.until)
    }

    /// The entry by which mail to a recipient is suppressed at `now`.
    pub fn active(&self, address: &Mailbox, now: Timestamp) -> Option<Arc<Suppressed>> {
        self.get(address, now).filter(|entry| entry.is_active(now))
    }

    /// Everything known at `now`, in order of address.
    pub fn list(&self, now: Timestamp) -> Vec<Arc<Suppressed>> {
        let mut entries = self.inner.list();
        entries.retain(|entry| now < entry.until);
        entries
    }

    /// Counts a hard bounce; the entry if the recipient is on the list from now on.
    ///
    /// # Errors
    /// [`QueueError`]; counted in memory all the same.
    pub async fn bounced(
        &self,
        address: &Mailbox,
        reason: &str,
        now: Timestamp,
        options: &SuppressionOptions,
    ) -> Result<Option<Suppressed>, QueueError> {
        let known = self.get(address, now);
        if known.as_ref().is_some_and(|known| known.by == SuppressedBy::Operator) {
            return Ok(None);
        }
        let bounces = known.as_ref().map_or(0, |known| known.bounces).saturating_add(1);
        let before = known.as_ref().and_then(|known| known.since);
        let since = before.or((bounces >= options.after).then_some(now));
        let entry = Suppressed {
            address: address.clone(),
            by: SuppressedBy::Bounces,
            bounces,
            first_at: known.as_ref().map_or(now, |known| known.first_at),
            last_at: now,
            since,
            until: after(now, options.keep),
            reason: one_line(reason),
        };
        self.put(entry.clone(), now).await?;
        Ok((before.is_none() && since.is_some()).then_some(entry))
    }

    /// A message reached the recipient: it exists. Whether there was something to forget; what an
    /// operator added stays.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn delivered(&self, address: &Mailbox, now: Timestamp) -> Result<bool, QueueError> {
        match self.get(address, now) {
            Some(known) if known.by == SuppressedBy::Bounces => self.remove(address).await,
            _ => Ok(false),
        }
    }

    /// Puts a recipient on the list by hand.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn add(
        &self,
        address: Mailbox,
        reason: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Suppressed, QueueError> {
        let entry = Suppressed {
            bounces: self.get(&address, now).map_or(0, |known| known.bounces),
            address,
            by: SuppressedBy::Operator,
            first_at: now,
            last_at: now,
            since: Some(now),
            until,
            reason: one_line(reason),
        };
        self.put(entry.clone(), now).await?;
        Ok(entry)
    }

    /// Forgets a recipient; whether it was known.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn remove(&self, address: &Mailbox) -> Result<bool, QueueError> {
        self.inner.remove(&address.to_string()).await
    }

    async fn put(&self, entry: Suppressed, now: Timestamp) -> Result<(), QueueError> {
        let key = entry.address.to_string();
        if self.inner.len() >= ENTRIES_MAX && self.inner.get(&key).is_none() {
            self.make_room(now).await?;
        }
        self.inner.put(key, entry).await
    }

    /// Drops what has ended; if nothing has, a hundredth of what ends first.
    async fn make_room(&self, now: Timestamp) -> Result<(), QueueError> {
        let mut entries = self.inner.list();
        entries.sort_by_key(|entry| entry.until);
        let ended = entries.partition_point(|entry| entry.until <= now);
        entries.truncate(ended.max(ENTRIES_MAX / 100));
        let removals = entries.iter().map(|entry| self.remove(&entry.address));
        futures_util::future::try_join_all(removals).await.map(drop)
    }
}

fn one_line(text: &str) -> String {
    let ascii = sanitize(text).replace(|c: char| !c.is_ascii(), "?");
    ascii.chars().take(REASON_CHARS_MAX).collect()
}
