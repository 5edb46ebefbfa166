//! What a host answers to one message, and what that means for the next; how connections end; addresses
//! on the wire; messages that nobody may be told of.

mod support;

use hickory_proto::rr::RecordType;

use support::client::{Client, message, queue_id};
use support::world::World;

/// The sender's domain is at host 0, the recipients' at hosts 1 and 2.
async fn world(extra: &str) -> World {
    let world = World::start(3, &[], extra).await;
    world.good_domain("home.test", 0);
    world.route("away.test", 10, "mx1.away.test", 1);
    world.route("away.test", 20, "mx2.away.test", 2);
    world
}

fn commands(world: &World, host: usize, start: &str) -> Vec<String> {
    let all = world.farm.hosts[host].log().commands;
    all.into_iter().filter(|line| line.starts_with(start)).collect()
}

#[tokio::test]
async fn a_sender_refused_once_is_asked_for_again_with_the_next_message() {
    let world = world("").await;
    world.farm.hosts[1].adjust(|mx| mx.replies.push(("MAIL".into(), "550 5.7.1 not you".into())));
    world.submit("a@home.test", &["b@away.test"], &message("one")).await;
    let bounce = world.arrivals(0, 1).await.remove(0).text();
    assert!(bounce.contains("550 5.7.1 not you"), "{bounce}");
    world.farm.hosts[1].adjust(|mx| mx.replies.clear());
    world.submit("a@home.test", &["b@away.test"], &message("two")).await;
    world.arrivals(1, 1).await;
    world.drained().await;
    assert_eq!(commands(&world, 1, "MAIL").len(), 2);
}

#[tokio::test]
async fn a_host_that_takes_no_mail_is_left_for_the_next_one_and_a_domain_that_takes_none_bounces() {
    let world = world("").await;
    // RFC 7504: this host, whatever the message.
    world.farm.hosts[1].adjust(|mx| mx.greeting = "521 5.3.2 no mail here".to_owned());
    world.submit("a@home.test", &["b@away.test"], &message("one")).await;
    world.arrivals(2, 1).await;
    // And this domain, whatever the host.
    world.farm.hosts[2].adjust(|mx| mx.replies.push(("RCPT".into(), "556 5.1.10 no mail at all".into())));
    world.submit("a@home.test", &["b@away.test"], &message("two")).await;
    let bounce = world.arrivals(0, 1).await.remove(0).text();
    assert!(bounce.contains("556 5.1.10 no mail at all"), "{bounce}");
    world.drained().await;
    assert_eq!(commands(&world, 1, "MAIL").len(), 0);
}

#[tokio::test]
async fn a_connection_ends_with_quit_when_it_was_idle_for_long_and_when_the_relay_ends() {
    for idle in ["1s", "1m"] {
        let mut world = world(&format!("[delivery.pool]\nidle_time = \"{idle}\"\n")).await;
        world.submit("a@home.test", &["b@away.test"], &message("one")).await;
        world.arrivals(1, 1).await;
        world.drained().await;
        if idle == "1m" {
            assert_eq!(commands(&world, 1, "QUIT").len(), 0, "kept for the next message");
            assert_eq!(world.daemon.stop().await, Some(0));
        }
        support::eventually("QUIT", || async {
            let last = world.farm.hosts[1].log().commands.pop();
            (last.as_deref() == Some("QUIT")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn addresses_go_out_as_they_came_in_and_literals_are_connected_to_as_they_are() {
    let world = world("").await;
    let literal = format!("b@[{}]", world.farm.hosts[2].ip);
    let to = ["@relay.test,@other.test:Some.Body@AWAY.test", "\"a B\"@away.test", literal.as_str()];
    world.submit("Se.Nder@Home.test", &to, &message("one")).await;
    let arrival = world.arrivals(1, 1).await.remove(0);
    assert!(arrival.mail.starts_with("MAIL FROM:<Se.Nder@home.test>"), "{}", arrival.mail);
    let rcpt = |path: &str| arrival.rcpts.iter().any(|line| line.starts_with(&format!("RCPT TO:<{path}>")));
    assert!(rcpt("Some.Body@away.test") && rcpt("\"a B\"@away.test"), "{:?}", arrival.rcpts);
    let direct = world.arrivals(2, 1).await.remove(0);
    assert!(direct.rcpts[0].contains(&format!("<{literal}>")), "{:?}", direct.rcpts);
    // An address has no policy domain.
    let name = format!("_mta-sts.[{}]", world.farm.hosts[2].ip);
    assert_eq!(world.dns.asked(&name, RecordType::TXT), 0);
    world.drained().await;
}

#[tokio::test]
async fn failures_are_told_to_the_envelope_sender_whatever_the_header_says() {
    let world = world("").await;
    world.good_domain("header.test", 2);
    for host in [1, 2] {
        world.farm.hosts[host].adjust(|mx| mx.replies.push(("RCPT".into(), "550 5.1.1 nobody".into())));
    }
    let content = format!(
        "From: <x@header.test>\r\nReply-To: <y@header.test>\r\nReturn-Path: <z@header.test>\r\n{}",
        message("one")
    );
    world.submit("a@home.test", &["b@away.test"], &content).await;
    let bounce = world.arrivals(0, 1).await.remove(0);
    assert_eq!(bounce.rcpts.len(), 1);
    assert!(bounce.rcpts[0].contains("<a@home.test>"), "{:?}", bounce.rcpts);
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().arrivals.len(), 1);
    assert!(commands(&world, 2, "RCPT").iter().all(|line| line.contains("@away.test")));
}

#[tokio::test]
async fn a_storm_of_failing_mail_from_nobody_ends_without_a_word_to_anybody() {
    let world = world("").await;
    for host in [1, 2] {
        world.farm.hosts[host].adjust(|mx| mx.dot = "554 5.6.0 no".to_owned());
    }
    world.dns.mx("null.test", 0, ".");
    let mut client = Client::connect(world.daemon.smarthost).await;
    for number in 0..200 {
        let (away, nowhere) = (format!("u{number}@away.test"), format!("u{number}@nowhere.test"));
        queue_id(&client.submit("", &[&away, &nowhere, "a@null.test"], &message("storm")).await);
    }
    world.drained().await;
    assert_eq!(world.farm.hosts[0].log().connections, 0, "nobody is told");
    assert_eq!(world.farm.hosts[1].log().arrivals.len(), 200, "each was tried once");
}
