//! Damaged and missing files: what can be kept is kept, what cannot is told.

use std::fs;
use std::path::PathBuf;

use super::super::frame;
use super::super::queue::{AdminAction, Filter};
use super::sim::copy;
use super::*;

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(dir.join("queue/journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

async fn fill(dir: &Path, count: u8) -> Vec<QueueId> {
    let (queue, _) = open(dir);
    let mut all = Vec::new();
    for index in 0..count {
        all.push(queue.enqueue(message(&queue, &["a@one.example"], &[index; 900])).await.unwrap());
    }
    queue.close().await;
    all
}

fn without_index(dir: &Path) {
    fs::remove_dir_all(dir.join("queue/index")).unwrap();
}

async fn queue_ids(queue: &Queue) -> Vec<QueueId> {
    ids(queue, &Filter::default()).await.iter().map(|item| item.queue_id).collect()
}

#[tokio::test]
async fn a_torn_end_is_cut_off_at_every_octet() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path(), 3).await;
    let path = segments(dir.path()).pop().unwrap();
    let good = fs::read(&path).unwrap();
    let begin = good.windows(4).rposition(|four| four == b"\xf5SRJ").unwrap();
    for end in begin..good.len() {
        for garbled in [false, true] {
            let broken = tempfile::tempdir().unwrap();
            copy(dir.path(), broken.path());
            without_index(broken.path());
            let mut bytes = good[..end].to_vec();
            if garbled {
                bytes.resize(good.len() + 10, 0xf5);
            }
            let path = segments(broken.path()).pop().unwrap();
            fs::write(&path, &bytes).unwrap();
            // Every octet is tried for the scan; opening all of them would take minutes.
            let frames = frame::Scan { bytes: &bytes, segment: 1, nonce: nonce(&bytes), at: frame::HEADER };
            let whole = frames.filter(|found| matches!(found, frame::Found::Frame { .. })).count();
            assert_eq!(whole, 3, "cut at {end}");
            if (end - begin) % 97 != 0 {
                continue;
            }
            let (queue, repaired) = open(broken.path());
            assert_eq!(queue_ids(&queue).await, all[..2], "cut at {end}");
            let told = repaired.iter().any(|note| note.contains("unfinished write cut off"));
            assert_eq!(told, bytes.len() > begin, "cut at {end}: {repaired:?}");
            queue.enqueue(message(&queue, &["a@one.example"], b"on")).await.unwrap();
            queue.close().await;
            let (queue, repaired) = open(broken.path());
            assert_eq!((queue_ids(&queue).await.len(), repaired), (3, vec![]));
        }
    }
}

#[tokio::test]
async fn an_index_that_ended_the_process_is_not_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path(), 3).await;
    fs::write(dir.path().join("queue/opening-index"), "").unwrap();
    let (queue, repaired) = open(dir.path());
    assert_eq!(queue_ids(&queue).await, all);
    let told = |note: &String| note.contains("rebuilt") && note.contains("ended while it opened it");
    assert!(repaired.iter().any(told), "{repaired:?}");
    queue.close().await;
    let (queue, repaired) = open(dir.path());
    assert_eq!((queue_ids(&queue).await, repaired), (all, vec![]));
}

fn nonce(bytes: &[u8]) -> frame::Nonce {
    frame::Header::parse(bytes).unwrap().nonce
}

#[tokio::test]
async fn a_damaged_record_costs_that_record_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path(), 40).await;
    let [first, middle, ..] = &segments(dir.path())[..] else { panic!("several segments") };
    let mut bytes = fs::read(middle).unwrap();
    // In the content of the segment's second message.
    let octet = bytes.windows(4).enumerate().filter(|(_, four)| *four == b"\xf5SRJ").nth(2).unwrap().0 - 50;
    bytes[octet] ^= 1;
    fs::write(middle, &bytes).unwrap();
    without_index(dir.path());
    let (queue, repaired) = open(dir.path());
    let left = queue_ids(&queue).await;
    let lost: Vec<_> = all.iter().filter(|id| !left.contains(id)).collect();
    assert_eq!(lost.len(), 1);
    let note = repaired.iter().find(|note| note.contains("are damaged and were skipped")).unwrap();
    assert!(note.contains(&lost[0].to_string()) && note.contains(middle.to_str().unwrap()), "{note}");
    drop(queue);

    // A damaged header costs nothing.
    let mut bytes = fs::read(first).unwrap();
    bytes[3] ^= 1;
    fs::write(first, &bytes).unwrap();
    without_index(dir.path());
    let (queue, repaired) = open(dir.path());
    assert_eq!(queue_ids(&queue).await, left);
    assert!(repaired.iter().any(|note| note.contains("header") && note.contains("damaged")), "{repaired:?}");
}

