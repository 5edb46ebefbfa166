//! `/queue/act`: retry, hold, release, delete and bounce, one item or many.
//!
//! More than one item is counted first and confirmed. Deleting and bouncing is confirmed always, and then once
//! more by writing down the number: the form carries how far it is, nothing is kept here. Items that came after
//! the count are none of those meant. Works for a while; what is left is told, and the form can be sent again.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use tokio::time::Instant;

use super::form::Fields;
use super::gate::Visit;
use super::queue::{FILTER, filter, in_words};
use super::shell::{Tab, coded, mistake, page};
use super::text::counted;
use super::{Page, unexpected};
use crate::admin::protocol::{Answer, QueueAction, QueueFilter, Request};
use crate::queue::{ItemId, QueueId};

/// Items named one by one, at most; what is ticked on a page is fewer.
const NAMED_MAX: usize = 200;
/// A form works for so long; a browser waits, and the guard gives a little more.
const WORKS_FOR: Duration = Duration::from_secs(7);
/// Characters of a reason that senders read.
const REASON_MAX: usize = 200;

/// How far a form is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The button was pressed.
    Asked,
    /// The number was seen.
    Seen,
    /// The number was written down.
    Written,
}

/// Which items.
enum Which {
    /// These.
    Named(Vec<QueueFilter>),
    /// All that fit.
    Fitting(QueueFilter),
}

/// `POST /queue/act`
pub(super) async fn act(
    State(site): State<Arc<Page>>,
    Extension(visit): Extension<Visit>,
    body: Bytes,
) -> Response {
    let fields = match site.believe(&visit, &body) {
        Ok(fields) => fields,
        Err(refusal) => return *refusal,
    };
    let (action, which, counted_at) = match read(&fields, site.facts.now()) {
        Ok(read) => read,
        Err(text) => return mistake(&site, &visit, text),
    };
    let back = fields.text("back").to_owned();
    let step = match fields.text("step") {
        "seen" => Step::Seen,
        "written" => Step::Written,
        _ => Step::Asked,
    };
    let ends_mail = matches!(action, QueueAction::Delete | QueueAction::Bounce);
    let count = match step {
        // One item that nothing is lost of needs no second look.
        Step::Asked if !ends_mail && matches!(&which, Which::Named(one) if one.len() == 1) => None,
        Step::Seen if !ends_mail => None,
        _ => match run(&site, &which, action, None, true).await {
            Ok((0, ..)) => {
                return site.done(&visit, &back, Err("no such item is in the queue any more".into()));
            }
            Ok((count, ..)) => Some(count),
            Err(text) => return site.done(&visit, &back, Err(text)),
        },
    };
    let confirm = |count, step, wrong| {
        confirmation(&site, &visit, &Asked { action, fields: &fields, count, step, counted_at, wrong })
    };
    match (step, count) {
        (Step::Asked, Some(count)) => return confirm(count, Step::Seen, false),
        (Step::Seen, Some(count)) if count > 1 => return confirm(count, Step::Written, false),
        (Step::Written, Some(count)) if fields.text("number") != fields.text("count") => {
            return confirm(count, Step::Written, true);
        }
        _ => {}
    }
    let reason = fields.some("reason").map(|text| text.chars().take(REASON_MAX).collect::<String>());
    let said = run(&site, &which, action, reason.as_deref(), false).await.map(|(done, left, finished)| {
        let mut said = format!("{} {}", counted(done, "item", "items"), done_word(action));
        if left > 0 {
            said.push_str(&format!(
                "; {} being tried just now stayed as they are",
                counted(left, "item", "items")
            ));
        }
        if !finished {
            said.push_str("; there are more: do the same once more to go on");
        }
        said
    });
    site.done(&visit, &back, said)
}

/// What the form asks for.
fn read(fields: &Fields, now: Timestamp) -> Result<(QueueAction, Which, Timestamp), Markup> {
    let action = match fields.text("action") {
        "retry" => QueueAction::Retry,
        "hold" => QueueAction::Hold,
        "release" => QueueAction::Release,
        "delete" => QueueAction::Delete,
        "bounce" => QueueAction::Bounce,
        _ => return Err(html! { "No action was chosen." }),
    };
    let counted_at = fields.read::<Timestamp>("counted").ok().flatten().map_or(now, |at| at.min(now));
    if fields.text("scope") == "fitting" {
        // Ages in the filter count from when the items were counted.
        let mut fitting = filter(fields, counted_at)?;
        fitting.received_before = Some(fitting.received_before.map_or(counted_at, |at| at.min(counted_at)));
        return Ok((action, Which::Fitting(fitting), counted_at));
    }
    let mut named = Vec::new();
    for text in fields.all("item").take(NAMED_MAX) {
        let item =
            text.parse::<ItemId>().map(|item| QueueFilter { item: Some(item), ..QueueFilter::default() });
        let message =
            |()| text.parse::<QueueId>().map(|id| QueueFilter { id: Some(id), ..QueueFilter::default() });
        named.push(item.or_else(message).map_err(|()| html! { "That is no queue id." })?);
    }
    if named.is_empty() {
        return Err(html! { "No item was ticked." });
    }
    Ok((action, Which::Named(named), counted_at))
}

