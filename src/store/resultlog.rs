//! The files behind `results`: one log per UTC day, appended at once, synced about once a second.
//!
//! A line is either one result with its count or a domain's whole tally; a file that has grown is
//! written anew as tallies, so neither disk nor start grow with the number of sessions. What could
//! not be written is written with the next snapshot of its day: memory is complete as long as the
//! process lives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::body::troubled;
use super::disk::{Disk, DiskFile, replace, sync_parent};
use super::ledger::newer;
use super::lines;
use super::notions::QueueError;
use crate::mail::Domain;
use crate::tlsrpt::SessionResult;
use crate::tlsrpt::report::Tally;

const KIND: &str = "results";
/// Between two syncs: what a power cut may cost of a statistic.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Results taken together: equal ones become one line.
const GROUP_MAX: usize = 4096;
/// Results waiting to be written; beyond it a snapshot takes their place.
pub(super) const WAITING_MAX: usize = 1 << 16;
/// A day's file is written anew beyond twice its last snapshot and this.
const SLACK_BYTES: u64 = 8 << 20;

/// The tallies in memory and what the writer must know beside them.
#[derive(Default)]
pub(super) struct Days {
    pub tallies: BTreeMap<Date, BTreeMap<Domain, Tally>>,
    /// Results on the way to the writer.
    pub waiting: usize,
    /// Days whose file lacks something.
    pub incomplete: BTreeSet<Date>,
}

impl Days {
    fn fold(&mut self, day: Date, result: &SessionResult, count: u64) {
        let domains = self.tallies.entry(day).or_default();
        let domain = &result.report_domain;
        let tally = domains.entry(domain.clone()).or_insert_with(|| Tally::new(domain.clone()));
        (0..count).for_each(|_| tally.fold(result));
    }

    /// Counts one result.
    pub(super) fn count(&mut self, day: Date, result: &SessionResult) {
        self.fold(day, result, 1);
    }
}

/// What the writer is asked.
pub(super) enum Work {
    Record(Date, Box<SessionResult>),
    ForgetBefore(Date, oneshot::Sender<Result<(), QueueError>>),
    Flush(oneshot::Sender<()>),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum LineOut<'a> {
    Result { count: u64, result: &'a SessionResult },
    Tally(&'a Tally),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum LineIn {
    Result { count: u64, result: SessionResult },
    Tally(Tally),
}

/// Reads all days below `dir`; what was damaged is told and its days are marked incomplete, so that
/// they are written anew. Blocking.
pub(super) fn read(dir: &Path) -> Result<(Days, Vec<String>), QueueError> {
    let (mut days, mut repaired) = (Days::default(), Vec::new());
    let trouble = |error: io::Error| troubled("cannot read", dir, &error);
    for entry in fs::read_dir(dir).map_err(trouble)? {
        let entry = entry.map_err(trouble)?;
        let name = entry.file_name();
        let day = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<Date>().ok());
        let Some(day) = day else { continue };
        let path = entry.path();
        let bytes = fs::read(&path).map_err(|error| troubled("cannot read", &path, &error))?;
        let lines = lines::parse(&bytes, KIND).map_err(|found| newer(&path, found))?;
        let mut lost = lines.damaged;
        if bytes.is_empty() {
            repaired
                .push(format!("{} is empty: sessions counted on that day, if any, are lost", path.display()));
            days.incomplete.insert(day);
        }
        for json in &lines.values {
            match serde_json::from_slice::<LineIn>(json) {
                Ok(LineIn::Result { count, result }) => days.fold(day, &result, count),
                Ok(LineIn::Tally(mut tally)) => {
                    tally.shrink_to_fit();
                    days.tallies.entry(day).or_default().insert(tally.report_domain.clone(), tally);
                }
                Err(_) => lost += 1,
            }
        }
        if lost > 0 {
            repaired.push(format!(
                "{lost} damaged entries of {} were dropped: the report of that day counts too few sessions",
                path.display()
            ));
        }
        if lines.torn {
            repaired.push(format!("an unfinished entry at the end of {} was cut off", path.display()));
        }
        if lost > 0 || lines.torn || lines.older {
            days.incomplete.insert(day);
        }
    }
    Ok((days, repaired))
}

/// The one writer of the files.
pub(super) struct Writer {
    days: Arc<Mutex<Days>>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: BTreeMap<Date, DayFile>,
    /// Last reported as failing.
    failing: bool,
}

struct DayFile {
    file: Box<dyn DiskFile>,
    len: u64,
    /// Its length when it was written anew.
    snapshot: u64,
    unsynced: bool,
}

impl Writer {
    pub(super) fn new(days: Arc<Mutex<Days>>, disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { days, disk, dir, open: BTreeMap::new(), failing: false }
    }

