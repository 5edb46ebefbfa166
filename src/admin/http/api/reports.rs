//! TLS reports: those made, today's, their targets, the digest.

use std::sync::Arc;

use axum::extract::State;
use jiff::civil::Date;
use serde::Deserialize;

use super::super::super::protocol::reports::{
    ForgivenView, ReportListRequest, ReportView, ReportsAnswer, ReportsRequest,
};
use super::super::super::protocol::{Answer, Request};
use super::super::problem::Problem;
use super::extract::{Asked, Cursor, Limit, Named, Told, cursor, from_text};
use super::{Page, Reply, Routes, Site, bad, found, refused};
use crate::mail::Domain;

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/reports", list);
    routes.get("/reports/{day}/{domain}", one);
    routes.get("/previews/{domain}", preview);
    routes.get("/report-targets", targets);
    routes.post("/report-targets/forgive", forgive);
}

pub(super) fn slow_routes(routes: &mut Routes) {
    routes.post("/reports/send", send);
    // It reads a day's results of all domains.
    routes.get("/digest", digest);
}

async fn ask(site: &Site, request: ReportsRequest) -> Result<ReportsAnswer, Problem> {
    match site.handles.answer(Request::Reports(request)).await {
        Answer::Reports(answer) => Ok(answer),
        other => Err(refused(other)),
    }
}

fn strange() -> Problem {
    refused(Answer::Changed { count: 0 })
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct ListQuery {
    #[serde(deserialize_with = "from_text")]
    day: Option<Date>,
    domain: Option<Domain>,
    failed: bool,
    limit: Limit,
    #[serde(deserialize_with = "cursor")]
    cursor: Option<Cursor<(Date, Domain)>>,
}

async fn list(State(site): State<Arc<Site>>, Asked(asked): Asked<ListQuery>) -> Reply {
    let ListQuery { day, domain, failed, limit, cursor } = asked;
    let request = ReportListRequest { after: cursor.map(|cursor| cursor.0), day, domain, failed };
    let ReportsAnswer::Page { entries, mails, more } = ask(&site, ReportsRequest::List(request)).await?
    else {
        return Err(strange());
    };
    let items = entries.iter().map(|entry| ReportView::new(entry, &mails)).collect();
    found(&Page::cut(items, limit.0, more, |last: &ReportView| (last.day, last.domain.clone())))
}

/// `latest` is the last one that was made.
async fn one(State(site): State<Arc<Site>>, Named((day, domain)): Named<(String, Domain)>) -> Reply {
    let day = match day.as_str() {
        "latest" => None,
        text => {
            Some(text.parse().map_err(|_| bad("bad-path", format!("{text:?} is no day, and not latest")))?)
        }
    };
    let ReportsAnswer::Page { entries, mails, .. } = ask(&site, ReportsRequest::Show { day, domain }).await?
    else {
        return Err(strange());
    };
    match entries.first() {
        Some(entry) => found(&ReportView::new(entry, &mails)),
        None => Err(strange()),
    }
}

async fn preview(State(site): State<Arc<Site>>, Named(domain): Named<Domain>) -> Reply {
    match ask(&site, ReportsRequest::Preview { domain }).await? {
        ReportsAnswer::Text { json } => Ok(super::json(json)),
        _ => Err(strange()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendOrder {
    #[serde(default)]
    day: Option<Date>,
    #[serde(default)]
    domain: Option<Domain>,
    #[serde(default)]
    again: bool,
    #[serde(default, deserialize_with = "cursor")]
    cursor: Option<Cursor<(Date, Domain)>>,
}

async fn send(State(site): State<Arc<Site>>, Told(order): Told<SendOrder>) -> Reply {
    let SendOrder { day, domain, again, cursor } = order;
    let request = ReportsRequest::Send { day, domain, again, after: cursor.map(|cursor| cursor.0) };
    match ask(&site, request).await? {
        ReportsAnswer::Sent { lines, next } => {
            found(&Page { items: lines, next: next.map(|next| Cursor(next).render()) })
        }
        _ => Err(strange()),
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct TargetsQuery {
    limit: Limit,
    #[serde(deserialize_with = "cursor")]
    cursor: Option<Cursor<String>>,
}

async fn targets(State(site): State<Arc<Site>>, Asked(asked): Asked<TargetsQuery>) -> Reply {
    let after = asked.cursor.map(|cursor| cursor.0);
    match ask(&site, ReportsRequest::Targets { after }).await? {
        ReportsAnswer::Targets { targets, more } => {
            found(&Page::cut(targets, asked.limit.0, more, |last| last.standing.target.clone()))
        }
        _ => Err(strange()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgiveOrder {
    target: String,
}

async fn forgive(State(site): State<Arc<Site>>, Told(ForgiveOrder { target }): Told<ForgiveOrder>) -> Reply {
    let request = Request::Reports(ReportsRequest::Forgive { target: target.clone() });
    match site.handles.answer(request).await {
        Answer::Changed { .. } => found(&ForgivenView { target, forgiven: true }),
        other => Err(refused(other)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct DigestQuery {
    #[serde(deserialize_with = "from_text")]
    day: Option<Date>,
}

async fn digest(State(site): State<Arc<Site>>, Asked(DigestQuery { day }): Asked<DigestQuery>) -> Reply {
    match ask(&site, ReportsRequest::Digest { day }).await? {
        ReportsAnswer::Digest(digest) => found(&digest),
        _ => Err(strange()),
    }
}
