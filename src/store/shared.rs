//! What the queue's threads and callers share: the table, the disk, where everything is.
//!
//! Layout below `data_dir/queue`: `journal/` segments, `bodies/` contents over 1 MB, `spool/`
//! contents being received, `index/` sled, `damaged/` segments in which something was damaged, `state` the marker of start and stop, `lock`, and
//! `reserve`, space given up when the disk is full so that deliveries can still be recorded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, Semaphore};

use super::disk::{Disk, is_full};
use super::evidence::Log;
use super::frame::Nonce;
use super::ground::Limits;
use super::notions::{Health, QueueError};
use super::room::Room;
use super::table::Table;
use crate::metrics::Metrics;
use crate::queue::QueueId;

/// See the file's header.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub nonce: Nonce,
    pub limits: Limits,
    /// Something became due earlier than was known.
    pub wake: Notify,
    table: Mutex<Table>,
    /// Locked before the table, never after it.
    evidence: Mutex<Log>,
    spooled: AtomicU64,
    ids: AtomicU64,
    /// Segments open for reading, the latest.
    readers: Mutex<BTreeMap<u32, Arc<File>>>,
    /// See [`Shared::reading`].
    reads: Semaphore,
    pub metrics: Metrics,
    pub room: Room,
}

/// Octets of evidence that may wait in memory for a disk that does not take them.
const EVIDENCE_WAITING_MAX: usize = 32 << 20;
/// Segments kept open for reading at most.
const READERS_MAX: usize = 64;
/// Reads of what waits in the journal at a time. Each has a thread of its own: hundreds of attempts that
/// begin together would make hundreds of threads, each with its stack and heap.
const READS_MAX: usize = 8;

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        nonce: Nonce,
        limits: Limits,
        table: Table,
        evidence: Log,
        metrics: Metrics,
    ) -> Self {
        let ids = AtomicU64::new(table.ids_below);
        let (wake, spooled) = (Notify::new(), AtomicU64::new(0));
        Self {
            disk,
            dir,
            nonce,
            limits,
            wake,
            table: Mutex::new(table),
            evidence: Mutex::new(evidence),
            spooled,
            ids,
            readers: Mutex::default(),
            reads: Semaphore::new(READS_MAX),
            metrics,
            room: Room::default(),
        }
    }

    /// Runs a read of the journal where it may wait, few at a time.
    pub(super) async fn reading<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        // Never closed; without a permit it would only be read beside too many others.
        let _permit = self.reads.acquire().await;
        let shared = Arc::clone(self);
        blocking(move || read(&shared)).await
    }

    /// A number never used before.
    pub(super) fn allocate_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The number given out next.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.load(Ordering::Relaxed)
    }

    /// The table, for a moment. A panic elsewhere leaves it as the last whole change made it.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The evidence log, for as long as a write takes.
    pub(super) fn evidence(&self) -> MutexGuard<'_, Log> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what the journal says of attempts into the evidence log; whether nothing of it is left
    /// behind, so that the journal need not be read for it again. Blocking.
    pub(super) fn move_evidence(&self) -> bool {
        let mut log = self.evidence();
        let (attempts, bytes, full) = {
            let table = self.table();
            let full = matches!(table.health, Health::Full(_));
            (table.evidence.list(), table.evidence.bytes(), full)
        };
        if attempts.is_empty() {
            return true;
        }
        let mut written = log.append(&attempts);
        while written.as_ref().is_err_and(is_full) && log.drop_oldest() {
            written = log.append(&attempts);
        }
        match written {
            Ok(()) => {
                log.note(false);
            }
            // Segments of the journal must come free on a full disk: mail comes first.
            Err(error) if full || bytes > EVIDENCE_WAITING_MAX => {
                let attempts = attempts.len();
                tracing::error!(attempts, %error, "evidence lost: it cannot be written");
            }
            Err(error) => {
                if log.note(true) {
                    tracing::error!(%error, "evidence cannot be written; kept in the journal and tried again");
                }
                return false;
            }
        }
        self.table().evidence.done(attempts.len());
        true
    }

    pub(super) fn segment_path(&self, segment: u32) -> PathBuf {
        self.journal_dir().join(segment_name(segment))
    }

    /// A segment open for reading.
    pub(super) fn reader(&self, segment: u32) -> io::Result<Arc<File>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = readers.get(&segment) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.segment_path(segment))?);
        while readers.len() >= READERS_MAX {
            readers.pop_first();
        }
        readers.insert(segment, Arc::clone(&file));
        Ok(file)
    }

    /// A segment that left the disk must not stay open.
    pub(super) fn forget_reader(&self, segment: u32) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment);
    }

    pub(super) fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(super) fn body_path(&self, id: QueueId) -> PathBuf {
        self.dir.join("bodies").join(id.to_string())
    }

    pub(super) fn spool_dir(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// A name for a content being received.
    pub(super) fn spool_path(&self) -> PathBuf {
        self.spool_dir().join(self.spooled.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(super) fn reserve_path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    pub(super) fn evidence_dir(dir: &std::path::Path) -> PathBuf {
        dir.join("evidence")
    }

    pub(super) fn index_dir(&self) -> PathBuf {
        self.dir.join("index")
    }

    /// Why nothing can be written at all, if so.
    pub(super) fn refusal(&self) -> Result<(), QueueError> {
        let table = self.table();
        match &table.health {
            Health::Failed(text) => Err(QueueError::Storage(text.clone())),
            _ if table.closed => Err(closed()),
            _ => Ok(()),
        }
    }
}

/// A segment's file name.
pub(super) fn segment_name(segment: u32) -> String {
    format!("{segment:010}.journal")
}

/// The error of everything after `close`.
pub(super) fn closed() -> QueueError {
    QueueError::Storage("the queue is closed".to_owned())
}

/// Runs disk work where it may wait. Where one thread runs everything, that is here: there is nobody to
/// keep it free for, and the order of a simulation must not depend on other threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(QueueError::Storage(format!("a storage task ended early: {error}"))),
    }
}
