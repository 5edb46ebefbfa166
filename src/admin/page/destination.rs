//! `/destination`: one destination: what would become of mail to it now, its policy, its items, its changes; and
//! freezing, thawing, fetching and forgetting its policy.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::form::{Fields, link};
use super::gate::Visit;
use super::shell::{Tab, badge, coded, mistake, page, trouble};
use super::text::{count, exactly, name, words};
use super::{Page, changes, destinations, explain, queue, unexpected};
use crate::admin::protocol::changes::ChangesRequest;
use crate::admin::protocol::{Answer, FrozenTotal, QueueEntry, QueueFilter, Request};
use crate::mail::{Destination, Domain};
use crate::queue::retry::after;
use crate::store::ChangeFilter;
use crate::sts::CachedPolicy;
use crate::sts::radar::Noticed;

/// Items shown here; all of them are in `/queue`.
const ITEMS_SHOWN: usize = 20;
/// Changes shown here.
const CHANGES_SHOWN: usize = 10;
/// Characters of the policy's text shown.
const POLICY_MAX: usize = 4000;
/// Characters of a reason for a freeze.
const REASON_MAX: usize = 200;

/// `GET /destination`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let asked = visit.query.text("name");
    let destination = match Destination::parse(asked) {
        Ok(destination) => destination,
        Err(error) => {
            let text = html! { (name(asked)) " is no destination: " (words(&error.to_string())) };
            return mistake(&site, &visit, text);
        }
    };
    let domain = domain_of(&destination);
    let text = destination.to_string();
    let connect = visit.query.text("connect") == "yes" && visit.acts();
    // DNS and policy hosts are asked for whoever looks here, and not for other sites' links.
    let explained = if visit.led_here {
        None
    } else {
        Some(site.ask_outside(Request::Explain { destination: destination.clone(), connect }).await)
    };
    let filter = QueueFilter { recipient_domain: Some(text.clone()), ..QueueFilter::default() };
    let request = Request::QueueList { filter, cursor: None, history: false, max: Some(ITEMS_SHOWN) };
    let (entries, more) = match site.ask(request).await {
        Ok(Answer::QueuePage { entries, cursor }) => (entries, cursor.is_some()),
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    let totals = match site.totals().await {
        Ok(totals) => totals,
        Err(text) => return trouble(&site, &visit, &text),
    };
    let frozen = totals.frozen.iter().find(|frozen| frozen.destination == text);
    let (policy, noticed) = match &domain {
        Some(domain) => (policy(&site, domain).await, noticed(&site, domain).await),
        None => (None, Vec::new()),
    };
    let now = site.facts.now();
    let body = html! {
        h1 { (name(&text)) }
        @if let Some(frozen) = frozen { (freeze_told(frozen, now)) }
        section aria-labelledby="explained" {
            div.title {
                h2 #explained { "What becomes of mail now" }
                p.buttons {
                    a.button href=(link("/destination", [("name", text.as_str())])) { "Explain again" }
                    @if visit.acts() {
                        a.button href=(link("/destination", [("name", text.as_str()), ("connect", "yes")])) { "Connect to the hosts, too" }
                    }
                }
            }
            @if let Some(last) = last_failure(&entries) {
                p.note.odd { strong { "The last attempt failed: " } (words(last)) }
            }
            @match &explained {
                Some(Some(Ok(Answer::Explained(explained)))) => (explain::show(explained)),
                Some(Some(Err(text))) => p.note.failed { (words(text)) },
                Some(Some(Ok(other))) => p.note.failed { (words(&unexpected(other))) },
                Some(None) => p.note { "The answer takes longer than a page may wait, or too many ask at the same time. Explain again, or ask " code { "stsrelay explain " (name(&text)) } "." },
                None => p.note { "Another site led here, so nobody was asked. Press “Explain again”." },
            }
        }
        div.columns {
            @if domain.is_some() { (policy_panel(policy.as_ref(), &text, &visit, now)) }
            (freeze_panel(frozen, &text, &visit))
        }
        (items(&entries, more, &text, &visit, now))
        @if domain.is_some() { (radar(&noticed, &text, now)) }
    };
    page(&site, &visit, Tab::Destinations, &text, body)
}

fn domain_of(destination: &Destination) -> Option<Domain> {
    match destination {
        Destination::Domain(domain) => Some(domain.clone()),
        Destination::Literal(_) => None,
    }
}

/// What is cached of it.
pub(super) async fn policy(site: &Page, domain: &Domain) -> Option<CachedPolicy> {
    match site.ask(Request::PolicyShow { domain: domain.clone() }).await {
        Ok(Answer::Policies { entries, .. }) => entries.into_iter().next(),
        _ => None,
    }
}

