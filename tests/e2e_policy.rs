//! MTA-STS as a recipient domain sees it: what reaches its hosts under enforce, testing and no policy.

mod support;

use serde_json::Value;

use support::client::message;
use support::mx::{Behaviour, StartTls};
use support::pki::{Kind, Pki};
use support::world::World;

const DAY: u32 = 86_400;

/// One way for an MX host to fail a policy.
struct Broken {
    /// Also the first label of its domain.
    name: &'static str,
    behaviour: fn(&Pki, mx: &str) -> Behaviour,
    /// RFC 8460 §4.3.
    result_type: &'static str,
    /// What an operator reads.
    words: &'static str,
    /// Whether mail comes over TLS where nothing forbids it.
    tls: bool,
}

fn with(pki: &Pki, name: &str, kind: Kind) -> Behaviour {
    Behaviour::with(pki.leaf(&[name], kind).server_config())
}

fn starttls(starttls: StartTls) -> Behaviour {
    Behaviour { starttls, ..Behaviour::clear() }
}

const BROKEN: [Broken; 9] = [
    Broken {
        name: "stripped",
        behaviour: |_, _| Behaviour::clear(),
        result_type: "starttls-not-supported",
        words: "STARTTLS",
        tls: false,
    },
    Broken {
        name: "refused",
        behaviour: |_, _| starttls(StartTls::Refused),
        result_type: "starttls-not-supported",
        words: "454",
        tls: false,
    },
    Broken {
        name: "expired",
        behaviour: |pki, mx| with(pki, mx, Kind::Expired),
        result_type: "certificate-expired",
        words: "expired",
        tls: true,
    },
    Broken {
        name: "selfsigned",
        behaviour: |pki, mx| with(pki, mx, Kind::SelfSigned),
        result_type: "certificate-not-trusted",
        words: "not trusted",
        tls: true,
    },
    Broken {
        name: "othername",
        // RFC 8461 §4.2: the recipient domain is not the name that counts.
        behaviour: |pki, _| with(pki, "othername.test", Kind::Good),
        result_type: "certificate-host-mismatch",
        words: "does not name the host",
        tls: true,
    },
    Broken {
        name: "cnonly",
        behaviour: |pki, mx| with(pki, mx, Kind::CommonNameOnly),
        result_type: "certificate-host-mismatch",
        words: "does not name the host",
        tls: true,
    },
    Broken {
        name: "injected",
        behaviour: |pki, mx| starttls(StartTls::Injected(pki.leaf(&[mx], Kind::Good).server_config())),
        result_type: "validation-failure",
        words: "injected",
        tls: false,
    },
    Broken {
        name: "garbage",
        behaviour: |_, _| starttls(StartTls::Garbage),
        result_type: "validation-failure",
        words: "handshake",
        tls: false,
    },
    Broken {
        name: "unlisted",
        behaviour: |pki, mx| with(pki, mx, Kind::Good),
        result_type: "validation-failure",
        words: "not listed",
        tls: true,
    },
];

impl Broken {
    fn domain(&self) -> String {
        format!("{}.test", self.name)
    }

    fn mx(&self) -> String {
        format!("mx.{}", self.domain())
    }

    /// Publishes the policy; it lists the broken host unless that is what is wrong.
    fn publish(&self, world: &World, mode: &str, further: &[&str]) {
        let own = if self.name == "unlisted" { "elsewhere.test".to_owned() } else { self.mx() };
        world.publish(&self.domain(), "1", mode, &[&[own.as_str()], further].concat(), DAY);
    }
}

/// A world where each broken host is the best MX of its domain; one more host is spare.
async fn broken_world(extra: &str) -> World {
    let domains = BROKEN.map(|broken| broken.domain());
    let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
    let world = World::start(10, &domains, extra).await;
    for (index, broken) in BROKEN.iter().enumerate() {
        world.farm.hosts[index].behave((broken.behaviour)(&world.pki, &broken.mx()));
        world.route(&broken.domain(), 10, &broken.mx(), index);
    }
    world
}

