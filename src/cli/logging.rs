//! Logs of the daemon: text or json on standard error, or the journal's own fields.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Loaded, LogFormat, check::parse_level};

/// Changes the level while running.
pub(super) type LevelHandle = reload::Handle<EnvFilter, Registry>;

/// Sends all events of this process where `[log]` says.
///
/// # Errors
/// The key and what is wrong with it.
pub(super) fn start(loaded: &Loaded) -> Result<LevelHandle, crate::config::ConfigError> {
    let log = &loaded.config.log;
    let filter = parse_level(&log.level).map_err(|text| loaded.error("log.level", text))?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(|error| {
                loaded.error("log.format", format!("the journal cannot be reached: {error}; use \"text\""))
            })?;
            registry.with(journal.with_field_prefix(None)).try_init()
        }
    };
    started.map_err(|error| loaded.error("log.format", error.to_string()))?;
    Ok(handle)
}
