//! Operations on the queue by what items have in common, bounces at an operator's word, freezes.

mod support;

use serde_json::Value;

use support::client::message;
use support::world::World;

/// A world with two domains that say "later", and a host for the notices.
async fn world(extra: &str) -> World {
    let world = World::start(3, &[], extra).await;
    for (index, domain) in ["one.test", "two.test", "home.test"].iter().enumerate() {
        world.good_domain(domain, index);
    }
    for host in &world.farm.hosts[..2] {
        host.adjust(|mx| mx.dot = "451 4.3.0 greylisted".into());
    }
    world
}

fn items(listed: &[Value]) -> Vec<String> {
    listed.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

/// A notice's text is wrapped anywhere.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn items_are_listed_and_changed_by_age_state_and_error_and_page_by_page() {
    let world = world("").await;
    let daemon = &world.daemon;
    let mut ids = Vec::new();
    for to in ["b@one.test", "b@two.test", "c@one.test"] {
        let id = world.submit("a@home.test", &[to], &message(to)).await;
        world.deferred(&id).await;
        ids.push(format!("{id}.0"));
    }
    let list = async |filter: &[&str]| items(&daemon.json(&[&["queue", "list"], filter].concat()).await);
    assert_eq!(list(&["--error", "GREYlisted", "--recipient-domain", "one.test"]).await, [&*ids[0], &ids[2]]);
    assert!(list(&["--error", "no such user"]).await.is_empty());
    assert_eq!(list(&["--newer-than", "1h", "--state", "deferred"]).await, ids);
    assert!(list(&["--older-than", "1h"]).await.is_empty());
    assert_eq!(list(&["--limit", "2"]).await, ids[..2]);
    assert_eq!(list(&["--limit", "2", "--after", &ids[1]]).await, ids[2..]);
    let cut = daemon.cli(&["queue", "list", "--limit", "2"]).await;
    assert!(String::from_utf8_lossy(&cut.stderr).contains(&format!("--after {}", ids[1])));

    let said = daemon.ask(&["queue", "delete", "--all", "--dry-run"]).await;
    assert_eq!(said.trim(), "3 items would be deleted");
    assert_eq!(list(&[]).await, ids);
    let said = daemon.json(&["queue", "hold", "--error", "greylisted", "--state", "deferred"]).await;
    assert_eq!((&said[0]["count"], &said[0]["action"]), (&3.into(), &"hold".into()), "{said:?}");
    assert_eq!(list(&["--state", "held"]).await, ids);
    let stats = daemon.json(&["queue", "stats", "--destinations", "1"]).await.remove(0);
    assert_eq!(stats["destinations"].as_array().map(Vec::len), Some(1), "{stats}");
    assert_eq!(
        (&stats["destinations"][0]["held"], &stats["destination_count"]),
        (&2.into(), &2.into()),
        "{stats}"
    );
    daemon.ask(&["queue", "delete", "--state", "held"]).await;
    world.drained().await;
}

#[tokio::test]
async fn what_is_bounced_leaves_with_a_notice_to_its_sender_but_never_to_nobody() {
    let world = world("").await;
    let daemon = &world.daemon;
    let held = world.submit("a@home.test", &["b@one.test", "c@two.test"], &message("held")).await;
    let null = world.submit("", &["b@two.test"], &message("null")).await;
    for id in [&held, &null] {
        world.deferred(id).await;
    }
    daemon.ask(&["queue", "hold", "--recipient-domain", "one.test"]).await;
    let said = daemon.ask(&["queue", "bounce", "--all", "--reason", "wrong list"]).await;
    assert!(said.starts_with("3 items given up"), "{said}");
    // The notices queued meanwhile are none of "all": they arrive.
    let notices = world.arrivals(2, 2).await;
    world.drained().await;
    let texts: Vec<String> = notices.iter().map(|notice| words(&notice.text())).collect();
    for (address, text) in [
        ("b@one.test", texts.iter().find(|text| text.contains("b@one.test"))),
        ("c@two.test", texts.iter().find(|text| text.contains("c@two.test"))),
    ] {
        let text = text.unwrap_or_else(|| panic!("no notice of {address}: {texts:?}"));
        for words in
            ["Action: failed", "Status: 5.0.0", "wrong list", "given up by the operator", "Auto-Submitted"]
        {
            assert!(text.contains(words), "{words} is missing: {text}");
        }
    }
    assert!(notices.iter().all(|notice| notice.mail.contains("<>")));
    assert!(daemon.log().contains("message with null reverse-path failed; nobody is told"));
    assert_eq!(daemon.cli(&["queue", "bounce", &held]).await.status.code(), Some(1));
}

