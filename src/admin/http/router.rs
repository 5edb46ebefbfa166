//! The table of what is served, and what all of it is answered from.
//!
//! ```text
//! guard::enter        every request: the Host field, no other site's page, no guesser of tokens
//!  -> open            what needs no token
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
use tokio_util::sync::CancellationToken;

use super::super::answer::AdminHandles;
use super::problem::{Problem, refuse};
use super::wrongs::Wrongs;
use super::{HttpOptions, guard, health};
use crate::store::Health;

/// Octets of a request's body at most: names, filters, a form.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What requests are answered from.
pub(in crate::admin) struct Site {
    pub(in crate::admin) handles: AdminHandles,
    pub(in crate::admin) options: HttpOptions,
    /// Ends before the process does.
    pub(in crate::admin) shutdown: CancellationToken,
    pub(super) quick: Semaphore,
    pub(super) slow: Semaphore,
    pub(super) wrongs: Wrongs,
}

impl Site {
    pub(super) fn new(handles: AdminHandles, options: HttpOptions, shutdown: CancellationToken) -> Self {
        let (quick, slow) = (Semaphore::new(guard::QUICK_MAX), Semaphore::new(guard::SLOW_MAX));
        Self { handles, options, shutdown, quick, slow, wrongs: Wrongs::default() }
    }

    /// Why no mail is taken, in words.
    pub(in crate::admin) fn not_ready(&self) -> Option<String> {
        match self.handles.queue.health() {
            _ if self.shutdown.is_cancelled() => Some("shutting down".to_owned()),
            Health::Fine => None,
            Health::Full(text) => Some(format!("disk full: {text}")),
            Health::ReadOnly(text) => Some(format!("disk read-only: {text}")),
            Health::Failed(text) => Some(format!("storage failed: {text}")),
        }
    }
}

/// Everything.
pub(super) fn router(site: &Arc<Site>) -> Router {
    let quick = Router::new().merge(health::routes()).fallback(nothing);
    let slow: Router<Arc<Site>> = Router::new();
    let guarded = Router::new()
        .merge(slow.layer(from_fn_with_state(Arc::clone(site), guard::slow)))
        .merge(quick.layer(from_fn_with_state(Arc::clone(site), guard::quick)))
        .layer(from_fn_with_state(Arc::clone(site), guard::ask));
    let open: Router<Arc<Site>> = Router::new();
    open.merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(site), guard::enter))
        .with_state(Arc::clone(site))
}

async fn nothing(State(_): State<Arc<Site>>, request: Request) -> Response {
    let text = "there is /metrics, /healthz and /readyz";
    refuse(request.uri().path(), &Problem::new(StatusCode::NOT_FOUND, "no-such-path", text))
}
