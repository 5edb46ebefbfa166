//! TLS-RPT tallies by UTC day and report domain (RFC 8460 §4.1); survive restart and crash.
//!
//! Counted in memory at once; `resultlog` writes behind. Which sessions count is `delivery`'s
//! business, what a report says is `reporting`'s.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::disk::sync_parent;
use super::ground::{Ground, Running};
use super::queue::QueueError;
use super::resultlog::{self, Days, WAITING_MAX, Work, Writer, guard};
use crate::mail::Domain;
use crate::tlsrpt::SessionResult;
use crate::tlsrpt::report::Tally;

/// The tallies. Cheap to clone. Recording never waits for the disk (invariant I8): a writer of its own
/// appends at once and syncs about once a second.
#[derive(Clone)]
pub struct Results {
    inner: Arc<Inner>,
}

struct Inner {
    days: Arc<Mutex<Days>>,
    sender: Mutex<Option<UnboundedSender<Work>>>,
    running: Mutex<Option<Running<()>>>,
}

impl Results {
    /// Opens or creates `results` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), data_dir)
    }

    /// [`Results::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Results::open`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let disk = Arc::clone(&ground.disk);
        let dir = data_dir.join("results");
        disk.create_dir(&dir)
            .and_then(|()| sync_parent(disk.as_ref(), &dir))
            .map_err(|error| QueueError::Storage(format!("cannot create {}: {error}", dir.display())))?;
        let (days, repaired) = resultlog::read(&dir)?;
        let days = Arc::new(Mutex::new(days));
        let writer = Writer::new(Arc::clone(&days), disk, dir);
        let (sender, receiver) = unbounded_channel();
        let running = ground.loops.start("results", writer.run(receiver))?;
        let (sender, running) = (Mutex::new(Some(sender)), Mutex::new(Some(running)));
        Ok((Self { inner: Arc::new(Inner { days, sender, running }) }, repaired))
    }

    /// Counts one session's result under the UTC day of `at`.
    pub fn record(&self, at: Timestamp, result: SessionResult) {
        let day = at.to_zoned(TimeZone::UTC).date();
        let mut days = guard(&self.inner.days);
        days.count(day, &result);
        if days.waiting >= WAITING_MAX {
            // The disk does not keep up: the day is written as a whole when it can.
            days.incomplete.insert(day);
            return;
        }
        days.waiting += 1;
        self.inner.send(Work::Record(day, Box::new(result)));
    }

    /// Days with results, oldest first.
    pub fn days(&self) -> Vec<Date> {
        guard(&self.inner.days).tallies.keys().copied().collect()
    }

    /// Report domains of a day, in order.
    pub fn domains(&self, day: Date) -> Vec<Domain> {
        guard(&self.inner.days).tallies.get(&day).map(|day| day.keys().cloned().collect()).unwrap_or_default()
    }

    /// How many report domains a day has.
    pub fn count(&self, day: Date) -> usize {
        guard(&self.inner.days).tallies.get(&day).map_or(0, BTreeMap::len)
    }

    /// Report domains of a day after `after`, at most `max`, in order: each with its sessions and how many of
    /// them failed.
    pub fn sums(&self, day: Date, after: Option<&Domain>, max: usize) -> Vec<(Domain, u64, u64)> {
        let days = guard(&self.inner.days);
        let Some(tallies) = days.tallies.get(&day) else { return Vec::new() };
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let failed = |tally: &Tally| {
            tally.policies.iter().fold(0, |sum: u64, policy| sum.saturating_add(policy.failed))
        };
        tallies
            .range::<Domain, _>((lower, Bound::Unbounded))
            .take(max)
            .map(|(domain, tally)| (domain.clone(), tally.sessions(), failed(tally)))
            .collect()
    }

    /// One domain's tally of a day.
    pub fn tally(&self, day: Date, domain: &Domain) -> Option<Tally> {
        guard(&self.inner.days).tallies.get(&day)?.get(domain).cloned()
    }

    /// Forgets days before `day`.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn forget_before(&self, day: Date) -> Result<(), QueueError> {
        let (reply, answer) = oneshot::channel();
        self.inner.send(Work::ForgetBefore(day, reply));
        answer.await.unwrap_or_else(|_| Err(QueueError::Storage("the results are closed".to_owned())))
    }

    /// Waits until everything recorded so far is on stable storage, or its writing failed and was
    /// logged.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        self.inner.send(Work::Flush(reply));
        let _ = answer.await;
    }
}

impl Inner {
    fn send(&self, work: Work) {
        if let Some(sender) = guard(&self.sender).as_ref() {
            let _ = sender.send(work);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        guard(&self.sender).take();
        if let Some(running) = guard(&self.running).take() {
            running.join();
        }
    }
}
