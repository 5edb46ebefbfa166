//! A small durable map: in memory, with every change appended to a file and synced before it counts.
//!
//! One thread writes: it takes what waits, appends it at once and syncs once for all. The file is
//! rewritten when most of it is outdated, and after any failure, since a file whose sync failed is
//! never trusted again. Damaged lines are dropped and counted, never fatal.
//! Used by `policies` and `reports`; the queue has its own journal.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::disk::{self, Disk, DiskFile};
use super::lines;
use super::notions::QueueError;

/// Below this a file is never worth rewriting.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Changes written together at most.
const BATCH_MAX: usize = 256;

/// The map. Cheap to clone; reads are from memory.
pub(super) struct Ledger<K, V> {
    map: Arc<Mutex<BTreeMap<K, Arc<V>>>>,
    changes: mpsc::Sender<Change>,
}

impl<K, V> Clone for Ledger<K, V> {
    fn clone(&self) -> Self {
        Self { map: Arc::clone(&self.map), changes: self.changes.clone() }
    }
}

struct Change {
    /// One or more whole lines.
    line: Vec<u8>,
    done: oneshot::Sender<Result<(), QueueError>>,
}

impl<K, V> Ledger<K, V>
where
    K: Ord + Clone + Serialize + DeserializeOwned + Send + 'static,
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Opens or creates the file; `what` names it in messages. Returns what was repaired. Blocking.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        what: &'static str,
    ) -> Result<(Self, Vec<String>), QueueError> {
        let trouble = |error: io::Error| QueueError::Storage(format!("{}: {error}", path.display()));
        if let Some(parent) = path.parent() {
            disk.create_dir(parent).map_err(trouble)?;
        }
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(trouble)?,
        };
        let (entries, damaged) = lines::read::<(K, Option<V>)>(&text);
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            match value {
                Some(value) => map.insert(key, Arc::new(value)),
                None => map.remove(&key),
            };
        }
        let mut repairs = Vec::new();
        if damaged > 0 {
            repairs.push(format!("{what}: {damaged} damaged line(s) of {} were dropped", path.display()));
        }
        let map = Arc::new(Mutex::new(map));
        let mut writer =
            Writer { disk, path: path.clone(), map: Arc::clone(&map), file: None, len: 0, whole: 0 };
        // A fresh file drops outdated and damaged lines, and proves now that the place is writable.
        writer.rewrite().map_err(trouble)?;
        let (changes, waiting) = mpsc::channel();
        thread::Builder::new()
            .name(format!("{what} writer"))
            .spawn(move || writer.run(&waiting))
            .map_err(trouble)?;
        Ok((Self { map, changes }, repairs))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Arc<V>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.lock().get(key).cloned()
    }

    /// In order of key.
    pub(super) fn values(&self) -> Vec<Arc<V>> {
        self.lock().values().cloned().collect()
    }

    /// Sets or removes; durable when it returns. In memory it counts at once, also after an error.
    pub(super) async fn set(&self, key: K, value: Option<V>) -> Result<(), QueueError> {
        self.apply(vec![(key, value)]).await
    }

    /// Removes what `which` says; durable when it returns.
    pub(super) async fn remove_all(&self, which: impl Fn(&K) -> bool) -> Result<(), QueueError> {
        let gone = self.lock().keys().filter(|key| which(key)).cloned().map(|key| (key, None)).collect();
        self.apply(gone).await
    }

    async fn apply(&self, changes: Vec<(K, Option<V>)>) -> Result<(), QueueError> {
        let mut line = Vec::new();
        for change in &changes {
            lines::push(&mut line, change).map_err(|error| QueueError::Storage(error.to_string()))?;
        }
        if line.is_empty() {
            return Ok(());
        }
        let (done, written) = oneshot::channel();
        {
            // Under the lock, so that the file's order of changes is the memory's.
            let mut map = self.lock();
            for (key, value) in changes {
                match value {
                    Some(value) => map.insert(key, Arc::new(value)),
                    None => map.remove(&key),
                };
            }
            self.changes.send(Change { line, done }).map_err(|_| stopped())?;
        }
        written.await.map_err(|_| stopped())?
    }
}

