//! What policies and local rules forbid: judged at MAIL and at RCPT, by the MX hosts (I4, I7, I10).
//!
//! The relay may go by what it knew when its walk began. So a thing is forbidden only when everything
//! the relay may have known forbids it.

use crate::internet::{Answers, Policy, Web, Zone};
use crate::mx::Peer;
use crate::sim::{Ask, Net, Sim};
use crate::verdict::{REPORTER, id_of};

/// How long before MAIL its plan may have been made (ms): no host is begun after a quarter of an hour of
/// a walk, and the last one may take its time to greet.
const PLAN_AGE: u64 = 1_800_000;
/// The same of what is published: the life of a DNS answer, and the pause after a fetch that failed.
const PUBLISHED_AGE: u64 = 2_400_000;

/// The reverse-path of a message on a connection.
pub fn mail(sim: &Sim, peer: &Peer, from: &str, requires: bool) {
    if from == REPORTER || sim.is_dead() {
        return;
    }
    let message = id_of(from).and_then(|id| {
        let book = sim.book();
        book.messages.get(id).map(|message| (message.ask, message.recipients.clone()))
    });
    let ask = message.as_ref().map_or(Ask::Nothing, |(ask, _)| *ask);
    let net = sim.net();
    let host = net.hosts[peer.host].name.clone();
    let mut wrong = (ask != Ask::NotRequired).then(|| against_tlsa(sim, &net, peer)).flatten();
    if let Some((_, recipients)) = &message {
        // Whoever of them is served by this host.
        let mut reasons = recipients
            .iter()
            .filter_map(|recipient| net.zone_of(recipient))
            .filter(|at| net.zones[*at].mx.iter().any(|(_, of)| *of == peer.host))
            .map(|at| forbidden(sim, &net, peer, at, ask))
            .peekable();
        if reasons.peek().is_some() {
            let reasons: Option<Vec<String>> = reasons.collect();
            wrong = wrong.or(reasons.map(|mut reasons| reasons.remove(0)));
        }
    }
    drop(net);
    if let Some(wrong) = wrong {
        sim.violation(format_args!("I4: MAIL FROM:<{from}> reached {host}, though {wrong}"));
    }
    if ask == Ask::Required && !requires {
        sim.violation(format_args!("MAIL FROM:<{from}> reached {host} without its REQUIRETLS"));
    }
}

/// A recipient of a message on a connection.
pub fn rcpt(sim: &Sim, peer: &Peer, from: &str, path: &str) {
    if from == REPORTER || sim.is_dead() {
        return;
    }
    let message = id_of(path).and_then(|id| {
        let book = sim.book();
        book.messages.get(id).map(|message| (message.ask, message.from_null))
    });
    let ask = message.map_or(Ask::Nothing, |(ask, _)| ask);
    // Not of the notices that go back.
    let ask = if from.is_empty() && message.is_some_and(|(_, null)| !null) { Ask::NotRequired } else { ask };
    let net = sim.net();
    let Some(at) = net.zone_of(path) else { return };
    let wrong = forbidden(sim, &net, peer, at, ask);
    let host = net.hosts[peer.host].name.clone();
    drop(net);
    if let Some(wrong) = wrong {
        sim.violation(format_args!("I4: RCPT TO:<{path}> reached {host}, though {wrong}"));
    }
}

/// The host's TLSA records, whatever the domain.
fn against_tlsa(sim: &Sim, net: &Net, peer: &Peer) -> Option<String> {
    let host = &net.hosts[peer.host];
    let now = sim.time.now();
    // Every set of records that may have been the one known.
    let sets = in_force(&host.tlsa, |(at, _)| *at, now.saturating_sub(PLAN_AGE))?;
    let forbids = |keys: &[usize]| {
        !keys.is_empty() && peer.shown.as_ref().is_none_or(|shown| !keys.contains(&shown.key))
    };
    let shown = peer.shown.as_ref().map(|shown| shown.key);
    (host.signed && sets.iter().all(|(_, keys)| forbids(keys)))
        .then(|| format!("its TLSA records forbid it (shown key {shown:?})"))
}

/// Why mail for a domain must not go over this connection, if it must not.
fn forbidden(sim: &Sim, net: &Net, peer: &Peer, at: usize, ask: Ask) -> Option<String> {
    let rule = against_rule(sim, net, peer, at);
    // RFC 8689 §4.2.2: the domain's own policies do not count; the relay's own rules do.
    if rule.is_some() || ask == Ask::NotRequired {
        return rule;
    }
    against_sts(sim, net, peer, at)
        .or_else(|| (ask == Ask::Required).then(|| unvouched(sim, net, peer, at))?)
}

