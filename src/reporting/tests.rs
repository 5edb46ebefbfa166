//! The reports' story against a store on disk, a name server and endpoints made of tables.

use std::collections::VecDeque;
use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::work::{Mode, NOTES_PER_DAY_MAX, REPORTS_PER_RUA_MAX, Worked};
use super::*;
use crate::mail::mime::reader::Entity;
use crate::mail::{Mailbox, TlsRequest};
use crate::net::dns::{Answer, Lookup, LookupFailure, MxRecord};
use crate::net::https::{FetchError, PostOutcome};
use crate::route::DnssecStatus;
use crate::store::{Entry, Filter, QueueOptions, ReportEntry, RuaStatus};
use crate::tlsrpt::{AppliedPolicy, PolicyType, SessionResult};

const HOUR: Duration = Duration::from_secs(3600);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// Wall time: moved by hand, and by tokio's clock where that is paused.
struct TestClock {
    base: Mutex<Timestamp>,
    started: Option<tokio::time::Instant>,
}

impl TestClock {
    fn passed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    fn set(&self, to: &str) {
        *self.base.lock().unwrap() = at(to).checked_sub(self.passed()).unwrap();
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.base.lock().unwrap().checked_add(self.passed()).unwrap()
    }
}

#[derive(Clone)]
enum Txt {
    Record(String),
    None,
    Fails,
}

#[derive(Default)]
struct TestDns {
    txt: Mutex<HashMap<String, Txt>>,
    asked: Mutex<Vec<String>>,
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
struct TestHttps {
    /// What is answered first; then 201 for ever.
    answers: Mutex<VecDeque<PostOutcome>>,
    posts: Mutex<Vec<(String, String, Vec<u8>)>>,
    /// Posts under way, and the most there ever were.
    open: Mutex<(usize, usize)>,
    slow: Mutex<Duration>,
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
struct House {
    dir: TempDir,
    clock: Arc<TestClock>,
    dns: Arc<TestDns>,
    https: Arc<TestHttps>,
    queue: Queue,
    results: Results,
    reports: Reports,
    options: watch::Sender<Arc<Options>>,
    reporting: Reporting,
}

fn options() -> Options {
    let mailbox = |text: &str| Mailbox::parse(text).unwrap();
    let mut options = Options::new(
        domain("relay.sender.example"),
        "Sender".to_owned(),
        mailbox("postmaster@sender.example"),
        mailbox("tlsrpt@sender.example"),
    );
    options.start_delay = Duration::ZERO;
    options.dkim = Some(dkim::test_signer("sender.example"));
    options
}

impl House {
    fn new(now: &str) -> Self {
        Self::at(now, None)
    }

    /// For tests on paused time.
    fn paused(now: &str) -> Self {
        Self::at(now, Some(tokio::time::Instant::now()))
    }

    fn at(now: &str, started: Option<tokio::time::Instant>) -> Self {
        let clock = TestClock { base: Mutex::new(at(now)), started };
        Self::open(tempfile::tempdir().unwrap(), Arc::new(clock), Arc::default(), Arc::default())
    }

    fn open(dir: TempDir, clock: Arc<TestClock>, dns: Arc<TestDns>, https: Arc<TestHttps>) -> Self {
        let queue_options = QueueOptions { data_dir: dir.path().to_owned(), node: 1 };
        let (queue, _) = Queue::open(&queue_options, clock.now()).unwrap();
        let (results, _) = Results::open(dir.path()).unwrap();
        let (reports, _) = Reports::open(dir.path()).unwrap();
        let (sender, receiver) = watch::channel(Arc::new(options()));
        let doors = Doors { clock: clock.clone(), dns: dns.clone(), https: https.clone() };
        let reporting =
            Reporting::with_doors(doors, queue.clone(), results.clone(), reports.clone(), receiver);
        Self { dir, clock, dns, https, queue, results, reports, options: sender, reporting }
    }

