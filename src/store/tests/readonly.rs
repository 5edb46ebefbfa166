//! A disk that may not be written to for a while.

use super::super::Policies;
use super::super::queue::{AdminAction, Filter, Health};
use super::sim::SimDisk;
use super::*;

async fn set_up(dir: &Path) -> (SimDisk, Queue, QueueId, Claim) {
    let disk = SimDisk::new();
    let (queue, _) = open_on(Arc::new(disk.clone()), "boot", dir).unwrap();
    let id = queue.enqueue(message(&queue, &["a@one.example"], &[1; 500])).await.unwrap();
    queue.enqueue(message(&queue, &["b@two.example"], &[2; 500])).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    (disk, queue, id, claim)
}

fn is_read_only<T>(result: Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::ReadOnly(_)))
}

#[tokio::test]
async fn every_verb_says_so_and_everything_goes_on_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, queue, id, claim) = set_up(dir.path()).await;
    disk.set_read_only(true);
    assert!(is_read_only(queue.enqueue(message(&queue, &["c@one.example"], &[3; 500])).await));
    assert!(
        matches!(queue.health(), Health::ReadOnly(text) if text.contains("read-only") || text.contains("Read-only"))
    );
    for _ in 0..2 {
        assert!(is_read_only(queue.enqueue(message(&queue, &["c@one.example"], &[3; 2 << 20])).await));
        assert!(is_read_only(deliver(&queue, claim.clone(), at(1)).await));
        assert!(is_read_only(queue.claim_due(at(0), 5, LEASE).await), "it could not be recorded");
        assert!(is_read_only(queue.admin(&Filter::default(), AdminAction::Hold, at(0)).await));
        let mut writer = queue.body_writer();
        assert!(is_read_only(writer.write(&[7; (1 << 20) + 1]).await));
        // What only reads goes on.
        assert_eq!(content(&queue, id).await, [1; 500]);
        assert_eq!(ids(&queue, &Filter::default()).await.len(), 2);
        queue.housekeeping();
        assert!(matches!(queue.health(), Health::ReadOnly(_)));
    }
    disk.set_read_only(false);
    queue.housekeeping();
    assert_eq!(queue.health(), Health::Fine);
    deliver(&queue, claim, at(1)).await.expect("the claim is still good");
    let third = queue.enqueue(message(&queue, &["c@one.example"], &[3; 500])).await.unwrap();
    drop(queue);
    let cut = tempfile::tempdir().unwrap();
    disk.power_cut(dir.path(), cut.path(), 0);
    for (left, boot) in [(dir.path(), "boot"), (cut.path(), "next boot")] {
        let (queue, repaired) = open_on(Arc::new(RealDisk), boot, left).unwrap();
        let there: Vec<_> = ids(&queue, &Filter::default()).await.iter().map(|item| item.queue_id).collect();
        // I1 and I2: the acknowledged ones are there, the delivered one is not, the refused ones never were.
        assert_eq!(there, [QueueId { node: 1, sequence: id.sequence + 1 }, third], "{repaired:?}");
        assert!(
            !repaired.iter().any(|note| note.contains("damaged") || note.contains("cut off")),
            "{repaired:?}"
        );
    }
}

#[tokio::test]
async fn a_restart_while_it_lasts_is_refused_in_words_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, queue, ..) = set_up(dir.path()).await;
    disk.set_read_only(true);
    assert!(is_read_only(queue.enqueue(message(&queue, &["c@one.example"], &[3; 500])).await));
    queue.close().await;
    let error = open_on(Arc::new(disk.clone()), "boot", dir.path()).err().unwrap().to_string();
    assert!(error.contains("mount it writable again"), "{error}");
    disk.set_read_only(false);
    // Half of the refused record is still at the end.
    let (queue, repaired) = open_on(Arc::new(disk), "boot", dir.path()).unwrap();
    assert!(repaired.iter().any(|note| note.contains("unfinished write cut off")), "{repaired:?}");
    assert_eq!(queue.stats().active, 2);
}

#[tokio::test]
async fn a_sync_that_fails_because_of_it_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, queue, ..) = set_up(dir.path()).await;
    disk.fail_sync(true);
    let refused = queue.enqueue(message(&queue, &["c@one.example"], &[3; 500])).await;
    assert!(matches!(refused, Err(QueueError::Storage(_))));
    disk.fail_sync(false);
    queue.housekeeping();
    assert!(matches!(queue.health(), Health::Failed(_)));
}

#[tokio::test]
async fn a_new_segment_that_could_not_be_begun_is_begun_later() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, queue, ..) = set_up(dir.path()).await;
    let mut accepted = 2;
    while std::fs::metadata(dir.path().join("queue/journal/0000000001.journal")).unwrap().len()
        < LIMITS.segment_bytes
    {
        queue.enqueue(message(&queue, &["c@one.example"], &[3; 500])).await.unwrap();
        accepted += 1;
    }
    disk.set_read_only(true);
    assert!(is_read_only(queue.enqueue(message(&queue, &["c@one.example"], &[3; 500])).await));
    disk.set_read_only(false);
    queue.housekeeping();
    queue.enqueue(message(&queue, &["c@one.example"], &[3; 500])).await.unwrap();
    queue.close().await;
    std::fs::remove_dir_all(dir.path().join("queue/index")).unwrap();
    assert_eq!(open(dir.path()).0.stats().active, accepted + 1);
}

#[tokio::test]
async fn policies_are_in_memory_and_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let (policies, _) = Policies::open_over(&ground(disk.clone(), "boot"), dir.path()).unwrap();
    policies.put(maps::policy("a.example")).await.unwrap();
    disk.set_read_only(true);
    assert!(matches!(policies.put(maps::policy("b.example")).await, Err(QueueError::ReadOnly(_))));
    assert_eq!(policies.list().len(), 2);
    disk.set_read_only(false);
    policies.put(maps::policy("c.example")).await.unwrap();
    drop(policies);
    assert_eq!(Policies::open(dir.path()).unwrap().0.list().len(), 3);
}
