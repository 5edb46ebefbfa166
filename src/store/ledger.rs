//! A small durable map: an append-only file of checksummed lines, all of it in memory.
//!
//! A put is one line and one sync, shared by all that wait (group commit). When the file is mostly
//! outdated it is written anew (temporary file, sync, rename). A damaged line costs its entry, never
//! the map. After a failed write the next one writes the whole file anew, so nothing in memory is
//! lost while the process lives. For maps of some thousand entries: policies, reports.

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::body::troubled;
use super::disk::{Disk, DiskFile, remedy, replace};
use super::format;
use super::ground::{Ground, Running};
use super::lines;
use super::notions::QueueError;

/// Outdated octets tolerated beyond as many as are current.
const SLACK_BYTES: u64 = 1 << 20;
/// Entries written in one step at most.
const GROUP_MAX: usize = 256;

/// See the file's header.
pub(super) struct Ledger<V> {
    map: Arc<Mutex<Map<V>>>,
    sender: Mutex<Option<UnboundedSender<Work>>>,
    running: Option<Running<()>>,
}

type Map<V> = BTreeMap<String, Arc<V>>;

/// Where the writer says how it went.
type Answer = oneshot::Receiver<Result<(), QueueError>>;

struct Work {
    key: String,
    line: Vec<u8>,
    removes: bool,
    reply: oneshot::Sender<Result<(), QueueError>>,
}

#[derive(Serialize)]
struct LineOut<'a, V> {
    key: &'a str,
    /// Absent when the entry was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a V>,
}

#[derive(Deserialize)]
struct LineIn<V> {
    key: String,
    value: Option<V>,
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Ledger<V> {
    /// Opens or creates `dir/kind.log`; returns what was repaired. Blocking.
    pub(super) fn open(ground: &Ground, dir: &Path, kind: &str) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_some(ground, dir, kind, |_| true)
    }

