//! Routes and addresses: answers to failures, and how few questions are asked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::super::static_route::{HopTls, RouteFor, StaticRoute};
use super::super::routes::ADDRESSES_MAX;
use super::super::{Heed, NextHop, Options};
use super::world::{TestWorld, domain, found, pass, world};
use crate::mail::{Destination, Failure, Permanence, Scope};
use crate::net::dns::{Lookup, LookupFailure, MxRecord};
use crate::route::{DnssecStatus, MxHost};
use crate::tlspolicy::LocalRule;

fn mx(world: &TestWorld, lookup: Lookup<MxRecord>) {
    world.dns.mx.lock().unwrap().insert(domain("example.org"), lookup);
}

fn records(records: &[(u16, &str)]) -> Lookup<MxRecord> {
    let record =
        |&(preference, exchange): &(u16, &str)| MxRecord { preference, exchange: exchange.to_owned() };
    found(&domain("example.org"), records.iter().map(record).collect())
}

fn with_status(lookup: Lookup<MxRecord>, status: DnssecStatus) -> Lookup<MxRecord> {
    match lookup {
        Lookup::Found(answer) => Lookup::Found(crate::net::dns::Answer { status, ..answer }),
        other => other,
    }
}

fn servfail(kind: &'static str) -> LookupFailure {
    LookupFailure { name: "example.org".to_owned(), kind, bogus: false, text: "SERVFAIL".to_owned() }
}

async fn route(world: &TestWorld) -> Result<Vec<String>, Failure> {
    let hop = world.gather.hop(&Destination::Domain(domain("example.org")));
    match world.gather.route(&hop).await? {
        NextHop::Route(route) => Ok(route.hosts.iter().map(|host| host.name.to_string()).collect()),
        NextHop::Literal(ip) => panic!("{ip}"),
    }
}

async fn addresses(world: &TestWorld, lookup: Option<Lookup<IpAddr>>) -> Result<Vec<IpAddr>, Failure> {
    let name = domain("mx.example.org");
    if let Some(lookup) = lookup {
        world.dns.hosts.lock().unwrap().insert(name.clone(), lookup);
    }
    let host = MxHost { name, preference: 10 };
    let hop = world.gather.hop(&Destination::Domain(domain("example.org")));
    world.gather.host(&host, &hop, Heed::Nothing).await.map(|found| found.addresses)
}

#[tokio::test(start_paused = true)]
async fn mx_hosts_come_in_order_and_loops_are_cut() {
    let world = world();
    mx(&world, records(&[(20, "b.example"), (10, "a.example"), (30, "relay.example"), (40, "c.example")]));
    assert_eq!(route(&world).await.unwrap(), ["a.example", "b.example"]);
}

