//! When nothing stood against a domain's mail, so that it can be told afterwards what was late.
//!
//! A spell ends when anything changes that mail for the domain hangs on, even for the better: what the
//! relay knows may be older. Called by `scenario` after each change, judged by `prompt`.

use crate::internet::{Answers, Manner, Spells, Web, Zone};
use crate::sim::{Net, Sim};

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Perhaps only the time.
    Nothing,
    Zone(usize),
    Host(usize),
    All,
}

/// Looks at all domains after a change.
pub fn look(sim: &Sim, changed: Changed) {
    let (now, wall) = (sim.time.now(), sim.time.wall());
    let mut net = sim.net();
    let states: Vec<(bool, bool)> =
        (0..net.zones.len()).map(|at| (is_well(&net, at, wall), is_open(&net, at))).collect();
    for (at, (well, open)) in states.into_iter().enumerate() {
        let zone = &mut net.zones[at];
        let concerned = match changed {
            Changed::Nothing => false,
            Changed::Zone(of) => of == at,
            Changed::Host(of) => zone.mx.iter().any(|(_, host)| *host == of),
            Changed::All => true,
        };
        zone.well.step(well, concerned, now);
        zone.open.step(open, concerned, now);
    }
}

impl Spells {
    fn step(&mut self, holds: bool, changed: bool, now: u64) {
        if changed || !holds {
            self.past.extend(self.since.take().map(|since| (since, now)));
        }
        if holds && self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// All of them, the last one until `now`.
    pub fn all(&self, now: u64) -> impl Iterator<Item = (u64, u64)> {
        self.past.iter().copied().chain(self.since.map(|since| (since, now)))
    }
}

fn is_open(net: &Net, at: usize) -> bool {
    let zone = &net.zones[at];
    let no_rule = net.rules.last().is_none_or(|(_, rules)| rules.iter().all(|rule| rule.zone != at));
    let answers = !net.dns_down && zone.answers == Answers::Fine;
    answers && no_rule && hosts(zone).all(|host| net.hosts[host].manner == Manner::Good)
}

fn is_well(net: &Net, at: usize, wall: i64) -> bool {
    let zone = &net.zones[at];
    let sound = |host: usize| {
        let host = &net.hosts[host];
        let shown = &host.certificates[host.certificate];
        let keys = host.tlsa.last().map(|(_, keys)| keys.as_slice()).unwrap_or_default();
        let dane = !host.signed
            || (host.tlsa_answers == Answers::Fine && (keys.is_empty() || keys.contains(&shown.key)));
        host.manner == Manner::Good && shown.valid && dane
    };
    // Mandatory DANE for a domain without DNSSEC stops its mail for as long as it lasts.
    let stops = net.rules.last().is_some_and(|(_, rules)| {
        rules.iter().any(|rule| {
            rule.zone == at && rule.require == "dane" && rule.until.is_none_or(|until| wall < until + 1000)
        })
    });
    let dns = !net.dns_down && zone.answers == Answers::Fine && !zone.txt_lost;
    dns && zone.web == Web::Fine && !stops && hosts(zone).all(sound)
}

fn hosts(zone: &Zone) -> impl Iterator<Item = usize> {
    zone.mx.iter().map(|(_, host)| *host)
}
