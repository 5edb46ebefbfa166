//! Lets in whoever may ask, few at a time, each for a bounded time.
//!
//! - The Host field must be an address, `localhost` or our own name, so that no web page can make a
//!   browser on this host read us under a name of its own (DNS rebinding).
//! - What changes something must not come from another site's page (Origin, Sec-Fetch-Site).
//! - Where there is a token, it is asked for: `admin.token_file` does everything, `admin.read_token_file`
//!   reads. Where there is none, a Unix socket does everything, being guarded by its file's permissions;
//!   TCP reads, since every user of this host can open it.
//!
//! Never tells which of two tokens a wrong one is near; compares in constant time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::HttpOptions;
use super::problem::{Problem, refuse};
use super::router::Site;
use crate::mail::Domain;

/// Requests answered at a time; a scrape of many servers is one or two.
pub(super) const QUICK_MAX: usize = 16;
/// For all of one answer that waits for nobody.
pub(super) const QUICK_WITHIN: Duration = Duration::from_secs(10);
/// Requests at a time that ask DNS, policy hosts, MX hosts or report targets.
pub(super) const SLOW_MAX: usize = 4;
/// For all of one of these; the command line waits for so long too.
const SLOW_WITHIN: Duration = Duration::from_secs(900);

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Peer {
    /// Over TCP.
    Host(IpAddr),
    /// Over a Unix socket: by file permissions.
    Local,
}

/// What whoever asks may do; an extension of each request that `ask` let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::admin) enum Access {
    /// Look at everything.
    Read,
    /// Change things, too.
    Act,
}

/// Every request: from whom it is.
pub(super) async fn enter(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let own = &site.options.hostname;
    // Of both, one is there (RFC 9112 §3.2.2): the whole address, or the Host field.
    let host = request.uri().host().or_else(|| headers.get(header::HOST).and_then(|host| host.to_str().ok()));
    let refused = if !host.is_some_and(|host| is_ours(host, own)) {
        let text = "ask by address, as localhost, or by the relay's own name";
        Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong-host", text))
    } else if !is_safe(request.method()) && is_cross_site(headers, own) {
        let text = "it comes from another site's page";
        Some(Problem::new(StatusCode::FORBIDDEN, "cross-site", text))
    } else {
        None
    };
    match refused {
        Some(problem) => refuse(request.uri().path(), &problem),
        None => next.run(request).await,
    }
}

/// Whoever may ask, as what.
pub(super) async fn ask(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match may_ask(&site, peer, request.headers()) {
        Ok(Access::Read) if !is_safe(request.method()) => {
            let text = if site.options.token.is_some() {
                "this token only reads; what changes things is asked for with the token of admin.token_file"
            } else {
                "without a token this listener only reads: set admin.token_file, or listen on unix:/PATH"
            };
            refuse(request.uri().path(), &Problem::new(StatusCode::FORBIDDEN, "read-only", text))
        }
        Ok(access) => {
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(problem) => refuse(request.uri().path(), &problem),
    }
}

fn may_ask(site: &Site, peer: Option<Peer>, headers: &HeaderMap) -> Result<Access, Problem> {
    let now = site.handles.clock.now();
    let host = match peer {
        Some(Peer::Host(host)) => Some(host),
        Some(Peer::Local) | None => None,
    };
    let may = access(&site.options, peer, headers);
    // The users of this host share its address: none may shut the others, or Prometheus, out.
    let heard = may.is_some() && host.is_some_and(|host| host.is_loopback());
    if let Some(wait) = host.filter(|_| !heard).and_then(|host| site.wrongs.wait(host, now)) {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "wrong-tokens", "too many wrong tokens");
        return Err(problem.with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1))));
    }
    match may {
        Some(access) => Ok(access),
        None => {
            // Only what was said can be wrong: a browser asks without a token first.
            if headers.contains_key(header::AUTHORIZATION)
                && host.is_some_and(|host| site.wrongs.wrong(host, now))
            {
                warn!(
                    peer = host.map(tracing::field::display),
                    "wrong admin tokens: it is not heard for a minute"
                );
            }
            let text = "Authorization: Bearer with the token of admin.token_file";
            Err(Problem::new(StatusCode::UNAUTHORIZED, "no-token", text))
        }
    }
}

/// What the request may do, if it may ask at all.
pub(in crate::admin) fn access(
    options: &HttpOptions,
    peer: Option<Peer>,
    headers: &HeaderMap,
) -> Option<Access> {
    if options.token.is_none() && options.read_token.is_none() {
        return Some(if peer == Some(Peer::Local) { Access::Act } else { Access::Read });
    }
    let said = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()))?;
    token_access(options, said)
}