    /// [`Ledger::open`] with those entries only that are to be kept; the others leave the file too.
    pub(super) fn open_some(
        ground: &Ground,
        dir: &Path,
        kind: &str,
        keep: impl Fn(&V) -> bool,
    ) -> Result<(Self, Vec<String>), QueueError> {
        let disk = Arc::clone(&ground.disk);
        let path = dir.join(format!("{kind}.log"));
        let begun = dir.is_dir();
        let made = disk.create_dir(dir).and_then(|()| super::disk::sync_parent(disk.as_ref(), dir));
        made.map_err(|error| storage("cannot create", dir, &error))?;
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| storage("cannot read", &path, &error))?,
        };
        let mut repaired = Vec::new();
        if begun && bytes.is_empty() {
            repaired.push(format!(
                "{} was gone or empty and is begun anew{}",
                path.display(),
                consequence(kind)
            ));
        }
        let lines = lines::parse(&bytes, kind).map_err(|found| newer(&path, found))?;
        let (mut map, mut live, mut lost) = (Map::<V>::new(), Live::default(), lines.damaged);
        for json in &lines.values {
            match serde_json::from_slice::<LineIn<V>>(json) {
                Ok(LineIn { key, value: Some(value) }) => {
                    live.insert(key.clone(), json.len() as u64);
                    map.insert(key, Arc::new(value));
                }
                Ok(LineIn { key, value: None }) => {
                    live.remove(&key);
                    map.remove(&key);
                }
                Err(_) => lost += 1,
            }
        }
        if lost > 0 {
            let what = consequence(kind);
            repaired.push(format!("{lost} damaged entries of {} were dropped{what}", path.display()));
        }
        if lines.torn {
            repaired.push(format!("an unfinished entry at the end of {} was cut off", path.display()));
        }
        let read = map.len();
        map.retain(|_, value| keep(value));
        let whole = map.len() == read && lost == 0 && !lines.torn && !lines.older && !bytes.is_empty();
        let map = Arc::new(Mutex::new(map));
        let mut writer = Writer {
            map: Arc::clone(&map),
            disk,
            path,
            kind: kind.to_owned(),
            file: None,
            len: bytes.len() as u64,
            live,
        };
        if whole {
            let file = writer.disk.append(&writer.path, writer.len);
            writer.file = Some(file.map_err(|error| storage("cannot open", &writer.path, &error))?);
        } else if let Err(error) = writer.rewrite() {
            repaired.push(format!("{error}; tried again with the next change"));
        }
        let (sender, receiver) = unbounded_channel();
        let running = Some(ground.loops.start(kind, writer.run(receiver))?);
        Ok((Self { map, sender: Mutex::new(Some(sender)), running }, repaired))
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<V>> {
        guard(&self.map).get(key).cloned()
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        guard(&self.map).len()
    }

    /// Everything in order of key.
    pub(super) fn list(&self) -> Vec<Arc<V>> {
        guard(&self.map).values().cloned().collect()
    }

    /// Keys of those entries that are `wanted`, in order.
    pub(super) fn keys(&self, wanted: impl Fn(&V) -> bool) -> Vec<String> {
        guard(&self.map).iter().filter(|(_, value)| wanted(value)).map(|(key, _)| key.clone()).collect()
    }

    /// The first in order of key.
    pub(super) fn first(&self) -> Option<Arc<V>> {
        guard(&self.map).values().next().cloned()
    }

    /// The last in order of key.
    pub(super) fn last(&self) -> Option<Arc<V>> {
        guard(&self.map).values().next_back().cloned()
    }

    /// At most `max` entries with keys beyond `after` and below `end`, in order.
    pub(super) fn between(&self, after: &str, end: &str, max: usize) -> Vec<(String, Arc<V>)> {
        let range = (Bound::Excluded(after), Bound::Excluded(end));
        if after >= end {
            return Vec::new();
        }
        let map = guard(&self.map);
        map.range::<str, _>(range).take(max).map(|(key, value)| (key.clone(), Arc::clone(value))).collect()
    }

    /// The last key below `end`.
    pub(super) fn key_before(&self, end: &str) -> Option<String> {
        let range = (Bound::Unbounded, Bound::Excluded(end));
        guard(&self.map).range::<str, _>(range).next_back().map(|(key, _)| key.clone())
    }

    /// Everything with its key.
    pub(super) fn entries(&self) -> Vec<(String, Arc<V>)> {
        guard(&self.map).iter().map(|(key, value)| (key.clone(), Arc::clone(value))).collect()
    }

    /// Keeps or removes an entry; in memory at once, durable soon. A failure is logged and made good
    /// with the next change.
    pub(super) fn post(&self, key: String, value: Option<V>) {
        // The answer is nobody's.
        let _ = self.send(key, value.map(Arc::new));
    }

    /// Keeps an entry; in memory at once, durable when it returns `Ok`.
    pub(super) async fn put(&self, key: String, value: V) -> Result<(), QueueError> {
        self.change(key, Some(Arc::new(value))).await.map(drop)
    }

    /// Removes an entry; whether there was one.
    pub(super) async fn remove(&self, key: &str) -> Result<bool, QueueError> {
        if self.get(key).is_none() {
            return Ok(false);
        }
        self.change(key.to_owned(), None).await
    }

    async fn change(&self, key: String, value: Option<Arc<V>>) -> Result<bool, QueueError> {
        let (answer, known) = self.send(key, value)?;
        match answer.await {
            Ok(result) => result.map(|()| known),
            Err(_) => Err(QueueError::Storage("the store is closed".to_owned())),
        }
    }

    /// Changes memory and hands the line to the writer; where its answer comes, and whether there was
    /// such an entry.
    fn send(&self, key: String, value: Option<Arc<V>>) -> Result<(Answer, bool), QueueError> {
        let line = serde_json::to_vec(&LineOut { key: &key, value: value.as_deref() })
            .map_err(|error| QueueError::Storage(format!("the entry of {key} cannot be written: {error}")))?;
        let (reply, answer) = oneshot::channel();
        let removes = value.is_none();
        let known = {
            // Under one lock, so that memory and file have the same order.
            let mut map = guard(&self.map);
            let known = match value {
                Some(value) => map.insert(key.clone(), value),
                None => map.remove(&key),
            };
            if let Some(sender) = guard(&self.sender).as_ref() {
                let _ = sender.send(Work { key, line, removes, reply });
            }
            known.is_some()
        };
        Ok((answer, known))
    }
}