    /// The process ends and starts anew on the same disk.
    async fn restart(self) -> Self {
        self.results.flush().await;
        self.queue.close().await;
        let Self { dir, clock, dns, https, queue, results, reports, options, reporting } = self;
        drop((queue, results, reports, options, reporting));
        Self::open(dir, clock, dns, https)
    }

    fn publish(&self, domain: &str, txt: Txt) {
        self.dns.txt.lock().unwrap().insert(format!("_smtp._tls.{domain}"), txt);
    }

    fn record(&self, domain: &str, rua: &str) {
        self.publish(domain, Txt::Record(format!("v=TLSRPTv1; rua={rua}")));
    }

    /// A session with `of` at an instant.
    fn session(&self, of: &str, when: &str) {
        let result = SessionResult {
            report_domain: domain(of),
            policy: AppliedPolicy {
                policy_type: PolicyType::NoPolicyFound,
                policy_domain: domain(of),
                policy_string: vec![],
                mx_host: vec![],
            },
            failures: vec![],
        };
        self.results.record(at(when), result);
    }

    async fn queued(&self) -> Vec<Entry> {
        self.queue.list(&Filter::default(), None, 1000).await.unwrap().entries
    }

    async fn mail(&self, id: QueueId) -> Entity {
        let body = self.queue.body(id).await.unwrap();
        Entity::read(&body.head(100_000).await.unwrap())
    }

    fn posts(&self) -> Vec<String> {
        self.https.posts.lock().unwrap().iter().map(|(url, ..)| url.clone()).collect()
    }

    fn answer(&self, answers: &[PostOutcome]) {
        self.https.answers.lock().unwrap().extend(answers.iter().cloned());
    }

    fn entry(&self, of: &str) -> ReportEntry {
        (*self.reports.get(day("2026-11-21"), &domain(of)).expect("an entry")).clone()
    }

    async fn due(&self, of: &str) -> Option<Timestamp> {
        self.reporting.work(day("2026-11-21"), &domain(of), Mode::Due).await.next
    }
}

fn refused() -> PostOutcome {
    PostOutcome::Refused("503 Service Unavailable".to_owned())
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

fn outcomes(lines: &[SendLine]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("{} {} {}", line.domain, line.rua.as_deref().unwrap_or("-"), line.outcome))
        .collect()
}

const NOON: &str = "2026-11-22T12:00:00Z";
const DURING: &str = "2026-11-21T12:00:00Z";

#[tokio::test]
async fn yesterdays_report_goes_once_to_every_target_with_one_report_id() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example, https://rua.example/tlsrpt");

    let lines = house.reporting.send(None, None, false).await;
    let queued = house.queued().await;
    assert_eq!(queued.len(), 1);
    let item = &queued[0].item;
    let id = item.id.queue_id;
    assert_eq!(
        outcomes(&lines),
        [
            format!("example.org mailto:a@rua.example queued as {id}"),
            "example.org https://rua.example/tlsrpt accepted".to_owned()
        ]
    );
    assert!(item.is_report);
    assert_eq!(item.expires_at, Some(at("2026-11-23T12:00:00Z")));
    assert_eq!(item.envelope.tls, TlsRequest::NotRequired);
    assert_eq!(item.envelope.reverse_path.to_string(), "<tlsrpt@sender.example>");
    assert_eq!(item.envelope.recipients[0].path.to_string(), "a@rua.example");

    let posts = house.https.posts.lock().unwrap().clone();
    let [(url, kind, body)] = &posts[..] else { panic!("{} posts", posts.len()) };
    assert_eq!((url.as_str(), kind.as_str()), ("https://rua.example/tlsrpt", "application/tlsrpt+gzip"));
    let entry = house.entry("example.org");
    assert_eq!(gunzip(body), entry.json);
    assert!(entry.json.contains("\"total-successful-session-count\":2"), "{}", entry.json);
    let mail = house.mail(id).await;
    assert_eq!(gunzip(&mail.parts[1].body), entry.json);
    assert!(mail.field("Subject").unwrap().contains(&format!("<{}>", entry.report_id)));
    assert!(mail.field("DKIM-Signature").is_some());