/// The header section's first field and the rest.
fn split_received(content: &[u8]) -> (String, Vec<u8>) {
    let text = String::from_utf8(content.to_vec()).expect("test messages are UTF-8");
    let mut at = 0;
    for line in text.split_inclusive("\r\n") {
        if at > 0 && !line.starts_with([' ', '\t']) {
            break;
        }
        at += line.len();
    }
    (text[..at].to_owned(), text.as_bytes()[at..].to_vec())
}

#[tokio::test]
async fn mail_under_enforce_arrives_over_verified_tls_as_it_was_with_received_in_front() {
    let world = World::start(1, &["good.test"], "").await;
    world.good_domain("good.test", 0);
    world.publish("good.test", "1", "enforce", &["mx.good.test"], DAY);
    let long = "x".repeat(998);
    let content = format!(
        "From: <a@home.test>\r\nTo: <b@good.test>\r\nsubject:  odd   spacing \r\n\tfolded\r\n\r\n.\r\n..\r\n.dots\r\n\
         trailing blanks  \r\nGr\u{fc}\u{df}e \u{2713}\r\n\r\n{long}\r\n.last\r\n\r\n"
    );
    world.submit("<a@home.test> BODY=8BITMIME", &["b@good.test"], &content).await;
    let arrival = world.arrivals(0, 1).await.remove(0);
    assert!(arrival.tls, "in clear");
    let (received, rest) = split_received(&arrival.content);
    assert!(received.starts_with("Received: from client.world.test"), "{received}");
    assert!(received.contains("by relay.world.test"), "{received}");
    assert_eq!(String::from_utf8_lossy(&rest), content);
    assert!(arrival.mail.contains("<a@home.test>"), "{}", arrival.mail);
    assert!(arrival.rcpts[0].contains("<b@good.test>"), "{:?}", arrival.rcpts);
    world.drained().await;
    let log = world.daemon.log();
    let line = log.lines().find(|line| line.contains("delivered=1")).expect("a line says so");
    for word in [
        "mx.good.test",
        &world.farm.hosts[0].ip.to_string(),
        "TLSv1.3 TLS13_",
        "verified=\"pkix\"",
        "mta-sts enforce",
    ] {
        assert!(line.contains(word), "{word} is missing: {line}");
    }
}

#[tokio::test]
async fn a_host_that_fails_an_enforced_policy_sees_no_envelope_until_it_is_repaired() {
    let world = broken_world("").await;
    let mut ids = Vec::new();
    for broken in &BROKEN {
        broken.publish(&world, "enforce", &[]);
        ids.push(
            world.submit("a@home.test", &[&format!("b@{}", broken.domain())], &message(broken.name)).await,
        );
    }
    for ((index, broken), id) in BROKEN.iter().enumerate().zip(&ids) {
        let item = world.deferred(id).await.remove(0);
        let host = &world.farm.hosts[index];
        assert!(!host.saw_mail(), "{}: {:?}", broken.name, host.log().commands);
        let attempt =
            item["history"].as_array().and_then(|history| history.last()).expect("an attempt").clone();
        assert_eq!(attempt["host"], broken.mx(), "{attempt}");
        assert_eq!(attempt["rule"], "mta-sts enforce", "{attempt}");
        let result = attempt["result"].as_str().expect("a sentence");
        assert!(
            result.contains("deferred: 4.7.") && result.contains(broken.words),
            "{}: {result}",
            broken.name
        );
    }
    for (index, broken) in BROKEN.iter().enumerate() {
        world.farm.hosts[index].behave(world.secured(&[&broken.mx()], Kind::Good));
    }
    world.publish("unlisted.test", "2", "enforce", &["mx.unlisted.test"], DAY);
    let delivered = || world.farm.hosts[..BROKEN.len()].iter().all(|host| !host.accepted().is_empty());
    world.retry_until("all repaired hosts to get their mail", delivered).await;
    for host in &world.farm.hosts[..BROKEN.len()] {
        assert!(host.accepted().iter().all(|arrival| arrival.tls));
        assert_eq!(host.log().arrivals.len(), 1);
    }
}