/// What a token allows.
pub(in crate::admin) fn token_access(options: &HttpOptions, said: &[u8]) -> Option<Access> {
    let is = |token: &Option<String>| {
        token.as_ref().is_some_and(|token| verify_slices_are_equal(said, token.as_bytes()).is_ok())
    };
    let (acts, reads) = (is(&options.token), is(&options.read_token));
    acts.then_some(Access::Act).or(reads.then_some(Access::Read))
}

/// RFC 9110 §11.1: the scheme in whatever case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// RFC 9110 §9.2.1
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a browser says that another site's page asks.
fn is_cross_site(headers: &HeaderMap, own: &Domain) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let (asked, from) = (headers.get(header::HOST), origin.as_ref().and_then(Uri::authority));
    // The page is ours if it was fetched as this request asks for it.
    match (asked, from) {
        (Some(asked), Some(from)) => {
            !is_ours(from.as_str(), own) || !asked.as_bytes().eq_ignore_ascii_case(from.as_str().as_bytes())
        }
        _ => true,
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

/// For what waits for nobody.
pub(super) async fn quick(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    bounded(Arc::clone(&site.quick), QUICK_WITHIN, request, next).await
}

/// For what asks others.
pub(super) async fn slow(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    bounded(Arc::clone(&site.slow), SLOW_WITHIN, request, next).await
}

async fn bounded(permits: Arc<Semaphore>, within: Duration, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let busy = |code, text| {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, text);
        refuse(&path, &problem.with(header::RETRY_AFTER, HeaderValue::from_static("1")))
    };
    let Ok(permit) = permits.try_acquire_owned() else {
        return busy("busy", "too many requests at a time");
    };
    let acts = !is_safe(request.method());
    let answer = async move {
        let answer = next.run(request).await;
        drop(permit);
        answer
    };
    let late = |_| busy("no-answer", "no answer in time");
    if !acts {
        return timeout(within, answer).await.unwrap_or_else(late);
    }
    // What was begun is not left half done because whoever asked went away.
    match timeout(within, tokio::spawn(answer)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string());
            refuse(&path, &problem)
        }
        Err(elapsed) => late(elapsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Domain {
        Domain::parse("relay.example.org").unwrap()
    }

    #[test]
    fn only_an_address_localhost_or_our_name_is_answered() {
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
            assert_eq!(is_ours(host, &own()), ours, "{host}");
        }
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        const ACT: &str = "sesame, open";
        const READ: &str = "sesame, show";
        let tcp = Some(Peer::Host("192.0.2.1".parse().unwrap()));
        let both = (Some(ACT), Some(READ));
        for (tokens, peer, said, expected) in [
            ((None, None), tcp, None, Some(Access::Read)),
            ((None, None), Some(Peer::Local), None, Some(Access::Act)),
            ((None, None), None, None, Some(Access::Read)),
            ((Some(ACT), None), Some(Peer::Local), None, None),
            ((None, Some(READ)), tcp, None, None),
            ((None, Some(READ)), tcp, Some("Bearer sesame, show"), Some(Access::Read)),
            (both, tcp, None, None),
            (both, tcp, Some("Bearer sesame, ope"), None),
            (both, tcp, Some("Bearer sesame, open2"), None),
            (both, tcp, Some("Bearer "), None),
            (both, tcp, Some("Basic sesame, open"), None),
            (both, tcp, Some("Bearer sesame, open"), Some(Access::Act)),
            (both, tcp, Some("bearer  sesame, open"), Some(Access::Act)),
            (both, tcp, Some("Bearer sesame, show"), Some(Access::Read)),
        ] {
            let options = HttpOptions {
                address: "192.0.2.1:8025".parse().unwrap(),
                token: tokens.0.map(str::to_owned),
                read_token: tokens.1.map(str::to_owned),
                hostname: own(),
            };
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(header::AUTHORIZATION, said.parse().unwrap());
            }
            assert_eq!(access(&options, peer, &headers), expected, "{tokens:?} {peer:?} {said:?}");
        }
    }

    #[test]
    fn what_another_sites_page_asks_for_is_told_apart() {
        for (fields, cross) in [
            (vec![], false),
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("origin", "http://127.0.0.1:8025")], false),
            (vec![("origin", "http://127.0.0.1:8026")], true),
            (vec![("origin", "http://evil.example")], true),
            (vec![("origin", "null")], true),
            (vec![("origin", "http://localhost:8025")], true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:8025".parse().unwrap());
            for (name, value) in &fields {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(is_cross_site(&headers, &own()), cross, "{fields:?}");
        }
    }
}
