//! `/message`: one message, by queue id, item id or Message-ID.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::form::link;
use super::gate::{Visit, redirect};
use super::queue::{buttons, sender, state};
use super::shell::{Tab, badge, coded, page, refusal, trouble};
use super::text::{count, counted, exactly, name, octets, when, words};
use super::{Page, destinations, evidence, unexpected};
use crate::admin::protocol::evidence::EvidenceRequest;
use crate::admin::protocol::{Answer, QueueEntry, QueueFilter, Request, TlsAsk};
use crate::queue::{AttemptRecord, Evidence, ItemId, QueueId};
use crate::store::EvidenceFilter;

/// Items of a message that are shown.
const ITEMS_MAX: usize = 50;
/// Attempts with evidence that are shown, the latest.
const ATTEMPTS_MAX: usize = 60;
/// Pages of evidence looked at for them; a page ends early where the log is long.
const LOOKS_MAX: usize = 8;
/// Messages listed that have the same Message-ID.
const SAME_MAX: usize = 30;

/// `GET /message`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let id = visit.query.text("id");
    let (queue, kept) = match (id.parse::<ItemId>(), id.parse::<QueueId>()) {
        (Ok(item), _) => (
            QueueFilter { item: Some(item), ..QueueFilter::default() },
            EvidenceFilter { item: Some(item), ..EvidenceFilter::default() },
        ),
        (_, Ok(id)) => (
            QueueFilter { id: Some(id), ..QueueFilter::default() },
            EvidenceFilter { id: Some(id), ..EvidenceFilter::default() },
        ),
        _ => return by_message_id(&site, &visit, id).await,
    };
    let request = Request::QueueList { filter: queue, cursor: None, history: true, max: Some(ITEMS_MAX) };
    let (entries, more) = match site.ask(request).await {
        Ok(Answer::QueuePage { entries, cursor }) => (entries, cursor.is_some()),
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    let found = match attempts(&site, kept).await {
        Ok(found) => found,
        Err(text) => return trouble(&site, &visit, &text),
    };
    if entries.is_empty() && found.is_empty() {
        return unknown(&site, &visit, id);
    }
    let now = site.facts.now();
    let mut recorded: Vec<&Evidence> = found.iter().rev().take(ATTEMPTS_MAX).collect();
    recorded.sort_by_key(|attempt| std::cmp::Reverse(attempt.at));
    let body = html! {
        h1 { "Message " span.id { (name(id)) } }
        (envelope(&entries, &found, now))
        @if !entries.is_empty() {
            h2 { "In the queue" }
            @for entry in &entries { (item(entry, &visit, now)) }
            @if more { p.quiet { "There are more items of this message: " a href=(link("/queue", [])) { "look in the queue" } "." } }
        } @else {
            p.lead { "It is not in the queue any more: every recipient was delivered to or given up, or an operator took it out." }
        }
        h2 #attempts { "Attempts and their evidence" }
        @if recorded.is_empty() {
            p.empty { "No evidence is kept: not tried yet, older than evidence.keep, or switched off (evidence.enabled)." }
        }
        @for attempt in &recorded { (evidence::attempt(attempt, now)) }
        @if found.len() > ATTEMPTS_MAX {
            p.quiet { "Older attempts: " code { "stsrelay evidence " (name(id)) } }
        }
    };
    page(&site, &visit, Tab::Queue, &format!("Message {id}"), body)
}