    let again = house.reporting.send(None, None, false).await;
    assert!(outcomes(&again).iter().all(|line| line.contains("not sent: already")), "{again:?}");
    assert_eq!((house.queued().await.len(), house.posts().len()), (1, 1));
}

#[tokio::test]
async fn an_endpoint_that_fails_is_tried_again_on_schedule_until_it_accepts() {
    let house = House::new("2026-11-22T00:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.answer(&[refused(), refused()]);
    assert_eq!(house.due("example.org").await, Some(at("2026-11-22T00:05:00Z")));
    // Before its time nothing is done.
    assert_eq!(house.due("example.org").await, Some(at("2026-11-22T00:05:00Z")));
    assert_eq!(house.posts().len(), 1);
    house.clock.set("2026-11-22T00:05:00Z");
    assert_eq!(house.due("example.org").await, Some(at("2026-11-22T00:20:00Z")));
    house.clock.set("2026-11-22T00:20:00Z");
    assert_eq!(house.due("example.org").await, None);
    let target = &house.entry("example.org").targets[0];
    assert_eq!((target.status.clone(), target.attempts), (RuaStatus::Accepted, 3));
    assert_eq!(target.last.as_deref(), Some("accepted with 201"));
    let posts = house.https.posts.lock().unwrap().clone();
    assert!(posts.iter().all(|(_, _, body)| *body == posts[0].2), "the same report each time");
}

#[tokio::test]
async fn after_24_hours_a_report_is_given_up() {
    let house = House::new("2026-11-22T00:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.answer(&vec![refused(); 100]);
    let mut tries = 0;
    let mut next = house.due("example.org").await;
    while let Some(due) = next {
        tries += 1;
        assert!(due <= at("2026-11-23T00:00:01Z"), "{due}");
        house.clock.set(&due.to_string());
        next = house.due("example.org").await;
    }
    assert!((10..=20).contains(&tries), "{tries}");
    let target = &house.entry("example.org").targets[0];
    assert_eq!(target.status, RuaStatus::GivenUp);
    assert_eq!(target.last.as_deref(), Some("503 Service Unavailable"));
}

#[tokio::test]
async fn a_target_that_fails_does_not_keep_the_other_waiting() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "https://down.example/,mailto:a@rua.example");
    house.answer(&[refused()]);
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert!(lines[0].contains("503 Service Unavailable; tried again at"), "{lines:?}");
    assert!(lines[1].contains("queued as"), "{lines:?}");
    assert_eq!(house.queued().await.len(), 1);
}

#[tokio::test]
async fn without_a_record_nothing_is_sent_and_the_data_is_let_go() {
    let house = House::new(NOON);
    for (name, txt) in [
        ("none.example", Txt::None),
        ("other.example", Txt::Record("v=spf1 -all".into())),
        ("bad.example", Txt::Record("v=TLSRPTv1; rua=ftp://x/".into())),
    ] {
        house.session(name, DURING);
        house.publish(name, txt);
    }
    house.session("nx.example", DURING);
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    for (line, why) in lines.iter().zip([
        "bad.example - not sent: bad v=TLSRPTv1 record",
        "none.example - not sent: no TXT record at _smtp._tls.none.example",
        "nx.example - not sent: no TXT record",
        "other.example - not sent: no v=TLSRPTv1 record",
    ]) {
        assert!(line.starts_with(why), "{line}");
    }
    assert!(house.queued().await.is_empty() && house.posts().is_empty());
    let entry = house.entry("none.example");
    assert!(entry.targets.is_empty() && entry.json.is_empty());
    assert_eq!(entry.note.as_deref(), Some("no TXT record at _smtp._tls.none.example"));

    assert_eq!(house.due("none.example").await, None);
    house.record("none.example", "https://rua.example/");
    assert_eq!(house.due("none.example").await, None, "what is let go is let go");
    assert!(house.posts().is_empty());
    let asked = house.reporting.send(None, Some(domain("none.example")), false).await;
    assert_eq!(outcomes(&asked), ["none.example https://rua.example/ accepted"]);
}

/// Notes that a future wants to be polled again.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Runs `future` to its `nth` await point and drops it there; `true` when it ended before.
async fn cut_at(nth: usize, future: impl Future<Output = Worked>) -> bool {
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

#[tokio::test]
async fn wherever_the_process_dies_each_target_gets_the_report_and_the_mail_is_queued_once() {
    for nth in 0.. {
        let house = House::new(NOON);
        house.session("example.org", DURING);
        house.record("example.org", "mailto:a@rua.example,https://rua.example/");
        let (of, on) = (domain("example.org"), day("2026-11-21"));
        let ended = cut_at(nth, house.reporting.work(on, &of, Mode::Due)).await;
        let house = house.restart().await;
        assert_eq!(house.due("example.org").await, None, "cut at {nth}");
        let queued = house.queued().await;
        assert_eq!(queued.len(), 1, "cut at {nth}");
        let entry = house.entry("example.org");
        let mail = house.mail(queued[0].item.id.queue_id).await;
        assert_eq!(gunzip(&mail.parts[1].body), entry.json, "cut at {nth}");
        // A post whose answer was not kept is repeated: the same report under the same id.
        let posts = house.https.posts.lock().unwrap().clone();
        assert!((1..=2).contains(&posts.len()), "cut at {nth}: {} posts", posts.len());
        assert!(posts.iter().all(|(_, _, body)| gunzip(body) == entry.json), "cut at {nth}");
        if ended {
            assert!(nth >= 5, "{nth} await points");
            break;
        }
    }
}

#[tokio::test]
async fn a_lookup_that_fails_is_tried_again_and_given_up_after_24_hours() {
    let house = House::new("2026-11-22T00:00:00Z");
    for name in ["slow.example", "dead.example"] {
        house.session(name, DURING);
        house.publish(name, Txt::Fails);
    }
    let mut next = house.due("dead.example").await;
    let first = house.due("slow.example").await.unwrap();
    let waiting = house.entry("slow.example");
    assert_eq!(waiting.targets[0].rua, "dns:_smtp._tls.slow.example?type=TXT");
    assert!(waiting.targets[0].last.as_deref().unwrap().contains("SERVFAIL"));

    house.clock.set(&first.to_string());
    house.record("slow.example", "mailto:a@rua.example");
    assert_eq!(house.due("slow.example").await, None);
    assert_eq!(house.entry("slow.example").report_id, waiting.report_id);
    assert_eq!(house.queued().await.len(), 1);

    while let Some(due) = next {
        house.clock.set(&due.to_string());
        next = house.due("dead.example").await;
    }
    let entry = house.entry("dead.example");
    assert_eq!(entry.targets[0].status, RuaStatus::GivenUp);
    assert!(entry.note.unwrap().contains("24 hours"));
    assert_eq!(house.queued().await.len(), 1);
}

#[tokio::test]
async fn a_restart_before_the_targets_were_tried_goes_on_with_them() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "https://a.example/,mailto:a@rua.example");
    house.answer(&[refused()]);
    house.reporting.send(None, None, false).await;
    // As it was kept before anything was sent.
    let mut entry = house.entry("example.org");
    for target in &mut entry.targets {
        *target = entry::waiting(target.rua.clone(), at(NOON));
    }
    let queued = house.queued().await;
    house.queue.admin(&Filter::default(), crate::store::AdminAction::Delete, at(NOON)).await.unwrap();
    house.reports.put(entry.clone()).await.unwrap();
    assert_eq!(queued.len(), 1);

