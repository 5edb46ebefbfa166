//! The policy cache from outside: what an attacker on DNS or HTTPS can and cannot do, and what a
//! policy host may get wrong.

mod support;

use std::time::Duration;

use hickory_proto::rr::RecordType;

use support::client::{Client, message, queue_id};
use support::dns::Fault;
use support::pki::Kind;
use support::web::Page;
use support::world::World;

const DAY: u32 = 86_400;

/// Domains whose enforce policy the daemon holds; their hosts speak no TLS.
async fn holding(domains: &[&str]) -> World {
    let world = World::start(u8::try_from(domains.len()).expect("few"), domains, "").await;
    for (index, domain) in domains.iter().enumerate() {
        let mx = format!("mx.{domain}");
        world.route(domain, 10, &mx, index);
        world.publish(domain, "1", "enforce", &[&mx], DAY);
        world.daemon.ask(&["policy", "refresh", domain]).await;
    }
    world
}

/// Submits to each domain and sees it deferred by its policy.
async fn all_are_held_back(world: &World, domains: &[&str]) {
    let mut ids = Vec::new();
    for domain in domains {
        ids.push(world.submit("a@home.test", &[&format!("b@{domain}")], &message(domain)).await);
    }
    for (index, id) in ids.iter().enumerate() {
        let item = world.deferred(id).await.remove(0);
        assert_eq!(item["history"][0]["rule"], "mta-sts enforce", "{item}");
        assert!(!world.farm.hosts[index].saw_mail(), "{}", domains[index]);
    }
}

#[tokio::test]
async fn a_cached_policy_survives_a_bumped_id_a_missing_and_a_failing_record_and_a_restart() {
    let domains = ["bumped.test", "removed.test", "servfail.test", "silent.test", "twice.test"];
    let mut world = holding(&domains).await;
    for domain in domains {
        world.web.set(&format!("mta-sts.{domain}"), Page::status(500));
    }
    world.dns.set_txt("_mta-sts.bumped.test", "v=STSv1; id=2;");
    world.dns.remove("_mta-sts.removed.test", RecordType::TXT);
    world.dns.fault("_mta-sts.servfail.test", RecordType::TXT, Some(Fault::ServFail));
    world.dns.fault("_mta-sts.silent.test", RecordType::TXT, Some(Fault::Silence));
    world.dns.txt("_mta-sts.twice.test", "v=STSv1; id=2;");
    // The name server is asked anew only when its first answers are over.
    let changed = "_mta-sts.bumped.test";
    let asked = world.dns.asked(changed, RecordType::TXT);
    support::eventually("the new id to be looked up", || async {
        world.daemon.cli(&["policy", "refresh", "bumped.test"]).await;
        (world.dns.asked(changed, RecordType::TXT) > asked).then_some(())
    })
    .await;
    all_are_held_back(&world, &domains).await;
    let bumped = world.daemon.json(&["policy", "show", "bumped.test"]).await.remove(0);
    assert_eq!(bumped["mode"], "enforce", "{bumped}");
    assert_eq!(bumped["id"], "1", "a new id is kept only together with its policy: {bumped}");
    assert!(bumped["trouble"]["count"].as_u64() >= Some(1), "{bumped}");

    world.web.down().await;
    world.daemon.restart().await;
    all_are_held_back(&world, &domains).await;
}

#[tokio::test]
async fn the_first_messages_to_a_domain_nobody_knows_wait_for_its_policy() {
    let world = World::start(1, &["new.test"], "").await;
    world.route("new.test", 10, "mx.new.test", 0);
    let text = "version: STSv1\nmode: enforce\nmx: mx.new.test\nmax_age: 86400\n";
    let page = Page { after: Duration::from_millis(500), ..Page::policy(text) };
    world.web.set("mta-sts.new.test", page);
    world.dns.set_txt("_mta-sts.new.test", "v=STSv1; id=1;");
    let mut client = Client::connect(world.daemon.smarthost).await;
    let mut ids = Vec::new();
    for number in 0..10 {
        let reply = client.submit("a@home.test", &["b@new.test"], &message(&number.to_string())).await;
        ids.push(queue_id(&reply));
    }
    for id in ids {
        let item = world.deferred(&id).await.remove(0);
        assert_eq!(item["history"][0]["rule"], "mta-sts enforce", "{item}");
    }
    assert!(!world.farm.hosts[0].saw_mail());
    assert_eq!(world.web.gets("mta-sts.new.test"), 1, "one fetch serves all");
}

