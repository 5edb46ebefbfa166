//! What a long queue costs: `cargo bench --bench queue`.
//!
//! Two queues side by side, one of a thousand and one of a million small messages to 1000
//! destinations, each made and opened by processes of its own so that memory is theirs alone:
//!
//! - *fill*: durable enqueues per second and the memory they leave;
//! - *open*: until the first message is claimed and its content read, after an orderly close, after
//!   a kill, and without the index;
//! - *settle*: claims settled per second, `tries` anew and `ends` delivered;
//! - *list*: pages of 200, the first and all;
//! - *grow*: durable enqueues, and claims settled as delivered, per second while the queue keeps its
//!   length; several runs, taken in turn with those of the other queue, their medians.
//!
//! `SMALL`, `LARGE` and `SIZE` in the environment change the load. Never judges; figures beside each
//! other and their ratio.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};

use stsrelay::mail::{
    BodyType, EnhancedStatus, Envelope, ForwardPath, Recipient, Reply, ReversePath, TlsRequest,
};
use stsrelay::net::{Clock as _, SystemClock};
use stsrelay::queue::{AttemptRecord, RecipientState, RecipientStatus, Settled, Settlement};
use stsrelay::store::{Body, Claim, Filter, NewMessage, Queue, QueueOptions};

const DESTINATIONS: u64 = 1000;
/// Callers at a time; groups of commits form of them.
const CALLERS: usize = 200;
const CLAIMS: usize = 200;
const LEASE: Duration = Duration::from_secs(600);
/// Claims settled per measurement at most.
const SETTLED: u64 = 20_000;
/// Messages enqueued, and then as many settled, before the next: the queue keeps its length.
const ROUND: u64 = 500;
/// Rounds of a run.
const ROUNDS: u64 = 40;
/// Runs: the medians of an odd number are figures that were seen.
const RUNS: usize = 5;

type Figures = BTreeMap<String, f64>;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [_, step, dir, count] = arguments.as_slice()
        && arguments[0] == "--step"
    {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let count = count.parse().expect("a count");
        let figures = runtime.block_on(run(step, Path::new(dir), count));
        for (name, figure) in figures {
            println!("{name} {figure}");
        }
        // As a kill would: nothing is closed or dropped.
        std::process::exit(0);
    }
    // `cargo test` runs benches once to see that they work: a small load then.
    let quick = !arguments.iter().any(|argument| argument == "--bench");
    let small = setting("SMALL", if quick { 50 } else { 1000 });
    let large = setting("LARGE", if quick { 500 } else { 1_000_000 });
    println!("{} octets a message, {DESTINATIONS} destinations, {CALLERS} callers\n", size());
    println!("{:<28} {:>12} {:>12} {:>8}", "", format!("{small} items"), format!("{large} items"), "ratio");
    let homes = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let (mut few, mut many) = (measure(homes[0].path(), small), measure(homes[1].path(), large));
    let mut runs: [BTreeMap<String, Vec<f64>>; 2] = Default::default();
    for _ in 0..if quick { 1 } else { RUNS } {
        for ((home, count), runs) in homes.iter().zip([small, large]).zip(&mut runs) {
            for (name, figure) in step("6 grow", home.path(), count) {
                runs.entry(name).or_default().push(figure);
            }
        }
    }
    for (figures, runs) in [&mut few, &mut many].into_iter().zip(runs) {
        for (name, mut seen) in runs {
            seen.sort_by(f64::total_cmp);
            figures.insert(name, seen[seen.len() / 2]);
        }
    }
    for (name, large) in &many {
        let small = few.get(name).copied().unwrap_or_default();
        println!("{name:<28} {small:>12.1} {large:>12.1} {:>8.2}", large / small);
    }
}

fn size() -> usize {
    setting("SIZE", 1000) as usize
}

fn measure(dir: &Path, count: u64) -> Figures {
    let mut figures = Figures::new();
    for name in ["1 fill", "2 open clean", "3 open killed", "4 open no index", "5 work"] {
        if name == "4 open no index" {
            for part in ["index", "snapshot"] {
                let path = dir.join("queue").join(part);
                let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            }
        }
        figures.extend(step(name, dir, count));
    }
    figures
}

/// One step in a process of its own.
fn step(name: &str, dir: &Path, count: u64) -> Figures {
    let output = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--step", name])
        .arg(dir)
        .arg(count.to_string())
        .stderr(Stdio::inherit())
        .output()
        .expect("a step runs");
    assert!(output.status.success(), "{name}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = |line: &str| {
        let (what, figure) = line.rsplit_once(' ').expect("a name and a figure");
        (format!("{name}: {what}"), figure.parse().expect("a figure"))
    };
    text.lines().map(figure).collect()
}

async fn run(step: &str, dir: &Path, count: u64) -> Figures {
    let mut figures = Figures::new();
    let started = Instant::now();
    let options = QueueOptions { data_dir: dir.to_owned(), node: 1 };
    let opened = tokio::task::spawn_blocking(move || Queue::open(&options, SystemClock.now()));
    let (queue, repaired) = opened.await.expect("no panic").expect("the queue opens");
    for line in repaired {
        eprintln!("  {line}");
    }
    match step {
        "1 fill" => {
            let started = Instant::now();
            fill(&queue, count).await;
            figures.insert("messages/s".into(), count as f64 / started.elapsed().as_secs_f64());
            memory(&mut figures);
            let started = Instant::now();
            queue.close().await;
            figures.insert("close ms".into(), millis(started));
        }
        "5 work" => work(&queue, count, &mut figures).await,
        "6 grow" => {
            grow(&queue, count, &mut figures).await;
            queue.close().await;
        }
        _ => {
            figures.insert("opened ms".into(), millis(started));
            let mut claims = queue.claim_due(SystemClock.now(), 1, LEASE).await.expect("claims");
            let claim = claims.pop().expect("something is due");
            queue.body(claim.item.id.queue_id).await.expect("a body");
            figures.insert("first message ms".into(), millis(started));
            memory(&mut figures);
            // So that the next open finds something to read again.
            fill(&queue, (count / 100).max(1)).await;
            if step == "3 open killed" {
                queue.close().await;
            }
        }
    }
    figures
}

