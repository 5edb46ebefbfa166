//! `/destinations`: what is known of each: its policy, its items, what it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::form::link;
use super::gate::Visit;
use super::shell::{Tab, badge, page, pager, trouble};
use super::text::{count, name, when, words};
use super::{Page, destination};
use crate::admin::protocol::{DestinationTotal, FrozenTotal};
use crate::mail::{Destination, Domain};
use crate::sts::{CachedPolicy, Mode};

/// Destinations of a page.
const SHOWN: usize = 50;
/// Characters searched for.
const FIND_MAX: usize = 255;

/// What is known of one.
#[derive(Default)]
struct Row<'a> {
    policy: Option<&'a CachedPolicy>,
    items: Option<&'a DestinationTotal>,
    frozen: Option<&'a FrozenTotal>,
}

/// `GET /destinations`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let totals = match site.totals().await {
        Ok(totals) => totals,
        Err(text) => return trouble(&site, &visit, &text),
    };
    let find: String = visit.query.text("find").to_lowercase().chars().take(FIND_MAX).collect();
    let (after, with_mail) = (visit.query.some("after"), visit.query.text("with") == "mail");
    let fits = |name: &str| name.contains(&find) && after.is_none_or(|after| name > after);
    let policies = if with_mail { Vec::new() } else { site.facts.policies(&find, after, SHOWN + 1) };
    let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    for policy in &policies {
        rows.entry(policy.domain.as_str()).or_default().policy = Some(policy);
    }
    for total in totals.destinations.iter().filter(|total| fits(&total.destination)) {
        rows.entry(&total.destination).or_default().items = Some(total);
    }
    for frozen in totals.frozen.iter().filter(|frozen| fits(&frozen.destination)) {
        rows.entry(&frozen.destination).or_default().frozen = Some(frozen);
    }
    let more = rows.len() > SHOWN;
    let rows: Vec<(&str, Row<'_>)> = rows.into_iter().take(SHOWN).collect();
    // Policies of those listed for their mail alone.
    let mut own: Vec<Option<CachedPolicy>> = Vec::with_capacity(rows.len());
    for (name, row) in &rows {
        own.push(match (row.policy, Domain::parse(name)) {
            (None, Ok(domain)) => destination::policy(&site, &domain).await,
            _ => None,
        });
    }
    let now = site.facts.now();
    let with = if with_mail { "mail" } else { "" };
    let next = rows
        .last()
        .filter(|_| more)
        .map(|(last, _)| link("/destinations", [("find", find.as_str()), ("with", with), ("after", last)]));
    let first = after.map(|_| link("/destinations", [("find", find.as_str()), ("with", with)]));
    let hidden = totals.destination_count > totals.destinations.len() as u64;
    let body = html! {
        h1 { "Destinations" }
        form.filter action="/destinations" method="get" aria-label="Filter" {
            p { label for="find" { "Part of the name" }
                input #find name="find" value=(find) maxlength=(FIND_MAX) spellcheck="false" autocomplete="off"; }
            p.check { input #with type="checkbox" name="with" value="mail" checked[with_mail];
                label for="with" { "with mail in the queue" } }
            button type="submit" { "Show" }
            @if !find.is_empty() || with_mail { a href="/destinations" { "All" } }
        }
        @if rows.is_empty() {
            p.empty { "No destination fits. A domain is known here from its first message on; "
                "search for any other to have its mail explained." }
        } @else {
            div.scroll {
                table.stack role="table" {
                    caption.aside { "Destinations" }
                    thead role="rowgroup" { tr role="row" {
                        th scope="col" role="columnheader" { "Destination" }
                        th scope="col" role="columnheader" { "MTA-STS" }
                        th scope="col" role="columnheader" { "Policy id" }
                        th scope="col" role="columnheader" { "Fetched" }
                        th scope="col" role="columnheader" { "Fetched again" }
                        th.number scope="col" role="columnheader" { "In the queue" }
                    } }
                    tbody role="rowgroup" {
                        @for ((destination, row), own) in rows.iter().zip(&own) {
                            @let waits = Destination::parse(destination).ok().and_then(|to| site.facts.waits(&to));
                            (one(destination, row.policy.or(own.as_ref()), row, waits.as_deref(), now))
                        }
                    }
                }
            }
        }
        @if hidden {
            p.quiet { "Items are counted for the " (count(totals.destinations.len() as u64)) " destinations that have most of them." }
        }
        (pager(first, next))
    };
    page(&site, &visit, Tab::Destinations, "Destinations", body)
}

fn one(
    destination: &str,
    policy: Option<&CachedPolicy>,
    row: &Row<'_>,
    waits: Option<&str>,
    now: Timestamp,
) -> Markup {
    let held = policy.and_then(|policy| policy.held.as_ref());
    let failing = policy.and_then(|policy| policy.trouble.as_ref());
    let expired = held.is_some_and(|held| held.is_expired(now));
    html! {
        tr role="row" {
            th scope="row" role="rowheader" data-label="Destination" {
                (to(destination)) @if row.frozen.is_some() { " " (badge("odd", "frozen")) }
            }
            td role="cell" data-label="MTA-STS" {
                @match held {
                    None => span.quiet { "no policy" },
                    Some(_) if expired => (badge("bad", "expired")),
                    Some(held) => (mode(held.policy.mode)),
                }
            }
            td role="cell" data-label="Policy id" { @if let Some(held) = held { (name(&held.id)) } @else { "–" } }
            td role="cell" data-label="Fetched" { @if let Some(held) = held { (when(held.fetched_at, now)) } @else { "–" } }
            td role="cell" data-label="Fetched again" {
                @match policy.and_then(|policy| policy.refresh_due_at(now)) {
                    None => "–",
                    Some(due) if due <= now => "now",
                    Some(due) => (when(due, now)),
                }
            }
            td.number role="cell" data-label="In the queue" {
                @match row.items {
                    None => "–",
                    Some(items) => a href=(link("/queue", [("domain", destination)])) { (count(items.items)) },
                }
            }
        }
        @if let Some(waits) = waits {
            tr.why role="row" { td role="cell" colspan="6" { (badge("odd", "waits")) " " (words(waits)) } }
        }
        @if let Some(trouble) = failing {
            tr.why role="row" { td role="cell" colspan="6" {
                (badge("odd", "fetch failed")) " " (when(trouble.at, now)) ", " (trouble.count) " in a row: " (words(&trouble.text))
            } }
        }
    }
}

/// A mode in a word.
pub(super) fn mode(mode: Mode) -> Markup {
    match mode {
        Mode::Enforce => badge("fine", "enforce"),
        Mode::Testing => badge("odd", "testing"),
        Mode::None => badge("quiet", "none"),
    }
}

/// Leads to the page of a destination.
pub(super) fn to(destination: &str) -> Markup {
    html! { a href=(link("/destination", [("name", destination)])) { (name(destination)) } }
}