#[tokio::test]
async fn a_new_policy_none_replaces_enforce_at_once() {
    let world = holding(&["given-up.test"]).await;
    let id = world.submit("a@home.test", &["b@given-up.test"], &message("one")).await;
    world.deferred(&id).await;
    world.publish("given-up.test", "2", "none", &[], DAY);
    let host = &world.farm.hosts[0];
    world.retry_until("the mail to arrive in clear", || !host.accepted().is_empty()).await;
    assert!(!host.accepted()[0].tls);
    let entry = world.daemon.json(&["policy", "show", "given-up.test"]).await.remove(0);
    assert_eq!((&entry["mode"], &entry["id"]), (&"none".into(), &"2".into()), "{entry}");
}

#[tokio::test]
async fn a_new_enforce_policy_is_in_force_with_the_next_message() {
    let world = World::start(1, &["late.test"], "").await;
    world.route("late.test", 10, "mx.late.test", 0);
    world.publish("late.test", "1", "testing", &["mx.late.test"], DAY);
    world.submit("a@home.test", &["b@late.test"], &message("one")).await;
    world.arrivals(0, 1).await;
    world.publish("late.test", "2", "enforce", &["mx.late.test"], DAY);
    support::eventually("the new policy to be known", || async {
        world.submit("a@home.test", &["b@late.test"], &message("more")).await;
        let entry = world.daemon.json(&["policy", "show", "late.test"]).await.remove(0);
        (entry["mode"] == "enforce").then_some(())
    })
    .await;
    support::eventually("what was under way to arrive", || async {
        let items = world.daemon.json(&["queue", "list"]).await;
        items.iter().all(|item| item["state"] == "deferred").then_some(())
    })
    .await;
    let seen = world.farm.hosts[0].log().commands.len();
    let id = world.submit("a@home.test", &["b@late.test"], &message("last")).await;
    world.deferred(&id).await;
    let commands = &world.farm.hosts[0].log().commands[seen..];
    assert!(!commands.iter().any(|line| line.starts_with("MAIL")), "{commands:?}");
}