    let house = house.restart().await;
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.posts().len(), 2);
    assert_eq!(house.queued().await.len(), 1);
    assert_eq!(house.entry("example.org").report_id, entry.report_id);
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.queued().await.len(), 1);
}

/// Queues one report, then puts its entry back to the moment before the hand-over was confirmed.
async fn cut_short(house: &House) -> (QueueId, ReportEntry) {
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example");
    house.reporting.send(None, None, false).await;
    let mut entry = house.entry("example.org");
    let RuaStatus::Queued(id) = entry.targets[0].status else { panic!("{entry:?}") };
    entry.targets[0].last = None;
    entry.targets[0].attempts = 0;
    house.reports.put(entry.clone()).await.unwrap();
    (id, entry)
}

#[tokio::test]
async fn a_restart_after_the_mail_was_queued_does_not_queue_it_again() {
    let house = House::new(NOON);
    let (id, _) = cut_short(&house).await;
    let house = house.restart().await;
    assert_eq!(house.due("example.org").await, None);
    let queued = house.queued().await;
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].item.id.queue_id, id);
    let target = &house.entry("example.org").targets[0];
    assert_eq!(target.status, RuaStatus::Queued(id));
    assert!(target.last.as_deref().unwrap().contains("handed to the queue"), "{target:?}");
}

