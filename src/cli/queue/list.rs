//! `stsrelay queue list`: a line an item, page by page.

use jiff::Timestamp;

use super::super::output::{Output, Table, between, cut, errors, octets, relative};
use super::super::{Exit, Failure};
use super::{Range, pages};
use crate::admin::client::Client;
use crate::admin::protocol::{EntryState, QueueEntry, QueueFilter};
use crate::net::{Clock as _, SystemClock};

pub(super) fn list(
    daemon: &mut Client,
    filter: &QueueFilter,
    range: Range,
    as_json: bool,
) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    let mut count = 0;
    let next = pages(daemon, filter, range, false, |entries| {
        count += entries.len();
        if as_json {
            return entries.iter().try_for_each(|entry| Ok(out.json(entry)?));
        }
        let table = list_table(&entries, now);
        if !table.is_empty() {
            table.lines().iter().try_for_each(|line| out.line(line))?;
        }
        Ok(())
    })?;
    if !as_json {
        out.line(&match count {
            0 => "no items".to_owned(),
            1 => "1 item".to_owned(),
            _ => format!("{count} items"),
        })?;
    }
    out.finish()?;
    if let Some(next) = next {
        errors(&[format!("there are more: go on with --after {next}")]);
    }
    Ok(Exit::Fine)
}

pub(super) fn list_table(entries: &[QueueEntry], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "STATE", "AGE", "NEXT", "TRIES", "SIZE", "FROM", "TO"], 6);
    for entry in entries {
        let pending = entry.recipients.iter().filter(|recipient| recipient.state == "pending").count();
        let to = match entry.recipients.as_slice() {
            [only] => only.address.clone(),
            _ => format!("{} ({pending})", entry.destination),
        };
        table.row(
            vec![
                entry.id.to_string(),
                state_name(entry).to_owned(),
                between(entry.received_at, now),
                entry.next_attempt.map_or_else(|| "-".to_owned(), |at| due(at, now)),
                entry.attempts.to_string(),
                octets(entry.size),
                sender_name(&entry.sender).to_owned(),
                cut(&to, 36),
            ],
            entry.waits.clone().or_else(|| entry.history.last().map(|attempt| attempt.result.clone())),
        );
    }
    table
}

pub(super) fn due(at: Timestamp, now: Timestamp) -> String {
    if at <= now { "now".to_owned() } else { relative(at, now) }
}

pub(super) fn state_name(entry: &QueueEntry) -> &'static str {
    match entry.state {
        // An operator's hold goes on when the destination is thawed.
        EntryState::Active | EntryState::Deferred if entry.frozen => "frozen",
        EntryState::Active => "active",
        EntryState::Deferred => "deferred",
        EntryState::Held => "held",
    }
}

pub(super) fn sender_name(sender: &str) -> &str {
    if sender.is_empty() { "<>" } else { sender }
}
