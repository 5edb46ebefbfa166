//! What a request says, read or refused: path, query, body, cursor, limit.
//!
//! Names that are not known are refused: a mistyped filter must not select everything.

use std::fmt;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::super::protocol::PAGE_MAX;
use super::super::problem::Problem;
use super::{LIMIT, bad};

/// A segment of the path.
pub(super) struct Named<T>(pub(super) T);

/// What comes after the question mark.
pub(super) struct Asked<T>(pub(super) T);

/// A JSON object in the body; an empty body is an empty object.
pub(super) struct Told<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|error| bad("bad-path", error.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|error| bad("bad-query", error.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Told<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // A form of another site's page cannot say this type.
        if !is_json(request.headers()) {
            let text = "the body must be JSON, with Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", text));
        }
        let body = Bytes::from_request(request, state).await.map_err(|error| unread(&error))?;
        let text = if body.trim_ascii().is_empty() { b"{}" } else { body.trim_ascii() };
        serde_json::from_slice(text).map(Self).map_err(|error| bad("bad-body", error.to_string()))
    }
}

fn unread(error: &BytesRejection) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large")
        }
        _ => bad("bad-body", error.body_text()),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// How many entries a page may have.
#[derive(Clone, Copy)]
pub(super) struct Limit(pub(super) usize);

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = usize::deserialize(deserializer)?;
        match limit {
            1..=PAGE_MAX => Ok(Self(limit)),
            _ => Err(D::Error::custom(format_args!("limit must be from 1 to {PAGE_MAX}"))),
        }
    }
}

/// Where a page begins: a text whose inside is nobody's business.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<T>(pub(super) T);

impl<T: Serialize> Cursor<T> {
    pub(super) fn render(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

impl<T: DeserializeOwned> Cursor<T> {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let inside = URL_SAFE_NO_PAD.decode(text).ok()?;
        serde_json::from_slice(&inside).ok().map(Self)
    }
}

/// Where a page begins; an empty text is the beginning.
pub(super) fn cursor<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<Cursor<T>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    let wrong = || D::Error::custom("cursor is none that this list gave out");
    text.map(|text| Cursor::parse(&text).ok_or_else(wrong)).transpose()
}

/// A value that reads itself from text.
pub(super) fn from_text<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|error| D::Error::custom(format_args!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ItemId;

    #[test]
    fn a_cursor_reads_back_and_another_text_is_refused() {
        let id: ItemId = "1-00000005.2".parse().unwrap();
        let text = Cursor(id).render();
        assert_eq!(Cursor::<ItemId>::parse(&text).unwrap().0, id);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
        for bad in ["", "1-00000005.2", "!!", "bnVsbA"] {
            assert!(Cursor::<ItemId>::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_a_json_body_is_one() {
        for (kind, good) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("application/json-patch+json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            assert_eq!(is_json(&headers), good, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
