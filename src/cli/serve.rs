//! `stsrelay serve`: checks the configuration, starts the logs, runs the daemon.

use tracing::warn;

use super::{ConfigArgs, Exit, Failure, logging};
use crate::config::{check, settings};
use crate::daemon::{self, Ended, Start};
use crate::net::{Clock as _, SystemClock};

pub(super) fn run(args: &ConfigArgs) -> Result<Exit, Failure> {
    let sources = args.sources();
    let loaded = sources.load()?;
    let found = check::check(&loaded, SystemClock.now());
    if !found.errors.is_empty() {
        return Err(Failure::config(found.errors));
    }
    let level = logging::start(&loaded)?;
    let settings = settings(&loaded).map_err(Failure::config)?;
    match daemon::run(Start { sources, loaded, settings, notes: found.notes, level })? {
        Ended::Drained => Ok(Exit::Fine),
        Ended::Cut => {
            warn!("work under way was cut off; the queue has it and tries again at the next start");
            Ok(Exit::Fine)
        }
        Ended::Broken => Err(Failure::new(Exit::Failed, "the daemon stopped by itself; the log says why")),
    }
}
