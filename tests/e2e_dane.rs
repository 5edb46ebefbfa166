//! Delivery under DANE: TLSA records match, do not match, cannot be looked up, cannot be used.

mod support;

use aws_lc_rs::digest;
use hickory_proto::rr::RecordType;
use serde_json::Value;

use support::client::message;
use support::dns::Fault;
use support::mx::Behaviour;
use support::pki::{Kind, Leaf};
use support::world::World;

const DAY: u32 = 86_400;

fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

/// Domains `NAME.test` with hosts `mx.NAME.test`, all DNSSEC-secure.
async fn signed_world(hosts: u8, domains: &[&str]) -> World {
    let world = World::start(hosts, domains, "").await;
    world.dns.authentic(true);
    world
}

fn tlsa_owner(world: &World, host: &str) -> String {
    format!("_{}._tcp.{host}", world.farm.port)
}

/// Makes host `index` show a new certificate for `mx`; publishes `3 1 1` of its key, or of another.
fn with_ee(world: &World, mx: &str, index: usize, kind: Kind, matching: bool) -> Leaf {
    let leaf = world.pki.leaf(&[mx], kind);
    let other = world.pki.leaf(&[mx], kind);
    world.farm.hosts[index].behave(Behaviour::with(leaf.server_config()));
    let published = if matching { &leaf } else { &other };
    world.dns.tlsa(&tlsa_owner(world, mx), [3, 1, 1], &sha256(&published.spki()));
    leaf
}

/// The policy entries of today's report so far, by policy type.
async fn entries(world: &World, domain: &str) -> Vec<(String, Value)> {
    let report = world.daemon.json(&["report", "preview", domain]).await.remove(0);
    let policies = report["policies"].as_array().expect("policies").iter();
    policies
        .map(|entry| (entry["policy"]["policy-type"].as_str().expect("a type").to_owned(), entry.clone()))
        .collect()
}

/// The last attempt of a deferred item: host, rule and result.
fn last_attempt(item: &Value) -> (String, String, String) {
    let attempt = item["history"].as_array().and_then(|history| history.last()).expect("an attempt");
    let text = |key: &str| attempt[key].as_str().unwrap_or_default().to_owned();
    (text("host"), text("rule"), text("result"))
}

