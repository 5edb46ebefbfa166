//! What was acknowledged is delivered: over crashes, damage, and hosts that break off.

mod support;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use support::client::{Client, Rough, message, queue_id};
use support::world::World;

/// Subjects as they arrived, with how often.
fn subjects(world: &World, host: usize) -> HashMap<String, usize> {
    let mut subjects = HashMap::new();
    for arrival in world.farm.hosts[host].accepted() {
        let text = arrival.text();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject");
        *subjects.entry(subject.to_owned()).or_insert(0) += 1;
    }
    subjects
}

/// Submits messages with these subjects on one connection; gives their queue ids.
async fn submit_all(world: &World, subjects: impl Iterator<Item = String>, to: &[&str]) -> Vec<String> {
    let mut client = Client::connect(world.daemon.smarthost).await;
    let mut ids = Vec::new();
    for subject in subjects {
        ids.push(queue_id(&client.submit("a@home.test", to, &message(&subject)).await));
    }
    ids
}

fn numbered(from: usize, to: usize) -> impl Iterator<Item = String> {
    (from..to).map(|number| format!("message {number}"))
}

const RETRYING: &str = "[delivery]\nretry = [\"1s\"]\n";

#[tokio::test]
async fn after_kill_9_every_acknowledged_message_goes_out_once_by_itself() {
    let mut world = World::start(2, &[], RETRYING).await;
    world.good_domain("one.test", 0);
    world.good_domain("two.test", 1);
    for host in &world.farm.hosts {
        host.down();
    }
    let large = format!("{}{}", message("large"), "0123456789abcdef\r\n".repeat(150_000));
    world.submit("a@home.test", &["b@one.test"], &large).await;
    submit_all(&world, numbered(0, 100), &["b@one.test", "c@two.test"]).await;
    world.daemon.restart().await;
    submit_all(&world, numbered(100, 150), &["b@one.test", "c@two.test"]).await;
    world.daemon.kill();
    for host in &world.farm.hosts {
        host.up().await;
    }
    world.daemon.start().await;
    world.drained().await;
    let expected: HashMap<String, usize> = numbered(0, 150).map(|subject| (subject, 1)).collect();
    assert_eq!(subjects(&world, 1), expected);
    let mut one = subjects(&world, 0);
    assert_eq!(one.remove("large"), Some(1));
    assert_eq!(one, expected);
    let arrivals = world.farm.hosts[0].accepted();
    assert!(arrivals.iter().any(|arrival| arrival.text().ends_with(&large)), "the large one is as it was");
}

/// Submits until the daemon is gone; gives the subjects it acknowledged.
async fn submit_until_death(smarthost: SocketAddr, submitter: String) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(stream) = TcpStream::connect(smarthost).await else { return acknowledged };
    let mut client = Rough::new(stream);
    if client.read_reply().await.is_none() || client.say("EHLO client.world.test").await.is_none() {
        return acknowledged;
    }
    for number in 0.. {
        let subject = format!("{submitter}/{number}");
        match client.submit("a@home.test", "b@busy.test", &message(&subject)).await {
            Some(reply) if reply.starts_with("250") => acknowledged.push(subject),
            _ => break,
        }
    }
    acknowledged
}

