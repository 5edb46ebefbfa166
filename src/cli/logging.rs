//! Logs of the daemon: text or json on standard error, or the journal's own fields.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{ConfigError, Loaded, LogFormat, check::parse_level};
use crate::daemon::Level;

/// Sends all events of this process where `[log]` says; gives what changes the level while running.
///
/// # Errors
/// The key and what is wrong with it.
pub(super) fn start(loaded: &Loaded) -> Result<Box<Level>, ConfigError> {
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
    Ok(Box::new(move |level: &str| handle.reload(parse_level(level)?).map_err(|error| error.to_string())))
}
