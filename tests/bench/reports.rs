//! What a day of TLS reports to very many domains costs: `cargo bench --bench reports`.
//!
//! As many domains as `DOMAINS` says (100,000 without it), each with an MTA-STS policy and three sessions,
//! every tenth with one that failed, every one with a report target of its own that takes the report at
//! once. Memory is that of this process, which holds nothing else. Never judges.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use stsrelay::mail::{Domain, Mailbox};
use stsrelay::net::dns::{Answer, Dns, Lookup, MxRecord};
use stsrelay::net::https::{FetchError, Https, PostOutcome};
use stsrelay::net::tcp::{Connection, Dial};
use stsrelay::net::tls::{ClientOptions, ClientTls};
use stsrelay::net::{Clock, SystemRandomness, World};
use stsrelay::reporting::{Options, Reporting};
use stsrelay::route::DnssecStatus;
use stsrelay::store::{Queue, QueueOptions, Reports, Results};
use stsrelay::tlsrpt::{AppliedPolicy, FailureDetail, PolicyType, ResultType, SessionResult};

const DOMAINS: usize = 100_000;
const SESSIONS: usize = 3;

/// The noon after the day.
struct Noon;

fn noon(day: i64) -> Timestamp {
    Timestamp::from_second(1_795_262_400 + day * 86_400).expect("a time of this century")
}

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        noon(1)
    }
}

/// A world in which every domain wants a report and every endpoint takes it.
#[derive(Default)]
struct Willing {
    posts: AtomicUsize,
    octets: AtomicUsize,
}

impl Dns for Willing {
    fn mx<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>> {
        Box::pin(async { Lookup::NxDomain(DnssecStatus::Insecure) })
    }

    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        let of = name.as_str().trim_start_matches("_smtp._tls.");
        let record = format!("v=TLSRPTv1; rua=https://reports.{of}/v1/tls-rpt").into_bytes();
        let (name, status, ttl) = (name.clone(), DnssecStatus::Insecure, Duration::from_secs(300));
        Box::pin(async move { Lookup::Found(Answer { records: vec![record], status, name, ttl }) })
    }

    fn addresses<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<std::net::IpAddr>> {
        Box::pin(async { Lookup::NxDomain(DnssecStatus::Insecure) })
    }
}

impl Https for Willing {
    fn fetch_policy<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        unreachable!("no mail, no policy")
    }

    fn post_report<'a>(&'a self, _: &'a str, _: &'a str, body: Vec<u8>) -> BoxFuture<'a, PostOutcome> {
        self.octets.fetch_add(body.len(), Ordering::Relaxed);
        self.posts.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { PostOutcome::Accepted(200) })
    }
}

impl Dial for Willing {
    fn dial(
        &self,
        _: std::net::SocketAddr,
        _: &str,
        _: Duration,
    ) -> BoxFuture<'_, std::io::Result<Connection>> {
        unreachable!("no mail, no connection")
    }
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |key: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0.0) / 1024.0
    };
    format!("{:6.0} MB, {:6.0} MB at most so far", of("VmRSS:"), of("VmHWM:"))
}

fn told(step: &str, began: Instant) {
    println!("{step:<44} {:7.1} s  {}", began.elapsed().as_secs_f64(), memory());
}

fn session(domain: &Domain, nth: usize) -> SessionResult {
    let lines = ["version: STSv1", "mode: enforce", "mx: mx1.", "mx: *.backup.", "max_age: 604800"];
    let mx_host = [format!("mx1.{domain}"), format!("*.backup.{domain}")].into();
    let failure = FailureDetail {
        result_type: ResultType::CertificateExpired,
        sending_mta_ip: "192.0.2.1".parse().ok(),
        receiving_mx_hostname: Some(format!("mx1.{domain}")),
        receiving_mx_helo: Some(format!("mx1.{domain}")),
        receiving_ip: "198.51.100.7".parse().ok(),
        failure_reason_code: Some("certificate has expired (on 2026-11-20)".to_owned()),
    };
    SessionResult {
        report_domain: domain.clone(),
        policy: AppliedPolicy {
            policy_type: PolicyType::Sts,
            policy_domain: domain.clone(),
            policy_string: lines
                .iter()
                .map(|line| match line.ends_with('.') {
                    true => format!("{line}{domain}"),
                    false => (*line).to_owned(),
                })
                .collect(),
            mx_host,
        },
        failures: if nth == 0 { vec![failure] } else { Vec::new() },
    }
}

async fn run(dir: &Path, domains: usize) {
    let began = Instant::now();
    let queue_options = QueueOptions { data_dir: dir.to_owned(), node: 1 };
    let (queue, _) = Queue::open(&queue_options, noon(1)).expect("a queue");
    let (results, _) = Results::open(dir).expect("results");
    let (reports, _) = Reports::open(dir).expect("reports");
    told("opened, empty", began);

    let began = Instant::now();
    for nth in 0..domains {
        let domain = Domain::parse(&format!("mail{nth}.example.org")).expect("a name");
        for session_nth in 0..SESSIONS {
            results.record(noon(0), session(&domain, if nth % 10 == 0 { session_nth } else { 1 }));
        }
        if nth % 1000 == 0 {
            // As much as a writer on a busy disk needs.
            results.flush().await;
        }
    }
    results.flush().await;
    told(&format!("{domains} domains counted, {SESSIONS} sessions each"), began);

    let began = Instant::now();
    drop(results);
    let (results, _) = Results::open(dir).expect("results");
    told("results closed and opened again", began);

    let began = Instant::now();
    let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
    let hostname = Domain::parse("relay.sender.example").expect("a name");
    let (contact, from) = (mailbox("postmaster@sender.example"), mailbox("tlsrpt@sender.example"));
    let mut options = Options::new(hostname, "Sender".to_owned(), contact, from);
    options.start_delay = Duration::ZERO;
    let (_sender, options) = watch::channel(Arc::new(options));
    let willing = Arc::new(Willing::default());
    let roots = ClientOptions { use_system_roots: true, extra_roots_file: None };
    let world = World {
        clock: Arc::new(Noon),
        random: Arc::new(SystemRandomness),
        dns: willing.clone(),
        https: willing.clone(),
        dial: willing.clone(),
        tls: ClientTls::new(&roots).expect("roots"),
    };
    let reporting = Reporting::new(world, queue.clone(), results.clone(), reports.clone(), options);
    let shutdown = CancellationToken::new();
    let story = tokio::spawn(reporting.run(shutdown.clone()));
    while willing.posts.load(Ordering::Relaxed) < domains {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    told("all reports looked up, made and posted", began);
    println!("  {} octets posted in all", willing.octets.load(Ordering::Relaxed));
    shutdown.cancel();
    story.await.expect("the story ends");
    let began = Instant::now();
    drop((results, reports));
    let (results, _) = Results::open(dir).expect("results");
    let (reports, _) = Reports::open(dir).expect("reports");
    told("results and reports opened again", began);
    println!("  {} reports kept, results of {:?}", reports.list().len(), results.days());
    queue.close().await;
}

fn main() {
    let domains = std::env::var("DOMAINS").ok().and_then(|text| text.parse().ok()).unwrap_or(DOMAINS);
    let dir = tempfile::tempdir().expect("a folder");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(run(dir.path(), domains));
}
