//! Feeds the history from the counters and keeps it over restarts: one small file, replaced as a whole.
//!
//! Nobody waits for it and nothing depends on it: a file that is damaged, or of a newer release, is told and
//! begun anew; one that cannot be written is told once. Run by the daemon, read by the status page.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Column, History, Range};
use crate::metrics::Metrics;
use crate::net::Clock;

/// Counters are looked at so often: a sixth of the finest column.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks after which what is new is written: kill -9 takes a minute from the plots at most.
const LOOKS_PER_SAVE: u32 = 6;
/// Octets of the file at most; what is written is a tenth of it.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A history that is kept. Cheap to clone.
#[derive(Clone)]
pub struct KeptHistory {
    inner: Arc<Inner>,
}

struct Inner {
    history: Mutex<History>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    file: PathBuf,
}

impl KeptHistory {
    /// Reads `history` below `data_dir`, which need not be there. Blocking.
    pub fn open(data_dir: &Path, metrics: Metrics, clock: Arc<dyn Clock>) -> Self {
        let file = data_dir.join("history");
        let history = match read(&file) {
            Ok(None) => History::default(),
            Ok(Some(bytes)) => History::parse(&bytes).unwrap_or_else(|trouble| {
                warn!("{} {trouble}: the plots of the status page begin anew", file.display());
                History::default()
            }),
            Err(error) => {
                warn!(%error, "{} cannot be read: the plots of the status page begin anew", file.display());
                History::default()
            }
        };
        Self { inner: Arc::new(Inner { history: Mutex::new(history), metrics, clock, file }) }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        // A panic elsewhere leaves at worst a wrong number in a plot.
        self.inner.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was counted since the last look.
    fn look(&self) {
        let (totals, now) = (self.inner.metrics.totals(), self.inner.clock.now());
        if self.lock().observe(totals, now) {
            info!("the clock was set back: what was counted under later times is left out of the plots");
        }
    }

    /// The columns of a plot that ends now, as counted up to now.
    pub fn columns(&self, range: Range) -> Vec<Column> {
        self.look();
        self.lock().columns(range, self.inner.clock.now())
    }

    /// Looks and writes now and again until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut told) = (0, false);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.look();
            looks += 1;
            if looks >= LOOKS_PER_SAVE {
                looks = 0;
                match self.save().await {
                    Ok(()) => told = false,
                    Err(error) if !told => {
                        warn!(%error, "{} cannot be written; the plots will miss this time after a restart", self.inner.file.display());
                        told = true;
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Takes in what the last deliveries counted, and writes.
    pub async fn close(&self) {
        self.look();
        if let Err(error) = self.save().await {
            warn!(%error, "{} cannot be written", self.inner.file.display());
        }
    }

    async fn save(&self) -> io::Result<()> {
        let (bytes, file) = (self.lock().render(), self.inner.file.clone());
        tokio::task::spawn_blocking(move || write(&file, &bytes)).await.map_err(io::Error::other)?
    }
}

fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// As a whole or not at all, also over a power cut.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&beside, file)?;
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SystemClock;

    fn open(folder: &Path, metrics: &Metrics) -> KeptHistory {
        KeptHistory::open(folder, metrics.clone(), Arc::new(SystemClock))
    }

    fn delivered(history: &KeptHistory) -> u64 {
        super::super::sum(&history.columns(Range::Day)).delivered()
    }

    #[tokio::test]
    async fn it_outlives_a_restart_and_counts_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let history = open(folder.path(), &metrics);
        metrics.recipients("delivered", 3);
        assert_eq!((delivered(&history), delivered(&history)), (3, 3));
        metrics.recipients("delivered", 1);
        history.close().await;
        // The counters of a new process begin at nothing.
        let metrics = Metrics::new();
        let history = open(folder.path(), &metrics);
        assert_eq!(delivered(&history), 4);
        metrics.recipients("delivered", 10);
        assert_eq!(delivered(&history), 14);
        assert!(!folder.path().join("history.new").exists());
    }

    #[tokio::test]
    async fn a_damaged_file_is_begun_anew_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("history"), b"stsrelay-history 1 00000000\n{}").unwrap();
        let metrics = Metrics::new();
        let history = open(folder.path(), &metrics);
        metrics.recipients("delivered", 2);
        assert_eq!(delivered(&history), 2);
        history.close().await;
        assert_eq!(delivered(&open(folder.path(), &Metrics::new())), 2);
    }
}
