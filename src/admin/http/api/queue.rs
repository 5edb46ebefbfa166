//! The queue: listing it, acting on it, freezing destinations.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::super::protocol::{
    ActCursor, ActOutcome, Answer, QueueAction, QueueFilter, QueueState, Request,
};
use super::super::problem::Problem;
use super::extract::{Asked, Cursor, Limit, Named, Told, cursor};
use super::{Page, Reply, Routes, Site, bad, found, refused};
use crate::mail::Destination;
use crate::queue::{ItemId, QueueId};
use crate::store::Filter;

/// An operation goes on for so long within one request; whoever asks goes on with `next`.
const ACT_FOR: Duration = Duration::from_secs(5);
/// Destinations in totals, where nothing else is asked for.
const DESTINATIONS: usize = 20;

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/queue/items", items);
    routes.get("/queue/items/{id}", item);
    routes.get("/queue/stats", stats);
    routes.post("/queue/actions", act);
    routes.post("/queue/freeze", freeze);
    routes.post("/queue/thaw", thaw);
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct ItemsQuery {
    id: Option<QueueId>,
    item: Option<ItemId>,
    sender: Option<String>,
    recipient_domain: Option<String>,
    state: Option<QueueState>,
    received_before: Option<Timestamp>,
    received_after: Option<Timestamp>,
    error: Option<String>,
    history: bool,
    limit: Limit,
    #[serde(deserialize_with = "cursor")]
    cursor: Option<Cursor<ItemId>>,
}

async fn items(State(site): State<Arc<Site>>, Asked(asked): Asked<ItemsQuery>) -> Reply {
    let ItemsQuery { history, limit, cursor, .. } = asked;
    let filter = QueueFilter {
        id: asked.id,
        item: asked.item,
        sender: asked.sender,
        recipient_domain: asked.recipient_domain,
        state: asked.state,
        received_before: asked.received_before,
        received_after: asked.received_after,
        error: asked.error,
    };
    sound(&filter)?;
    let (cursor, max) = (cursor.map(|cursor| cursor.0), Some(limit.0));
    match site.handles.answer(Request::QueueList { filter, cursor, history, max }).await {
        Answer::QueuePage { entries, cursor } => {
            found(&Page { items: entries, next: cursor.map(|cursor| Cursor(cursor).render()) })
        }
        other => Err(refused(other)),
    }
}

async fn item(State(site): State<Arc<Site>>, Named(id): Named<ItemId>) -> Reply {
    let filter = QueueFilter { item: Some(id), ..QueueFilter::default() };
    let request = Request::QueueList { filter, cursor: None, history: true, max: Some(1) };
    match site.handles.answer(request).await {
        Answer::QueuePage { entries, .. } => match entries.first() {
            Some(entry) => found(entry),
            None => Err(refused(Answer::Nothing {
                text: format!("{id} is not in the queue: delivered, given up or never here"),
            })),
        },
        other => Err(refused(other)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct StatsQuery {
    destinations: Option<usize>,
}

async fn stats(State(site): State<Arc<Site>>, Asked(asked): Asked<StatsQuery>) -> Reply {
    let destinations = asked.destinations.unwrap_or(DESTINATIONS);
    match site.handles.answer(Request::QueueStats { destinations }).await {
        Answer::QueueTotals(totals) => found(&totals),
        other => Err(refused(other)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    action: QueueAction,
    #[serde(default)]
    filter: QueueFilter,
    /// An empty filter is all items: that must be meant.
    #[serde(default)]
    all: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default, deserialize_with = "cursor")]
    cursor: Option<Cursor<ActCursor>>,
}

/// A step of an operation, and where it goes on.
#[derive(Serialize)]
struct Step {
    #[serde(flatten)]
    outcome: ActOutcome,
    next: Option<String>,
}

async fn act(State(site): State<Arc<Site>>, Told(order): Told<Order>) -> Reply {
    sound(&order.filter)?;
    match (order.filter == QueueFilter::default(), order.all) {
        (true, false) => return Err(bad("no-filter", "name a filter, or all: true for the whole queue")),
        (false, true) => return Err(bad("no-filter", "all: true goes without a filter")),
        _ => {}
    }
    if order.reason.is_some() && order.action != QueueAction::Bounce {
        return Err(bad("bad-body", "a reason is for bounce, whose senders are told it"));
    }
    found(&carry_out(&site, order).await?)
}

/// Takes steps of an operation for a while.
async fn carry_out(site: &Site, order: Order) -> Result<Step, Problem> {
    let Order { action, filter, reason, dry_run, cursor, .. } = order;
    let named = filter.item.map(|item| item.to_string()).or(filter.id.map(|id| id.to_string()));
    let mut outcome = ActOutcome { id: named, action, dry_run, count: 0, left: 0, trouble: None };
    let (mut cursor, begun) = (cursor.map(|cursor| cursor.0), Instant::now());
    loop {
        let request =
            Request::QueueAct { filter: filter.clone(), action, reason: reason.clone(), cursor, dry_run };
        match site.handles.answer(request).await {
            Answer::Acted { count, left, cursor: next, trouble } => {
                outcome.count += count;
                outcome.left += left;
                (cursor, outcome.trouble) = (next, trouble);
            }
            other => return Err(refused(other)),
        }
        if cursor.is_none() || outcome.trouble.is_some() || begun.elapsed() >= ACT_FOR {
            break;
        }
    }
    Ok(Step { outcome, next: cursor.map(|cursor| Cursor(cursor).render()) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FreezeOrder {
    destination: Destination,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    until: Option<Timestamp>,
}

/// A destination was frozen.
#[derive(Serialize)]
struct FrozenView {
    destination: Destination,
    frozen: bool,
}

async fn freeze(State(site): State<Arc<Site>>, Told(order): Told<FreezeOrder>) -> Reply {
    let FreezeOrder { destination, reason, until } = order;
    if until.is_some_and(|until| until <= site.handles.clock.now()) {
        return Err(bad("past", "until is past"));
    }
    let request = Request::QueueFreeze { destination: destination.clone(), reason, until };
    match site.handles.answer(request).await {
        Answer::Changed { .. } => found(&FrozenView { destination, frozen: true }),
        other => Err(refused(other)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThawOrder {
    destination: Destination,
}

/// Thaws, and has what waited tried at once, as the command line does.
async fn thaw(State(site): State<Arc<Site>>, Told(ThawOrder { destination }): Told<ThawOrder>) -> Reply {
    let filter = QueueFilter { recipient_domain: Some(destination.to_string()), ..QueueFilter::default() };
    match site.handles.answer(Request::QueueThaw { destination }).await {
        Answer::Changed { .. } => {}
        other => return Err(refused(other)),
    }
    let order =
        Order { action: QueueAction::Retry, filter, all: false, reason: None, dry_run: false, cursor: None };
    found(&carry_out(&site, order).await?)
}

fn sound(filter: &QueueFilter) -> Result<(), Problem> {
    Filter::try_from(filter).map(|_| ()).map_err(|text| bad("bad-filter", text))
}
