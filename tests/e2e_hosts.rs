//! What is remembered of hosts: the dead are not tried by every message, the living are not held back,
//! and nothing of it costs a message its schedule, its warning or its end.

mod support;

use support::client::{Client, message, queue_id};
use support::world::World;

const HOUR: &str = "[delivery]\nretry = [\"1h\"]\n";

async fn submit_many(world: &World, to: &[&str], count: usize) {
    let mut client = Client::connect(world.daemon.smarthost).await;
    for number in 0..count {
        let to = to[number % to.len()];
        queue_id(&client.submit("a@home.test", &[to], &message(&format!("message {number}"))).await);
    }
}

/// A host whose sessions end before they begin, so that connections can be counted.
fn busy(world: &World, host: usize) {
    world.farm.hosts[host].adjust(|behaviour| behaviour.greeting = "421 4.3.2 not now".to_owned());
}

#[tokio::test]
async fn a_host_that_turns_everybody_away_sees_few_of_a_thousand_messages() {
    let world = World::start(2, &[], HOUR).await;
    for domain in 0..10 {
        world.good_domain(&format!("d{domain}.test"), 0);
    }
    world.good_domain("quick.test", 1);
    busy(&world, 0);
    let to: Vec<String> = (0..10).map(|domain| format!("b@d{domain}.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    submit_many(&world, &to, 1000).await;
    submit_many(&world, &["b@quick.test"], 20).await;
    world.arrivals(1, 20).await;
    let connections = world.farm.hosts[0].log().connections;
    // Those of the first moment, before the first one failed, and one at a time after that.
    assert!(connections < 60, "{connections} connections for 1000 messages");
    let items = world.daemon.json(&["queue", "list", "--recipient-domain", "d3.test"]).await;
    assert_eq!(items.len(), 100);
    let untried: Vec<_> = items.iter().filter(|item| item["attempts"] == 0).collect();
    assert!(untried.len() > 80, "schedules are not spent: {}", untried.len());
    let told =
        |item: &&serde_json::Value| item["waits"].as_str().is_some_and(|text| text.contains("not now"));
    assert!(untried.iter().any(told), "{}", untried[0]);
    // A policy's or a host's trouble is over: all of it flows at once when the operator says so.
    world.farm.hosts[0].adjust(|behaviour| behaviour.greeting = "220 mx ESMTP".to_owned());
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    world.arrivals(0, 1000).await;
    world.drained().await;
    assert_eq!(world.farm.hosts[0].accepted().len(), 1000, "once each");
}

#[tokio::test]
async fn when_a_host_is_back_its_mail_flows_without_anybodys_help() {
    let world = World::start(1, &[], HOUR).await;
    world.good_domain("one.test", 0);
    world.good_domain("two.test", 0);
    world.farm.hosts[0].down();
    submit_many(&world, &["b@one.test", "b@two.test"], 200).await;
    // The first ones have failed by themselves and keep their own schedule, an hour.
    let failed = support::eventually("the host to be left alone", || async {
        let items = world.daemon.json(&["queue", "list"]).await;
        let settled = items.iter().all(|item| item["attempts"] != 0 || item["waits"].is_string());
        settled.then(|| items.iter().filter(|item| item["attempts"] != 0).count())
    })
    .await;
    assert!(failed < 50, "{failed} of 200 were tried");
    world.farm.hosts[0].up().await;
    world.arrivals(0, 200 - failed).await;
}

#[tokio::test]
async fn a_policy_that_one_domain_breaks_is_not_held_against_the_host_of_others() {
    let world = World::start(1, &["strict.test"], HOUR).await;
    world.good_domain("plain.test", 0);
    // The host's certificate is for mx.plain.test alone.
    world.route("strict.test", 10, "mx.strict.test", 0);
    world.publish("strict.test", "1", "enforce", &["mx.strict.test"], 86400);
    let held = world.submit("a@home.test", &["b@strict.test"], &message("strict")).await;
    world.deferred(&held).await;
    submit_many(&world, &["b@plain.test"], 5).await;
    world.arrivals(0, 5).await;
    let again = world.submit("a@home.test", &["b@strict.test"], &message("strict")).await;
    let items = world.deferred(&again).await;
    assert_eq!(items[0]["attempts"], 1, "it was really tried");
    assert!(items[0]["waits"].is_null(), "{}", items[0]);
}

#[tokio::test]
async fn a_message_is_warned_about_and_given_up_in_time_though_its_host_is_left_alone() {
    let extra = "[delivery]\nretry = [\"1h\"]\ndelay_warning = \"2s\"\nlifetime = \"5s\"\n";
    let world = World::start(2, &[], extra).await;
    world.good_domain("dead.test", 0);
    world.good_domain("home.test", 1);
    busy(&world, 0);
    // The first one makes the host known as dead, the second one is never tried before its end.
    submit_many(&world, &["b@dead.test"], 3).await;
    world.drained().await;
    let notices = world.farm.hosts[1].accepted();
    let warnings = notices.iter().filter(|notice| notice.text().contains("Action: delayed")).count();
    let bounces = notices.iter().filter(|notice| notice.text().contains("Action: failed")).count();
    // Who was tried has its next attempt at its end; who was not is warned about in time.
    assert!(warnings >= 1, "{warnings}");
    assert_eq!(bounces, 3);
    assert!(notices.iter().all(|notice| notice.text().contains("not now")), "the host's words");
    // The last attempt before giving up is really made.
    assert!(world.farm.hosts[0].log().connections >= 4, "{}", world.farm.hosts[0].log().connections);
}

#[tokio::test]
async fn names_that_vanish_are_asked_for_a_second_time_before_the_bounce() {
    let world = World::start(1, &[], "[delivery]\nretry = [\"1s\"]\n").await;
    world.good_domain("home.test", 0);
    world.dns.mx("gone.test", 10, "mx.gone.test");
    let id = world.submit("a@home.test", &["b@gone.test"], &message("hello")).await;
    let notices = world.arrivals(0, 1).await;
    assert!(notices[0].text().contains("5.4.4"), "{}", notices[0].text());
    assert!(world.daemon.log().lines().any(|line| line.contains(&id) && line.contains("deferred")));
}
