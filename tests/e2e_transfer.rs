//! Messages move from one daemon to another: none lost, none doubled, nothing about them forgotten.

mod support;

use std::fs;

use serde_json::Value;
use support::client::{Client, message, queue_id};
use support::world::World;

const RETRYING: &str = "[delivery]\nretry = [\"1s\"]\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A world whose one host takes DSN parameters.
async fn world(domain: &str) -> World {
    let world = World::start(1, &[], RETRYING).await;
    world.good_domain(domain, 0);
    world.farm.hosts[0].adjust(|mx| mx.extensions.push("DSN".to_owned()));
    world
}

/// The host takes nothing for now. One that is down would be left alone for a while, and what is queued
/// meanwhile not be tried at all.
fn says_later(world: &World) {
    let later = ("RCPT".to_owned(), "451 4.3.0 later".to_owned());
    world.farm.hosts[0].adjust(|mx| mx.replies.push(later));
}

async fn submit_with_dsn(world: &World, content: &str) -> String {
    let mut client = Client::connect(world.daemon.smarthost).await;
    for line in [
        "MAIL FROM:<a@home.test> RET=HDRS ENVID=QQ314159",
        "RCPT TO:<b@away.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first@away.test",
        "RCPT TO:<c@away.test> NOTIFY=NEVER",
        "DATA",
    ] {
        let reply = client.say(line).await;
        assert!(reply.starts_with(['2', '3']), "{line}: {reply}");
    }
    queue_id(&client.say(&format!("{content}.")).await)
}

async fn fails(world: &World, arguments: &[&str], code: i32, words: &str) {
    let output = world.daemon.cli(arguments).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: {said}");
}

async fn queued(world: &World) -> Vec<Value> {
    world.daemon.json(&["queue", "list"]).await
}

#[tokio::test]
async fn messages_move_to_another_host_and_are_delivered_there_once() {
    let (here, there) = (world("away.test").await, world("away.test").await);
    says_later(&here);
    let large = message("large") + &"0123456789abcdef\r\n".repeat(100_000);
    let ids = [submit_with_dsn(&here, &message("small")).await, submit_with_dsn(&here, &large).await];
    for id in &ids {
        here.deferred(id).await;
    }
    let folder = here.daemon.path("export");
    let folder = folder.to_str().expect("a name");
    let said = here.daemon.ask(&["queue", "export", "--all", "--to", folder, "--remove"]).await;
    assert!(said.contains("2 messages (2 items) exported, removed here"), "{said}");
    assert_eq!(queued(&here).await, Vec::<Value>::new());
    let list = fs::read_to_string(format!("{folder}/messages.jsonl")).expect("written");
    assert!(list.contains("QQ314159") && list.lines().count() == 4, "{list}");
    fails(&here, &["queue", "export", "--all", "--to", folder], 2, "is there already").await;

    // What is not complete changes nothing.
    let broken = here.daemon.path("broken");
    let broken = broken.to_str().expect("a name");
    let break_it = |end: usize, content: bool| {
        let _ = fs::remove_dir_all(broken);
        fs::create_dir_all(format!("{broken}/content")).expect("writable");
        let lines: Vec<_> = list.lines().take(end).collect();
        fs::write(format!("{broken}/messages.jsonl"), lines.join("\n")).expect("writable");
        for id in &ids {
            let name = format!("content/{id}.eml");
            let mut bytes = fs::read(format!("{folder}/{name}")).expect("written");
            bytes[100] ^= u8::from(content);
            fs::write(format!("{broken}/{name}"), bytes).expect("writable");
        }
    };
    break_it(3, false);
    fails(&there, &["queue", "import", broken], 2, "its end is missing; nothing was imported").await;
    break_it(4, true);
    fails(&there, &["queue", "import", broken], 2, "is not as it was exported; nothing was imported").await;
    fails(&there, &["queue", "import", "/nowhere"], 2, "is no export").await;
    assert_eq!(queued(&there).await, Vec::<Value>::new());

    let said = there.daemon.ask(&["queue", "import", folder]).await;
    assert!(said.contains("2 messages (2 items) imported, 0 items known"), "{said}");
    there.drained().await;
    for _ in 0..2 {
        let said = there.daemon.ask(&["queue", "import", folder]).await;
        assert!(said.contains("0 messages (0 items) imported, 2 items known"), "{said}");
    }
    there.drained().await;
    let arrivals = there.farm.hosts[0].accepted();
    assert_eq!(arrivals.len(), 2);
    assert!(here.farm.hosts[0].accepted().is_empty());
    for arrival in &arrivals {
        assert!(
            arrival.mail.contains("RET=HDRS") && arrival.mail.contains("ENVID=QQ314159"),
            "{}",
            arrival.mail
        );
        let rcpts = arrival.rcpts.join("\n");
        for words in ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@away.test", "NOTIFY=NEVER"] {
            assert!(rcpts.contains(words), "{rcpts}");
        }
    }
    assert!(arrivals.iter().any(|arrival| arrival.text().ends_with(&large)), "octet by octet");
}

