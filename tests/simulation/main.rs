//! The whole relay in a simulated Internet, from one seed.
//!
//! The real stories (submission, delivery, reporting) and the real store run on one thread in
//! simulated time: DNS, HTTPS, MX hosts with real TLS, the disk, the clock and chance are simulated, so
//! a run of days takes a second and a seed tells all of it. While hosts, name servers, policies, the
//! disk and the process fail, every one outside keeps a book, and what must hold is checked at each
//! event and at the end, when the world is well again and the queue has emptied.
//!
//! ```text
//! cargo test --test simulation                           some fresh seeds
//! SIM_SEED=42 cargo test --test simulation               this one; SIM_TRACE=1 prints every event
//! SIM_SEEDS=50 SIM_DAYS=20 cargo test --release --test simulation many, long; an optimised build is
//!                                                        several times as fast
//! ```
//!
//! Every fourth seed has a queue index, which crashes harm; its files are sled's own and real.
//! Not simulated: sockets and AUTH, the admin socket.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot be set up fails")]

mod bounds;
mod disk;
mod doors;
mod held;
mod house;
mod internet;
mod life;
mod mx;
#[path = "../support/pki.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod pki;
mod prompt;
mod scenario;
mod senders;
mod sim;
mod spells;
mod tally;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use disk::SimDisk;
use house::{House, Variant};
use life::{Ended, Plan, live};
use sim::{Counts, Net, Sim};

/// Days of troubles in each simulation, unless `SIM_DAYS` says otherwise.
const DAYS: u64 = 5;
/// Seconds of the longest life.
const LIFE_MAX: u64 = 4 * 86_400;
/// One seed of so many has a queue index: sled waits for the real disk.
const INDEXED: u64 = 4;
/// One life of so many is busy.
const BUSY: u64 = 8;
/// Fresh seeds are begun for this long, unless `SIM_SEEDS` says how many.
const FRESH_FOR: Duration = Duration::from_secs(12);
/// After the troubles: the longest time until the queue is empty.
const HEALING: Duration = Duration::from_secs(8 * 86_400);

/// What a simulation came to.
struct Outcome {
    trace: u64,
    events: u64,
    counts: Counts,
    /// Simulated time.
    time: Duration,
    violations: Vec<String>,
    last_events: String,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn simulate(seed: u64, days: u64) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let net = Net {
        hosts: internet::hosts(),
        zones: internet::zones(),
        dns_down: false,
        rules: vec![(0, Vec::new())],
    };
    let sim = Arc::new(Sim::new(SimDisk::new(&dir.path().join("data")), seed, net));
    let house = Arc::new(House::new(&sim, dir.path(), &internet::root_pem()));
    let index = seed.is_multiple_of(INDEXED);
    let troubled = days * 86_400_000;
    let mut boot = 0;
    let mut life = 0;
    let mut plan = |sim: &Sim, length, troubled, boot| {
        life += 1;
        Plan {
            length,
            clean: sim.once_in(3),
            troubled,
            busy: sim.once_in(BUSY),
            seed: seed ^ (life << 32),
            boot,
            index,
        }
    };
    while sim.time.now() < troubled && !sim.is_over() {
        let length = sim.seconds(1800, LIFE_MAX).min(Duration::from_millis(troubled - sim.time.now()));
        let plan = plan(&sim, length.max(Duration::from_secs(600)), true, boot);
        sim.note(format_args!("a life of {} s begins", plan.length.as_secs()));
        let ended = live(&sim, &house, &plan);
        after_life(&sim, &house, ended, &mut boot);
    }
    // Its last life may have ended in the middle of a fault.
    scenario::heal(&sim);
    house.write(&sim, &Variant::plain());
    sim.holds(&[]);
    let mut left = 0;
    for _ in 0..if sim.is_over() { 0 } else { 3 } {
        let plan = plan(&sim, HEALING, false, boot);
        match live(&sim, &house, &plan) {
            Ended::Empty(items) => {
                left = items;
                break;
            }
            ended => sim.violation(format_args!("in a world that is well, the relay {ended:?}")),
        }
    }
    if !sim.is_over() {
        verdict::final_judgement(&sim, left);
    }
    let book = sim.book();
    Outcome {
        trace: book.trace,
        events: book.events,
        counts: book.counts,
        time: Duration::from_millis(sim.time.now()),
        violations: book.violations.clone(),
        last_events: book.last_events(),
    }
}

