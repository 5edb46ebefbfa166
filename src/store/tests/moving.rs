//! Messages that move between stores, interrupted anywhere: delivered once, with all that is known.

use super::super::queue::{AdminAction, EntryState, Filter};
use super::super::{Export, Moves, Portable};
use super::sim::SimDisk;
use super::*;

/// A message of another store: one item tried, one not, content `moved`.
async fn portable(dir: &Path) -> Portable {
    let (queue, _) = open(dir);
    let mut new = message(&queue, &["a@one.example", "b@two.example"], b"moved");
    (new.expires_at, new.is_report) = (Some(at(86_400)), true);
    new.envelope.tls = TlsRequest::Required;
    let id = queue.enqueue(new).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    let parts = vec![0, 1];
    assert_eq!(queue.portable(id, parts.clone()).await, Ok(Export::Busy));
    defer(&queue, claim, at(300)).await.unwrap();
    let gone = QueueId { node: 9, sequence: 9 };
    assert_eq!(queue.portable(gone, parts.clone()).await, Ok(Export::Gone));
    match queue.portable(id, parts).await {
        Ok(Export::Ready(portable)) => *portable,
        other => panic!("{other:?}"),
    }
}

fn moved() -> Option<Body> {
    Some(Body::Memory(Bytes::from_static(b"moved")))
}

/// Delivers all that is due; gives where to.
async fn deliver_all(queue: &Queue, delivered: &mut Vec<String>) {
    for claim in queue.claim_due(at(400), 100, LEASE).await.unwrap() {
        assert_eq!(content(queue, claim.item.id.queue_id).await, b"moved");
        delivered.push(claim.item.destination.to_string());
        deliver(queue, claim, at(400)).await.unwrap();
    }
}

#[tokio::test]
async fn an_import_that_is_interrupted_anywhere_is_ended_by_the_next_one_and_never_doubles() {
    let source = tempfile::tempdir().unwrap();
    let portable = portable(source.path()).await;
    let mut stop = 0;
    loop {
        let (dir, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let disk = SimDisk::new();
        let ground = ground(disk.clone(), "boot");
        let (queue, _) = Queue::open_over(&ground, &options(dir.path()), at(0)).unwrap();
        let (moves, _) = Moves::open_over(&ground, dir.path(), at(0)).unwrap();
        disk.stop_after(stop);
        let first = moves.import(&queue, &portable, moved(), at(1)).await;
        let stopped = disk.is_stopped();
        let mut delivered = Vec::new();
        disk.power_cut(dir.path(), cut.path(), 0);
        drop((queue, moves));
        let (queue, _) = open_on(Arc::new(RealDisk), "next boot", cut.path()).unwrap();
        let (moves, _) = Moves::open(cut.path(), at(1)).unwrap();
        if first.is_ok() {
            assert_eq!(moves.plan(&queue, &portable, at(2)).known.len(), 2, "stop {stop}");
        }
        // Delivered in between or not, the next import must not take it again.
        deliver_all(&queue, &mut delivered).await;
        for _ in 0..2 {
            moves.import(&queue, &portable, moved(), at(2)).await.unwrap();
            deliver_all(&queue, &mut delivered).await;
        }
        delivered.sort();
        assert_eq!(delivered, ["one.example", "two.example"], "stop {stop}");
        if !stopped {
            assert!(stop > 4, "there was something to stop");
            return;
        }
        stop += 1;
    }
}

#[tokio::test]
async fn what_is_known_of_a_message_moves_with_it_and_survives_a_rebuild() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut portable = portable(source.path()).await;
    portable.items[1].held = true;
    let (queue, _) = open(dir.path());
    let (moves, _) = Moves::open(dir.path(), at(0)).unwrap();
    let (id, plan) = moves.import(&queue, &portable, moved(), at(10)).await.unwrap();
    assert_eq!(plan.wanted, [0, 1]);
    for rebuilt in [false, true] {
        let queue = match rebuilt {
            false => queue.clone(),
            true => {
                queue.close().await;
                std::fs::remove_dir_all(dir.path().join("queue/index")).unwrap();
                open(dir.path()).0
            }
        };
        let entries = queue.list(&Filter::default(), None, 10).await.unwrap().entries;
        assert_eq!(entries.len(), 2);
        for (entry, item) in entries.iter().zip(&portable.items) {
            let there = &entry.item;
            assert_eq!(there.id, ItemId { queue_id: id, part: item.part });
            assert_eq!(*there.envelope, portable.envelope);
            assert_eq!(
                (there.received_at, there.expires_at, there.is_report),
                (at(0), Some(at(86_400)), true)
            );
            assert_eq!(
                (&there.recipients, there.attempts, &there.history),
                (&item.recipients, item.attempts, &item.history)
            );
        }
        assert_eq!((entries[0].state, entries[0].next_attempt), (EntryState::Deferred, Some(at(300))));
        assert_eq!(entries[1].state, EntryState::Held);
        assert_eq!(content(&queue, id).await, b"moved");
    }
}

