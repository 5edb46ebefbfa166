//! How mail goes out: hosts with limits, connections that end, what a message needs, local rules.

mod support;

use std::collections::HashSet;

use hickory_proto::rr::RecordType;

use support::client::{Client, message, queue_id};
use support::mx::Behaviour;
use support::pki::Kind;
use support::reader::Entity;
use support::world::World;

const DAY: u32 = 86_400;

fn without(extension: &str) -> Behaviour {
    let mut behaviour = Behaviour::clear();
    behaviour.extensions.retain(|offered| !offered.starts_with(extension));
    behaviour
}

#[tokio::test]
async fn a_connection_that_ends_between_messages_delays_none_of_them() {
    let world = World::start(2, &[], "[delivery]\nconcurrency_per_destination = 1\n").await;
    world.good_domain("limited.test", 0);
    world.farm.hosts[0].adjust(|mx| mx.messages_max = 3);
    world.good_domain("cut.test", 1);
    let mut client = Client::connect(world.daemon.smarthost).await;
    for number in 0..20 {
        queue_id(&client.submit("a@home.test", &["b@limited.test"], &message(&number.to_string())).await);
    }
    world.arrivals(0, 20).await;
    assert!(world.farm.hosts[0].log().connections >= 7);
    for number in 1..=2 {
        world.submit("a@home.test", &["b@cut.test"], &message(&number.to_string())).await;
        world.arrivals(1, number).await;
        // The idle connection dies; nobody is listening for a moment, and nobody is asked meanwhile.
        world.farm.hosts[1].down();
        world.farm.hosts[1].up().await;
    }
    world.drained().await;
    let log = world.daemon.log();
    assert!(!log.contains("deferred"), "{log}");
}

