//! Who sees pages and whose forms are believed.
//!
//! - Looking needs what `http::guard` asks for, or a session begun at `/login`; without either the browser is
//!   led there.
//! - A form is believed from whoever may act, with the code made for this visitor ([`super::session`]). That
//!   it comes from a page of ours, by Origin and Sec-Fetch-Site, was asked before (`http::guard`).
//! - Every answer says what a browser may do with it: run nothing, load our style sheet and icon, send forms
//!   here, be framed by nobody.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use maud::html;

use super::Page;
use super::form::{Fields, link, path_here};
use super::session::{self, Note};
use super::shell::{self, Tab};
use crate::admin::http::{Access, Peer, access};

/// Names a session.
const SESSION: &str = "stsrelay-session";
/// Names a visitor who needs no session, so that forms can be told from others'.
const VISITOR: &str = "stsrelay-visitor";

/// No script and nothing from elsewhere; forms go here, nobody frames us.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// Somebody who looks.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    /// What they may do.
    pub access: Access,
    /// Whether they logged in, so that they can log out.
    pub session: Option<String>,
    /// What the forms of this visitor are bound to.
    who: String,
    /// The code that forms carry.
    pub code: String,
    /// What is to be told from before.
    pub notes: Vec<Note>,
    /// Path and query of the page looked at.
    pub here: String,
    /// Another site's page asked for this one.
    pub led_here: bool,
    /// The fields of the query.
    pub query: Fields,
}

impl Visit {
    /// May change things.
    pub fn acts(&self) -> bool {
        self.access == Access::Act
    }
}

/// Lets in whoever may look.
pub(super) async fn ask(State(page): State<Arc<Page>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let peer = request.extensions().get::<Peer>().copied();
    let session =
        cookie(headers, SESSION).and_then(|name| page.sessions.access(&name).map(|access| (name, access)));
    let by_session = session.as_ref().map(|(_, access)| *access);
    let Some(access) = access(&page.options, peer, headers).max(by_session) else {
        let here = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let here = if request.method().is_safe() { here } else { "/" };
        return redirect(&link("/login", [("to", path_here(here))]));
    };
    let session = session.map(|(name, _)| name);
    let visitor = cookie(headers, VISITOR).filter(|name| session::is_name(name));
    let (who, new) = match (&session, visitor) {
        (Some(session), _) => (session.clone(), false),
        (None, Some(visitor)) => (visitor, false),
        (None, None) => match session::new_name() {
            Ok(name) => (name, true),
            Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
    };
    let is_get = request.method().is_safe();
    let from = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let led_here = from.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let visit = Visit {
        access,
        session,
        code: page.sessions.code(&who),
        notes: if is_get { page.sessions.take_notes(&who) } else { Vec::new() },
        here: request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        led_here,
        query: Fields::parse(request.uri().query().unwrap_or_default().as_bytes()),
        who: who.clone(),
    };
    request.extensions_mut().insert(visit);
    let mut response = next.run(request).await;
    if new {
        set_cookie(&mut response, VISITOR, &who);
    }
    response
}

impl Page {
    /// The fields of a form that may be acted on; otherwise the page that says why not.
    pub(super) fn believe(&self, visit: &Visit, body: &[u8]) -> Result<Fields, Box<Response>> {
        let fields = Fields::parse(body);
        let why = if !visit.acts() {
            read_only(self)
        } else if !self.sessions.is_code(&visit.who, fields.text("code")) {
            "This form was not made for you, or the relay was restarted since. Go back, load the page again, \
             and try once more."
        } else {
            return Ok(fields);
        };
        let (status, title) = (StatusCode::FORBIDDEN, "Nothing was changed");
        Err(Box::new(shell::refusal(self, visit, status, title, html! { p { (why) } })))
    }

    /// Ends a form: says what came of it on the next page.
    pub(super) fn done(&self, visit: &Visit, back: &str, said: Result<String, String>) -> Response {
        self.changed();
        let failed = said.is_err();
        let (Ok(text) | Err(text)) = said;
        self.sessions.note(&visit.who, Note { failed, text });
        redirect(path_here(back))
    }
}

/// Why there is nothing to press.
pub(super) fn read_only(page: &Page) -> &'static str {
    if page.options.token.is_some() {
        "This token only reads. Log in with the token of admin.token_file to change things."
    } else {
        "Without a token this page only shows things, since every user of this host can open it. \
         Set admin.token_file, or let admin.http be a Unix socket, to change things here."
    }
}

/// Leads on by a GET.
pub(super) fn redirect(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// Begins a session in this browser.
pub(super) fn begin_session(response: &mut Response, name: &str) {
    set_cookie(response, SESSION, name);
}

/// Ends it there.
pub(super) fn end_session(response: &mut Response) {
    let gone = format!("{SESSION}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    if let Ok(value) = HeaderValue::from_str(&gone) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

// Without `Secure`: whether TLS is in front is not known here, and on loopback there is none.
fn set_cookie(response: &mut Response, name: &str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict")) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The first cookie of this name.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(have, _)| *have == name)
        .map(|(_, value)| value.to_owned())
}

/// What a browser may do with an answer.
pub(super) async fn harden(mut response: Response) -> Response {
    let fields = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: forms would come with `Origin: null` then.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The tab of a refusal.
pub(super) const NO_TAB: Tab = Tab::None;
