//! TLS-RPT tallies by UTC day and report domain (RFC 8460 §4.1); survive restart and crash.
//!
//! Recording never waits for the disk (invariant I8): a writer thread appends each result to its
//! day's log, folds it into the tally in memory, and syncs about once a second. A log that has grown
//! is folded into a snapshot, so that neither the disk nor the next start grows with the sessions of a
//! day. Files: `results/DAY.GENERATION.log`, and `.snap` with everything before that generation.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::disk::{self, Disk, DiskFile, RealDisk};
use super::lines;
use super::queue::QueueError;
use crate::mail::Domain;
use crate::tlsrpt::SessionResult;
use crate::tlsrpt::report::Tally;

/// A log beyond this is folded into a snapshot.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Results that may wait for the writer; beyond it they are dropped and the loss is said.
const WAITING_MAX: usize = 100_000;
/// How long a written result may wait for its sync.
const SYNC_EVERY: Duration = Duration::from_secs(1);

type Tallies = BTreeMap<(Date, Domain), Tally>;

/// The tallies. Cheap to clone.
#[derive(Clone)]
pub struct Results {
    tallies: Arc<Mutex<Tallies>>,
    orders: mpsc::Sender<Order>,
    waiting: Arc<AtomicUsize>,
}

enum Order {
    Record(Date, Box<SessionResult>),
    Flush(oneshot::Sender<()>),
    Forget(Date, oneshot::Sender<io::Result<()>>),
}

impl Results {
    /// Opens or creates `results` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_on(Arc::new(RealDisk), data_dir.join("results"), LOG_BYTES_MAX)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        log_bytes_max: u64,
    ) -> Result<(Self, Vec<String>), QueueError> {
        let trouble = |error: io::Error| QueueError::Storage(format!("{}: {error}", dir.display()));
        disk.create_dir(&dir).map_err(trouble)?;
        let mut tallies = Tallies::new();
        let mut repairs = Vec::new();
        let mut days = BTreeMap::new();
        for (day, files) in scan(&dir).map_err(trouble)? {
            let generation = load(&dir, day, &files, &mut tallies, &mut repairs).map_err(trouble)?;
            days.insert(day, Day { generation, log: None, len: 0, stale: false });
        }
        let tallies = Arc::new(Mutex::new(tallies));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (orders, inbox) = mpsc::channel();
        let writer =
            Writer { disk, dir, log_bytes_max, tallies: tallies.clone(), waiting: waiting.clone(), days };
        thread::Builder::new()
            .name("tls results".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(|error| QueueError::Storage(error.to_string()))?;
        Ok((Self { tallies, orders, waiting }, repairs))
    }

    fn lock(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one session's result under the UTC day of `at`. Seen by the readers below within
    /// moments, and surely after [`Results::flush`].
    pub fn record(&self, at: Timestamp, result: SessionResult) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            warn!(domain = %result.report_domain, "TLS-RPT result dropped: the writer cannot keep up");
            return;
        }
        let day = at.to_zoned(TimeZone::UTC).date();
        if self.orders.send(Order::Record(day, Box::new(result))).is_err() {
            error!("TLS-RPT result dropped: its writer has stopped");
        }
    }

    /// Days with results, oldest first.
    pub fn days(&self) -> Vec<Date> {
        let mut days: Vec<Date> = self.lock().keys().map(|(day, _)| *day).collect();
        days.dedup();
        days
    }

    /// Report domains of a day, in order.
    pub fn domains(&self, day: Date) -> Vec<Domain> {
        self.lock().keys().filter(|(other, _)| *other == day).map(|(_, domain)| domain.clone()).collect()
    }

    /// One domain's tally of a day.
    pub fn tally(&self, day: Date, domain: &Domain) -> Option<Tally> {
        self.lock().get(&(day, domain.clone())).cloned()
    }

    /// Forgets days before `day`.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub async fn forget_before(&self, day: Date) -> Result<(), QueueError> {
        let (done, forgotten) = oneshot::channel();
        // A stopped writer answers by dropping `done`.
        let _ = self.orders.send(Order::Forget(day, done));
        match forgotten.await {
            Ok(result) => result.map_err(|error| QueueError::Storage(error.to_string())),
            Err(_) => Err(QueueError::Storage("the writer of TLS results has stopped".to_owned())),
        }
    }

    /// Waits until everything recorded so far is on stable storage, or its trouble is in the log.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.orders.send(Order::Flush(done)).is_ok() {
            let _ = flushed.await;
        }
    }
}

