//! What a validator out of order means for mail, and for what is said of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::super::static_route::Hop;
use super::super::{Heed, HostAnswers};
use super::world::{TestWorld, domain, pass, world};
use crate::dane::{Tlsa, TlsaAnswer};
use crate::mail::{Destination, Failure};
use crate::net::dns::{Answer, Lookup, LookupFailure, MxRecord, Validation};
use crate::route::{DnssecStatus, MxHost};

const SECURE: DnssecStatus = DnssecStatus::Secure;
const INSECURE: DnssecStatus = DnssecStatus::Insecure;
const MX: &str = "mx.example.org";

fn answer<T>(name: &str, records: Vec<T>, status: DnssecStatus) -> Lookup<T> {
    Lookup::Found(Answer { records, status, name: domain(name), ttl: Duration::from_secs(1) })
}

fn fails<T>(kind: &'static str) -> Lookup<T> {
    let text = "Server Failure".to_owned();
    Lookup::Failed(LookupFailure { name: "example.org".to_owned(), kind, bogus: false, text })
}

/// example.org, its host and the host's TLSA records, all of this status.
fn publish(world: &TestWorld, status: DnssecStatus) {
    let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![3; 32] };
    let mx = MxRecord { preference: 10, exchange: MX.to_owned() };
    let dns = &world.dns;
    dns.mx.lock().unwrap().insert(domain("example.org"), answer("example.org", vec![mx], status));
    dns.hosts.lock().unwrap().insert(domain(MX), answer(MX, vec!["192.0.2.1".parse().unwrap()], status));
    let owner = format!("_25._tcp.{MX}");
    dns.tlsas.lock().unwrap().insert(domain(&owner), answer(&owner, vec![record], status));
}

fn validation(world: &TestWorld, validation: Validation) {
    *world.dns.validation.lock().unwrap() = Some(validation);
}

fn missing() -> Validation {
    Validation::Missing("127.0.0.1:53 answers without AD".to_owned())
}

fn broken() -> Validation {
    Validation::Broken("127.0.0.1:53 refuses".to_owned())
}

fn hop(world: &TestWorld) -> Hop {
    world.gather.hop(&Destination::Domain(domain("example.org")))
}

async fn host(world: &TestWorld) -> Result<HostAnswers, Failure> {
    world.gather.host(&MxHost { name: domain(MX), preference: 10 }, &hop(world), Heed::Dane).await
}

async fn route(world: &TestWorld) -> Result<(), Failure> {
    world.gather.route(&hop(world)).await.map(drop)
}