/// Writes down how a life ended, and lets time pass until the next.
fn after_life(sim: &Sim, house: &House, ended: Ended, boot: &mut u64) {
    let now = sim.time.now();
    sim.note(format_args!("the relay has ended: {ended:?}"));
    let mut power_cut = false;
    match ended {
        Ended::Closed | Ended::Empty(_) => sim.book().counts.restarts += 1,
        Ended::NotStarted => sim.book().counts.failed_starts += 1,
        Ended::Crashed => {
            power_cut = sim.once_in(3);
            let mut book = sim.book();
            book.counts.crashes += 1;
            book.counts.power_cuts += u64::from(power_cut);
            drop(book);
            verdict::forget_untold(sim);
        }
    }
    if power_cut {
        let torn = if sim.once_in(2) { sim.roll(3000) as usize } else { 0 };
        sim.note(format_args!("the power was cut, torn by {torn}"));
        sim.disk.power_cut(torn);
        *boot += 1;
    } else if ended == Ended::Crashed {
        house.harm_index(sim);
    }
    let down = if sim.once_in(4) { sim.seconds(60, 7200) } else { sim.seconds(1, 60) };
    sim.time.pass(down);
    let mut book = sim.book();
    for (_, end) in &mut book.troubles {
        // What was wrong with the disk ended with the process.
        *end = (*end).min(now + 600_000);
    }
    book.troubles.push((now, now + down.as_millis() as u64));
    book.crashes.push(now);
}

fn check(seed: u64, days: u64, outcome: &Outcome) {
    if outcome.violations.is_empty() {
        return;
    }
    panic!(
        "seed {seed} after {:.1} simulated days:\n{}\n\nlast events:\n{}\nrun it again: SIM_SEED={seed} SIM_DAYS={days} cargo test --test simulation",
        outcome.time.as_secs_f64() / 86_400.0,
        outcome.violations.join("\n"),
        outcome.last_events,
    );
}

#[test]
fn whatever_fails_nothing_is_lost_and_no_policy_is_broken() {
    let days = number("SIM_DAYS").unwrap_or(DAYS);
    let fresh = || rand::random::<u64>() % 1_000_000_000;
    let (count, first) = (number("SIM_SEEDS"), number("SIM_SEED"));
    let began = Instant::now();
    let (mut seeds, mut time, mut total, mut events) = (0, Duration::ZERO, Counts::default(), 0);
    loop {
        let done = match (count, first) {
            (Some(count), _) => seeds >= count,
            (None, Some(_)) => seeds >= 1,
            (None, None) => seeds >= 1 && began.elapsed() >= FRESH_FOR,
        };
        if done {
            break;
        }
        let seed = first.map_or_else(fresh, |first| first + seeds);
        let outcome = simulate(seed, days);
        check(seed, days, &outcome);
        seeds += 1;
        time += outcome.time;
        total += outcome.counts;
        events += outcome.events;
    }
    eprintln!(
        "{seeds} seeds, {:.1} simulated days in {:.1} s, {events} events\n{total:#?}",
        time.as_secs_f64() / 86_400.0,
        began.elapsed().as_secs_f64()
    );
    assert!(total.acknowledged > 0 && total.deliveries > 0, "nothing happened");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let seed = number("SIM_SEED").unwrap_or_else(|| rand::random::<u64>() % 250_000_000 * INDEXED + 1);
    let (first, second) = (simulate(seed, 1), simulate(seed, 1));
    check(seed, 1, &first);
    assert_eq!((first.events, first.counts), (second.events, second.counts), "seed {seed}");
    assert_eq!(first.trace, second.trace, "seed {seed}");
}