#[tokio::test]
async fn a_stopped_queue_is_checked_exported_and_imported_without_a_daemon() {
    let mut world = world("away.test").await;
    says_later(&world);
    let id = submit_with_dsn(&world, &message("first")).await;
    world.route("else.test", 10, "mx.away.test", 0);
    let second = world.submit("other@home.test", &["b@else.test"], &message("second")).await;
    world.deferred(&id).await;
    world.deferred(&second).await;
    fails(&world, &["queue", "check"], 2, "stop the daemon first").await;
    world.daemon.stop().await;
    let said = world.daemon.ask(&["queue", "check"]).await;
    assert!(said.starts_with("2 messages (2 items)") && said.trim_end().ends_with("sound"), "{said}");
    let found = world.daemon.json(&["queue", "check"]).await;
    assert_eq!(found.len(), 1);

    let folder = |name: &str| world.daemon.path(name).to_str().expect("a name").to_owned();
    let (one, two) = (folder("one"), folder("two"));
    let some = ["queue", "export", "--recipient-domain", "away.test", "--to"];
    let said = world.daemon.ask(&[&some[..], &[&one]].concat()).await;
    assert!(said.contains("1 messages (1 items) exported, held here"), "{said}");
    let said = text(&world.daemon.cli(&["queue", "import", &one]).await.stdout);
    assert!(said.contains("is still in this queue: not taken"), "{said}");
    world.daemon.ask(&[&some[..], &[&two, "--remove"]].concat()).await;
    for (imported, words) in [(true, "1 messages (1 items) imported"), (false, "was imported before")] {
        let said = world.daemon.ask(&["queue", "import", &two]).await;
        assert!(said.contains(words), "{imported}: {said}");
    }
    // The other archive is of the same message.
    assert!(world.daemon.ask(&["queue", "import", &one]).await.contains("was imported before"));
    world.daemon.ask(&["queue", "check"]).await;

    world.daemon.start().await;
    let items = queued(&world).await;
    assert_eq!(items.len(), 2);
    let moved = items.iter().find(|item| item["destination"] == "away.test").expect("there");
    assert_eq!(moved["state"], "held", "as it was when it left");
    assert!(moved["attempts"].as_u64() > Some(0) && moved["id"].as_str() != Some(&format!("{id}.0")));
    world.farm.hosts[0].adjust(|mx| mx.replies.clear());
    world.daemon.ask(&["queue", "release", "--recipient-domain", "away.test"]).await;
    // The other message may come too: its wait at this host goes on over the restart.
    let moved = |arrival: &support::mx::Arrival| arrival.rcpts.iter().any(|rcpt| rcpt.contains("@away.test"));
    support::eventually("the moved message", || async {
        world.farm.hosts[0].accepted().iter().any(moved).then_some(())
    })
    .await;
}
