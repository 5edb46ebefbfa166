//! kill -9 at random instants, round after round: every acknowledged message arrives, and comes twice
//! only when it was on its way at a kill.
//!
//! `SURVIVE_ROUNDS=500 cargo test --test e2e_survive -- --nocapture` for a long run;
//! `SURVIVE_SEED=n` to see the same instants again.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpStream;

use support::client::{Rough, message};
use support::eventually;
use support::world::World;

/// Without `SURVIVE_ROUNDS`.
const ROUNDS: usize = 8;
/// Connections that submit at the same time.
const SUBMITTERS: usize = 5;
/// Attempts at the same time: what may be on its way at a kill.
const CONCURRENCY: usize = 10;
/// The longest a round is under load.
const LOAD_MAX: Duration = Duration::from_millis(500);
/// The longest a start is let alone when it is to be killed itself.
const START_MAX: Duration = Duration::from_millis(150);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Small segments, so that compaction runs all the time; few attempts, so that duplicates can be told.
fn settings() -> String {
    format!(
        "[server]\njournal_segment = \"64KiB\"\n[delivery]\nretry = [\"1s\"]\nconcurrency = {CONCURRENCY}\n\
         concurrency_per_destination = {}\n",
        CONCURRENCY / 2
    )
}

/// Submits until the daemon is gone; gives the numbers it acknowledged. Every fourth message goes to
/// two domains, every eighth has a recipient that is put off, a few are large enough for a file.
async fn submit_until_death(smarthost: SocketAddr, next: &AtomicU64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let Ok(stream) = TcpStream::connect(smarthost).await else { return acknowledged };
    let mut client = Rough::new(stream);
    if client.read_reply().await.is_none() || client.say("EHLO client.world.test").await.is_none() {
        return acknowledged;
    }
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let to = recipients(number);
        let size = if number % 97 == 5 { 60_000 } else { (number % 40) as usize };
        let content = message(&format!("number {number}")) + &"0123456789abcdef\r\n".repeat(size);
        match submit(&mut client, &to, &content).await {
            Some(reply) if reply.starts_with("250") => acknowledged.push(number),
            _ => return acknowledged,
        }
    }
}

async fn submit(client: &mut Rough, to: &[&str], content: &str) -> Option<String> {
    client.say("MAIL FROM:<a@home.test>").await?;
    for to in to {
        client.say(&format!("RCPT TO:<{to}>")).await?;
    }
    client.say("DATA").await?;
    client.say(&format!("{content}.")).await
}

fn recipients(number: u64) -> Vec<&'static str> {
    match number {
        _ if number % 8 == 3 => vec!["wait@one.test"],
        _ if number.is_multiple_of(4) => vec!["b@one.test", "c@two.test"],
        _ if number.is_multiple_of(2) => vec!["b@one.test"],
        _ => vec!["c@two.test"],
    }
}

/// Where a message came, by number and host: the positions in the host's log.
type Came = BTreeMap<(u64, usize), Vec<usize>>;

fn came(world: &World) -> Came {
    let mut came = Came::new();
    for (host, mx) in world.farm.hosts.iter().enumerate() {
        for (position, arrival) in mx.log().arrivals.iter().enumerate().filter(|(_, one)| one.accepted) {
            let text = String::from_utf8_lossy(&arrival.content[..arrival.content.len().min(2000)]);
            let number = text.lines().find_map(|line| line.strip_prefix("Subject: number ")?.parse().ok());
            came.entry((number.expect("ours"), host)).or_default().push(position);
        }
    }
    came
}