#[tokio::test]
async fn kills_amid_submission_and_delivery_lose_nothing_that_was_acknowledged() {
    const KILLS: usize = 4;
    let mut world = World::start(1, &[], RETRYING).await;
    world.good_domain("busy.test", 0);
    let mut acknowledged = Vec::new();
    for round in 0..KILLS {
        let delivered = world.farm.hosts[0].log().arrivals.len();
        let submitters: Vec<_> = (0..8)
            .map(|submitter| {
                tokio::spawn(submit_until_death(world.daemon.smarthost, format!("{round}/{submitter}")))
            })
            .collect();
        support::eventually("some deliveries", || async {
            (world.farm.hosts[0].log().arrivals.len() >= delivered + 50).then_some(())
        })
        .await;
        world.daemon.kill();
        for submitter in submitters {
            acknowledged.extend(submitter.await.expect("no panic"));
        }
        world.daemon.start().await;
    }
    assert!(acknowledged.len() >= 50);
    world.drained().await;
    let arrived = subjects(&world, 0);
    let lost: Vec<_> = acknowledged.iter().filter(|subject| !arrived.contains_key(*subject)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    // What was delivered and not yet written down at a kill may come again, and nothing else: an
    // attempt at a time for each of the 20 that a destination gets.
    let twice = arrived.values().filter(|count| **count > 1).count();
    assert!(twice <= KILLS * 40, "{twice} of {} came more than once", arrived.len());
    assert!(arrived.values().all(|count| *count <= KILLS + 1));
}

#[tokio::test]
async fn a_lost_or_damaged_index_is_rebuilt_and_nothing_is_lost() {
    let mut world = World::start(1, &[], RETRYING).await;
    world.good_domain("away.test", 0);
    world.farm.hosts[0].down();
    submit_all(&world, numbered(0, 40), &["b@away.test"]).await;
    let index = world.daemon.data_dir().join("queue/index");
    assert!(index.is_dir());

    world.daemon.kill();
    fs::remove_dir_all(&index).expect("removable");
    world.daemon.start().await;
    let totals = world.daemon.json(&["queue", "stats"]).await.remove(0);
    let queued = |totals: &serde_json::Value| {
        totals["active"].as_u64().unwrap_or(0) + totals["deferred"].as_u64().unwrap_or(0)
    };
    assert_eq!(queued(&totals), 40, "{totals}");
    assert!(world.daemon.log().contains("index was rebuilt"), "{}", world.daemon.log());

    assert_eq!(world.daemon.stop().await, Some(0));
    for file in fs::read_dir(&index).expect("readable").map(|file| file.expect("readable").path()) {
        if file.is_file() {
            let length = usize::try_from(fs::metadata(&file).expect("readable").len()).expect("small");
            fs::write(&file, vec![0xa5; length.max(64)]).expect("writable");
        }
    }
    let said = world.daemon.log().len();
    world.daemon.start().await;
    assert!(world.daemon.log()[said..].contains("index was rebuilt"), "{}", &world.daemon.log()[said..]);
    world.farm.hosts[0].up().await;
    world.drained().await;
    let expected: HashMap<String, usize> = numbered(0, 40).map(|subject| (subject, 1)).collect();
    assert_eq!(subjects(&world, 0), expected);
}

#[tokio::test]
async fn a_half_written_record_at_the_end_of_the_journal_costs_nothing_that_was_acknowledged() {
    let mut world = World::start(1, &[], RETRYING).await;
    world.good_domain("away.test", 0);
    world.farm.hosts[0].down();
    submit_all(&world, numbered(0, 20), &["b@away.test"]).await;
    world.daemon.kill();
    let journal = world.daemon.data_dir().join("queue/journal");
    let last = fs::read_dir(journal)
        .expect("readable")
        .map(|file| file.expect("readable").path())
        .max()
        .expect("a segment");
    let mut bytes = fs::read(&last).expect("readable");
    let tail = bytes[bytes.len() / 2..].iter().take(700).copied().collect::<Vec<u8>>();
    bytes.extend(tail);
    fs::write(&last, bytes).expect("writable");
    world.daemon.start().await;
    assert!(world.daemon.log().contains("repaired: "), "{}", world.daemon.log());
    submit_all(&world, numbered(20, 25), &["b@away.test"]).await;
    world.farm.hosts[0].up().await;
    world.drained().await;
    let expected: HashMap<String, usize> = numbered(0, 25).map(|subject| (subject, 1)).collect();
    assert_eq!(subjects(&world, 0), expected);
}

#[tokio::test]
async fn a_hundred_messages_to_a_domain_take_few_connections_and_few_questions() {
    let world = World::start(1, &["bulk.test"], "").await;
    world.dns.ttl(600);
    world.good_domain("bulk.test", 0);
    world.publish("bulk.test", "1", "enforce", &["mx.bulk.test"], 86_400);
    submit_all(&world, numbered(0, 100), &["b@bulk.test"]).await;
    world.drained().await;
    assert_eq!(subjects(&world, 0).len(), 100);
    let log = world.farm.hosts[0].log();
    assert!(log.connections <= 20, "{} connections", log.connections);
    assert_eq!(log.connections, log.handshakes);
    assert!(world.dns.questions() <= 12, "{} questions", world.dns.questions());
    assert_eq!(world.web.gets("mta-sts.bulk.test"), 1);
}

#[tokio::test]
async fn a_host_may_break_off_anywhere_and_the_message_still_arrives_once() {
    let phases = ["connect", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "."];
    let world = World::start(7, &[], "").await;
    let mut ids = Vec::new();
    for (index, phase) in phases.iter().enumerate() {
        let domain = format!("d{index}.test");
        world.good_domain(&domain, index);
        world.farm.hosts[index].adjust(|mx| mx.drop_at = Some((*phase).to_owned()));
        ids.push(world.submit("a@home.test", &[&format!("b@{domain}")], &message(phase)).await);
    }
    for (index, id) in ids.iter().enumerate() {
        if phases[index] == "STARTTLS" {
            // Without a policy the mail goes on in clear.
            assert!(!world.arrivals(index, 1).await[0].tls);
            continue;
        }
        let item = world.deferred(id).await.remove(0);
        let result = item["history"][0]["result"].as_str().expect("a sentence");
        assert!(result.contains("deferred: 4.4.2"), "{}: {result}", phases[index]);
        assert_eq!(result.contains("may have been delivered"), phases[index] == ".", "{result}");
        world.farm.hosts[index].adjust(|mx| mx.drop_at = None);
        world.daemon.ask(&["queue", "retry", id]).await;
    }
    world.drained().await;
    for (index, phase) in phases.iter().enumerate() {
        assert_eq!(world.farm.hosts[index].accepted().len(), 1, "{phase}");
    }
}

#[tokio::test]
async fn the_next_host_is_tried_at_once_unless_the_message_may_have_arrived() {
    let phases = ["connect", "EHLO", "MAIL", "RCPT", "DATA"];
    let world = World::start(7, &[], "").await;
    for (index, phase) in phases.iter().enumerate() {
        let domain = format!("d{index}.test");
        world.route(&domain, 10, &format!("mx.{domain}"), index);
        world.farm.hosts[index].adjust(|mx| mx.drop_at = Some((*phase).to_owned()));
        world.route(&domain, 20, "spare.test", 6);
        world.submit("a@home.test", &[&format!("b@{domain}")], &message(phase)).await;
    }
    world.arrivals(6, phases.len()).await;
    world.drained().await;
    world.route("dot.test", 10, "mx.dot.test", 5);
    world.route("dot.test", 20, "spare.test", 6);
    world.farm.hosts[5].adjust(|mx| mx.drop_at = Some(".".to_owned()));
    let id = world.submit("a@home.test", &["b@dot.test"], &message("dot")).await;
    world.deferred(&id).await;
    assert_eq!(world.farm.hosts[6].accepted().len(), phases.len());
}
