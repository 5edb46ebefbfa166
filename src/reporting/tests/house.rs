//! What the tests of this story live in: a store on disk, a name server and endpoints made of tables,
//! a clock moved by hand, and ways to let time pass or a process die.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::super::work::Mode;
use super::super::*;
use crate::mail::Mailbox;
use crate::mail::mime::reader::Entity;
use crate::net::SystemRandomness;
use crate::net::dns::{Answer, Lookup, LookupFailure, MxRecord};
use crate::net::https::{FetchError, PostOutcome};
use crate::route::DnssecStatus;
use crate::store::{Entry, Filter, QueueOptions, ReportEntry};
use crate::tlsrpt::{AppliedPolicy, PolicyType, SessionResult};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn day(text: &str) -> Date {
    text.parse().unwrap()
}

pub(super) fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// Wall time: moved by hand, and by tokio's clock where that is paused.
pub(super) struct TestClock {
    base: Mutex<Timestamp>,
    started: Option<tokio::time::Instant>,
}

impl TestClock {
    pub(super) fn passed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    pub(super) fn set(&self, to: &str) {
        *self.base.lock().unwrap() = at(to).checked_sub(self.passed()).unwrap();
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.base.lock().unwrap().checked_add(self.passed()).unwrap()
    }
}

#[derive(Clone)]
pub(super) enum Txt {
    Record(String),
    None,
    Fails,
}

#[derive(Default)]
pub(super) struct TestDns {
    pub(super) txt: Mutex<HashMap<String, Txt>>,
    pub(super) asked: Mutex<Vec<String>>,
}

impl Dns for TestDns {
    fn mx<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>> {
        unreachable!("reports ask for no MX")
    }

    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        self.asked.lock().unwrap().push(name.to_string());
        let found = self.txt.lock().unwrap().get(name.as_str()).cloned();
        let answer = match found {
            Some(Txt::Record(text)) => Lookup::Found(Answer {
                records: vec![text.into_bytes()],
                status: DnssecStatus::Insecure,
                name: name.clone(),
                ttl: HOUR,
            }),
            Some(Txt::Fails) => Lookup::Failed(LookupFailure {
                name: name.to_string(),
                kind: "TXT",
                bogus: false,
                text: "SERVFAIL".to_owned(),
            }),
            Some(Txt::None) => Lookup::NoData(DnssecStatus::Insecure),
            None => Lookup::NxDomain(DnssecStatus::Insecure),
        };
        Box::pin(async move { answer })
    }

    fn addresses<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Lookup<std::net::IpAddr>> {
        unreachable!("reports ask for no addresses")
    }
}

#[derive(Default)]
pub(super) struct TestHttps {
    /// What is answered first; then 201 for ever.
    pub(super) answers: Mutex<VecDeque<PostOutcome>>,
    pub(super) posts: Mutex<Vec<(String, String, Vec<u8>)>>,
    /// Posts under way, and the most there ever were.
    pub(super) open: Mutex<(usize, usize)>,
    pub(super) slow: Mutex<Duration>,
}

impl Https for TestHttps {
    fn fetch_policy<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        unreachable!("reports fetch no policy")
    }

    fn post_report<'a>(&'a self, url: &'a str, kind: &'a str, body: Vec<u8>) -> BoxFuture<'a, PostOutcome> {
        Box::pin(async move {
            self.posts.lock().unwrap().push((url.to_owned(), kind.to_owned(), body));
            {
                let mut open = self.open.lock().unwrap();
                open.0 += 1;
                open.1 = open.1.max(open.0);
            }
            let slow = *self.slow.lock().unwrap();
            if !slow.is_zero() {
                tokio::time::sleep(slow).await;
            }
            self.open.lock().unwrap().0 -= 1;
            self.answers.lock().unwrap().pop_front().unwrap_or(PostOutcome::Accepted(201))
        })
    }
}

/// One relay's reporting with everything around it.
pub(super) struct House {
    pub(super) dir: TempDir,
    pub(super) clock: Arc<TestClock>,
    pub(super) dns: Arc<TestDns>,
    pub(super) https: Arc<TestHttps>,
    pub(super) queue: Queue,
    pub(super) results: Results,
    pub(super) reports: Reports,
    pub(super) options: watch::Sender<Arc<Options>>,
    pub(super) reporting: Reporting,
}

pub(super) fn options() -> Options {
    let mailbox = |text: &str| Mailbox::parse(text).unwrap();
    let mut options = Options::new(
        domain("relay.sender.example"),
        "Sender".to_owned(),
        mailbox("postmaster@sender.example"),
        mailbox("tlsrpt@sender.example"),
    );
    options.start_delay = Duration::ZERO;
    options.dkim = vec![dkim::test_signer("sender.example")];
    options
}

impl House {
    pub(super) fn new(now: &str) -> Self {
        Self::at(now, None)
    }

