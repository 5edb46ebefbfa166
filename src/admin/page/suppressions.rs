//! `/suppressions`: recipients that are suppressed; one can be taken off the list.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::form::link;
use super::gate::Visit;
use super::shell::{Tab, badge, coded, mistake, page, pager, trouble};
use super::text::{exactly, name, words};
use super::{Page, unexpected};
use crate::admin::protocol::{Answer, Request};
use crate::mail::Mailbox;
use crate::store::suppressions::SuppressedBy;

/// Entries of a page.
const SHOWN: usize = 50;

/// `GET /suppressions`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let read = |field: &str| visit.query.some(field).map(Mailbox::parse).transpose();
    let (Ok(after), Ok(find)) = (read("after"), read("address")) else {
        return mistake(&site, &visit, html! { (name(visit.query.text("address"))) " is no address." });
    };
    let request = match find {
        Some(address) => Request::SuppressionShow { address },
        None => Request::SuppressionList { after },
    };
    let (mut entries, mut more) = match site.ask(request).await {
        Ok(Answer::Suppressions { entries, more }) => (entries, more),
        Ok(Answer::Nothing { .. }) => (Vec::new(), false),
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    more |= entries.len() > SHOWN;
    entries.truncate(SHOWN);
    let now = site.facts.now();
    let last = entries.last().filter(|_| more).map(|entry| entry.address.to_string());
    let next = last.map(|last| link("/suppressions", [("after", last.as_str())]));
    let first = visit.query.some("after").map(|_| "/suppressions".to_owned());
    let body = html! {
        h1 { "Suppressions" }
        p.lead { "Recipients that do not exist, as their own mail systems said, and those an operator suppressed. No mail goes to them until their time is over." }
        form.filter action="/suppressions" method="get" {
            p { label for="address" { "Address" } input #address name="address" value=(visit.query.text("address"))
                maxlength="320" spellcheck="false" autocomplete="off"; }
            button type="submit" { "Show" }
            @if visit.query.some("address").is_some() { a href="/suppressions" { "All" } }
        }
        @if entries.is_empty() { p.empty { "Nobody is on the list." } }
        @else {
            div.scroll { table.stack role="table" {
                caption.aside { "Suppressed recipients" }
                thead role="rowgroup" { tr role="row" {
                    th scope="col" role="columnheader" { "Address" }
                    th scope="col" role="columnheader" { "Stands" }
                    th scope="col" role="columnheader" { "Until" }
                    th scope="col" role="columnheader" { "Why" }
                    @if visit.acts() { th scope="col" role="columnheader" { span.aside { "Action" } } }
                } }
                tbody role="rowgroup" { @for entry in &entries {
                    @let address = entry.address.to_string();
                    tr role="row" {
                        th scope="row" role="rowheader" data-label="Address" { (name(&address)) }
                        td role="cell" data-label="Stands" {
                            @if entry.is_active(now) { (badge("bad", "suppressed")) } @else { (badge("quiet", "counted")) }
                            @if entry.by == SuppressedBy::Operator { " " (badge("quiet", "by an operator")) }
                        }
                        td role="cell" data-label="Until" { (exactly(entry.until, now)) }
                        td role="cell" data-label="Why" { (words(&entry.reason)) }
                        @if visit.acts() {
                            td role="cell" data-label="Action" {
                                form action="/suppressions/act" method="post" {
                                    (coded(&visit, &visit.here))
                                    input type="hidden" name="address" value=(address);
                                    button type="submit" aria-label={ "Take " (address) " off the list" } { "Take off" }
                                }
                            }
                        }
                    }
                } }
            } }
        }
        (pager(first, next))
    };
    page(&site, &visit, Tab::Suppressions, "Suppressions", body)
}

/// `POST /suppressions/act`
pub(super) async fn act(
    State(site): State<Arc<Page>>,
    Extension(visit): Extension<Visit>,
    body: Bytes,
) -> Response {
    let fields = match site.believe(&visit, &body) {
        Ok(fields) => fields,
        Err(refusal) => return *refusal,
    };
    let Ok(address) = Mailbox::parse(fields.text("address")) else {
        return mistake(&site, &visit, html! { (name(fields.text("address"))) " is no address." });
    };
    let text = address.to_string();
    let said = match site.ask(Request::SuppressionRemove { address }).await {
        Ok(Answer::Changed { .. }) => Ok(format!("{text} is off the suppression list")),
        Ok(other) => Err(unexpected(&other)),
        Err(text) => Err(text),
    };
    site.done(&visit, fields.text("back"), said)
}