fn looks(world: &TestWorld) -> usize {
    world.dns.looks.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_protected_is_left_alone_while_nobody_validates() {
    let world = world();
    validation(&world, Validation::Works);
    publish(&world, SECURE);
    route(&world).await.unwrap();
    assert!(matches!(host(&world).await.unwrap().tlsa, TlsaAnswer::Secure(_)));
    for lost in [missing(), broken()] {
        validation(&world, lost);
        publish(&world, INSECURE);
        pass(60).await;
        route(&world).await.unwrap();
        let TlsaAnswer::Failed(why) = host(&world).await.unwrap().tlsa else { panic!("DANE was put aside") };
        assert!(why.contains("the local DNSSEC validator seems broken"), "{why}");
        assert!(why.contains("127.0.0.1:53") && why.contains(MX), "{why}");
    }
    // No destination is told of as weaker for what is our own fault.
    assert!(world.changes().is_empty(), "{:?}", world.changes());
    // It validates again, and the host has none indeed: that is the host's word.
    validation(&world, Validation::Works);
    pass(60).await;
    route(&world).await.unwrap();
    assert_eq!(host(&world).await.unwrap().tlsa, TlsaAnswer::Absent);
    let words: Vec<_> = world.changes().into_iter().map(|(_, word)| word).collect();
    assert_eq!(words, ["mx-insecure", "tlsa-insecure"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_while_nobody_validated_is_asked_for_again() {
    let world = world();
    validation(&world, Validation::Works);
    publish(&world, SECURE);
    route(&world).await.unwrap();
    host(&world).await.unwrap();
    pass(60).await;
    validation(&world, missing());
    publish(&world, INSECURE);
    // For a long time, if nobody forgot them.
    for lookup in world.dns.hosts.lock().unwrap().values_mut() {
        let Lookup::Found(answer) = lookup else { unreachable!() };
        answer.ttl = Duration::from_secs(86_400);
    }
    assert!(matches!(host(&world).await.unwrap().tlsa, TlsaAnswer::Failed(_)));
    validation(&world, Validation::Works);
    publish(&world, SECURE);
    pass(11).await;
    route(&world).await.unwrap();
    assert!(matches!(host(&world).await.unwrap().tlsa, TlsaAnswer::Secure(_)));
    assert!(world.changes().is_empty(), "{:?}", world.changes());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_never_protected_goes_on_as_before() {
    let world = world();
    publish(&world, INSECURE);
    for lost in [missing(), broken(), Validation::Silent("nobody answers".to_owned())] {
        validation(&world, lost);
        pass(60).await;
        route(&world).await.unwrap();
        assert_eq!(host(&world).await.unwrap().tlsa, TlsaAnswer::Absent);
    }
    assert_eq!(looks(&world), 0, "nothing happened that a validator would explain");
}

#[tokio::test(start_paused = true)]
async fn a_failed_lookup_says_when_it_is_not_the_domains_fault() {
    for (state, words) in [
        (
            broken(),
            Some("the local DNSSEC validator seems broken, which is not the recipient domain's fault"),
        ),
        (Validation::Silent("x".to_owned()), Some("the DNS resolver of this relay seems out of order")),
        (Validation::Works, None),
        // Where nothing is validated nothing fails validation.
        (missing(), None),
        (Validation::Off("x".to_owned()), None),
    ] {
        let world = world();
        validation(&world, state.clone());
        let dns = &world.dns;
        dns.mx.lock().unwrap().insert(domain("example.org"), fails("MX"));
        let mut texts = vec![route(&world).await.unwrap_err().text];
        publish(&world, SECURE);
        dns.tlsas.lock().unwrap().insert(domain("_25._tcp.mx.example.org"), fails("TLSA"));
        let TlsaAnswer::Failed(why) = host(&world).await.unwrap().tlsa else { panic!() };
        texts.push(why);
        pass(10).await;
        dns.hosts.lock().unwrap().insert(domain(MX), fails("A"));
        texts.push(host(&world).await.unwrap_err().text);
        dns.txt.lock().unwrap().insert(domain("_mta-sts.example.org"), fails("TXT"));
        let unknown = world.gather.sts(&domain("example.org"), Duration::ZERO).await.unwrap_err();
        texts.push(unknown.text);
        for text in texts {
            assert!(text.contains("Server Failure"), "{text}");
            assert_eq!(
                text.contains("not the recipient domain's fault"),
                words.is_some(),
                "{state:?}: {text}"
            );
            assert!(words.is_none_or(|words| text.contains(words)), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_failures_is_one_look() {
    let world = world();
    validation(&world, broken());
    let failing = (0..50).map(|n| {
        let name = domain(&format!("d{n}.example"));
        world.dns.mx.lock().unwrap().insert(name.clone(), fails("MX"));
        let gather = world.gather.clone();
        async move { gather.route(&gather.hop(&Destination::Domain(name))).await.unwrap_err() }
    });
    for failure in futures_util::future::join_all(failing).await {
        assert!(failure.text.contains("validator seems broken"), "{}", failure.text);
    }
    assert_eq!(looks(&world), 1);
    pass(11).await;
    let hop = world.gather.hop(&Destination::Domain(domain("d0.example")));
    world.gather.route(&hop).await.unwrap_err();
    assert_eq!(looks(&world), 2, "an old look explains nothing");
}

#[tokio::test(start_paused = true)]
async fn validation_is_looked_at_from_the_start_and_oftener_while_it_is_out_of_order() {
    let world = world();
    validation(&world, Validation::Works);
    let shutdown = CancellationToken::new();
    let (gather, token) = (world.gather.clone(), shutdown.clone());
    let watch = tokio::spawn(async move { gather.run_validator_watch(token).await });
    pass(1).await;
    assert_eq!(looks(&world), 1);
    pass(3600).await;
    let calm = looks(&world);
    assert!((10..=14).contains(&calm), "{calm}");
    validation(&world, broken());
    pass(3600).await;
    let busy = looks(&world) - calm;
    assert!((90..=125).contains(&busy), "{busy}");
    shutdown.cancel();
    watch.await.unwrap();
    // Where no TLSA record is looked for, it does not matter.
    let before = looks(&world);
    world.options.send_modify(|options| std::sync::Arc::make_mut(options).dane = false);
    assert!(matches!(world.gather.validation().await, Validation::Off(_)));
    assert_eq!(looks(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_never_ends_is_silence() {
    struct Mute;
    impl crate::net::dns::Dns for Mute {
        fn mx<'a>(
            &'a self,
            _: &'a crate::mail::Domain,
        ) -> futures_util::future::BoxFuture<'a, Lookup<MxRecord>> {
            unreachable!()
        }
        fn txt<'a>(
            &'a self,
            _: &'a crate::mail::Domain,
        ) -> futures_util::future::BoxFuture<'a, Lookup<Vec<u8>>> {
            unreachable!()
        }
        fn addresses<'a>(
            &'a self,
            _: &'a crate::mail::Domain,
        ) -> futures_util::future::BoxFuture<'a, Lookup<std::net::IpAddr>> {
            unreachable!()
        }
        fn validation(&self) -> futures_util::future::BoxFuture<'_, Validation> {
            Box::pin(std::future::pending())
        }
    }
    let world = world();
    let gather = super::super::Gather::with_doors(
        (world.clock.clone(), std::sync::Arc::new(crate::net::world::SystemRandomness)),
        std::sync::Arc::new(Mute),
        world.https.clone(),
        world.memory.clone(),
        world.memory.clone(),
        world.options.subscribe(),
    );
    assert!(matches!(gather.validation().await, Validation::Silent(_)));
}
