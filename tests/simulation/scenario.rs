//! What goes wrong in the simulated Internet and on the disk, and when it is well again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::house::{House, Variant};
use crate::internet::{Answers, GOOD, HOME, Manner, Policy, Rule, TRAP, Web, Zone};
use crate::sim::Sim;
use crate::spells::{self, Changed};

const MANNERS: [Manner; 20] = [
    Manner::Choosy,
    Manner::Choosy,
    Manner::Picky,
    Manner::Leaves,
    Manner::Slow,
    Manner::Silent,
    Manner::Greylisting,
    Manner::Busy,
    Manner::Deferring,
    Manner::Full,
    Manner::Refusing,
    Manner::Failing,
    Manner::DropsAfterDot,
    Manner::LateReply,
    Manner::DropsAtMail,
    Manner::OneRecipient,
    Manner::NoStartTls,
    Manner::BrokenTls,
    Manner::Dead,
    Manner::Blackhole,
];
/// The sender's domain is well again at least this often (ms).
const HOME_HEALS: u64 = 6 * 3_600_000;
/// Policies live this long (s).
const AGES: [u64; 3] = [7200, 86_400, 604_800];
/// Domains that local rules are made for, and what these demand.
const RULES: [(usize, &str); 7] = [
    (8, "ignore-sts"),
    (8, "dane"),
    (8, "encrypt"),
    (5, "verify"),
    (5, "encrypt"),
    (3, "dane"),
    (7, "verify"),
];

/// Changes the world now and then, until dropped.
pub async fn trouble_for_ever(sim: Arc<Sim>, house: Arc<House>, busy: bool) {
    let longest = if busy { 2400 } else { 7000 };
    let mut healed = sim.time.now();
    loop {
        sleep(sim.seconds(60, longest)).await;
        if sim.time.now() > healed + HOME_HEALS {
            healed = sim.time.now();
            let mut net = sim.net();
            for host in net.zones[HOME].mx.clone() {
                net.hosts[host.1].manner = Manner::Good;
                net.hosts[host.1].certificate = 0;
            }
            net.zones[HOME].answers = Answers::Fine;
            drop(net);
            spells::look(&sim, Changed::Zone(HOME));
        }
        spells::look(&sim, Changed::Nothing);
        let changed = match sim.roll(60) {
            0..42 => change(&sim).await,
            42..46 => {
                reload(&sim, &house);
                Changed::All
            }
            46 => {
                // Long enough that all which waited must have gone.
                heal(&sim);
                sleep(sim.seconds(7 * 3600, 14 * 3600)).await;
                Changed::Nothing
            }
            _ => change_hosts(&sim),
        };
        spells::look(&sim, changed);
    }
}

/// Somebody edits the configuration and has it read.
fn reload(sim: &Sim, house: &House) {
    let wall = sim.time.wall();
    let rules = (0..sim.roll(4))
        .map(|_| {
            let (zone, require) = sim.pick(&RULES);
            let hours = sim.pick(&[1, 5, 30]);
            Rule { zone, require, until: (!sim.once_in(3)).then_some(wall + hours * 3_600_000) }
        })
        .collect();
    let variant = Variant { rules, concurrency: sim.pick(&[1, 2, 6]), broken: sim.once_in(8) };
    sim.note(format_args!("the configuration is read again: {variant:?}"));
    house.reload(sim, &variant);
}

/// Whether a host is one of a zone's.
fn is_host_of(zone: &Zone, host: usize) -> bool {
    zone.mx.iter().any(|(_, of)| *of == host)
}

/// What hosts do, and what they are published to have.
fn change_hosts(sim: &Sim) -> Changed {
    let now = sim.time.now();
    let host = sim.roll(sim.net().hosts.len() as u64) as usize;
    match sim.roll(11) {
        0..=6 => {
            let manner = if sim.once_in(2) { Manner::Good } else { sim.pick(&MANNERS) };
            let mut net = sim.net();
            // A bounce that the sender's own host refuses for good is nobody's any more.
            let final_no = matches!(manner, Manner::Refusing | Manner::Full | Manner::Picky)
                && is_host_of(&net.zones[HOME], host);
            if is_host_of(&net.zones[GOOD], host) || final_no {
                return Changed::Nothing;
            }
            net.hosts[host].manner = manner;
            let name = net.hosts[host].name.clone();
            drop(net);
            sim.note(format_args!("{name} becomes {manner:?}"));
            Changed::Host(host)
        }
        7 | 8 => {
            let certificate = if sim.once_in(2) { 0 } else { sim.roll(5) as usize };
            let mut net = sim.net();
            if is_host_of(&net.zones[GOOD], host) {
                return Changed::Nothing;
            }
            net.hosts[host].certificate = certificate;
            let name = net.hosts[host].name.clone();
            drop(net);
            sim.note(format_args!("{name} shows certificate {certificate}"));
            Changed::Host(host)
        }
        kind => {
            let keys = sim.pick(&[&[0][..], &[0, 1], &[1], &[]]).to_vec();
            let answers = some_answers(sim);
            let mut net = sim.net();
            let signed: Vec<usize> = (0..net.hosts.len()).filter(|host| net.hosts[*host].signed).collect();
            let host = sim.pick(&signed);
            let name = net.hosts[host].name.clone();
            let what = if kind == 9 {
                net.hosts[host].tlsa.push((now, keys.clone()));
                format!("publishes TLSA records of keys {keys:?}")
            } else {
                net.hosts[host].tlsa_answers = answers;
                format!("has its TLSA records answered {answers:?}")
            };
            drop(net);
            sim.note(format_args!("{name} {what}"));
            Changed::Host(host)
        }
    }
}

