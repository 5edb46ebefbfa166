//! `stsrelay queue ...`: what is in the queue, and changing it.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::output::{Output, Table, between, instant, octets, relative, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::{
    Answer, EntryState, QueueAction, QueueEntry, QueueFilter, QueueTotals, Request,
};
use crate::mail::Destination;
use crate::net::{Clock as _, SystemClock};
use crate::queue::{ItemId, QueueId};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List queue items: one per message and recipient domain
    List {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Show a message: its recipients and every attempt with host, TLS, reply and rule
    Show {
        /// Queue id (1-000000A1) or item id (1-000000A1.0)
        id: Id,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Totals, and the destinations with most items
    Stats(JsonArg),
    /// Try items now
    Retry(Which),
    /// Stop trying items until they are released
    Hold(Which),
    /// Undo a hold and try now
    Release(Which),
    /// Remove items without a bounce
    Delete(Which),
}

/// Which items, by what they have in common.
#[derive(Debug, Clone, Args)]
pub(super) struct Of {
    /// Of this sender; "" is the null sender of bounces
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// To this domain
    #[arg(long, value_name = "DOMAIN", value_parser = destination)]
    recipient_domain: Option<String>,
}

/// Which items to change.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true)
    .args(["ids", "sender", "recipient_domain", "all"]))]
pub(super) struct Which {
    /// Queue ids or item ids
    #[arg(value_name = "ID", conflicts_with_all = ["sender", "recipient_domain", "all"])]
    ids: Vec<Id>,
    #[command(flatten)]
    of: Of,
    /// All items
    #[arg(long, conflicts_with_all = ["sender", "recipient_domain"])]
    all: bool,
    #[command(flatten)]
    json: JsonArg,
}

/// A message, or one item of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Id {
    Message(QueueId),
    Item(ItemId),
}

impl std::str::FromStr for Id {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self::Item)
            .or_else(|()| text.parse().map(Self::Message))
            .map_err(|()| "not a queue id; `stsrelay queue list` shows them".to_owned())
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(id) => id.fmt(f),
            Self::Item(id) => id.fmt(f),
        }
    }
}

fn destination(text: &str) -> Result<String, String> {
    Destination::parse(text).map(|destination| destination.to_string()).map_err(|error| error.to_string())
}

impl Id {
    fn filter(self) -> QueueFilter {
        match self {
            Self::Message(id) => QueueFilter { id: Some(id), ..QueueFilter::default() },
            Self::Item(id) => QueueFilter { item: Some(id), ..QueueFilter::default() },
        }
    }
}

impl Of {
    fn filter(&self) -> QueueFilter {
        QueueFilter {
            // Operators paste addresses as logs show them.
            sender: self
                .sender
                .as_ref()
                .map(|text| text.trim_start_matches('<').trim_end_matches('>').to_owned()),
            recipient_domain: self.recipient_domain.clone(),
            ..QueueFilter::default()
        }
    }
}

pub(super) fn run(verb: Verb, args: &ConfigArgs) -> Result<Exit, Failure> {
    let mut daemon = args.connect()?;
    match verb {
        Verb::List { of, json } => list(&mut daemon, of.filter(), json.json),
        Verb::Show { id, json } => show(&mut daemon, id, json.json),
        Verb::Stats(json) => stats(&mut daemon, json.json),
        Verb::Retry(which) => act(&mut daemon, &which, QueueAction::Retry),
        Verb::Hold(which) => act(&mut daemon, &which, QueueAction::Hold),
        Verb::Release(which) => act(&mut daemon, &which, QueueAction::Release),
        Verb::Delete(which) => act(&mut daemon, &which, QueueAction::Delete),
    }
}

/// Calls `each` with every page of a listing; a page at a time is in memory.
fn pages(
    daemon: &mut Client,
    filter: &QueueFilter,
    history: bool,
    mut each: impl FnMut(Vec<QueueEntry>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut cursor = None;
    loop {
        match daemon.ask(Request::QueueList { filter: filter.clone(), cursor, history })? {
            Answer::QueuePage { entries, cursor: next } => {
                each(entries)?;
                match next {
                    Some(_) => cursor = next,
                    None => return Ok(()),
                }
            }
            other => return Err(unexpected(other)),
        }
    }
}

fn list(daemon: &mut Client, filter: QueueFilter, as_json: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    let mut count = 0;
    pages(daemon, &filter, false, |entries| {
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
    Ok(Exit::Fine)
}

fn list_table(entries: &[QueueEntry], now: Timestamp) -> Table {
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
                state_name(entry.state).to_owned(),
                between(entry.received_at, now),
                entry.next_attempt.map_or_else(|| "-".to_owned(), |at| due(at, now)),
                entry.attempts.to_string(),
                octets(entry.size),
                sender_name(&entry.sender).to_owned(),
                super::output::cut(&to, 36),
            ],
            entry.history.last().map(|attempt| attempt.result.clone()),
        );
    }
    table
}

fn due(at: Timestamp, now: Timestamp) -> String {
    if at <= now { "now".to_owned() } else { relative(at, now) }
}

fn state_name(state: EntryState) -> &'static str {
    match state {
        EntryState::Active => "active",
        EntryState::Deferred => "deferred",
        EntryState::Held => "held",
    }
}

fn sender_name(sender: &str) -> &str {
    if sender.is_empty() { "<>" } else { sender }
}

