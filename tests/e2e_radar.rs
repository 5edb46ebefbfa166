//! Destinations that protect their mail less than they did, as `stsrelay policy changes` lists them.

mod support;

use hickory_proto::rr::RecordType;
use serde_json::Value;

use support::client::message;
use support::mx::Behaviour;
use support::pki::Kind;
use support::world::World;

const DAY: u32 = 86_400;

async fn changes(world: &World, arguments: &[&str]) -> Vec<Value> {
    world.daemon.json(&[&["policy", "changes"], arguments].concat()).await
}

fn words(changes: &[Value]) -> Vec<&str> {
    changes.iter().filter_map(|change| change["change"].as_str()).collect()
}

#[tokio::test]
async fn a_weakened_policy_is_listed_with_its_severity_and_survives_a_kill() {
    let mut world = World::start(1, &["weak.test", "same.test"], "").await;
    for domain in ["weak.test", "same.test"] {
        world.publish(domain, "1", "enforce", &["mx.weak.test"], DAY);
        world.daemon.ask(&["policy", "refresh", domain]).await;
    }
    assert!(world.daemon.ask(&["policy", "changes"]).await.contains("no destination was seen"));
    world.publish("weak.test", "2", "testing", &["mx.weak.test", "mx.evil.test"], DAY);
    for domain in ["weak.test", "same.test"] {
        world.daemon.ask(&["policy", "refresh", domain]).await;
    }
    for killed in [false, true] {
        let listed = changes(&world, &["weak.test"]).await;
        assert_eq!(words(&listed)[..2], ["mode-weakened", "mx-changed"], "{listed:?}");
        assert_eq!((&listed[0]["from"], &listed[0]["to"]), (&"enforce".into(), &"testing".into()));
        assert_eq!(listed[0]["severity"], "alarm", "{listed:?}");
        assert_eq!(listed[1]["added"][0], "mx.evil.test", "{listed:?}");
        assert_eq!(changes(&world, &["same.test"]).await, [Value::Null; 0], "killed: {killed}");
        assert_eq!(changes(&world, &[]).await, listed, "killed: {killed}");
        assert_eq!(changes(&world, &["--since", "2200-01-01"]).await, [Value::Null; 0]);
        let text = world.daemon.ask(&["policy", "changes"]).await;
        assert!(text.contains("ALARM") && text.contains("from enforce to testing"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        if !killed {
            let log = world.daemon.log();
            assert!(log.contains("policy-change") && log.contains("mode-weakened"), "{log}");
            world.daemon.kill();
            world.daemon.start().await;
        }
    }
}

#[tokio::test]
async fn tlsa_records_that_vanish_and_mx_records_that_lose_their_signature_are_listed_once() {
    let world = World::start(1, &[], "").await;
    world.dns.authentic(true);
    world.route("ee.test", 10, "mx.ee.test", 0);
    let leaf = world.pki.leaf(&["mx.ee.test"], Kind::Good);
    world.farm.hosts[0].behave(Behaviour::with(leaf.server_config()));
    let owner = format!("_{}._tcp.mx.ee.test", world.farm.port);
    let key = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf.spki());
    world.dns.tlsa(&owner, [3, 1, 1], key.as_ref());
    world.submit("a@home.test", &["b@ee.test"], &message("one")).await;
    world.arrivals(0, 1).await;
    assert_eq!(changes(&world, &[]).await, [Value::Null; 0]);
    world.dns.remove(&owner, RecordType::TLSA);
    world.dns.unsigned("ee.test");
    support::eventually("both to be noticed", || async {
        world.submit("a@home.test", &["b@ee.test"], &message("more")).await;
        (changes(&world, &[]).await.len() >= 2).then_some(())
    })
    .await;
    world.drained().await;
    let listed = changes(&world, &[]).await;
    let mut found: Vec<_> =
        listed.iter().map(|change| (change["domain"].as_str(), change["change"].as_str())).collect();
    found.sort_unstable();
    let expected = [(Some("ee.test"), Some("mx-insecure")), (Some("mx.ee.test"), Some("tlsa-vanished"))];
    assert_eq!(found, expected, "{listed:?}");
    // The domain whose mail goes there hears of its host too.
    let of_domain = changes(&world, &["ee.test"]).await;
    let tlsa = of_domain.iter().find(|change| change["change"] == "tlsa-vanished").expect("it is listed");
    assert_eq!(tlsa["domains"], serde_json::json!(["ee.test"]), "{of_domain:?}");
}
