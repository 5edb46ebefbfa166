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
use crate::admin::protocol::{Answer, PAGE_MAX, QueueAction, QueueEntry, QueueFilter, Request};
use crate::queue::ItemId;
use act::{FreezeArgs, Order, ThawArgs};
use which::{Id, Of, Target};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List queue items: one per message and recipient domain
    List {
        #[command(flatten)]
        of: Of,
        /// So many items at most
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Only items behind this one, as told at the end of a list that was cut off
        #[arg(long, value_name = "ID", value_parser = which::item)]
        after: Option<ItemId>,
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
    /// Totals, the destinations with most items, and frozen destinations
    Stats {
        /// So many destinations
        #[arg(long, value_name = "N", default_value_t = 20)]
        destinations: usize,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Try items now
    #[command(override_usage = "stsrelay queue retry [OPTIONS] <ID...|--sender ...|--state ...|--all>")]
    Retry(Target),
    /// Stop trying items until they are released
    #[command(override_usage = "stsrelay queue hold [OPTIONS] <ID...|--sender ...|--state ...|--all>")]
    Hold(Target),
    /// Undo a hold and try now
    #[command(override_usage = "stsrelay queue release [OPTIONS] <ID...|--sender ...|--state ...|--all>")]
    Release(Target),
    /// Remove items without a bounce
    #[command(override_usage = "stsrelay queue delete [OPTIONS] <ID...|--sender ...|--state ...|--all>")]
    Delete(Target),
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
    /// Give items up now, with a bounce to the sender
    ///
    /// Bounces and reports among them go without: nobody is told of those. What is in an attempt is
    /// left to it.
    #[command(
        override_usage = "stsrelay queue bounce [--reason <TEXT>] [OPTIONS] <ID...|--sender ...|--state ...|--all>"
    )]
    Bounce {
        #[command(flatten)]
        target: Target,
        /// Told to the senders
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Stop deliveries to a destination until it is thawed
    ///
    /// Mail for it is still accepted. Senders are warned of the delay as always, and what gets older than
    /// delivery.lifetime is given up. Attempts under way end as they end. Holds over restarts.
    Freeze(FreezeArgs),
    /// Undo a freeze and try what waited now
    Thaw(ThawArgs),
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
        Verb::List { of, limit, after, json } => {
            let range = Range { limit: limit.unwrap_or(u64::MAX), after };
            list::list(&mut daemon, &of.filter(), range, json.json)
        }
        Verb::Show { id, json } => show::show(&mut daemon, id, json.json),
        Verb::Stats { destinations, json } => stats::stats(&mut daemon, destinations, json.json),
        Verb::Retry(target) => act(&mut daemon, &target, QueueAction::Retry, None),
        Verb::Hold(target) => act(&mut daemon, &target, QueueAction::Hold, None),
        Verb::Release(target) => act(&mut daemon, &target, QueueAction::Release, None),
        Verb::Delete(target) => act(&mut daemon, &target, QueueAction::Delete, None),
        Verb::Bounce { target, reason } => act(&mut daemon, &target, QueueAction::Bounce, reason),
        Verb::Freeze(args) => act::freeze(&mut daemon, args),
        Verb::Thaw(args) => act::thaw(&mut daemon, &args),
    }
}

fn act(
    daemon: &mut Client,
    target: &Target,
    action: QueueAction,
    reason: Option<String>,
) -> Result<Exit, Failure> {
    act::act(daemon, &target.which, &Order { action, reason, dry_run: target.dry_run })
}

/// Which part of a listing.
#[derive(Clone, Copy)]
struct Range {
    limit: u64,
    after: Option<ItemId>,
}

impl Range {
    const ALL: Self = Self { limit: u64::MAX, after: None };
}

/// Calls `each` with every page of a listing; a page at a time is in memory. Where to go on
/// if there is more.
fn pages(
    daemon: &mut Client,
    filter: &QueueFilter,
    range: Range,
    history: bool,
    mut each: impl FnMut(Vec<QueueEntry>) -> Result<(), Failure>,
) -> Result<Option<ItemId>, Failure> {
    let Range { limit: mut left, after: mut cursor } = range;
    loop {
        let max = Some(usize::try_from(left).unwrap_or(PAGE_MAX).min(PAGE_MAX));
        match daemon.ask(Request::QueueList { filter: filter.clone(), cursor, history, max })? {
            Answer::QueuePage { entries, cursor: next } => {
                left = left.saturating_sub(entries.len() as u64);
                each(entries)?;
                if next.is_none() || left == 0 {
                    return Ok(next);
                }
                cursor = next;
            }
            other => return Err(unexpected(other)),
        }
    }
}