async fn noticed(site: &Page, domain: &Domain) -> Vec<Noticed> {
    let filter = ChangeFilter {
        domain: Some(domain.clone()),
        newest_before: Some(u64::MAX),
        ..ChangeFilter::default()
    };
    match site.ask(Request::Changes(ChangesRequest { filter })).await {
        Ok(Answer::Changes(mut answer)) => {
            answer.changes.truncate(CHANGES_SHOWN);
            answer.changes
        }
        _ => Vec::new(),
    }
}

/// What was said last to somebody who still waits.
fn last_failure(entries: &[QueueEntry]) -> Option<&str> {
    let tried = entries.iter().filter_map(|entry| Some((entry.history.last()?.at, entry)));
    let (_, entry) = tried.max_by_key(|(at, _)| *at)?;
    let waits = entry.recipients.iter().find(|recipient| recipient.state == "pending")?;
    waits.last.as_deref()
}

fn freeze_told(frozen: &FrozenTotal, now: Timestamp) -> Markup {
    html! {
        p.note {
            (badge("odd", "frozen")) " since " (exactly(frozen.since, now))
            @if let Some(until) = frozen.until { ", until " (exactly(until, now)) }
            @if let Some(reason) = &frozen.reason { ": " (words(reason)) }
        }
    }
}

fn policy_panel(policy: Option<&CachedPolicy>, text: &str, visit: &Visit, now: Timestamp) -> Markup {
    let held = policy.and_then(|policy| policy.held.as_ref());
    let trouble = policy.and_then(|policy| policy.trouble.as_ref());
    html! {
        section.panel aria-labelledby="policy" {
            h2 #policy { "MTA-STS policy in the cache" }
            @match held {
                None => p.lead { "None is held." },
                Some(held) => {
                    dl.facts {
                        dt { "Mode" } dd { (destinations::mode(held.policy.mode))
                            @if held.is_expired(now) { " " (badge("bad", "expired")) } }
                        dt { "Id" } dd { (name(&held.id)) }
                        dt { "Fetched" } dd { (exactly(held.fetched_at, now)) }
                        dt { "Applies until" } dd { (exactly(held.expires_at(), now)) }
                        @if let Some(due) = policy.and_then(|policy| policy.refresh_due_at(now)) {
                            dt { "Fetched again" } dd { @if due <= now { "now" } @else { (exactly(due, now)) } }
                        }
                        dt { "Hosts" } dd {
                            @for (at, mx) in held.policy.mx.iter().take(50).enumerate() { @if at > 0 { ", " } (name(&mx.to_string())) }
                            @if held.policy.mx.is_empty() { "–" }
                        }
                    }
                    details { summary { "Its text" } pre { (words_of(held.policy.text())) } }
                }
            }
            @if let Some(trouble) = trouble {
                p { (badge("odd", "fetch failed")) " " (exactly(trouble.at, now)) ", " (trouble.count) " in a row: " (words(&trouble.text)) }
            }
            @if visit.acts() {
                form action="/destination/act" method="post" {
                    (coded(visit, &link("/destination", [("name", text)])))
                    input type="hidden" name="name" value=(text);
                    p.buttons {
                        button type="submit" name="action" value="refetch" { "Fetch now" }
                        @if policy.is_some() { button.danger type="submit" name="action" value="forget" { "Forget …" } }
                    }
                }
            }
        }
    }
}

/// Several lines of somebody else.
fn words_of(text: &str) -> Markup {
    html! { @for line in text.lines().take(200) { (super::text::foreign(line, POLICY_MAX / 8)) "\n" } }
}

fn freeze_panel(frozen: Option<&FrozenTotal>, text: &str, visit: &Visit) -> Markup {
    html! {
        section.panel aria-labelledby="freeze" {
            h2 #freeze { "Deliveries" }
            @if frozen.is_some() { p.lead { "Frozen: mail is accepted and waits." } }
            @else { p.lead { "Not frozen." } }
            @if visit.acts() {
                form action="/destination/act" method="post" {
                    (coded(visit, &link("/destination", [("name", text)])))
                    input type="hidden" name="name" value=(text);
                    @if frozen.is_some() {
                        p.buttons { button type="submit" name="action" value="thaw" { "Thaw" } }
                    } @else {
                        p { label for="why" { "Reason (optional)" } input #why name="reason" maxlength=(REASON_MAX) autocomplete="off"; }
                        p { label for="until" { "Until" }
                            select #until name="until" {
                                option value="" { "somebody thaws it" }
                                option value="3600" { "in an hour" }
                                option value="14400" { "in four hours" }
                                option value="86400" { "tomorrow at this time" }
                                option value="604800" { "in a week" }
                            } }
                        p.buttons { button type="submit" name="action" value="freeze" { "Freeze" } }
                    }
                }
            }
        }
    }
}

