//! Back-pressure: a relay without room keeps mail with its clients, says so, and goes on by itself.

mod support;

use support::client::{Client, message, queue_id};
use support::world::World;

/// The first word of the reply to MAIL.
async fn mail(world: &World, parameters: &str) -> String {
    let mut client = Client::connect(world.daemon.smarthost).await;
    client.say(&format!("MAIL FROM:<a@home.test>{parameters}")).await
}

async fn storage(world: &World) -> String {
    world.daemon.json(&["queue", "stats"]).await[0]["health"].as_str().expect("a text").to_owned()
}

/// Reloads with other limits, and waits until MAIL is answered so.
async fn reload(world: &World, limits: &str, reply: &'static str) {
    world.daemon.configure_extra(limits);
    world.daemon.signal("HUP");
    support::eventually("the limits to be changed", || async {
        mail(world, "").await.starts_with(reply).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_low_disk_and_a_long_queue_keep_mail_out_until_there_is_room() {
    let world = World::start(1, &[], "[limits]\nqueue_items = 2\n").await;
    world.good_domain("away.test", 0);
    // Nothing leaves yet.
    world.farm.hosts[0].down();
    let mut client = Client::connect(world.daemon.smarthost).await;
    for _ in 0..2 {
        queue_id(&client.submit("a@home.test", &["b@away.test"], &message("kept")).await);
    }
    assert!(client.say("MAIL FROM:<a@home.test>").await.starts_with("452 4.3.1"));
    assert!(storage(&world).await.contains("the queue has 2 items"), "{}", storage(&world).await);

    reload(&world, "[limits]\nqueue_items = 0\n", "250").await;
    assert_eq!(storage(&world).await, "fine");
    reload(&world, "[limits]\ndisk_free = \"1000000GB\"\n", "452 4.3.1").await;
    assert!(storage(&world).await.contains("limits.disk_free"), "{}", storage(&world).await);

    // The size declared counts.
    reload(&world, "[limits]\nmessage_size = \"1000000GB\"\n", "250").await;
    // A reload changes the room and then the largest size: for a moment this is too large.
    support::eventually("the largest size to be changed", || async {
        mail(&world, " SIZE=999999999999999").await.starts_with("452 4.3.1").then_some(())
    })
    .await;
    assert!(mail(&world, " SIZE=1000").await.starts_with("250"));
}
