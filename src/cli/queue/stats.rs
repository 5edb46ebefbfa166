//! `stsrelay queue stats`: totals, and the destinations with most items.

use jiff::Timestamp;

use super::super::output::{Output, Table, between, instant, octets, relative, wrap};
use super::super::{Exit, Failure, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::{Answer, QueueTotals, Request};
use crate::net::{Clock as _, SystemClock};

pub(super) fn stats(daemon: &mut Client, destinations: usize, as_json: bool) -> Result<Exit, Failure> {
    let totals = match daemon.ask(Request::QueueStats { destinations })? {
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
    if let Some(dnssec) = &totals.dnssec {
        lines.extend(wrap("DNSSEC    ", dnssec));
    }
    if !totals.destinations.is_empty() {
        let mut table = Table::new(&["ITEMS", "ACTIVE", "DEFERRED", "HELD", "OLDEST", "DESTINATION"], 5);
        for total in &totals.destinations {
            table.row(
                vec![
                    total.items.to_string(),
                    total.active.to_string(),
                    total.deferred.to_string(),
                    total.held.to_string(),
                    between(total.oldest, now),
                    total.destination.clone(),
                ],
                None,
            );
        }
        lines.push(String::new());
        lines.extend(table.lines());
        let more = totals.destination_count.saturating_sub(totals.destinations.len() as u64);
        if more > 0 {
            lines.push(format!(
                "and {more} more destinations; --destinations {} shows them",
                totals.destination_count
            ));
        }
    }
    if !totals.frozen.is_empty() {
        let mut table = Table::new(&["ITEMS", "FROZEN", "UNTIL", "DESTINATION"], 3);
        for freeze in &totals.frozen {
            table.row(
                vec![
                    freeze.items.to_string(),
                    relative(freeze.since, now),
                    freeze.until.map_or_else(|| "thawed".to_owned(), instant),
                    freeze.destination.clone(),
                ],
                freeze.reason.clone(),
            );
        }
        lines.push(String::new());
        lines.extend(table.lines());
    }
    lines
}
