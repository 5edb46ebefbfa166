//! `stsrelay queue ...`: what is in the queue, and changing it; a file per verb.
//!
//! Talks to the daemon over the admin socket; a page of items at a time is in memory.

mod act;
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
use which::{Id, Of, Which};

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
    Retry(Which),
    /// Stop trying items until they are released
    Hold(Which),
    /// Undo a hold and try now
    Release(Which),
    /// Remove items without a bounce
    Delete(Which),
    /// Give items up now, with a bounce to the sender
    ///
    /// Bounces and reports among them go without: nobody is told of those. What is in an attempt is
    /// left to it.
    Bounce {
        #[command(flatten)]
        which: Which,
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
    let mut daemon = args.connect()?;
    match verb {
        Verb::List { of, limit, after, json } => {
            let range = Range { limit: limit.unwrap_or(u64::MAX), after };
            list::list(&mut daemon, &of.filter(), range, json.json)
        }
        Verb::Show { id, json } => show::show(&mut daemon, id, json.json),
        Verb::Stats { destinations, json } => stats::stats(&mut daemon, destinations, json.json),
        Verb::Retry(which) => act(&mut daemon, &which, QueueAction::Retry, None),
        Verb::Hold(which) => act(&mut daemon, &which, QueueAction::Hold, None),
        Verb::Release(which) => act(&mut daemon, &which, QueueAction::Release, None),
        Verb::Delete(which) => act(&mut daemon, &which, QueueAction::Delete, None),
        Verb::Bounce { which, reason } => act(&mut daemon, &which, QueueAction::Bounce, reason),
        Verb::Freeze(args) => act::freeze(&mut daemon, args),
        Verb::Thaw(args) => act::thaw(&mut daemon, &args),
    }
}

fn act(
    daemon: &mut Client,
    which: &Which,
    action: QueueAction,
    reason: Option<String>,
) -> Result<Exit, Failure> {
    act::act(daemon, which, &Order { action, reason, dry_run: which.dry_run })
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
