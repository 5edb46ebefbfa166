//! `/changes`: the policy radar, newest first.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::Page;
use super::destinations;
use super::form::link;
use super::gate::Visit;
use super::shell::{Tab, badge, mistake, page, pager, trouble};
use super::text::{exactly, name, when, words};
use super::unexpected;
use crate::admin::protocol::changes::ChangesRequest;
use crate::admin::protocol::{Answer, Request};
use crate::mail::Domain;
use crate::store::ChangeFilter;
use crate::sts::radar::{Noticed, Severity};

/// Entries of a page.
const SHOWN: usize = 50;

/// `GET /changes`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let query = &visit.query;
    let asked = query.some("domain").map(Domain::parse).transpose();
    let (domain, before) = match (asked, query.read::<u64>("before")) {
        (Ok(domain), Ok(before)) => (domain, before.unwrap_or(u64::MAX)),
        _ => {
            return mistake(&site, &visit, html! { "No domain is called " (name(query.text("domain"))) "." });
        }
    };
    let filter = ChangeFilter { domain, newest_before: Some(before), ..ChangeFilter::default() };
    let answer = match site.ask(Request::Changes(ChangesRequest { filter })).await {
        Ok(Answer::Changes(answer)) => answer,
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    let now = site.facts.now();
    let (shown, more) = (&answer.changes[..answer.changes.len().min(SHOWN)], answer.changes.len() > SHOWN);
    let domain = query.text("domain");
    let next = shown
        .last()
        .filter(|_| more || answer.more)
        .map(|last| link("/changes", [("domain", domain), ("before", &last.number.to_string())]));
    let first = query.some("before").map(|_| link("/changes", [("domain", domain)]));
    let body = html! {
        h1 { "Policy radar" }
        p.lead { "Destinations that protect their mail less than they did: policies weakened, withdrawn or not fetched again, TLSA records and DNSSEC signatures that went. Newest first; the last 10,000 are kept." }
        form.filter action="/changes" method="get" {
            p { label for="domain" { "Domain or host, and names below it" }
                input #domain name="domain" value=(domain) maxlength="255" spellcheck="false"; }
            button type="submit" { "Show" }
        }
        @if shown.is_empty() { p.empty { "Nothing was noticed." } }
        @else { ul.events.wide { @for one in shown { (line(one, now)) } } }
        (pager(first, next))
    };
    page(&site, &visit, Tab::Changes, "Policy radar", body)
}

/// One change.
pub(super) fn line(noticed: &Noticed, now: Timestamp) -> Markup {
    let (tone, word) = match noticed.severity {
        Severity::Alarm => ("bad", "alarm"),
        Severity::Warning => ("odd", "warning"),
        Severity::Notice => ("quiet", "notice"),
    };
    html! {
        li {
            p { (badge(tone, word)) " " (destinations::to(noticed.domain.as_str())) " " span.quiet { (when(noticed.at, now)) } }
            p { (words(&noticed.change.to_string())) }
        }
    }
}

/// The same with its instant, for the page of a destination.
pub(super) fn dated(noticed: &Noticed, now: Timestamp) -> Markup {
    html! { li { p { (exactly(noticed.at, now)) } p { (words(&noticed.change.to_string())) } } }
}
