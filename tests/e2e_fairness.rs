//! Mail for one destination does not wait for another's: hosts that hang, and one with a great crowd.

mod support;

use std::time::Duration;

use support::client::{Client, message, queue_id};
use support::world::World;

/// Few places, so that a few destinations could take them all.
const FEW: &str = "[delivery]\nretry = [\"1h\"]\nconcurrency = 12\nconcurrency_per_destination = 2\n";

async fn submit_many(world: &World, to: &str, count: usize) {
    let mut client = Client::connect(world.daemon.smarthost).await;
    for number in 0..count {
        queue_id(&client.submit("a@home.test", &[to], &message(&format!("message {number}"))).await);
    }
}

#[tokio::test]
async fn hosts_that_hang_hold_up_nobody_else() {
    let world = World::start(6, &[], FEW).await;
    for host in 0..5 {
        world.good_domain(&format!("slow{host}.test"), host);
        world.farm.hosts[host].adjust(|behaviour| behaviour.dot_after = Duration::from_secs(3600));
        submit_many(&world, &format!("b@slow{host}.test"), 50).await;
    }
    world.good_domain("quick.test", 5);
    submit_many(&world, "b@quick.test", 20).await;
    world.arrivals(5, 20).await;
}

#[tokio::test]
async fn a_crowd_for_one_destination_goes_out_without_pauses_and_once() {
    let world = World::start(1, &[], FEW).await;
    world.good_domain("crowd.test", 0);
    world.farm.hosts[0].down();
    submit_many(&world, "b@crowd.test", 600).await;
    world.farm.hosts[0].up().await;
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    world.arrivals(0, 600).await;
    world.drained().await;
    assert_eq!(world.farm.hosts[0].accepted().len(), 600);
}