    /// Runs until the last handle is gone, then syncs once more.
    pub(super) async fn run(mut self, mut receiver: UnboundedReceiver<Work>) {
        let mut synced = Instant::now();
        loop {
            let first = if self.is_settled() {
                Ok(receiver.recv().await)
            } else {
                timeout(SYNC_EVERY.saturating_sub(synced.elapsed()), receiver.recv()).await
            };
            let first = match first {
                Ok(None) => break,
                Ok(work) => work,
                Err(_) => None,
            };
            let mut flushes = Vec::new();
            if let Some(first) = first {
                let more = std::iter::from_fn(|| receiver.try_recv().ok());
                let group: Vec<Work> = std::iter::once(first).chain(more.take(GROUP_MAX - 1)).collect();
                self.work(group, &mut flushes);
            }
            if synced.elapsed() >= SYNC_EVERY || !flushes.is_empty() {
                self.sync(&mut receiver, &mut flushes);
                synced = Instant::now();
            }
            for flush in flushes {
                let _ = flush.send(());
            }
        }
        self.sync(&mut receiver, &mut Vec::new());
    }

    /// Nothing written waits for a sync, and nothing for being written anew.
    fn is_settled(&self) -> bool {
        self.open.values().all(|file| !file.unsynced) && guard(&self.days).incomplete.is_empty()
    }

    fn work(&mut self, group: Vec<Work>, flushes: &mut Vec<oneshot::Sender<()>>) {
        let mut results: BTreeMap<(Date, Vec<u8>), (u64, Box<SessionResult>)> = BTreeMap::new();
        let mut taken = 0;
        for work in group {
            match work {
                Work::Record(day, result) => {
                    taken += 1;
                    // Equal results are equal text.
                    let text = serde_json::to_vec(&result).unwrap_or_default();
                    results.entry((day, text)).or_insert((0, result)).0 += 1;
                }
                Work::Flush(reply) => flushes.push(reply),
                Work::ForgetBefore(day, reply) => {
                    self.append(std::mem::take(&mut results));
                    let _ = reply.send(self.forget_before(day));
                }
            }
        }
        self.append(results);
        guard(&self.days).waiting -= taken;
    }

    fn append(&mut self, results: BTreeMap<(Date, Vec<u8>), (u64, Box<SessionResult>)>) {
        let mut texts: BTreeMap<Date, Vec<u8>> = BTreeMap::new();
        for ((day, _), (count, result)) in &results {
            let line = LineOut::Result { count: *count, result };
            let json = serde_json::to_vec(&line).unwrap_or_default();
            lines::render(&json, texts.entry(*day).or_default());
        }
        for (day, bytes) in texts {
            if guard(&self.days).incomplete.contains(&day) {
                // The snapshot that is due has them.
                continue;
            }
            if let Err(error) = self.append_day(day, &bytes) {
                self.trouble(day, &error);
            }
        }
    }