#[tokio::test]
async fn a_good_and_listed_host_of_worse_preference_gets_what_the_better_ones_may_not() {
    let world = broken_world("").await;
    let names: Vec<String> = BROKEN.iter().map(|broken| format!("mx2.{}", broken.domain())).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.farm.hosts[9].behave(world.secured(&names, Kind::Good));
    for (broken, name) in BROKEN.iter().zip(&names) {
        world.route(&broken.domain(), 20, name, 9);
        broken.publish(&world, "enforce", &[name]);
        world.submit("a@home.test", &[&format!("b@{}", broken.domain())], &message(broken.name)).await;
    }
    let arrivals = world.arrivals(9, BROKEN.len()).await;
    assert!(arrivals.iter().all(|arrival| arrival.tls));
    for (index, broken) in BROKEN.iter().enumerate() {
        assert!(!world.farm.hosts[index].saw_mail(), "{}", broken.name);
        assert!(
            arrivals.iter().any(|arrival| arrival.rcpts[0].contains(&broken.domain())),
            "{}",
            broken.name
        );
    }
    world.drained().await;
}

/// The one policy entry of today's report so far.
async fn preview(world: &World, domain: &str) -> Value {
    let report = world.daemon.json(&["report", "preview", domain]).await.remove(0);
    let policies = report["policies"].as_array().expect("policies").clone();
    assert_eq!(policies.len(), 1, "{report}");
    policies[0].clone()
}

#[tokio::test]
async fn testing_delivers_in_spite_of_everything_and_counts_what_was_wrong() {
    let world = broken_world("").await;
    for broken in &BROKEN {
        broken.publish(&world, "testing", &[]);
        world.submit("a@home.test", &[&format!("b@{}", broken.domain())], &message(broken.name)).await;
    }
    for (index, broken) in BROKEN.iter().enumerate() {
        let arrivals = world.arrivals(index, 1).await;
        assert_eq!(arrivals[0].tls, broken.tls, "{}", broken.name);
    }
    world.drained().await;
    for (index, broken) in BROKEN.iter().enumerate() {
        let entry = preview(&world, &broken.domain()).await;
        assert_eq!(entry["policy"]["policy-type"], "sts", "{entry}");
        assert_eq!(entry["policy"]["policy-domain"], broken.domain(), "{entry}");
        assert_eq!(entry["policy"]["policy-string"][1], "mode: testing", "{entry}");
        assert_eq!(entry["summary"]["total-failure-session-count"], 1, "{}: {entry}", broken.name);
        assert_eq!(entry["summary"]["total-successful-session-count"], 0, "{}: {entry}", broken.name);
        let details = entry["failure-details"].as_array().expect("details");
        assert_eq!(details.len(), 1, "{}: {entry}", broken.name);
        assert_eq!(details[0]["result-type"], broken.result_type, "{}: {entry}", broken.name);
        assert_eq!(details[0]["failed-session-count"], 1, "{entry}");
        assert_eq!(details[0]["receiving-mx-hostname"], broken.mx(), "{entry}");
        assert_eq!(details[0]["receiving-ip"], world.farm.hosts[index].ip.to_string(), "{entry}");
    }
}

#[tokio::test]
async fn without_a_policy_tls_is_used_if_it_works_and_left_alone_if_not() {
    let world = World::start(3, &[], "").await;
    let hosts = &world.farm.hosts;
    hosts[0].behave(with(&world.pki, "mx.selfsigned.test", Kind::SelfSigned));
    hosts[1].behave(starttls(StartTls::Garbage));
    for (index, domain) in ["selfsigned.test", "garbage.test", "clear.test"].iter().enumerate() {
        world.route(domain, 10, &format!("mx.{domain}"), index);
        world.submit("a@home.test", &[&format!("b@{domain}")], &message(domain)).await;
    }
    assert!(world.arrivals(0, 1).await[0].tls);
    assert!(!world.arrivals(1, 1).await[0].tls);
    assert!(!world.arrivals(2, 1).await[0].tls);
    assert_eq!(hosts[1].log().connections, 2, "nothing may be said on a connection whose handshake failed");
    assert_eq!(hosts[2].log().connections, 1);
}

