//! A resolver beside the relay that does not validate, or cannot: what is protected waits, and everybody is
//! told whose fault it is.

mod support;

use aws_lc_rs::digest;

use support::client::message;
use support::eventually;
use support::mx::Behaviour;
use support::pki::Kind;
use support::world::World;

/// Host 0 is `mx.ee.test`, self-signed, with its key in DNS.
async fn world(hosts: u8) -> World {
    let mut world = prepared(hosts).await;
    world.daemon.start().await;
    world
}

/// The same with the daemon not running.
async fn prepared(hosts: u8) -> World {
    let world = World::prepare(hosts, &[], "[delivery]\nretry = [\"1h\"]\n").await;
    world.dns.authentic(true);
    // Nothing is kept, so that what the resolver says counts at once.
    world.dns.ttl(0);
    world.route("ee.test", 10, "mx.ee.test", 0);
    let leaf = world.pki.leaf(&["mx.ee.test"], Kind::SelfSigned);
    world.farm.hosts[0].behave(Behaviour::with(leaf.server_config()));
    let owner = format!("_{}._tcp.mx.ee.test", world.farm.port);
    world.dns.tlsa(&owner, [3, 1, 1], digest::digest(&digest::SHA256, &leaf.spki()).as_ref());
    world
}

fn last_result(item: &serde_json::Value) -> String {
    item["history"].as_array().and_then(|all| all.last()).expect("an attempt")["result"].to_string()
}

/// Words on one line, however they were wrapped.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_resolver_that_stops_validating_does_not_put_dane_aside() {
    let world = world(2).await;
    world.route("plain.test", 10, "mx.plain.test", 1);
    world.submit("a@home.test", &["b@ee.test"], &message("one")).await;
    world.arrivals(0, 1).await;
    world.drained().await;
    assert!(unwrapped(&world.daemon.ask(&["queue", "stats"]).await).contains("DNSSEC works"));

    world.dns.validates(false);
    // From here on anything may stand at the host's name.
    world.farm.hosts[0].behave(Behaviour::clear());
    let id = world.submit("a@home.test", &["b@ee.test"], &message("two")).await;
    let result = last_result(&world.deferred(&id).await[0]);
    assert!(result.contains("the local DNSSEC validator seems broken"), "{result}");
    assert!(result.contains("not the recipient domain's fault"), "{result}");
    let stats = unwrapped(&world.daemon.ask(&["queue", "stats"]).await);
    assert!(
        stats.contains("DNSSEC missing, so DANE is not used") && stats.contains("without the AD bit"),
        "{stats}"
    );
    let explained = unwrapped(&world.daemon.ask(&["explain", "ee.test"]).await);
    assert!(explained.contains("DNSSEC validation missing") && explained.contains("waits"), "{explained}");
    assert!(world.daemon.log().contains("DNSSEC is not validated, so DANE is not used"));
    // Who never had records is served as before.
    world.submit("a@home.test", &["b@plain.test"], &message("three")).await;
    world.arrivals(1, 1).await;
    let changes = world.daemon.cli(&["policy", "changes"]).await;
    assert!(!String::from_utf8_lossy(&changes.stdout).contains("tlsa"), "no destination did this");

    world.dns.validates(true);
    let leaf = world.pki.leaf(&["mx.ee.test"], Kind::SelfSigned);
    world.farm.hosts[0].behave(Behaviour::with(leaf.server_config()));
    let owner = format!("_{}._tcp.mx.ee.test", world.farm.port);
    world.dns.tlsa(&owner, [3, 1, 1], digest::digest(&digest::SHA256, &leaf.spki()).as_ref());
    world.retry_until("the host to get it", || world.farm.hosts[0].accepted().len() == 2).await;
    assert!(world.farm.hosts[0].accepted()[1].tls);
}

#[tokio::test]
async fn a_validator_that_refuses_everything_signed_is_named_in_each_deferral() {
    let mut world = prepared(3).await;
    world.good_domain("a.test", 1);
    world.good_domain("b.test", 2);
    // From the start: a look from a moment before would know nothing of it.
    world.dns.broken(true);
    world.daemon.start().await;
    let mut results = Vec::new();
    for name in ["ee.test", "a.test", "b.test"] {
        let id = world.submit("a@home.test", &[&format!("b@{name}")], &message(name)).await;
        results.push(last_result(&world.deferred(&id).await[0]));
    }
    for result in results {
        assert!(result.contains("deferred: 4.4.3"), "{result}");
        assert!(result.contains("the local DNSSEC validator seems broken"), "{result}");
        assert!(result.contains("clock") && result.contains("trust anchor"), "{result}");
    }
    assert!(world.farm.hosts.iter().all(|host| host.log().connections == 0));
    eventually("the log to say so", || async {
        world.daemon.log().contains("DNSSEC validation seems broken").then_some(())
    })
    .await;
    let totals = world.daemon.json(&["queue", "stats"]).await.remove(0);
    assert!(totals["dnssec"].as_str().is_some_and(|text| text.starts_with("broken: 127.")), "{totals}");
    world.dns.broken(false);
    let arrived = || world.farm.hosts.iter().all(|host| host.accepted().len() == 1);
    world.retry_until("all of them to arrive", arrived).await;
}

#[tokio::test]
async fn a_single_bogus_domain_is_its_own_fault() {
    let world = world(2).await;
    world.good_domain("bogus.test", 1);
    world.dns.fault("bogus.test", hickory_proto::rr::RecordType::MX, Some(support::dns::Fault::Bogus));
    let id = world.submit("a@home.test", &["b@bogus.test"], &message("one")).await;
    let result = last_result(&world.deferred(&id).await[0]);
    assert!(result.contains("DNSSEC validation failed"), "{result}");
    assert!(!result.contains("local DNSSEC validator"), "{result}");
    world.submit("a@home.test", &["b@ee.test"], &message("two")).await;
    world.arrivals(0, 1).await;
    assert!(unwrapped(&world.daemon.ask(&["queue", "stats"]).await).contains("DNSSEC works"));
}
