//! What a message itself asks of TLS (RFC 8689): REQUIRETLS and `TLS-Required: No`, from the submitter
//! to the MX hosts, through restarts, in bounces and in the reports of the domains.

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use support::client::{Client, message, queue_id};
use support::daemon::HOSTNAME;
use support::dns::Fault;
use support::mx::{Behaviour, StartTls};
use support::pki::Kind;
use support::reader::Entity;
use support::world::World;

use hickory_proto::rr::RecordType;

const DAY: u32 = 86_400;
const FROM: &str = "<a@home.test> REQUIRETLS";

/// The sender's domain at host 0, everything signed; the other hosts are the story's.
async fn world(hosts: u8, policies: &[&str], extra: &str) -> World {
    let world = World::start(hosts, policies, extra).await;
    world.dns.authentic(true);
    world.good_domain("home.test", 0);
    world
}

/// A sane host that offers REQUIRETLS.
fn offering(world: &World, mx: &str, kind: Kind) -> Behaviour {
    let mut behaviour = world.secured(&[mx], kind);
    behaviour.extensions.push("REQUIRETLS".to_owned());
    behaviour
}

/// Submits as a user inside TLS.
async fn submit(world: &World, from: &str, to: &str, content: &str) -> String {
    let mut client = Client::connect_tls(world.daemon.submissions, world.pki.root_der(), HOSTNAME).await;
    let login = STANDARD.encode("\0alice\0secret");
    assert!(client.say(&format!("AUTH PLAIN {login}")).await.starts_with("235"));
    let reply = client.submit(from, &[to], content).await;
    client.say("QUIT").await;
    queue_id(&reply)
}

/// The status fields of the bounce that host 0 has got, and its words on one line.
async fn bounce(world: &World) -> (String, String, String) {
    let arrival = world.arrivals(0, 1).await.remove(0);
    assert!(arrival.mail.starts_with("MAIL FROM:<>"), "{}", arrival.mail);
    let bounce = Entity::read(&arrival.content);
    assert_eq!(bounce.kind(), "multipart/report");
    let words = bounce.parts[0].text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(bounce.parts[2].kind(), "text/rfc822-headers", "never the body");
    (arrival.mail, bounce.parts[1].text().to_owned(), words)
}

fn last_result(item: &Value) -> String {
    let attempt = item["history"].as_array().and_then(|history| history.last()).expect("an attempt");
    attempt["result"].as_str().expect("a sentence").to_owned()
}

#[tokio::test]
async fn the_parameter_reaches_the_first_host_that_offers_it_and_is_verified() {
    let world = world(5, &["away.test"], "").await;
    let names = ["mx1", "mx2", "mx3", "mx4"].map(|name| format!("{name}.away.test"));
    for (index, name) in names.iter().enumerate() {
        world.route("away.test", 10 * (index as u16 + 1), name, index + 1);
    }
    let host = |index: usize| &world.farm.hosts[index + 1];
    host(0).behave(Behaviour::clear());
    host(1).behave(world.secured(&[&names[1]], Kind::Good));
    host(2).behave(offering(&world, &names[2], Kind::SelfSigned));
    host(3).behave(offering(&world, &names[3], Kind::Good));
    submit(&world, FROM, "b@away.test", &message("one")).await;
    let arrival = world.arrivals(4, 1).await.remove(0);
    assert!(arrival.tls && arrival.mail.ends_with(" REQUIRETLS"), "{}", arrival.mail);
    world.drained().await;
    for index in 0..3 {
        let log = host(index).log();
        assert!(!log.commands.iter().any(|line| line.starts_with("MAIL")), "{index}: {:?}", log.commands);
        // The first is left politely; other mail may still use the second one's connection, and the third
        // proved nothing, so nothing is said to it any more.
        let left = log.commands.last().map(String::as_str) == Some("QUIT");
        assert!(left || index != 0, "{index}: {:?}", log.commands);
    }
    // The same hosts are good enough for mail that asks for nothing, and the parameter is not added.
    world.submit("a@home.test", &["b@away.test"], &message("two")).await;
    assert!(!world.arrivals(1, 1).await[0].mail.contains("REQUIRETLS"));
}

