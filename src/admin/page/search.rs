//! `/search`: an id leads to the message, a domain to the destination, an address to what is known of it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::form::link;
use super::gate::{Visit, redirect};
use super::shell::{Tab, page};
use super::text::name;
use super::{Page, destinations};
use crate::admin::protocol::evidence::EvidenceRequest;
use crate::admin::protocol::{Answer, Request};
use crate::mail::{Destination, Mailbox};
use crate::queue::{ItemId, QueueId};
use crate::store::EvidenceFilter;

/// `GET /search`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let text = visit.query.text("q").trim();
    // As logs and headers show it.
    let bare = text.strip_prefix('<').unwrap_or(text);
    let bare = bare.strip_suffix('>').unwrap_or(bare);
    if bare.is_empty() {
        return redirect("/");
    }
    let is_id = bare.parse::<ItemId>().is_ok() || bare.parse::<QueueId>().is_ok();
    if is_id || is_message_id(&site, bare).await {
        return redirect(&link("/message", [("id", bare)]));
    }
    if !bare.contains('@')
        && let Ok(destination) = Destination::parse(&bare.to_lowercase())
        && (bare.contains('.') || bare.starts_with('['))
    {
        return redirect(&link("/destination", [("name", destination.to_string().as_str())]));
    }
    let address = Mailbox::parse(bare).ok();
    let body = html! {
        h1 { "Found for " (name(bare)) }
        @match &address {
            Some(address) => {
                @let domain = address.domain().to_string();
                ul.events.wide {
                    li { a href=(link("/queue", [("sender", bare)])) { "Queued mail from " (name(bare)) } }
                    li { a href=(link("/queue", [("domain", domain.as_str())])) { "Queued mail to " (name(&domain)) } }
                    li { "What becomes of mail to " (destinations::to(&domain)) }
                    li { a href=(link("/suppressions", [("address", bare)])) { "Whether " (name(bare)) " is suppressed" } }
                }
                p.quiet { "No message with this Message-ID is known." }
            },
            None => {
                p { "That is no queue id, no Message-ID that is known, no address and no domain." }
                p { a href=(link("/queue", [("error", bare)])) { "Queued mail whose last error has these words" } }
            },
        }
    };
    page(&site, &visit, Tab::None, "Search", body)
}

/// Whether evidence knows a message by this name.
async fn is_message_id(site: &Page, text: &str) -> bool {
    if !text.contains('@') {
        return false;
    }
    let filter = EvidenceFilter { message_id: Some(text.to_owned()), ..EvidenceFilter::default() };
    let asked = Request::Evidence(EvidenceRequest { filter, cursor: None, max: Some(1) });
    matches!(site.ask(asked).await, Ok(Answer::Evidence(answer)) if !answer.attempts.is_empty())
}
