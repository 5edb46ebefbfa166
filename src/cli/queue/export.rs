//! `stsrelay queue export`: messages into a folder, held or removed here; asks the daemon or works on
//! the files of a stopped one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::super::output::{Output, errors, progress};
use super::super::{ConfigArgs, Exit, Failure};
use super::archive::Writer;
use super::door::Door;
use super::which::Which;
use crate::admin::protocol::transfer::{HeldItem, TransferAnswer, TransferRequest};
use crate::net::{Clock as _, SystemClock};
use crate::queue::{ItemId, QueueId};
use crate::store::Portable;

/// How long an attempt under way is waited for; longer than the longest of its timeouts would help
/// few messages.
const BUSY_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Items named in one request.
const ITEMS_MAX: usize = 200;
/// Messages between two lines of progress.
const PROGRESS_EVERY: usize = 1000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Folder to make for the messages
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Remove the items here once the folder is on stable storage; otherwise they stay, held
    #[arg(long)]
    remove: bool,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::new(Exit::Failed, text)
    }
}

pub(super) fn export(arguments: &Arguments, args: &ConfigArgs) -> Result<Exit, Failure> {
    let mut door = Door::open(args)?;
    let result = run(arguments, &mut door);
    door.close();
    result
}

fn run(arguments: &Arguments, door: &mut Door) -> Result<Exit, Failure> {
    let writer = Writer::create(&arguments.to, SystemClock.now())?;
    let mut held: BTreeMap<QueueId, Vec<HeldItem>> = BTreeMap::new();
    let result = hold(arguments, door, &mut held).and_then(|()| write(door, writer, &held));
    let done = match result {
        Ok(done) => done,
        Err(failure) => {
            // Nothing was exported: everything goes on as before.
            let ours = held.values().flatten().filter(|item| !item.held_before).map(|item| item.id).collect();
            let _ = in_steps(door, ours, |items| TransferRequest::Release { items });
            return Err(failure);
        }
    };
    let (items, left): (Vec<_>, Vec<_>) = (done.items, done.left);
    let busy = left.iter().filter(|item| !item.held_before).map(|item| item.id).collect();
    in_steps(door, busy, |items| TransferRequest::Release { items })?;
    if arguments.remove {
        in_steps(door, items.clone(), |items| TransferRequest::Remove { items })?;
    }
    let mut out = Output::new();
    if arguments.which.json.json {
        out.json(&serde_json::json!({
            "folder": arguments.to, "messages": done.messages, "items": items.len(), "removed": arguments.remove,
            "left": left.iter().map(|item| item.id).collect::<Vec<_>>(),
        }))?;
    } else {
        let what = match arguments.remove {
            true => "removed here",
            false => "held here; `stsrelay queue release` would send them from here too",
        };
        out.line(&format!("{} messages ({} items) exported, {what}", done.messages, items.len()))?;
    }
    out.finish()?;
    for item in &left {
        errors(&[format!(
            "{} was left out: an attempt took too long, or it left the queue meanwhile",
            item.id
        )]);
    }
    Ok(if items.is_empty() || !left.is_empty() { Exit::Negative } else { Exit::Fine })
}

fn hold(
    arguments: &Arguments,
    door: &mut Door,
    held: &mut BTreeMap<QueueId, Vec<HeldItem>>,
) -> Result<(), Failure> {
    for (_, filter) in arguments.which.filters() {
        let mut cursor = None;
        loop {
            match door.ask(TransferRequest::Hold { filter: filter.clone(), cursor })? {
                TransferAnswer::Held { items, cursor: next } => {
                    for item in items {
                        let of = held.entry(item.id.queue_id).or_default();
                        if of.iter().all(|known| known.id != item.id) {
                            of.push(item);
                        }
                    }
                    cursor = next;
                }
                other => return Err(strange(&other)),
            }
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Done {
    messages: u64,
    items: Vec<ItemId>,
    left: Vec<HeldItem>,
}

fn write(
    door: &mut Door,
    mut writer: Writer,
    held: &BTreeMap<QueueId, Vec<HeldItem>>,
) -> Result<Done, Failure> {
    let mut done = Done::default();
    for (index, (id, items)) in held.iter().enumerate() {
        if index > 0 && index % PROGRESS_EVERY == 0 {
            progress(&format!("{index} of {} messages", held.len()));
        }
        let Some(mut message) = read(door, *id, items)? else {
            done.left.extend(items.iter().copied());
            continue;
        };
        for item in &mut message.items {
            // The hold of the export is none of the other queue's business.
            let was = items.iter().find(|held| held.id.part == item.part);
            item.held = was.is_some_and(|was| was.held_before);
        }
        let moved = |item: &&HeldItem| message.items.iter().any(|of| of.part == item.id.part);
        done.items.extend(items.iter().filter(moved).map(|item| item.id));
        writer.add::<Failure>(message, |offset| {
            match door.ask(TransferRequest::Content { id: *id, offset })? {
                TransferAnswer::Content { data } => {
                    STANDARD.decode(data).map_err(|_| Failure::new(Exit::Failed, "the content is not base64"))
                }
                other => Err(strange(&other)),
            }
        })?;
    }
    done.messages = writer.finish()?;
    Ok(done)
}

/// The message, when no attempt runs any more.
fn read(door: &mut Door, id: QueueId, items: &[HeldItem]) -> Result<Option<Portable>, Failure> {
    let begun = Instant::now();
    loop {
        let parts = items.iter().map(|item| item.id.part).collect();
        match door.ask(TransferRequest::Read { id, parts })? {
            TransferAnswer::Message(message) => return Ok(Some(*message)),
            TransferAnswer::Busy if begun.elapsed() < BUSY_MAX => std::thread::sleep(BUSY_PAUSE),
            TransferAnswer::Busy | TransferAnswer::Gone => return Ok(None),
            other => return Err(strange(&other)),
        }
    }
}

fn in_steps(
    door: &mut Door,
    items: Vec<ItemId>,
    request: impl Fn(Vec<ItemId>) -> TransferRequest,
) -> Result<(), Failure> {
    items.chunks(ITEMS_MAX).try_for_each(|some| door.ask(request(some.to_vec())).map(drop))
}

pub(super) fn strange(answer: &TransferAnswer) -> Failure {
    Failure::new(Exit::Failed, format!("an answer that was not asked for: {answer:.100?}"))
}