/// How many messages each host has; what a dead daemon had sent is still read for a moment.
async fn arrived(world: &World) -> [usize; 2] {
    let count = || [0, 1].map(|host: usize| world.farm.hosts[host].arrived());
    eventually("the hosts to have read everything", || async move {
        let before = count();
        tokio::time::sleep(Duration::from_millis(20)).await;
        (before == count()).then_some(before)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_lose_nothing_and_only_what_was_on_its_way_comes_twice() {
    let rounds = setting("SURVIVE_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let seed = setting("SURVIVE_SEED").unwrap_or_else(rand::random);
    println!("seed {seed}, {rounds} rounds");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::prepare(2, &[], &settings()).await;
    world.good_domain("one.test", 0);
    world.good_domain("two.test", 1);
    world.farm.hosts[0].adjust(|mx| mx.replies.push(("RCPT TO:<wait@".into(), "450 4.2.0 later".into())));
    let next = std::sync::Arc::new(AtomicU64::new(0));
    let mut acknowledged = Vec::new();
    // At each kill, how many messages each host had.
    let mut kills: Vec<[usize; 2]> = Vec::new();
    let mut at_start = 0;
    for round in 0..rounds {
        let start_only = rng.random_range(0..4) == 0;
        if start_only {
            at_start += 1;
            world.daemon.spawn();
            tokio::time::sleep(rng.random_range(Duration::ZERO..START_MAX)).await;
            world.daemon.kill();
        } else {
            world.daemon.start().await;
            let submitters: Vec<_> = (0..SUBMITTERS)
                .map(|_| {
                    let (smarthost, next) = (world.daemon.smarthost, next.clone());
                    tokio::spawn(async move { submit_until_death(smarthost, &next).await })
                })
                .collect();
            tokio::time::sleep(rng.random_range(Duration::ZERO..LOAD_MAX)).await;
            world.daemon.kill();
            for submitter in submitters {
                acknowledged.extend(submitter.await.expect("no panic"));
            }
        }
        kills.push(arrived(&world).await);
        if round % 50 == 49 {
            println!("{} rounds, {} acknowledged", round + 1, acknowledged.len());
        }
    }
    world.farm.hosts[0].adjust(|mx| mx.replies.clear());
    world.daemon.start().await;
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    eventually("the queue to be empty", || async {
        let totals = world.daemon.json(&["queue", "stats"]).await.remove(0);
        let left: u64 = ["active", "deferred", "held"].iter().filter_map(|key| totals[*key].as_u64()).sum();
        (left == 0).then_some(())
    })
    .await;
    let log = world.daemon.log();
    for word in ["are damaged", "is missing", "are missing", "cannot be read", "panicked"] {
        assert!(
            !log.contains(word),
            "seed {seed}: ending a process damages nothing, yet the log says {word:?}"
        );
    }

    let came = came(&world);
    let wanted = |number: u64| {
        let hosts = recipients(number).into_iter().map(|to| usize::from(to.ends_with("@two.test")));
        hosts.map(move |host| (number, host)).collect::<Vec<_>>()
    };
    let lost: Vec<_> = acknowledged
        .iter()
        .flat_map(|number| wanted(*number))
        .filter(|one| !came.contains_key(one))
        .collect();
    assert!(lost.is_empty(), "seed {seed}: {} of {} lost: {lost:?}", lost.len(), acknowledged.len());

    // Invariant I9: between two arrivals of one message lies a kill during which it was on its way.
    let (mut twice, mut per_kill, mut furthest) = (0, vec![0; kills.len()], 0);
    for ((number, host), positions) in &came {
        for pair in positions.windows(2) {
            let kill =
                kills.iter().position(|at| pair[0] < at[*host]).filter(|kill| kills[*kill][*host] <= pair[1]);
            let kill = kill
                .unwrap_or_else(|| panic!("seed {seed}: message {number} came twice without a kill between"));
            twice += 1;
            per_kill[kill] += 1;
            // How many messages the host took after it until the kill.
            furthest = furthest.max(kills[kill][*host] - pair[0]);
        }
    }
    let most = per_kill.iter().copied().max().unwrap_or(0);
    let arrived: usize = came.values().map(Vec::len).sum();
    println!(
        "seed {seed}: {rounds} kills ({at_start} while starting), {} acknowledged, {} begun, {arrived} arrived, \
         0 lost, {twice} twice (at most {most} at one kill; the earliest {furthest} messages before it)",
        acknowledged.len(),
        next.load(Ordering::Relaxed),
    );
    assert!(
        most <= CONCURRENCY,
        "seed {seed}: {most} duplicates at one kill, with {CONCURRENCY} attempts at a time"
    );
    assert!(acknowledged.len() >= rounds, "seed {seed}: there was load");
}