#[tokio::test]
async fn items_of_our_own_come_back_only_when_an_export_removed_them() {
    let dir = tempfile::tempdir().unwrap();
    let portable = portable(dir.path()).await;
    let (queue, _) = open(dir.path());
    let (moves, _) = Moves::open(dir.path(), at(0)).unwrap();
    let plan = moves.plan(&queue, &portable, at(2));
    assert!(plan.wanted.is_empty() && plan.refused[0].1.contains("still in this queue"), "{plan:?}");
    let item = |part| ItemId { queue_id: portable.id, part };
    // One leaves with an export, the other by itself.
    moves.leaving(&queue, &[item(0)], at(1)).await.unwrap();
    queue.admin(&Filter::default(), AdminAction::Delete, at(1)).await.unwrap();
    let plan = moves.plan(&queue, &portable, at(2));
    assert_eq!(plan.wanted, [0]);
    assert!(plan.refused[0].1.contains("left it since"), "{plan:?}");
    let (id, _) = moves.import(&queue, &portable, moved(), at(2)).await.unwrap();
    assert_eq!(ids(&queue, &Filter::default()).await, [ItemId { queue_id: id, part: 0 }]);
}

#[tokio::test]
async fn what_contradicts_itself_is_refused_and_leaves_nothing() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = portable(source.path()).await;
    let (queue, _) = open(dir.path());
    let (moves, _) = Moves::open(dir.path(), at(0)).unwrap();
    let with = |change: fn(&mut Portable)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    for bad in [
        with(|bad| bad.items.clear()),
        with(|bad| bad.items[0].recipients[0].index = 7),
        with(|bad| bad.items[1].recipients[0].index = 0),
        with(|bad| bad.items[1].part = 0),
        with(|bad| bad.items[0].recipients.clear()),
    ] {
        assert!(moves.import(&queue, &bad, moved(), at(1)).await.is_err(), "{bad:?}");
    }
    for body in [None, Some(Body::Memory(Bytes::from_static(b"mov")))] {
        assert!(moves.import(&queue, &good, body, at(1)).await.is_err());
    }
    assert_eq!(queue.stats().active, 0);
    moves.import(&queue, &good, moved(), at(1)).await.unwrap();
    assert_eq!(queue.list(&Filter::default(), None, 9).await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn a_move_is_forgotten_only_when_its_message_is_too_old_to_come_again() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = portable(source.path()).await;
    let days = |days: i64| at(days * 86_400);
    let mut young = Portable { store: "another".to_owned(), received_at: days(402), ..old.clone() };
    young.id.sequence += 1;
    let (queue, _) = open(dir.path());
    let log = dir.path().join("moves/moves.log");
    for restarted in [false, true] {
        let (moves, _) = Moves::open(dir.path(), days(0)).unwrap();
        moves.import(&queue, &old, moved(), days(1)).await.unwrap();
        let plan = moves.plan(&queue, &old, days(400));
        assert_eq!((plan.known.len(), plan.refused.len()), (2, 0), "{plan:?}");
        let moves = if restarted {
            drop(moves);
            Moves::open(dir.path(), days(402)).unwrap().0
        } else {
            moves
        };
        assert!(moves.import(&queue, &young, moved(), days(402)).await.unwrap().1.refused.is_empty());
        let plan = moves.plan(&queue, &old, days(402));
        assert!(plan.refused.len() == 2 && plan.refused[0].1.contains("is forgotten"), "{plan:?}");
        assert_eq!(moves.plan(&queue, &young, days(700)).known.len(), 2);
        drop(moves);
        if restarted {
            let kept = std::fs::read_to_string(&log).unwrap();
            assert!(kept.contains("another") && !kept.contains(&old.store), "{kept}");
        }
        std::fs::remove_file(&log).unwrap();
    }
}
