//! The evidence log: found by what it is asked for, kept as long as it should be, dropped in order.

use std::time::Duration;

use super::super::evidence::{EvidenceFilter, EvidenceLimits};
use super::sim::{SimDisk, copy};
use super::*;
use crate::queue::Evidence;

/// Queues a message and delivers it at this time; its item.
async fn send(queue: &Queue, to: &str, when: Timestamp) -> ItemId {
    let id = queue.enqueue(message(queue, &[to], b"text")).await.unwrap();
    let claims = queue.claim_due(when, 100, LEASE).await.unwrap();
    for claim in claims {
        deliver(queue, claim, when).await.unwrap();
    }
    ItemId { queue_id: id, part: 0 }
}

/// All pages, of this size.
async fn all(queue: &Queue, filter: &EvidenceFilter, page: usize) -> Vec<Evidence> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let next = queue.evidence(filter, cursor, page).await.unwrap();
        assert!(next.attempts.len() <= page);
        found.extend(next.attempts);
        cursor = next.cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

fn items(found: &[Evidence]) -> Vec<ItemId> {
    found.iter().map(|attempt| attempt.item).collect()
}

#[tokio::test]
async fn attempts_are_found_by_message_message_id_destination_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let mut sent = Vec::new();
    for n in 0..200 {
        sent.push(send(&queue, &format!("a@d{}.example", n % 20), at(n)).await);
    }
    let evidence = dir.path().join("queue/evidence");
    let filters = || {
        std::fs::read_dir(&evidence).unwrap().flatten().filter(|f| f.path().extension().unwrap() == "filter")
    };
    for reopened in [false, true] {
        queue.housekeeping();
        assert!(filters().count() > 3, "it was several segments");
        let one = all(&queue, &EvidenceFilter { id: Some(sent[77].queue_id), ..Default::default() }, 7).await;
        assert_eq!(items(&one), [sent[77]], "reopened: {reopened}");
        assert_eq!(one[0].message.destination, "d17.example");
        assert_eq!(one[0].hosts[0].mx.as_deref(), Some("mx.example.net"));
        assert_eq!(one[0].at, at(77));
        let text = format!("<{}@example.org>", sent[150]);
        let one = all(&queue, &EvidenceFilter { message_id: Some(text), ..Default::default() }, 7).await;
        assert_eq!(items(&one), [sent[150]]);
        let domain = all(
            &queue,
            &EvidenceFilter { destination: Some("D3.Example".to_owned()), ..Default::default() },
            7,
        )
        .await;
        assert_eq!(items(&domain), sent.iter().skip(3).step_by(20).copied().collect::<Vec<_>>());
        let span = EvidenceFilter { since: Some(at(10)), until: Some(at(13)), ..Default::default() };
        assert_eq!(items(&all(&queue, &span, 7).await), sent[10..13]);
        assert_eq!(items(&all(&queue, &EvidenceFilter::default(), 7).await), sent);
        let none = EvidenceFilter { item: Some(ItemId { part: 9, ..sent[3] }), ..Default::default() };
        assert_eq!(all(&queue, &none, 7).await, []);
        // Without their filters segments are read instead.
        filters().for_each(|file| std::fs::remove_file(file.path()).unwrap());
        queue.close().await;
        queue = open(dir.path()).0;
    }
}

#[tokio::test]
async fn the_same_host_is_kept_once_in_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    for n in 0..10 {
        send(&queue, "a@one.example", at(n)).await;
    }
    assert_eq!(all(&queue, &EvidenceFilter::default(), 100).await.len(), 10);
    let log = std::fs::read(dir.path().join("queue/evidence/0000000001.evidence")).unwrap();
    assert_eq!(memchr::memmem::find_iter(&log, b"mx.example.net").count(), 1);
}

#[tokio::test]
async fn evidence_leaves_at_its_time_and_the_oldest_first_beyond_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let day = 86_400;
    queue.limit_evidence(EvidenceLimits { keep: Duration::from_secs(3 * 86_400), max_bytes: 1 << 30 });
    let mut sent = Vec::new();
    for n in 0..8 {
        sent.push(send(&queue, "a@one.example", at(n * (day + 60))).await);
        queue.housekeeping();
    }
    let kept = items(&all(&queue, &EvidenceFilter::default(), 100).await);
    assert_eq!(kept, sent[5..], "three days and the segment being written");
    queue.limit_evidence(EvidenceLimits { keep: Duration::MAX, max_bytes: 9000 });
    for n in 0..100 {
        sent.push(send(&queue, "a@one.example", at(8 * (day + 60) + n)).await);
    }
    queue.housekeeping();
    let kept = items(&all(&queue, &EvidenceFilter::default(), 1000).await);
    assert!(kept.len() > 10 && kept.len() < 60, "{}", kept.len());
    assert_eq!(kept, sent[sent.len() - kept.len()..], "the oldest went first");
}

