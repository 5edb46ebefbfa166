//! `/reports`: TLS reports made for others: of today, sent and to be sent, and targets that fail.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use jiff::civil::Date;
use maud::{Markup, html};

use super::form::link;
use super::gate::Visit;
use super::shell::{Tab, badge, mistake, page, pager, trouble};
use super::text::{count, name, when, words};
use super::{Page, unexpected};
use crate::admin::protocol::reports::{
    ReportListRequest, ReportsAnswer, ReportsRequest, TargetLine, TodayLine,
};
use crate::admin::protocol::{Answer, Request};
use crate::mail::Domain;
use crate::store::targets::MailEnd;
use crate::store::{ReportEntry, RuaState, RuaStatus};

/// Entries of a page.
const SHOWN: usize = 50;
/// Domains of today, and targets that fail, shown at once.
const SHORT: usize = 20;

/// `GET /reports`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let query = &visit.query;
    let read = |field: &str| query.some(field).map(Domain::parse).transpose();
    let days = (query.read::<Date>("day"), query.read::<Date>("of"));
    let (Ok(domain), Ok(after), Ok(since), (Ok(day), Ok(of))) =
        (read("domain"), read("after"), read("today"), days)
    else {
        return mistake(&site, &visit, html! { "That is no domain, or no day." });
    };
    let failed = query.text("failed") == "yes";
    let asked = ReportListRequest { after: of.zip(after), day, domain, failed };
    let (entries, mails, more) = match site.ask(Request::Reports(ReportsRequest::List(asked))).await {
        Ok(Answer::Reports(ReportsAnswer::Page { entries, mails, more })) => (entries, mails, more),
        Ok(other) => return trouble(&site, &visit, &unexpected(&other)),
        Err(text) => return trouble(&site, &visit, &text),
    };
    let (today, today_more) = match site.ask(Request::Reports(ReportsRequest::Today { after: since })).await {
        Ok(Answer::Reports(ReportsAnswer::Today { domains, more })) => (domains, more),
        _ => (Vec::new(), false),
    };
    let (targets, targets_more) =
        match site.ask(Request::Reports(ReportsRequest::Targets { after: None })).await {
            Ok(Answer::Reports(ReportsAnswer::Targets { targets, more })) => (targets, more),
            _ => (Vec::new(), false),
        };
    let now = site.facts.now();
    let (shown, more) = (&entries[..entries.len().min(SHOWN)], more || entries.len() > SHOWN);
    let filter =
        [("domain", query.text("domain")), ("day", query.text("day")), ("failed", query.text("failed"))];
    let next = shown.last().filter(|_| more).map(|last| {
        let place = [("of", last.day.to_string()), ("after", last.domain.to_string())];
        link("/reports", filter.into_iter().chain(place.iter().map(|(name, value)| (*name, value.as_str()))))
    });
    let first = query.some("after").map(|_| link("/reports", filter));
    let body = html! {
        h1 { "TLS reports" }
        (of_today(&today, today_more))
        section aria-labelledby="made" {
            h2 #made { "Made" }
            form.filter action="/reports" method="get" aria-label="Filter" {
                p { label for="domain" { "Domain" } input #domain name="domain" value=(query.text("domain")) maxlength="255" spellcheck="false" autocomplete="off"; }
                p { label for="day" { "Day (UTC)" } input #day type="date" name="day" value=(query.text("day")); }
                p.check { input #failed type="checkbox" name="failed" value="yes" checked[failed]; label for="failed" { "that did not arrive" } }
                button type="submit" { "Show" }
                @if filter.iter().any(|(_, value)| !value.is_empty()) { a href="/reports" { "All" } }
            }
            @if shown.is_empty() { p.empty { "No report was made." } }
            @else {
                div.scroll { table.stack role="table" {
                    caption.aside { "Reports" }
                    thead role="rowgroup" { tr role="row" {
                        th scope="col" role="columnheader" { "Day" }
                        th scope="col" role="columnheader" { "Domain" }
                        th scope="col" role="columnheader" { "Targets" }
                    } }
                    tbody role="rowgroup" { @for entry in shown { (row(entry, &mails, now)) } }
                } }
            }
            (pager(first, next))
        }
        (failing(&targets, targets_more, now))
    };
    page(&site, &visit, Tab::Reports, "TLS reports", body)
}

fn of_today(today: &[TodayLine], more: bool) -> Markup {
    let shown = &today[..today.len().min(SHORT)];
    html! {
        section.panel aria-labelledby="today" {
            h2 #today { "Counted today, to be reported tomorrow" }
            @if shown.is_empty() { p.lead { "No TLS session was counted today." } }
            @else {
                div.scroll tabindex="0" role="region" aria-label="Domains with sessions today" { table.plain {
                    thead { tr { th scope="col" { "Domain" } th.number scope="col" { "Sessions" } th.number scope="col" { "Failed" } th scope="col" { span.aside { "Preview" } } } }
                    tbody { @for line in shown { tr {
                        th scope="row" { (super::destinations::to(line.domain.as_str())) }
                        td.number { (count(line.sessions)) }
                        td.number { @if line.failed > 0 { strong { (count(line.failed)) } } @else { "0" } }
                        td { a href=(link("/report/preview", [("domain", line.domain.as_str())])) { "Preview" span.aside { " of the report to " (line.domain) } } }
                    } } }
                } }
                @if let Some(last) = shown.last().filter(|_| more || today.len() > SHORT) {
                    p { a href=(link("/reports", [("today", last.domain.as_str())])) { "More domains" } }
                }
            }
        }
    }
}

fn row(entry: &ReportEntry, mails: &[MailEnd], now: Timestamp) -> Markup {
    let day = entry.day.to_string();
    html! {
        tr role="row" {
            th scope="row" role="rowheader" data-label="Day" { (day) }
            td role="cell" data-label="Domain" {
                a href=(link("/report", [("day", day.as_str()), ("domain", entry.domain.as_str())])) { (name(entry.domain.as_str())) }
            }
            td role="cell" data-label="Targets" { (targets(entry, mails, now)) }
        }
    }
}

/// How it stands with each target of a report.
pub(super) fn targets(entry: &ReportEntry, mails: &[MailEnd], now: Timestamp) -> Markup {
    html! {
        @if let Some(note) = &entry.note { p { (badge("quiet", "not sent")) " " (words(note)) } }
        @for target in entry.targets.iter().take(20) {
            p { (status(target, mails, now)) " " (name(&target.rua))
                @if let Some(last) = &target.last { br; span.quiet { (words(last)) } } }
        }
    }
}

fn status(target: &RuaState, mails: &[MailEnd], now: Timestamp) -> Markup {
    match &target.status {
        RuaStatus::Waiting(at) if *at <= now => badge("odd", "to be sent now"),
        RuaStatus::Waiting(at) => html! { (badge("odd", "to be sent")) " " (when(*at, now)) },
        RuaStatus::Queued(id) => match mails.iter().find(|mail| mail.id == *id) {
            Some(mail) if mail.delivered => badge("fine", "delivered"),
            Some(_) => badge("bad", "bounced"),
            None => {
                let id = id.to_string();
                html! { (badge("odd", "queued")) " " a.id href=(link("/message", [("id", id.as_str())])) { (id) } }
            }
        },
        RuaStatus::Accepted => badge("fine", "accepted"),
        RuaStatus::GivenUp => badge("bad", "given up"),
        RuaStatus::Withheld => badge("quiet", "withheld"),
    }
}

fn failing(targets: &[TargetLine], more: bool, now: Timestamp) -> Markup {
    let shown = &targets[..targets.len().min(SHORT)];
    html! {
        section.panel aria-labelledby="targets" {
            h2 #targets { "Targets that fail" }
            @if shown.is_empty() { p.lead { "None: every target takes its reports." } }
            @else { ul.events {
                @for line in shown { li {
                    p { strong { (name(&line.standing.target)) } " "
                        @if let Some(until) = line.suppressed_until { (badge("odd", "left alone")) " until " (when(until, now)) } }
                    p { (words(&line.standing.reason)) }
                    p.quiet { (count(line.standing.failures.into())) " failures since " (when(line.standing.first_at, now)) ", the last " (when(line.standing.last_at, now)) }
                } }
            } }
            @if more || targets.len() > SHORT { p.quiet { "More: " code { "stsrelay report targets" } } }
        }
    }
}
