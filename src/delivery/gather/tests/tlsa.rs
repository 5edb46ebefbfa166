//! Which TLSA questions are asked, in which order, and what their answers mean.

use std::time::Duration;

use super::super::super::static_route::Hop;
use super::super::{Heed, HostAnswers};
use super::world::{TestWorld, domain, pass, world};
use crate::dane::{Tlsa, TlsaAnswer};
use crate::mail::{Destination, Failure};
use crate::net::dns::{Answer, Lookup, LookupFailure};
use crate::route::{DnssecStatus, MxHost};

const SECURE: DnssecStatus = DnssecStatus::Secure;
const INSECURE: DnssecStatus = DnssecStatus::Insecure;
const MX: &str = "mx.example.org";
const END: &str = "host.example.net";

fn record(usage: u8) -> Tlsa {
    Tlsa { usage, selector: 1, matching: 1, data: vec![usage; 32] }
}

fn answer<T>(end: &str, records: Vec<T>, status: DnssecStatus) -> Lookup<T> {
    Lookup::Found(Answer { records, status, name: domain(end), ttl: Duration::from_secs(60) })
}

fn fails<T>(kind: &'static str, bogus: bool) -> Lookup<T> {
    let text = "SERVFAIL".to_owned();
    Lookup::Failed(LookupFailure { name: "x.test".to_owned(), kind, bogus, text })
}

/// A host whose addresses are at the end of this chain.
fn host_at(end: &str, status: DnssecStatus) -> TestWorld {
    let world = world();
    let addresses = answer(end, vec!["192.0.2.1".parse().unwrap()], status);
    world.dns.hosts.lock().unwrap().insert(domain(MX), addresses);
    world
}

fn publish(world: &TestWorld, base: &str, lookup: Lookup<Tlsa>) {
    world.dns.tlsas.lock().unwrap().insert(domain(&format!("_25._tcp.{base}")), lookup);
}

fn hop(world: &TestWorld) -> Hop {
    world.gather.hop(&Destination::Domain(domain("example.org")))
}

async fn ask(world: &TestWorld) -> Result<HostAnswers, Failure> {
    world.gather.host(&MxHost { name: domain(MX), preference: 10 }, &hop(world), Heed::Dane).await
}

async fn tlsa(world: &TestWorld) -> (TlsaAnswer, String) {
    let found = ask(world).await.unwrap();
    assert_eq!(found.addresses.len(), 1);
    (found.tlsa, found.tlsa_base.to_string())
}

