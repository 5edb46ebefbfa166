//! A day's end: the real stories over the real doors, with a clock of the test's own. What was counted
//! before midnight UTC is in the day's report, what comes after it is not, and nobody asks for it.

mod support;

use std::fs;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use stsrelay::config::{Doors, Sources, doors, settings};
use stsrelay::delivery::gather::Gather;
use stsrelay::delivery::{self, Delivery};
use stsrelay::mail::{BodyType, Domain, Envelope, Mailbox, Recipient, ReversePath, TlsRequest};
use stsrelay::net::https::ReqwestHttps;
use stsrelay::net::tcp::TcpDialer;
use stsrelay::net::{Clock, SystemRandomness, World as Outside};
use stsrelay::reporting::Reporting;
use stsrelay::store::{Body, NewMessage, Policies, Queue, Reports, Results};

use support::client::message;
use support::dns::Dns;
use support::mx::{Behaviour, Farm};
use support::pki::{Kind, Pki};
use support::web::Web;

/// Stands still until it is let go.
struct TestClock {
    from: Timestamp,
    going_since: Mutex<Option<Instant>>,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let passed =
            self.going_since.lock().expect("no panic").map(|since| since.elapsed()).unwrap_or_default();
        self.from.checked_add(passed).expect("a time of this century")
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The relay without its listeners and its admin socket.
struct Relay {
    clock: Arc<TestClock>,
    queue: Queue,
    reports: Reports,
    reporting: Reporting,
    shutdown: CancellationToken,
    delivery: tokio::task::JoinHandle<()>,
    _options: Box<dyn std::any::Any>,
    _dir: tempfile::TempDir,
}

impl Relay {
    fn start(pki: &Pki, dns: &Dns, web: &Web, farm: &Farm, now: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("roots.pem"), pki.root_pem()).expect("writable");
        fs::create_dir(path("data")).expect("writable");
        let config = format!(
            "[server]\nhostname = \"relay.world.test\"\ndata_dir = {:?}\n\
             [tls]\nextra_roots_file = {:?}\nuse_system_roots = false\n\
             [dns]\nnameservers = [\"{}\"]\n[delivery]\nsmtp_port = {}\n[delivery.pool]\nmessages = 1\n\
             [mta_sts]\nhttps_port = {}\n[network]\nallow_private_destinations = [\"127.0.0.0/8\"]\n\
             [tlsrpt]\nfrom = \"tlsrpt@relay.world.test\"\nstart_delay = \"0s\"\n",
            path("data").display().to_string(),
            path("roots.pem").display().to_string(),
            dns.address,
            farm.port,
            web.address.port(),
        );
        fs::write(path("stsrelay.toml"), config).expect("writable");
        let sources = Sources { file: Some(path("stsrelay.toml")), ..Sources::default() };
        let loaded = sources.load().unwrap_or_else(|error| panic!("{error}"));
        let settings = settings(&loaded).unwrap_or_else(|errors| panic!("{errors:?}"));
        let Doors { dns, https, tcp, client_tls, guard } =
            doors(&loaded).unwrap_or_else(|errors| panic!("{errors:?}"));
        let clock = Arc::new(TestClock { from: at(now), going_since: Mutex::default() });
        let dns = Arc::new(dns);
        let https = ReqwestHttps::new(https, dns.clone(), guard.clone(), client_tls.roots()).expect("a door");
        let outside = Outside {
            clock: clock.clone(),
            random: Arc::new(SystemRandomness),
            dns,
            https: Arc::new(https),
            dial: Arc::new(TcpDialer::new(tcp, guard)),
            tls: client_tls,
        };
        let data = path("data");
        let (queue, _) = Queue::open(&settings.queue, clock.now()).expect("a queue");
        let (policies, _) = Policies::open(&data).expect("policies");
        let (results, _) = Results::open(&data).expect("results");
        let (reports, _) = Reports::open(&data).expect("reports");
        let (gather_set, gather_now) = watch::channel(Arc::new(settings.gather));
        let (delivery_set, delivery_now) = watch::channel(Arc::new(settings.delivery));
        let (reporting_set, reporting_now) = watch::channel(Arc::new(settings.reporting));
        let gather = Gather::new(outside.clone(), policies, results.clone(), gather_now);
        let reporting =
            Reporting::new(outside.clone(), queue.clone(), results.clone(), reports.clone(), reporting_now);
        let deliverer = Delivery::new(outside, gather, queue.clone(), results, delivery_now);
        let shutdown = CancellationToken::new();
        let delivery = tokio::spawn(delivery::run(deliverer, shutdown.clone()));
        let _options = Box::new((gather_set, delivery_set, reporting_set));
        Self { clock, queue, reports, reporting, shutdown, delivery, _options, _dir: dir }
    }

