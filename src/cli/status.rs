//! `stsrelay status`: how the daemon is.

use super::output::{Output, instant, relative, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, unexpected};
use crate::admin::protocol::status::Status;
use crate::admin::protocol::{Answer, Request};
use crate::net::{Clock as _, SystemClock};

pub(super) fn run(json: JsonArg, args: &ConfigArgs) -> Result<Exit, Failure> {
    let status = match args.connect()?.ask(Request::Status)? {
        Answer::Status(status) => status,
        other => return Err(unexpected(other)),
    };
    let mut out = Output::new();
    if json.json {
        out.json(&status)?;
    } else {
        lines(&status).iter().try_for_each(|line| out.line(line))?;
    }
    out.finish()?;
    Ok(if status.ready { Exit::Fine } else { Exit::Negative })
}

fn lines(status: &Status) -> Vec<String> {
    let since = relative(status.started_at, SystemClock.now());
    let ready =
        status.not_ready.as_ref().map_or("takes mail".to_owned(), |why| format!("takes no mail: {why}"));
    let mut lines = wrap("", &format!("stsrelay {} on {}: {ready}", status.version, status.hostname));
    lines.push(format!("  started   {} ({since})", instant(status.started_at)));
    lines.extend(wrap("  storage   ", &status.health));
    lines.extend(wrap("  DNSSEC    ", &status.dnssec));
    for listener in &status.listeners {
        lines.extend(wrap("  listener  ", &format!("{} at {}", listener.name, listener.address)));
    }
    lines
}
