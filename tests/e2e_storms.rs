//! Operators' work in the midst of mail: reloads one after the other, messages moved away while others
//! come in. Nothing is lost, nothing comes twice, nothing stops.

mod support;

use std::collections::BTreeMap;

use support::client::{Client, message, queue_id};
use support::eventually;
use support::world::World;

/// How often each subject arrived at a host and was taken.
fn taken(world: &World, host: usize) -> BTreeMap<String, usize> {
    let mut subjects = BTreeMap::new();
    for arrival in world.farm.hosts[host].accepted() {
        let text = arrival.text();
        let subject = text.lines().find(|line| line.starts_with("Subject: ")).unwrap_or_default().to_owned();
        *subjects.entry(subject).or_default() += 1;
    }
    subjects
}

fn assert_once_each(subjects: &BTreeMap<String, usize>, count: usize) {
    let odd: Vec<_> = subjects.iter().filter(|(_, times)| **times != 1).collect();
    assert!(odd.is_empty() && subjects.len() == count, "{} subjects; not once: {odd:?}", subjects.len());
}

#[tokio::test]
async fn a_storm_of_reloads_good_and_bad_disturbs_no_message() {
    const COUNT: usize = 300;
    let world = World::start(1, &[], "").await;
    world.good_domain("away.test", 0);
    let submit = async {
        let mut client = Client::connect(world.daemon.smarthost).await;
        for number in 0..COUNT {
            let to = format!("u{number}@away.test");
            queue_id(&client.submit("a@home.test", &[&to], &message(&format!("n{number}"))).await);
            tokio::task::yield_now().await;
        }
    };
    let variants = [
        "[delivery]\nconcurrency_per_destination = 1\n[delivery.pool]\nidle_time = \"0s\"\n",
        "[delivery]\nretry = [\"1s\"]\nchunking = false\n",
        "[delivery]\nretry = \"nonsense\"\n",
        "[[policy.override]]\ndomain = \"away.test\"\nrequire = \"verify\"\n",
        "",
    ];
    let reload = async {
        for round in 0..40 {
            let before = world.daemon.log().matches("reload").count();
            world.daemon.configure_extra(variants[round % variants.len()]);
            world.daemon.signal("HUP");
            // Signals that come together are one; now and then each is waited for.
            if round % 4 == 0 {
                eventually("a reload", || async {
                    (world.daemon.log().matches("reload").count() > before).then_some(())
                })
                .await;
            }
        }
    };
    tokio::join!(submit, reload);
    world.daemon.configure_extra("");
    world.daemon.signal("HUP");
    world.drained().await;
    assert_once_each(&taken(&world, 0), COUNT);
    // What holds at the end is the last good configuration.
    world.submit("a@home.test", &["last@away.test"], &message("last")).await;
    world.arrivals(0, COUNT + 1).await;
}

#[tokio::test]
async fn messages_move_away_while_others_come_in_and_each_arrives_once() {
    const COUNT: usize = 120;
    let here = World::start(1, &[], "[delivery]\nretry = [\"2s\"]\n").await;
    let there = World::start(1, &[], "[delivery]\nretry = [\"1s\"]\n").await;
    here.good_domain("away.test", 0);
    there.good_domain("away.test", 0);
    // Half of them wait here, being put off for now.
    here.farm.hosts[0].adjust(|mx| mx.replies.push(("RCPT TO:<late".into(), "450 4.2.1 later".into())));
    let submit = async {
        let mut client = Client::connect(here.daemon.smarthost).await;
        for number in 0..COUNT {
            let to = format!("{}{number}@away.test", if number % 2 == 0 { "late" } else { "now" });
            queue_id(&client.submit("a@home.test", &[&to], &message(&format!("n{number}"))).await);
        }
    };
    let move_away = async {
        for round in 0..4 {
            let folder = here.daemon.path(&format!("moved{round}"));
            let folder = folder.to_str().expect("a name").to_owned();
            // Some are in an attempt and stay; with nothing to move the verb says so.
            let moved = here.daemon.cli(&["queue", "export", "--all", "--to", &folder, "--remove"]).await;
            assert!(moved.status.code().is_some_and(|code| code < 3), "{moved:?}");
            if std::path::Path::new(&folder).join("messages.jsonl").exists() {
                let taken = there.daemon.cli(&["queue", "import", &folder]).await;
                assert!(taken.status.code().is_some_and(|code| code < 3), "{taken:?}");
            }
        }
    };
    tokio::join!(submit, move_away);
    here.farm.hosts[0].adjust(|mx| mx.replies.clear());
    here.drained().await;
    there.drained().await;
    let mut all = taken(&here, 0);
    for (subject, times) in taken(&there, 0) {
        *all.entry(subject).or_default() += times;
    }
    assert_once_each(&all, COUNT);
}