fn against_rule(sim: &Sim, net: &Net, peer: &Peer, at: usize) -> Option<String> {
    let (now, wall) = (sim.time.now(), sim.time.wall());
    let since = now.saturating_sub(PLAN_AGE);
    let sets = in_force(&net.rules, |(at, _)| *at, since)?;
    let forbids = |require: &str| match require {
        "encrypt" => peer.shown.is_none(),
        "verify" => peer.shown.as_ref().is_none_or(|shown| !shown.valid),
        "dane" => peer.shown.is_none() || !net.zones[at].signed,
        _ => false,
    };
    let every = sets.iter().all(|(_, rules)| {
        rules.iter().any(|rule| {
            rule.zone == at && rule.until.is_none_or(|until| wall < until) && forbids(rule.require)
        })
    });
    (every && !sim.book().jumped(since, now)).then(|| "a local rule forbids it".to_owned())
}

fn against_sts(sim: &Sim, net: &Net, peer: &Peer, at: usize) -> Option<String> {
    let now = sim.time.now();
    let zone = &net.zones[at];
    let since = now.saturating_sub(PLAN_AGE);
    let ignored = in_force(&net.rules, |(at, _)| *at, since).is_some_and(|sets| {
        sets.iter().any(|(_, rules)| rules.iter().any(|rule| rule.zone == at && rule.require == "ignore-sts"))
    });
    if ignored {
        return None;
    }
    let forbids = |policy: &Policy| {
        policy.enforce
            && (!policy.mx.contains(&peer.host) || peer.shown.as_ref().is_none_or(|shown| !shown.valid))
    };
    // Published and there for the asking all the time.
    let published = zone.policy.as_ref().filter(|_| zone.changed + PUBLISHED_AGE <= now && reachable(zone));
    if published.is_some_and(forbids) {
        return Some("the published MTA-STS policy forbids it".to_owned());
    }
    // Told to the relay, and in force all the time.
    let told = in_force(&zone.told, |told| told.at, since)?;
    let held = told.iter().enumerate().all(|(at, one)| {
        let end = told.get(at + 1).map_or(now, |next| next.at);
        one.policy
            .as_ref()
            .is_some_and(|policy| forbids(policy) && end - one.at + one.jumped <= policy.max_age * 1000)
    });
    held.then(|| "the MTA-STS policy it was told forbids it".to_owned())
}

/// RFC 8689 §4.2.1: why REQUIRETLS cannot be satisfied here, if it cannot.
fn unvouched(sim: &Sim, net: &Net, peer: &Peer, at: usize) -> Option<String> {
    let Some(shown) = &peer.shown else { return Some("it requires TLS".to_owned()) };
    let (host, zone) = (&net.hosts[peer.host], &net.zones[at]);
    if !host.requiretls {
        return Some("the host does not offer REQUIRETLS".to_owned());
    }
    let since = sim.time.now().saturating_sub(PLAN_AGE);
    let by_dane = host.signed
        && in_force(&host.tlsa, |(at, _)| *at, since)
            .is_none_or(|sets| sets.iter().any(|(_, keys)| keys.contains(&shown.key)));
    if !shown.valid && !by_dane {
        return Some("it requires TLS and the host is not authenticated".to_owned());
    }
    let names = |policy: &Policy| policy.enforce && policy.mx.contains(&peer.host);
    // What cannot be told may be such a policy.
    let by_sts = in_force(&zone.told, |told| told.at, since)
        .unwrap_or(&zone.told)
        .iter()
        .any(|told| told.policy.as_ref().is_none_or(names));
    (!zone.signed && !by_sts).then(|| "it requires TLS and nothing vouches for the host".to_owned())
}

fn reachable(zone: &Zone) -> bool {
    zone.answers == Answers::Fine && !zone.txt_lost && zone.web == Web::Fine
}

/// What held at `since` and after; nothing when it is not known what held then.
fn in_force<T>(all: &[T], begun: impl Fn(&T) -> u64, since: u64) -> Option<&[T]> {
    let first = all.iter().rposition(|one| begun(one) <= since)?;
    Some(&all[first..])
}