/// What is kept of attempts, oldest first.
async fn attempts(site: &Page, filter: EvidenceFilter) -> Result<Vec<Evidence>, String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..LOOKS_MAX {
        let asked = EvidenceRequest { filter: filter.clone(), cursor, max: None };
        match site.ask(Request::Evidence(asked)).await? {
            Answer::Evidence(answer) => {
                found.extend(answer.attempts);
                cursor = answer.cursor;
            }
            other => return Err(unexpected(&other)),
        }
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

/// The messages that have this Message-ID; one leads on.
async fn by_message_id(site: &Page, visit: &Visit, id: &str) -> Response {
    if id.is_empty() {
        return unknown(site, visit, id);
    }
    let filter = EvidenceFilter { message_id: Some(id.to_owned()), ..EvidenceFilter::default() };
    let found = match attempts(site, filter).await {
        Ok(found) => found,
        Err(text) => return trouble(site, visit, &text),
    };
    let mut messages: Vec<(QueueId, Timestamp)> = Vec::new();
    for attempt in &found {
        let id = attempt.item.queue_id;
        match messages.iter_mut().find(|(known, _)| *known == id) {
            Some((_, at)) => *at = attempt.at.max(*at),
            None => messages.push((id, attempt.at)),
        }
    }
    match messages.as_slice() {
        [] => unknown(site, visit, id),
        [(one, _)] => redirect(&link("/message", [("id", one.to_string().as_str())])),
        several => {
            let now = site.facts.now();
            let body = html! {
                h1 { "Messages with this Message-ID" }
                p { "<" (name(id)) ">" }
                ul.events.wide {
                    @for (id, at) in several.iter().rev().take(SAME_MAX) {
                        @let id = id.to_string();
                        li { a.id href=(link("/message", [("id", id.as_str())])) { (id) } " last tried " (when(*at, now)) }
                    }
                }
                @if several.len() > SAME_MAX { p.quiet { "and " (count((several.len() - SAME_MAX) as u64)) " more" } }
            };
            page(site, visit, Tab::Queue, "Messages with one Message-ID", body)
        }
    }
}

fn unknown(site: &Page, visit: &Visit, id: &str) -> Response {
    let text = html! {
        p { "Nothing is known of " strong { (name(id)) } "." }
        p { "It was never here, or is older than evidence.keep, or evidence is not kept. A Message-ID is known from the first attempt on." }
    };
    refusal(site, visit, StatusCode::NOT_FOUND, "No such message", text)
}

/// What all items have in common.
fn envelope(entries: &[QueueEntry], found: &[Evidence], now: Timestamp) -> Markup {
    let entry = entries.first();
    let kept = found.last().map(|attempt| &attempt.message);
    let from = entry.map(|entry| entry.sender.as_str()).or(kept.and_then(|kept| kept.sender.as_deref()));
    html! {
        dl.facts {
            dt { "From" } dd { @match from { Some(from) => (sender(from)), None => span.quiet { "not kept" } } }
            @if let Some(id) = kept.and_then(|kept| kept.message_id.as_deref()) { dt { "Message-ID" } dd { "<" (name(id)) ">" } }
            @if let Some(entry) = entry {
                dt { "Received" } dd { (exactly(entry.received_at, now)) }
                dt { "Size" } dd { (octets(entry.size)) }
                @if let Some(asks) = entry.asks {
                    dt { "Asks" } dd { (match asks {
                        TlsAsk::Requiretls => "REQUIRETLS: goes only over verified TLS to hosts that offer REQUIRETLS",
                        TlsAsk::TlsRequiredNo => "TLS-Required: No: goes whether TLS can be verified or not",
                    }) }
                }
                @if entry.is_report { dt { "Is" } dd { "a TLS report of this relay" } }
            }
        }
    }
}

/// One item: its recipients, its attempts in short, what can be done.
fn item(entry: &QueueEntry, visit: &Visit, now: Timestamp) -> Markup {
    let id = entry.id.to_string();
    html! {
        section.panel.item aria-label={ "Item " (id) } {
            h3 { span.id { (id) } " " (state(entry)) " to " (destinations::to(&entry.destination)) }
            p {
                @match entry.next_attempt {
                    None => { "Next try when released" },
                    Some(at) if at <= now => { "Next try now" },
                    Some(at) => { "Next try " (exactly(at, now)) },
                }
                "; " (count(entry.attempts.into())) " so far."
                @if let Some(waits) = &entry.waits { " " (words(waits)) }
            }
            div.scroll tabindex="0" role="region" aria-label={ "Recipients of " (id) } {
                table.plain {
                    thead { tr { th scope="col" { "Recipient" } th scope="col" { "State" } th scope="col" { "Last word" } } }
                    tbody {
                        @for recipient in &entry.recipients {
                            tr {
                                th scope="row" { (name(&recipient.address)) }
                                td { (badge(tone(&recipient.state), &recipient.state)) }
                                td { @match &recipient.last { Some(last) => (words(last)), None => span.quiet { "none yet" } } }
                            }
                        }
                    }
                }
            }
            @if !entry.history.is_empty() {
                details {
                    summary { (counted(entry.history.len() as u64, "attempt", "attempts")) " in short" }
                    ol.attempts { @for record in entry.history.iter().rev() { (short(record, now)) } }
                }
            }
            @if visit.acts() {
                form action="/queue/act" method="post" {
                    (coded(visit, &visit.here))
                    input type="hidden" name="item" value=(id);
                    p.buttons { (buttons()) }
                }
            }
        }
    }
}

fn short(record: &AttemptRecord, now: Timestamp) -> Markup {
    html! {
        li {
            p { (exactly(record.at, now)) " "
                @match &record.host { Some(host) => { strong { (name(host)) } }, None => "no host" }
                @if let Some(address) = record.address { " " span.quiet { (address) } } }
            p { (words(&record.result)) }
            p.quiet { (record.tls.as_deref().map_or_else(|| html! { "no TLS" }, name))
                ", verified: " (record.verified.as_deref().unwrap_or("nothing")) ", rule: " (name(&record.rule)) }
        }
    }
}

fn tone(state: &str) -> &'static str {
    match state {
        "delivered" => "fine",
        "failed" => "bad",
        _ => "odd",
    }
}