    async fn submit(&self, to: &str) {
        let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
        let content = message("one");
        let message = NewMessage {
            id: self.queue.allocate_id(),
            envelope: Envelope {
                reverse_path: ReversePath::Mailbox(mailbox("a@home.test")),
                recipients: vec![Recipient { path: mailbox(to), notify: None, orcpt: None }],
                body: BodyType::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
                tls: TlsRequest::None,
            },
            body: Body::Memory(Bytes::from(content.into_bytes())),
            received_at: self.clock.now(),
            is_report: false,
            expires_at: None,
        };
        self.queue.enqueue(message).await.expect("it is taken");
    }
}

fn gunzip(bytes: &[u8]) -> Value {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_belongs_to_the_day_it_was_seen_on_and_the_days_report_goes_out_when_it_is_over() {
    let (pki, dns, farm) = (Pki::new(), Dns::start().await, Farm::start(1).await);
    let names = ["mta-sts.day.test", "reports.world.test"];
    let web = Web::start(pki.leaf(&names, Kind::Good).server_config()).await;
    names.iter().for_each(|name| dns.address(name, web.address.ip()));
    dns.mx("day.test", 10, "mx.day.test");
    dns.address("mx.day.test", farm.hosts[0].ip);
    farm.hosts[0].behave(Behaviour::with(pki.leaf(&["mx.day.test"], Kind::Good).server_config()));
    let rua = format!("https://reports.world.test:{}/", web.address.port());
    dns.txt("_smtp._tls.day.test", &format!("v=TLSRPTv1; rua={rua}"));

    let relay = Relay::start(&pki, &dns, &web, &farm, "2026-11-21T23:59:59Z");
    let arrived = |count: usize| {
        let host = &farm.hosts[0];
        support::eventually("the message", move || async move { (host.arrived() >= count).then_some(()) })
    };
    for number in 1..=2 {
        relay.submit("b@day.test").await;
        arrived(number).await;
    }
    // The last second of the day lasts until here.
    let story = tokio::spawn(relay.reporting.clone().run(relay.shutdown.clone()));
    assert!(web.posts().is_empty());
    *relay.clock.going_since.lock().expect("no panic") = Some(Instant::now());
    let clock = &relay.clock;
    support::eventually("the day to be over", || async move {
        (clock.now() >= at("2026-11-22T00:00:00Z")).then_some(())
    })
    .await;
    relay.submit("b@day.test").await;
    arrived(3).await;

    let post = support::eventually("the report", || async { web.posts().pop() }).await;
    let report = gunzip(&post.body);
    assert_eq!(report["date-range"]["start-datetime"], "2026-11-21T00:00:00Z");
    assert_eq!(report["date-range"]["end-datetime"], "2026-11-21T23:59:59Z");
    assert_eq!(report["policies"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["policies"][0]["summary"]["total-successful-session-count"], 2, "{report}");
    assert_eq!(farm.hosts[0].log().handshakes, 3);
    let day = Domain::parse("day.test").expect("a name");
    let today: Value = serde_json::from_str(&relay.reporting.preview(&day).expect("results")).expect("JSON");
    assert_eq!(today["date-range"]["start-datetime"], "2026-11-22T00:00:00Z");
    assert_eq!(today["policies"][0]["summary"]["total-successful-session-count"], 1, "{today}");
    support::eventually("the report to be settled", || async {
        let kept = relay.reports.list();
        (kept.len() == 1 && kept[0].targets.iter().all(|target| target.attempts == 1)).then_some(())
    })
    .await;
    relay.shutdown.cancel();
    let ended = async { (story.await, relay.delivery.await) };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the stories end").0.expect("no panic");
    assert_eq!(web.posts().len(), 1, "once");
}
