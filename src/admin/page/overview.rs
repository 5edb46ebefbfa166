//! `/`: what came in, went out, waits; how it was protected; how the relay is.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::Page;
use super::form::link;
use super::gate::Visit;
use super::plot::{Columns, Part, bar, parts};
use super::shell::{Tab, badge, page, trouble};
use super::text::{count, counted, name, octets, round, share, when, words};
use super::{changes, destinations};
use crate::admin::history::{Column, Counts, Range, sum};
use crate::admin::protocol::changes::ChangesRequest;
use crate::admin::protocol::reports::{ReportsAnswer, ReportsRequest};
use crate::admin::protocol::{Answer, QueueTotals, Request};
use crate::delivery::HostStanding;
use crate::store::ChangeFilter;
use crate::sts::radar::Noticed;

/// Entries of each short list.
const SHORT: usize = 8;
/// Hosts looked at for it.
const HOSTS_MAX: usize = 1000;
/// A certificate that ends within so many days should have been renewed by now.
const ENDS_SOON: i64 = 14;

/// `GET /`
pub(super) async fn show(State(site): State<Arc<Page>>, Extension(visit): Extension<Visit>) -> Response {
    let range = match visit.query.text("range") {
        "hour" => Range::Hour,
        "month" => Range::Month,
        _ => Range::Day,
    };
    let totals = match site.totals().await {
        Ok(totals) => totals,
        Err(text) => return trouble(&site, &visit, &text),
    };
    let targets = match site.ask(Request::Reports(ReportsRequest::Targets { after: None })).await {
        Ok(Answer::Reports(ReportsAnswer::Targets { targets, more })) => Some((targets.len(), more)),
        _ => None,
    };
    let filter = ChangeFilter { newest_before: Some(u64::MAX), ..ChangeFilter::default() };
    let noticed = match site.ask(Request::Changes(ChangesRequest { filter })).await {
        Ok(Answer::Changes(answer)) => answer.changes,
        _ => Vec::new(),
    };
    let hosts = site.facts.hosts(HOSTS_MAX);
    let now = site.facts.now();
    let columns = site.facts.columns(range);
    let body = html! {
        div.title {
            h1 { "Overview" }
            nav.switch aria-label="Time range" {
                @for (this, word, name) in
                    [(Range::Hour, "hour", "Last hour"), (Range::Day, "day", "Last day"), (Range::Month, "month", "30 days")]
                {
                    a href=(link("/", [("range", word)])) aria-current=[(this == range).then_some("true")] { (name) }
                }
            }
        }
        (health(&totals, site.facts.certificate_ends(), targets, now))
        (flow(range, &columns))
        div.columns {
            (posture(range, &sum(&columns)))
            (queue(&totals, now))
            (radar(&noticed, now))
            (left_alone(&hosts, now))
        }
    };
    page(&site, &visit, Tab::Overview, "Overview", body)
}

/// What of the counts a plot shows.
type Of = fn(&Counts) -> u64;

/// How it is, in a line.
fn health(
    totals: &QueueTotals,
    certificate: Option<Timestamp>,
    targets: Option<(usize, bool)>,
    now: Timestamp,
) -> Markup {
    let tile = |tone: &str, what: &str, text: Markup| {
        html! { li class={ "tile " (tone) } { span.what { (what) } span.how { (text) } } }
    };
    let dnssec = totals.dnssec.as_deref().unwrap_or("not known");
    let storage = match totals.health.as_str() {
        "fine" => tile("fine", "Storage", html! { "takes mail" }),
        trouble => tile("bad", "Storage", words(trouble)),
    };
    let validator = match dnssec {
        "works" => tile("fine", "DNSSEC", html! { "validated" }),
        off if off.starts_with("off") => tile("quiet", "DNSSEC", words(off)),
        trouble => tile("bad", "DNSSEC", words(trouble)),
    };
    let certificate = match certificate {
        None => tile("quiet", "Certificate", html! { "no listener has one" }),
        Some(ends) if ends <= now => tile("bad", "Certificate", html! { "ended " (when(ends, now)) }),
        Some(ends) => {
            let days = ends.duration_since(now).as_hours() / 24;
            tile(
                if days < ENDS_SOON { "odd" } else { "fine" },
                "Certificate",
                html! { "ends " (when(ends, now)) },
            )
        }
    };
    let reports = match targets {
        None => tile("quiet", "TLS reports", html! { "not known" }),
        Some((0, _)) => tile("fine", "TLS reports", html! { "no target fails" }),
        Some((some, more)) => {
            let many = format!("{some}{} targets fail", if more { " and more" } else { "" });
            let text = if some == 1 && !more { "1 target fails".to_owned() } else { many };
            tile("odd", "TLS reports", html! { a href="/reports#targets" { (text) } })
        }
    };
    html! {
        section aria-labelledby="health" {
            h2.aside #health { "Health" }
            ul.tiles { (storage) (validator) (certificate) (reports) }
        }
    }
}

