//! `report targets` and `report forgive`: targets that fail, and giving one another chance.

use super::super::output::{Output, Table, relative};
use super::super::{Exit, Failure, unexpected};
use super::{ask, strange};
use crate::admin::client::Client;
use crate::admin::protocol::reports::{ForgivenView, ReportsAnswer, ReportsRequest};
use crate::admin::protocol::{Answer, Request};
use crate::net::{Clock as _, SystemClock};

pub(super) fn list(daemon: &mut Client, as_json: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    let mut table = Table::new(&["TARGET", "FAILURES", "LAST", "LEFT ALONE"], 0);
    let mut after = None;
    loop {
        let ReportsAnswer::Targets { targets, more } =
            ask(daemon, ReportsRequest::Targets { after: after.take() })?
        else {
            return Err(strange());
        };
        for line in &targets {
            if as_json {
                out.json(line)?;
                continue;
            }
            let standing = &line.standing;
            let until = line.suppressed_until.map(|until| format!("ends {}", relative(until, now)));
            let cells = vec![
                standing.target.clone(),
                standing.failures.to_string(),
                relative(standing.last_at, now),
                until.unwrap_or_else(|| "no".to_owned()),
            ];
            table.row(cells, Some(standing.reason.clone()));
        }
        after = targets.last().map(|line| line.standing.target.clone());
        if !more || after.is_none() {
            break;
        }
    }
    if !as_json {
        if table.is_empty() {
            out.line("every report target took its last report")?;
        } else {
            table.lines().iter().try_for_each(|line| out.line(line))?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

pub(super) fn forgive(daemon: &mut Client, target: &str, as_json: bool) -> Result<Exit, Failure> {
    let request = Request::Reports(ReportsRequest::Forgive { target: target.to_owned() });
    match daemon.ask(request)? {
        Answer::Changed { .. } => {
            let mut out = Output::new();
            if as_json {
                out.json(&ForgivenView { target: target.to_owned(), forgiven: true })?;
            } else {
                out.line(&format!("{target} gets reports again"))?;
            }
            out.finish()?;
            Ok(Exit::Fine)
        }
        other => Err(unexpected(other)),
    }
}