#[tokio::test]
async fn recipients_beyond_a_hosts_limit_follow_in_further_transactions() {
    let world = World::start(1, &[], "").await;
    world.good_domain("many.test", 0);
    world.farm.hosts[0].adjust(|mx| mx.rcpts_max = 7);
    let addresses: Vec<String> = (0..230).map(|number| format!("u{number}@many.test")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.submit("a@home.test", &addresses, &message("all")).await;
    world.drained().await;
    let arrivals = world.farm.hosts[0].accepted();
    let rcpts: Vec<String> = arrivals.iter().flat_map(|arrival| arrival.rcpts.clone()).collect();
    assert_eq!(rcpts.len(), 230);
    assert_eq!(rcpts.iter().collect::<HashSet<_>>().len(), 230, "nobody twice");
    assert!(!world.daemon.log().contains("deferred"), "{}", world.daemon.log());
}

#[tokio::test]
async fn a_domain_without_mx_is_its_own_host_under_its_policy_too() {
    let world = World::start(2, &["plain.test", "strict.test"], "").await;
    for (index, domain) in ["plain.test", "strict.test"].iter().enumerate() {
        world.dns.address(domain, world.farm.hosts[index].ip);
        world.farm.hosts[index].behave(world.secured(&[domain], Kind::Good));
        world.publish(domain, "1", "enforce", &[domain], DAY);
    }
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], DAY);
    let id = world.submit("a@home.test", &["b@plain.test", "b@strict.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    world.drained_but(&id).await;
    assert_eq!(world.farm.hosts[1].log().connections, 0);
}

#[tokio::test]
async fn mail_to_an_address_literal_goes_there_and_dns_is_asked_nothing() {
    let world = World::start(1, &[], "").await;
    let before = world.dns.questions();
    let to = format!("b@[{}]", world.farm.hosts[0].ip);
    world.submit("a@home.test", &[&to], &message("one")).await;
    let rcpts = world.arrivals(0, 1).await.remove(0).rcpts;
    assert!(rcpts.len() == 1 && rcpts[0].contains(&to), "{rcpts:?}");
    world.drained().await;
    // RFC 8461 §3.4: without a domain there is no policy domain.
    assert_eq!(world.dns.questions(), before);
}

#[tokio::test]
async fn a_relay_that_finds_itself_among_the_hosts_goes_no_further_down_the_list() {
    let world = World::start(2, &[], "").await;
    world.good_domain("home.test", 1);
    world.dns.mx("loop.test", 10, "relay.world.test");
    world.dns.address("relay.world.test", world.farm.hosts[0].ip);
    world.route("loop.test", 20, "mx.loop.test", 0);
    world.submit("a@home.test", &["b@loop.test"], &message("round")).await;
    let bounce = world.arrivals(1, 1).await.remove(0);
    assert!(bounce.text().contains("Status: 5.4.6"), "{}", bounce.text());
    assert_eq!(world.farm.hosts[0].log().connections, 0);
}

#[tokio::test]
async fn what_a_message_needs_and_no_host_offers_brings_it_back() {
    let world = World::start(4, &[], "").await;
    world.good_domain("home.test", 0);
    world.good_domain("ascii.test", 1);
    world.good_domain("seven.test", 2);
    world.good_domain("small.test", 3);
    world.farm.hosts[1].behave(without("SMTPUTF8"));
    world.farm.hosts[2].behave(without("8BITMIME"));
    world.farm.hosts[3].behave(Behaviour {
        extensions: vec!["SIZE 1000".to_owned(), "8BITMIME".to_owned()],
        ..Behaviour::clear()
    });
    let mut client = Client::connect(world.daemon.smarthost).await;
    let eight_bit = "Subject: eight\r\n\r\nGr\u{fc}\u{df}e\r\n";
    let large = format!("{}{}", message("large"), "0123456789abcdef\r\n".repeat(100));
    queue_id(&client.submit("<a@home.test> SMTPUTF8", &["gr\u{fc}n@ascii.test"], &message("utf8")).await);
    queue_id(&client.submit("<a@home.test> BODY=8BITMIME", &["b@seven.test"], eight_bit).await);
    queue_id(&client.submit("a@home.test", &["b@small.test"], &large).await);
    let arrivals = world.arrivals(0, 3).await;
    let all: String = arrivals.iter().map(support::mx::Arrival::text).collect();
    for status in ["Status: 5.6.7", "Status: 5.6.3", "Status: 5.3.4"] {
        assert!(all.contains(status), "{status} is missing: {all}");
    }
    world.drained().await;
    for host in &world.farm.hosts[1..] {
        assert!(host.log().arrivals.is_empty());
    }
}

#[tokio::test]
async fn a_confirmation_is_asked_of_hosts_that_give_them_and_given_by_us_for_the_others() {
    let world = World::start(3, &[], "").await;
    world.good_domain("home.test", 0);
    world.good_domain("dsn.test", 1);
    world.good_domain("old.test", 2);
    world.farm.hosts[1].adjust(|mx| mx.extensions.push("DSN".to_owned()));
    let notify = |domain: &str| format!("<b@{domain}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;c@first.test");
    let to = [notify("dsn.test"), notify("old.test")];
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    world.submit("<a@home.test> RET=HDRS ENVID=e1", &to, &message("one")).await;
    let passed_on = world.arrivals(1, 1).await.remove(0);
    assert!(passed_on.mail.contains("RET=HDRS") && passed_on.mail.contains("ENVID=e1"), "{}", passed_on.mail);
    let rcpt = &passed_on.rcpts[0];
    assert!(rcpt.contains("NOTIFY=SUCCESS,FAILURE") && rcpt.contains("ORCPT=rfc822;c@first.test"), "{rcpt}");
    assert!(!world.arrivals(2, 1).await[0].rcpts[0].contains("NOTIFY"));
    let notice = Entity::read(&world.arrivals(0, 1).await[0].content);
    let status = notice.parts[1].text();
    assert!(status.contains("Action: relayed") && status.contains("rfc822; b@old.test"), "{status}");
    assert!(!status.contains("dsn.test"), "{status}");
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().arrivals.len(), 1);
}

