//! HTTPS: MTA-STS policies in, TLS-RPT reports out. The only file that names reqwest.
//!
//! Each request has its own connection, resolved through our DNS door and checked by the address
//! guard. Never follows a redirect to a policy, and none of a report but by the same rules; never caches,
//! never sends cookies or a referer, never uses a proxy. Called by `delivery::gather` and `reporting`.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};
use rustls::RootCertStore;

use super::dns::{Dns, Lookup};
use super::guard::AddressGuard;
use super::tls;
use crate::mail::Domain;
use crate::sts::freshness::{FetchFault, TroubleKind};

/// A policy body at most (RFC 8461 §3.3 suggests 64 kilobytes); a longer one is refused, not cut.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Redirects of a report followed at most: an endpoint that moved, and moved again.
const REDIRECTS_MAX: usize = 3;
/// One report upload at most, redirects included.
const POST_TIME_MAX: Duration = Duration::from_secs(60);

/// Why there is no policy body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct FetchError {
    /// For TLS-RPT.
    pub kind: TroubleKind,
    /// For the policy host's owner.
    pub fault: FetchFault,
    /// One sentence: URL and what happened.
    pub text: String,
}

/// What an endpoint answered to a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostOutcome {
    /// 2xx.
    Accepted(u16),
    /// Another status or a connection trouble; may be tried again. One sentence.
    Refused(String),
}

/// The HTTPS door.
pub trait Https: Send + Sync {
    /// GETs `https://mta-sts.<domain>/.well-known/mta-sts.txt` (RFC 8461 §3.3): no redirects, no
    /// caching, 64 KiB and the configured time at most, text/plain only, public addresses only.
    fn fetch_policy<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, FetchError>>;

    /// POSTs a report (RFC 8460 §5.4). Certificate errors of the endpoint are logged and ignored
    /// (RFC 8460 §3). Redirects that keep method and content (307, 308) are followed three times, to
    /// https: URLs only; 60 seconds at most, public addresses only.
    fn post_report<'a>(
        &'a self,
        url: &'a str,
        content_type: &'a str,
        body: Vec<u8>,
    ) -> BoxFuture<'a, PostOutcome>;
}

/// How to fetch and post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `mta_sts.https_port`: of policy hosts; report endpoints name their own.
    pub https_port: u16,
    /// `mta_sts.fetch_timeout`: the whole GET, name lookup included.
    pub fetch_timeout: Duration,
    /// `mta_sts.require_text_plain`: a body of another media type is no policy.
    pub require_text_plain: bool,
    /// `User-Agent`.
    pub user_agent: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            https_port: 443,
            fetch_timeout: Duration::from_secs(60),
            require_text_plain: true,
            user_agent: concat!("stsrelay/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// The real door.
pub struct ReqwestHttps {
    options: Options,
    guard: AddressGuard,
    policies: Client,
    reports: Client,
}

impl ReqwestHttps {
    /// `roots` is [`tls::ClientTls::roots`].
    ///
    /// # Errors
    /// One sentence; only a user agent that is no header value can cause it.
    pub fn new(
        options: Options,
        dns: Arc<dyn Dns>,
        guard: AddressGuard,
        roots: Arc<RootCertStore>,
    ) -> Result<Self, String> {
        let resolver = Arc::new(GuardedResolver { dns, guard: guard.clone() });
        let strict = tls::base_config(Arc::clone(&roots))?;
        let mut lenient = tls::base_config(Arc::clone(&roots))?;
        lenient.dangerous().set_certificate_verifier(tls::verifier::Recording::telling(roots));
        let client = |config: rustls::ClientConfig| {
            Client::builder()
                .tls_backend_preconfigured(config)
                .https_only(true)
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .retry(reqwest::retry::never())
                // RFC 8461 §3.3, §10.2: every fetch asks the origin, on a connection of its own.
                .pool_max_idle_per_host(0)
                .dns_resolver(Arc::clone(&resolver))
                .user_agent(&options.user_agent)
                .build()
                .map_err(|error| format!("HTTPS cannot be set up: {}", chain_text(&error)))
        };
        let (policies, reports) = (client(strict)?, client(lenient)?);
        Ok(Self { options, guard, policies, reports })
    }

    async fn get_policy(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let failed = |fault: FetchFault, text: String| FetchError {
            kind: TroubleKind::Fetch,
            fault,
            text: format!("GET {url}: {text}"),
        };
        let response = self
            .policies
            .get(url)
            .header(ACCEPT, HeaderValue::from_static("text/plain"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .send()
            .await
            .map_err(|error| {
                let certificate = is_certificate_error(&error);
                let (kind, fault) = match certificate {
                    true => (TroubleKind::WebPki, FetchFault::Certificate),
                    false => (TroubleKind::Fetch, FetchFault::Unreachable),
                };
                FetchError { kind, fault, text: format!("GET {url}: {}", chain_text(&error)) }
            })?;
        // RFC 8461 §3.3: only 200 gives a policy; redirects are never followed.
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                let text = format!("answered {status}, redirects are not followed");
                return Err(failed(FetchFault::Redirect, text));
            }
            status => return Err(failed(FetchFault::Status, format!("answered {status}"))),
        }
        // RFC 8461 §3.2: the media type guards against pages that answer every path.
        let media_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if self.options.require_text_plain && !is_text_plain(media_type) {
            let shown = String::from_utf8_lossy(&media_type[..media_type.len().min(100)]).into_owned();
            return Err(failed(
                FetchFault::ContentType,
                format!("content type is {shown:?}, not text/plain"),
            ));
        }
        read_capped(response).await.map_err(|(fault, text)| failed(fault, text))
    }

    async fn post(&self, url: &str, content_type: &str, body: Vec<u8>) -> Result<u16, String> {
        let mut target = Url::parse(url).map_err(|error| format!("not a URL: {error}"))?;
        let body = Bytes::from(body);
        for hop in 0..=REDIRECTS_MAX {
            // The first place is named by whoever tells of this.
            let place = if hop == 0 { String::new() } else { format!("redirected to {target}: ") };
            let response = self.post_once(target.clone(), content_type, body.clone()).await;
            let response = response.map_err(|text| format!("{place}{text}"))?;
            let status = response.status();
            // RFC 8460 §5.4: 2xx is success. The body is not read.
            if status.is_success() {
                return Ok(status.as_u16());
            }
            // RFC 9110 §15.4.8, §15.4.9: these two keep method and content; any other would make a GET of it.
            if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                return Err(format!("{place}answered {status}"));
            }
            let location = response.headers().get(LOCATION).and_then(|place| place.to_str().ok());
            let location = location.ok_or_else(|| format!("{place}answered {status} without a place"))?;
            let elsewhere = target.join(location);
            target = elsewhere.map_err(|error| format!("{place}answered {status} to no URL: {error}"))?;
        }
        Err(format!("redirected more than {REDIRECTS_MAX} times, last to {target}"))
    }

    /// One POST to one place, which is held to all rules wherever it was named.
    async fn post_once(&self, parsed: Url, content_type: &str, body: Bytes) -> Result<Response, String> {
        if parsed.scheme() != "https" {
            return Err("not an https: URL".into());
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("URLs with credentials are not used".into());
        }
        // A literal address is never resolved, so it is checked here.
        let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            self.guard.check(ip)?;
        }
        self.reports
            .post(parsed)
            .header(CONTENT_TYPE, content_type)
            .body(body)
            .send()
            .await
            .map_err(|error| chain_text(&error))
    }
}