/// The generations on disk of each day: `(generation, is a snapshot)`.
fn scan(dir: &Path) -> io::Result<BTreeMap<Date, Vec<(u64, bool)>>> {
    let mut days: BTreeMap<Date, Vec<(u64, bool)>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let mut parts = name.split('.');
        let (day, generation, kind) = (parts.next(), parts.next(), parts.next());
        let Some(day) = day.and_then(|day| day.parse::<Date>().ok()) else { continue };
        let Some(generation) = generation.and_then(|number| number.parse().ok()) else { continue };
        match (kind, parts.next()) {
            (Some("log"), None) => days.entry(day).or_default().push((generation, false)),
            (Some("snap"), None) => days.entry(day).or_default().push((generation, true)),
            _ => {}
        }
    }
    Ok(days)
}

/// Folds a day's files; returns the generation to write next, beyond all on disk, so that a torn
/// tail is never appended to.
fn load(
    dir: &Path,
    day: Date,
    files: &[(u64, bool)],
    tallies: &mut Tallies,
    repairs: &mut Vec<String>,
) -> io::Result<u64> {
    let snapshot = files.iter().filter(|(_, snap)| *snap).map(|(generation, _)| *generation).max();
    let mut damaged = 0;
    if let Some(generation) = snapshot {
        let text = std::fs::read(path(dir, day, generation, "snap"))?;
        let (read, bad) = lines::read::<Tally>(&text);
        damaged += bad;
        tallies.extend(read.into_iter().map(|tally| ((day, tally.report_domain.clone()), tally)));
    }
    let from = snapshot.unwrap_or(0);
    let mut logs: Vec<u64> =
        files.iter().filter(|(generation, snap)| !snap && *generation >= from).map(|(g, _)| *g).collect();
    logs.sort_unstable();
    for generation in &logs {
        let text = std::fs::read(path(dir, day, *generation, "log"))?;
        let (read, bad) = lines::read::<SessionResult>(&text);
        damaged += bad;
        for result in read {
            fold(tallies, day, &result);
        }
    }
    if damaged > 0 {
        repairs.push(format!("TLS results of {day}: {damaged} damaged record(s) were dropped"));
    }
    Ok(files.iter().map(|(generation, _)| generation + 1).max().unwrap_or(0))
}

fn fold(tallies: &mut Tallies, day: Date, result: &SessionResult) {
    tallies
        .entry((day, result.report_domain.clone()))
        .or_insert_with(|| Tally::new(result.report_domain.clone()))
        .fold(result);
}

fn path(dir: &Path, day: Date, generation: u64, kind: &str) -> PathBuf {
    dir.join(format!("{day}.{generation}.{kind}"))
}

/// A day as the writer sees it.
struct Day {
    /// Of the log written now or next.
    generation: u64,
    log: Option<Box<dyn DiskFile>>,
    len: u64,
    /// Something of this day is not on disk: a snapshot is due, which holds everything.
    stale: bool,
}

struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log_bytes_max: u64,
    tallies: Arc<Mutex<Tallies>>,
    waiting: Arc<AtomicUsize>,
    days: BTreeMap<Date, Day>,
}

impl Writer {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        let mut unsynced: Vec<Date> = Vec::new();
        loop {
            let order = if unsynced.is_empty() {
                inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(SYNC_EVERY)
            };
            match order {
                Ok(Order::Record(day, result)) => {
                    self.record(day, &result);
                    if !unsynced.contains(&day) {
                        unsynced.push(day);
                    }
                    // Whoever keeps recording must not keep the sync away.
                    if self.days.get(&day).is_some_and(|day| day.len >= self.log_bytes_max) {
                        self.sync(&mut unsynced);
                    }
                }
                Ok(Order::Flush(done)) => {
                    self.sync(&mut unsynced);
                    let _ = done.send(());
                }
                Ok(Order::Forget(before, done)) => {
                    let _ = done.send(self.forget(before));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.sync(&mut unsynced),
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.sync(&mut unsynced),
            }
        }
    }