fn asked(world: &TestWorld) -> Vec<String> {
    std::mem::take(&mut *world.dns.asked.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn records_of_a_secure_host_are_asked_for_after_its_addresses_and_kept() {
    let world = host_at(MX, SECURE);
    let records = vec![record(3), record(9)];
    publish(&world, MX, answer("elsewhere.test", records.clone(), SECURE));
    let (first, second) = tokio::join!(tlsa(&world), tlsa(&world));
    // An alias at the TLSA name does not move the base domain.
    assert_eq!(first, (TlsaAnswer::Secure(records), MX.to_owned()));
    assert_eq!(first, second);
    assert_eq!(asked(&world), ["A mx.example.org", "TLSA _25._tcp.mx.example.org"]);
    pass(59).await;
    tlsa(&world).await;
    assert_eq!(asked(&world), [""; 0]);
    pass(2).await;
    tlsa(&world).await;
    assert_eq!(asked(&world).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn before_a_message_is_given_up_records_are_asked_for_past_every_cache() {
    let world = host_at(MX, SECURE);
    let host = MxHost { name: domain(MX), preference: 10 };
    publish(&world, MX, answer(MX, vec![record(3)], SECURE));
    if let Lookup::Found(answer) = world.dns.tlsas.lock().unwrap().values_mut().next().unwrap() {
        answer.ttl = Duration::from_secs(86_400);
    }
    tlsa(&world).await;
    publish(&world, MX, answer(MX, vec![record(2)], SECURE));
    pass(61).await;
    assert_eq!(tlsa(&world).await.0, TlsaAnswer::Secure(vec![record(3)]), "kept for its TTL");
    asked(&world);
    // However many messages end together, it is one question.
    for _ in 0..3 {
        let found = world.gather.host(&host, &hop(&world), Heed::DaneAfresh).await.unwrap();
        assert_eq!(found.tlsa, TlsaAnswer::Secure(vec![record(2)]));
        let questions = asked(&world).into_iter().filter(|name| name.contains("TLSA")).collect::<Vec<_>>();
        assert!(
            questions.len() <= 1 && questions.iter().all(|name| name.starts_with("fresh ")),
            "{questions:?}"
        );
    }
    assert_eq!(tlsa(&world).await.0, TlsaAnswer::Secure(vec![record(2)]), "and for all others");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_where_the_addresses_are_insecure() {
    let world = host_at(MX, INSECURE);
    publish(&world, MX, fails("TLSA", false));
    assert_eq!(tlsa(&world).await, (TlsaAnswer::Absent, MX.to_owned()));
    assert_eq!(asked(&world), ["A mx.example.org"]);
}

#[tokio::test(start_paused = true)]
async fn denials_signed_or_not_are_answers_and_records_without_signature_are_none() {
    for (lookup, expected) in [
        (Lookup::NoData(SECURE), TlsaAnswer::Absent),
        (Lookup::NoData(INSECURE), TlsaAnswer::Absent),
        (Lookup::NxDomain(SECURE), TlsaAnswer::Absent),
        (Lookup::NxDomain(INSECURE), TlsaAnswer::Absent),
        (answer(MX, vec![record(3)], INSECURE), TlsaAnswer::Insecure),
    ] {
        let world = host_at(MX, SECURE);
        publish(&world, MX, lookup);
        assert_eq!(tlsa(&world).await, (expected, MX.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_is_a_failed_lookup_and_never_no_records() {
    for lookup in [
        fails("TLSA", false),
        fails("TLSA", true),
        Lookup::NoData(DnssecStatus::Bogus),
        Lookup::NxDomain(DnssecStatus::Indeterminate),
        answer(MX, vec![record(3)], DnssecStatus::Bogus),
        answer(MX, vec![record(3)], DnssecStatus::Indeterminate),
    ] {
        let world = host_at(MX, SECURE);
        publish(&world, MX, lookup.clone());
        let (answer, base) = tlsa(&world).await;
        assert!(matches!(&answer, TlsaAnswer::Failed(why) if why.contains("TLSA")), "{lookup:?}: {answer:?}");
        assert_eq!(base, MX);
    }
    // So is a name server that says nothing.
    let world = host_at(MX, SECURE);
    world.dns.silent.lock().unwrap().insert(domain("_25._tcp.mx.example.org"));
    let (answer, _) = tlsa(&world).await;
    assert!(matches!(&answer, TlsaAnswer::Failed(why) if why.contains("no answer")), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn of_an_alias_the_end_comes_first_then_the_host_and_nothing_between() {
    let names = ["A mx.example.org", "TLSA _25._tcp.host.example.net", "TLSA _25._tcp.mx.example.org"];
    let world = host_at(END, SECURE);
    publish(&world, END, answer(END, vec![record(3)], SECURE));
    publish(&world, MX, answer(MX, vec![record(2)], SECURE));
    assert_eq!(tlsa(&world).await, (TlsaAnswer::Secure(vec![record(3)]), END.to_owned()));
    assert_eq!(asked(&world), names[..2]);
    for first in [Lookup::NoData(SECURE), Lookup::NxDomain(INSECURE), answer(END, vec![record(3)], INSECURE)]
    {
        let world = host_at(END, SECURE);
        publish(&world, END, first);
        publish(&world, MX, answer(MX, vec![record(2)], SECURE));
        assert_eq!(tlsa(&world).await, (TlsaAnswer::Secure(vec![record(2)]), MX.to_owned()));
        assert_eq!(asked(&world), names);
    }
    // A failure at the end is not made good by the host.
    let world = host_at(END, SECURE);
    publish(&world, END, fails("TLSA", false));
    publish(&world, MX, answer(MX, vec![record(2)], SECURE));
    let (answer, base) = tlsa(&world).await;
    assert!(matches!(answer, TlsaAnswer::Failed(_)));
    assert_eq!((base.as_str(), asked(&world).len()), (END, 2));
}

#[tokio::test(start_paused = true)]
async fn a_secure_alias_into_an_unsigned_zone_keeps_its_own_records() {
    let with_alias = |lookup| {
        let world = host_at(END, INSECURE);
        publish(&world, MX, answer(MX, vec![record(3)], SECURE));
        publish(&world, END, answer(END, vec![record(2)], SECURE));
        world.dns.aliases.lock().unwrap().insert(domain(MX), lookup);
        world
    };
    let world = with_alias(answer(MX, vec![domain(END)], SECURE));
    assert_eq!(tlsa(&world).await, (TlsaAnswer::Secure(vec![record(3)]), MX.to_owned()));
    let questions = ["A mx.example.org", "CNAME mx.example.org", "TLSA _25._tcp.mx.example.org"];
    assert_eq!(asked(&world), questions);
    for lookup in [answer(MX, vec![domain(END)], INSECURE), Lookup::NoData(INSECURE)] {
        let world = with_alias(lookup);
        assert_eq!(tlsa(&world).await.0, TlsaAnswer::Absent);
        assert_eq!(asked(&world), questions[..2]);
    }
    for lookup in [fails("CNAME", false), answer(MX, vec![domain(END)], DnssecStatus::Bogus)] {
        let (answer, _) = tlsa(&with_alias(lookup)).await;
        assert!(matches!(&answer, TlsaAnswer::Failed(why) if why.contains("CNAME")), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_port_is_the_one_mail_goes_to() {
    let world = host_at(MX, SECURE);
    world.options.send_modify(|options| std::sync::Arc::make_mut(options).smtp_port = 2525);
    tlsa(&world).await;
    assert_eq!(asked(&world)[1], "TLSA _2525._tcp.mx.example.org");
}

#[tokio::test(start_paused = true)]
async fn report_mail_and_a_relay_with_dane_off_ask_nothing() {
    let world = host_at(MX, SECURE);
    publish(&world, MX, fails("TLSA", false));
    let host = MxHost { name: domain(MX), preference: 10 };
    let found = world.gather.host(&host, &hop(&world), Heed::Nothing).await.unwrap();
    assert_eq!((found.tlsa, found.tlsa_base), (TlsaAnswer::Absent, domain(MX)));
    world.options.send_modify(|options| std::sync::Arc::make_mut(options).dane = false);
    assert_eq!(tlsa(&world).await.0, TlsaAnswer::Absent);
    assert_eq!(asked(&world), ["A mx.example.org"]);
}

#[tokio::test(start_paused = true)]
async fn without_addresses_no_records_are_asked_for() {
    let world = world();
    world.dns.hosts.lock().unwrap().insert(domain(MX), fails("A and AAAA", true));
    assert_eq!(ask(&world).await.unwrap_err().status.to_string(), "4.4.3");
    assert_eq!(asked(&world), ["A mx.example.org"]);
}

#[tokio::test(start_paused = true)]
async fn each_port_has_records_of_its_own() {
    let world = host_at(MX, SECURE);
    let submission = domain(&format!("_587._tcp.{MX}"));
    publish(&world, MX, answer(MX, vec![record(3)], SECURE));
    world.dns.tlsas.lock().unwrap().insert(submission, answer(MX, vec![record(2)], SECURE));
    let host = MxHost { name: domain(MX), preference: 10 };
    for (port, usage) in [(25, 3), (587, 2)] {
        let hop = Hop { port, ..hop(&world) };
        let found = world.gather.host(&host, &hop, Heed::Dane).await.unwrap();
        assert_eq!(found.tlsa, TlsaAnswer::Secure(vec![record(usage)]), "{port}");
    }
    assert!(world.changes().is_empty());
    // One that is gone is told of its own port alone.
    world.dns.tlsas.lock().unwrap().insert(domain(&format!("_587._tcp.{MX}")), Lookup::NoData(SECURE));
    pass(61).await;
    for port in [25, 587] {
        world.gather.host(&host, &Hop { port, ..hop(&world) }, Heed::Dane).await.unwrap();
    }
    assert_eq!(world.changes(), [(format!("_587._tcp.{MX}"), "tlsa-vanished")]);
}