#[tokio::test]
async fn a_policy_host_that_does_it_wrong_means_no_policy_and_is_reported() {
    const POLICY: &str = "version: STSv1\nmode: enforce\nmx: elsewhere.test\nmax_age: 86400\n";
    let page = || Page::policy(POLICY);
    let elsewhere = "Location: https://mta-sts.right.test/.well-known/mta-sts.txt\r\n".to_owned();
    let invalid = |text: &str| Page::policy(text);
    let rows: Vec<(&str, Page, &str)> = vec![
        ("moved", Page { status: 301, headers: elsewhere.clone(), ..page() }, "sts-policy-fetch-error"),
        ("found", Page { status: 302, headers: elsewhere, ..page() }, "sts-policy-fetch-error"),
        ("missing", Page::status(404), "sts-policy-fetch-error"),
        ("created", Page { status: 201, ..page() }, "sts-policy-fetch-error"),
        ("html", Page { content_type: "text/html".to_owned(), ..page() }, "sts-policy-fetch-error"),
        ("large", invalid(&format!("{POLICY}{}", "x: y\n".repeat(14_000))), "sts-policy-fetch-error"),
        ("nonsense", invalid("<html>policy</html>"), "sts-policy-invalid"),
        ("no-mx", invalid("version: STSv1\nmode: enforce\nmax_age: 86400\n"), "sts-policy-invalid"),
        ("mode", invalid(&POLICY.replace("enforce", "Enforce")), "sts-policy-invalid"),
        ("age", invalid(&POLICY.replace("86400", "1d")), "sts-policy-invalid"),
        ("empty", invalid(""), "sts-policy-invalid"),
        // The certificate of the policy hosts does not name this one.
        ("unnamed", page(), "sts-webpki-invalid"),
    ];
    let domains: Vec<String> = rows.iter().map(|(name, ..)| format!("{name}.test")).collect();
    let named: Vec<&str> =
        domains.iter().map(String::as_str).filter(|name| *name != "unnamed.test").collect();
    let world = World::start(12, &[&named[..], &["right.test"]].concat(), "").await;
    world.dns.address("mta-sts.unnamed.test", world.web.address.ip());
    world.web.set("mta-sts.right.test", page());
    for (index, ((_, page, _), domain)) in rows.iter().zip(&domains).enumerate() {
        let mx = format!("mx.{domain}");
        world.route(domain, 10, &mx, index);
        world.farm.hosts[index].behave(world.secured(&[&mx], Kind::SelfSigned));
        world.web.set(&format!("mta-sts.{domain}"), page.clone());
        world.dns.set_txt(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;");
        // Twice, so that the fetch is not tried again at once.
        for _ in 0..2 {
            world.submit("a@home.test", &[&format!("b@{domain}")], &message(domain)).await;
        }
    }
    for (index, ((name, _, result_type), domain)) in rows.iter().zip(&domains).enumerate() {
        assert!(world.arrivals(index, 2).await.iter().all(|arrival| arrival.tls), "{name}");
        let report = world.daemon.json(&["report", "preview", domain]).await.remove(0);
        let policies = report["policies"].as_array().expect("policies");
        // RFC 8460 §4.5: what was fetched and is no policy stands there as declared, errors and all; the
        // sessions went without one.
        let declared = *result_type == "sts-policy-invalid";
        assert_eq!(policies.len(), if declared { 2 } else { 1 }, "{name}: {report}");
        let of = |kind: &str| policies.iter().find(|policy| policy["policy"]["policy-type"] == kind);
        let failed = of(if declared { "sts" } else { "no-policy-found" }).expect("counted there");
        let details = failed["failure-details"].as_array().expect("details");
        assert_eq!(details.len(), 1, "{name}: {report}");
        assert_eq!(details[0]["result-type"], *result_type, "{name}: {report}");
        assert_eq!(details[0]["failed-session-count"], 1, "{name}: {report}");
        assert_eq!(failed["summary"]["total-failure-session-count"], 1, "{name}: {report}");
        let sessions = world.farm.hosts[index].log().handshakes;
        let went = of("no-policy-found").expect("the sessions");
        assert_eq!(went["summary"]["total-successful-session-count"], sessions, "{name}: {report}");
        let gets = world.web.gets(&format!("mta-sts.{domain}"));
        assert_eq!(gets, usize::from(*name != "unnamed"), "{name}");
    }
    assert_eq!(world.web.gets("mta-sts.right.test"), 0, "no redirect is followed");
}

#[tokio::test]
async fn mail_to_an_unknown_domain_waits_while_dns_does_not_say_whether_there_is_a_policy() {
    let world = World::start(1, &["dark.test"], "").await;
    world.good_domain("dark.test", 0);
    world.dns.fault("_mta-sts.dark.test", RecordType::TXT, Some(Fault::ServFail));
    let id = world.submit("a@home.test", &["b@dark.test"], &message("one")).await;
    let item = world.deferred(&id).await.remove(0);
    let result = item["history"][0]["result"].as_str().expect("a sentence");
    assert!(result.contains("4.4.3") && result.contains("MTA-STS"), "{result}");
    assert_eq!(world.farm.hosts[0].log().connections, 0);
    world.dns.fault("_mta-sts.dark.test", RecordType::TXT, None);
    let host = &world.farm.hosts[0];
    world.retry_until("the mail to arrive", || !host.accepted().is_empty()).await;
}

#[tokio::test]
async fn a_policy_host_that_hangs_delays_its_own_domain_and_only_for_the_time_of_a_fetch() {
    let extra = "[mta_sts]\nfetch_timeout = \"2s\"\n";
    let world = World::start(2, &["hanging.test"], extra).await;
    world.good_domain("hanging.test", 0);
    world.good_domain("other.test", 1);
    let page = Page { after: Duration::from_secs(600), ..Page::policy("") };
    world.web.set("mta-sts.hanging.test", page);
    world.dns.set_txt("_mta-sts.hanging.test", "v=STSv1; id=1;");
    for number in 0..30 {
        world.submit("a@home.test", &["b@hanging.test"], &message(&number.to_string())).await;
    }
    world.submit("a@home.test", &["b@other.test"], &message("other")).await;
    world.arrivals(1, 1).await;
    // RFC 8461 §5.1: no policy could be had and none is known, so the mail goes.
    world.arrivals(0, 30).await;
    world.drained().await;
    assert_eq!(world.web.gets("mta-sts.hanging.test"), 1);
    let report = world.daemon.json(&["report", "preview", "hanging.test"]).await.remove(0);
    let details = &report["policies"][0]["failure-details"];
    assert_eq!(details[0]["result-type"], "sts-policy-fetch-error", "{report}");
    assert_eq!(details[0]["failed-session-count"], 1, "{report}");
    assert!(!world.daemon.log().contains("deferred"), "{}", world.daemon.log());
}
