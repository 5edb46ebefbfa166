//! Local rules: for trees of domains and for hosts, mandatory DANE, at reload, and how they are shown.

mod support;

use aws_lc_rs::digest;
use serde_json::Value;

use support::client::message;
use support::eventually;
use support::mx::Behaviour;
use support::pki::Kind;
use support::world::World;

const DAY: u32 = 86_400;

fn rule(whom: &str, require: &str) -> String {
    format!("[[policy.override]]\n{whom}\nrequire = \"{require}\"\nreason = \"ticket 7\"\n")
}

/// Makes host `index` show a certificate for `mx` that nobody trusts, and publishes `3 1 1` of its key.
fn with_tlsa(world: &World, mx: &str, index: usize) {
    let leaf = world.pki.leaf(&[mx], Kind::SelfSigned);
    world.farm.hosts[index].behave(Behaviour::with(leaf.server_config()));
    let owner = format!("_{}._tcp.{mx}", world.farm.port);
    world.dns.tlsa(&owner, [3, 1, 1], digest::digest(&digest::SHA256, &leaf.spki()).as_ref());
}

fn last(item: &Value, key: &str) -> String {
    let attempt = item["history"].as_array().and_then(|history| history.last()).expect("an attempt");
    attempt[key].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn rules_for_trees_and_for_hosts_hold_and_the_strongest_wins() {
    let extra = [
        rule("domain = \"*.tree.test\"", "encrypt"),
        rule("domain = \"soft.tree.test\"", "none"),
        rule("mx = \"*.hosting.test\"", "verify"),
    ];
    let world = World::start(4, &[], &extra.concat()).await;
    // The hosts are in clear at first.
    for (index, (domain, mx)) in [
        ("soft.tree.test", "mx.soft.tree.test"),
        ("tree.test", "mx.tree.test"),
        ("shop.test", "mx.hosting.test"),
    ]
    .iter()
    .enumerate()
    {
        world.route(domain, 10, mx, index);
    }
    let soft = world.submit("a@home.test", &["b@soft.tree.test"], &message("one")).await;
    world.submit("a@home.test", &["b@tree.test"], &message("two")).await;
    world.farm.hosts[2].behave(world.secured(&["mx.hosting.test"], Kind::SelfSigned));
    let shop = world.submit("a@home.test", &["b@shop.test"], &message("three")).await;
    // The name above the tree is not in it.
    assert!(!world.arrivals(1, 1).await[0].tls);
    for (id, rule) in [
        (soft, "the local rule \"encrypt\" for *.tree.test (ticket 7) forbids"),
        (shop, "the local rule \"verify\" for mx *.hosting.test (ticket 7) forbids"),
    ] {
        let item = world.deferred(&id).await.remove(0);
        assert_eq!(last(&item, "rule"), "local override", "{item}");
        assert!(last(&item, "result").contains(rule), "{item}");
    }
    let explained = world.daemon.json(&["explain", "shop.test"]).await.remove(0);
    assert_eq!(explained["local"]["rule"], "none", "{explained}");
    assert_eq!(explained["hosts"][0]["local"]["whom"], "mx *.hosting.test", "{explained}");
    let shown = world.daemon.ask(&["policy", "show", "soft.tree.test"]).await;
    assert!(shown.contains("encrypt") && shown.contains("*.tree.test"), "{shown}");
    assert!(shown.contains("(ticket 7)"), "{shown}");
    let shown = world.daemon.json(&["policy", "show", "soft.tree.test"]).await.remove(0);
    assert_eq!(shown["local"]["rule"], "encrypt", "{shown}");
    world.farm.hosts[0].behave(world.secured(&["mx.soft.tree.test"], Kind::SelfSigned));
    world.farm.hosts[2].behave(world.secured(&["mx.hosting.test"], Kind::Good));
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    assert!(world.arrivals(0, 1).await[0].tls && world.arrivals(2, 1).await[0].tls);
}

#[tokio::test]
async fn mandatory_dane_waits_for_secure_mx_records_and_reports_what_is_missing() {
    let world = World::start(1, &[], &rule("domain = \"must.test\"", "dane")).await;
    world.route("must.test", 10, "mx.must.test", 0);
    world.farm.hosts[0].behave(world.secured(&["mx.must.test"], Kind::Good));
    world.dns.authentic(true);
    let id = world.submit("a@home.test", &["b@must.test"], &message("one")).await;
    let item = world.deferred(&id).await.remove(0);
    let result = last(&item, "result");
    assert!(result.contains("deferred: 4.7.5") && result.contains("demands DANE"), "{result}");
    assert!(result.contains("it has no TLSA records") && result.contains("(ticket 7)"), "{result}");
    assert!(!world.farm.hosts[0].saw_mail());
    let report = world.daemon.json(&["report", "preview", "must.test"]).await.remove(0);
    let failure = &report["policies"][0]["failure-details"][0];
    assert_eq!(failure["result-type"], "dane-required", "{report}");
    with_tlsa(&world, "mx.must.test", 0);
    world.retry_until("the mail to arrive", || world.farm.hosts[0].saw_mail()).await;
    assert!(world.arrivals(0, 1).await[0].tls);
}

#[tokio::test]
async fn rules_come_and_go_at_reload_and_an_exception_is_told_at_each_use() {
    let world = World::start(1, &["strict.test"], "").await;
    world.route("strict.test", 10, "mx.strict.test", 0);
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], DAY);
    let id = world.submit("a@home.test", &["b@strict.test"], &message("one")).await;
    world.deferred(&id).await;
    let exception = format!("{}until = \"2099-01-31\"\n", rule("domain = \"strict.test\"", "ignore-sts"));
    world.daemon.configure_extra(&exception);
    world.daemon.signal("HUP");
    eventually("the reload", || async { world.daemon.log().contains("reloaded").then_some(()) }).await;
    world.retry_until("the mail to arrive", || world.farm.hosts[0].saw_mail()).await;
    assert!(!world.arrivals(0, 1).await[0].tls);
    let log = world.daemon.log();
    let line = log.lines().find(|line| line.contains("MTA-STS is not applied")).expect("a line says so");
    assert!(line.contains("WARN") && line.contains("ticket 7") && line.contains("2099-02-01"), "{line}");
}

