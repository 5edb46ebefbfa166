//! Opens everything that survives a restart, tells what was repaired, closes it at the end.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use tracing::warn;

use crate::config::{ConfigError, Loaded};
use crate::metrics::Metrics;
use crate::net::{Clock as _, SystemClock};
use crate::store::{self, Ground, Moves, Policies, Queue, QueueOptions, Reports, Results, Suppressions};

/// Message content is nobody else's business.
const DATA_DIR_MODE: u32 = 0o750;

/// The stores of a data directory.
pub(super) struct Storage {
    pub(super) queue: Queue,
    pub(super) policies: Policies,
    pub(super) results: Results,
    pub(super) reports: Reports,
    pub(super) moves: Moves,
    pub(super) suppressions: Suppressions,
}

impl Storage {
    /// Opens or creates the stores; repairs are logged, one line each.
    pub(super) async fn open(
        loaded: &Loaded,
        options: QueueOptions,
        metrics: Metrics,
    ) -> Result<Self, ConfigError> {
        let segment_bytes = loaded.config.server.journal_segment.0;
        let opened = tokio::task::spawn_blocking(move || open(&options, segment_bytes, metrics)).await;
        let text = match opened {
            Ok(Ok((storage, repairs))) => {
                for repair in repairs {
                    warn!("repaired: {repair}");
                }
                return Ok(storage);
            }
            Ok(Err(text)) => text,
            Err(error) => format!("the store broke while it was opened: {error}"),
        };
        Err(loaded.error("server.data_dir", text))
    }

    /// Writes out what is in memory and closes.
    pub(super) async fn close(&self) {
        self.results.flush().await;
        self.queue.close().await;
    }
}

fn open(
    options: &QueueOptions,
    segment_bytes: u64,
    metrics: Metrics,
) -> Result<(Storage, Vec<String>), String> {
    let folder = &options.data_dir;
    // Before anything is made or changed.
    store::survey(folder).map_err(|error| error.to_string())?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DATA_DIR_MODE)
        .create(folder)
        .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    let mut ground = Ground::machine();
    ground.limits.segment_bytes = segment_bytes;
    ground.metrics = metrics;
    let (queue, mut repairs) =
        Queue::open_over(&ground, options, SystemClock.now()).map_err(|error| error.to_string())?;
    let (policies, more) = Policies::open(folder).map_err(|error| error.to_string())?;
    repairs.extend(more);
    let (results, more) = Results::open(folder).map_err(|error| error.to_string())?;
    repairs.extend(more);
    let (reports, more) = Reports::open(folder).map_err(|error| error.to_string())?;
    repairs.extend(more);
    let (moves, more) = Moves::open(folder, SystemClock.now()).map_err(|error| error.to_string())?;
    repairs.extend(more);
    let (suppressions, more) = Suppressions::open(folder).map_err(|error| error.to_string())?;
    repairs.extend(more);
    Ok((Storage { queue, policies, results, reports, moves, suppressions }, repairs))
}