/// Does it, or counts: how many were changed, how many stayed as they are being tried, and whether that is all.
async fn run(
    site: &Page,
    which: &Which,
    action: QueueAction,
    reason: Option<&str>,
    dry_run: bool,
) -> Result<(u64, u64, bool), String> {
    let filters = match which {
        Which::Named(filters) => filters.as_slice(),
        Which::Fitting(filter) => std::slice::from_ref(filter),
    };
    let (begun, mut done, mut stayed) = (Instant::now(), 0, 0);
    for filter in filters {
        let mut at = None;
        loop {
            let request = Request::QueueAct {
                filter: filter.clone(),
                action,
                reason: reason.map(str::to_owned),
                cursor: at,
                dry_run,
            };
            match site.ask(request).await? {
                Answer::Acted { trouble: Some(text), .. } => return Err(text),
                Answer::Acted { count, left, cursor, trouble: None } => {
                    done += count;
                    stayed += left;
                    at = cursor;
                }
                other => return Err(unexpected(&other)),
            }
            if at.is_none() {
                break;
            }
            if begun.elapsed() >= WORKS_FOR {
                return Ok((done, stayed, false));
            }
        }
        if begun.elapsed() >= WORKS_FOR {
            return Ok((done, stayed, false));
        }
    }
    Ok((done, stayed, true))
}

fn verb(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Retry => "Try now",
        QueueAction::Hold => "Hold",
        QueueAction::Release => "Release",
        QueueAction::Delete => "Delete",
        QueueAction::Bounce => "Bounce",
    }
}

fn done_word(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Retry => "will be tried now",
        QueueAction::Hold => "held",
        QueueAction::Release => "released",
        QueueAction::Delete => "deleted",
        QueueAction::Bounce => "bounced",
    }
}

fn consequence(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Retry => "They are tried now, whatever their schedule says.",
        QueueAction::Hold => "They are not tried until they are released.",
        QueueAction::Release => "They are tried now.",
        QueueAction::Delete => {
            "They are gone, and nobody is told: neither sender nor recipient. This cannot be undone."
        }
        QueueAction::Bounce => "They are given up, and their senders are told. This cannot be undone.",
    }
}

struct Asked<'a> {
    action: QueueAction,
    fields: &'a Fields,
    count: u64,
    step: Step,
    counted_at: Timestamp,
    /// The number written down was another one.
    wrong: bool,
}

fn confirmation(site: &Page, visit: &Visit, asked: &Asked<'_>) -> Response {
    let items = counted(asked.count, "item", "items");
    let title = format!("{} {items}?", verb(asked.action));
    let ends_mail = matches!(asked.action, QueueAction::Delete | QueueAction::Bounce);
    let step = if asked.step == Step::Seen { "seen" } else { "written" };
    let fitting = asked.fields.text("scope") == "fitting";
    let body = html! {
        h1 { (title) }
        @if asked.wrong { p.note.failed role="alert" { "That was not the number." } }
        form.confirm action="/queue/act" method="post" {
            (coded(visit, asked.fields.text("back")))
            @for (field, value) in asked.fields.only(&FILTER) { input type="hidden" name=(field) value=(value); }
            @for item in asked.fields.all("item").take(NAMED_MAX) { input type="hidden" name="item" value=(item); }
            input type="hidden" name="scope" value=(if fitting { "fitting" } else { "ticked" });
            input type="hidden" name="action" value=(asked.fields.text("action"));
            input type="hidden" name="step" value=(step);
            input type="hidden" name="counted" value=(asked.counted_at);
            input type="hidden" name="count" value=(asked.count);
            p.text {
                @if fitting { "Those that fit: " (in_words(asked.fields)) ". " } @else { "Those that were ticked. " }
                (consequence(asked.action))
            }
            @if asked.step == Step::Written {
                p { label for="number" { "Write down how many: " (asked.count) }
                    input #number name="number" inputmode="numeric" required autocomplete="off" autofocus; }
                input type="hidden" name="reason" value=(asked.fields.text("reason"));
            } @else if asked.action == QueueAction::Bounce {
                p { label for="reason" { "Reason, for the senders (optional)" }
                    input #reason name="reason" maxlength=(REASON_MAX) autocomplete="off"; }
            }
            p.buttons {
                button.danger[ends_mail].main[!ends_mail] type="submit" { (verb(asked.action)) " " (items) }
                a href=(super::form::path_here(asked.fields.text("back"))) { "No, go back" }
            }
        }
    };
    page(site, visit, Tab::Queue, &title, body)
}
