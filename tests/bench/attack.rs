//! What honest clients notice of an attack, and how much memory it takes: `cargo bench --bench attack`.
//!
//! The real daemon with its default limits. While each attack goes on, honest clients submit: programs of
//! this host over the trusted listener, and users with TLS and a password, each message on a connection
//! of its own. Their latency is from connecting to the final 250. Memory is the daemon's own peak during
//! the attack. `SECONDS` in the environment is how long each lasts, `ATTACKS` names those wanted.
//!
//! Attackers sit on many loopback addresses, so that the share of one address does not stop them, and
//! come back when they are thrown out. They share the machine with the daemon, which makes it harder
//! for the honest than it would be.

mod assault;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use assault::{ATTACKS, Target};
use support::client::{Client, message};
use support::daemon::HOSTNAME;
use support::world::World;

/// Honest programs of this host, and honest users, at a time.
const PROGRAMS: usize = 4;
const USERS: usize = 2;
/// Between two messages of one of them.
const PAUSE: Duration = Duration::from_millis(10);
/// An honest client gives up after this.
const PATIENCE: Duration = Duration::from_secs(30);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let seconds = Duration::from_secs(setting("SECONDS", if quick { 1 } else { 6 }));
    let wanted = std::env::var("ATTACKS").ok();
    println!(
        "{:<12}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}{:>9}",
        "", "tries", "host p50", "host p99", "user p50", "user p99", "served", "failed", "peak MB"
    );
    runtime.block_on(async {
        let world = World::start(1, &[], "[limits]\nqueue_items = 0\n[delivery]\nretry = [\"1h\"]\n").await;
        world.good_domain("away.test", 0);
        let target = Target {
            open: world.daemon.stranger,
            trusted: world.daemon.smarthost,
            starttls: world.daemon.submission,
            tls: world.daemon.submissions,
        };
        for (name, attack) in ATTACKS {
            if wanted.as_ref().is_some_and(|wanted| !wanted.split(',').any(|word| word == *name)) {
                continue;
            }
            let tries = assault::begin(*attack, target);
            // Those that need time to get in place get it.
            tokio::time::sleep(Duration::from_secs(1)).await;
            forget_peak(world.daemon.pid());
            let (programs, users) = tokio::join!(
                honest(PROGRAMS, seconds, || program(world.daemon.smarthost)),
                honest(USERS, seconds, || user(world.daemon.submissions, &world)),
            );
            let peak = peak_mb(world.daemon.pid());
            let tried = tries.count.load(Ordering::Relaxed);
            drop(tries);
            println!(
                "{name:<12}{tried:>8}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>9}{:>7}{peak:>9.1}",
                programs.quantile(0.5),
                programs.quantile(0.99),
                users.quantile(0.5),
                users.quantile(0.99),
                programs.latencies.len() + users.latencies.len(),
                programs.failed + users.failed,
            );
            // The next one begins in peace.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    });
}

/// How honest clients fared.
#[derive(Default)]
struct Fared {
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
    failed: usize,
}

impl Fared {
    fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = ((self.latencies.len() as f64 * share) as usize).min(last);
        self.latencies.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// So many clients, each with one message after the other, for a while.
async fn honest<F, Fut>(clients: usize, time: Duration, submit: F) -> Fared
where
    F: Fn() -> Fut,
    Fut: Future<Output = Option<()>>,
{
    let until = Instant::now() + time;
    let client = async || {
        let mut fared = Fared::default();
        while Instant::now() < until {
            let begun = Instant::now();
            match tokio::time::timeout(PATIENCE, submit()).await {
                Ok(Some(())) => fared.latencies.push(begun.elapsed().as_secs_f64() * 1000.0),
                _ => fared.failed += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
        fared
    };
    let mut all = Fared::default();
    for fared in futures_util::future::join_all((0..clients).map(|_| client())).await {
        all.latencies.extend(fared.latencies);
        all.failed += fared.failed;
    }
    all.latencies.sort_by(f64::total_cmp);
    all
}

async fn program(to: SocketAddr) -> Option<()> {
    let mut client = Client::try_connect(to).await?;
    let reply = client.submit("a@home.test", &["b@away.test"], &message("honest")).await;
    reply.starts_with("250").then_some(())
}

async fn user(to: SocketAddr, world: &World) -> Option<()> {
    let mut client = Client::try_connect_tls(to, world.pki.root_der(), HOSTNAME).await?;
    let login = client.say(&format!("AUTH PLAIN {}", STANDARD.encode("\0alice\0secret"))).await;
    if !login.starts_with("235") {
        return None;
    }
    let reply = client.submit("a@home.test", &["b@away.test"], &message("honest")).await;
    reply.starts_with("250").then_some(())
}

/// The kernel's record of the most memory begins anew.
fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn peak_mb(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: f64 =
        peak.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(f64::NAN);
    kilobytes / 1024.0
}