    /// For tests on paused time.
    pub(super) fn paused(now: &str) -> Self {
        Self::at(now, Some(tokio::time::Instant::now()))
    }

    pub(super) fn at(now: &str, started: Option<tokio::time::Instant>) -> Self {
        let clock = TestClock { base: Mutex::new(at(now)), started };
        Self::open(tempfile::tempdir().unwrap(), Arc::new(clock), Arc::default(), Arc::default())
    }

    pub(super) fn open(
        dir: TempDir,
        clock: Arc<TestClock>,
        dns: Arc<TestDns>,
        https: Arc<TestHttps>,
    ) -> Self {
        let queue_options = QueueOptions { data_dir: dir.path().to_owned(), node: 1 };
        let (queue, _) = Queue::open(&queue_options, clock.now()).unwrap();
        let (results, _) = Results::open(dir.path()).unwrap();
        let (reports, _) = Reports::open(dir.path()).unwrap();
        let (sender, receiver) = watch::channel(Arc::new(options()));
        let doors = Doors {
            clock: clock.clone(),
            random: Arc::new(SystemRandomness),
            dns: dns.clone(),
            https: https.clone(),
        };
        let reporting =
            Reporting::with_doors(doors, queue.clone(), results.clone(), reports.clone(), receiver);
        Self { dir, clock, dns, https, queue, results, reports, options: sender, reporting }
    }

    /// The process ends and starts anew on the same disk.
    pub(super) async fn restart(self) -> Self {
        self.results.flush().await;
        self.queue.close().await;
        let Self { dir, clock, dns, https, queue, results, reports, options, reporting } = self;
        drop((queue, results, reports, options, reporting));
        Self::open(dir, clock, dns, https)
    }

    pub(super) fn publish(&self, domain: &str, txt: Txt) {
        self.dns.txt.lock().unwrap().insert(format!("_smtp._tls.{domain}"), txt);
    }

    pub(super) fn record(&self, domain: &str, rua: &str) {
        self.publish(domain, Txt::Record(format!("v=TLSRPTv1; rua={rua}")));
    }

    /// A session with `of` at an instant.
    pub(super) fn session(&self, of: &str, when: &str) {
        let result = SessionResult {
            report_domain: domain(of),
            policy: AppliedPolicy {
                policy_type: PolicyType::NoPolicyFound,
                policy_domain: domain(of),
                policy_string: [].into(),
                mx_host: [].into(),
            },
            failures: vec![],
        };
        self.results.record(at(when), result);
    }

    pub(super) async fn queued(&self) -> Vec<Entry> {
        self.queue.list(&Filter::default(), None, 1000).await.unwrap().entries
    }

    pub(super) async fn mail(&self, id: QueueId) -> Entity {
        let body = self.queue.body(id).await.unwrap();
        Entity::read(&body.head(100_000).await.unwrap())
    }

    pub(super) fn posts(&self) -> Vec<String> {
        self.https.posts.lock().unwrap().iter().map(|(url, ..)| url.clone()).collect()
    }

    pub(super) fn answer(&self, answers: &[PostOutcome]) {
        self.https.answers.lock().unwrap().extend(answers.iter().cloned());
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Options)) {
        self.options.send_modify(|options| change(Arc::make_mut(options)));
    }

    pub(super) fn entry(&self, of: &str) -> ReportEntry {
        (*self.reports.get(day("2026-11-21"), &domain(of)).expect("an entry")).clone()
    }

    pub(super) async fn due(&self, of: &str) -> Option<Timestamp> {
        self.reporting.work(day("2026-11-21"), &domain(of), Mode::Due).await.next
    }
}

/// Keeps tokio's paused clock from jumping while the store's threads work; time moves by `advance`.
pub(super) struct StillClock {
    _hold: std::sync::mpsc::Sender<()>,
}

impl StillClock {
    pub(super) fn new() -> Self {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        Self { _hold: hold }
    }

    /// Moves time in steps and lets everything due happen after each.
    pub(super) async fn pass(&self, time: Duration) {
        let step = Duration::from_secs(60);
        let mut left = time;
        while !left.is_zero() {
            let now = step.min(left);
            tokio::time::advance(now).await;
            left -= now;
            settle().await;
        }
    }
}

/// Lets tasks run without time passing.
pub(super) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Waits, without time passing, for what other threads bring about.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < give_up, "waited for: {what}");
        settle().await;
    }
}

/// Notes that a future wants to be polled again.
#[derive(Default)]
pub(super) struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Runs `future` to its `nth` await point and drops it there; `true` when it ended before.
pub(super) async fn cut_at<T>(nth: usize, future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    for _ in 0..=nth {
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(woken.clone());
        if future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready() {
            return true;
        }
        until("a wake-up", async || woken.0.load(std::sync::atomic::Ordering::SeqCst)).await;
    }
    false
}