/// What came in, went out, waits and was given up, over time.
fn flow(range: Range, columns: &[Column]) -> Markup {
    let (width, clock, axis) = match range {
        Range::Hour => ("a minute", "%H:%M", "%H:%M"),
        Range::Day => ("15 minutes", "%H:%M", "%H:%M"),
        Range::Month => ("6 hours", "%b %d, %H:%M", "%b %d"),
    };
    let series: [(&str, &str, &str, Of); 4] = [
        ("Taken in", "recipients", "in", Counts::accepted),
        ("Delivered", "recipients", "out", Counts::delivered),
        ("Deferred", "attempts", "later", Counts::deferred),
        ("Given up", "recipients", "bounced", Counts::failed),
    ];
    html! {
        section aria-labelledby="flow" {
            h2.aside #flow { "Mail over time" }
            div.plots {
                @for (title, unit, tone, of) in series {
                    (Columns {
                        title,
                        unit,
                        tone,
                        columns: columns.iter().map(|column| (column.from, column.counts.as_ref().map(of))).collect(),
                        width,
                        clock,
                        axis,
                    }.show())
                }
            }
            (figures(range, columns))
            p.quiet.fine-print {
                "Times are UTC. Grey: not known, the relay did not run. The relay's own reports and bounces are among what is delivered."
            }
        }
    }
}

