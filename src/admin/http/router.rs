//! The table of what is served, and what all of it is answered from.
//!
//! ```text
//! guard::enter        every request: the Host field, no other site's page, no guesser of tokens
//!  -> open            what needs no token, or asks for it by itself: the status page
//!  -> guard::ask      whoever has the token, or needs none; who only reads changes nothing
//!      -> guard::quick, guard::slow     few at a time, each for a bounded time
//! ```

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use tokio::sync::Semaphore;
use tracing::warn;

use super::super::answer::AdminHandles;
use super::super::page::{self, Page};
use super::problem::{Problem, refuse};
use super::wrongs::Wrongs;
use super::{HttpOptions, api, guard, health};

/// Octets of a request's body at most: names, filters, a form.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What requests are answered from.
pub(in crate::admin) struct Site {
    pub(in crate::admin) handles: AdminHandles,
    pub(in crate::admin) options: HttpOptions,
    pub(super) quick: Arc<Semaphore>,
    pub(super) slow: Arc<Semaphore>,
    pub(super) wrongs: Wrongs,
}

impl Site {
    pub(super) fn new(handles: AdminHandles, options: HttpOptions) -> Self {
        let [quick, slow] = [guard::QUICK_MAX, guard::SLOW_MAX].map(|max| Arc::new(Semaphore::new(max)));
        Self { handles, options, quick, slow, wrongs: Wrongs::default() }
    }
}

/// Everything.
pub(super) fn router(site: &Arc<Site>) -> Router {
    let quick = Router::new().merge(health::routes()).merge(api::quick().router()).fallback(nothing);
    let slow = api::slow().router();
    let guarded = Router::new()
        .merge(slow.layer(from_fn_with_state(Arc::clone(site), guard::slow)))
        .merge(quick.layer(from_fn_with_state(Arc::clone(site), guard::quick)))
        .layer(from_fn_with_state(Arc::clone(site), guard::ask));
    // It has a gate of its own: a session begun there lets in, too.
    let open = match Page::new(site.handles.clone(), site.options.clone()) {
        Some(page) => page::routes(&page).layer(from_fn_with_state(Arc::clone(site), guard::quick)),
        None => {
            warn!("there is no status page: the system gives no randomness");
            Router::new()
        }
    };
    open.merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(site), guard::enter))
        .with_state(Arc::clone(site))
}

async fn nothing(State(_): State<Arc<Site>>, request: Request) -> Response {
    let text = "there is /metrics, /healthz, /readyz, and what /api/v1/openapi.json describes";
    refuse(request.uri().path(), &Problem::new(StatusCode::NOT_FOUND, "no-such-path", text))
}