#[tokio::test]
async fn a_restart_before_the_mail_was_queued_queues_it_once() {
    let house = House::new(NOON);
    let (id, _) = cut_short(&house).await;
    house.queue.admin(&Filter::default(), crate::store::AdminAction::Delete, at(NOON)).await.unwrap();
    let house = house.restart().await;
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.due("example.org").await, None);
    let queued = house.queued().await;
    assert_eq!(queued.len(), 1);
    assert_ne!(queued[0].item.id.queue_id, id);
}

#[tokio::test]
async fn another_report_under_the_same_queue_id_is_not_taken_for_ours() {
    let house = House::new(NOON);
    let (id, mut entry) = cut_short(&house).await;
    entry.report_id = "20261121.other.example.org@sender.example".to_owned();
    entry.json = entry.json.replace(&house.entry("example.org").report_id, &entry.report_id);
    house.reports.put(entry).await.unwrap();
    assert_eq!(house.due("example.org").await, None);
    let ids: Vec<_> = house.queued().await.iter().map(|entry| entry.item.id.queue_id).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&id));
}

#[tokio::test]
async fn an_unfinished_day_is_sent_as_it_is_and_whole_after_midnight() {
    let house = House::new("2026-11-21T13:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    let today = Some(day("2026-11-21"));
    assert_eq!(house.reporting.send(None, None, false).await, [], "yesterday has no results");
    let lines = house.reporting.send(today, None, false).await;
    assert_eq!(outcomes(&lines), ["example.org https://rua.example/ accepted"]);
    let partial = house.entry("example.org");
    assert!(partial.json.contains("\"end-datetime\":\"2026-11-21T13:00:00Z\""), "{}", partial.json);

    house.session("example.org", "2026-11-21T23:59:59.999Z");
    house.session("example.org", "2026-11-22T00:00:00Z");
    house.clock.set("2026-11-22T00:00:00Z");
    assert_eq!(house.due("example.org").await, None);
    let whole = house.entry("example.org");
    assert_ne!(whole.report_id, partial.report_id);
    assert!(whole.json.contains("\"end-datetime\":\"2026-11-21T23:59:59Z\""), "{}", whole.json);
    assert!(whole.json.contains("\"total-successful-session-count\":2"), "{}", whole.json);
    assert_eq!(house.posts().len(), 2);
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.posts().len(), 2);
}

#[tokio::test]
async fn again_repeats_the_same_report() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.session("other.example", DURING);
    house.record("example.org", "mailto:a@rua.example,https://rua.example/");
    let only = || Some(domain("example.org"));
    house.reporting.send(None, only(), false).await;
    let first = house.entry("example.org");
    let lines = outcomes(&house.reporting.send(None, only(), true).await);
    assert!(lines[0].contains("queued as") && lines[1].contains("accepted"), "{lines:?}");
    assert_eq!(house.queued().await.len(), 2);
    let second = house.entry("example.org");
    assert_eq!((second.report_id, second.json), (first.report_id, first.json));
    assert!(house.reports.get(day("2026-11-21"), &domain("other.example")).is_none());
    let nobody = house.reporting.send(None, Some(domain("nobody.example")), false).await;
    assert_eq!(outcomes(&nobody), ["nobody.example - not sent: no results for this domain on this day"]);
}

