//! `stsrelay queue import`: messages of an export into this queue, each of them once whatever happens.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::super::output::{Output, progress};
use super::super::{ConfigArgs, Exit, Failure, JsonArg};
use super::archive::{self, Entry};
use super::door::Door;
use super::export::strange;
use crate::admin::protocol::transfer::{TransferAnswer, TransferRequest};
use crate::queue::QueueId;
use crate::store::Plan;

/// Messages between two lines of progress.
const PROGRESS_EVERY: usize = 1000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Folder that `stsrelay queue export` made
    folder: PathBuf,
    #[command(flatten)]
    json: JsonArg,
}

pub(super) fn import(arguments: &Arguments, args: &ConfigArgs) -> Result<Exit, Failure> {
    // All of it is verified before anything is imported.
    let entries = archive::read(&arguments.folder)?;
    let mut door = Door::open(args)?;
    let result = run(&entries, &mut door, arguments.json.json);
    door.close();
    result
}

fn run(entries: &[Entry], door: &mut Door, as_json: bool) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let (mut messages, mut items, mut known, mut refused) = (0, 0, 0, 0);
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 && index % PROGRESS_EVERY == 0 {
            progress(&format!("{index} of {} messages", entries.len()));
        }
        let (id, plan) = one(entry, door)?;
        messages += usize::from(!plan.wanted.is_empty());
        items += plan.wanted.len();
        known += plan.known.len();
        refused += plan.refused.len();
        let from = entry.message.id;
        if as_json {
            out.json(&serde_json::json!({
                "from": from, "store": entry.message.store,
                "id": (!plan.wanted.is_empty()).then_some(id), "imported": plan.wanted,
                "known": plan.known.iter().map(|(_, name)| name).collect::<Vec<_>>(),
                "refused": plan.refused.iter().map(|(part, why)| format!("{from}.{part} {why}")).collect::<Vec<_>>(),
            }))?;
            continue;
        }
        if !plan.wanted.is_empty() {
            out.line(&format!("{from} is {id} here"))?;
        }
        for (part, name) in &plan.known {
            out.line(&format!("{from}.{part} was imported before, as {name}: not taken again"))?;
        }
        for (part, why) in &plan.refused {
            out.line(&format!("{from}.{part} {why}: not taken"))?;
        }
    }
    if !as_json {
        out.line(&format!(
            "{messages} messages ({items} items) imported, {known} items known, {refused} refused"
        ))?;
    }
    out.finish()?;
    Ok(if items + known > 0 { Exit::Fine } else { Exit::Negative })
}

fn one(entry: &Entry, door: &mut Door) -> Result<(QueueId, Plan), Failure> {
    let upload = match door.ask(TransferRequest::Begin { message: Box::new(entry.message.clone()) })? {
        TransferAnswer::Imported { id, plan } => return Ok((id, plan)),
        TransferAnswer::Upload { upload } => upload,
        other => return Err(strange(&other)),
    };
    entry.content::<Failure>(|piece| {
        let data = STANDARD.encode(piece);
        door.ask(TransferRequest::Piece { upload, data }).map(drop)
    })?;
    match door.ask(TransferRequest::End { upload })? {
        TransferAnswer::Imported { id, plan } => Ok((id, plan)),
        other => Err(strange(&other)),
    }
}