impl Https for ReqwestHttps {
    fn fetch_policy<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            let url = policy_url(domain, self.options.https_port);
            let within = self.options.fetch_timeout;
            tokio::time::timeout(within, self.get_policy(&url)).await.unwrap_or_else(|_| {
                let text = format!("GET {url}: not finished within {within:?}");
                Err(FetchError { kind: TroubleKind::Fetch, fault: FetchFault::Unreachable, text })
            })
        })
    }

    fn post_report<'a>(
        &'a self,
        url: &'a str,
        content_type: &'a str,
        body: Vec<u8>,
    ) -> BoxFuture<'a, PostOutcome> {
        Box::pin(async move {
            let posted = tokio::time::timeout(POST_TIME_MAX, self.post(url, content_type, body)).await;
            match posted {
                Ok(Ok(status)) => PostOutcome::Accepted(status),
                Ok(Err(text)) => PostOutcome::Refused(format!("POST {url}: {text}")),
                Err(_) => PostOutcome::Refused(format!("POST {url}: not finished within {POST_TIME_MAX:?}")),
            }
        })
    }
}

/// RFC 8461 §3.3; the port shows only when it is not 443.
fn policy_url(domain: &Domain, port: u16) -> String {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    format!("https://mta-sts.{domain}{port}/.well-known/mta-sts.txt")
}

/// `text/plain` in any case, parameters ignored.
fn is_text_plain(media_type: &[u8]) -> bool {
    let essence = media_type.split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/plain")
}

async fn read_capped(mut response: Response) -> Result<Vec<u8>, (FetchFault, String)> {
    let too_long = || (FetchFault::TooLong, format!("the body is longer than {POLICY_BYTES_MAX} bytes"));
    let broken = |error: reqwest::Error| (FetchFault::Unreachable, chain_text(&error));
    if response.content_length().is_some_and(|length| length > POLICY_BYTES_MAX as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > POLICY_BYTES_MAX {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error and its causes in one line, each once.
fn chain_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        // The outermost layers say only "error sending request for url (...)".
        if cause.starts_with("error sending request") || text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    if text.is_empty() { error.to_string() } else { text }
}

fn is_certificate_error(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
        matches!(cause.downcast_ref::<rustls::Error>(), Some(InvalidCertificate(_) | NoCertificatesPresented))
    })
}

/// The chain of causes. An `io::Error` gives what it holds, which its `source()` would skip.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|held| held as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

/// Our DNS and the guard, as reqwest wants them.
struct GuardedResolver {
    dns: Arc<dyn Dns>,
    guard: AddressGuard,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (dns, guard) = (Arc::clone(&self.dns), self.guard.clone());
        Box::pin(async move {
            let host = Domain::parse(name.as_str())?;
            let found = match dns.addresses(&host).await {
                Lookup::Found(answer) => answer.records,
                Lookup::NoData(_) => return Err(format!("{host} has no address").into()),
                Lookup::NxDomain(_) => return Err(format!("{host} does not exist").into()),
                Lookup::Failed(failure) => return Err(failure.into()),
            };
            let mut refused = None;
            let mut usable: Vec<SocketAddr> = Vec::new();
            for ip in found {
                match guard.check(ip) {
                    Ok(()) => usable.push(SocketAddr::new(ip, 0)),
                    Err(sentence) => refused = Some(sentence),
                }
            }
            match refused {
                Some(sentence) if usable.is_empty() => Err(format!("{host}: {sentence}").into()),
                _ => Ok(Box::new(usable.into_iter()) as reqwest::dns::Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests;
