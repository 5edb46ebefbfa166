//! `stsrelay serve`: checks the configuration, starts the logs, runs the daemon.

use super::{ConfigArgs, Exit, Failure, logging};
use crate::config::check;
use crate::net::{Clock as _, SystemClock};

pub(super) fn run(args: &ConfigArgs) -> Result<Exit, Failure> {
    let sources = args.sources();
    let loaded = sources.load()?;
    let found = check::check(&loaded, SystemClock.now());
    if !found.errors.is_empty() {
        return Err(Failure::config(found.errors));
    }
    let _level = logging::start(&loaded)?;
    Ok(Exit::Fine)
}