#[tokio::test]
async fn a_frozen_destination_gets_nothing_until_it_is_thawed() {
    let mut world = world("").await;
    for host in &world.farm.hosts[..2] {
        host.adjust(|mx| mx.dot = "250 2.0.0 taken".into());
    }
    world.daemon.ask(&["queue", "freeze", "one.test", "--reason", "moving house"]).await;
    let id = world.submit("a@home.test", &["b@one.test", "c@two.test"], &message("first")).await;
    world.arrivals(1, 1).await;
    world.daemon.restart().await;
    let second = world.submit("a@home.test", &["d@one.test"], &message("second")).await;
    world.daemon.ask(&["queue", "retry", "--all"]).await;
    // What goes to others passes by.
    world.submit("a@home.test", &["d@two.test"], &message("third")).await;
    world.arrivals(1, 2).await;
    let listed = world.daemon.json(&["queue", "list", "--state", "frozen"]).await;
    assert_eq!(items(&listed), [format!("{id}.0"), format!("{second}.0")]);
    assert!(listed.iter().all(|item| item["frozen"] == true && item["attempts"] == 0), "{listed:?}");
    let waits = listed[0]["waits"].as_str().expect("a sentence");
    assert!(waits.contains("stopped deliveries to one.test: moving house"), "{waits}");
    assert!(world.daemon.ask(&["queue", "list"]).await.contains("frozen"));
    let stats = world.daemon.json(&["queue", "stats"]).await.remove(0);
    assert_eq!(
        (&stats["frozen"][0]["destination"], &stats["frozen"][0]["items"], &stats["frozen"][0]["reason"]),
        (&"one.test".into(), &2.into(), &"moving house".into()),
        "{stats}"
    );
    assert!(world.daemon.ask(&["queue", "stats"]).await.contains("moving house"));
    assert_eq!(world.farm.hosts[0].log().connections, 0);

    let said = world.daemon.ask(&["queue", "thaw", "one.test"]).await;
    assert_eq!(said.trim(), "2 items to be tried now");
    world.arrivals(0, 2).await;
    world.drained().await;
    assert_eq!(world.daemon.cli(&["queue", "thaw", "one.test"]).await.status.code(), Some(1));
    assert_eq!(
        world.daemon.cli(&["queue", "freeze", "one.test", "--until", "nonsense"]).await.status.code(),
        Some(64)
    );
}

#[tokio::test]
async fn the_sender_hears_of_a_freeze_as_of_any_delay_and_of_its_end_too() {
    let world = world("[delivery]\ndelay_warning = \"1s\"\nlifetime = \"3s\"\nretry = [\"1s\"]\n").await;
    world.daemon.ask(&["queue", "freeze", "one.test", "--reason", "moving house"]).await;
    world.submit("a@home.test", &["b@one.test"], &message("waits")).await;
    let notices = world.arrivals(2, 2).await;
    world.drained().await;
    for (notice, action) in notices.iter().zip(["delayed", "failed"]) {
        let text = words(&notice.text());
        assert!(text.contains(&format!("Action: {action}")), "{text}");
        assert!(text.contains("moving house"), "{text}");
    }
    assert_eq!(world.farm.hosts[0].log().connections, 0);
}