#[tokio::test]
async fn damage_in_the_last_segment_is_left_alone_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path(), 3).await;
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let octet = bytes.windows(4).enumerate().filter(|(_, four)| *four == b"\xf5SRJ").nth(2).unwrap().0;
    bytes[octet + 100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    without_index(dir.path());
    let (queue, repaired) = open(dir.path());
    assert_eq!(queue_ids(&queue).await, [all[0], all[2]]);
    assert!(repaired.iter().any(|note| note.contains("skipped")), "{repaired:?}");
    queue.enqueue(message(&queue, &["a@one.example"], b"on")).await.unwrap();
    assert_eq!(segments(dir.path()).len(), 2);
    queue.close().await;
    assert_eq!(queue_ids(&open(dir.path()).0).await.len(), 3);
}

#[tokio::test]
async fn a_missing_segment_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 60).await;
    fs::remove_file(&segments(dir.path())[1]).unwrap();
    let (queue, repaired) = open(dir.path());
    assert!(
        repaired.iter().any(|note| note.contains("1 of the journal's segments are missing, from number 2")),
        "{repaired:?}"
    );
    assert!(queue.stats().active > 20);
}

#[tokio::test]
async fn an_index_that_is_gone_or_garbled_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path(), 30).await;
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("gone", |index| fs::remove_dir_all(index).unwrap()),
        ("empty", |index| {
            fs::remove_dir_all(index).unwrap();
            fs::create_dir(index).unwrap();
        }),
        ("zeros", |index| {
            let len = fs::metadata(index.join("db")).unwrap().len();
            fs::write(index.join("db"), vec![0; len as usize]).unwrap();
        }),
        ("noise", |index| {
            let mut bytes = fs::read(index.join("db")).unwrap();
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= (at * 31 + 7) as u8);
            fs::write(index.join("db"), bytes).unwrap();
        }),
        ("halved", |index| {
            let bytes = fs::read(index.join("db")).unwrap();
            fs::write(index.join("db"), &bytes[..bytes.len() / 2]).unwrap();
        }),
    ];
    for (name, harm) in harms {
        let broken = tempfile::tempdir().unwrap();
        copy(dir.path(), broken.path());
        harm(&broken.path().join("queue/index"));
        let (queue, repaired) = open(broken.path());
        assert_eq!(queue_ids(&queue).await, all, "{name}");
        assert!(
            name == "halved" || repaired.iter().any(|note| note.contains("30 items")),
            "{name}: {repaired:?}"
        );
        queue.close().await;
        let (queue, repaired) = open(broken.path());
        assert_eq!((queue_ids(&queue).await, repaired), (all.clone(), vec![]), "{name}");
    }
}

#[tokio::test]
async fn the_index_of_another_journal_is_not_believed() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = fill(one.path(), 5).await;
    fill(other.path(), 9).await;
    without_index(one.path());
    copy(&other.path().join("queue/index"), &one.path().join("queue/index"));
    let (queue, repaired) = open(one.path());
    assert_eq!(queue_ids(&queue).await, all);
    assert!(repaired[0].contains("not of this journal"), "{repaired:?}");
}

