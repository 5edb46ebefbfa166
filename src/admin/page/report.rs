//! `/report` is one report that was made; `/report/preview` is what today's would say now.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::civil::Date;
use maud::{Markup, html};
use serde_json::Value;

use super::gate::Visit;
use super::shell::{Tab, mistake, page, refusal, trouble};
use super::text::{TEXT_MAX, count, foreign, name, words};
use super::{Page, destinations, reports, unexpected};
use crate::admin::protocol::reports::{ReportsAnswer, ReportsRequest};
use crate::admin::protocol::{Answer, Request};
use crate::mail::Domain;

/// Policies of a report that are shown.
const POLICIES_MAX: usize = 32;
/// Failures of a policy that are shown.
const FAILURES_MAX: usize = 100;
/// Lines of a policy's text that are shown.
const LINES_MAX: usize = 50;
/// Characters of the report's text that are shown.
const TEXT_SHOWN: usize = 20_000;

/// `GET /report`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let (Ok(domain), Ok(day)) = (Domain::parse(visit.query.text("domain")), visit.query.read::<Date>("day"))
    else {
        return mistake(&site, &visit, html! { "No report is called that." });
    };
    let (entry, mails) = match site.ask(Request::Reports(ReportsRequest::Show { day, domain })).await {
        Ok(Answer::Reports(ReportsAnswer::Page { entries, mails, .. })) => match entries.into_iter().next() {
            Some(entry) => (entry, mails),
            None => return none(&site, &visit, "No such report was made."),
        },
        Ok(Answer::Nothing { text }) => return none(&site, &visit, &text),
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    let title = format!("Report to {} for {}", entry.domain, entry.day);
    let body = html! {
        h1 { (name(&title)) }
        dl.facts {
            dt { "To" } dd { (destinations::to(entry.domain.as_str())) }
            dt { "Day (UTC)" } dd { (entry.day) }
            dt { "Report id" } dd { (name(&entry.report_id)) }
            dt { "Targets" } dd { (reports::targets(&entry, &mails, site.facts.now())) }
        }
        (content(&entry.json))
    };
    page(&site, &visit, Tab::Reports, &title, body)
}

/// `GET /report/preview`
pub(super) async fn preview(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let Ok(domain) = Domain::parse(visit.query.text("domain")) else {
        return mistake(&site, &visit, html! { (name(visit.query.text("domain"))) " is no domain." });
    };
    let title = format!("Today's report to {domain}, so far");
    let asked = ReportsRequest::Preview { domain };
    let json = match site.ask(Request::Reports(asked)).await {
        Ok(Answer::Reports(ReportsAnswer::Text { json })) => json,
        Ok(Answer::Nothing { text }) => return none(&site, &visit, &text),
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    let body = html! {
        h1 { (name(&title)) }
        p.lead { "It is made after the end of the day (UTC) and sent to whom its " code { "_smtp._tls" } " record names." }
        (content(&json))
    };
    page(&site, &visit, Tab::Reports, &title, body)
}

fn none(site: &Page, visit: &Visit, text: &str) -> Response {
    refusal(site, visit, StatusCode::NOT_FOUND, "No such report", html! { p { (words(text)) } })
}

/// A report (RFC 8460 §4.4) as tables; its text below.
fn content(json: &str) -> Markup {
    let report: Value = serde_json::from_str(json).unwrap_or_default();
    let policies = report["policies"].as_array().map_or(&[][..], Vec::as_slice);
    html! {
        @for policy in policies.iter().take(POLICIES_MAX) { (of_policy(policy)) }
        @if policies.len() > POLICIES_MAX { p.quiet { "and " (count((policies.len() - POLICIES_MAX) as u64)) " more policies" } }
        details {
            summary { "Its text (JSON)" }
            pre { (foreign(json, TEXT_SHOWN)) }
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("–")
}

fn of_policy(policy: &Value) -> Markup {
    let (body, summary) = (&policy["policy"], &policy["summary"]);
    let failures = policy["failure-details"].as_array().map_or(&[][..], Vec::as_slice);
    let lines = body["policy-string"].as_array().map_or(&[][..], Vec::as_slice);
    let good = summary["total-successful-session-count"].as_u64().unwrap_or(0);
    let bad = summary["total-failure-session-count"].as_u64().unwrap_or(0);
    html! {
        section.panel {
            h2 { (name(text(body, "policy-type"))) " of " (name(text(body, "policy-domain"))) }
            p.lead { strong { (count(good)) } " sessions met it, " strong { (count(bad)) } " failed." }
            @if !lines.is_empty() {
                pre { @for line in lines.iter().take(LINES_MAX) { (foreign(line.as_str().unwrap_or_default(), 200)) "\n" } }
            }
            @if !failures.is_empty() {
                div.scroll tabindex="0" role="region" aria-label="Failures" { table.plain {
                    thead { tr {
                        th scope="col" { "Failure" } th scope="col" { "Host" } th scope="col" { "Address" }
                        th.number scope="col" { "Sessions" } th scope="col" { "Reason" }
                    } }
                    tbody { @for failure in failures.iter().take(FAILURES_MAX) { tr {
                        th scope="row" { (name(text(failure, "result-type"))) }
                        td { (name(text(failure, "receiving-mx-hostname"))) }
                        td { (name(text(failure, "receiving-ip"))) }
                        td.number { (count(failure["failed-session-count"].as_u64().unwrap_or(0))) }
                        td { (foreign(text(failure, "failure-reason-code"), TEXT_MAX)) }
                    } } }
                } }
                @if failures.len() > FAILURES_MAX { p.quiet { "and " (count((failures.len() - FAILURES_MAX) as u64)) " more failures" } }
            }
        }
    }
}
