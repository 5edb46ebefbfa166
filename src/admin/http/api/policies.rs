//! Cached policies, what weakened of them, and `explain`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::super::protocol::changes::{ChangesAnswer, ChangesRequest};
use super::super::super::protocol::policies::{ForgottenView, PolicyView, RefreshView};
use super::super::super::protocol::{Answer, Request, whereto};
use super::super::guard::Access;
use super::super::problem::Problem;
use super::extract::{Asked, Cursor, Limit, Named, Told, cursor};
use super::{Page, Reply, Routes, Site, bad, found, refused};
use crate::mail::Domain;
use crate::store::ChangeFilter;

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/policies", list);
    routes.get("/policies/{domain}", one);
    routes.post("/policies/{domain}/forget", forget);
    routes.get("/changes", changes);
}

pub(super) fn slow_routes(routes: &mut Routes) {
    routes.post("/policies/{domain}/refresh", refresh);
    routes.get("/explain", explain);
}

/// Nothing to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct ListQuery {
    limit: Limit,
    #[serde(deserialize_with = "cursor")]
    cursor: Option<Cursor<Domain>>,
}

async fn list(State(site): State<Arc<Site>>, Asked(asked): Asked<ListQuery>) -> Reply {
    let now = site.handles.clock.now();
    match site.handles.answer(Request::PolicyList { after: asked.cursor.map(|cursor| cursor.0) }).await {
        Answer::Policies { entries, more, .. } => {
            let items = entries.iter().map(|entry| PolicyView::new(entry, now)).collect();
            found(&Page::cut(items, asked.limit.0, more, |last: &PolicyView| last.domain.clone()))
        }
        other => Err(refused(other)),
    }
}

async fn one(State(site): State<Arc<Site>>, Named(domain): Named<Domain>) -> Reply {
    let now = site.handles.clock.now();
    match site.handles.answer(Request::PolicyShow { domain }).await {
        Answer::Policies { entries, local, .. } => match entries.first() {
            Some(entry) => found(&PolicyView { local, ..PolicyView::new(entry, now) }),
            None => Err(refused(Answer::Nothing { text: "no such policy".to_owned() })),
        },
        other => Err(refused(other)),
    }
}

async fn refresh(
    State(site): State<Arc<Site>>,
    Named(domain): Named<Domain>,
    Told(Nothing {}): Told<Nothing>,
) -> Reply {
    match site.handles.answer(Request::PolicyRefresh { domain: domain.clone() }).await {
        Answer::Refreshed { record, fetch, entry } => {
            let now = site.handles.clock.now();
            found(&RefreshView::new(domain, record, fetch, entry.as_deref(), now))
        }
        other => Err(refused(other)),
    }
}

async fn forget(
    State(site): State<Arc<Site>>,
    Named(domain): Named<Domain>,
    Told(Nothing {}): Told<Nothing>,
) -> Reply {
    match site.handles.answer(Request::PolicyForget { domain: domain.clone() }).await {
        Answer::Changed { .. } => found(&ForgottenView { domain, forgotten: true }),
        other => Err(refused(other)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct ChangesQuery {
    domain: Option<Domain>,
    since: Option<Timestamp>,
    limit: Limit,
    #[serde(deserialize_with = "cursor")]
    cursor: Option<Cursor<u64>>,
}

async fn changes(State(site): State<Arc<Site>>, Asked(asked): Asked<ChangesQuery>) -> Reply {
    let ChangesQuery { domain, since, limit, cursor } = asked;
    let filter =
        ChangeFilter { domain, since, after: cursor.map(|cursor| cursor.0), ..ChangeFilter::default() };
    match site.handles.answer(Request::Changes(ChangesRequest { filter })).await {
        Answer::Changes(ChangesAnswer { changes, more }) => {
            found(&Page::cut(changes, limit.0, more, |last| last.number))
        }
        other => Err(refused(other)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    to: String,
    #[serde(default)]
    connect: bool,
}

async fn explain(
    State(site): State<Arc<Site>>,
    Extension(access): Extension<Access>,
    Asked(ExplainQuery { to, connect }): Asked<ExplainQuery>,
) -> Reply {
    // Others see it.
    if connect && access == Access::Read {
        let text = "connecting to hosts is for those who may act; without connect it is explained to you too";
        return Err(Problem::new(StatusCode::FORBIDDEN, "read-only", text));
    }
    let destination = whereto(&to).map_err(|text| bad("bad-query", format!("to: {text}")))?;
    match site.handles.answer(Request::Explain { destination, connect }).await {
        Answer::Explained(explanation) => found(&explanation),
        other => Err(refused(other)),
    }
}