#[tokio::test]
async fn where_no_host_offers_it_the_message_bounces_with_its_code_and_its_words() {
    let world = world(2, &[], "").await;
    world.route("away.test", 10, "mx.away.test", 1);
    world.farm.hosts[1].behave(world.secured(&["mx.away.test"], Kind::Good));
    submit(&world, &format!("{FROM} RET=FULL"), "b@away.test", &message("one")).await;
    let (mail, status, words) = bounce(&world).await;
    assert!(status.contains("Status: 5.7.30") && !status.contains("Diagnostic-Code"), "{status}");
    for part in ["mx.away.test", "REQUIRETLS", "<b@away.test>", "requiretls"] {
        assert!(words.contains(part), "{part} is missing: {words}");
    }
    // The sender's host does not offer it either: the bounce is not lost for that.
    assert!(!mail.contains("REQUIRETLS"), "{mail}");
    assert!(!world.farm.hosts[1].saw_mail());
    world.drained().await;
    assert!(world.daemon.log().contains("goes without"), "{}", world.daemon.log());
}

#[tokio::test]
async fn an_operator_sees_what_a_waiting_message_asks_of_tls() {
    let world = world(1, &[], "").await;
    world.farm.hosts[0].adjust(|mx| {
        mx.extensions.push("REQUIRETLS".to_owned());
        mx.replies.push(("RCPT".to_owned(), "451 4.3.0 later".to_owned()));
    });
    let header = |header: &str| format!("{header}{}", message("one"));
    for (from, content, asks, words) in [
        (FROM, message("one"), Value::from("requiretls"), "REQUIRETLS: goes only over verified TLS"),
        ("<a@home.test>", header("TLS-Required: No\r\n"), "tls-required-no".into(), "TLS-Required: No: goes"),
        ("<a@home.test>", message("one"), Value::Null, ""),
    ] {
        let id = submit(&world, from, "b@home.test", &content).await;
        let items = world.deferred(&id).await;
        assert_eq!(items[0]["asks"], asks);
        let said = world.daemon.ask(&["queue", "show", &id]).await;
        assert!(said.contains(words) && said.contains("  asks ") != words.is_empty(), "{said}");
    }
}

#[tokio::test]
async fn a_bounce_of_a_protected_message_is_protected_where_that_is_possible() {
    let world = world(2, &[], "").await;
    world.farm.hosts[0].behave(offering(&world, "mx.home.test", Kind::Good));
    world.route("away.test", 10, "mx.away.test", 1);
    let refusing = offering(&world, "mx.away.test", Kind::Good).answering("RCPT", "550 5.1.1 nobody");
    world.farm.hosts[1].behave(refusing);
    submit(&world, FROM, "b@away.test", &message("one")).await;
    let (mail, status, _) = bounce(&world).await;
    assert!(mail.ends_with(" REQUIRETLS"), "{mail}");
    assert!(status.contains("Status: 5.1.1"), "{status}");
    world.drained().await;
}

#[tokio::test]
async fn a_host_without_tls_bounces_it_and_one_that_would_not_now_delays_it() {
    let world = world(3, &[], "").await;
    world.route("never.test", 10, "mx.never.test", 1);
    world.farm.hosts[1].behave(Behaviour::clear());
    world.route("later.test", 10, "mx.later.test", 2);
    world.farm.hosts[2].behave(Behaviour { starttls: StartTls::Refused, ..Behaviour::clear() });
    submit(&world, FROM, "b@never.test", &message("one")).await;
    let (_, status, words) = bounce(&world).await;
    assert!(status.contains("Status: 5.7.10") && words.contains("STARTTLS"), "{status}{words}");
    let id = submit(&world, FROM, "b@later.test", &message("two")).await;
    let result = last_result(&world.deferred(&id).await[0]);
    assert!(result.contains("454"), "{result}");
    assert!(!world.farm.hosts[1].saw_mail() && !world.farm.hosts[2].saw_mail());
}

