//! How a refusal looks: problem details (RFC 9457) for the API, a line of text elsewhere.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// RFC 9457 §3
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What is asked for again and again changes again and again; and it is nobody else's.
pub(super) const NO_STORE: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
/// Nothing here is to be taken for another type than it says.
pub(super) const NO_SNIFF: (HeaderName, HeaderValue) =
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Why a request was not done.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    /// One word for programs; stable.
    code: &'static str,
    /// One sentence for people.
    detail: String,
    /// What goes with it.
    field: Option<(HeaderName, HeaderValue)>,
}

/// RFC 9457 §3.1; `code` is ours.
#[derive(Serialize)]
struct Details<'a> {
    /// The status says it all (RFC 9457 §4.2.1).
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let field = match status {
            // RFC 9110 §15.5.2: a 401 names the way.
            StatusCode::UNAUTHORIZED => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"stsrelay\"")))
            }
            _ => None,
        };
        Self { status, code, detail: detail.into(), field }
    }

    /// With a header field of its own.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.field = Some((name, value));
        self
    }

    /// As the API tells it.
    pub(super) fn json(&self) -> Response {
        let details = Details {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        let mut text = serde_json::to_vec(&details).unwrap_or_default();
        text.push(b'\n');
        self.finish((self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], text).into_response())
    }

    /// As people read it.
    fn text(&self) -> Response {
        self.finish(plain(self.status, &self.detail))
    }

    fn finish(&self, mut response: Response) -> Response {
        let fields = [NO_STORE, NO_SNIFF].into_iter().chain(self.field.clone());
        response.headers_mut().extend(fields);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.json()
    }
}

/// Refuses what was asked for at this path.
pub(super) fn refuse(path: &str, problem: &Problem) -> Response {
    if path == "/api" || path.starts_with("/api/") { problem.json() } else { problem.text() }
}

/// A line of text.
pub(super) fn plain(status: StatusCode, text: &str) -> Response {
    (status, [NO_STORE, NO_SNIFF], format!("{text}\n")).into_response()
}