    fn append_day(&mut self, day: Date, bytes: &[u8]) -> io::Result<()> {
        let file = match self.open.entry(day) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(open_day(self.disk.as_ref(), &self.dir, day)?)
            }
        };
        file.file.write(&mut [IoSlice::new(bytes)])?;
        file.len += bytes.len() as u64;
        file.unsynced = true;
        Ok(())
    }

    /// Makes everything written durable, and writes anew what needs it.
    fn sync(&mut self, receiver: &mut UnboundedReceiver<Work>, flushes: &mut Vec<oneshot::Sender<()>>) {
        let mut failed = Vec::new();
        for (day, file) in &mut self.open {
            if std::mem::take(&mut file.unsynced)
                && let Err(error) = file.file.sync()
            {
                failed.push((*day, error));
            }
        }
        for (day, error) in failed {
            self.trouble(day, &error);
        }
        let grown = |file: &DayFile| file.len > 2 * file.snapshot + SLACK_BYTES;
        let grown: Vec<Date> =
            self.open.iter().filter(|(_, file)| grown(file)).map(|(day, _)| *day).collect();
        let due: BTreeSet<Date> = guard(&self.days).incomplete.iter().copied().chain(grown).collect();
        for day in due {
            match self.snapshot(day, receiver, flushes) {
                Ok(()) => self.failing = false,
                Err(error) => self.trouble(day, &error),
            }
        }
    }

    /// Writes a day's file anew from memory.
    fn snapshot(
        &mut self,
        day: Date,
        receiver: &mut UnboundedReceiver<Work>,
        flushes: &mut Vec<oneshot::Sender<()>>,
    ) -> io::Result<()> {
        let (tallies, waiting) = {
            // Whoever counts holds this lock while handing over to us: what waits is in the tallies,
            // what comes later is not.
            let mut days = guard(&self.days);
            days.incomplete.remove(&day);
            let tallies: Vec<Tally> =
                days.tallies.get(&day).map(|day| day.values().cloned().collect()).unwrap_or_default();
            let waiting: Vec<Work> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
            (tallies, waiting)
        };
        let (covered, rest): (Vec<Work>, Vec<Work>) =
            waiting.into_iter().partition(|work| matches!(work, Work::Record(of, _) if *of == day));
        guard(&self.days).waiting -= covered.len();
        let mut bytes = lines::header(KIND).into_bytes();
        // Each is let go once it is written: a day may have a hundred thousand.
        for tally in tallies {
            lines::render(&serde_json::to_vec(&LineOut::Tally(&tally))?, &mut bytes);
        }
        self.open.remove(&day);
        let path = self.dir.join(file_name(day));
        let written = replace(self.disk.as_ref(), &path, &bytes);
        self.work(rest, flushes);
        written?;
        let len = bytes.len() as u64;
        let file = self.disk.append(&path, len)?;
        self.open.insert(day, DayFile { file, len, snapshot: len, unsynced: false });
        Ok(())
    }

    fn forget_before(&mut self, day: Date) -> Result<(), QueueError> {
        {
            let mut days = guard(&self.days);
            days.tallies = days.tallies.split_off(&day);
            days.incomplete = days.incomplete.split_off(&day);
        }
        self.open = self.open.split_off(&day);
        let trouble = |error: io::Error| troubled("cannot clean", &self.dir, &error);
        for entry in fs::read_dir(&self.dir).map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            let name = entry.file_name();
            let of = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<Date>().ok());
            if of.is_some_and(|of| of < day) {
                self.disk.remove(&entry.path()).map_err(trouble)?;
            }
        }
        self.disk.sync_dir(&self.dir).map_err(trouble)
    }

    fn trouble(&mut self, day: Date, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%day, %error, "TLS-RPT results are in memory only; writing is tried again");
        }
        self.open.remove(&day);
        guard(&self.days).incomplete.insert(day);
    }
}

fn open_day(disk: &dyn Disk, dir: &Path, day: Date) -> io::Result<DayFile> {
    let path = dir.join(file_name(day));
    match fs::metadata(&path) {
        Ok(metadata) => {
            let len = metadata.len();
            Ok(DayFile { file: disk.append(&path, len)?, len, snapshot: 0, unsynced: false })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut file = disk.create(&path)?;
            let header = lines::header(KIND);
            file.write(&mut [IoSlice::new(header.as_bytes())])?;
            sync_parent(disk, &path)?;
            Ok(DayFile { file, len: header.len() as u64, snapshot: 0, unsynced: true })
        }
        Err(error) => Err(error),
    }
}

fn file_name(day: Date) -> String {
    format!("{day}.log")
}

/// The days, for a moment.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