/// The same as a table, in fewer rows.
fn figures(range: Range, columns: &[Column]) -> Markup {
    let (each, clock) = match range {
        Range::Hour => (5, "%H:%M"),
        Range::Day => (4, "%b %d, %H:%M"),
        Range::Month => (4, "%b %d"),
    };
    html! {
        details {
            summary { "Figures" }
            div.scroll tabindex="0" role="region" aria-label="Figures over time" {
                table.plain {
                    thead { tr {
                        th scope="col" { "From (UTC)" }
                        th.number scope="col" { "Taken in" }
                        th.number scope="col" { "Delivered" }
                        th.number scope="col" { "Deferred" }
                        th.number scope="col" { "Given up" }
                    } }
                    tbody {
                        @for some in columns.chunks(each).rev() {
                            @let known = some.iter().any(|column| column.counts.is_some());
                            @let counts = sum(some);
                            tr {
                                th scope="row" { (some.first().map(|column| column.from.strftime(clock).to_string()).unwrap_or_default()) }
                                @for of in [counts.accepted(), counts.delivered(), counts.deferred(), counts.failed()] {
                                    td.number { @if known { (count(of)) } @else { "–" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How what was delivered was protected.
fn posture(range: Range, counts: &Counts) -> Markup {
    let named: [(&str, &str, &str); 6] = [
        ("dane", "DANE", "a TLSA record matched the certificate"),
        ("enforce", "MTA-STS enforce", "a trusted certificate of a listed host"),
        ("demanded", "Otherwise demanded", "by a local rule or the message itself"),
        ("testing", "MTA-STS testing", "TLS that the policy does not demand yet"),
        ("opportunistic", "Opportunistic TLS", "nobody asked for it; no proof of the host"),
        ("clear", "In clear", "no TLS"),
    ];
    let list: Vec<Part> = named
        .into_iter()
        .zip(counts.protection())
        .map(|((tone, name, means), count)| Part { tone, name, means, count })
        .collect();
    let whole: u64 = list.iter().map(|part| part.count).sum();
    let proven: u64 = list.iter().take(2).map(|part| part.count).sum();
    let when = match range {
        Range::Hour => "last hour",
        Range::Day => "last day",
        Range::Month => "last 30 days",
    };
    html! {
        section.panel aria-labelledby="posture" {
            h2 #posture { "Protection of delivered mail" }
            p.lead {
                @if whole == 0 { "Nothing was delivered in the " (when) "." }
                @else { strong { (share(proven, whole)) } " went to a proven host: DANE or MTA-STS enforce, " (when) "." }
            }
            (parts("Delivered recipients by protection", "Recipients", &list))
        }
    }
}

/// What waits, by age and by destination.
fn queue(totals: &QueueTotals, now: Timestamp) -> Markup {
    let all = totals.active + totals.deferred + totals.held;
    let oldest = totals.ages.iter().map(|age| age.items).max().unwrap_or(0);
    let most = totals.destinations.iter().map(|total| total.items).max().unwrap_or(0);
    html! {
        section.panel aria-labelledby="queue" {
            h2 #queue { a href="/queue" { "Queue" } }
            p.lead {
                @if all == 0 { "Empty." }
                @else {
                    strong { (counted(all, "item", "items")) } ": "
                    a href=(link("/queue", [("state", "active")])) { (count(totals.active)) " active" } ", "
                    a href=(link("/queue", [("state", "deferred")])) { (count(totals.deferred)) " deferred" } ", "
                    a href=(link("/queue", [("state", "held")])) { (count(totals.held)) " held" }
                    @if let Some(oldest) = totals.oldest { "; the oldest came " (when(oldest, now)) }
                    "; " (octets(totals.bytes)) " on disk"
                }
            }
            @if all > 0 {
                table.plain.bars {
                    caption { "By age" }
                    thead.aside { tr { th scope="col" { "Age" } th scope="col" { "Bar" } th scope="col" { "Items" } } }
                    tbody {
                        @for (at, age) in totals.ages.iter().enumerate() {
                            tr {
                                th scope="row" { (age_name(totals, at)) }
                                td { (bar(age.items, oldest)) }
                                td.number { (count(age.items)) }
                            }
                        }
                    }
                }
                table.plain.bars {
                    caption { "By destination" }
                    thead.aside { tr { th scope="col" { "Destination" } th scope="col" { "Bar" } th scope="col" { "Items" } } }
                    tbody {
                        @for total in totals.destinations.iter().take(SHORT) {
                            tr {
                                th scope="row" { (destinations::to(&total.destination)) }
                                td { (bar(total.items, most)) }
                                td.number { (count(total.items)) }
                            }
                        }
                    }
                }
                @if totals.destination_count > SHORT as u64 {
                    p { a href=(link("/destinations", [("with", "mail")])) { "All " (count(totals.destination_count)) " destinations with mail" } }
                }
            }
            @if !totals.frozen.is_empty() {
                p { (badge("odd", "frozen")) " "
                    @for (at, frozen) in totals.frozen.iter().take(SHORT).enumerate() {
                        @if at > 0 { ", " } (destinations::to(&frozen.destination))
                    }
                    @if totals.frozen.len() > SHORT { " and " (count((totals.frozen.len() - SHORT) as u64)) " more" }
                }
            }
        }
    }
}

/// What an age class covers.
fn age_name(totals: &QueueTotals, at: usize) -> String {
    let below = |at: usize| totals.ages.get(at).and_then(|age| age.below).map(|below| round(below.into()));
    let before = at.checked_sub(1).and_then(below);
    match (before, below(at)) {
        (None, Some(below)) => format!("under {below}"),
        (Some(before), Some(below)) => format!("{before} to {below}"),
        (Some(before), None) => format!("over {before}"),
        (None, None) => "all".to_owned(),
    }
}

/// The latest of the policy radar.
fn radar(noticed: &[Noticed], now: Timestamp) -> Markup {
    html! {
        section.panel aria-labelledby="radar" {
            h2 #radar { a href="/changes" { "Policy radar" } }
            @if noticed.is_empty() { p.lead { "No destination was seen to protect its mail less than before." } }
            @else { ul.events { @for one in noticed.iter().take(SHORT) { (changes::line(one, now)) } } }
        }
    }
}

/// Hosts that could not be talked to.
fn left_alone(hosts: &[HostStanding], now: Timestamp) -> Markup {
    html! {
        section.panel aria-labelledby="hosts" {
            h2 #hosts { "Hosts left alone" }
            @if hosts.is_empty() { p.lead { "Every host tried lately could be talked to." } }
            @else {
                p.lead { strong { (counted(hosts.len() as u64, "host", "hosts")) } " could not be talked to and will be tried again by themselves." }
                ul.events {
                    @for host in hosts.iter().take(SHORT) {
                        li {
                            p { strong { (name(&host.name)) } " " span.quiet { (host.address) } }
                            p { (words(&host.cause)) }
                            p.quiet { (counted(host.failures.into(), "failure", "failures")) " in a row; "
                                @if host.until > now { "tried again " (when(host.until, now)) } @else { "may be tried again" } }
                        }
                    }
                }
            }
        }
    }
}
