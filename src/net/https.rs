//! HTTPS: MTA-STS policies in, TLS-RPT reports out. The only file that names reqwest.

use futures_util::future::BoxFuture;

use crate::mail::Domain;
use crate::sts::freshness::TroubleKind;

/// Why there is no policy body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct FetchError {
    /// For TLS-RPT.
    pub kind: TroubleKind,
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
    /// (RFC 8460 §3); no redirects, 60 seconds at most, public addresses only.
    fn post_report<'a>(
        &'a self,
        url: &'a str,
        content_type: &'a str,
        body: Vec<u8>,
    ) -> BoxFuture<'a, PostOutcome>;
}
