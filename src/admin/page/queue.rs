//! `/queue`: items by filter, a page at a time, and what can be done to them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::form::{Fields, link};
use super::gate::{Visit, read_only};
use super::shell::{Tab, badge, coded, mistake, page, pager, trouble};
use super::text::{count, name, octets, round, when, words};
use super::{Page, destinations, unexpected};
use crate::admin::protocol::{Answer, EntryState, QueueEntry, QueueFilter, QueueState, Request};
use crate::mail::Destination;
use crate::queue::ItemId;

/// Items of a page.
const SHOWN: usize = 50;
/// The fields of the filter, as the query names them.
pub(super) const FILTER: [&str; 7] = ["sender", "null", "domain", "state", "older", "newer", "error"];
/// Ages offered, in seconds.
const AGES: [u64; 6] = [600, 3_600, 14_400, 86_400, 172_800, 432_000];

/// Reads the filter off a query or a form.
///
/// # Errors
/// What is not understood.
pub(super) fn filter(fields: &Fields, now: Timestamp) -> Result<QueueFilter, Markup> {
    let ago = |name: &str| -> Result<Option<Timestamp>, Markup> {
        let seconds = fields.read::<u32>(name).map_err(|text| html! { (self::words(&text)) " is no age" })?;
        Ok(seconds.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds.into())).ok()))
    };
    if let Some(domain) = fields.some("domain") {
        Destination::parse(domain)
            .map_err(|error| html! { (name(domain)) " is no domain: " (words(&error.to_string())) })?;
    }
    let sender = if fields.text("null") == "yes" {
        Some(String::new())
    } else {
        // As logs show it.
        fields.some("sender").map(|text| text.trim_start_matches('<').trim_end_matches('>').to_owned())
    };
    Ok(QueueFilter {
        sender,
        recipient_domain: fields.some("domain").map(str::to_owned),
        state: match fields.text("state") {
            "" => None,
            "active" => Some(QueueState::Active),
            "deferred" => Some(QueueState::Deferred),
            "held" => Some(QueueState::Held),
            "frozen" => Some(QueueState::Frozen),
            other => return Err(html! { (name(other)) " is no state" }),
        },
        received_before: ago("older")?,
        received_after: ago("newer")?,
        error: fields.some("error").map(str::to_owned),
        ..QueueFilter::default()
    })
}

/// `GET /queue`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let now = site.facts.now();
    let asked = match filter(&visit.query, now) {
        Ok(filter) => filter,
        Err(text) => return mistake(&site, &visit, text),
    };
    let Ok(cursor) = visit.query.read::<ItemId>("after") else {
        return mistake(&site, &visit, html! { "This is no page of the queue." });
    };
    let request = Request::QueueList { filter: asked, cursor, history: false, max: Some(SHOWN) };
    let (entries, next) = match site.ask(request).await {
        Ok(Answer::QueuePage { entries, cursor }) => (entries, cursor),
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    let of = |after: Option<String>| {
        let filter = visit.query.only(&FILTER);
        link("/queue", filter.chain(after.as_deref().map(|after| ("after", after))))
    };
    let narrowed = visit.query.only(&FILTER).next().is_some();
    let body = html! {
        h1 { "Queue" }
        (filters(&visit.query, narrowed))
        @if entries.is_empty() {
            p.empty { @if narrowed { "No item fits." } @else { "The queue is empty." } }
        } @else if visit.acts() {
            form action="/queue/act" method="post" {
                (coded(&visit, &visit.here))
                @for (field, value) in visit.query.only(&FILTER) { input type="hidden" name=(field) value=(value); }
                (table(&entries, now, true))
                (actions(narrowed))
            }
        } @else {
            (table(&entries, now, false))
            p.quiet { (read_only(&site)) }
        }
        (pager(cursor.map(|_| of(None)), next.map(|next| of(Some(next.to_string())))))
    };
    page(&site, &visit, Tab::Queue, "Queue", body)
}