#[tokio::test]
async fn an_operator_need_not_wait_for_the_schedule() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.answer(&[refused()]);
    house.reporting.send(None, None, false).await;
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert_eq!(lines, ["example.org https://rua.example/ accepted"]);
}

#[tokio::test]
async fn a_report_being_sent_is_not_sent_twice_at_once() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example");
    let (one, two) =
        tokio::join!(house.reporting.send(None, None, false), house.reporting.send(None, None, false));
    assert_eq!(house.queued().await.len(), 1, "{one:?} {two:?}");
}

#[tokio::test]
async fn a_preview_shows_today_so_far_and_sends_nothing() {
    let house = House::new("2026-11-21T13:00:00Z");
    house.session("example.org", DURING);
    house.session("example.org", "2026-11-20T12:00:00Z");
    let json = house.reporting.preview(&domain("example.org")).unwrap();
    assert!(json.contains("\"total-successful-session-count\":1"), "{json}");
    assert!(json.contains("\"end-datetime\":\"2026-11-21T13:00:00Z\""), "{json}");
    assert_eq!(house.reporting.preview(&domain("nobody.example")), None);
    assert!(house.reports.list().is_empty() && house.dns.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn switched_off_nothing_is_sent() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "mailto:a@rua.example");
    house.options.send_modify(|options| Arc::make_mut(options).enabled = false);
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert_eq!(lines, ["example.org - not sent: TLS reports are switched off (tlsrpt.enabled)"]);
    assert!(house.queued().await.is_empty());
}

#[tokio::test]
async fn one_target_gets_a_thousand_reports_a_day_and_notes_are_few() {
    let house = House::new(NOON);
    let today = day("2026-11-21");
    for _ in 0..REPORTS_PER_RUA_MAX {
        assert!(house.reporting.may_send(today, "https://rua.example/"));
    }
    assert!(!house.reporting.may_send(today, "https://rua.example/"));
    assert!(house.reporting.may_send(today, "https://other.example/"));
    assert!((0..NOTES_PER_DAY_MAX).all(|_| house.reporting.may_note(today)));
    assert!(!house.reporting.may_note(today));

    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert!(lines[0].contains("given up: 1000 reports of this day"), "{lines:?}");
    assert!(house.posts().is_empty());
}

/// Keeps tokio's paused clock from jumping while the store's threads work; time moves by `advance`.
struct StillClock {
    _hold: std::sync::mpsc::Sender<()>,
}

impl StillClock {
    fn new() -> Self {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        Self { _hold: hold }
    }

