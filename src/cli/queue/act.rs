//! `stsrelay queue retry|hold|release|delete|bounce`, and `freeze|thaw`: changing items.
//!
//! An operation is asked for step by step, so that it can tell how far it is and be interrupted
//! between two steps: what was done until then stays done, and is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;

use super::super::output::{Output, errors};
use super::super::{Exit, Failure, JsonArg, unexpected};
use super::which::{Which, destination, when};
use crate::admin::client::Client;
use crate::admin::protocol::{ActOutcome, Answer, QueueAction, QueueFilter, Request};
use crate::mail::Destination;

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What to freeze.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct FreezeArgs {
    /// Domain or address literal
    #[arg(value_parser = destination)]
    destination: Destination,
    /// Why; shown in `queue stats` and told to senders whose mail is delayed for long
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Ends by itself: in 2h, 3d, or at 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<Timestamp>,
}

/// What to thaw.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ThawArgs {
    /// Domain or address literal
    #[arg(value_parser = destination)]
    destination: Destination,
    #[command(flatten)]
    json: JsonArg,
}

pub(super) fn freeze(daemon: &mut Client, args: FreezeArgs) -> Result<Exit, Failure> {
    let FreezeArgs { destination, reason, until } = args;
    let name = destination.to_string();
    match daemon.ask(Request::QueueFreeze { destination, reason, until })? {
        Answer::Changed { .. } => {}
        other => return Err(unexpected(other)),
    }
    let mut out = Output::new();
    out.line(&format!("{name} is frozen: mail for it is accepted and waits until `queue thaw {name}`"))?;
    out.finish()?;
    Ok(Exit::Fine)
}

/// Thaws, and has what waited tried at once.
pub(super) fn thaw(daemon: &mut Client, args: &ThawArgs) -> Result<Exit, Failure> {
    match daemon.ask(Request::QueueThaw { destination: args.destination.clone() })? {
        Answer::Changed { .. } => {}
        other => return Err(unexpected(other)),
    }
    let filter =
        QueueFilter { recipient_domain: Some(args.destination.to_string()), ..QueueFilter::default() };
    let order = Order { action: QueueAction::Retry, reason: None, dry_run: false };
    let mut out = Output::new();
    let done = order.carry_out(daemon, &filter, &interruption())?;
    tell(&mut out, &order, None, &done, args.json.json)?;
    out.finish()?;
    Ok(done.exit())
}

/// What is to be done to items.
pub(super) struct Order {
    pub(super) action: QueueAction,
    pub(super) reason: Option<String>,
    pub(super) dry_run: bool,
}

/// How it went.
#[derive(Default)]
struct Done {
    count: u64,
    left: u64,
    trouble: Option<String>,
}

impl Done {
    fn exit(&self) -> Exit {
        if self.trouble.is_some() { Exit::Failed } else { Exit::Fine }
    }
}

pub(super) fn act(daemon: &mut Client, which: &Which, order: &Order) -> Result<Exit, Failure> {
    let interrupted = interruption();
    let mut out = Output::new();
    let mut exit = Exit::Fine;
    for (id, filter) in which.filters() {
        let done = order.carry_out(daemon, &filter, &interrupted)?;
        let nothing = done.count + done.left == 0 && done.trouble.is_none();
        match id {
            Some(id) if nothing && !which.json.json => {
                errors(&[format!("{id} is not in the queue")]);
            }
            _ => tell(&mut out, order, id.map(|id| id.to_string()), &done, which.json.json)?,
        }
        match (done.exit(), id) {
            (Exit::Failed, _) => exit = Exit::Failed,
            (_, Some(_)) if done.count == 0 && exit == Exit::Fine => exit = Exit::Negative,
            _ => {}
        }
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    out.finish()?;
    Ok(exit)
}

impl Order {
    fn past(&self) -> String {
        let past = match self.action {
            QueueAction::Retry if self.dry_run => "tried now",
            QueueAction::Retry => "to be tried now",
            QueueAction::Hold => "held",
            QueueAction::Release => "released",
            QueueAction::Delete => "deleted",
            QueueAction::Bounce => "given up; their senders are told",
        };
        if self.dry_run { format!("would be {past}") } else { past.to_owned() }
    }

    fn carry_out(
        &self,
        daemon: &mut Client,
        filter: &QueueFilter,
        interrupted: &AtomicBool,
    ) -> Result<Done, Failure> {
        let (mut done, mut cursor) = (Done::default(), None);
        let mut told = Instant::now();
        loop {
            let request = Request::QueueAct {
                filter: filter.clone(),
                action: self.action,
                reason: self.reason.clone(),
                cursor,
                dry_run: self.dry_run,
            };
            match daemon.ask(request) {
                Ok(Answer::Acted { count, left, cursor: next, trouble }) => {
                    done.count += count;
                    done.left += left;
                    (cursor, done.trouble) = (next, trouble);
                }
                Ok(other) if done.count == 0 => return Err(unexpected(other)),
                Ok(_) => done.trouble = Some("the daemon answered something else".to_owned()),
                Err(error) if done.count == 0 => return Err(error.into()),
                Err(error) => done.trouble = Some(error.to_string()),
            }
            if cursor.is_none() || done.trouble.is_some() {
                return Ok(done);
            }
            if interrupted.load(Ordering::Relaxed) {
                done.trouble = Some("interrupted; the rest is as it was".to_owned());
                return Ok(done);
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                errors(&[format!("{} so far", items(done.count, &self.past()))]);
            }
        }
    }
}

fn items(count: u64, past: &str) -> String {
    format!("{count} {} {past}", if count == 1 { "item" } else { "items" })
}

fn tell(
    out: &mut Output,
    order: &Order,
    id: Option<String>,
    done: &Done,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        out.json(&ActOutcome {
            id,
            action: order.action,
            dry_run: order.dry_run,
            count: done.count,
            left: done.left,
            trouble: done.trouble.clone(),
        })?;
        return Ok(());
    }
    out.line(&items(done.count, &order.past()))?;
    if done.left > 0 {
        out.line(&items(done.left, "in an attempt or not readable and left as they are"))?;
    }
    if let Some(trouble) = &done.trouble {
        errors(std::slice::from_ref(trouble));
    }
    Ok(())
}

/// Becomes true with the first SIGINT; without a way to hear of it the signal ends the program.
fn interruption() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Ok(runtime) = runtime {
        std::thread::spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                heard.store(true, Ordering::Relaxed);
            }
        });
    }
    flag
}
