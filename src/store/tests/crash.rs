//! The process or the machine stops after any step; what was acknowledged holds.

use std::collections::BTreeMap;

use super::super::evidence::EvidenceFilter;
use super::super::queue::{AdminAction, Filter};
use super::sim::{SimDisk, copy};
use super::*;

/// What the outside world was told.
#[derive(Default)]
struct Told {
    /// Acknowledged messages and their contents.
    queued: BTreeMap<QueueId, Vec<u8>>,
    /// Items whose end was tried; true when acknowledged.
    ended: BTreeMap<ItemId, bool>,
    /// A message whose item ended together with the birth of another; true when acknowledged.
    births: Vec<(ItemId, QueueId, bool)>,
    /// Items that were deferred; true when acknowledged.
    deferred: BTreeMap<ItemId, bool>,
    /// Items that were tried; true when the attempt was acknowledged.
    settled: BTreeMap<ItemId, bool>,
    highest: Option<QueueId>,
}

impl Told {
    async fn enqueue(&mut self, queue: &Queue, to: &[&str], body: Vec<u8>) -> Option<QueueId> {
        let new = message(queue, to, &body);
        self.highest = Some(new.id);
        let id = queue.enqueue(new).await.ok()?;
        self.queued.insert(id, body);
        Some(id)
    }
}

/// A day in the life of a queue; goes on whatever fails.
async fn live(queue: &Queue, told: &mut Told) {
    for index in 0..4u8 {
        told.enqueue(queue, &["a@one.example", "b@two.example"], vec![index; 700]).await;
    }
    told.enqueue(queue, &["big@one.example"], vec![b'B'; (1 << 20) + 5]).await;
    for (index, claim) in queue.claim_due(at(0), 5, LEASE).await.unwrap_or_default().into_iter().enumerate() {
        let id = claim.item.id;
        if index == 1 {
            let acknowledged = defer(queue, claim, at(300)).await.is_ok();
            told.deferred.insert(id, acknowledged);
            told.settled.insert(id, acknowledged);
        } else if index == 2 {
            let born = message(queue, &["from@example.org"], b"bounce");
            let born_id = born.id;
            told.highest = Some(born_id);
            let settlement = settlement(&claim, None);
            let tried = tried(&claim, at(0), "failed");
            let settled = queue.settle(claim, &settlement, tried, vec![born]).await;
            told.settled.insert(id, settled.is_ok());
            told.births.push((id, born_id, settled.is_ok()));
        } else {
            let acknowledged = deliver(queue, claim, at(0)).await.is_ok();
            told.ended.insert(id, acknowledged);
            told.settled.insert(id, acknowledged);
        }
    }
    if let Some(id) = told.enqueue(queue, &["gone@one.example"], vec![b'D'; 6000]).await {
        let only = Filter { id: Some(id), ..Filter::default() };
        let acknowledged = queue.admin(&only, AdminAction::Delete, at(1)).await.is_ok();
        told.ended.insert(ItemId { queue_id: id, part: 0 }, acknowledged);
    }
    for index in 0..3u8 {
        // Moves old segments out.
        if let Some(id) = told.enqueue(queue, &["fill@three.example"], vec![index; 12_000]).await {
            let only = Filter { id: Some(id), ..Filter::default() };
            let acknowledged = queue.admin(&only, AdminAction::Delete, at(1)).await.is_ok();
            told.ended.insert(ItemId { queue_id: id, part: 0 }, acknowledged);
        }
        queue.housekeeping();
    }
    queue.housekeeping();
    told.enqueue(queue, &["last@one.example"], b"last".to_vec()).await;
}

async fn check(queue: &Queue, told: &Told, context: &str) {
    let page = queue.list(&Filter::default(), None, 10_000).await.unwrap();
    let there: BTreeMap<ItemId, _> = page.entries.into_iter().map(|entry| (entry.item.id, entry)).collect();
    let parts = |id: &QueueId| if id.sequence < 5 { 2 } else { 1 };
    for (id, body) in &told.queued {
        for part in 0..parts(id) {
            let item = ItemId { queue_id: *id, part };
            let birth = told.births.iter().find(|(parent, ..)| *parent == item);
            let may_be_gone = told.ended.contains_key(&item) || birth.is_some();
            match there.get(&item) {
                None => assert!(may_be_gone, "{context}: {item} was acknowledged and is lost"),
                Some(entry) => {
                    let ended = told.ended.get(&item) == Some(&true) || birth.is_some_and(|birth| birth.2);
                    assert!(!ended, "{context}: {item} had ended and came back");
                    assert!(content(queue, *id).await == *body, "{context}: {item} has another content");
                    if told.deferred.get(&item) == Some(&true) {
                        assert_eq!(
                            (entry.item.attempts, entry.next_attempt),
                            (1, Some(at(300))),
                            "{context}"
                        );
                    }
                }
            }
        }
    }
    for (parent, born, acknowledged) in &told.births {
        let born = there.contains_key(&ItemId { queue_id: *born, part: 0 });
        assert_eq!(born, !there.contains_key(parent), "{context}: a bounce without its failure or reverse");
        assert!(born || !acknowledged, "{context}: a bounce is lost");
    }
    let mut attempts: BTreeMap<ItemId, u32> = BTreeMap::new();
    let found = queue.evidence(&EvidenceFilter::default(), None, 10_000).await.unwrap();
    found.attempts.iter().for_each(|attempt| *attempts.entry(attempt.item).or_default() += 1);
    for (item, acknowledged) in &told.settled {
        let count = attempts.remove(item).unwrap_or(0);
        let right = if *acknowledged { count == 1 } else { count <= 1 };
        assert!(right, "{context}: {count} pieces of evidence of {item}, acknowledged: {acknowledged}");
        // Evidence and settlement are one step.
        let done = told.ended.contains_key(item) || told.births.iter().any(|(parent, ..)| parent == item);
        let entry = there.get(item);
        let settled = if done { entry.is_none() } else { entry.is_some_and(|e| e.item.attempts == 1) };
        assert_eq!(count == 1, settled, "{context}: {item} has evidence without settlement or reverse");
    }
    assert_eq!(attempts, BTreeMap::new(), "{context}: evidence of what was never tried");
    assert!(told.highest < Some(queue.allocate_id()), "{context}: an id was used again");
}