#[tokio::test]
async fn dane_that_is_only_audited_is_told_and_reported_and_stops_nothing() {
    let world = World::start(2, &[], "[policy]\ndane_audit_only = true\n").await;
    world.dns.authentic(true);
    world.route("audit.test", 10, "mx.audit.test", 0);
    with_tlsa(&world, "mx.audit.test", 0);
    // Another certificate than the one that is published.
    world.farm.hosts[0].behave(world.secured(&["mx.audit.test"], Kind::Good));
    world.submit("a@home.test", &["b@audit.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    world.drained().await;
    assert!(world.daemon.log().contains("DANE is only audited"), "{}", world.daemon.log());
    let report = world.daemon.json(&["report", "preview", "audit.test"]).await.remove(0);
    assert_eq!(report["policies"][0]["policy"]["policy-type"], "tlsa", "{report}");
    assert_eq!(report["policies"][0]["summary"]["total-failure-session-count"], 1, "{report}");
}

#[tokio::test]
async fn tlsa_records_behind_insecure_mx_records_may_be_left_alone() {
    let world = World::start(1, &[], "[policy]\ndane_insecure_mx = \"ignore\"\n").await;
    world.dns.authentic(true);
    world.route("half.test", 10, "mx.half.test", 0);
    with_tlsa(&world, "mx.half.test", 0);
    world.farm.hosts[0].behave(world.secured(&["mx.half.test"], Kind::Good));
    world.dns.unsigned("half.test");
    world.submit("a@home.test", &["b@half.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    let report = world.daemon.json(&["report", "preview", "half.test"]).await.remove(0);
    assert_eq!(report["policies"][0]["policy"]["policy-type"], "no-policy-found", "{report}");
}
