//! Full and failing disks.

use super::super::queue::{AdminAction, Filter, Health};
use super::sim::SimDisk;
use super::*;

async fn refused(queue: &Queue, size: usize) -> QueueError {
    queue.enqueue(message(queue, &["a@one.example"], &vec![0; size])).await.unwrap_err()
}

/// A refusal is told a moment before the reserve's space is free.
fn reserve_given_up(dir: &Path) {
    while dir.join("queue/reserve").exists() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_messages_keeps_recording_deliveries_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
    for _ in 0..5 {
        queue.enqueue(message(&queue, &["a@one.example"], &[1; 500])).await.unwrap();
    }
    // Half of the record fits.
    disk.set_room(Some(300));
    assert!(matches!(refused(&queue, 5000).await, QueueError::Full(_)));
    assert!(matches!(queue.health(), Health::Full(_)));
    reserve_given_up(dir.path());
    // Most of the reserve's space is free now: too little for a new one, whatever is moved.
    disk.set_room(Some(LIMITS.reserve_bytes * 3 / 4));
    assert!(matches!(refused(&queue, 10).await, QueueError::Full(_)), "only deliveries may use it");
    for claim in queue.claim_due(at(0), 2, LEASE).await.unwrap() {
        deliver(&queue, claim, at(1)).await.unwrap();
    }
    let claim = claim_one(&queue, at(1)).await;
    defer(&queue, claim, at(300)).await.unwrap();
    queue.housekeeping();
    assert!(matches!(queue.health(), Health::Full(_)), "no room for a new reserve yet");

    disk.set_room(None);
    queue.housekeeping();
    assert_eq!(queue.health(), Health::Fine);
    queue.enqueue(message(&queue, &["a@one.example"], &[2; 5000])).await.unwrap();
    drop(queue);
    let cut = tempfile::tempdir().unwrap();
    disk.power_cut(dir.path(), cut.path(), 0);
    let (queue, _) = open_on(Arc::new(RealDisk), "next boot", cut.path()).unwrap();
    let stats = queue.stats();
    assert_eq!((stats.active, stats.deferred), (3, 1));
}

#[tokio::test]
async fn when_not_even_deliveries_can_be_recorded_nothing_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
    for _ in 0..3 {
        queue.enqueue(message(&queue, &["a@one.example"], &[1; 500])).await.unwrap();
    }
    let claim = claim_one(&queue, at(0)).await;
    // Somebody else had the reserve's space too.
    std::fs::remove_file(dir.path().join("queue/reserve")).unwrap();
    disk.set_room(Some(0));
    assert!(matches!(deliver(&queue, claim.clone(), at(0)).await, Err(QueueError::Full(_))));
    assert!(matches!(queue.claim_due(at(0), 5, LEASE).await, Err(QueueError::Full(_))));
    disk.set_room(None);
    queue.housekeeping();
    deliver(&queue, claim, at(1)).await.expect("the claim is still good");
    assert_eq!(queue.claim_due(at(1), 5, LEASE).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_large_content_that_does_not_fit_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
    disk.set_room(Some(1_500_000));
    let mut writer = queue.body_writer();
    let error = loop {
        if let Err(error) = writer.write(&[7; 100_000]).await {
            break error;
        }
    };
    assert!(matches!(error, QueueError::Full(_)));
    drop(writer);
    disk.set_room(Some(2_100_000));
    let mut writer = queue.body_writer();
    writer.write(&vec![7; 2_099_990]).await.unwrap();
    let mut new = message(&queue, &["a@one.example"], b"");
    new.body = writer.finish().await.unwrap();
    assert!(matches!(queue.enqueue(new).await, Err(QueueError::Full(_))));
    for name in ["spool", "bodies"] {
        assert_eq!(std::fs::read_dir(dir.path().join("queue").join(name)).unwrap().count(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_can_still_be_delivered_from() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], &[1; 500])).await.unwrap();
    queue.close().await;
    std::fs::remove_file(dir.path().join("queue/reserve")).unwrap();
    let disk = SimDisk::over(dir.path());
    disk.set_room(Some(200));
    let (queue, repaired) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
    assert!(repaired.iter().any(|note| note.contains("no space")), "{repaired:?}");
    assert!(matches!(queue.health(), Health::Full(_)));
    assert_eq!(queue.claim_due(at(0), 5, LEASE).await.map_or(1, |claims| claims.len()), 1);
    disk.set_room(None);
    queue.housekeeping();
    assert_eq!(queue.health(), Health::Fine);
    queue.close().await;
    assert_eq!(open(dir.path()).0.stats().active, 1);
}

#[tokio::test]
async fn a_failed_sync_or_write_ends_the_journal_until_a_restart() {
    for failing in [SimDisk::fail_sync, SimDisk::fail_write] {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new();
        let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
        let id = queue.enqueue(message(&queue, &["a@one.example"], &[1; 500])).await.unwrap();
        let claim = claim_one(&queue, at(0)).await;
        failing(&disk, true);
        assert!(matches!(refused(&queue, 10).await, QueueError::Storage(_)));
        // The disk seems fine again; what it did with the lost write is unknown all the same.
        failing(&disk, false);
        assert!(matches!(refused(&queue, 10).await, QueueError::Storage(_)));
        assert!(matches!(queue.health(), Health::Failed(_)));
        assert!(matches!(deliver(&queue, claim, at(0)).await, Err(QueueError::Storage(_))));
        assert!(queue.claim_due(at(0), 1, LEASE).await.is_err());
        assert!(queue.admin(&Filter::default(), AdminAction::Hold, at(0)).await.is_err());
        assert_eq!(queue.next_due(), None);
        assert_eq!(content(&queue, id).await, [1; 500]);
        queue.close().await;
        let (queue, repaired) = open(dir.path());
        assert!(repaired[0].contains("did not close the queue"), "{repaired:?}");
        assert!(ids(&queue, &Filter::default()).await.contains(&ItemId { queue_id: id, part: 0 }));
    }
}

#[tokio::test]
async fn on_a_full_disk_a_few_messages_that_wait_do_not_keep_what_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir.path()).unwrap();
    for _ in 0..40 {
        queue.enqueue(message(&queue, &["a@one.example"], &[1; 1500])).await.unwrap();
    }
    disk.set_room(Some(300));
    assert!(matches!(refused(&queue, 5000).await, QueueError::Full(_)));
    reserve_given_up(dir.path());
    // Some of the reserve's space, and nothing else.
    disk.set_room(Some(LIMITS.reserve_bytes / 2));
    for (number, claim) in queue.claim_due(at(0), 40, LEASE).await.unwrap().into_iter().enumerate() {
        match number % 10 {
            0 => defer(&queue, claim, at(300)).await.unwrap(),
            _ => deliver(&queue, claim, at(1)).await.unwrap(),
        }
    }
    for _ in 0..12 {
        queue.housekeeping();
    }
    assert_eq!(queue.health(), Health::Fine, "{} octets are kept for four messages", queue.stats().bytes);
    queue.enqueue(message(&queue, &["a@one.example"], &[2; 500])).await.unwrap();
    let claims = queue.claim_due(at(300), 10, LEASE).await.unwrap();
    assert_eq!(claims.len(), 5);
    assert_eq!(content(&queue, claims[4].item.id.queue_id).await, [1; 1500]);
}
