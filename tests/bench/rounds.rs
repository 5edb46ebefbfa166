//! One round each: a program under load in a fresh world, and what came of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::load::{self, Load, Taken};
use crate::place::{self, HOSTS};
use crate::support::daemon::Daemon;
use crate::table::Row;
use crate::usage::{self, Memory};
use crate::world::World;

/// The host that stalls, in the round of that name.
const STALLING: u8 = 7;
/// What the last message's bookkeeping may still cost after it arrived.
const SETTLING: Duration = Duration::from_millis(200);
/// Longest time for a peer to end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How large a round is, and where the world listens.
#[derive(Clone, Copy)]
pub struct Scale {
    pub messages: u64,
    /// Sent before anything is counted: policies fetched, connections open.
    pub warm: u64,
    pub clients: usize,
    pub size: usize,
    pub standard_ports: bool,
}

impl Scale {
    fn load(&self, to: SocketAddr, first: u64, messages: u64) -> Load {
        Load { to, first, messages, clients: self.clients, size: self.size }
    }

    async fn world(&self) -> World {
        World::new(self.warm + self.messages, self.standard_ports).await
    }
}

/// A program that takes mail.
struct Taker {
    to: SocketAddr,
    roots: Vec<u32>,
    memory: Memory,
}

async fn submit(name: &str, load: &Load) -> Taken {
    load::submit(load).await.unwrap_or_else(|error| panic!("{name} does not take the load: {error}"))
}

/// Warms up, then measures from the first submission to the last arrival.
async fn relaying(name: &str, scale: &Scale, world: &World, taker: &Taker) -> Row {
    submit(name, &scale.load(taker.to, 0, scale.warm)).await;
    world.arrive(scale.warm).await;
    let (cpu, asked) = (usage::cpu(&taker.roots), world.asked());
    let begun = Instant::now();
    let taken = submit(name, &scale.load(taker.to, scale.warm, scale.messages)).await;
    let total = scale.warm + scale.messages;
    let elapsed = world.arrive(total).await - begun;
    tokio::time::sleep(SETTLING).await;
    let (lost, doubled) = world.arrived.lost_and_doubled(total);
    let mut row = row(name, scale, taker, &taken, cpu);
    row.rate = (scale.messages - lost.min(scale.messages)) as f64 / elapsed.as_secs_f64();
    let per_thousand = |now: u64, before: u64| (now - before) as f64 * 1000.0 / scale.messages as f64;
    let now = world.asked();
    row.handshakes = Some(per_thousand(now.handshakes, asked.handshakes));
    row.questions = Some(per_thousand(now.questions, asked.questions));
    row.lost = lost;
    row.doubled = doubled;
    row
}

/// What every round tells; the rate is that of taking.
fn row(name: &str, scale: &Scale, taker: &Taker, taken: &Taken, cpu: f64) -> Row {
    Row {
        name: name.to_owned(),
        rate: taken.rate(),
        latencies: [0.5, 0.99, 0.999].map(|share| taken.quantile(share).as_secs_f64() * 1000.0),
        cpu: (usage::cpu(&taker.roots) - cpu) * 1000.0 / scale.messages as f64,
        peak_mb: taker.memory.peak_mb(),
        ..Row::default()
    }
}

/// The floor: accepting only, and pushing too.
pub async fn floor(scale: &Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, pushes) in [("floor-accept", false), ("floor", true)] {
        let mut world = scale.world().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = dir.path().join("roots.pem");
        std::fs::write(&roots, world.pki.root_pem()).expect("writable");
        world.up().await;
        let port = if pushes { world.smtp_port } else { 0 };
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .arg("--floor")
            .args([&dir.path().join("journal"), &roots])
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the floor starts");
        let said = first_line(&mut child).await;
        let taker = taker(&said, vec![child.id().expect("running")], false);
        rows.push(if pushes {
            relaying(name, scale, &world, &taker).await
        } else {
            accepting(name, scale, &taker).await
        });
        child.kill().await.expect("our own child");
    }
    rows
}

async fn accepting(name: &str, scale: &Scale, taker: &Taker) -> Row {
    submit(name, &scale.load(taker.to, 0, scale.warm)).await;
    let cpu = usage::cpu(&taker.roots);
    let taken = submit(name, &scale.load(taker.to, scale.warm, scale.messages)).await;
    row(name, scale, taker, &taken, cpu)
}

/// `PORT PID...` as said on standard output when ready.
async fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).await.expect("it says its port");
    line
}

