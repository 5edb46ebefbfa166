//! How connections come about and end: two families, own source addresses, hosts that are slow.

mod support;

use std::time::Duration;

use tokio::time::Instant;

use support::client::{Client, message, queue_id};
use support::pki::Kind;
use support::world::World;

const DAY: u32 = 86_400;

/// One MX host at the address of the farm's first host and at that of its IPv6 host.
fn dual(world: &World, domain: &str) {
    world.good_domain(domain, 0);
    let mx = format!("mx.{domain}");
    world.dns.address(&mx, world.farm.hosts[1].ip);
    world.farm.hosts[1].behave(world.secured(&[&mx], Kind::Good));
}

#[tokio::test]
async fn mail_goes_to_an_ipv6_host_under_its_policy() {
    let world = World::start_dual(1, &["six.test"], "").await;
    world.good_domain("six.test", 1);
    world.publish("six.test", "1", "enforce", &["mx.six.test"], DAY);
    world.submit("a@home.test", &["b@six.test", "b@[IPv6:::1]"], &message("one")).await;
    let arrivals = world.arrivals(1, 2).await;
    assert!(arrivals.iter().all(|arrival| arrival.tls));
    world.drained().await;
    assert!(world.farm.hosts[1].log().peers.iter().all(|peer| peer.is_ipv6()));
}