fn show(daemon: &mut Client, id: Id, as_json: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    let mut count = 0;
    pages(daemon, &id.filter(), true, |entries| {
        count += entries.len();
        for entry in &entries {
            if as_json {
                out.json(entry)?;
            } else {
                describe(entry, now).iter().try_for_each(|line| out.line(line))?;
            }
        }
        Ok(())
    })?;
    out.finish()?;
    match count {
        0 => Err(Failure::new(
            Exit::Negative,
            format!("{id} is not in the queue: delivered, given up or never here; the log tells"),
        )),
        _ => Ok(Exit::Fine),
    }
}

fn describe(entry: &QueueEntry, now: Timestamp) -> Vec<String> {
    let mut lines = vec![
        format!("{}  {}  {}", entry.id, state_name(entry.state), entry.destination),
        format!("  from      {}", sender_name(&entry.sender)),
        format!(
            "  received  {} ({}), {}",
            instant(entry.received_at),
            relative(entry.received_at, now),
            octets(entry.size)
        ),
        match entry.next_attempt {
            Some(at) => format!("  next try  {} ({})", instant(at), due(at, now)),
            None => "  next try  when released".to_owned(),
        },
    ];
    for recipient in &entry.recipients {
        let last = recipient.last.as_deref().map(|last| format!(": {last}")).unwrap_or_default();
        lines.extend(wrap("  to        ", &format!("{} {}{last}", recipient.address, recipient.state)));
    }
    for attempt in &entry.history {
        let host = match (&attempt.host, attempt.address) {
            (Some(host), Some(address)) => format!("{host} [{address}]"),
            (Some(host), None) => host.clone(),
            _ => "no host".to_owned(),
        };
        let tls = attempt.tls.as_deref().unwrap_or("no TLS");
        let verified = attempt.verified.as_deref().unwrap_or("nothing");
        let at = instant(attempt.at);
        let facts = format!("{at} {host}, {tls}, verified: {verified}, rule: {}", attempt.rule);
        lines.extend(wrap("  attempt   ", &facts));
        lines.extend(wrap("            ", &attempt.result));
    }
    if entry.history.is_empty() {
        lines.push("  attempt   none yet".to_owned());
    }
    lines
}

fn stats(daemon: &mut Client, as_json: bool) -> Result<Exit, Failure> {
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

fn act(daemon: &mut Client, which: &Which, action: QueueAction) -> Result<Exit, Failure> {
    let filters: Vec<(Option<Id>, QueueFilter)> = if which.ids.is_empty() {
        vec![(None, which.of.filter())]
    } else {
        which.ids.iter().map(|id| (Some(*id), id.filter())).collect()
    };
    let past = match action {
        QueueAction::Retry => "to be tried now",
        QueueAction::Hold => "held",
        QueueAction::Release => "released",
        QueueAction::Delete => "deleted",
    };
    let mut out = Output::new();
    let mut exit = Exit::Fine;
    for (id, filter) in filters {
        let count = match daemon.ask(Request::QueueAct { filter, action })? {
            Answer::Changed { count } => count,
            other => return Err(unexpected(other)),
        };
        if which.json.json {
            out.json(&serde_json::json!({
                "id": id.map(|id| id.to_string()), "action": action, "count": count,
            }))?;
        } else if let (Some(id), 0) = (id, count) {
            super::output::errors(&[format!("{id} is not in the queue")]);
        } else {
            let items = if count == 1 { "item" } else { "items" };
            out.line(&format!("{count} {items} {past}"))?;
        }
        if id.is_some() && count == 0 {
            exit = Exit::Negative;
        }
    }
    out.finish()?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::super::output::COLUMNS;
    use super::*;
    use crate::admin::protocol::EntryRecipient;
    use crate::queue::AttemptRecord;

    fn entry() -> QueueEntry {
        let at = "2026-01-10T12:00:00Z".parse().unwrap();
        QueueEntry {
            id: "1-000000A1.0".parse().unwrap(),
            state: EntryState::Deferred,
            sender: "a-very-long-sender-address-of-a-mailing-list+bounces-12345@lists.example.org".into(),
            destination: "example.net".into(),
            recipients: vec![EntryRecipient {
                address: "someone@example.net".into(),
                state: "pending".into(),
                last: Some("mx.example.net does not offer STARTTLS, which MTA-STS demands ".repeat(4)),
            }],
            received_at: at,
            size: 12_345,
            attempts: 3,
            next_attempt: "2026-01-10T12:20:00Z".parse().ok(),
            is_report: false,
            history: vec![AttemptRecord {
                at,
                host: Some("mx.example.net".into()),
                address: "192.0.2.1".parse().ok(),
                tls: None,
                verified: None,
                rule: "mta-sts enforce".into(),
                result: "mx.example.net does not offer STARTTLS ".repeat(5),
            }],
        }
    }

    #[test]
    fn listings_and_details_fit_a_hundred_columns() {
        let now = "2026-01-10T12:10:00Z".parse().unwrap();
        let lines = list_table(&[entry()], now).lines();
        assert!(lines[1].starts_with("1-000000A1.0  deferred  10m  in 10m  3"), "{}", lines[1]);
        let details = describe(&entry(), now);
        for line in lines.iter().chain(&details) {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        let words = details.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("no TLS, verified: nothing, rule: mta-sts enforce"), "{details:#?}");
    }
}
