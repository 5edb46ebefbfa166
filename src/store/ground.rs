//! What a store stands on: the disk, how its loops run, this boot's name, sizes.
//!
//! In production the machine's own disk and a thread per loop ([`Ground::machine`]). A simulation
//! hands in a disk that loses what was not synced, and runs the same loops as tasks of its one
//! runtime, so that nothing races its clock.

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::disk::{Disk, RealDisk};
use super::notions::QueueError;
use crate::metrics::Metrics;

/// See the file's header.
#[derive(Clone)]
pub struct Ground {
    /// Everything that makes bytes or names durable.
    pub disk: Arc<dyn Disk>,
    /// How the store's loops run.
    pub loops: Loops,
    /// This boot's name; after another one an index that was not closed is not trusted.
    pub boot: String,
    /// Sizes and times.
    pub limits: Limits,
    /// Whether a queue index is kept; without one each start reads the whole journal.
    pub index: bool,
    /// What makes a new journal different from all others.
    pub nonce: [u8; 16],
    /// Flushes of the journal are counted here.
    pub metrics: Metrics,
}

/// How the store's loops run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    /// Each on a thread of its own: they wait for the disk.
    Threads,
    /// As tasks of the runtime in which the store is opened.
    Tasks,
}

/// Sizes and times; tests have smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A new journal segment is begun beyond it. Octets.
    pub segment_bytes: u64,
    /// What is kept free for recording deliveries on a full disk. Octets.
    pub reserve_bytes: u64,
    /// Between two rounds of housekeeping. What is queued and delivered within one never reaches
    /// the index.
    pub round: Duration,
}

impl Limits {
    /// What the defaults are.
    pub const DEFAULT: Self =
        Self { segment_bytes: 64 << 20, reserve_bytes: 8 << 20, round: Duration::from_millis(500) };
}

impl Ground {
    /// The machine's own disk and threads.
    pub fn machine() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            loops: Loops::Threads,
            boot: super::open::boot_id(),
            limits: Limits::DEFAULT,
            index: true,
            nonce: rand::random(),
            metrics: Metrics::new(),
        }
    }
}

/// A loop that was started.
pub(super) enum Running<T> {
    Thread(thread::JoinHandle<T>),
    Task(tokio::task::JoinHandle<T>),
}

impl Loops {
    /// Starts a loop; on a thread it has a runtime of its own with nothing but timers.
    pub(super) fn start<T: Send + 'static>(
        self,
        name: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<Running<T>, QueueError> {
        let unstarted =
            |error: std::io::Error| QueueError::Storage(format!("cannot start a thread: {error}"));
        if self == Self::Tasks {
            return Ok(Running::Task(tokio::spawn(work)));
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(unstarted)?;
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(work));
        Ok(Running::Thread(thread.map_err(unstarted)?))
    }
}

impl<T: Send + 'static> Running<T> {
    /// Waits for the end of a loop that was told to end; `None` when it panicked.
    pub(super) async fn ended(self) -> Option<T> {
        match self {
            Self::Thread(thread) => super::shared::blocking(move || Ok(thread.join().ok())).await.ok()?,
            Self::Task(task) => task.await.ok(),
        }
    }

    /// As [`Running::ended`] where nothing can be awaited; a task is left to end by itself.
    pub(super) fn join(self) {
        if let Self::Thread(thread) = self {
            let _ = thread.join();
        }
    }
}