fn taker(said: &str, own: Vec<u32>, many: bool) -> Taker {
    let mut numbers = said.split_whitespace().map(|word| word.parse::<u32>().expect("numbers"));
    let port = numbers.next().and_then(|port| u16::try_from(port).ok()).expect("a port");
    let roots: Vec<u32> = own.into_iter().chain(numbers).collect();
    let memory = Memory::watch(&roots, many);
    Taker { to: (Ipv4Addr::LOCALHOST, port).into(), roots, memory }
}

async fn daemon(world: &World) -> (Daemon, Taker, f64) {
    let mut daemon = Daemon::configure(&world.pki, &world.dns, &world.web, world.smtp_port, &extra());
    daemon.start().await;
    let roots = vec![daemon.pid()];
    let idle_mb = usage::resident_mb(daemon.pid());
    let memory = Memory::watch(&roots, false);
    let taker = Taker { to: daemon.smarthost, roots, memory };
    (daemon, taker, idle_mb)
}

/// `LOG` in the environment is the daemon's log level.
fn extra() -> String {
    let level = std::env::var("LOG").unwrap_or_else(|_| "info".to_owned());
    format!("[log]\nlevel = \"{level}\"\n")
}

/// The daemon with every host up.
pub async fn relay(scale: &Scale) -> Vec<Row> {
    let mut world = scale.world().await;
    world.up().await;
    let (_daemon, taker, idle_mb) = daemon(&world).await;
    let mut row = relaying("relay", scale, &world, &taker).await;
    row.idle_mb = Some(idle_mb);
    vec![row]
}

/// The daemon with every host down, then up: accepting, and draining from the operator's
/// `queue retry --all` to the last arrival.
pub async fn outage(scale: &Scale) -> Vec<Row> {
    let mut world = scale.world().await;
    let (daemon, taker, _) = daemon(&world).await;
    let accept = accepting("accept", scale, &taker).await;
    tokio::time::sleep(SETTLING).await;
    world.up().await;
    let cpu = usage::cpu(&taker.roots);
    let begun = Instant::now();
    daemon.ask(&["queue", "retry", "--all"]).await;
    let total = scale.warm + scale.messages;
    let elapsed = world.arrive(total).await - begun;
    let (lost, doubled) = world.arrived.lost_and_doubled(total);
    let drain = Row {
        name: "drain".to_owned(),
        rate: (total - lost) as f64 / elapsed.as_secs_f64(),
        cpu: (usage::cpu(&taker.roots) - cpu) * 1000.0 / total as f64,
        peak_mb: taker.memory.peak_mb(),
        lost,
        doubled,
        ..Row::default()
    };
    vec![accept, drain]
}

/// The daemon while one host of fifty says nothing: the rate of the others. At the end it answers
/// again, and its mail must arrive too.
pub async fn stall(scale: &Scale) -> Vec<Row> {
    let mut world = scale.world().await;
    world.up().await;
    let (_daemon, taker, _) = daemon(&world).await;
    submit("stall", &scale.load(taker.to, 0, scale.warm)).await;
    world.arrive(scale.warm).await;
    let stalling = &world.hosts[usize::from(STALLING)];
    stalling.stall(true);
    let cpu = usage::cpu(&taker.roots);
    let begun = Instant::now();
    let taken = submit("stall", &scale.load(taker.to, scale.warm, scale.messages)).await;
    let total = scale.warm + scale.messages;
    let held = (scale.warm..total).filter(|number| place::host(number % place::DOMAINS) == STALLING).count();
    let elapsed = world.arrive(total - held as u64).await - begun;
    let mut row = row("stall", scale, &taker, &taken, cpu);
    // As if the others had had the whole load, to be held against the relay round.
    row.rate = scale.messages as f64 / elapsed.as_secs_f64() * f64::from(HOSTS - 1) / f64::from(HOSTS);
    stalling.stall(false);
    world.arrive(total).await;
    (row.lost, row.doubled) = world.arrived.lost_and_doubled(total);
    vec![row]
}

/// Another mail server, started and ended by a program: it gets a directory with `roots.pem` in it, says
/// `PORT PID...` when ready, and ends at SIGTERM.
pub async fn peer(scale: &Scale, program: &Path, name: &str) -> Vec<Row> {
    let mut world = scale.world().await;
    world.up().await;
    let dir = TempDir::new().expect("a temporary directory");
    std::fs::write(dir.path().join("roots.pem"), world.pki.root_pem()).expect("writable");
    let mut child = Command::new(program)
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer starts");
    let said = first_line(&mut child).await;
    let taker = taker(&said, Vec::new(), true);
    let row = relaying(name, scale, &world, &taker).await;
    let pid = child.id().expect("running").to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(told.is_ok_and(|status| status.success()), "the peer's program ended by itself");
    let ended = tokio::time::timeout(END_WITHIN, child.wait()).await;
    ended.expect("the peer ends in time").expect("our own child");
    vec![row]
}