async fn change(sim: &Sim) -> Changed {
    let now = sim.time.now();
    match sim.roll(20) {
        0..=10 => return change_hosts(sim),
        11..=14 => return change_zone(sim, now),
        15 => {
            let seconds = 30 + sim.roll(900);
            sim.note(format_args!("no DNS for {seconds} s"));
            let mut ends = Vec::new();
            {
                let mut net = sim.net();
                net.dns_down = true;
                net.zones.iter_mut().for_each(|zone| zone.changed = now + seconds * 1000);
                ends.push((now, now + seconds * 1000));
            }
            sim.book().dns_troubles.extend(ends);
            spells::look(sim, Changed::All);
            sleep(Duration::from_secs(seconds)).await;
            sim.net().dns_down = false;
            return Changed::All;
        }
        16 => {
            let minutes = sim.pick(&[-70, -20, -1, 1, 10, 90]);
            sim.time.set_wall(minutes * 60_000);
            if minutes > 0 {
                let ahead = minutes.unsigned_abs() * 60_000;
                sim.net()
                    .zones
                    .iter_mut()
                    .flat_map(|zone| &mut zone.told)
                    .for_each(|told| told.jumped += ahead);
            }
            sim.book().jumps.push(now);
            if minutes < 0 {
                sim.book().set_back.push(now);
            }
            sim.note(format_args!("the clock is set by {minutes} minutes"));
            return Changed::All;
        }
        17 => {
            let room = sim.roll(200_000);
            let seconds = 60 + sim.roll(3600);
            sim.note(format_args!("the disk has room for {room} octets, for {seconds} s"));
            // Being full ends when the keeper has looked, a round later.
            sim.book().troubles.push((now, now + seconds * 1000 + 300_000));
            sim.disk.set_room(Some(room));
            sleep(Duration::from_secs(seconds)).await;
            sim.disk.set_room(None);
        }
        18 if sim.once_in(3) => {
            // Until the next start.
            sim.book().troubles.push((now, u64::MAX));
            if sim.once_in(2) {
                sim.note("the disk will fail a sync");
                sim.disk.fail_sync();
            } else {
                sim.note("the disk will fail a write");
                sim.disk.fail_write();
            }
        }
        18 => {}
        _ if sim.once_in(2) => {}
        _ => {
            let steps = sim.roll(200);
            sim.note(format_args!("the process will end {steps} disk steps from here"));
            sim.disk.stop_after(steps);
        }
    }
    Changed::Nothing
}

fn some_answers(sim: &Sim) -> Answers {
    if sim.once_in(2) {
        Answers::Fine
    } else {
        sim.pick(&[Answers::Servfail, Answers::Silent, Answers::Bogus])
    }
}

fn some_web(sim: &Sim) -> Web {
    if sim.once_in(2) {
        Web::Fine
    } else {
        sim.pick(&[Web::Refused, Web::Silent, Web::BadCertificate, Web::Nonsense, Web::Unheard])
    }
}

fn change_zone(sim: &Sim, now: u64) -> Changed {
    let mut net = sim.net();
    let at = 2 + sim.roll(TRAP as u64 - 2) as usize;
    let hosts: Vec<usize> = net.zones[at].mx.iter().map(|(_, host)| *host).collect();
    let zone = &mut net.zones[at];
    let what = match sim.roll(6) {
        0 => {
            zone.answers = some_answers(sim);
            format!("answers {:?}", zone.answers)
        }
        1 => {
            zone.txt_lost = sim.once_in(2);
            format!("TXT record lost: {}", zone.txt_lost)
        }
        2 | 3 => {
            zone.web = some_web(sim);
            if zone.web == Web::Unheard {
                zone.web = Web::Fine;
            }
            format!("policy host {:?}", zone.web)
        }
        4 => {
            zone.endpoint = some_web(sim);
            format!("report endpoint {:?}", zone.endpoint)
        }
        _ => {
            let mode = sim.pick(&["enforce", "enforce", "testing", "none"]);
            let id = zone.policy.as_ref().map_or(1, |policy| policy.id + 1);
            // Sometimes a host is forgotten.
            let mx = if sim.once_in(3) { hosts[..1].to_vec() } else { hosts };
            let max_age = sim.pick(&AGES);
            zone.policy =
                (!sim.once_in(6)).then(|| Policy { enforce: mode == "enforce", mode, mx, max_age, id });
            format!("policy {:?}", zone.policy)
        }
    };
    zone.changed = now;
    let name = zone.name.clone();
    drop(net);
    sim.note(format_args!("{name}: {what}"));
    Changed::Zone(at)
}

/// Everything is well again.
pub fn heal(sim: &Sim) {
    let now = sim.time.now();
    let mut net = sim.net();
    net.dns_down = false;
    for host in &mut net.hosts {
        (host.manner, host.certificate, host.tlsa_answers) = (Manner::Good, 0, Answers::Fine);
        let keys = if host.signed { vec![0] } else { vec![] };
        host.tlsa.push((now, keys));
    }
    for zone in &mut net.zones {
        (zone.answers, zone.txt_lost, zone.web, zone.endpoint) = (Answers::Fine, false, Web::Fine, Web::Fine);
        let mx = zone.mx.iter().map(|(_, host)| *host).collect();
        if let Some(policy) = &mut zone.policy {
            (policy.mx, policy.id) = (mx, policy.id + 1);
        }
        zone.changed = now;
    }
    drop(net);
    sim.note("the world is well again");
    spells::look(sim, Changed::All);
}
