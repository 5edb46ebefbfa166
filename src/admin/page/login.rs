//! `/login`: takes the token once and begins a session; `/logout` ends it.
//!
//! Wrong tokens are counted per peer, as those of `Authorization` are: whoever guesses waits.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use maud::html;
use tracing::{info, warn};

use super::Page;
use super::form::{Fields, path_here};
use super::gate::{Visit, begin_session, end_session, redirect};
use super::shell::{document, mark};
use crate::admin::http::{Peer, token_access};

/// Where to go on.
#[derive(serde::Deserialize)]
pub(super) struct To {
    #[serde(default)]
    to: String,
}

/// `GET /login`
pub(super) async fn show(State(page): State<Arc<Page>>, Query(To { to }): Query<To>) -> Response {
    form(&page, &to, None)
}

/// `POST /login`
pub(super) async fn enter(
    State(page): State<Arc<Page>>,
    peer: Option<Extension<Peer>>,
    body: Bytes,
) -> Response {
    let fields = Fields::parse(&body);
    let now = page.facts.now();
    let peer = match peer {
        Some(Extension(Peer::Host(peer))) => peer,
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let to = fields.text("to");
    if page.wrongs.wait(peer, now).is_some() {
        let said = "Too many wrong tokens came from there. Wait a minute.";
        return (StatusCode::TOO_MANY_REQUESTS, form(&page, to, Some(said))).into_response();
    }
    let Some(access) = token_access(&page.options, fields.text("token").as_bytes()) else {
        if page.wrongs.wrong(peer, now) {
            warn!(%peer, "wrong admin tokens: it is not heard for a minute");
        }
        let said = "That is not the token.";
        return (StatusCode::FORBIDDEN, form(&page, to, Some(said))).into_response();
    };
    let Ok(name) = page.sessions.begin(access) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    info!(%peer, ?access, "logged in at the status page");
    let mut response = redirect(path_here(to));
    begin_session(&mut response, &name);
    response
}

/// `POST /logout`
pub(super) async fn leave(
    State(page): State<Arc<Page>>,
    Extension(visit): Extension<Visit>,
    body: Bytes,
) -> Response {
    let mut response = redirect("/login");
    // Whoever only reads may leave too; nobody can be made to by another's form.
    if let Some(session) = visit.session
        && page.sessions.is_code(&session, Fields::parse(&body).text("code"))
    {
        page.sessions.end(&session);
        end_session(&mut response);
    }
    response
}

fn form(page: &Page, to: &str, said: Option<&str>) -> Response {
    let needed = page.options.token.is_some() || page.options.read_token.is_some();
    let body = html! {
        main.login #main tabindex="-1" {
            p.brand { (mark()) span { (page.options.hostname) } }
            h1 { "Log in" }
            @if let Some(said) = said { p.note.failed role="alert" { (said) } }
            @if needed {
                form action="/login" method="post" {
                    // For password managers, which keep passwords by name.
                    input type="text" name="user" value="operator" autocomplete="username" hidden;
                    label for="token" { "Token" }
                    input #token type="password" name="token" required autocomplete="current-password"
                        autofocus aria-describedby="which";
                    p.quiet #which { "The first line of " code { "admin.token_file" }
                        ", or of " code { "admin.read_token_file" } " to look only." }
                    input type="hidden" name="to" value=(path_here(to));
                    button.main type="submit" { "Log in" }
                }
            } @else {
                p { "No token is configured: there is nothing to log in with, and nothing more to see." }
                p { a href="/" { "To the overview" } }
            }
        }
    };
    Html(document(&format!("Log in · {}", page.options.hostname), body).into_string()).into_response()
}
