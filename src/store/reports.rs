//! The state of outgoing TLS-RPT reports: what was sent, to whom, with what result. A report is
//! never sent twice by us and never forgotten, whatever crashes.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::digests::Digests;
use super::ground::Ground;
use super::ledger::Ledger;
use super::queue::QueueError;
use super::targets::Targets;
use crate::mail::Domain;
use crate::queue::QueueId;

/// Entries looked at while all others wait.
const LOOKED_AT_ONCE: usize = 1024;
/// Removals under way at a time.
const REMOVED_AT_ONCE: usize = 256;

/// The reports. Cheap to clone; reads are from memory.
#[derive(Clone)]
pub struct Reports {
    inner: Arc<Ledger<ReportEntry>>,
    targets: Targets,
    digests: Digests,
}

/// One report: a day and a report domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportEntry {
    /// The UTC day it covers.
    pub day: Date,
    /// Whose `_smtp._tls` record it goes to.
    pub domain: Domain,
    /// Unique; the same in every retry and for every rua.
    pub report_id: String,
    /// When it was first due.
    pub started_at: Timestamp,
    /// One per target named in the record, in its order; empty when the record was gone.
    pub targets: Vec<RuaState>,
    /// Why nothing is sent, if so: record gone, no usable target.
    pub note: Option<String>,
    /// The report text as sent (JSON), for `report show`.
    pub json: String,
}

/// How it stands with one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuaState {
    /// `mailto:` or `https:` URI as published.
    pub rua: String,
    /// How it stands.
    pub status: RuaStatus,
    /// Tries so far.
    pub attempts: u32,
    /// The last thing that happened, one sentence.
    pub last: Option<String>,
}

/// How it stands with one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuaStatus {
    /// To be tried at this instant.
    Waiting(Timestamp),
    /// Handed to our own queue under this id; delivery is the queue's business now.
    Queued(QueueId),
    /// The endpoint answered 2xx.
    Accepted,
    /// 24 hours over (RFC 8460 §5.5), or the target can never work.
    GivenUp,
    /// Not sent, by a rule of this relay's operator or its own.
    Withheld,
}

impl ReportEntry {
    /// The entry without its text, for listings.
    #[must_use]
    pub fn without_text(&self) -> Self {
        Self {
            day: self.day,
            domain: self.domain.clone(),
            report_id: self.report_id.clone(),
            started_at: self.started_at,
            targets: self.targets.clone(),
            note: self.note.clone(),
            json: String::new(),
        }
    }
}

impl Reports {
    /// Opens or creates `reports`, `report-targets`, `report-mails` and `digests` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), data_dir)
    }

    /// [`Reports::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Reports::open`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, mut repaired) = Ledger::open(ground, &data_dir.join("reports"), "reports")?;
        let (targets, more) = Targets::open_over(ground, data_dir)?;
        repaired.extend(more);
        let (digests, more) = Digests::open_over(ground, data_dir)?;
        repaired.extend(more);
        Ok((Self { inner: Arc::new(ledger), targets, digests }, repaired))
    }

    /// How targets stand, and what became of report mail.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Which daily digests were mailed.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Keeps an entry (by day and domain); durable when it returns.
    ///
    /// # Errors
    /// [`QueueError`]; the entry is in memory all the same.
    pub async fn put(&self, entry: ReportEntry) -> Result<(), QueueError> {
        self.inner.put(key(entry.day, &entry.domain), entry).await
    }

    /// One report.
    pub fn get(&self, day: Date, domain: &Domain) -> Option<Arc<ReportEntry>> {
        self.inner.get(&key(day, domain))
    }

    /// All reports, latest day first, then by domain.
    pub fn list(&self) -> Vec<Arc<ReportEntry>> {
        let mut all = self.inner.list();
        all.sort_by(|a, b| b.day.cmp(&a.day).then_with(|| a.domain.cmp(&b.domain)));
        all
    }

    /// A page of at most `max` reports that are `wanted`, latest day first, then by domain, from behind
    /// `after` on; and whether there are more. Takes time with what it looks at, never with all there is.
    pub fn page(
        &self,
        after: Option<&(Date, Domain)>,
        day: Option<Date>,
        domain: Option<&Domain>,
        max: usize,
        wanted: impl Fn(&ReportEntry) -> bool,
    ) -> (Vec<Arc<ReportEntry>>, bool) {
        let mut found = Vec::new();
        // A blank follows the day in a key, and `!` follows the blank.
        let mut cursor = match (after, day) {
            (Some((day, domain)), _) => Some((day.to_string(), key(*day, domain))),
            (None, Some(day)) => Some((day.to_string(), format!("{day} "))),
            (None, None) => self.inner.last().map(|last| (last.day.to_string(), format!("{} ", last.day))),
        };
        while let Some((today, from)) = cursor.take() {
            let mut from = match domain {
                // Of one domain there is one key a day, found at once.
                Some(domain) => {
                    let key = format!("{today} {domain}");
                    let entry = self.inner.get(&key).filter(|entry| key > from && wanted(entry));
                    found.extend(entry);
                    format!("{today}!")
                }
                None => from,
            };
            loop {
                let some = self.inner.between(&from, &format!("{today}!"), LOOKED_AT_ONCE);
                let Some((last, _)) = some.last() else { break };
                from.clone_from(last);
                found.extend(some.into_iter().map(|(_, entry)| entry).filter(|entry| wanted(entry)));
                if found.len() > max {
                    break;
                }
            }
            if found.len() > max {
                break;
            }
            if day.is_none() {
                let before = self.inner.key_before(&today);
                let before = before.as_deref().and_then(|key| key.split_once(' '));
                cursor = before.map(|(day, _)| (day.to_owned(), format!("{day} ")));
            }
        }
        let more = found.len() > max;
        found.truncate(max);
        (found, more)
    }

    /// The reports of a day, by domain.
    pub fn of_day(&self, day: Date) -> Vec<Arc<ReportEntry>> {
        let all = self.inner.between(&format!("{day} "), &format!("{day}!"), usize::MAX);
        all.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Forgets days before `day`.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn forget_before(&self, day: Date) -> Result<(), QueueError> {
        let old = self.inner.list().into_iter().filter(|entry| entry.day < day);
        // Together, so that they share syncs: there may be a hundred thousand.
        let removals =
            old.map(|entry| async move { self.inner.remove(&key(entry.day, &entry.domain)).await });
        stream::iter(removals).buffer_unordered(REMOVED_AT_ONCE).try_for_each(|_| ready(Ok(()))).await
    }
}

fn key(day: Date, domain: &Domain) -> String {
    format!("{day} {domain}")
}