impl<V> Drop for Ledger<V> {
    fn drop(&mut self) {
        guard(&self.sender).take();
        if let Some(running) = self.running.take() {
            running.join();
        }
    }
}

struct Writer<V> {
    map: Arc<Mutex<Map<V>>>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    kind: String,
    /// Absent when the file must be written anew.
    file: Option<Box<dyn DiskFile>>,
    len: u64,
    live: Live,
}

/// Octets of each current entry's line, and their sum.
#[derive(Default)]
struct Live {
    lines: BTreeMap<String, u64>,
    octets: u64,
}

impl Live {
    fn insert(&mut self, key: String, octets: u64) {
        self.octets += octets;
        self.octets -= self.lines.insert(key, octets).unwrap_or(0);
    }

    fn remove(&mut self, key: &str) {
        self.octets -= self.lines.remove(key).unwrap_or(0);
    }
}

impl<V: Serialize + Send + Sync> Writer<V> {
    async fn run(mut self, mut receiver: UnboundedReceiver<Work>) {
        while let Some(first) = receiver.recv().await {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(more) = receiver.try_recv()
            {
                group.push(more);
            }
            let result = self.commit(&group);
            if let Err(error) = &result {
                tracing::error!(%error, "an entry is in memory only");
            }
            for work in group {
                let _ = work.reply.send(result.clone());
            }
        }
    }

    fn commit(&mut self, group: &[Work]) -> Result<(), QueueError> {
        if self.file.is_none() || self.len > 2 * self.live.octets + SLACK_BYTES {
            // Writes what is in memory, this group included.
            return self.rewrite();
        }
        let mut bytes = Vec::new();
        for work in group {
            lines::render(&work.line, &mut bytes);
        }
        let Some(file) = self.file.as_mut() else { return self.rewrite() };
        let written = file.write(&mut [IoSlice::new(&bytes)]).and_then(|()| file.sync());
        if let Err(error) = written {
            // What the file holds now is unknown.
            self.file = None;
            return Err(troubled("cannot write", &self.path, &error));
        }
        self.len += bytes.len() as u64;
        for work in group {
            if work.removes {
                self.live.remove(&work.key);
            } else {
                self.live.insert(work.key.clone(), work.line.len() as u64);
            }
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), QueueError> {
        let mut bytes = lines::header(&self.kind).into_bytes();
        let entries: Vec<(String, Arc<V>)> =
            guard(&self.map).iter().map(|(key, value)| (key.clone(), Arc::clone(value))).collect();
        self.live = Live::default();
        for (key, value) in &entries {
            let line = LineOut { key, value: Some(value.as_ref()) };
            if let Ok(json) = serde_json::to_vec(&line) {
                self.live.insert(key.clone(), json.len() as u64);
                lines::render(&json, &mut bytes);
            }
        }
        self.file = None;
        self.len = bytes.len() as u64;
        let file = replace(self.disk.as_ref(), &self.path, &bytes)
            .and_then(|()| self.disk.append(&self.path, self.len));
        self.file = Some(file.map_err(|error| troubled("cannot write", &self.path, &error))?);
        Ok(())
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the loss of entries means to an operator.
fn consequence(kind: &str) -> &'static str {
    match kind {
        "policies" => ": those policies are fetched again when there is mail for their domains",
        "frozen" => ": those destinations are not frozen any more",
        "reports" => ": what became of those TLS reports is forgotten",
        "changes" => ": `policy changes` does not list those any more",
        "report-targets" => ": those report targets are tried again",
        "report-mails" => ": `report list` does not say what became of those mails",
        "digests" => ": a daily digest may be mailed a second time",
        "guards" => ": a weakening of those is noticed once they have been seen again",
        _ => "",
    }
}

/// The error of a file of lines that is of a newer format.
pub(super) fn newer(path: &Path, found: u32) -> QueueError {
    QueueError::Newer { path: path.to_owned(), found, known: format::LINES }
}

fn storage(what: &str, path: &Path, error: &std::io::Error) -> QueueError {
    QueueError::Storage(format!("{what} {}: {error}{}", path.display(), remedy(error)))
}