fn filters(query: &Fields, narrowed: bool) -> Markup {
    let ages = |field: &str| {
        let chosen = query.text(field);
        html! {
            option value="" { "any" }
            @for age in AGES {
                @let value = age.to_string();
                option value=(value) selected[value == chosen] { (round(age)) }
            }
        }
    };
    html! {
        form.filter action="/queue" method="get" aria-label="Filter" {
            p { label for="sender" { "Sender" }
                input #sender name="sender" value=(query.text("sender")) maxlength="320" spellcheck="false" autocomplete="off"; }
            p { label for="domain" { "Recipient domain" }
                input #domain name="domain" value=(query.text("domain")) maxlength="255" spellcheck="false" autocomplete="off"; }
            p { label for="state" { "State" }
                select #state name="state" {
                    option value="" { "any" }
                    @for state in ["active", "deferred", "held", "frozen"] {
                        option value=(state) selected[query.text("state") == state] { (state) }
                    }
                } }
            p { label for="older" { "Older than" } select #older name="older" { (ages("older")) } }
            p { label for="newer" { "Younger than" } select #newer name="newer" { (ages("newer")) } }
            p { label for="error" { "Words of the last error" }
                input #error name="error" value=(query.text("error")) maxlength="200" autocomplete="off"; }
            p.check { input #null type="checkbox" name="null" value="yes" checked[query.text("null") == "yes"];
                label for="null" { "null sender" } }
            button type="submit" { "Show" }
            @if narrowed { a href="/queue" { "All items" } }
        }
    }
}

/// Items; with boxes to tick where something can be done to them.
pub(super) fn table(entries: &[QueueEntry], now: Timestamp, ticked: bool) -> Markup {
    html! {
        div.scroll {
            table.stack role="table" {
                caption.aside { "Queue items" }
                thead role="rowgroup" { tr role="row" {
                    @if ticked { th.tick scope="col" role="columnheader" { span.aside { "Selected" } } }
                    th scope="col" role="columnheader" { "Item" }
                    th scope="col" role="columnheader" { "State" }
                    th scope="col" role="columnheader" { "From" }
                    th scope="col" role="columnheader" { "To" }
                    th scope="col" role="columnheader" { "Received" }
                    th scope="col" role="columnheader" { "Next try" }
                    th.number scope="col" role="columnheader" { "Tries" }
                } }
                tbody role="rowgroup" { @for entry in entries { (row(entry, now, ticked)) } }
            }
        }
    }
}

fn row(entry: &QueueEntry, now: Timestamp, ticked: bool) -> Markup {
    let id = entry.id.to_string();
    let why = entry.waits.as_deref().or_else(|| {
        entry
            .recipients
            .iter()
            .find(|recipient| recipient.state == "pending")
            .and_then(|one| one.last.as_deref())
    });
    let first = entry.recipients.first().map_or(entry.destination.as_str(), |one| one.address.as_str());
    html! {
        tr role="row" {
            @if ticked {
                td.tick role="cell" { input type="checkbox" name="item" value=(id) aria-label={ "Select " (id) }; }
            }
            th scope="row" role="rowheader" data-label="Item" { a.id href=(link("/message", [("id", id.as_str())])) { (id) } }
            td role="cell" data-label="State" { (state(entry)) }
            td role="cell" data-label="From" { (sender(&entry.sender)) @if entry.is_report { " " (badge("quiet", "report")) } }
            td role="cell" data-label="To" {
                (name(first))
                @if entry.recipients.len() > 1 { span.quiet { " and " (count(entry.recipients.len() as u64 - 1)) " more" } }
            }
            td role="cell" data-label="Received" { (when(entry.received_at, now)) ", " span.quiet.size { (octets(entry.size)) } }
            td role="cell" data-label="Next try" {
                @match entry.next_attempt {
                    None => "when released",
                    Some(at) if at <= now => "now",
                    Some(at) => (when(at, now)),
                }
            }
            td.number role="cell" data-label="Tries" { (count(entry.attempts.into())) }
        }
        @if let Some(why) = why {
            tr.why role="row" {
                @if ticked { td.tick role="cell" {} }
                td role="cell" colspan="7" { (words(why)) }
            }
        }
    }
}

/// How an item stands.
pub(super) fn state(entry: &QueueEntry) -> Markup {
    let (tone, word) = match entry.state {
        EntryState::Active => ("fine", "active"),
        EntryState::Deferred => ("odd", "deferred"),
        EntryState::Held => ("quiet", "held"),
    };
    html! { (badge(tone, word)) @if entry.frozen { " " (badge("odd", "frozen")) } }
}

/// A reverse-path.
pub(super) fn sender(text: &str) -> Markup {
    html! { @if text.is_empty() { span.quiet { "null sender" } } @else { (name(text)) } }
}

/// What can be done to those ticked, or to all that fit.
fn actions(narrowed: bool) -> Markup {
    html! {
        fieldset.actions {
            legend { "With these items" }
            p.which {
                label { input type="radio" name="scope" value="ticked" checked; " those ticked" }
                label { input type="radio" name="scope" value="fitting";
                    @if narrowed { " all that fit the filter, on every page" } @else { " the whole queue" } }
            }
            p.buttons {
                (buttons())
            }
        }
    }
}

/// The buttons of all actions.
pub(super) fn buttons() -> Markup {
    html! {
        button type="submit" name="action" value="retry" { "Try now" }
        button type="submit" name="action" value="hold" { "Hold" }
        button type="submit" name="action" value="release" { "Release" }
        button.danger type="submit" name="action" value="bounce" { "Bounce …" }
        button.danger type="submit" name="action" value="delete" { "Delete …" }
    }
}

/// What a filter says, for people.
pub(super) fn in_words(fields: &Fields) -> Markup {
    let parts: Vec<(&str, Markup)> = fields
        .only(&FILTER)
        .map(|(field, value)| match field {
            "sender" => ("from", name(value)),
            "null" => ("from", html! { "the null sender" }),
            "domain" => ("to", destinations::to(value)),
            "state" => ("state", name(value)),
            "older" => ("older than", html! { (round(value.parse().unwrap_or(0))) }),
            "newer" => ("younger than", html! { (round(value.parse().unwrap_or(0))) }),
            _ => ("whose last error has", words(value)),
        })
        .collect();
    html! {
        @if parts.is_empty() { "the whole queue" }
        @for (at, (what, value)) in parts.iter().enumerate() {
            @if at > 0 { ", " } (what) " " (value)
        }
    }
}
