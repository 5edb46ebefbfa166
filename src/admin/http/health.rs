//! Metrics for Prometheus, and health for whatever restarts or balances relays.
//!
//! Reads only; costs a look at what is in memory.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::problem::plain;
use super::router::Site;
use crate::metrics;
use crate::store::Health;

/// What is served here.
pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

async fn metrics_text(State(site): State<Arc<Site>>) -> Response {
    let text = site.handles.metrics.render(&site.handles.snapshot());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn healthz(State(site): State<Arc<Site>>) -> Response {
    match site.handles.queue.health() {
        Health::Failed(text) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, &format!("storage failed, restart when repaired: {text}"))
        }
        // Both pass by themselves: a restart would not help.
        Health::Fine | Health::Low(_) | Health::Full(_) | Health::ReadOnly(_) => plain(StatusCode::OK, "ok"),
    }
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    match site.handles.not_ready() {
        None => plain(StatusCode::OK, "ok"),
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}