    /// Moves time in steps and lets everything due happen after each.
    async fn pass(&self, time: Duration) {
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
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Waits, without time passing, for what other threads bring about.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < give_up, "waited for: {what}");
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn reports_start_after_midnight_within_the_delay_and_the_story_ends_on_request() {
    let still = StillClock::new();
    let house = House::paused("2026-11-21T22:00:00Z");
    house.options.send_modify(|options| Arc::make_mut(options).start_delay = 2 * HOUR);
    for n in 0..20 {
        house.session(&format!("d{n}.example"), DURING);
        house.record(&format!("d{n}.example"), "https://rua.example/");
    }
    house.session("tomorrow.example", "2026-11-22T00:00:00Z");
    house.record("tomorrow.example", "https://rua.example/");
    *house.https.slow.lock().unwrap() = Duration::from_secs(1);
    let shutdown = CancellationToken::new();
    let story = tokio::spawn(house.reporting.clone().run(shutdown.clone()));

    still.pass(2 * HOUR - Duration::from_secs(1)).await;
    assert!(house.posts().is_empty(), "the day is not over");
    assert!(house.dns.asked.lock().unwrap().is_empty());
    still.pass(2 * HOUR + Duration::from_secs(120)).await;
    until("twenty reports", async || {
        still.pass(Duration::from_secs(1)).await;
        house.reports.list().iter().filter(|entry| entry::next_due(entry).is_none()).count() == 20
    })
    .await;
    assert_eq!(house.posts().len(), 20);
    assert_eq!(house.https.open.lock().unwrap().1, CONCURRENCY, "bounded, and more than one at a time");
    assert!(house.reports.get(day("2026-11-22"), &domain("tomorrow.example")).is_none());

    // Nothing is sent twice, however long the story goes on; the next day's report follows.
    still.pass(23 * HOUR).await;
    until("the next day's report", async || {
        still.pass(Duration::from_secs(60)).await;
        house.posts().len() == 21
    })
    .await;
    shutdown.cancel();
    drop(still);
    story.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn days_left_over_from_before_a_restart_are_sent_and_settled_ones_are_not() {
    let still = StillClock::new();
    let house = House::paused(NOON);
    house.session("old.example", "2026-11-10T12:00:00Z");
    house.session("sent.example", DURING);
    house.session("waits.example", DURING);
    house.record("old.example", "https://old.example/");
    house.record("sent.example", "https://sent.example/");
    house.record("waits.example", "https://waits.example/");
    house.reporting.send(None, Some(domain("sent.example")), false).await;
    house.answer(&[refused()]);
    house.reporting.send(None, Some(domain("waits.example")), false).await;
    let house = house.restart().await;

    let shutdown = CancellationToken::new();
    let story = tokio::spawn(house.reporting.clone().run(shutdown.clone()));
    until("old and waiting reports", async || {
        still.pass(Duration::from_secs(60)).await;
        house.reports.list().len() == 3
            && house.reports.list().iter().all(|entry| entry::next_due(entry).is_none())
    })
    .await;
    let mut posts = house.posts();
    posts.sort();
    assert_eq!(
        posts,
        ["https://old.example/", "https://sent.example/", "https://waits.example/", "https://waits.example/"]
    );

    // A month on everything is forgotten.
    still.pass(2 * HOUR).await;
    house.clock.set("2026-12-23T12:00:00Z");
    until("forgetting", async || {
        still.pass(Duration::from_secs(60)).await;
        house.reports.list().is_empty() && house.results.days().is_empty()
    })
    .await;
    shutdown.cancel();
    drop(still);
    story.await.unwrap();
    assert_eq!(house.posts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_send_leaves_over_is_gone_on_with_and_switching_on_needs_no_restart() {
    let still = StillClock::new();
    let house = House::paused("2026-11-21T13:00:00Z");
    house.session("example.org", DURING);
    house.record("example.org", "https://rua.example/");
    house.session("late.example", "2026-11-20T12:00:00Z");
    house.record("late.example", "https://late.example/");
    house.options.send_modify(|options| Arc::make_mut(options).enabled = false);
    let shutdown = CancellationToken::new();
    let story = tokio::spawn(house.reporting.clone().run(shutdown.clone()));
    still.pass(HOUR).await;
    assert!(house.posts().is_empty());
    house.options.send_modify(|options| Arc::make_mut(options).enabled = true);
    until("the day before", async || house.posts() == ["https://late.example/"]).await;

    house.answer(&[refused()]);
    house.reporting.send(Some(day("2026-11-21")), Some(domain("example.org")), false).await;
    assert_eq!(house.posts().len(), 2);
    until("another try", async || {
        still.pass(Duration::from_secs(60)).await;
        house.posts().len() == 3
    })
    .await;
    shutdown.cancel();
    drop(still);
    story.await.unwrap();
}

#[test]
fn lines_are_told_in_words_and_in_json() {
    let line = SendLine {
        domain: domain("example.org"),
        rua: Some("https://rua.example/".to_owned()),
        outcome: SendOutcome::Deferred { next: at(NOON), why: "503".to_owned() },
    };
    assert_eq!(line.outcome.to_string(), "503; tried again at 2026-11-22T12:00:00Z");
    assert_eq!(
        serde_json::to_string(&line).unwrap(),
        r#"{"domain":"example.org","rua":"https://rua.example/","outcome":"deferred","next":"2026-11-22T12:00:00Z","why":"503"}"#
    );
}
