//! The world in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::kept::{PolicyCache, Tallies};
use super::super::{Gather, Options, StsState};
use crate::dane::Tlsa;
use crate::mail::Domain;
use crate::net::dns::{Answer, Dns, Lookup, LookupFailure, MxRecord, Validation};
use crate::net::https::{FetchError, Https, PostOutcome};
use crate::net::world::{Clock, SystemRandomness};
use crate::route::DnssecStatus;
use crate::store::queue::QueueError;
use crate::sts::CachedPolicy;
use crate::sts::freshness::{FetchFault, TroubleKind};
use crate::sts::radar::{Change, Guard, Now};
use crate::tlsrpt::SessionResult;

pub const DAY: u64 = 24 * 3600;

pub fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

pub fn policy_text(mode: &str, max_age: u32) -> String {
    format!("version: STSv1\nmode: {mode}\nmx: mx.example.org\nmax_age: {max_age}\n")
}

/// Wall time that runs with tokio's, and can be set.
pub struct TestClock {
    started: Instant,
    base: Mutex<Timestamp>,
}

impl TestClock {
    pub fn set_by(&self, seconds: i64) {
        let mut base = self.base.lock().unwrap();
        *base = base.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.started.elapsed()).unwrap();
        self.base.lock().unwrap().checked_add(passed).unwrap()
    }
}

#[derive(Default)]
pub struct FakeDns {
    pub mx: Mutex<HashMap<Domain, Lookup<MxRecord>>>,
    pub txt: Mutex<HashMap<Domain, Lookup<Vec<u8>>>>,
    pub hosts: Mutex<HashMap<Domain, Lookup<IpAddr>>>,
    pub tlsas: Mutex<HashMap<Domain, Lookup<Tlsa>>>,
    pub aliases: Mutex<HashMap<Domain, Lookup<Domain>>>,
    /// Names about which nothing is ever answered.
    pub silent: Mutex<HashSet<Domain>>,
    pub asked: Mutex<Vec<String>>,
    /// What a look at validation shows; `None`: off.
    pub validation: Mutex<Option<Validation>>,
    /// How often that was asked.
    pub looks: AtomicUsize,
}

impl FakeDns {
    fn answer<T: Clone + Send + 'static>(
        &self,
        kind: &str,
        name: &Domain,
        map: &Mutex<HashMap<Domain, Lookup<T>>>,
    ) -> BoxFuture<'_, Lookup<T>> {
        self.asked.lock().unwrap().push(format!("{kind} {name}"));
        let absent = Lookup::NxDomain(DnssecStatus::Insecure);
        let lookup = map.lock().unwrap().get(name).cloned().unwrap_or(absent);
        let silent = self.silent.lock().unwrap().contains(name);
        Box::pin(async move {
            if silent {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            lookup
        })
    }

    pub fn questions(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Dns for FakeDns {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Lookup<MxRecord>> {
        self.answer("MX", domain, &self.mx)
    }
    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        self.answer("TXT", name, &self.txt)
    }
    fn txt_fresh<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Vec<u8>>> {
        self.answer("fresh TXT", name, &self.txt)
    }
    fn tlsa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Tlsa>> {
        self.answer("TLSA", name, &self.tlsas)
    }
    fn tlsa_fresh<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Tlsa>> {
        self.answer("fresh TLSA", name, &self.tlsas)
    }
    fn cname<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Lookup<Domain>> {
        self.answer("CNAME", name, &self.aliases)
    }
    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Lookup<IpAddr>> {
        self.answer("A", host, &self.hosts)
    }
    fn validation(&self) -> BoxFuture<'_, Validation> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let validation = self.validation.lock().unwrap().clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            validation.unwrap_or_else(|| Validation::Off("a test".to_owned()))
        })
    }
}

/// What the policy host does.
#[derive(Clone)]
pub enum Host {
    Serves(String),
    Fails(TroubleKind),
    /// Never ends by itself.
    Drips,
}

