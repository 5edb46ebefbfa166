//! What goes wrong in the simulated Internet and on the disk, and when it is well again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::internet::{Answers, GOOD, HOME, Manner, Policy, Web, Zone};
use crate::sim::Sim;

const MANNERS: [Manner; 16] = [
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

/// Changes the world now and then, until dropped.
pub async fn trouble_for_ever(sim: Arc<Sim>, busy: bool) {
    let longest = if busy { 2400 } else { 12_000 };
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
        }
        change(&sim).await;
    }
}

/// Whether a host is one of a zone's.
fn is_host_of(zone: &Zone, host: usize) -> bool {
    zone.mx.iter().any(|(_, of)| *of == host)
}

async fn change(sim: &Sim) {
    let now = sim.time.now();
    match sim.roll(20) {
        0..=6 => {
            let manner = if sim.once_in(2) { Manner::Good } else { sim.pick(&MANNERS) };
            let mut net = sim.net();
            let host = sim.roll(net.hosts.len() as u64) as usize;
            // A bounce that the sender's own host refuses for good is nobody's any more.
            let final_no =
                matches!(manner, Manner::Refusing | Manner::Full) && is_host_of(&net.zones[HOME], host);
            if !is_host_of(&net.zones[GOOD], host) && !final_no {
                net.hosts[host].manner = manner;
                let name = net.hosts[host].name.clone();
                drop(net);
                sim.note(format_args!("{name} becomes {manner:?}"));
            }
        }
        7 | 8 => {
            let certificate = if sim.once_in(2) { 0 } else { sim.roll(5) as usize };
            let mut net = sim.net();
            let host = sim.roll(net.hosts.len() as u64) as usize;
            if !is_host_of(&net.zones[GOOD], host) {
                net.hosts[host].certificate = certificate;
                let name = net.hosts[host].name.clone();
                drop(net);
                sim.note(format_args!("{name} shows certificate {certificate}"));
            }
        }
        9 => {
            let keys = sim.pick(&[&[0][..], &[0, 1], &[1], &[]]).to_vec();
            let mut net = sim.net();
            let signed: Vec<usize> = (0..net.hosts.len()).filter(|host| net.hosts[*host].signed).collect();
            let host = sim.pick(&signed);
            net.hosts[host].tlsa.push((now, keys.clone()));
            let name = net.hosts[host].name.clone();
            drop(net);
            sim.note(format_args!("{name} publishes TLSA records of keys {keys:?}"));
        }
        10 => {
            let answers = some_answers(sim);
            let mut net = sim.net();
            let signed: Vec<usize> = (0..net.hosts.len()).filter(|host| net.hosts[*host].signed).collect();
            let host = sim.pick(&signed);
            net.hosts[host].tlsa_answers = answers;
            let name = net.hosts[host].name.clone();
            drop(net);
            sim.note(format_args!("the TLSA records of {name}: {answers:?}"));
        }
        11..=14 => change_zone(sim, now),
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
            sleep(Duration::from_secs(seconds)).await;
            sim.net().dns_down = false;
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
            sim.note(format_args!("the clock is set by {minutes} minutes"));
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

fn change_zone(sim: &Sim, now: u64) {
    let mut net = sim.net();
    let at = 2 + sim.roll(net.zones.len() as u64 - 2) as usize;
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
}