#[tokio::test]
async fn only_dnssec_or_an_enforced_policy_vouches_for_a_host() {
    let world = world(4, &["strict.test", "trial.test"], "").await;
    world.dns.authentic(false);
    for (index, domain) in ["bare.test", "trial.test", "strict.test"].iter().enumerate() {
        let mx = format!("mx.{domain}");
        world.route(domain, 10, &mx, index + 1);
        world.farm.hosts[index + 1].behave(offering(&world, &mx, Kind::Good));
    }
    world.publish("trial.test", "1", "testing", &["mx.trial.test"], DAY);
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], DAY);
    for domain in ["bare.test", "trial.test", "strict.test"] {
        submit(&world, FROM, &format!("b@{domain}"), &message(domain)).await;
    }
    assert!(world.arrivals(3, 1).await[0].mail.ends_with(" REQUIRETLS"));
    for arrival in world.arrivals(0, 2).await {
        assert!(arrival.text().contains("Status: 5.7.30"), "{}", arrival.text());
    }
    world.drained().await;
    assert_eq!(world.farm.hosts[1].log().connections + world.farm.hosts[2].log().connections, 0);
}

#[tokio::test]
async fn trouble_is_no_verdict_and_the_request_survives_a_kill() {
    let mut world = world(3, &["unsure.test"], "").await;
    world.dns.authentic(false);
    // Nobody knows whether a policy vouches: DNS does not say, or its host does not answer.
    world.route("unsure.test", 10, "mx.unsure.test", 1);
    world.farm.hosts[1].behave(offering(&world, "mx.unsure.test", Kind::Good));
    world.dns.set_txt("_mta-sts.unsure.test", "v=STSv1; id=1;");
    let unsure = submit(&world, FROM, "b@unsure.test", &message("one")).await;
    world.deferred(&unsure).await;
    world.dns.authentic(true);
    // A host that drops the connection may be better tomorrow.
    world.route("shy.test", 10, "mx.shy.test", 2);
    world.farm.hosts[2].behave(Behaviour {
        drop_at: Some("connect".to_owned()),
        ..offering(&world, "mx.shy.test", Kind::Good)
    });
    let shy = submit(&world, FROM, "b@shy.test", &message("two")).await;
    world.deferred(&shy).await;
    assert_eq!(world.farm.hosts[1].log().connections, 0);
    world.daemon.restart().await;
    world.publish("unsure.test", "2", "enforce", &["mx.unsure.test"], DAY);
    for (index, name) in [(1, "mx.unsure.test"), (2, "mx.shy.test")] {
        world.farm.hosts[index].behave(offering(&world, name, Kind::Good));
    }
    let done = || [1, 2].iter().all(|index: &usize| !world.farm.hosts[*index].accepted().is_empty());
    world.retry_until("both messages to arrive", done).await;
    for index in [1, 2] {
        let arrival = world.farm.hosts[index].accepted().remove(0);
        assert!(arrival.tls && arrival.mail.ends_with(" REQUIRETLS"), "{}", arrival.mail);
    }
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().connections, 0, "no bounce");
}

#[tokio::test]
async fn in_clear_the_parameter_is_not_taken_and_not_offered() {
    let world = world(1, &[], "").await;
    let mut client = Client::connect(world.daemon.smarthost).await;
    let hello = client.say("EHLO client.world.test").await;
    assert!(!hello.contains("REQUIRETLS"), "{hello}");
    let reply = client.say("MAIL FROM:<a@home.test> REQUIRETLS").await;
    assert!(reply.starts_with("550 5.7.10"), "{reply}");
    let client = Client::connect(world.daemon.submission).await;
    let (mut client, hello) = client.starttls(world.pki.root_der(), HOSTNAME).await;
    assert!(hello.contains("REQUIRETLS"), "{hello}");
    client.say(&format!("AUTH PLAIN {}", STANDARD.encode("\0alice\0secret"))).await;
    let reply = client.say("MAIL FROM:<a@home.test> REQUIRETLS=x").await;
    assert!(reply.starts_with("501 5.5.4"), "{reply}");
}

fn unimportant(subject: &str) -> String {
    format!("TLS-Required: No\r\n{}", message(subject))
}

