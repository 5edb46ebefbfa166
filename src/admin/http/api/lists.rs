//! Evidence, the suppression list, and how the daemon is.

use std::sync::Arc;

use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::super::protocol::evidence::{EvidenceAnswer, EvidenceRequest, named};
use super::super::super::protocol::{Answer, RemovedView, Request};
use super::extract::{Asked, Cursor, Limit, Named, Told, cursor};
use super::policies::Nothing;
use super::{Page, Reply, Routes, Site, bad, found, refused};
use crate::mail::{Destination, Mailbox};
use crate::store::suppressions::Suppressed;
use crate::store::{EvidenceCursor, EvidenceFilter};

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/status", status);
    routes.get("/evidence", evidence);
    routes.get("/suppressions", suppressions);
    routes.post("/suppressions", suppress);
    routes.get("/suppressions/{address}", suppression);
    routes.post("/suppressions/{address}/remove", unsuppress);
}

async fn status(State(site): State<Arc<Site>>) -> Reply {
    match site.handles.answer(Request::Status).await {
        Answer::Status(status) => found(&status),
        other => Err(refused(other)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct EvidenceQuery {
    id: Option<String>,
    recipient_domain: Option<Destination>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Limit,
    #[serde(deserialize_with = "cursor")]
    cursor: Option<Cursor<EvidenceCursor>>,
}

async fn evidence(State(site): State<Arc<Site>>, Asked(asked): Asked<EvidenceQuery>) -> Reply {
    let filter = EvidenceFilter {
        destination: asked.recipient_domain.map(|destination| destination.to_string()),
        since: asked.since,
        until: asked.until,
        ..asked.id.as_deref().map(named).unwrap_or_default()
    };
    let cursor = asked.cursor.map(|cursor| cursor.0);
    let request = Request::Evidence(EvidenceRequest { filter, cursor, max: Some(asked.limit.0) });
    match site.handles.answer(request).await {
        Answer::Evidence(EvidenceAnswer { attempts, cursor }) => {
            found(&Page { items: attempts, next: cursor.map(|cursor| Cursor(cursor).render()) })
        }
        other => Err(refused(other)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct SuppressionsQuery {
    limit: Limit,
    #[serde(deserialize_with = "cursor")]
    cursor: Option<Cursor<Mailbox>>,
}

async fn suppressions(State(site): State<Arc<Site>>, Asked(asked): Asked<SuppressionsQuery>) -> Reply {
    let after = asked.cursor.map(|cursor| cursor.0);
    match site.handles.answer(Request::SuppressionList { after }).await {
        Answer::Suppressions { entries, more } => {
            found(&Page::cut(entries, asked.limit.0, more, |last: &Suppressed| last.address.clone()))
        }
        other => Err(refused(other)),
    }
}

/// The one entry of an answer.
fn only(answer: Answer) -> Reply {
    match answer {
        Answer::Suppressions { entries, .. } => match entries.first() {
            Some(entry) => found(entry),
            None => Err(refused(Answer::Nothing { text: "no such recipient".to_owned() })),
        },
        other => Err(refused(other)),
    }
}

async fn suppression(State(site): State<Arc<Site>>, Named(address): Named<Mailbox>) -> Reply {
    only(site.handles.answer(Request::SuppressionShow { address }).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuppressOrder {
    address: Mailbox,
    reason: String,
    until: Timestamp,
}

async fn suppress(State(site): State<Arc<Site>>, Told(order): Told<SuppressOrder>) -> Reply {
    let SuppressOrder { address, reason, until } = order;
    if until <= site.handles.clock.now() {
        return Err(bad("past", "until is past"));
    }
    only(site.handles.answer(Request::SuppressionAdd { address, reason, until }).await)
}

async fn unsuppress(
    State(site): State<Arc<Site>>,
    Named(address): Named<Mailbox>,
    Told(Nothing {}): Told<Nothing>,
) -> Reply {
    match site.handles.answer(Request::SuppressionRemove { address: address.clone() }).await {
        Answer::Changed { .. } => found(&RemovedView { address, removed: true }),
        other => Err(refused(other)),
    }
}
