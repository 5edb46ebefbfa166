//! The suppression list: what puts a recipient on it, what becomes of mail to it, and what ends it.

mod support;

use support::client::{Client, message, queue_id};
use support::mx::Behaviour;
use support::world::World;

const REFUSE: &str = "[delivery.suppression]\nenabled = true\nafter = 2\n";
const BOUNCE: &str = "[delivery.suppression]\nenabled = true\nafter = 1\nanswer = \"bounce\"\n";

/// The sender's domain is at host 0; at host 1 nobody lives but `good`.
async fn world(extra: &str) -> World {
    let world = World::start(2, &[], extra).await;
    world.good_domain("home.test", 0);
    world.good_domain("away.test", 1);
    world.farm.hosts[1].adjust(|mx| {
        mx.replies.push(("RCPT TO:<gone@".into(), "550 5.1.1 nobody here".into()));
        mx.replies.push(("RCPT TO:<shut@".into(), "550 5.7.1 not you".into()));
    });
    world
}

/// The reply to RCPT, or to the final dot.
async fn submit(world: &World, from: &str, to: &str) -> String {
    let mut client = Client::connect(world.daemon.smarthost).await;
    client.submit(from, &[to], &message("words")).await
}

fn rcpts(world: &World, address: &str) -> usize {
    let line = format!("RCPT TO:<{address}>");
    world.farm.hosts[1].log().commands.iter().filter(|command| command.starts_with(&line)).count()
}

#[tokio::test]
async fn an_address_that_does_not_exist_is_refused_after_two_bounces_and_over_a_restart() {
    let mut world = world(REFUSE).await;
    for round in 1..=2 {
        for to in ["gone@away.test", "shut@away.test"] {
            queue_id(&submit(&world, "a@home.test", to).await);
        }
        world.arrivals(0, 2 * round).await;
        world.drained().await;
    }
    world.daemon.restart().await;
    let reply = submit(&world, "a@home.test", "gone@away.test").await;
    assert!(reply.starts_with("550 5.1.1 ") && reply.contains("suppression list since"), "{reply}");
    assert!(reply.contains("nobody here"), "{reply}");
    // Policy is not the address's fault, and other recipients are others.
    for to in ["shut@away.test", "good@away.test"] {
        queue_id(&submit(&world, "a@home.test", to).await);
    }
    // A bounce or report to it is not refused: nobody could be told.
    queue_id(&submit(&world, "", "gone@away.test").await);
    world.drained().await;
    assert_eq!(rcpts(&world, "gone@away.test"), 3);

    let listed = world.daemon.json(&["suppression", "list"]).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["address"], &listed[0]["bounces"]), (&"gone@away.test".into(), &2.into()));
    let shown = world.daemon.ask(&["suppression", "show", "gone@away.test"]).await;
    assert!(shown.contains("550 5.1.1 nobody here") && shown.contains("2 bounces"), "{shown}");
    world.daemon.ask(&["suppression", "remove", "gone@away.test"]).await;
    assert_eq!(world.daemon.cli(&["suppression", "remove", "gone@away.test"]).await.status.code(), Some(1));
    queue_id(&submit(&world, "a@home.test", "gone@away.test").await);
}

#[tokio::test]
async fn with_answer_bounce_it_is_accepted_and_bounced_without_a_try() {
    let world = world(BOUNCE).await;
    queue_id(&submit(&world, "a@home.test", "gone@away.test").await);
    world.arrivals(0, 1).await;
    let mut client = Client::connect(world.daemon.smarthost).await;
    let both = ["gone@away.test", "good@away.test"];
    queue_id(&client.submit("a@home.test", &both, &message("two")).await);
    let bounce = world.arrivals(0, 2).await.remove(1).text();
    assert!(bounce.contains("Status: 5.1.1") && bounce.contains("suppression"), "{bounce}");
    assert!(!bounce.contains("Diagnostic-Code"), "nobody was asked: {bounce}");
    assert_eq!(world.arrivals(1, 1).await[0].rcpts.len(), 1);
    world.drained().await;
    assert_eq!(rcpts(&world, "gone@away.test"), 1);
    // The list's own bounces do not lengthen it.
    assert_eq!(world.daemon.json(&["suppression", "show", "gone@away.test"]).await[0]["bounces"], 1);
}

#[tokio::test]
async fn whoever_is_suppressed_is_bounced_at_once_though_the_others_wait_for_their_host() {
    let world = world(&format!("{BOUNCE}[delivery.pool]\nidle_time = \"0s\"\n")).await;
    queue_id(&submit(&world, "a@home.test", "gone@away.test").await);
    world.arrivals(0, 1).await;
    world.farm.hosts[1].adjust(|mx| mx.greeting = "421 4.3.2 not now".to_owned());
    // The host is left alone from now on.
    let first = queue_id(&submit(&world, "a@home.test", "good@away.test").await);
    world.deferred(&first).await;
    let mut client = Client::connect(world.daemon.smarthost).await;
    let both = ["gone@away.test", "good@away.test"];
    let both = queue_id(&client.submit("a@home.test", &both, &message("two")).await);
    let bounce = world.arrivals(0, 2).await.remove(1).text();
    assert!(bounce.contains("suppression") && !bounce.contains("good@away.test"), "{bounce}");
    let waiting = world.daemon.json(&["queue", "list"]).await;
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    // Each leaves evidence, also where nobody was asked.
    let alone = queue_id(&submit(&world, "a@home.test", "gone@away.test").await);
    world.arrivals(0, 3).await;
    for (id, address) in [(&both, "gone@away.test"), (&alone, "gone@away.test")] {
        support::eventually("the evidence", || async {
            let evidence = world.daemon.cli(&["evidence", id, "--json"]).await;
            let text = String::from_utf8_lossy(&evidence.stdout).into_owned();
            (text.contains(address) && text.contains("failed")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_delivery_ends_the_counting_and_an_operator_may_add() {
    let world = world(REFUSE).await;
    queue_id(&submit(&world, "a@home.test", "gone@away.test").await);
    world.arrivals(0, 1).await;
    world.drained().await;
    assert_eq!(world.daemon.json(&["suppression", "list"]).await.len(), 1);
    world.farm.hosts[1].behave(world.secured(&["mx.away.test"], support::pki::Kind::Good));
    queue_id(&submit(&world, "a@home.test", "gone@away.test").await);
    world.drained().await;
    support::eventually("the list to be empty", || async {
        world.daemon.json(&["suppression", "list"]).await.is_empty().then_some(())
    })
    .await;
    world.daemon.ask(&["suppression", "add", "b@away.test", "--reason", "asked us", "--for", "1h"]).await;
    let reply = submit(&world, "a@home.test", "b@away.test").await;
    assert!(reply.starts_with("550 5.1.1 ") && reply.contains("asked us"), "{reply}");
}

#[tokio::test]
async fn nothing_is_learnt_and_nobody_is_refused_unless_it_is_enabled() {
    let world = world("").await;
    for count in 1..=3 {
        queue_id(&submit(&world, "a@home.test", "gone@away.test").await);
        world.arrivals(0, count).await;
    }
    world.daemon.ask(&["suppression", "add", "b@away.test"]).await;
    world.farm.hosts[1].behave(Behaviour::clear());
    queue_id(&submit(&world, "a@home.test", "b@away.test").await);
    let listed = world.daemon.ask(&["suppression", "list"]).await;
    assert!(!listed.contains("gone@away.test") && listed.contains("not in force"), "{listed}");
}
