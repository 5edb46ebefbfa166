//! What is told of destinations that protect their mail less, and how often.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::Heed;
use super::world::{DAY, Host, TestWorld, domain, found, pass, world};
use crate::dane::Tlsa;
use crate::mail::Destination;
use crate::net::dns::{Answer, Lookup, LookupFailure, MxRecord};
use crate::route::{DnssecStatus, MxHost};
use crate::sts::freshness::TroubleKind;

const WEEK: u32 = 604_800;

fn words(world: &TestWorld) -> Vec<&'static str> {
    world.changes().into_iter().map(|(_, word)| word).collect()
}

#[tokio::test(start_paused = true)]
async fn a_weaker_policy_is_told_once_and_counted() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    assert_eq!(world.mode().await, "enforce");
    world.publish("2", "testing", WEEK);
    pass(61).await;
    assert_eq!(world.mode().await, "testing");
    assert_eq!(world.mode().await, "testing");
    assert_eq!(world.changes(), [("example.org".to_owned(), "mode-weakened")]);
    assert_eq!(world.gather.counters().alarms.load(Ordering::Relaxed), 1);
    world.publish("3", "enforce", WEEK);
    pass(61).await;
    assert_eq!(world.mode().await, "enforce");
    assert_eq!(words(&world), ["mode-weakened"], "stronger is no news");
    world.publish("4", "enforce", 0);
    pass(61).await;
    assert_eq!(world.mode().await, "enforce");
    assert_eq!(words(&world)[1..], ["policy-withdrawn"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_gone_is_told_once_each_time_and_a_failing_one_never() {
    let world = world();
    world.publish("1", "enforce", WEEK);
    world.mode().await;
    for _ in 0..2 {
        world.publish_id("1");
        pass(61).await;
        world.mode().await;
        world.break_txt();
        pass(61).await;
        world.mode().await;
        world.remove_txt();
        for _ in 0..3 {
            pass(61).await;
            assert_eq!(world.mode().await, "enforce");
        }
    }
    assert_eq!(words(&world), ["record-vanished", "record-vanished"]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_fetched_again_alarms_and_running_out_is_told_once() {
    let world = world();
    world.publish("1", "enforce", 3 * DAY as u32);
    world.mode().await;
    world.serve(Host::Fails(TroubleKind::Fetch));
    let stop = CancellationToken::new();
    let (gather, token) = (world.gather.clone(), stop.clone());
    let refresher = tokio::spawn(async move { gather.run_refresher(token).await });
    tokio::time::sleep(Duration::from_secs(DAY + 3600 * 3)).await;
    assert_eq!(words(&world), ["refetch-failing"], "not at the first failures");
    tokio::time::sleep(Duration::from_secs(4 * DAY)).await;
    stop.cancel();
    refresher.await.unwrap();
    let told = words(&world);
    assert_eq!(told.last(), Some(&"policy-expired"), "{told:?}");
    let expired = told.iter().filter(|word| **word == "policy-expired").count();
    assert_eq!(expired, 1, "{told:?}");
    // Every six hours on the last day.
    assert!((2..=7).contains(&(told.len() - 1)), "{told:?}");
    let counted = world.gather.counters().refetch_alarms.load(Ordering::Relaxed);
    assert_eq!(counted as usize, told.len() - 1);
}

#[tokio::test(start_paused = true)]
async fn tlsa_records_and_signatures_that_go_are_told_and_failures_are_not() {
    let world = world();
    let mx = domain("mx.example.org");
    let secure = DnssecStatus::Secure;
    let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![3; 32] };
    let answer = |status| Answer {
        records: vec![record.clone()],
        status,
        name: mx.clone(),
        ttl: Duration::from_secs(1),
    };
    let addresses = Answer {
        records: vec!["192.0.2.1".parse().unwrap()],
        status: secure,
        name: mx.clone(),
        ttl: Duration::from_secs(DAY),
    };
    world.dns.hosts.lock().unwrap().insert(mx.clone(), Lookup::Found(addresses));
    let servfail = Lookup::Failed(LookupFailure {
        name: "x".to_owned(),
        kind: "TLSA",
        bogus: true,
        text: "SERVFAIL".to_owned(),
    });
    for lookup in [
        Lookup::Found(answer(secure)),
        servfail,
        Lookup::NoData(secure),
        Lookup::NoData(secure),
        Lookup::Found(answer(secure)),
        Lookup::Found(answer(DnssecStatus::Insecure)),
    ] {
        world.dns.tlsas.lock().unwrap().insert(domain("_25._tcp.mx.example.org"), lookup);
        pass(60).await;
        let host = MxHost { name: mx.clone(), preference: 10 };
        let hop = world.gather.hop(&Destination::Domain(domain("example.org")));
        world.gather.host(&host, &hop, Heed::Dane).await.unwrap();
    }
    assert_eq!(words(&world), ["tlsa-vanished", "tlsa-insecure"]);
    assert!(world.changes().iter().all(|(name, _)| name == "mx.example.org"));
    let told = world.memory.changes.lock().unwrap()[0].1.to_string();
    assert!(told.ends_with("mail for example.org goes there"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn mx_records_that_lose_their_signature_are_told() {
    let world = world();
    let name = domain("example.org");
    let records = || vec![MxRecord { preference: 10, exchange: "mx.example.org".to_owned() }];
    for status in
        [DnssecStatus::Insecure, DnssecStatus::Secure, DnssecStatus::Insecure, DnssecStatus::Insecure]
    {
        let Lookup::Found(answer) = found(&name, records()) else { unreachable!() };
        world.dns.mx.lock().unwrap().insert(name.clone(), Lookup::Found(Answer { status, ..answer }));
        pass(2 * DAY).await;
        world.gather.route(&world.gather.hop(&Destination::Domain(name.clone()))).await.unwrap();
    }
    assert_eq!(world.changes(), [("example.org".to_owned(), "mx-insecure")]);
}