#[derive(Default)]
pub struct FakeHttps {
    pub hosts: Mutex<HashMap<Domain, Host>>,
    pub fetches: AtomicUsize,
}

impl Https for FakeHttps {
    fn fetch_policy<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let host = self.hosts.lock().unwrap().get(domain).cloned();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let fails = |kind, text: &str| {
                Err(FetchError { kind, fault: FetchFault::Unreachable, text: text.to_owned() })
            };
            match host {
                Some(Host::Serves(text)) => Ok(text.into_bytes()),
                Some(Host::Fails(kind)) => fails(kind, "https://mta-sts.example.org/: status 500"),
                Some(Host::Drips) => std::future::pending().await,
                None => fails(TroubleKind::Fetch, "no address"),
            }
        })
    }
    fn post_report<'a>(&'a self, _: &'a str, _: &'a str, _: Vec<u8>) -> BoxFuture<'a, PostOutcome> {
        unreachable!("gathering posts nothing")
    }
}

/// Keeps entries as their text, as the disk does.
#[derive(Default)]
pub struct Memory {
    entries: Mutex<BTreeMap<Domain, String>>,
    results: Mutex<Vec<SessionResult>>,
    pub changes: Mutex<Vec<(Domain, Change)>>,
    guarded: Mutex<Vec<(Guard, Domain)>>,
}

impl PolicyCache for Memory {
    fn get(&self, domain: &Domain) -> Option<Arc<CachedPolicy>> {
        self.entries.lock().unwrap().get(domain).map(|text| serde_json::from_str(text).unwrap())
    }
    fn put(&self, entry: CachedPolicy) -> BoxFuture<'_, Result<(), QueueError>> {
        let text = serde_json::to_string(&entry).unwrap();
        self.entries.lock().unwrap().insert(entry.domain, text);
        Box::pin(async { Ok(()) })
    }
    fn remove<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<bool, QueueError>> {
        let known = self.entries.lock().unwrap().remove(domain).is_some();
        Box::pin(async move { Ok(known) })
    }
    fn list(&self) -> Vec<Arc<CachedPolicy>> {
        self.entries.lock().unwrap().values().map(|text| serde_json::from_str(text).unwrap()).collect()
    }
    fn record_change(&self, domain: &Domain, change: Change, _: Timestamp) {
        self.changes.lock().unwrap().push((domain.clone(), change));
    }
    fn observe(&self, guard: Guard, name: &Domain, now: Now, _: Timestamp) -> bool {
        let mut guarded = self.guarded.lock().unwrap();
        let known = guarded.iter().position(|known| *known == (guard, name.clone()));
        match (known, now) {
            (None, Now::Secure) => guarded.push((guard, name.clone())),
            (Some(at), Now::Absent | Now::Insecure) => {
                guarded.remove(at);
                return true;
            }
            _ => {}
        }
        false
    }
    fn is_guarded(&self, guard: Guard, name: &Domain) -> bool {
        self.guarded.lock().unwrap().contains(&(guard, name.clone()))
    }
}

impl Tallies for Memory {
    fn record(&self, _: Timestamp, result: SessionResult) {
        self.results.lock().unwrap().push(result);
    }
}

pub struct TestWorld {
    pub gather: Gather,
    pub clock: Arc<TestClock>,
    pub dns: Arc<FakeDns>,
    pub https: Arc<FakeHttps>,
    pub memory: Arc<Memory>,
    pub options: watch::Sender<Arc<Options>>,
}

/// example.org publishes nothing yet.
pub fn world() -> TestWorld {
    let clock = Arc::new(TestClock {
        started: Instant::now(),
        base: Mutex::new(Timestamp::from_second(1_800_000_000).unwrap()),
    });
    let options = Options {
        mta_sts: true,
        dane: true,
        smtp_port: 25,
        overrides: Vec::new(),
        own_names: vec![domain("relay.example")],
        routes: Vec::new(),
        own_sockets: vec!["192.0.2.99:25".parse().unwrap()],
    };
    let (options, receiver) = watch::channel(Arc::new(options));
    let (dns, https, memory) = (Arc::<FakeDns>::default(), Arc::<FakeHttps>::default(), Arc::default());
    let gather = gather(&clock, &dns, &https, &memory, receiver);
    TestWorld { gather, clock, dns, https, memory, options }
}