#[tokio::test]
async fn a_self_signed_certificate_is_enough_where_its_key_is_in_dns() {
    let world = signed_world(1, &[]).await;
    world.route("ee.test", 10, "mx.ee.test", 0);
    let leaf = with_ee(&world, "mx.ee.test", 0, Kind::SelfSigned, true);
    world.submit("a@home.test", &["b@ee.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    world.drained().await;
    let log = world.daemon.log();
    let line = log.lines().find(|line| line.contains("delivered=1")).expect("a line says so");
    assert!(line.contains("verified=\"dane\"") && line.contains("mx.ee.test"), "{line}");
    let (kind, entry) = entries(&world, "ee.test").await.remove(0);
    assert_eq!(kind, "tlsa", "{entry}");
    assert_eq!(entry["policy"]["policy-domain"], "mx.ee.test", "{entry}");
    let record: String = sha256(&leaf.spki()).iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(entry["policy"]["policy-string"][0], format!("3 1 1 {record}"), "{entry}");
    assert_eq!(entry["summary"]["total-successful-session-count"], 1, "{entry}");
}

#[tokio::test]
async fn a_host_that_does_not_match_sees_no_envelope_and_the_next_one_is_used() {
    let world = signed_world(2, &[]).await;
    world.route("two.test", 10, "mx1.two.test", 0);
    // Valid under PKIX, and yet not the one.
    with_ee(&world, "mx1.two.test", 0, Kind::Good, false);
    let id = world.submit("a@home.test", &["b@two.test"], &message("one")).await;
    let (host, rule, result) = last_attempt(&world.deferred(&id).await[0]);
    assert_eq!((host.as_str(), rule.as_str()), ("mx1.two.test", "dane"));
    assert!(result.contains("deferred: 4.7.") && result.contains("TLSA"), "{result}");
    world.route("two.test", 20, "mx2.two.test", 1);
    with_ee(&world, "mx2.two.test", 1, Kind::SelfSigned, true);
    let host = &world.farm.hosts[1];
    world.retry_until("the second host to get it", || !host.accepted().is_empty()).await;
    assert!(host.accepted()[0].tls && !world.farm.hosts[0].saw_mail());
    let entries = entries(&world, "two.test").await;
    let (_, first) = entries
        .iter()
        .find(|(_, entry)| entry["policy"]["policy-domain"] == "mx1.two.test")
        .expect("an entry");
    assert_eq!(first["failure-details"][0]["result-type"], "tlsa-invalid", "{first}");
}

#[tokio::test]
async fn records_that_were_mended_count_before_a_message_is_given_up() {
    let world = World::start(1, &[], "[delivery]\nretry = [\"1h\"]\nlifetime = \"4s\"\n").await;
    world.dns.authentic(true);
    world.dns.ttl(3600);
    world.route("ee.test", 10, "mx.ee.test", 0);
    let leaf = with_ee(&world, "mx.ee.test", 0, Kind::SelfSigned, false);
    let id = world.submit("a@home.test", &["b@ee.test"], &message("one")).await;
    world.deferred(&id).await;
    let owner = tlsa_owner(&world, "mx.ee.test");
    world.dns.remove(&owner, RecordType::TLSA);
    world.dns.tlsa(&owner, [3, 1, 1], &sha256(&leaf.spki()));
    // An hour before anybody would ask again, and seconds before it would bounce.
    world.arrivals(0, 1).await;
    world.drained().await;
}

#[tokio::test]
async fn a_host_whose_records_cannot_be_looked_up_is_not_connected_to() {
    let world = signed_world(2, &[]).await;
    world.route("fail.test", 10, "mx1.fail.test", 0);
    world.route("fail.test", 20, "mx2.fail.test", 1);
    for (index, mx) in ["mx1.fail.test", "mx2.fail.test"].iter().enumerate() {
        world.farm.hosts[index].behave(world.secured(&[mx], Kind::Good));
        world.dns.fault(&tlsa_owner(&world, mx), RecordType::TLSA, Some(Fault::ServFail));
    }
    let id = world.submit("a@home.test", &["b@fail.test"], &message("one")).await;
    let (_, rule, result) = last_attempt(&world.deferred(&id).await[0]);
    assert_eq!(rule, "dane lookup failed");
    assert!(result.contains("deferred: 4.7.") && result.contains("TLSA lookup"), "{result}");
    assert!(world.farm.hosts.iter().all(|host| host.log().connections == 0));
    // The second answers: no records there.
    world.dns.fault(&tlsa_owner(&world, "mx2.fail.test"), RecordType::TLSA, None);
    let host = &world.farm.hosts[1];
    world.retry_until("the second host to get it", || !host.accepted().is_empty()).await;
    assert_eq!(world.farm.hosts[0].log().connections, 0);
    let entries = entries(&world, "fail.test").await;
    let (_, first) = entries
        .iter()
        .find(|(_, entry)| entry["policy"]["policy-domain"] == "mx1.fail.test")
        .expect("an entry");
    assert_eq!(first["failure-details"][0]["result-type"], "dnssec-invalid", "{first}");
}

#[tokio::test]
async fn a_host_without_address_answer_costs_its_turn_only() {
    let world = signed_world(2, &[]).await;
    world.route("two.test", 10, "mx1.two.test", 0);
    world.route("two.test", 20, "mx2.two.test", 1);
    for kind in [RecordType::A, RecordType::AAAA] {
        world.dns.fault("mx1.two.test", kind, Some(Fault::Bogus));
    }
    with_ee(&world, "mx2.two.test", 1, Kind::SelfSigned, true);
    world.submit("a@home.test", &["b@two.test"], &message("one")).await;
    assert!(world.arrivals(1, 1).await[0].tls);
    assert_eq!(world.farm.hosts[0].log().connections, 0);
}

#[tokio::test]
async fn a_better_preference_counts_more_than_records() {
    let world = signed_world(2, &[]).await;
    world.route("order.test", 10, "mx1.order.test", 0);
    world.route("order.test", 20, "mx2.order.test", 1);
    world.farm.hosts[0].behave(Behaviour::clear());
    with_ee(&world, "mx2.order.test", 1, Kind::SelfSigned, true);
    world.submit("a@home.test", &["b@order.test"], &message("one")).await;
    assert!(!world.arrivals(0, 1).await[0].tls, "RFC 7672 §2.2.1");
    assert_eq!(world.farm.hosts[1].log().connections, 0);
}

#[tokio::test]
async fn a_domain_without_mx_records_has_its_records_at_its_own_name() {
    let world = signed_world(1, &[]).await;
    world.dns.address("bare.test", world.farm.hosts[0].ip);
    let leaf = with_ee(&world, "bare.test", 0, Kind::SelfSigned, false);
    let id = world.submit("a@home.test", &["b@bare.test"], &message("one")).await;
    let (host, rule, _) = last_attempt(&world.deferred(&id).await[0]);
    assert_eq!((host.as_str(), rule.as_str()), ("bare.test", "dane"));
    assert!(world.farm.hosts[0].accepted().is_empty());
    let owner = tlsa_owner(&world, "bare.test");
    world.dns.remove(&owner, RecordType::TLSA);
    world.dns.tlsa(&owner, [3, 1, 1], &sha256(&leaf.spki()));
    world.retry_until("it to arrive", || world.farm.hosts[0].accepted().len() == 1).await;
}

#[tokio::test]
async fn records_that_cannot_be_used_make_tls_mandatory_and_nothing_more() {
    let world = signed_world(2, &[]).await;
    for (index, domain) in ["clear.test", "odd.test"].iter().enumerate() {
        let mx = format!("mx.{domain}");
        world.route(domain, 10, &mx, index);
        world.dns.tlsa(&tlsa_owner(&world, &mx), [1, 1, 1], &[7; 32]);
    }
    world.farm.hosts[1].behave(world.secured(&["elsewhere.test"], Kind::SelfSigned));
    let id = world.submit("a@home.test", &["b@clear.test"], &message("one")).await;
    world.submit("a@home.test", &["b@odd.test"], &message("two")).await;
    assert!(world.arrivals(1, 1).await[0].tls);
    let (_, rule, result) = last_attempt(&world.deferred(&id).await[0]);
    assert_eq!(rule, "dane with unusable records");
    assert!(result.contains("STARTTLS"), "{result}");
    assert!(!world.farm.hosts[0].saw_mail());
    let (kind, entry) = entries(&world, "odd.test").await.remove(0);
    assert_eq!(
        (kind.as_str(), &entry["failure-details"][0]["result-type"]),
        ("tlsa", &"tlsa-invalid".into())
    );
}

#[tokio::test]
async fn an_open_connection_carries_nothing_more_once_the_records_say_otherwise() {
    let world = signed_world(1, &[]).await;
    world.dns.ttl(0);
    world.route("rolled.test", 10, "mx.rolled.test", 0);
    with_ee(&world, "mx.rolled.test", 0, Kind::SelfSigned, true);
    for (number, text) in ["one", "two"].iter().enumerate() {
        world.submit("a@home.test", &["b@rolled.test"], &message(text)).await;
        world.arrivals(0, number + 1).await;
        world.drained().await;
    }
    let host = &world.farm.hosts[0];
    assert_eq!(host.log().connections, 1, "the second message used the connection of the first");
    let owner = tlsa_owner(&world, "mx.rolled.test");
    world.dns.remove(&owner, RecordType::TLSA);
    world.dns.tlsa(&owner, [3, 1, 1], &[7; 32]);
    let id = world.submit("a@home.test", &["b@rolled.test"], &message("three")).await;
    let (_, rule, result) = last_attempt(&world.deferred(&id).await[0]);
    assert_eq!(rule, "dane");
    assert!(result.contains("TLSA"), "{result}");
    assert_eq!((host.log().connections, host.log().arrivals.len()), (2, 2));
}

#[tokio::test]
async fn of_an_alias_the_end_is_the_base_domain_and_mta_sts_still_goes_by_the_mx_record() {
    let world = signed_world(1, &["alias.test"]).await;
    world.dns.mx("alias.test", 10, "mx.alias.test");
    world.dns.cname("mx.alias.test", "real.host.test");
    world.dns.address("real.host.test", world.farm.hosts[0].ip);
    world.publish("alias.test", "1", "enforce", &["mx.alias.test"], DAY);
    let leaf = world.pki.leaf(&["mx.alias.test"], Kind::Good);
    world.farm.hosts[0].behave(Behaviour::with(leaf.server_config()));
    world.dns.tlsa(&tlsa_owner(&world, "real.host.test"), [3, 0, 1], &sha256(&leaf.certificate_der()));
    world.submit("a@home.test", &["b@alias.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    world.drained().await;
    let mut entries = entries(&world, "alias.test").await;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let domains: Vec<_> = entries
        .iter()
        .map(|(kind, entry)| (kind.as_str(), entry["policy"]["policy-domain"].clone()))
        .collect();
    assert_eq!(domains, [("sts", "alias.test".into()), ("tlsa", "real.host.test".into())]);
    assert!(entries.iter().all(|(_, entry)| entry["summary"]["total-successful-session-count"] == 1));
}

#[tokio::test]
async fn an_unsigned_domain_at_a_signed_host_is_protected_and_the_log_promises_no_more() {
    let world = signed_world(2, &[]).await;
    world.dns.unsigned("away.test");
    world.route("away.test", 10, "mx1.signed.test", 0);
    world.route("away.test", 20, "mx2.signed.test", 1);
    with_ee(&world, "mx1.signed.test", 0, Kind::Good, false);
    with_ee(&world, "mx2.signed.test", 1, Kind::SelfSigned, true);
    world.submit("a@home.test", &["b@away.test"], &message("one")).await;
    world.arrivals(1, 1).await;
    world.drained().await;
    assert!(!world.farm.hosts[0].saw_mail());
    let log = world.daemon.log();
    let line = log.lines().find(|line| line.contains("delivered=1")).expect("a line says so");
    assert!(line.contains("verified=\"dane, mx host only\""), "{line}");
}

#[tokio::test]
async fn an_unsigned_host_is_not_asked_for_records_even_under_a_signed_domain() {
    let world = signed_world(1, &[]).await;
    world.dns.unsigned("mx.hosted.test");
    world.good_domain("hosted.test", 0);
    let owner = tlsa_owner(&world, "mx.hosted.test");
    world.dns.fault(&owner, RecordType::TLSA, Some(Fault::ServFail));
    world.submit("a@home.test", &["b@hosted.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    assert_eq!(world.dns.asked(&owner, RecordType::TLSA), 0);
}

#[tokio::test]
async fn without_dnssec_records_mean_nothing() {
    let world = World::start(1, &[], "").await;
    world.route("plain.test", 10, "mx.plain.test", 0);
    with_ee(&world, "mx.plain.test", 0, Kind::SelfSigned, false);
    world.submit("a@home.test", &["b@plain.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    assert_eq!(world.dns.asked(&tlsa_owner(&world, "mx.plain.test"), RecordType::TLSA), 0);
}

#[tokio::test]
async fn where_mta_sts_enforces_too_both_must_pass_and_both_are_reported() {
    let world = signed_world(1, &["both.test"]).await;
    world.route("both.test", 10, "mx.both.test", 0);
    world.publish("both.test", "1", "enforce", &["mx.both.test"], DAY);
    with_ee(&world, "mx.both.test", 0, Kind::SelfSigned, true);
    let id = world.submit("a@home.test", &["b@both.test"], &message("one")).await;
    let (_, rule, result) = last_attempt(&world.deferred(&id).await[0]);
    assert_eq!(rule, "dane and mta-sts enforce");
    assert!(result.contains("not trusted"), "{result}");
    // Now PKIX would do, and the key in DNS is still the old one.
    let leaf = world.pki.leaf(&["mx.both.test"], Kind::Good);
    world.farm.hosts[0].behave(Behaviour::with(leaf.server_config()));
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    support::eventually("the mismatch to be seen", || async {
        let item = world.deferred(&id).await.remove(0);
        last_attempt(&item).2.contains("TLSA").then_some(())
    })
    .await;
    assert!(!world.farm.hosts[0].saw_mail());
    let owner = tlsa_owner(&world, "mx.both.test");
    world.dns.remove(&owner, RecordType::TLSA);
    // By its issuer this time, shown in DNS only.
    world.dns.tlsa(&owner, [2, 0, 0], &world.pki.root_der());
    let host = &world.farm.hosts[0];
    world.retry_until("the mail to arrive", || !host.accepted().is_empty()).await;
    let kinds: Vec<String> = entries(&world, "both.test").await.into_iter().map(|(kind, _)| kind).collect();
    assert!(kinds.contains(&"tlsa".to_owned()) && kinds.contains(&"sts".to_owned()), "{kinds:?}");
}
