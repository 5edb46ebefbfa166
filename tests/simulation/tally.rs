//! TLS reports held against what hosts and endpoints saw (RFC 8460 §4).

use std::io::Read;

use crate::internet::{ALONE, GOOD, SeenTls};
use crate::sim::{Net, Sim, epoch};

/// A session is counted at most so long before or after it was seen here (s): the clock may be set.
const COUNTED: i64 = 30 * 3600;
/// The same while nobody sets it.
const AROUND: i64 = 180;
/// Between a host's seeing a session and the relay's counting it (ms).
const ABOUT_NOW: u64 = 300_000;
/// A report is made so long before it is taken at most, a day's beginning included (ms).
const MADE: u64 = 36 * 3_600_000;
/// Tallies not yet on the disk when the process ends (s).
const UNWRITTEN: u64 = 60_000;
/// After so long a day has been reported (ms): the start delay, and then some.
const REPORTED: u64 = 7 * 3_600_000;

/// What a report counts, all policies together.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    successes: u64,
    /// Failed sessions, without those that no host could see: hosts left out, policies not fetched.
    failures: u64,
}

/// A report has been posted.
pub fn report(sim: &Sim, url: &str, body: &[u8], heard: bool) {
    let mut json = Vec::new();
    if flate2::read::GzDecoder::new(body).read_to_end(&mut json).is_err() {
        return sim.violation(format_args!("a report to {url} is not gzip"));
    }
    let Ok(report) = serde_json::from_slice::<serde_json::Value>(&json) else {
        return sim.violation(format_args!("a report to {url} is not JSON"));
    };
    let day = report["date-range"]["start-datetime"].as_str().unwrap_or_default().to_owned();
    sim.note(format_args!("report of {day} taken at {url}, heard={heard}"));
    let now = sim.time.now();
    let twice = {
        let mut book = sim.book();
        book.counts.reports += 1;
        let taken = book.reports.entry((url.to_owned(), day.clone())).or_default();
        taken.push((now, heard));
        let earlier = taken.len().checked_sub(2).map(|at| taken[at]);
        earlier.is_some_and(|(at, heard)| heard && !book.disturbed(at, now))
    };
    if twice {
        sim.violation(format_args!("the report of {day} went to {url} twice"));
    }
    let Ok(start) = day.parse::<jiff::Timestamp>() else {
        return sim.violation(format_args!("a report begins at {day:?}"));
    };
    let start = start.as_second() - epoch().as_second();
    let mut wrong = Vec::new();
    {
        let net = sim.net();
        let Some(at) = net.zones.iter().position(|zone| zone.rua.as_deref() == Some(url)) else { return };
        let counted = counted(&report, &mut wrong);
        wrong.extend(too_many(&net, at, start, counted));
        if ALONE.contains(&at) {
            wrong.extend(alone(sim, &net, at, start, counted));
        }
    }
    wrong.into_iter().for_each(|text| sim.violation(format_args!("report of {day} to {url}: {text}")));
}

fn counted(report: &serde_json::Value, wrong: &mut Vec<String>) -> Counted {
    let mut counted = Counted::default();
    for policy in report["policies"].as_array().into_iter().flatten() {
        let of = |key: &str| policy["summary"][key].as_u64().unwrap_or(u64::MAX >> 8);
        counted.successes += of("total-successful-session-count");
        let failures = of("total-failure-session-count");
        let details = policy["failure-details"].as_array().cloned().unwrap_or_default();
        let count = |detail: &serde_json::Value| detail["failed-session-count"].as_u64().unwrap_or(0);
        if details.iter().any(|detail| count(detail) > failures || count(detail) == 0) {
            wrong.push(format!("details do not fit into {failures} failures: {details:?}"));
        }
        if details.iter().map(count).sum::<u64>() < failures {
            wrong.push(format!("{failures} failures, and not each has a detail: {details:?}"));
        }
        let seen = |detail: &&serde_json::Value| !detail["receiving-ip"].is_null();
        counted.failures += details.iter().filter(seen).map(count).sum::<u64>();
    }
    counted
}

/// More sessions than all its hosts saw.
fn too_many(net: &Net, at: usize, start: i64, counted: Counted) -> Option<String> {
    let zone = &net.zones[at];
    let within = |seen: &i64| (start - COUNTED..start + 86_400 + COUNTED).contains(seen);
    let of_hosts =
        zone.mx.iter().map(|(_, host)| net.hosts[*host].sessions.iter().filter(|at| within(at)).count());
    let most = 2 * (of_hosts.sum::<usize>() + zone.uses.iter().filter(|at| within(at)).count()) as u64;
    (counted.successes > most).then(|| format!("{} successes; its hosts saw {most}", counted.successes))
}

