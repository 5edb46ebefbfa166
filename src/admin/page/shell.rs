//! What all pages share: head, navigation, search, notes, foot; and the style sheet.

use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

use super::Page;
use super::gate::Visit;
use super::text;
use crate::admin::http::Access;

/// A file that never changes under its name: the name holds a checksum of it.
pub(super) struct Fixed {
    content: &'static str,
    kind: &'static str,
    path: LazyLock<String>,
}

impl Fixed {
    /// Where it is served.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn answer(&self) -> Response {
        let fields = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.kind)),
            (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        ];
        (fields, self.content).into_response()
    }
}

const CSS: &str = include_str!("style.css");
const SVG: &str = include_str!("icon.svg");

/// The style sheet.
pub(super) static STYLE: Fixed = Fixed {
    content: CSS,
    kind: "text/css; charset=utf-8",
    path: LazyLock::new(|| format!("/style-{:08x}.css", crc32fast::hash(CSS.as_bytes()))),
};
/// The icon.
pub(super) static ICON: Fixed = Fixed {
    content: SVG,
    kind: "image/svg+xml",
    path: LazyLock::new(|| format!("/icon-{:08x}.svg", crc32fast::hash(SVG.as_bytes()))),
};

/// `GET` of the style sheet.
pub(super) async fn style(State(_): State<Arc<Page>>) -> Response {
    STYLE.answer()
}

/// `GET` of the icon.
pub(super) async fn icon(State(_): State<Arc<Page>>) -> Response {
    ICON.answer()
}

/// The entries of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Queue,
    Destinations,
    Reports,
    Changes,
    Suppressions,
    None,
}

const TABS: [(Tab, &str, &str); 6] = [
    (Tab::Overview, "/", "Overview"),
    (Tab::Queue, "/queue", "Queue"),
    (Tab::Destinations, "/destinations", "Destinations"),
    (Tab::Reports, "/reports", "Reports"),
    (Tab::Changes, "/changes", "Policy radar"),
    (Tab::Suppressions, "/suppressions", "Suppressions"),
];

/// A whole page.
pub(super) fn page(page: &Page, visit: &Visit, tab: Tab, title: &str, body: Markup) -> Response {
    let now = page.facts.now();
    let inner = html! {
        header.top {
            a.brand href="/" { (mark()) span { (page.options.hostname) } }
            nav aria-label="Pages" {
                ul {
                    @for (entry, path, name) in TABS {
                        li { a href=(path) aria-current=[(entry == tab).then_some("page")] { (name) } }
                    }
                }
            }
            form.search role="search" action="/search" method="get" {
                label.aside for="search" { "Find a message, an address or a domain" }
                input #search type="search" name="q" placeholder="Id, address or domain" autocomplete="off"
                    spellcheck="false" maxlength="320" value=(visit.query.text("q"));
                button type="submit" { "Find" }
            }
        }
        main #main tabindex="-1" {
            @for note in &visit.notes {
                p.note.failed[note.failed] role=(if note.failed { "alert" } else { "status" }) { (text::words(&note.text)) }
            }
            (body)
        }
        footer {
            p {
                "stsrelay " (env!("CARGO_PKG_VERSION")) " · as of " (text::stamp(now)) " · "
                a href=(visit.here) { "Load again" }
                @if visit.access == Access::Read { " · only shows, changes nothing" }
            }
            @if visit.session.is_some() {
                form action="/logout" method="post" {
                    input type="hidden" name="code" value=(visit.code);
                    button.plain type="submit" { "Log out" }
                }
            }
        }
    };
    Html(document(&format!("{title} · {}", page.options.hostname), inner).into_string()).into_response()
}

/// The outermost part.
pub(super) fn document(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) }
                link rel="stylesheet" href=(STYLE.path());
                link rel="icon" type="image/svg+xml" href=(ICON.path());
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (body)
            }
        }
    }
}

/// A page that tells why it is not the one asked for.
pub(super) fn refusal(from: &Page, visit: &Visit, status: StatusCode, title: &str, body: Markup) -> Response {
    let body = html! { h1 { (title) } (body) p { a href="/" { "To the overview" } } };
    (status, page(from, visit, super::gate::NO_TAB, title, body)).into_response()
}

/// What was asked for could not be had.
pub(super) fn trouble(from: &Page, visit: &Visit, text: &str) -> Response {
    refusal(
        from,
        visit,
        StatusCode::INTERNAL_SERVER_ERROR,
        "That did not work",
        html! { p { (text::words(text)) } },
    )
}

/// What was asked for makes no sense.
pub(super) fn mistake(from: &Page, visit: &Visit, text: Markup) -> Response {
    refusal(from, visit, StatusCode::BAD_REQUEST, "That is not understood", html! { p { (text) } })
}

/// The relay's mark.
pub(super) fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 24 24" aria-hidden="true" focusable="false" {
            path d="M12 1.8 20.5 5v6.2c0 5.2-3.5 9.4-8.5 11-5-1.6-8.5-5.8-8.5-11V5z" {}
            path.letter d="m6.8 9 5.2 4.2L17.2 9v7H6.8z" {}
        }
    }
}

/// A word on a ground of its colour: `fine`, `odd`, `bad` or `quiet`.
pub(super) fn badge(tone: &str, word: &str) -> Markup {
    html! { span class={ "badge " (tone) } { (word) } }
}

/// The beginning of a form that changes something: the code, and where to go on.
pub(super) fn coded(visit: &Visit, back: &str) -> Markup {
    html! {
        input type="hidden" name="code" value=(visit.code);
        input type="hidden" name="back" value=(back);
    }
}

/// Links to the first and the next page of a listing.
pub(super) fn pager(first: Option<String>, next: Option<String>) -> Markup {
    html! {
        @if first.is_some() || next.is_some() {
            nav.pager aria-label="Pages of this list" {
                @if let Some(first) = &first { a href=(first) { "From the start" } }
                @if let Some(next) = &next { a href=(next) rel="next" { "Next page" } }
            }
        }
    }
}