/// Opens what is left and checks it; then stops again while opening, and checks that too.
async fn reopen(left: &Path, boot: &str, told: &Told, context: &str) {
    let second = tempfile::tempdir().unwrap();
    let third = tempfile::tempdir().unwrap();
    copy(left, second.path());
    let (queue, _) = open_on(Arc::new(RealDisk), boot, left).unwrap();
    check(&queue, told, context).await;
    let id = queue.enqueue(message(&queue, &["new@one.example"], b"new")).await.unwrap();
    queue.close().await;
    let (queue, repaired) = open(left);
    assert_eq!(repaired, Vec::<String>::new(), "{context}: repaired once is enough");
    check(&queue, told, context).await;
    assert_eq!(content(&queue, id).await, b"new");
    drop(queue);

    let disk = SimDisk::over(second.path());
    disk.stop_after(context.len() as u64 % 9);
    drop(open_on(Arc::new(disk.clone()), boot, second.path()));
    disk.power_cut(second.path(), third.path(), 0);
    let (queue, _) = open_on(Arc::new(RealDisk), "third boot", third.path()).unwrap();
    check(&queue, told, &format!("{context}, stopped again while opening")).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_ended_comes_back_wherever_it_stops() {
    let mut stop = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new();
        disk.stop_after(stop);
        let mut told = Told::default();
        if let Ok((queue, _)) = open_on(Arc::new(disk.clone()), "boot", dir.path()) {
            live(&queue, &mut told).await;
            let killed = tempfile::tempdir().unwrap();
            copy(dir.path(), killed.path());
            reopen(killed.path(), "boot", &told, &format!("killed after step {stop}")).await;
        }
        for torn in [0, [1, 40, 100_000][stop as usize % 3]] {
            let cut = tempfile::tempdir().unwrap();
            disk.power_cut(dir.path(), cut.path(), torn);
            let context = format!("power cut after step {stop}, {torn} octets more");
            reopen(cut.path(), "next boot", &told, &context).await;
        }
        if !disk.is_stopped() {
            let first = dir.path().join("queue/journal/0000000001.journal");
            assert!(!first.exists(), "compaction is part of the story");
            assert!(told.queued.len() > 8 && told.births.len() == 1 && stop > 50, "the story was told");
            return;
        }
        // Every step at first, where every kind of record is written; then a sample.
        stop += if stop < 50 { 1 } else { 4 };
    }
}

#[tokio::test]
async fn a_closed_queue_survives_a_power_cut_with_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"x")).await.unwrap();
    queue.close().await;
    let (queue, repaired) = open_on(Arc::new(RealDisk), "next boot", dir.path()).unwrap();
    assert_eq!(repaired, Vec::<String>::new());
    assert_eq!(queue.stats().active, 1);
    drop(queue);
    let (queue, repaired) = open_on(Arc::new(RealDisk), "third boot", dir.path()).unwrap();
    assert!(repaired[0].contains("the machine stopped without closing the queue"), "{repaired:?}");
    assert_eq!(queue.stats().active, 1);
}

#[tokio::test]
async fn after_a_killed_process_only_the_rest_of_the_journal_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    for _ in 0..50 {
        queue.enqueue(message(&queue, &["a@one.example"], &[b'x'; 1000])).await.unwrap();
    }
    queue.housekeeping();
    for claim in queue.claim_due(at(0), 20, LEASE).await.unwrap() {
        deliver(&queue, claim, at(1)).await.unwrap();
    }
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    let (queue, repaired) = open(killed.path());
    assert_eq!(queue.stats().active, 30);
    let note = &repaired[0];
    assert!(note.starts_with("the last process did not close the queue"), "{repaired:?}");
    let records: u32 = note.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((1..=25).contains(&records), "{note}");
}
