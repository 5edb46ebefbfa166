//! Metrics and health over HTTP, for Prometheus and for whatever restarts or balances relays.
//!
//! ```text
//! GET /metrics   OpenMetrics text
//! GET /healthz   200 while the process can do its work without a restart, otherwise 503 and why
//! GET /readyz    200 while it takes mail, otherwise 503 and why
//! ```
//!
//! Reads only: nothing is changed by a request, and none takes a body. On loopback anybody on this
//! host may ask; elsewhere only with the token. The Host field must be an address, `localhost` or our own
//! name, so that no web page can make a browser on this host read it under a name of its own (DNS
//! rebinding). Called by the daemon.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::answer::AdminHandles;
use crate::mail::Domain;
use crate::metrics;
use crate::store::Health;

/// Requests answered at a time; a scrape of many servers is one or two.
const REQUESTS_MAX: usize = 16;
/// For all of one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Who may ask, and what is ours.
#[derive(Clone)]
pub struct HttpOptions {
    /// `admin.http`
    pub address: SocketAddr,
    /// `admin.token_file`: asked for as `Authorization: Bearer TOKEN`, where there is one.
    pub token: Option<String>,
    /// `server.hostname`
    pub hostname: Domain,
}

/// What requests are answered from.
struct Site {
    handles: AdminHandles,
    options: HttpOptions,
    permits: Semaphore,
    shutdown: CancellationToken,
}

/// Binds the address; within a runtime.
///
/// # Errors
/// What is in the way, as a sentence.
pub async fn bind_http(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Answers until `shutdown`.
pub async fn serve_http(
    listener: TcpListener,
    handles: AdminHandles,
    options: HttpOptions,
    shutdown: CancellationToken,
) {
    let ended = shutdown.clone();
    let site = Site { handles, options, permits: Semaphore::new(REQUESTS_MAX), shutdown };
    let router = router(Arc::new(site));
    // A request under way ends by itself within its time.
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { ended.cancelled().await });
    if let Err(error) = served.await {
        warn!(%error, "the HTTP listener ended");
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(Arc::clone(&site), admit))
        .with_state(site)
}

/// Lets in whoever may ask, few at a time, each for a bounded time.
async fn admit(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    if let Err((status, text)) = may_ask(&site.options, request.headers()) {
        return plain(status, text);
    }
    let Ok(_permit) = site.permits.try_acquire() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time");
    };
    let answer = timeout(ANSWER_MAX, next.run(request)).await;
    answer.unwrap_or_else(|_| plain(StatusCode::SERVICE_UNAVAILABLE, "no answer in time"))
}

fn may_ask(options: &HttpOptions, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(|host| is_ours(host, &options.hostname)) {
        let text = "ask by address, as localhost, or by the relay's own name";
        return Err((StatusCode::MISDIRECTED_REQUEST, text));
    }
    let Some(token) = &options.token else { return Ok(()) };
    let said = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let said = said.and_then(|value| value.strip_prefix(b"Bearer "));
    match said {
        Some(said) if verify_slices_are_equal(said, token.as_bytes()).is_ok() => Ok(()),
        _ => Err((StatusCode::UNAUTHORIZED, "Authorization: Bearer with the token of admin.token_file")),
    }
}

/// Whether a Host field names this relay.
fn is_ours(host: &str, own: &Domain) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(own.as_str())
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
        Health::Fine | Health::Full(_) | Health::ReadOnly(_) => plain(StatusCode::OK, "ok"),
    }
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    let why = match site.handles.queue.health() {
        _ if site.shutdown.is_cancelled() => "shutting down".to_owned(),
        Health::Fine => return plain(StatusCode::OK, "ok"),
        Health::Full(text) => format!("disk full: {text}"),
        Health::ReadOnly(text) => format!("disk read-only: {text}"),
        Health::Failed(text) => format!("storage failed: {text}"),
    };
    plain(StatusCode::SERVICE_UNAVAILABLE, &why)
}

async fn nothing() -> Response {
    plain(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz")
}

fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = (status, format!("{text}\n")).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_localhost_or_our_name_is_answered() {
        let own = Domain::parse("relay.example.org").unwrap();
        for (host, ours) in [
            ("127.0.0.1:8025", true),
            ("[::1]:8025", true),
            // RFC 9110 §7.2: brackets belong to it.
            ("::1", false),
            ("localhost", true),
            ("LOCALHOST:8025", true),
            ("Relay.example.org:8025", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example:8025", false),
            ("localhost.evil.example", false),
            ("", false),
            (":8025", false),
        ] {
            assert_eq!(is_ours(host, &own), ours, "{host}");
        }
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let mut options = HttpOptions {
            address: "192.0.2.1:8025".parse().unwrap(),
            token: None,
            hostname: Domain::parse("relay.example.org").unwrap(),
        };
        let mut headers = HeaderMap::new();
        assert_eq!(may_ask(&options, &headers).unwrap_err().0, StatusCode::MISDIRECTED_REQUEST);
        headers.insert(header::HOST, "192.0.2.1".parse().unwrap());
        assert!(may_ask(&options, &headers).is_ok());
        options.token = Some("sesame".to_owned());
        for (said, expected) in [
            (None, false),
            (Some("Bearer sesam"), false),
            (Some("Bearer sesame2"), false),
            (Some("Basic sesame"), false),
            (Some("Bearer sesame"), true),
        ] {
            headers.remove(header::AUTHORIZATION);
            if let Some(said) = said {
                headers.insert(header::AUTHORIZATION, said.parse().unwrap());
            }
            assert_eq!(may_ask(&options, &headers).is_ok(), expected, "{said:?}");
        }
    }
}
