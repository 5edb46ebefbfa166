//! `stsrelay suppression ...`: recipients that bounced, and what becomes of mail to them.

use clap::{Args, Subcommand};

use super::output::{Output, Table, instant, relative, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::{Answer, RemovedView, Request};
use crate::config::value::Span;
use crate::mail::Mailbox;
use crate::net::{Clock as _, SystemClock};
use crate::queue::retry::after;
use crate::store::suppressions::{Suppressed, SuppressedBy};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List all recipients that are suppressed or on the way there
    List(JsonArg),
    /// Show one recipient
    Show(One),
    /// Suppress mail to a recipient
    Add(Add),
    /// Let mail to a recipient go again, and forget its bounces
    Remove(One),
}

/// One recipient.
#[derive(Debug, Clone, Args)]
pub(super) struct One {
    /// Its address
    #[arg(value_parser = mailbox)]
    address: Mailbox,
    #[command(flatten)]
    json: JsonArg,
}

/// A recipient to be suppressed.
#[derive(Debug, Clone, Args)]
pub(super) struct Add {
    #[command(flatten)]
    one: One,
    /// Why, for whoever writes to it
    #[arg(long, default_value = "mail to it is not wanted")]
    reason: String,
    /// How long [default: delivery.suppression.keep]
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<Span>,
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text).map_err(|error| error.to_string())
}

pub(super) fn run(verb: Verb, args: &ConfigArgs) -> Result<Exit, Failure> {
    let section = args.load()?.config.delivery.suppression;
    let mut daemon = args.connect()?;
    match verb {
        Verb::List(json) => list(&mut daemon, json.json, section.enabled),
        Verb::Show(one) => print(daemon.ask(Request::SuppressionShow { address: one.address })?, one.json),
        Verb::Add(Add { one, reason, lasting }) => {
            let until = after(SystemClock.now(), lasting.unwrap_or(section.keep).0);
            let asked = Request::SuppressionAdd { address: one.address, reason, until };
            let exit = print(daemon.ask(asked)?, one.json)?;
            if !section.enabled {
                super::output::progress(NOT_IN_FORCE);
            }
            Ok(exit)
        }
        Verb::Remove(one) => {
            match daemon.ask(Request::SuppressionRemove { address: one.address.clone() })? {
                Answer::Changed { .. } => {
                    let mut out = Output::new();
                    if one.json.json {
                        out.json(&RemovedView { address: one.address, removed: true })?;
                    } else {
                        out.line(&format!("mail to {} goes again", one.address))?;
                    }
                    out.finish()?;
                    Ok(Exit::Fine)
                }
                other => Err(unexpected(other)),
            }
        }
    }
}

const NOT_IN_FORCE: &str = "the list is not in force: delivery.suppression.enabled is false";

fn lines(entry: &Suppressed) -> Vec<String> {
    let now = SystemClock.now();
    let mut lines = vec![entry.address.to_string()];
    lines.push(match entry.since {
        Some(since) => format!("  suppressed  since {} ({})", instant(since), relative(since, now)),
        None => "  suppressed  not yet".to_owned(),
    });
    lines.push(format!("  until       {} ({})", instant(entry.until), relative(entry.until, now)));
    lines.push(format!("  by          {}", by(entry)));
    lines.extend(wrap("  reason      ", &entry.reason));
    lines
}

fn by(entry: &Suppressed) -> String {
    match entry.by {
        SuppressedBy::Bounces => format!("{} bounces", entry.bounces),
        SuppressedBy::Operator => "operator".to_owned(),
    }
}

fn print(answer: Answer, json: JsonArg) -> Result<Exit, Failure> {
    let entries = match answer {
        Answer::Suppressions { entries, .. } => entries,
        other => return Err(unexpected(other)),
    };
    let mut out = Output::new();
    for entry in &entries {
        if json.json {
            out.json(entry)?;
        } else {
            lines(entry).iter().try_for_each(|line| out.line(line))?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn list(daemon: &mut Client, as_json: bool, enabled: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    let mut table = Table::new(&["ADDRESS", "SINCE", "UNTIL", "BY"], 0);
    let mut last = None;
    loop {
        let (entries, more) = match daemon.ask(Request::SuppressionList { after: last.take() })? {
            Answer::Suppressions { entries, more } => (entries, more),
            other => return Err(unexpected(other)),
        };
        for entry in &entries {
            if as_json {
                out.json(entry)?;
                continue;
            }
            let cells = vec![
                entry.address.to_string(),
                entry.since.map_or_else(|| "not yet".to_owned(), |at| relative(at, now)),
                relative(entry.until, now),
                by(entry),
            ];
            table.row(cells, Some(entry.reason.clone()));
        }
        last = entries.last().map(|entry| entry.address.clone());
        if !more || last.is_none() {
            break;
        }
    }
    if !as_json {
        if table.is_empty() {
            out.line("no recipients are suppressed")?;
        } else {
            table.lines().iter().try_for_each(|line| out.line(line))?;
        }
        if !enabled {
            out.line(NOT_IN_FORCE)?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}
