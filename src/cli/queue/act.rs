//! `stsrelay queue retry|hold|release|delete`: changing items.

use super::super::output::{Output, errors};
use super::super::{Exit, Failure, unexpected};
use super::which::{Id, Which};
use crate::admin::client::Client;
use crate::admin::protocol::{Answer, QueueAction, QueueFilter, Request};

pub(super) fn act(daemon: &mut Client, which: &Which, action: QueueAction) -> Result<Exit, Failure> {
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
            errors(&[format!("{id} is not in the queue")]);
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