#[tokio::test]
async fn local_rules_raise_the_bar_and_only_ignore_sts_lowers_it() {
    let rule = |domain: &str, require: &str| {
        format!("[[policy.override]]\ndomain = \"{domain}\"\nrequire = \"{require}\"\nreason = \"a test\"\n")
    };
    let extra = [
        rule("encrypt.test", "encrypt"),
        rule("verify.test", "verify"),
        rule("ignore.test", "ignore-sts"),
        rule("testing.test", "verify"),
    ];
    let world = World::start(4, &["ignore.test", "testing.test"], &extra.concat()).await;
    let domains = ["encrypt.test", "verify.test", "ignore.test", "testing.test"];
    for (index, domain) in domains.iter().enumerate() {
        world.route(domain, 10, &format!("mx.{domain}"), index);
    }
    world.farm.hosts[1].behave(world.secured(&["mx.verify.test"], Kind::SelfSigned));
    world.farm.hosts[3].behave(world.secured(&["mx.testing.test"], Kind::SelfSigned));
    world.publish("ignore.test", "1", "enforce", &["mx.ignore.test"], DAY);
    world.publish("testing.test", "1", "testing", &["mx.testing.test"], DAY);
    let mut ids = Vec::new();
    for domain in domains {
        ids.push(world.submit("a@home.test", &[&format!("b@{domain}")], &message(domain)).await);
    }
    assert!(!world.arrivals(2, 1).await[0].tls);
    for index in [0, 1, 3] {
        let item = world.deferred(&ids[index]).await.remove(0);
        assert_eq!(item["history"][0]["rule"], "local override", "{item}");
        assert!(!world.farm.hosts[index].saw_mail());
        world.farm.hosts[index].behave(world.secured(&[&format!("mx.{}", domains[index])], Kind::SelfSigned));
    }
    world.farm.hosts[3].behave(world.secured(&["mx.testing.test"], Kind::Good));
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    assert!(world.arrivals(0, 1).await[0].tls, "encrypt asks for no more");
    assert!(world.arrivals(3, 1).await[0].tls);
    assert!(!world.farm.hosts[1].saw_mail());
}

#[tokio::test]
async fn a_policy_is_over_when_its_time_is_over() {
    let world = World::start(1, &["short.test"], "").await;
    world.route("short.test", 10, "mx.short.test", 0);
    world.publish("short.test", "1", "enforce", &["mx.short.test"], 3);
    let id = world.submit("a@home.test", &["b@short.test"], &message("one")).await;
    world.deferred(&id).await;
    world.dns.remove("_mta-sts.short.test", RecordType::TXT);
    let host = &world.farm.hosts[0];
    let expiry = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
    world.retry_until("the mail to arrive", || !host.accepted().is_empty()).await;
    assert!(tokio::time::Instant::now() > expiry, "not before");
}

#[tokio::test]
async fn a_dead_destination_holds_up_no_other() {
    let extra = "[delivery]\nconcurrency = 4\nconcurrency_per_destination = 2\n";
    let world = World::start(2, &[], extra).await;
    world.good_domain("stuck.test", 0);
    world.farm.hosts[0].adjust(|mx| mx.dot_after = std::time::Duration::from_secs(20));
    world.good_domain("fine.test", 1);
    let mut client = Client::connect(world.daemon.smarthost).await;
    for number in 0..150 {
        queue_id(&client.submit("a@home.test", &["b@stuck.test"], &message(&number.to_string())).await);
    }
    for number in 0..10 {
        queue_id(&client.submit("a@home.test", &["b@fine.test"], &message(&number.to_string())).await);
    }
    world.arrivals(1, 10).await;
    assert!(world.farm.hosts[0].accepted().len() <= 2, "the stuck host was still stuck");
    assert!(world.farm.hosts[0].log().connections <= 2);
}