/// Of a domain whose hosts serve nobody else, in a day without trouble, every session is known.
fn alone(sim: &Sim, net: &Net, at: usize, start: i64, counted: Counted) -> Vec<String> {
    let host = &net.hosts[net.zones[at].mx[0].1];
    let (end, book) = (start + 86_400, sim.book());
    // Seen on one side of a clock that was set, and perhaps counted on the other.
    let near_jump = |at: u64| book.jumps.iter().any(|jump| jump.abs_diff(at) < ABOUT_NOW);
    let of = |kind: SeenTls, from: i64, to: i64| {
        host.seen.iter().filter(move |seen| seen.tls == kind && (from..to).contains(&seen.wall))
    };
    let jumping =
        |kind: SeenTls| host.seen.iter().filter(|seen| seen.tls == kind && near_jump(seen.at)).count();
    let mut wrong = Vec::new();
    let most = |kind| (of(kind, start - AROUND, end + AROUND).count() + jumping(kind)) as u64;
    let (valid, invalid) = (most(SeenTls::Valid), most(SeenTls::Invalid));
    let (broken, clear) = (most(SeenTls::Broken), most(SeenTls::Clear));
    if counted.successes > valid + invalid {
        wrong.push(format!("{counted:?}; only {valid} + {invalid} sessions came to TLS"));
    }
    if counted.failures > invalid + broken + clear {
        wrong.push(format!("{counted:?}; only {invalid} + {broken} + {clear} sessions could fail"));
    }
    // What was certainly counted before the report was made.
    let disturbed = |at: u64| {
        book.crashes.iter().any(|crash| (at..=at + UNWRITTEN).contains(crash))
            || book.troubles.iter().any(|(from, to)| *from <= at + UNWRITTEN && *to >= at)
    };
    let now = sim.time.now();
    if book.set_back.iter().any(|at| (now.saturating_sub(MADE)..=now).contains(at)) {
        // More of the day may have come after the report was made.
        return wrong;
    }
    let least = |kind| {
        of(kind, start + AROUND, end - AROUND)
            .filter(|seen| !disturbed(seen.at) && !near_jump(seen.at))
            .count() as u64
    };
    let (sure, failed) = (least(SeenTls::Valid), least(SeenTls::Broken));
    if counted.successes < sure {
        wrong.push(format!("{counted:?}; {sure} sessions had a valid certificate"));
    }
    if counted.failures < failed {
        wrong.push(format!("{counted:?}; {failed} sessions had a broken handshake"));
    }
    let all = counted.successes + counted.failures;
    if all < sure + failed + least(SeenTls::Invalid) {
        wrong.push(format!("{counted:?}; {sure} + {failed} + {} sessions", least(SeenTls::Invalid)));
    }
    drop(book);
    sim.book().counts.tallied += all;
    wrong
}

/// Whether each day of the domain without trouble was reported, when everything is over.
pub fn missing(sim: &Sim) -> Vec<String> {
    let (book, net) = (sim.book(), sim.net());
    let zone = &net.zones[GOOD];
    let url = zone.rua.clone().unwrap_or_default();
    let host = &net.hosts[zone.mx[0].1];
    let first_day = epoch().as_second() / 86_400;
    let mut wrong = Vec::new();
    for seen in host.seen.iter().filter(|seen| seen.tls == SeenTls::Valid) {
        let day = (epoch().as_second() + seen.wall) / 86_400;
        let begins = jiff::Timestamp::from_second(day * 86_400).unwrap();
        // The end of its day by the simulation's time, if nobody sets the clock until it is over.
        let end = seen.at + ((day + 1) * 86_400 - epoch().as_second() - seen.wall).unsigned_abs() * 1000;
        let to = end + REPORTED;
        let dns = book.dns_troubles.iter().any(|(from, until)| *from <= to && *until + 3_600_000 >= end);
        let from = seen.at.saturating_sub(600_000);
        if to > sim.time.now() || book.disturbed(from, to) || book.jumped(from, to) || dns || day == first_day
        {
            continue;
        }
        let taken = book.reports.get(&(url.clone(), begins.to_string())).is_some_and(|all| !all.is_empty());
        if !taken {
            wrong
                .push(format!("no report of {begins} came to {url}, though a session was at {} ms", seen.at));
            break;
        }
    }
    wrong
}