#[tokio::test]
async fn a_family_that_leads_nowhere_delays_mail_by_moments_only() {
    let world = World::start_dual(1, &["dual.test"], "").await;
    dual(&world, "dual.test");
    world.publish("dual.test", "1", "enforce", &["mx.dual.test"], DAY);
    let hole = world.farm.hosts[1].swallow().await;
    let begun = Instant::now();
    world.submit("a@home.test", &["b@dual.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    // The connect timeout is 30 s.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    world.drained().await;
    assert!(!world.daemon.log().contains("deferred"), "{}", world.daemon.log());
    drop(hole);
}

#[tokio::test]
async fn the_other_address_is_tried_when_the_session_on_the_first_fails_the_policy() {
    let world = World::start_dual(1, &["dual.test"], "").await;
    dual(&world, "dual.test");
    world.farm.hosts[1].behave(world.secured(&["mx.dual.test"], Kind::SelfSigned));
    world.publish("dual.test", "1", "enforce", &["mx.dual.test"], DAY);
    world.submit("a@home.test", &["b@dual.test"], &message("one")).await;
    assert!(world.arrivals(0, 1).await[0].tls);
    let six = &world.farm.hosts[1];
    assert!(!six.saw_mail() && six.log().connections == 1, "{:?}", six.log());
    world.drained().await;
}

#[tokio::test]
async fn each_address_is_guarded_as_it_is_dialled() {
    // ::1 is not among the exceptions.
    let extra = "[network]\nallow_private_destinations = [\"127.0.0.0/8\"]\n";
    let mut world = World::prepare(1, &[], extra).await;
    world.good_domain("mixed.test", 0);
    world.dns.address("mx.mixed.test", std::net::Ipv6Addr::LOCALHOST.into());
    world.daemon.start().await;
    world.submit("a@home.test", &["b@mixed.test"], &message("one")).await;
    world.arrivals(0, 1).await;
    world.drained().await;
}

#[tokio::test]
async fn mail_comes_from_a_source_address_under_its_name_also_on_a_connection_used_again() {
    let extra = "[delivery]\nconcurrency_per_destination = 1\nsource_addresses = [\
                 \"198.51.100.1\", \
                 { address = \"127.0.0.21\", hostname = \"out21.world.test\" }, \
                 { address = \"127.0.0.22\", hostname = \"out22.world.test\" }]\n";
    let world = World::start(8, &[], extra).await;
    for host in 0..8 {
        world.good_domain(&format!("d{host}.test"), host);
    }
    let mut client = Client::connect(world.daemon.smarthost).await;
    for _ in 0..3 {
        for host in 0..8 {
            queue_id(&client.submit("a@home.test", &[&format!("b@d{host}.test")], &message("one")).await);
        }
    }
    let mut used = Vec::new();
    for host in 0..8 {
        world.arrivals(host, 3).await;
        let log = world.farm.hosts[host].log();
        let peer = log.peers[0].to_string();
        assert!(log.peers.iter().all(|other| other.to_string() == peer), "{:?}", log.peers);
        let name = match peer.as_str() {
            "127.0.0.21" => "out21.world.test",
            "127.0.0.22" => "out22.world.test",
            other => panic!("{other} is not on the list"),
        };
        let said: Vec<_> = log.commands.iter().filter(|line| line.starts_with("EHLO")).collect();
        assert!(!said.is_empty() && said.iter().all(|line| **line == format!("EHLO {name}")), "{said:?}");
        used.push(peer);
    }
    assert!(used.iter().any(|peer| *peer != used[0]), "all from one address: {used:?}");
    world.drained().await;
    let log = world.daemon.log();
    assert!(log.contains("198.51.100.1 cannot be bound on this host"), "{log}");
}

#[tokio::test]
async fn a_host_that_takes_the_content_too_slowly_is_left() {
    // The sockets of both ends hold some megabytes by themselves.
    let extra = "[delivery]\nminimum_rate = \"100MB\"\n[delivery.timeouts]\nbody = \"2s\"\n";
    let world = World::start(1, &[], extra).await;
    world.good_domain("tarpit.test", 0);
    world.farm.hosts[0].adjust(|mx| {
        mx.reads_content = false;
        mx.extensions.retain(|offered| !offered.starts_with("SIZE"));
    });
    let large = format!("{}{}", message("large"), "0123456789abcdef\r\n".repeat(1_500_000));
    let id = world.submit("a@home.test", &["b@tarpit.test"], &large).await;
    let item = world.deferred(&id).await.remove(0);
    let result = item["history"][0]["result"].as_str().expect("a sentence").to_owned();
    assert!(result.contains("while sending message content"), "{result}");
}

/// No connection is used twice, so that every message begins a TLS session.
const NO_POOL: &str = "[delivery]\nconcurrency_per_destination = 1\n[delivery.pool]\nidle_time = \"0s\"\n";

#[tokio::test]
async fn a_tls_session_is_resumed_for_the_same_demands_only_and_counts_as_a_session() {
    let world = World::start(1, &["strict.test", "twin.test"], NO_POOL).await;
    let host = &world.farm.hosts[0];
    host.behave(world.secured(&["mx.shared.test"], Kind::Good));
    for domain in ["strict.test", "twin.test", "plain.test"] {
        world.route(domain, 10, "mx.shared.test", 0);
    }
    world.publish("strict.test", "1", "enforce", &["mx.shared.test"], DAY);
    world.publish("twin.test", "1", "enforce", &["mx.shared.test"], DAY);
    let mut count = 0;
    let mut resumed_after = Vec::new();
    for domain in ["plain.test", "strict.test", "strict.test", "plain.test", "twin.test"] {
        count += 1;
        world.submit("a@home.test", &[&format!("b@{domain}")], &message(domain)).await;
        assert!(world.arrivals(0, count).await.iter().all(|arrival| arrival.tls));
        world.drained().await;
        resumed_after.push(host.log().resumed);
    }
    assert_eq!(resumed_after, [0, 0, 1, 2, 3], "a session without demands met a policy");
    assert_eq!(host.log().handshakes, count);
    let report = world.daemon.json(&["report", "preview", "strict.test"]).await.remove(0);
    let summary = &report["policies"][0]["summary"];
    assert_eq!(summary["total-successful-session-count"], 2, "{report}");
    assert_eq!(summary["total-failure-session-count"], 0, "{report}");
    let log = world.daemon.log();
    assert_eq!(log.lines().filter(|line| line.contains("(resumed)\"")).count(), 3, "{log}");
}

#[tokio::test]
async fn a_host_whose_certificate_goes_bad_and_forgets_its_sessions_gets_no_mail_for_the_old_proof() {
    let world = World::start(1, &["strict.test"], NO_POOL).await;
    world.good_domain("strict.test", 0);
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], DAY);
    world.submit("a@home.test", &["b@strict.test"], &message("one")).await;
    world.arrivals(0, 1).await;
    let host = &world.farm.hosts[0];
    host.behave(world.secured(&["mx.strict.test"], Kind::SelfSigned));
    let id = world.submit("a@home.test", &["b@strict.test"], &message("two")).await;
    world.deferred(&id).await;
    assert_eq!((host.log().arrivals.len(), host.log().resumed), (1, 0));
    host.behave(world.secured(&["mx.strict.test"], Kind::Good));
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    world.arrivals(0, 2).await;
}