fn items(entries: &[QueueEntry], more: bool, text: &str, visit: &Visit, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="items" {
            h2 #items { "In the queue" }
            @if entries.is_empty() { p.empty { "Nothing waits for this destination." } }
            @else {
                @if visit.acts() {
                    form action="/queue/act" method="post" {
                        (coded(visit, &link("/destination", [("name", text)])))
                        input type="hidden" name="domain" value=(text);
                        input type="hidden" name="scope" value="fitting";
                        (queue::table(entries, now, false))
                        fieldset.actions { legend { "With all items to " (name(text)) } p.buttons { (queue::buttons()) } }
                    }
                } @else { (queue::table(entries, now, false)) }
                @if more { p { a href=(link("/queue", [("domain", text)])) { "All of them" } " (these are the first " (count(entries.len() as u64)) ")" } }
            }
        }
    }
}

fn radar(noticed: &[Noticed], text: &str, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="noticed" {
            h2 #noticed { "Noticed by the radar" }
            @if noticed.is_empty() { p.empty { "Nothing: it was not seen to protect its mail less than before." } }
            @else {
                ul.events.wide { @for one in noticed { (changes::dated(one, now)) } }
                p { a href=(link("/changes", [("domain", text)])) { "All about it" } }
            }
        }
    }
}

/// `POST /destination/act`
pub(super) async fn act(
    State(site): State<Arc<Page>>,
    Extension(visit): Extension<Visit>,
    body: Bytes,
) -> Response {
    let fields = match site.believe(&visit, &body) {
        Ok(fields) => fields,
        Err(refusal) => return *refusal,
    };
    let Ok(destination) = Destination::parse(fields.text("name")) else {
        return mistake(&site, &visit, html! { (name(fields.text("name"))) " is no destination." });
    };
    let text = destination.to_string();
    let back = link("/destination", [("name", text.as_str())]);
    let said = match (fields.text("action"), domain_of(&destination)) {
        ("freeze", _) => freeze(&site, destination, &fields).await,
        ("thaw", _) => match site.ask(Request::QueueThaw { destination }).await {
            Ok(Answer::Changed { .. }) => Ok(format!("{text} is thawed")),
            Ok(other) => Err(unexpected(&other)),
            Err(text) => Err(text),
        },
        ("refetch", Some(domain)) => refetch(&site, domain).await,
        ("forget", Some(domain)) if fields.text("step") == "seen" => {
            match site.ask(Request::PolicyForget { domain }).await {
                Ok(Answer::Changed { .. }) => Ok(format!("the policy of {text} is forgotten")),
                Ok(other) => Err(unexpected(&other)),
                Err(text) => Err(text),
            }
        }
        ("forget", Some(_)) => return forget_confirmation(&site, &visit, &text),
        _ => return mistake(&site, &visit, html! { "No action was chosen." }),
    };
    site.done(&visit, &back, said)
}

async fn freeze(site: &Page, destination: Destination, fields: &Fields) -> Result<String, String> {
    let text = destination.to_string();
    let reason = fields.some("reason").map(|reason| reason.chars().take(REASON_MAX).collect());
    let until = match fields.read::<u32>("until") {
        Ok(seconds) => {
            seconds.map(|seconds| after(site.facts.now(), std::time::Duration::from_secs(seconds.into())))
        }
        Err(text) => return Err(format!("{text} is no time")),
    };
    match site.ask(Request::QueueFreeze { destination, reason, until }).await? {
        Answer::Changed { .. } => Ok(format!("{text} is frozen")),
        other => Err(unexpected(&other)),
    }
}

async fn refetch(site: &Page, domain: Domain) -> Result<String, String> {
    let text = domain.to_string();
    match site.ask_outside(Request::PolicyRefresh { domain }).await {
        None => Ok(format!("the policy of {text} is being fetched; look again in a moment")),
        Some(Err(text)) => Err(text),
        Some(Ok(Answer::Refreshed { record, fetch, .. })) => match (record, fetch) {
            (_, Some(Ok(mode))) => Ok(format!("fetched: a policy of mode {mode}")),
            (_, Some(Err(trouble))) => Err(format!("the fetch failed: {trouble}")),
            (Ok(id), None) => Ok(format!("the record says id {id}; no fetch was called for")),
            (Err(trouble), None) => Ok(format!("no policy is published: {trouble}")),
        },
        Some(Ok(other)) => Err(unexpected(&other)),
    }
}

fn forget_confirmation(site: &Page, visit: &Visit, text: &str) -> Response {
    let back = link("/destination", [("name", text)]);
    let body = html! {
        h1 { "Forget the policy of " (name(text)) "?" }
        form.confirm action="/destination/act" method="post" {
            (coded(visit, &back))
            input type="hidden" name="name" value=(text);
            input type="hidden" name="action" value="forget";
            input type="hidden" name="step" value="seen";
            p.text { "The next message asks anew. If DNS or the policy host cannot be trusted at that moment, mail may go without the protection that this policy gives now." }
            p.buttons { button.danger type="submit" { "Forget it" } a href=(back) { "No, go back" } }
        }
    };
    page(site, visit, Tab::Destinations, "Forget a policy?", body)
}