#[tokio::test]
async fn a_lost_or_damaged_marker_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path(), 5).await;
    for content in [None, Some(&b"{"[..])] {
        let state = dir.path().join("queue/state");
        match content {
            None => fs::remove_file(state).unwrap(),
            Some(content) => fs::write(state, content).unwrap(),
        }
        let (queue, repaired) = open(dir.path());
        assert_eq!(queue_ids(&queue).await, all);
        assert!(!repaired.is_empty());
        queue.close().await;
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2).await;
    let path = segments(dir.path()).pop().unwrap();
    let good = fs::read(&path).unwrap();
    let mut bytes = good.clone();
    bytes[16] = 200;
    let sum = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = open_on(Arc::new(RealDisk), "boot", dir.path()).err().unwrap().to_string();
    assert!(error.contains("newer stsrelay") && error.contains("format 200"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    fs::write(&path, &good).unwrap();
    assert_eq!(open(dir.path()).0.stats().active, 2);
}

#[tokio::test]
async fn a_missing_content_file_is_told_and_an_orphan_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let id = queue.enqueue(message(&queue, &["a@one.example"], &vec![1; 2 << 20])).await.unwrap();
    queue.close().await;
    let bodies = dir.path().join("queue/bodies");
    fs::rename(bodies.join(id.to_string()), bodies.join("1-0000ZZZZ")).unwrap();
    let (queue, repaired) = open(dir.path());
    assert!(
        repaired.iter().any(|note| note.contains("missing") && note.contains(&id.to_string())),
        "{repaired:?}"
    );
    assert_eq!(fs::read_dir(&bodies).unwrap().count(), 0);
    assert!(queue.body(id).await.unwrap().reader().await.is_err());
    assert_eq!(queue.claim_due(at(0), 10, LEASE).await.unwrap().len(), 1, "the sender can be told");
}

#[tokio::test]
async fn an_item_that_cannot_be_read_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path(), 3).await;
    let (queue, _) = open(dir.path());
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let octet = bytes.windows(4).enumerate().filter(|(_, four)| *four == b"\xf5SRJ").nth(2).unwrap().0;
    bytes[octet + 60] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let claims = queue.claim_due(at(0), 10, LEASE).await.unwrap();
    let claimed: Vec<_> = claims.iter().map(|claim| claim.item.id.queue_id).collect();
    assert_eq!(claimed, [all[0], all[2]]);
    assert!(queue.next_due() > Some(at(600 - 1)));
    assert_eq!(queue_ids(&queue).await, claimed);
    let only = Filter { id: Some(all[1]), ..Filter::default() };
    assert_eq!(queue.admin(&only, AdminAction::Delete, at(1)).await, Ok(1));
    assert_eq!(queue.stats().active, 2);
}

#[tokio::test]
async fn compaction_moves_messages_with_all_that_is_known_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let id = queue
        .enqueue(message(&queue, &["a@one.example", "b@two.example", "c@three.example"], b"kept"))
        .await
        .unwrap();
    let item = |part| ItemId { queue_id: id, part };
    let mut claims = queue.claim_due(at(0), 3, LEASE).await.unwrap();
    claims.pop();
    defer(&queue, claims.pop().unwrap(), at(300)).await.unwrap();
    deliver(&queue, claims.pop().unwrap(), at(0)).await.unwrap();
    let third = Filter { item: Some(item(2)), ..Filter::default() };
    queue.admin(&third, AdminAction::Hold, at(1)).await.unwrap();
    let before = queue.list(&Filter::default(), None, 10).await.unwrap().entries;
    for round in 0..12 {
        let filler = queue.enqueue(message(&queue, &["f@four.example"], &[round; 9000])).await.unwrap();
        let only = Filter { id: Some(filler), ..Filter::default() };
        queue.admin(&only, AdminAction::Delete, at(2)).await.unwrap();
        queue.housekeeping();
        queue.housekeeping();
    }
    let first = segments(dir.path())[0].clone();
    assert!(!first.ends_with("0000000001.journal"), "{first:?}");
    assert!(queue.stats().bytes < 64 << 10, "space comes back");
    assert_eq!(content(&queue, id).await, b"kept");
    queue.close().await;
    without_index(dir.path());
    let (queue, _) = open(dir.path());
    let after = queue.list(&Filter::default(), None, 10).await.unwrap().entries;
    assert_eq!(ids(&queue, &Filter::default()).await, [item(1), item(2)]);
    // The third was in an attempt; both are as they were.
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.item, after.item);
    }
    assert_eq!(after[0].next_attempt, Some(at(300)));
    assert_eq!(after[1].next_attempt, None);
    assert_eq!(content(&queue, id).await, b"kept");
}