#[tokio::test]
async fn of_two_domains_on_one_host_only_the_enforcing_one_is_held_back() {
    let world = World::start(1, &["strict.test", "plain.test"], "").await;
    let host = &world.farm.hosts[0];
    host.behave(with(&world.pki, "mx.shared.test", Kind::SelfSigned));
    for domain in ["strict.test", "plain.test"] {
        world.route(domain, 10, "mx.shared.test", 0);
    }
    world.publish("strict.test", "1", "enforce", &["mx.shared.test"], DAY);
    // The first leaves an open connection behind that the second may not use.
    world.submit("a@home.test", &["b@plain.test"], &message("one")).await;
    world.arrivals(0, 1).await;
    let id = world.submit("a@home.test", &["b@strict.test"], &message("two")).await;
    let both = world.submit("a@home.test", &["b@strict.test", "b@plain.test"], &message("three")).await;
    world.arrivals(0, 2).await;
    world.deferred(&id).await;
    world.deferred(&both).await;
    let log = host.log();
    assert!(!log.commands.iter().any(|line| line.contains("strict.test")), "{:?}", log.commands);
    host.behave(world.secured(&["mx.shared.test"], Kind::Good));
    world.daemon.ask(&["queue", "retry", "--recipient-domain", "strict.test"]).await;
    world.arrivals(0, 4).await;
    world.drained().await;
    assert_eq!(host.log().arrivals.len(), 4);
}

#[tokio::test]
async fn a_wildcard_stands_for_exactly_one_label() {
    let world = World::start(2, &["wild.test", "deep.test"], "").await;
    for (index, (domain, mx)) in
        [("wild.test", "a.wild.test"), ("deep.test", "a.b.deep.test")].iter().enumerate()
    {
        world.route(domain, 10, mx, index);
        world.farm.hosts[index].behave(world.secured(&[mx], Kind::Good));
        world.publish(domain, "1", "enforce", &[&format!("*.{domain}")], DAY);
    }
    world.submit("a@home.test", &["b@wild.test"], &message("one")).await;
    let id = world.submit("a@home.test", &["b@deep.test"], &message("two")).await;
    world.arrivals(0, 1).await;
    world.deferred(&id).await;
    assert_eq!(world.farm.hosts[1].log().connections, 0);
}

#[tokio::test]
async fn the_mx_name_counts_and_not_what_it_is_an_alias_of() {
    let world = World::start(1, &["alias.test"], "").await;
    world.dns.mx("alias.test", 10, "mx.alias.test");
    world.dns.cname("mx.alias.test", "real.host.test");
    world.dns.address("real.host.test", world.farm.hosts[0].ip);
    world.farm.hosts[0].behave(world.secured(&["real.host.test"], Kind::Good));
    world.publish("alias.test", "1", "enforce", &["real.host.test"], DAY);
    let id = world.submit("a@home.test", &["b@alias.test"], &message("one")).await;
    world.deferred(&id).await;
    world.publish("alias.test", "2", "enforce", &["mx.alias.test"], DAY);
    world.farm.hosts[0].behave(world.secured(&["mx.alias.test"], Kind::Good));
    let host = &world.farm.hosts[0];
    world.retry_until("the mail to arrive", || !host.accepted().is_empty()).await;
}

#[tokio::test]
async fn a_host_at_a_private_address_is_not_connected_to_and_the_operator_is_told_why() {
    let extra = "[network]\nallow_private_destinations = [\"127.0.0.1/32\"]\n";
    let world = World::start(1, &[], extra).await;
    world.good_domain("inside.test", 0);
    let id = world
        .submit(
            "a@home.test",
            &["b@inside.test", &format!("b@[{}]", world.farm.hosts[0].ip)],
            &message("one"),
        )
        .await;
    for item in world.deferred(&id).await {
        let result = item["history"][0]["result"].as_str().expect("a sentence").to_owned();
        assert!(result.contains("loopback") && result.contains("allow_private_destinations"), "{result}");
    }
    assert_eq!(world.farm.hosts[0].log().connections, 0);
}