#[tokio::test(start_paused = true)]
async fn dns_answers_become_failures_with_their_codes() {
    for (lookup, code, permanence) in [
        (Lookup::Failed(servfail("MX")), "4.4.3", Permanence::Transient),
        (Lookup::NxDomain(DnssecStatus::Insecure), "5.1.2", Permanence::Permanent),
        (Lookup::NxDomain(DnssecStatus::Bogus), "4.4.3", Permanence::Transient),
        (with_status(records(&[(1, "a.example")]), DnssecStatus::Bogus), "4.4.3", Permanence::Transient),
        (
            with_status(records(&[(1, "a.example")]), DnssecStatus::Indeterminate),
            "4.4.3",
            Permanence::Transient,
        ),
        (records(&[(0, "")]), "5.1.10", Permanence::Permanent),
        (records(&[(0, "192.0.2.1")]), "5.4.4", Permanence::Permanent),
        (records(&[(0, "relay.example")]), "5.4.6", Permanence::Permanent),
    ] {
        let world = world();
        mx(&world, lookup.clone());
        let failure = route(&world).await.unwrap_err();
        assert_eq!(
            (failure.status.to_string().as_str(), failure.permanence),
            (code, permanence),
            "{lookup:?}"
        );
        assert_eq!(failure.scope, Scope::Domain);
        assert!(failure.text.contains("example.org"), "{}", failure.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_domain_without_mx_is_its_own_host_and_a_literal_is_direct() {
    let world = world();
    mx(&world, Lookup::NoData(DnssecStatus::Insecure));
    assert_eq!(route(&world).await.unwrap(), ["example.org"]);
    let asked = world.dns.questions();
    let literal = |text: &str| world.gather.hop(&Destination::parse(text).unwrap());
    let hop = world.gather.route(&literal("[192.0.2.1]")).await.unwrap();
    assert_eq!(hop, NextHop::Literal("192.0.2.1".parse().unwrap()));
    assert_eq!(world.dns.questions(), asked);
    let failure = world.gather.route(&literal("[192.0.2.99]")).await.unwrap_err();
    assert_eq!(failure.status.to_string(), "5.4.6");
}

#[tokio::test(start_paused = true)]
async fn a_new_shuffle_for_each_message_needs_no_new_question() {
    let world = world();
    mx(&world, records(&[(10, "a.example"), (10, "b.example")]));
    let mut firsts = std::collections::HashSet::new();
    for _ in 0..100 {
        firsts.insert(route(&world).await.unwrap().remove(0));
    }
    assert_eq!((firsts.len(), world.dns.questions()), (2, 1));
    pass(60).await;
    route(&world).await.unwrap();
    assert_eq!(world.dns.questions(), 2);
}

#[tokio::test(start_paused = true)]
async fn addresses_keep_their_order_without_repeats_and_are_bounded() {
    let world = world();
    let name = domain("mx.example.org");
    let mut ips: Vec<IpAddr> =
        vec!["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    ips.extend((1..100u8).map(|i| IpAddr::from([198, 51, 100, i])));
    let got = addresses(&world, Some(found(&name, ips.clone()))).await.unwrap();
    assert_eq!((&got[..2], got[2], got.len()), (&ips[..2], ips[3], ADDRESSES_MAX));
}

#[tokio::test(start_paused = true)]
async fn hosts_without_address_fail_for_good_and_dns_trouble_does_not() {
    let insecure = DnssecStatus::Insecure;
    for (lookup, code, scope) in [
        (Lookup::NxDomain(insecure), "5.4.4", Scope::Host),
        (Lookup::NoData(insecure), "5.4.4", Scope::Host),
        (Lookup::Failed(servfail("A and AAAA")), "4.4.3", Scope::Host),
        (
            found(&domain("mx.example.org"), vec!["192.0.2.99".parse().unwrap()]),
            "5.4.6",
            Scope::Domain, // ourselves
        ),
    ] {
        let failure = addresses(&world(), Some(lookup)).await.unwrap_err();
        assert_eq!((failure.status.to_string().as_str(), failure.scope), (code, scope));
        assert_eq!(failure.host.as_deref(), Some("mx.example.org"));
        assert_eq!(failure.permanence == Permanence::Transient, failure.status.class == 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_to_one_domain_ask_few_questions() {
    let world = world();
    mx(&world, records(&[(10, "mx.example.org")]));
    world.publish("1", "enforce", 604_800);
    let ips = found(&domain("mx.example.org"), vec!["192.0.2.1".parse().unwrap()]);
    addresses(&world, Some(ips)).await.unwrap();
    for _ in 0..100 {
        let ten = (0..10).map(|_| async {
            world.gather.prefetch(&domain("example.org"));
            route(&world).await.unwrap();
            addresses(&world, None).await.unwrap();
            assert_eq!(world.mode().await, "enforce");
        });
        futures_util::future::join_all(ten).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(world.dns.questions() <= 20, "{}", world.dns.questions());
    assert_eq!(world.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_static_route_names_is_asked_about_and_its_trouble_is_never_for_good() {
    let world = world();
    let route = |whom: &str, next_hop: &str| {
        let (whom, next_hop) = (whom.parse().unwrap(), next_hop.parse().unwrap());
        Arc::new(StaticRoute::new(whom, next_hop, HopTls::Starttls, LocalRule::None, None))
    };
    let routes = vec![
        route("host.example", "[smart.test]:587"),
        route("mx.example", "gone.test"),
        route("own.example", "[192.0.2.99]:25"),
        route("other.example", "[192.0.2.99]:26"),
        route("self.example", "[relay.example]:25"),
    ];
    world.options.send_modify(|options| *options = Arc::new(Options { routes, ..(**options).clone() }));
    world.dns.mx.lock().unwrap().insert(domain("gone.test"), Lookup::NxDomain(DnssecStatus::Insecure));
    let smart = MxHost { name: domain("smart.test"), preference: 0 };
    let to = |name: &str| world.gather.hop(&Destination::Domain(domain(name)));
    let NextHop::Route(found) = world.gather.route(&to("host.example")).await.unwrap() else { panic!() };
    assert_eq!((found.hosts, world.dns.questions()), (vec![smart.clone()], 0), "nothing is asked");
    assert!(matches!(world.gather.route(&to("other.example")).await, Ok(NextHop::Literal(_))));
    for (name, code, text) in [
        ("mx.example", "4.1.2", "no route to gone.test"),
        ("own.example", "4.4.6", "[192.0.2.99] is an address of this relay"),
        ("self.example", "4.4.6", "relay.example is this relay"),
    ] {
        let failure = world.gather.route(&to(name)).await.unwrap_err();
        assert_eq!((failure.permanence, failure.status.to_string().as_str()), (Permanence::Transient, code));
        assert!(failure.text.contains(text) && failure.text.contains(name), "{}", failure.text);
    }
    let hop = to("host.example");
    world.dns.hosts.lock().unwrap().insert(smart.name.clone(), Lookup::NoData(DnssecStatus::Insecure));
    let failure = world.gather.host(&smart, &hop, Heed::Dane).await.unwrap_err();
    assert_eq!((failure.permanence, failure.status.to_string().as_str()), (Permanence::Transient, "4.4.4"));
}

#[tokio::test(start_paused = true)]
async fn the_next_hop_of_a_static_route_is_asked_for_its_policy_at_rcpt_time() {
    let world = world();
    let next_hop = "[example.org]:587".parse().unwrap();
    let route = StaticRoute::new(RouteFor::All, next_hop, HopTls::Starttls, LocalRule::None, None);
    let routes = vec![Arc::new(route)];
    world.options.send_modify(|options| *options = Arc::new(Options { routes, ..(**options).clone() }));
    world.publish("1", "enforce", 604_800);
    world.gather.prefetch(&domain("recipient.example"));
    pass(1).await;
    assert!(world.gather.inner.txts.is_known(&domain("example.org")));
    assert!(!world.gather.inner.txts.is_known(&domain("recipient.example")));
}
