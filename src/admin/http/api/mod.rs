//! The JSON API under `/api/v1`: what the command line asks and is told, over HTTP.
//!
//! Every answer is one of `admin::protocol`'s types, as `stsrelay ... --json` prints it, or a page
//! of them; every refusal is a [`Problem`]. GET looks, POST acts; `config/openapi.json` describes all of
//! it, and the tests hold it to this table.

mod extract;
mod lists;
mod openapi;
mod policies;
mod queue;
mod reports;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use serde::Serialize;

use super::super::protocol::Answer;
use super::problem::{NO_SNIFF, NO_STORE, Problem};
use super::router::Site;
use extract::Cursor;

/// Where all of it begins.
pub(super) const ROOT: &str = "/api/v1";
/// Entries of a page, where nothing else is asked for.
const LIMIT: usize = 50;

/// What a handler gives back.
type Reply = Result<Response, Problem>;

/// What waits for nobody.
pub(super) fn quick() -> Routes {
    let mut routes = Routes::default();
    queue::routes(&mut routes);
    policies::routes(&mut routes);
    reports::routes(&mut routes);
    lists::routes(&mut routes);
    openapi::routes(&mut routes);
    routes
}

/// What asks DNS, policy hosts, MX hosts or report targets.
pub(super) fn slow() -> Routes {
    let mut routes = Routes::default();
    policies::slow_routes(&mut routes);
    reports::slow_routes(&mut routes);
    routes
}

/// Paths below [`ROOT`], and what each can.
#[derive(Default)]
pub(super) struct Routes(BTreeMap<&'static str, (Vec<&'static str>, MethodRouter<Arc<Site>>)>);

impl Routes {
    fn get<H: Handler<T, Arc<Site>>, T: 'static>(&mut self, path: &'static str, handler: H) {
        let (methods, route) = self.0.entry(path).or_default();
        methods.extend(["GET", "HEAD"]);
        *route = std::mem::take(route).get(handler);
    }

    fn post<H: Handler<T, Arc<Site>>, T: 'static>(&mut self, path: &'static str, handler: H) {
        let (methods, route) = self.0.entry(path).or_default();
        methods.push("POST");
        *route = std::mem::take(route).post(handler);
    }

    /// With OPTIONS, and a refusal of every other method.
    pub(super) fn router(self) -> Router<Arc<Site>> {
        let mut router = Router::new();
        for (path, (mut methods, route)) in self.0 {
            methods.push("OPTIONS");
            let allow = HeaderValue::try_from(methods.join(", ")).expect("method names are ASCII");
            let told = allow.clone();
            let options = move || async move {
                (StatusCode::NO_CONTENT, [NO_STORE, NO_SNIFF, (header::ALLOW, told)]).into_response()
            };
            let refused = move |request: Request| async move {
                let text = format!("{} is not for {}", request.method(), request.uri().path());
                let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", text);
                problem.with(header::ALLOW, allow).json()
            };
            router = router.route(&format!("{ROOT}{path}"), route.options(options).fallback(refused));
        }
        router
    }

    /// The table, for the description's test.
    #[cfg(test)]
    fn list(&self) -> impl Iterator<Item = (String, &'static str)> {
        let methods =
            |(path, (methods, _)): (&&'static str, &(Vec<&'static str>, MethodRouter<Arc<Site>>))| {
                let path = format!("{ROOT}{path}");
                methods.iter().map(move |method| (path.clone(), *method)).collect::<Vec<_>>()
            };
        self.0.iter().flat_map(methods)
    }
}

/// A part of a list.
#[derive(Serialize)]
struct Page<T> {
    items: Vec<T>,
    /// For `cursor` of the next request; `null` at the end.
    next: Option<String>,
}

impl<T: Serialize> Page<T> {
    /// The first entries of those found; `key` tells where one stands in the list, `more` whether there
    /// are others after the last one.
    fn cut<K: Serialize>(mut items: Vec<T>, limit: usize, more: bool, key: impl Fn(&T) -> K) -> Self {
        let more = more || items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| Cursor(key(last)).render());
        Self { items, next }
    }
}

/// 200 with this in it.
fn found(value: &impl Serialize) -> Reply {
    let mut text = serde_json::to_vec(value)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?;
    // For whoever reads it on a terminal.
    text.push(b'\n');
    Ok(json(text))
}

fn json(text: impl IntoResponse) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([kind, NO_STORE, NO_SNIFF], text).into_response()
}

/// What was asked makes no sense.
fn bad(code: &'static str, text: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, text)
}

/// An answer other than the one hoped for.
fn refused(answer: Answer) -> Problem {
    match answer {
        Answer::Nothing { text } => Problem::new(StatusCode::NOT_FOUND, "not-found", text),
        Answer::Failed { text } => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "failed", text),
        _ => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "an answer to another question"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        for (items, limit, more, expected) in [
            (vec![1, 2, 3], 3, false, None),
            (vec![1, 2, 3], 2, false, Some(2)),
            (vec![1, 2, 3], 3, true, Some(3)),
            (vec![], 3, true, None),
        ] {
            let page = Page::cut(items, limit, more, |last| *last);
            let next = page.next.map(|text| Cursor::<i32>::parse(&text).unwrap().0);
            assert_eq!(next, expected);
            assert!(page.items.len() <= limit);
        }
    }
}