#[tokio::test]
async fn a_damaged_octet_costs_at_most_two_attempts_and_a_lost_tail_is_refilled() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let mut sent = Vec::new();
    for n in 0..8 {
        sent.push(send(&queue, "a@one.example", at(n)).await);
    }
    queue.housekeeping();
    drop(queue);
    let path = Path::new("queue/evidence/0000000001.evidence");
    let good = std::fs::read(dir.path().join(path)).unwrap();
    for change in (70..good.len()).step_by(37) {
        let other = tempfile::tempdir().unwrap();
        copy(dir.path(), other.path());
        let mut bad = good.clone();
        bad[change] ^= 0x20;
        std::fs::write(other.path().join(path), bad).unwrap();
        let (queue, _) = open_on(Arc::new(RealDisk), "next boot", other.path()).unwrap();
        let found = all(&queue, &EvidenceFilter::default(), 100).await;
        // A damaged host takes all attempts over it along; anything else itself.
        let least = if found.is_empty() { 0 } else { 7 };
        assert!(found.len() >= least, "octet {change}: {}", found.len());
        let more = send(&queue, "a@one.example", at(100)).await;
        assert!(items(&all(&queue, &EvidenceFilter::default(), 100).await).contains(&more), "octet {change}");
    }
    for len in [0, 30, 64, 100, good.len() / 2, good.len() - 1] {
        let other = tempfile::tempdir().unwrap();
        copy(dir.path(), other.path());
        std::fs::write(other.path().join(path), &good[..len]).unwrap();
        let (queue, _) = open_on(Arc::new(RealDisk), "next boot", other.path()).unwrap();
        let found = all(&queue, &EvidenceFilter::default(), 100).await;
        assert_eq!(items(&found), sent, "cut to {len}: the journal has it still");
    }
}

#[tokio::test]
async fn evidence_that_cannot_be_synced_keeps_its_journal_segments_until_it_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
    let segments = || std::fs::read_dir(dir.path().join("queue/journal")).unwrap().count();
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(send(&queue, "a@one.example", at(n)).await);
    }
    queue.housekeeping();
    disk.fail_evidence_sync(true);
    for n in 10..200 {
        sent.push(send(&queue, "a@one.example", at(n)).await);
        if n % 20 == 0 {
            queue.housekeeping();
        }
    }
    queue.housekeeping();
    let held = segments();
    assert!(held > 3, "none of them left: {held}");
    for cured in [false, true] {
        disk.fail_evidence_sync(!cured);
        (0..4).for_each(|_| queue.housekeeping());
        let after = tempfile::tempdir().unwrap();
        disk.power_cut(dir.path(), after.path(), 0);
        let (queue, _) = open_on(Arc::new(RealDisk), "next boot", after.path()).unwrap();
        let found = items(&all(&queue, &EvidenceFilter::default(), 1000).await);
        assert_eq!(found, sent, "cured: {cured}");
        assert_eq!(segments() < held, cured, "{held}");
    }
}

#[tokio::test]
async fn a_full_disk_keeps_mail_going_and_drops_the_oldest_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
    for n in 0..60 {
        send(&queue, "a@one.example", at(n)).await;
    }
    queue.housekeeping();
    let before = all(&queue, &EvidenceFilter::default(), 1000).await.len();
    let id = queue.enqueue(message(&queue, &["a@one.example"], b"text")).await.unwrap();
    let claim = claim_one(&queue, at(100)).await;
    disk.set_room(Some(600));
    deliver(&queue, claim, at(100)).await.unwrap();
    let one = EvidenceFilter { id: Some(id), ..Default::default() };
    assert_eq!(all(&queue, &one, 10).await.len(), 1);
    queue.housekeeping();
    let after = all(&queue, &EvidenceFilter::default(), 1000).await.len();
    assert!(after <= before + 1 && after > 20, "{before} {after}");
}
