//! `stsrelay queue stats`: totals, and the destinations with most items.

use jiff::Timestamp;

use super::super::output::{Output, Table, octets, relative, wrap};
use super::super::{Exit, Failure, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::{Answer, QueueTotals, Request};
use crate::net::{Clock as _, SystemClock};

pub(super) fn stats(daemon: &mut Client, as_json: bool) -> Result<Exit, Failure> {
    let totals = match daemon.ask(Request::QueueStats)? {
        Answer::QueueTotals(totals) => totals,
        other => return Err(unexpected(other)),
    };
    let mut out = Output::new();
    if as_json {
        out.json(&totals)?;
    } else {
        totals_lines(&totals, SystemClock.now()).iter().try_for_each(|line| out.line(line))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn totals_lines(totals: &QueueTotals, now: Timestamp) -> Vec<String> {
    let mut lines = vec![
        format!("active    {}", totals.active),
        format!("deferred  {}", totals.deferred),
        format!("held      {}", totals.held),
        format!("on disk   {}", octets(totals.bytes)),
        format!("oldest    {}", totals.oldest.map_or_else(|| "-".to_owned(), |at| relative(at, now))),
    ];
    lines.extend(wrap("storage   ", &totals.health));
    if !totals.destinations.is_empty() {
        let mut table = Table::new(&["ITEMS", "DESTINATION"], 1);
        for total in &totals.destinations {
            table.row(vec![total.items.to_string(), total.destination.clone()], None);
        }
        lines.push(String::new());
        lines.extend(table.lines());
    }
    lines
}
