//! What must hold, judged by those outside: MX hosts, report endpoints, senders.

use std::io::Read;

use crate::internet::{GOOD, Policy};
use crate::mx::Peer;
use crate::sim::{Delivery, Sim, epoch};

/// The reverse-path of the relay's own reports.
pub const REPORTER: &str = "tlsrpt@relay.example";

/// How long before a message arrives its plan may have been made (ms): one walk over all hosts with
/// all their time limits, and the life of a DNS answer.
const PLAN_AGE: u64 = 5_400_000;
/// What is being written down this long before a crash may be lost (ms).
const WRITING: u64 = 10_000;
/// An attempt is settled as a whole: its first recipient may have been delivered so long before (ms).
const ATTEMPT: u64 = 3_600_000;
/// Mail for the domain without trouble arrives within this time (ms).
const PROMPT: u64 = 90_000;
/// A session is counted at most so long before or after it was seen here (s): the clock may be set.
const COUNTED: i64 = 3 * 3600;

/// The reverse-path of a message on a connection: nothing can be said yet of the recipients' policies,
/// but of the host's TLSA records it can.
pub fn mail_from(sim: &Sim, peer: &Peer, from: &str) {
    if from == REPORTER || sim.is_dead() {
        return;
    }
    let now = sim.time.now();
    let net = sim.net();
    let host = &net.hosts[peer.host];
    if !host.signed {
        return;
    }
    // Every set of records that may have been the one known.
    let before = host.tlsa.iter().rposition(|(at, _)| *at + PLAN_AGE <= now).unwrap_or(0);
    let sets = &host.tlsa[before..];
    let forbids = |keys: &[usize]| {
        !keys.is_empty() && peer.shown.as_ref().is_none_or(|shown| !keys.contains(&shown.key))
    };
    if sets.iter().all(|(_, keys)| forbids(keys)) {
        let (name, shown) = (host.name.clone(), peer.shown.as_ref().map(|shown| shown.key));
        drop(net);
        sim.violation(format_args!(
            "I4: MAIL FROM:<{from}> reached {name} against its TLSA records (shown key {shown:?})"
        ));
    }
}

/// A message has arrived at a host.
pub fn arrived(sim: &Sim, peer: &Peer, from: &str, recipients: &[String], content: &[u8], heard: bool) {
    let text = String::from_utf8_lossy(content);
    let (host, now) = (sim.net().hosts[peer.host].name.clone(), sim.time.now());
    if from == REPORTER {
        sim.book().counts.report_mails += 1;
        return sim.note(format_args!("{host} takes a report for {recipients:?}"));
    }
    for recipient in recipients {
        held_to_policy(sim, peer, recipient);
    }
    let id = text.lines().find_map(|line| line.strip_prefix("X-Sim-Id: ")?.parse::<usize>().ok());
    if from.is_empty() && text.contains("multipart/report") {
        return notice(sim, &text, id, recipients);
    }
    let Some(id) = id else {
        return sim.violation(format_args!("{host} got a message that nobody sent, from <{from}>"));
    };
    let shown = peer.shown.is_some();
    sim.note(format_args!("{host} takes {id} for {recipients:?} tls={shown} heard={heard}"));
    let mut book = sim.book();
    for recipient in recipients {
        book.counts.deliveries += 1;
        let message = &book.messages[id];
        let wrong = if !message.recipients.contains(recipient) {
            Some(format!("message {id} went to {recipient}, whom nobody named"))
        } else {
            let twice = |delivery: &&Delivery| delivery.recipient == *recipient;
            match message.deliveries.iter().rev().find(twice) {
                None => None,
                Some(earlier) => {
                    let allowed = !earlier.heard || book.disturbed(earlier.at, earlier.at + ATTEMPT);
                    book.counts.duplicates += 1;
                    (!allowed).then(|| {
                        format!("I9: message {id} went to {recipient} twice, though its host had said 250")
                    })
                }
            }
        };
        let delivery = Delivery { recipient: recipient.clone(), at: now, heard };
        book.messages[id].deliveries.push(delivery);
        if let Some(wrong) = wrong {
            drop(book);
            sim.violation(wrong);
            book = sim.book();
        }
    }
}

/// A bounce or delay warning has arrived at the sender's host.
fn notice(sim: &Sim, text: &str, id: Option<usize>, recipients: &[String]) {
    let Some(id) = id else {
        return sim
            .violation(format_args!("a notice for {recipients:?} does not say of which message:\n{text}"));
    };
    let (mut last, mut failed) = (String::new(), Vec::new());
    let mut warned = 0;
    for line in text.lines() {
        if let Some(address) = line.strip_prefix("Final-Recipient:") {
            last = address.rsplit(';').next().unwrap_or_default().trim().to_owned();
        } else if let Some(action) = line.strip_prefix("Action:") {
            match action.trim() {
                "failed" => failed.push(last.clone()),
                "delayed" => warned = 1,
                _ => {}
            }
        }
    }
    sim.note(format_args!("notice about {id} arrives: failed {failed:?}, delayed {warned}"));
    let mut wrong = Vec::new();
    {
        let mut book = sim.book();
        book.counts.bounces += u64::from(!failed.is_empty());
        let message = &mut book.messages[id];
        message.warned += warned;
        if message.from_null {
            wrong.push(format!("I3: the null reverse-path of message {id} got a notice"));
        }
        if message.quiet {
            wrong.push(format!("NOTIFY=NEVER, but message {id} got a notice"));
        }
        if text.matches("Auto-Submitted:").count() > 1 {
            wrong.push(format!("I3: a notice about a notice, {id}"));
        }
        for recipient in failed {
            if !message.recipients.contains(&recipient) {
                wrong.push(format!("a bounce of {id} names {recipient}, whom nobody named"));
            }
            message.bounced.push(recipient);
        }
    }
    wrong.into_iter().for_each(|text| sim.violation(text));
}

