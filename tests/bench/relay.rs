//! How fast mail is taken and relayed, beside the floor, in one run: `cargo bench --bench relay`.
//!
//! 200 recipient domains on 50 MX hosts, every one under an MTA-STS policy in enforce mode; the real
//! daemon with its durable queue, tallies and verified TLS. Three rounds over the same load:
//!
//! - *floor*: a bare program that reads SMTP, appends, group-fdatasyncs and answers; nothing else;
//! - *accept*: the daemon with every destination down;
//! - *relay*: the daemon with every destination up, from the first submission to the last arrival.
//!
//! `MESSAGES`, `CLIENTS` and `SIZE` in the environment change the load. Load, MX hosts and DNS share
//! the machine with the daemon, so the rates are lower bounds; CPU and memory are the daemon's alone.

#[path = "floor.rs"]
mod floor;
#[path = "load.rs"]
mod load;
#[path = "sink.rs"]
mod sink;
#[path = "../support/mod.rs"]
mod support;

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_rustls::TlsAcceptor;

use load::{Load, Taken};
use sink::Arrived;
use support::daemon::Daemon;
use support::dns::Dns;
use support::pki::{Kind, Pki};
use support::web::{Page, Web};

const DOMAINS: u64 = 200;
const HOSTS: u8 = 50;
/// Clock ticks per second in /proc/PID/stat; fixed on Linux for user space.
const TICKS: f64 = 100.0;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if arguments.next().as_deref() == Some("--floor") {
        let file = arguments.next().expect("a file for the floor");
        runtime.block_on(floor::serve(file.into())).expect("the floor runs");
        return;
    }
    // `cargo test` runs benches once to see that they work: a small load then.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let messages = setting("MESSAGES", if quick { 200 } else { 20_000 });
    let clients = setting("CLIENTS", if quick { 10 } else { 100 }) as usize;
    let size = setting("SIZE", 10_000) as usize;
    println!(
        "{messages} messages of {size} octets, {clients} clients, {DOMAINS} domains on {HOSTS} MX hosts, all enforce\n"
    );
    println!("round    msgs/s   ratio    p50 ms    p99 ms   cpu s/1000   peak MB   notes");
    runtime.block_on(async {
        let load = |to| Load { to, messages, clients, size, domains: DOMAINS };
        let floor = floor_round(&load).await;
        daemon_round("accept", false, &load, floor).await;
        daemon_round("relay", true, &load, floor).await;
    });
}

async fn floor_round(load: &impl Fn(std::net::SocketAddr) -> Load) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("our own path"))
        .arg("--floor")
        .arg(dir.path().join("journal"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the floor starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).await.expect("the floor says its port");
    let port: u16 = line.trim().parse().expect("a port");
    let load = load((Ipv4Addr::LOCALHOST, port).into());
    let taken = load::submit(&load).await.expect("the floor takes everything");
    let usage = Usage::of(child.id().expect("running"));
    row("floor", taken.rate(), taken.rate(), &taken, &usage, load.messages, "");
    child.kill().await.expect("our own child");
    taken.rate()
}

async fn daemon_round(name: &str, up: bool, load: &impl Fn(std::net::SocketAddr) -> Load, floor: f64) {
    let pki = Pki::new();
    let dns = Dns::start().await;
    dns.ttl(300);
    let domains: Vec<String> = (0..DOMAINS).map(|number| format!("d{number}.bench.test")).collect();
    let policy_hosts: Vec<String> = domains.iter().map(|domain| format!("mta-sts.{domain}")).collect();
    let names: Vec<&str> = policy_hosts.iter().map(String::as_str).collect();
    let web = Web::start(pki.leaf(&names, Kind::Good).server_config()).await;
    let addresses: Vec<Ipv4Addr> = (0..HOSTS).map(|host| Ipv4Addr::new(127, 0, 4, host + 1)).collect();
    let (port, listeners) = sink::bind(&addresses).await.expect("loopback can be bound");
    for (number, domain) in domains.iter().enumerate() {
        let host = number % usize::from(HOSTS);
        let mx = format!("mx{host}.bench.test");
        dns.mx(domain, 10, &mx);
        dns.txt(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;");
        dns.address(&policy_hosts[number], web.address.ip());
        let text = format!("version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n");
        web.set(&policy_hosts[number], Page::policy(&text));
    }
    let arrived = Arrived::new(load(web.address).messages);
    for (host, listener) in listeners.into_iter().enumerate() {
        let mx = format!("mx{host}.bench.test");
        dns.address(&mx, addresses[host].into());
        let tls = TlsAcceptor::from(pki.leaf(&[&mx], Kind::Good).server_config());
        if up {
            tokio::spawn(sink::serve(listener, tls, arrived.clone()));
        }
    }
    let mut daemon = Daemon::configure(&pki, &dns, &web, port, "[log]\nlevel = \"error\"\n");
    daemon.start().await;
    let load = load(daemon.smarthost);
    let begun = Instant::now();
    let taken = match load::submit(&load).await {
        Ok(taken) => taken,
        Err(error) => panic!("{name}: {error}\n{}", daemon.log()),
    };
    let mut rate = taken.rate();
    let mut notes = String::new();
    if up {
        let deadline = begun + Duration::from_secs(600);
        while arrived.lost_and_doubled().0 > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        rate = load.messages as f64 / begun.elapsed().as_secs_f64();
        let (lost, doubled) = arrived.lost_and_doubled();
        let per_thousand = |count: u64| count as f64 * 1000.0 / load.messages as f64;
        notes = format!(
            "lost {lost}, doubled {doubled}, per 1000: {:.1} handshakes, {:.1} DNS questions",
            per_thousand(arrived.handshakes.load(std::sync::atomic::Ordering::Relaxed)),
            per_thousand(dns.questions() as u64),
        );
    }
    row(name, rate, floor, &taken, &Usage::of(daemon.pid()), load.messages, &notes);
}

/// What a process has used so far.
struct Usage {
    cpu: f64,
    peak_mb: f64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Fields after the command in parentheses: utime and stime are the 12th and 13th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<f64>().ok())
            .unwrap_or(0.0);
        Self { cpu: (ticks(11) + ticks(12)) / TICKS, peak_mb: peak / 1024.0 }
    }
}

fn row(name: &str, rate: f64, floor: f64, taken: &Taken, usage: &Usage, messages: u64, notes: &str) {
    println!(
        "{name:<8} {rate:>6.0}   {:>5.2}   {:>7.2}   {:>7.2}   {:>10.3}   {:>7.1}   {notes}",
        rate / floor,
        taken.quantile(0.5).as_secs_f64() * 1000.0,
        taken.quantile(0.99).as_secs_f64() * 1000.0,
        usage.cpu * 1000.0 / messages as f64,
        usage.peak_mb,
    );
}