/// The one policy entry of today's report so far.
async fn preview(world: &World, domain: &str) -> Value {
    let report = world.daemon.json(&["report", "preview", domain]).await.remove(0);
    let policies = report["policies"].as_array().expect("policies").clone();
    assert_eq!(policies.len(), 1, "{report}");
    policies[0].clone()
}

#[tokio::test]
async fn tls_required_no_gets_past_everything_a_domain_demands_and_its_owner_hears_of_it() {
    let world = world(5, &["expired.test", "unlisted.test"], "").await;
    world.dns.authentic(false);
    for (index, domain) in ["expired.test", "unlisted.test", "garbage.test"].iter().enumerate() {
        world.route(domain, 10, &format!("mx.{domain}"), index + 1);
    }
    world.farm.hosts[1].behave(world.secured(&["mx.expired.test"], Kind::Expired));
    world.farm.hosts[2].behave(world.secured(&["mx.unlisted.test"], Kind::Good));
    world.farm.hosts[3].behave(Behaviour { starttls: StartTls::Garbage, ..Behaviour::clear() });
    world.publish("expired.test", "1", "enforce", &["mx.expired.test"], DAY);
    world.publish("unlisted.test", "1", "enforce", &["elsewhere.test"], DAY);
    // A smarthost in clear is enough: the header is in the message.
    for domain in ["expired.test", "unlisted.test", "garbage.test"] {
        world.submit("a@home.test", &[&format!("b@{domain}")], &unimportant(domain)).await;
    }
    assert!(world.arrivals(1, 1).await[0].tls, "TLS is tried");
    assert!(world.arrivals(2, 1).await[0].tls);
    let clear = world.arrivals(3, 1).await.remove(0);
    assert!(!clear.tls && clear.text().contains("\r\nTLS-Required: No\r\n"), "{}", clear.text());
    world.drained().await;
    for (domain, result_type) in
        [("expired.test", "certificate-expired"), ("unlisted.test", "validation-failure")]
    {
        let entry = preview(&world, domain).await;
        assert_eq!(entry["policy"]["policy-type"], "sts", "{entry}");
        assert_eq!(entry["summary"]["total-failure-session-count"], 1, "{entry}");
        assert_eq!(entry["failure-details"][0]["result-type"], result_type, "{entry}");
    }
    // What mail without the header is held back by.
    let id = world.submit("a@home.test", &["b@expired.test"], &message("held")).await;
    world.deferred(&id).await;
}

#[tokio::test]
async fn neither_a_failing_tlsa_lookup_nor_a_policy_nobody_can_ask_for_stops_it_but_the_operator_does() {
    let extra = "[[policy.override]]\ndomain = \"local.test\"\nrequire = \"verify\"\nreason = \"ours\"\n";
    let world = world(4, &[], extra).await;
    for (index, domain) in ["dane.test", "dark.test", "local.test"].iter().enumerate() {
        let mx = format!("mx.{domain}");
        world.route(domain, 10, &mx, index + 1);
        world.farm.hosts[index + 1].behave(world.secured(&[&mx], Kind::SelfSigned));
    }
    let tlsa = format!("_{}._tcp.mx.dane.test", world.farm.port);
    world.dns.fault(&tlsa, RecordType::TLSA, Some(Fault::ServFail));
    world.dns.fault("_mta-sts.dark.test", RecordType::TXT, Some(Fault::ServFail));
    for domain in ["dane.test", "dark.test"] {
        world.submit("a@home.test", &[&format!("b@{domain}")], &unimportant(domain)).await;
    }
    assert!(world.arrivals(1, 1).await[0].tls && world.arrivals(2, 1).await[0].tls);
    let entry = preview(&world, "dane.test").await;
    assert_eq!(entry["failure-details"][0]["result-type"], "dnssec-invalid", "{entry}");
    let id = world.submit("a@home.test", &["b@local.test"], &unimportant("three")).await;
    let item = world.deferred(&id).await.remove(0);
    assert!(last_result(&item).contains("the local rule \"verify\" for local.test (ours)"), "{item}");
    assert!(!world.farm.hosts[3].saw_mail());
}