/// I4, I7, I10: whether every policy the relay may have gone by forbids what has just happened.
fn held_to_policy(sim: &Sim, peer: &Peer, recipient: &str) {
    let now = sim.time.now();
    let net = sim.net();
    let domain = recipient.rsplit('@').next().unwrap_or_default();
    let Some(zone) = net.zones.iter().find(|zone| zone.name.as_str() == domain) else { return };
    let forbids = |policy: &Policy| {
        policy.enforce
            && (!policy.mx.contains(&peer.host) || peer.shown.as_ref().is_none_or(|shown| !shown.valid))
    };
    let since = now.saturating_sub(PLAN_AGE);
    // Published and there for the asking all the time.
    let published = zone.policy.as_ref().filter(|_| zone.changed + PLAN_AGE <= now && reachable(zone));
    let published = published.is_some_and(forbids);
    // Told to the relay, and in force all the time.
    let before = zone.told.iter().rposition(|told| told.at <= since);
    let held = before.is_some_and(|before| {
        let told = &zone.told[before..];
        told.iter().enumerate().all(|(at, one)| {
            let end = told.get(at + 1).map_or(now, |next| next.at);
            one.policy
                .as_ref()
                .is_some_and(|policy| forbids(policy) && end - one.at + one.jumped <= policy.max_age * 1000)
        })
    });
    if published || held {
        let (host, shown) = (net.hosts[peer.host].name.clone(), peer.shown.as_ref().map(|shown| shown.valid));
        drop(net);
        sim.violation(format_args!(
            "I4: mail for {recipient} reached {host} against MTA-STS (published {published}, held {held}, certificate valid {shown:?})"
        ));
    }
}

fn reachable(zone: &crate::internet::Zone) -> bool {
    use crate::internet::{Answers, Web};
    zone.answers == Answers::Fine && !zone.txt_lost && zone.web == Web::Fine
}

/// The process has ended at this time without being asked: what it was just writing may be lost, and
/// all it was told while its disk was in trouble.
pub fn forget_untold(sim: &Sim) {
    let now = sim.time.now();
    let trouble = sim.book().troubles.last().map(|(from, _)| *from);
    let mut net = sim.net();
    for zone in &mut net.zones {
        let lost = zone
            .told
            .iter()
            .any(|told| told.at + WRITING >= now || trouble.is_some_and(|from| told.at >= from));
        if lost {
            zone.told.push(crate::internet::Told { at: now, policy: None, jumped: 0 });
        }
    }
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
    let within = |seen: &i64| (start - COUNTED..start + 86_400 + COUNTED).contains(seen);
    let mut over = Vec::new();
    {
        let net = sim.net();
        let Some(zone) = net.zones.iter().find(|zone| zone.rua.as_deref() == Some(url)) else { return };
        let hosts =
            zone.mx.iter().map(|(_, host)| net.hosts[*host].sessions.iter().filter(|at| within(at)).count());
        let most = hosts.sum::<usize>() + zone.uses.iter().filter(|at| within(at)).count();
        for policy in report["policies"].as_array().into_iter().flatten() {
            let counted = policy["summary"]["total-successful-session-count"].as_u64().unwrap_or(u64::MAX);
            if counted > most as u64 {
                over.push(format!(
                    "the report of {day} for {} counts {counted} sessions; its hosts saw {most}",
                    zone.name
                ));
            }
        }
    }
    over.into_iter().for_each(|text| sim.violation(text));
}

/// When everything is over: nothing that was acknowledged is missing, and nothing was late.
pub fn final_judgement(sim: &Sim, left: usize) {
    let mut wrong = Vec::new();
    {
        let (book, net) = (sim.book(), sim.net());
        let good = net.zones[GOOD].name.as_str().to_owned();
        for (id, message) in book.messages.iter().enumerate() {
            let Some(acknowledged) = message.acknowledged else { continue };
            for recipient in &message.recipients {
                let first = message.deliveries.iter().find(|delivery| delivery.recipient == *recipient);
                let told = message.bounced.contains(recipient);
                let silent = message.from_null || message.quiet;
                if first.is_none() && !told && !silent {
                    wrong.push(format!("I1: message {id} for {recipient} was acknowledged at {acknowledged} ms and is lost ({left} items left)"));
                }
                if recipient.ends_with(&good) {
                    let late = first.is_none_or(|first| first.at > acknowledged + PROMPT);
                    let (from, to) = (acknowledged.saturating_sub(3_600_000), acknowledged + PROMPT);
                    let excused = || {
                        book.disturbed(from, to)
                            || book.jumps.iter().any(|at| (from..=to).contains(at))
                            || book
                                .dns_troubles
                                .iter()
                                .any(|(begin, end)| *begin <= to && *end + 900_000 >= from)
                    };
                    if late && !excused() {
                        wrong.push(format!("message {id} for {recipient}, where nothing was wrong, was late: acknowledged at {acknowledged} ms, delivered at {:?}", first.map(|first| first.at)));
                    }
                }
            }
        }
    }
    wrong.into_iter().for_each(|text| sim.violation(text));
}