    fn record(&mut self, date: Date, result: &SessionResult) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        fold(&mut self.tallies.lock().unwrap_or_else(PoisonError::into_inner), date, result);
        let day = self.days.entry(date).or_insert(Day { generation: 0, log: None, len: 0, stale: false });
        if day.stale {
            return;
        }
        if let Err(error) = append(self.disk.as_ref(), &self.dir, date, day, result) {
            warn!(%error, %date, "TLS results not written; kept in memory and tried again");
            day.log = None;
            day.stale = true;
        }
    }

    /// Makes what was written durable; a day in trouble, or with a long log, gets a snapshot.
    fn sync(&mut self, unsynced: &mut Vec<Date>) {
        let newest = self.days.keys().next_back().copied();
        unsynced.retain(|date| {
            let Some(day) = self.days.get_mut(date) else { return false };
            if let Some(log) = &mut day.log
                && let Err(error) = log.sync()
            {
                // A file whose sync failed is never trusted again.
                warn!(%error, %date, "TLS results not synced; kept in memory and tried again");
                day.log = None;
                day.stale = true;
            }
            if day.stale || day.len >= self.log_bytes_max {
                let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
                let content = snapshot(&tallies, *date);
                drop(tallies);
                let done = content
                    .map_err(io::Error::other)
                    .and_then(|content| replace(self.disk.as_ref(), &self.dir, *date, day, &content));
                if let Err(error) = done {
                    warn!(%error, %date, "TLS results not folded; tried again");
                    return true;
                }
            }
            // Only the newest day keeps its file open.
            if newest != Some(*date) {
                day.log = None;
                day.generation += 1;
                day.len = 0;
            }
            false
        });
    }

    fn forget(&mut self, before: Date) -> io::Result<()> {
        let gone: Vec<Date> = self.days.range(..before).map(|(day, _)| *day).collect();
        for day in gone {
            for (generation, snap) in scan(&self.dir)?.remove(&day).unwrap_or_default() {
                let kind = if snap { "snap" } else { "log" };
                self.disk.remove(&path(&self.dir, day, generation, kind))?;
            }
            self.days.remove(&day);
        }
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.retain(|(day, _), _| *day >= before);
        drop(tallies);
        self.disk.sync_dir(&self.dir)
    }
}

fn append(disk: &dyn Disk, dir: &Path, date: Date, day: &mut Day, result: &SessionResult) -> io::Result<()> {
    let mut line = Vec::new();
    lines::push(&mut line, result).map_err(io::Error::other)?;
    if day.log.is_none() {
        let path = path(dir, date, day.generation, "log");
        day.log = Some(disk.create(&path)?);
        day.len = 0;
        disk.sync_dir(dir)?;
    }
    if let Some(log) = &mut day.log {
        log.write(&mut [IoSlice::new(&line)])?;
        day.len += line.len() as u64;
    }
    Ok(())
}

fn snapshot(tallies: &Tallies, date: Date) -> Result<Vec<u8>, serde_json::Error> {
    let mut content = Vec::new();
    for ((_, _), tally) in tallies.iter().filter(|((day, _), _)| *day == date) {
        lines::push(&mut content, tally)?;
    }
    Ok(content)
}

/// Writes the snapshot of the next generation, then drops what it replaces.
fn replace(disk: &dyn Disk, dir: &Path, date: Date, day: &mut Day, content: &[u8]) -> io::Result<()> {
    let next = day.generation + 1;
    disk::replace(disk, &path(dir, date, next, "snap"), content)?;
    (day.generation, day.log, day.len, day.stale) = (next, None, 0, false);
    for (generation, snap) in scan(dir)?.remove(&date).unwrap_or_default() {
        if generation < next {
            disk.remove(&path(dir, date, generation, if snap { "snap" } else { "log" }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