fn stopped() -> QueueError {
    QueueError::Storage("the writer has stopped".to_owned())
}

struct Writer<K, V> {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    map: Arc<Mutex<BTreeMap<K, Arc<V>>>>,
    /// Absent after a failure: the next change rewrites.
    file: Option<Box<dyn DiskFile>>,
    len: u64,
    /// Octets just after the last rewrite.
    whole: u64,
}

impl<K: Serialize + Clone, V: Serialize> Writer<K, V> {
    fn run(mut self, waiting: &mpsc::Receiver<Change>) {
        while let Ok(first) = waiting.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX {
                let Ok(next) = waiting.try_recv() else { break };
                batch.push(next);
            }
            let result = self.write(&batch);
            for change in batch {
                let answer = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.trouble(error)),
                };
                // The caller may have gone; the change stands all the same.
                let _ = change.done.send(answer);
            }
        }
    }

    fn trouble(&self, error: &io::Error) -> QueueError {
        let text = format!("{}: {error}", self.path.display());
        if disk::is_full(error) { QueueError::Full(text) } else { QueueError::Storage(text) }
    }

    fn write(&mut self, batch: &[Change]) -> io::Result<()> {
        let outdated = self.len > REWRITE_BYTES_MIN && self.len / 4 > self.whole;
        let Some(mut file) = self.file.take().filter(|_| !outdated) else {
            // The map holds the batch already.
            return self.rewrite();
        };
        let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|change| IoSlice::new(&change.line)).collect();
        file.write(&mut slices)?;
        file.sync()?;
        self.len += batch.iter().map(|change| change.line.len() as u64).sum::<u64>();
        self.file = Some(file);
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut content = Vec::new();
        {
            let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, value) in &*map {
                lines::push(&mut content, &(key, Some(value))).map_err(io::Error::other)?;
            }
        }
        disk::replace(self.disk.as_ref(), &self.path, &content)?;
        self.len = content.len() as u64;
        self.whole = self.len;
        self.file = Some(self.disk.append(&self.path, self.len)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;

    fn open(dir: &std::path::Path) -> (Ledger<String, String>, Vec<String>) {
        Ledger::open(Arc::new(RealDisk), dir.join("sub/test"), "test").expect("it opens")
    }

    #[tokio::test]
    async fn what_was_set_is_there_after_reopening_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let (ledger, repairs) = open(dir.path());
        assert!(repairs.is_empty());
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            ledger.set(key.to_owned(), Some(value.to_owned())).await.expect("durable");
        }
        ledger.set("b".to_owned(), None).await.expect("durable");
        drop(ledger);
        let (ledger, repairs) = open(dir.path());
        assert!(repairs.is_empty());
        assert_eq!(ledger.get(&"a".to_owned()).as_deref(), Some(&"3".to_owned()));
        assert_eq!(ledger.values().len(), 1);
    }

    #[tokio::test]
    async fn a_damaged_line_is_dropped_and_said_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let (ledger, _) = open(dir.path());
        for key in ["a", "b", "c"] {
            ledger.set(key.to_owned(), Some("value".to_owned())).await.expect("durable");
        }
        drop(ledger);
        let path = dir.path().join("sub/test");
        let mut text = std::fs::read(&path).expect("readable");
        let middle = text.len() / 2;
        text[middle] ^= 1;
        text.extend_from_slice(b"0123 torn");
        std::fs::write(&path, text).expect("writable");
        let (ledger, repairs) = open(dir.path());
        assert!(repairs[0].contains("2 damaged"), "{repairs:?}");
        assert_eq!(ledger.values().len(), 2);
        assert!(open(dir.path()).1.is_empty(), "repaired for good");
    }

    #[tokio::test]
    async fn a_much_changed_file_does_not_grow_without_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let (ledger, _) = open(dir.path());
        let value = "x".repeat(50_000);
        for _ in 0..200 {
            ledger.set("a".to_owned(), Some(value.clone())).await.expect("durable");
        }
        let len = std::fs::metadata(dir.path().join("sub/test")).expect("there").len();
        assert!(len <= REWRITE_BYTES_MIN + 2 * 50_100, "{len}");
    }
}
