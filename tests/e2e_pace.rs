//! How fast and how many at a time: hosts that ask for less get less, and what the operator allows holds,
//! without a message's schedule being spent; who stalls holds up nobody else.

mod support;

use std::time::{Duration, Instant};

use support::client::{Client, message, queue_id};
use support::world::World;

const HOUR: &str = "[delivery]\nretry = [\"1h\"]\n";

async fn submit_many(world: &World, to: &[String], count: usize) {
    let mut client = Client::connect(world.daemon.smarthost).await;
    for number in 0..count {
        let to = to[number % to.len()].as_str();
        queue_id(&client.submit("a@home.test", &[to], &message(&format!("message {number}"))).await);
    }
}

#[tokio::test]
async fn a_host_that_asks_for_less_gets_a_pause_and_no_schedule_is_spent() {
    let world = World::start(1, &[], HOUR).await;
    world.good_domain("busy.test", 0);
    let rate = "451 4.7.1 rate limit exceeded".to_owned();
    world.farm.hosts[0].adjust(|behaviour| behaviour.replies.push(("MAIL".to_owned(), rate)));
    submit_many(&world, &["b@busy.test".to_owned()], 100).await;
    support::eventually("the pause to be shown", || async {
        let items = world.daemon.json(&["queue", "list"]).await;
        items
            .iter()
            .any(|item| item["waits"].as_str().is_some_and(|text| text.contains("less")))
            .then_some(())
    })
    .await;
    let asked = world.farm.hosts[0].log().commands.iter().filter(|line| line.starts_with("MAIL")).count();
    assert!(asked < 30, "{asked} of 100 were tried in the pause");
    // Over after some seconds, without an operator, and nobody waits for the next hour.
    world.farm.hosts[0].adjust(|behaviour| behaviour.replies.clear());
    world.arrivals(0, 100).await;
    world.drained().await;
    assert_eq!(world.farm.hosts[0].accepted().len(), 100);
}

#[tokio::test]
async fn greylisting_is_the_messages_own_and_holds_up_no_other() {
    let world = World::start(1, &[], HOUR).await;
    world.good_domain("grey.test", 0);
    let grey = "450 4.2.0 Greylisted, try again later".to_owned();
    world.farm.hosts[0].adjust(|behaviour| behaviour.replies.push(("RCPT TO:<new@".to_owned(), grey)));
    let id = world.submit("a@home.test", &["new@grey.test"], &message("new")).await;
    let items = world.deferred(&id).await;
    assert!(items[0]["waits"].is_null(), "{}", items[0]);
    submit_many(&world, &["known@grey.test".to_owned()], 10).await;
    world.arrivals(0, 10).await;
}

#[tokio::test]
async fn a_configured_rate_makes_mail_wait_and_spends_no_attempts() {
    let extra =
        "[[delivery.destination]]\nmx = \"*.slow.test\"\nrate = \"10/s\"\nmessages_per_connection = 5\n";
    let world = World::start(2, &[], extra).await;
    world.good_domain("one.slow.test", 0);
    world.good_domain("two.slow.test", 0);
    world.farm.hosts[0]
        .behave(world.secured(&["mx.one.slow.test", "mx.two.slow.test"], support::pki::Kind::Good));
    world.good_domain("quick.test", 1);
    let begun = Instant::now();
    submit_many(&world, &["b@one.slow.test".to_owned(), "b@two.slow.test".to_owned()], 40).await;
    submit_many(&world, &["b@quick.test".to_owned()], 40).await;
    world.arrivals(1, 40).await;
    world.arrivals(0, 40).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2500), "40 messages at 10 a second in {took:?}");
    let log = world.farm.hosts[0].log();
    assert!(log.connections >= 8, "{} connections for 40 messages, five on each", log.connections);
    world.drained().await;
    assert!(!world.daemon.log().contains("deferred"), "{}", world.daemon.log());
}

#[tokio::test]
async fn one_of_ten_hosts_stalls_and_the_others_get_their_mail() {
    let few = "[delivery]\nconcurrency = 40\n";
    let world = World::start(10, &[], few).await;
    // Four domains a host, all under way at the same time.
    let mut to = Vec::new();
    for domain in 0..40 {
        let host = domain % 10;
        world.good_domain(&format!("d{domain}.test"), host);
        to.push(format!("b@d{domain}.test"));
    }
    for host in 0..10 {
        let names: Vec<String> = (0..4).map(|n| format!("mx.d{}.test", host + 10 * n)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        world.farm.hosts[host].behave(world.secured(&names, support::pki::Kind::Good));
    }
    world.farm.hosts[3].adjust(|behaviour| behaviour.dot_after = Duration::from_secs(3600));
    submit_many(&world, &to, 800).await;
    for host in (0..10).filter(|host| *host != 3) {
        world.arrivals(host, 80).await;
    }
    // What stalls has few of the places: those of one host's beginning.
    let open = world.farm.hosts[3].log().connections;
    assert!(open <= 10, "{open} connections to the one that stalls");
}