#[tokio::test]
async fn content_goes_out_by_bdat_where_it_is_offered_octet_by_octet_as_it_was() {
    let world = World::start(2, &[], "").await;
    for (host, domain) in ["chunking.test", "plain.test"].iter().enumerate() {
        world.good_domain(domain, host);
    }
    world.farm.hosts[0].adjust(|mx| mx.extensions.push("CHUNKING".to_owned()));
    let dots = format!("{}.\r\n..\r\n.dots\r\n\r\n", message("dots"));
    // Three chunks, from a file.
    let large = format!("{}{}", message("large"), "0123456789abcdef\r\n".repeat(80_000));
    for content in [&dots, &large] {
        world.submit("a@home.test", &["b@chunking.test", "b@plain.test"], content).await;
    }
    for (host, chunked) in [(0, true), (1, false)] {
        let arrivals = world.arrivals(host, 2).await;
        assert!(arrivals.iter().all(|arrival| arrival.chunked == chunked));
        for content in [&dots, &large] {
            assert!(arrivals.iter().any(|arrival| arrival.text().ends_with(content.as_str())), "host {host}");
        }
    }
    world.drained().await;
    let commands = world.farm.hosts[0].log().commands;
    let bdat: Vec<_> = commands.iter().filter(|line| line.starts_with("BDAT")).collect();
    assert_eq!(bdat.len(), 4, "{bdat:?}");
    assert_eq!(bdat.iter().filter(|line| line.ends_with(" LAST")).count(), 2, "{bdat:?}");
}

#[tokio::test]
async fn a_host_that_offers_chunking_and_does_not_know_bdat_gets_data_at_once_and_nothing_twice() {
    let world = World::start(1, &[], "[delivery]\nconcurrency_per_destination = 1\n").await;
    world.good_domain("broken.test", 0);
    let host = &world.farm.hosts[0];
    host.adjust(|mx| {
        mx.extensions.push("CHUNKING".to_owned());
        mx.replies.push(("BDAT".to_owned(), "502 5.5.1 unknown".to_owned()));
        mx.replies.push(("RCPT TO:<no@".to_owned(), "550 5.1.1 no".to_owned()));
    });
    // What such a host makes of content: commands.
    let content = format!("{}QUIT\r\n", message("one"));
    world.submit("<>", &["b@broken.test", "no@broken.test", "c@broken.test"], &content).await;
    world.submit("<>", &["d@broken.test"], &message("two")).await;
    let arrivals = world.arrivals(0, 2).await;
    world.drained().await;
    assert_eq!(host.log().arrivals.len(), 2);
    assert!(arrivals.iter().all(|arrival| !arrival.chunked));
    assert_eq!(arrivals[0].rcpts.len(), 2, "{:?}", arrivals[0].rcpts);
    let commands = host.log().commands;
    assert_eq!(commands.iter().filter(|line| line.starts_with("BDAT")).count(), 1, "{commands:?}");
    assert!(!world.daemon.log().contains("deferred"), "{}", world.daemon.log());
}

#[tokio::test]
async fn a_refused_early_chunk_refuses_the_message_and_the_connection_goes_on() {
    let world = World::start(1, &[], "[delivery]\nconcurrency_per_destination = 1\n").await;
    world.good_domain("small.test", 0);
    let host = &world.farm.hosts[0];
    host.adjust(|mx| {
        mx.extensions.push("CHUNKING".to_owned());
        mx.chunk = "452 4.3.1 no room for that".to_owned();
    });
    let large = format!("{}{}", message("large"), "0123456789abcdef\r\n".repeat(80_000));
    let id = world.submit("a@home.test", &["b@small.test"], &large).await;
    world.deferred(&id).await;
    world.submit("a@home.test", &["b@small.test"], &message("two")).await;
    assert!(world.arrivals(0, 1).await[0].chunked);
    let log = host.log();
    assert_eq!(log.commands.iter().filter(|line| line.starts_with("BDAT")).count(), 2, "{:?}", log.commands);
    assert_eq!((log.connections, log.arrivals.len()), (1, 1));
}

#[tokio::test]
async fn a_connection_carries_as_many_messages_as_configured() {
    let extra = "[delivery]\nconcurrency_per_destination = 1\n[delivery.pool]\nmessages = 2\n";
    let world = World::start(1, &[], extra).await;
    world.good_domain("some.test", 0);
    for count in 1..=5 {
        world.submit("a@home.test", &["b@some.test"], &message("one")).await;
        world.arrivals(0, count).await;
        world.drained().await;
    }
    let log = world.farm.hosts[0].log();
    assert_eq!(log.connections, 3, "{:?}", log.commands);
}