fn gather(
    clock: &Arc<TestClock>,
    dns: &Arc<FakeDns>,
    https: &Arc<FakeHttps>,
    memory: &Arc<Memory>,
    options: watch::Receiver<Arc<Options>>,
) -> Gather {
    let (clock, dns, https) = (Arc::clone(clock), Arc::clone(dns), Arc::clone(https));
    Gather::with_doors(
        (clock, Arc::new(SystemRandomness)),
        dns,
        https,
        memory.clone(),
        memory.clone(),
        options,
    )
}

impl TestWorld {
    /// The changes told so far, by domain and word.
    pub fn changes(&self) -> Vec<(String, &'static str)> {
        let changes = self.memory.changes.lock().unwrap();
        changes.iter().map(|(domain, change)| (domain.to_string(), change.word())).collect()
    }

    /// What was only in memory is gone.
    pub fn restart(&mut self) {
        let receiver = self.options.subscribe();
        self.gather = gather(&self.clock, &self.dns, &self.https, &self.memory, receiver);
    }

    pub fn publish_id(&self, id: &str) {
        self.publish_txt(&[&format!("v=STSv1; id={id};")]);
    }

    pub fn publish_txt(&self, txts: &[&str]) {
        let name = domain("_mta-sts.example.org");
        let records = txts.iter().map(|txt| txt.as_bytes().to_vec()).collect();
        self.dns.txt.lock().unwrap().insert(name.clone(), found(&name, records));
    }

    pub fn give_txt_a_ttl(&self, seconds: u64) {
        for lookup in self.dns.txt.lock().unwrap().values_mut() {
            if let Lookup::Found(answer) = lookup {
                answer.ttl = Duration::from_secs(seconds);
            }
        }
    }

    pub fn remove_txt(&self) {
        self.dns.txt.lock().unwrap().clear();
    }

    pub fn break_txt(&self) {
        let name = domain("_mta-sts.example.org");
        let failure =
            LookupFailure { name: name.to_string(), kind: "TXT", bogus: false, text: "SERVFAIL".to_owned() };
        self.dns.txt.lock().unwrap().insert(name, Lookup::Failed(failure));
    }

    pub fn serve(&self, host: Host) {
        self.https.hosts.lock().unwrap().insert(domain("example.org"), host);
    }

    pub fn publish(&self, id: &str, mode: &str, max_age: u32) {
        self.publish_id(id);
        self.serve(Host::Serves(policy_text(mode, max_age)));
    }

    /// The state for a message just accepted.
    pub async fn sts(&self) -> StsState {
        self.gather.sts(&domain("example.org"), Duration::ZERO).await.expect("known")
    }

    /// Its mode in words, `-` without a policy.
    pub async fn mode(&self) -> String {
        self.sts().await.policy.map_or("-".to_owned(), |policy| policy.mode.to_string())
    }

    pub fn fetches(&self) -> usize {
        self.https.fetches.load(Ordering::SeqCst)
    }

    pub fn results(&self) -> Vec<SessionResult> {
        self.memory.results.lock().unwrap().clone()
    }

    pub fn entry(&self) -> Option<Arc<CachedPolicy>> {
        self.memory.get(&domain("example.org"))
    }
}

pub fn found<T>(name: &Domain, records: Vec<T>) -> Lookup<T> {
    let ttl = Duration::from_secs(60);
    Lookup::Found(Answer { records, status: DnssecStatus::Insecure, name: name.clone(), ttl })
}

/// Lets time pass, and what is due in it happen.
pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
