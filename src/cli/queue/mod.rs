//! `stsrelay queue ...`: what is in the queue, and changing it; a file per verb.
//!
//! Talks to the daemon over the admin socket; a page of items at a time is in memory.

mod act;
mod archive;
mod check;
mod door;
mod export;
mod import;
mod list;
mod show;
mod stats;
mod which;

use clap::Subcommand;

use super::{ConfigArgs, Exit, Failure, JsonArg, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::{Answer, QueueAction, QueueEntry, QueueFilter, Request};
use which::{Id, Of, Which};

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
    /// Check the stored queue of a stopped daemon; changes nothing
    ///
    /// Reads every record, content file and log, and compares the index with the journal. Says what
    /// each finding means for messages. Exit status 0 when the store is sound, 1 when not, 2 when it
    /// cannot be checked, for example because the daemon runs.
    Check(JsonArg),
    /// Write messages to a folder, to be imported on another host
    ///
    /// Asks the daemon, or works on the files of a stopped one. The items are held first, so that none
    /// goes out meanwhile, and stay held, or are removed with --remove when the folder is on stable
    /// storage. The folder has messages.jsonl (envelopes and states) and content/QUEUE-ID.eml. Exit
    /// status 1 when there was nothing to export or some items were left out.
    #[command(
        override_usage = "stsrelay queue export --to <FOLDER> [--remove] [--json] <ID...|--sender ...|--all>"
    )]
    Export(export::Arguments),
    /// Take in the messages of an exported folder
    ///
    /// Everything is verified before the first message is taken: a folder that is not complete changes
    /// nothing. Messages get new queue ids and keep envelope, times and states. An item that was
    /// imported before is never taken again; an interrupted import is ended by running it again.
    Import(import::Arguments),
}

pub(super) fn run(verb: Verb, args: &ConfigArgs) -> Result<Exit, Failure> {
    match &verb {
        Verb::Check(json) => return check::check(args, json.json),
        Verb::Export(arguments) => return export::export(arguments, args),
        Verb::Import(arguments) => return import::import(arguments, args),
        _ => {}
    }
    let mut daemon = args.connect()?;
    match verb {
        // Work without a daemon, above.
        Verb::Check(_) | Verb::Export(_) | Verb::Import(_) => Ok(Exit::Fine),
        Verb::List { of, json } => list::list(&mut daemon, of.filter(), json.json),
        Verb::Show { id, json } => show::show(&mut daemon, id, json.json),
        Verb::Stats(json) => stats::stats(&mut daemon, json.json),
        Verb::Retry(which) => act::act(&mut daemon, &which, QueueAction::Retry),
        Verb::Hold(which) => act::act(&mut daemon, &which, QueueAction::Hold),
        Verb::Release(which) => act::act(&mut daemon, &which, QueueAction::Release),
        Verb::Delete(which) => act::act(&mut daemon, &which, QueueAction::Delete),
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
