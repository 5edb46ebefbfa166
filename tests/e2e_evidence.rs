//! How messages travelled, asked of the daemon after they are gone: by id, by Message-ID, by domain.

mod support;

use aws_lc_rs::digest;
use serde_json::Value;

use support::client::message;
use support::mx::{Behaviour, StartTls};
use support::pki::Kind;
use support::world::World;

const DAY: u32 = 86_400;

fn hex(data: &[u8]) -> String {
    data.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The only attempt of a message.
async fn evidence(world: &World, id: &str) -> Value {
    let mut found = world.daemon.json(&["evidence", id]).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn a_delivered_message_is_proven_by_policy_certificate_tls_and_reply_also_after_a_kill() {
    let mut world = World::start(1, &["good.test"], "").await;
    world.good_domain("good.test", 0);
    world.publish("good.test", "1", "enforce", &["mx.good.test"], DAY);
    let content = format!("Message-ID: <one.1@home.test>\r\n{}", message("one"));
    let id = world.submit("a@home.test", &["b@good.test"], &content).await;
    world.arrivals(0, 1).await;
    world.drained().await;
    for killed in [false, true] {
        let found = evidence(&world, &id).await;
        let host = &found["hosts"][0];
        assert_eq!(host["verdict"], "met", "{found}");
        assert_eq!(host["rule"], "mta-sts enforce", "{found}");
        assert_eq!(host["requirement"], "pkix", "{found}");
        assert_eq!(host["policy"]["mode"], "enforce", "{found}");
        assert_eq!(host["policy"]["sha256"].as_str().map(str::len), Some(64), "{found}");
        assert_eq!(host["tls"]["pkix"], "valid", "{found}");
        assert!(host["tls"]["issuer"].is_string() && host["tls"]["not_after"].is_string(), "{found}");
        assert!(host["tls"]["group"].is_string() && host["tls"]["name_matched"].is_string(), "{found}");
        assert_eq!(host["names"][0], host["mx"], "{found}");
        assert_eq!(found["recipients"][0]["to"], "b@good.test", "{found}");
        assert_eq!(found["recipients"][0]["outcome"], "delivered", "{found}");
        assert_eq!(found["recipients"][0]["code"], 250, "{found}");
        assert_eq!(found["sender"], "a@home.test", "{found}");
        assert_eq!(found["message_id"], "one.1@home.test", "{found}");
        assert_eq!(evidence(&world, "<one.1@home.test>").await, found, "killed: {killed}");
        let of_domain = world.daemon.json(&["evidence", "--recipient-domain", "good.test"]).await;
        assert_eq!(of_domain, [found], "killed: {killed}");
        let proof = world.daemon.ask(&["evidence", &id]).await;
        assert!(proof.lines().all(|line| line.chars().count() <= 100), "{proof}");
        assert!(proof.contains("what was demanded was proven"), "{proof}");
        if !killed {
            world.daemon.kill();
            world.daemon.start().await;
        }
    }
    let unknown = world.daemon.cli(&["evidence", "nobody@nowhere.test"]).await;
    assert_eq!(unknown.status.code(), Some(1));
}

#[tokio::test]
async fn the_tlsa_record_that_matched_and_the_key_are_named() {
    let world = World::start(1, &[], "").await;
    world.dns.authentic(true);
    world.route("ee.test", 10, "mx.ee.test", 0);
    let leaf = world.pki.leaf(&["mx.ee.test"], Kind::SelfSigned);
    world.farm.hosts[0].behave(Behaviour::with(leaf.server_config()));
    let key = digest::digest(&digest::SHA256, &leaf.spki()).as_ref().to_vec();
    world.dns.tlsa(&format!("_{}._tcp.mx.ee.test", world.farm.port), [3, 1, 1], &key);
    let id = world.submit("a@home.test", &["b@ee.test"], &message("one")).await;
    world.drained().await;
    let found = evidence(&world, &id).await;
    let host = &found["hosts"][0];
    assert_eq!(host["requirement"], "dane", "{found}");
    assert_eq!(host["mx_dnssec"], "secure", "{found}");
    assert_eq!(host["tlsa"]["status"], "secure", "{found}");
    assert_eq!(host["tlsa"]["matched"], host["tlsa"]["records"][0], "{found}");
    assert_eq!(host["tls"]["spki_sha256"], hex(&key), "{found}");
    assert_ne!(host["tls"]["pkix"], "valid", "{found}");
}

#[tokio::test]
async fn a_refused_host_is_told_with_the_reason_and_addresses_stay_out_where_wanted() {
    let world = World::start(1, &["bad.test"], "[evidence]\naddresses = false\n").await;
    world.route("bad.test", 10, "mx.bad.test", 0);
    world.publish("bad.test", "1", "enforce", &["mx.other.test"], DAY);
    let id = world.submit("a@home.test", &["b@bad.test"], &message("one")).await;
    world.deferred(&id).await;
    let found = evidence(&world, &id).await;
    assert_eq!(found["hosts"][0]["verdict"], "skipped", "{found}");
    assert_eq!(found["hosts"][0]["mx"], "mx.bad.test", "{found}");
    assert!(found["hosts"][0]["reason"].is_string(), "{found}");
    assert_eq!(found["recipients"][0]["outcome"], "deferred", "{found}");
    assert_eq!(found["destination"], "bad.test", "{found}");
    assert!(
        !found.to_string().contains("a@home.test") && !found.to_string().contains("b@bad.test"),
        "{found}"
    );
}

#[tokio::test]
async fn a_host_that_fails_and_one_that_refuses_are_told_beside_the_one_that_takes_the_message() {
    let world = World::start(2, &["two.test"], "").await;
    for (index, mx) in ["mx1.two.test", "mx2.two.test"].into_iter().enumerate() {
        world.route("two.test", 10 + index as u16, mx, index);
    }
    world.farm.hosts[1].behave(world.secured(&["mx2.two.test"], Kind::Good));
    world.publish("two.test", "1", "enforce", &["*.two.test"], DAY);
    let id = world.submit("a@home.test", &["b@two.test"], &message("one")).await;
    world.drained().await;
    let found = evidence(&world, &id).await;
    assert_eq!(found["hosts"][0]["mx"], "mx1.two.test", "{found}");
    assert_eq!(found["hosts"][0]["verdict"], "failed", "{found}");
    assert!(found["hosts"][0]["tls"].is_null() && found["hosts"][0]["reason"].is_string(), "{found}");
    assert_eq!(found["hosts"][1]["verdict"], "met", "{found}");
    assert_eq!(found["recipients"][0]["host"], 1, "{found}");
    assert!(found["refusals"].is_null(), "{found}");

    let busy = world.secured(&["mx1.two.test"], Kind::Good).answering("RCPT TO", "450 4.2.0 later");
    world.farm.hosts[0].behave(busy);
    let id = world.submit("a@home.test", &["b@two.test"], &message("two")).await;
    world.drained().await;
    let found = evidence(&world, &id).await;
    assert_eq!(found["hosts"][0]["verdict"], "met", "{found}");
    assert_eq!(found["refusals"][0]["host"], 0, "{found}");
    assert!(found["refusals"][0]["text"].as_str().is_some_and(|text| text.contains("later")), "{found}");
    assert_eq!(found["recipients"][0]["host"], 1, "{found}");
}

#[tokio::test]
async fn a_message_that_went_in_clear_after_tls_failed_says_so() {
    let world = World::start(1, &[], "").await;
    world.route("odd.test", 10, "mx.odd.test", 0);
    world.farm.hosts[0].behave(Behaviour { starttls: StartTls::Garbage, ..Behaviour::clear() });
    let id = world.submit("a@home.test", &["b@odd.test"], &message("one")).await;
    world.drained().await;
    let found = evidence(&world, &id).await;
    assert_eq!(found["hosts"][0]["verdict"], "failed", "{found}");
    assert_eq!(found["hosts"][1]["verdict"], "allowed", "{found}");
    let reason = found["hosts"][1]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("in clear"), "{found}");
    assert!(found["hosts"][1]["tls"].is_null(), "{found}");
    assert_eq!(found["recipients"][0]["host"], 1, "{found}");
}

#[tokio::test]
async fn nothing_is_kept_where_it_is_switched_off() {
    let world = World::start(1, &[], "[evidence]\nenabled = false\n").await;
    world.good_domain("good.test", 0);
    let id = world.submit("a@home.test", &["b@good.test"], &message("one")).await;
    world.drained().await;
    assert_eq!(world.daemon.cli(&["evidence", &id]).await.status.code(), Some(1));
}