async fn fill(queue: &Queue, count: u64) {
    let body = bytes::Bytes::from(vec![b'x'; size()]);
    stream::iter(0..count)
        .for_each_concurrent(CALLERS, |number| {
            let message = NewMessage {
                id: queue.allocate_id(),
                envelope: envelope(number),
                body: Body::Memory(body.clone()),
                received_at: SystemClock.now(),
                is_report: false,
                expires_at: None,
            };
            async { assert!(queue.enqueue(message).await.is_ok(), "queued") }
        })
        .await;
}

fn envelope(number: u64) -> Envelope {
    let to = format!("someone@d{}.example.net", number % DESTINATIONS);
    Envelope {
        reverse_path: ReversePath::parse("<sender@example.org>").expect("a path"),
        recipients: vec![Recipient::plain(ForwardPath::parse(&to).expect("a path"))],
        body: BodyType::EightBitMime,
        smtputf8: false,
        ret: None,
        envid: None,
        tls: TlsRequest::None,
    }
}

async fn work(queue: &Queue, count: u64, figures: &mut Figures) {
    let rounds = SETTLED.min(count / 2);
    // Few messages are tried again and again, so that both sizes do the same number of settles.
    let again = SystemClock.now() + SignedDuration::from_hours(if count > SETTLED { 1 } else { 0 });
    let started = Instant::now();
    let settled = settle(queue, SETTLED, Some(again)).await;
    figures.insert("tries/s".into(), settled as f64 / started.elapsed().as_secs_f64());
    let started = Instant::now();
    let settled = settle(queue, rounds, None).await;
    figures.insert("ends/s".into(), settled as f64 / started.elapsed().as_secs_f64());
    let started = Instant::now();
    let (mut cursor, mut entries) = (None, 0);
    loop {
        let page = queue.list(&Filter::default(), cursor, 200).await.expect("a page");
        if cursor.is_none() {
            figures.insert("first page ms".into(), millis(started));
        }
        entries += page.entries.len();
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    figures.insert("listed/s".into(), entries as f64 / started.elapsed().as_secs_f64());
    memory(figures);
}

async fn grow(queue: &Queue, count: u64, figures: &mut Figures) {
    // As many as it is to hold, whatever the steps before have left.
    let stats = queue.stats();
    let held = stats.active + stats.deferred + stats.held;
    fill(queue, count.saturating_sub(held)).await;
    settle(queue, held.saturating_sub(count), None).await;
    let (mut enqueuing, mut settling) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        fill(queue, ROUND).await;
        enqueuing += started.elapsed();
        let started = Instant::now();
        settle(queue, ROUND, None).await;
        settling += started.elapsed();
    }
    let messages = (ROUNDS * ROUND) as f64;
    figures.insert("enqueued/s".into(), messages / enqueuing.as_secs_f64());
    figures.insert("delivered/s".into(), messages / settling.as_secs_f64());
    figures.insert("both/s".into(), messages / (enqueuing + settling).as_secs_f64());
    memory(figures);
}

async fn settle(queue: &Queue, count: u64, again: Option<Timestamp>) -> u64 {
    let mut done = 0;
    while done < count {
        let max = CLAIMS.min((count - done) as usize);
        let claims = queue.claim_due(SystemClock.now(), max, LEASE).await.expect("claims");
        if claims.is_empty() {
            break;
        }
        done += claims.len() as u64;
        stream::iter(claims)
            .for_each_concurrent(CALLERS, |claim| async move {
                let settlement = settlement(&claim, again);
                queue.settle(claim, &settlement, attempt(), vec![]).await.expect("settled");
            })
            .await;
    }
    done
}

fn settlement(claim: &Claim, again: Option<Timestamp>) -> Settlement {
    let state = || match again {
        Some(_) => RecipientState::Pending(None),
        None => RecipientState::Delivered(Reply::new(250, EnhancedStatus::new(2, 0, 0), "queued")),
    };
    let indexes: Vec<usize> = claim.item.recipients.iter().map(|status| status.index).collect();
    Settlement {
        recipients: indexes.iter().map(|&index| RecipientStatus { index, state: state() }).collect(),
        newly_delivered: if again.is_none() { indexes } else { Vec::new() },
        newly_failed: Vec::new(),
        settled: again.map_or(Settled::Done, Settled::Again),
        warn_delay: false,
    }
}

fn attempt() -> AttemptRecord {
    AttemptRecord {
        at: SystemClock.now(),
        host: Some("mx.example.net".to_owned()),
        address: None,
        tls: Some("TLSv1.3".to_owned()),
        verified: Some("mta-sts".to_owned()),
        rule: "mta-sts enforce".to_owned(),
        result: "250 2.0.0 queued".to_owned(),
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// What this process has in memory, now and at most, in MB.
fn memory(figures: &mut Figures) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, key) in [("memory MB", "VmRSS:"), ("memory peak MB", "VmHWM:")] {
        let kb =
            status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
        figures.insert(name.into(), kb.unwrap_or(0.0) / 1024.0);
    }
}
