//! What every backend of the queue must do.

use std::time::Duration;

use super::super::queue::{AdminAction, Body, EntryState, Filter, Health, QueueError};
use super::*;
use crate::mail::Destination;
use crate::queue::item::ATTEMPTS_KEPT;

#[tokio::test]
async fn a_message_makes_one_item_per_destination_with_its_recipients_grouped() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, repaired) = open(dir.path());
    assert_eq!(repaired, Vec::<String>::new());
    let to = ["a@one.example", "b@two.example", "C@one.example", "d@[192.0.2.9]"];
    let mut new = message(&queue, &to, b"Subject: x\r\n\r\nhello\r\n");
    (new.is_report, new.expires_at) = (true, Some(at(86_400)));
    let id = queue.enqueue(new.clone()).await.unwrap();
    assert_eq!(id, new.id);

    let claims = queue.claim_due(at(0), 10, LEASE).await.unwrap();
    let shape: Vec<_> = claims
        .iter()
        .map(|claim| {
            let indexes: Vec<_> = claim.item.recipients.iter().map(|status| status.index).collect();
            (claim.item.id.part, claim.item.destination.to_string(), indexes)
        })
        .collect();
    let want = [
        (0, "one.example".to_owned(), vec![0, 2]),
        (1, "two.example".to_owned(), vec![1]),
        (2, "[192.0.2.9]".to_owned(), vec![3]),
    ];
    assert_eq!(shape, want);
    let item = &claims[0].item;
    assert_eq!(*item.envelope, new.envelope);
    assert_eq!((item.received_at, item.size, item.attempts), (at(0), 21, 0));
    assert_eq!((item.is_report, item.expires_at), (true, Some(at(86_400))));
    assert_eq!(claims[0].leased_until, at(600));
    assert_eq!(content(&queue, id).await, b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(queue.health(), Health::Fine);
}

#[tokio::test]
async fn items_are_claimed_longest_due_first_and_never_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    for seconds in [30, 10, 20] {
        let mut new = message(&queue, &["a@one.example"], b"x");
        new.received_at = at(seconds);
        queue.enqueue(new).await.unwrap();
    }
    assert_eq!(queue.next_due(), Some(at(10)));
    assert!(queue.claim_due(at(9), 10, LEASE).await.unwrap().is_empty());
    let first = queue.claim_due(at(25), 1, LEASE).await.unwrap();
    assert_eq!(first[0].item.received_at, at(10));
    let second = queue.claim_due(at(25), 10, LEASE).await.unwrap();
    assert_eq!(second.iter().map(|claim| claim.item.received_at).collect::<Vec<_>>(), [at(20)]);
    assert_eq!(queue.next_due(), Some(at(30)));
}

#[tokio::test]
async fn settling_moves_an_item_on_and_the_last_one_takes_the_message_away() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let id = queue.enqueue(message(&queue, &["a@one.example", "b@two.example"], b"x")).await.unwrap();
    let first = claim_one(&queue, at(0)).await;
    deliver(&queue, first, at(1)).await.unwrap();
    let second = claim_one(&queue, at(1)).await;
    defer(&queue, second, at(300)).await.unwrap();
    assert_eq!(content(&queue, id).await, b"x");

    let page = queue.list(&Filter::default(), None, 10).await.unwrap();
    let [entry] = &page.entries[..] else { panic!("{page:?}") };
    assert_eq!((entry.state, entry.next_attempt), (EntryState::Deferred, Some(at(300))));
    assert_eq!((entry.item.attempts, entry.item.history.len()), (1, 1));
    assert!(
        matches!(&entry.item.recipients[0].state, RecipientState::Pending(Some(failure)) if failure.text == "no answer")
    );

    assert!(queue.claim_due(at(299), 1, LEASE).await.unwrap().is_empty());
    let again = claim_one(&queue, at(300)).await;
    assert_eq!(again.item, entry.item);
    deliver(&queue, again, at(301)).await.unwrap();
    assert_eq!(queue.next_due(), None);
    assert_eq!(queue.body(id).await.unwrap_err(), QueueError::Unknown(id.to_string()));
}

#[tokio::test]
async fn born_messages_appear_with_the_settlement_and_the_warning_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"x")).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    let mut settlement = settlement(&claim, Some(at(300)));
    settlement.warn_delay = true;
    let born = message(&queue, &["from@example.org"], b"late");
    let born_id = born.id;
    queue.settle(claim, &settlement, attempt(at(0), "deferred"), vec![born]).await.unwrap();
    let born = claim_one(&queue, at(0)).await;
    assert_eq!(born.item.id.queue_id, born_id);
    assert_eq!(content(&queue, born_id).await, b"late");
    assert!(claim_one(&queue, at(300)).await.item.delay_warned);
}

#[tokio::test]
async fn only_the_latest_claim_may_settle() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"x")).await.unwrap();
    let old = claim_one(&queue, at(0)).await;
    assert_eq!(queue.next_due(), Some(at(600)), "the lease's end");
    assert!(queue.claim_due(at(599), 1, LEASE).await.unwrap().is_empty());
    let new = claim_one(&queue, at(600)).await;
    let id = old.item.id;
    assert_eq!(deliver(&queue, old.clone(), at(600)).await, Err(QueueError::Fenced(id)));
    assert_eq!(queue.unclaim(old.clone(), at(600)).await, Err(QueueError::Fenced(id)));
    assert_eq!(queue.extend(&mut old.clone(), at(600), LEASE).await, Err(QueueError::Fenced(id)));
    deliver(&queue, new.clone(), at(601)).await.unwrap();
    assert_eq!(deliver(&queue, new, at(601)).await, Err(QueueError::Fenced(id)), "twice");
}

#[tokio::test]
async fn a_lease_that_ran_out_still_settles_until_the_item_is_claimed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"x")).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    assert!(queue.claim_due(at(601), 0, LEASE).await.unwrap().is_empty());
    deliver(&queue, claim, at(601)).await.unwrap();
    assert!(queue.claim_due(at(700), 1, LEASE).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_clock_set_forward_takes_no_item_from_its_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"x")).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    let hour = 3600;
    queue.lengthen(Duration::from_secs(3600));
    assert!(queue.claim_items(&[claim.item.id], at(hour + 5), LEASE).await.unwrap().is_empty());
    assert!(queue.claim_due(at(hour + 599), 1, LEASE).await.unwrap().is_empty());
    deliver(&queue, claim, at(hour + 599)).await.unwrap();
}

#[tokio::test]
async fn extending_and_giving_back_a_claim() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"x")).await.unwrap();
    let mut claim = claim_one(&queue, at(0)).await;
    queue.extend(&mut claim, at(500), LEASE).await.unwrap();
    assert_eq!(claim.leased_until, at(1100));
    assert!(queue.claim_due(at(1000), 1, LEASE).await.unwrap().is_empty());
    queue.unclaim(claim, at(1200)).await.unwrap();
    assert_eq!(queue.next_due(), Some(at(1200)));
    let claim = claim_one(&queue, at(1200)).await;
    assert_eq!(claim.item.attempts, 0);
    // Given back until an instant between two microseconds: it is not due before.
    queue.unclaim(claim, at(1300) + SignedDuration::from_nanos(1)).await.unwrap();
    assert!(queue.claim_due(at(1300), 1, LEASE).await.unwrap().is_empty());
    claim_one(&queue, at(1300) + SignedDuration::from_micros(1)).await;
}

#[tokio::test]
async fn wakeup_tells_of_something_due_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"x")).await.unwrap();
    queue.wakeup().await;
    let claim = claim_one(&queue, at(0)).await;
    defer(&queue, claim, at(4000)).await.unwrap();
    queue.admin(&Filter::default(), AdminAction::Retry, at(5)).await.unwrap();
    queue.wakeup().await;
    assert_eq!(queue.next_due(), Some(at(5)));
}

#[tokio::test]
async fn listing_goes_page_by_page_and_filters_by_every_condition() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let mut all = Vec::new();
    for index in 0..25 {
        let domain = if index % 5 == 0 { "five.example" } else { "other.example" };
        let mut new = message(&queue, &[&format!("a@{domain}")], b"x");
        new.envelope.reverse_path = match index % 3 {
            0 => ReversePath::Null,
            _ => ReversePath::parse(&format!("<User{}@example.org>", index % 3)).unwrap(),
        };
        all.push(ItemId { queue_id: queue.enqueue(new).await.unwrap(), part: 0 });
    }
    let (mut cursor, mut seen, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = queue.list(&Filter::default(), cursor, 5).await.unwrap();
        seen.extend(page.entries.iter().map(|entry| entry.item.id));
        pages += 1;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (all.clone(), 5));

    let every = |step: usize, from: usize| all.iter().copied().skip(from).step_by(step).collect::<Vec<_>>();
    let domain = Filter { recipient_domain: Destination::parse("five.example").ok(), ..Filter::default() };
    assert_eq!(ids(&queue, &domain).await, every(5, 0));
    let sender = |text: &str| Filter { sender: Some(text.to_owned()), ..Filter::default() };
    assert_eq!(ids(&queue, &sender("")).await, every(3, 0));
    assert_eq!(ids(&queue, &sender("User1@EXAMPLE.org")).await, every(3, 1));
    assert!(ids(&queue, &sender("user1@example.org")).await.is_empty(), "local parts are exact");
    let both = Filter { sender: Some(String::new()), ..domain };
    assert_eq!(ids(&queue, &both).await, every(15, 0));
    assert_eq!(ids(&queue, &Filter { id: Some(all[7].queue_id), ..both.clone() }).await, []);
    let one = Filter { item: Some(all[7]), ..Filter::default() };
    assert_eq!(ids(&queue, &one).await, [all[7]]);
    let nobody = Filter { recipient_domain: Destination::parse("no.example").ok(), ..Filter::default() };
    assert!(ids(&queue, &nobody).await.is_empty());

    let stats = queue.stats();
    assert_eq!((stats.active, stats.deferred, stats.held), (25, 0, 0));
    assert_eq!(stats.destinations[0].1, 20);
    assert_eq!(stats.oldest, Some(at(0)));
    assert!(stats.bytes > 25 * 64);
}

#[tokio::test]
async fn hold_release_retry_and_delete() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let a = queue.enqueue(message(&queue, &["a@one.example"], b"a")).await.unwrap();
    let b = queue.enqueue(message(&queue, &["b@two.example"], b"b")).await.unwrap();
    let only = |id| Filter { id: Some(id), ..Filter::default() };

    assert_eq!(queue.admin(&only(a), AdminAction::Hold, at(1)).await, Ok(1));
    let page = queue.list(&only(a), None, 10).await.unwrap();
    assert_eq!((page.entries[0].state, page.entries[0].next_attempt), (EntryState::Held, None));
    assert_eq!(claim_one(&queue, at(1)).await.item.id.queue_id, b);
    assert!(queue.claim_due(at(1), 10, LEASE).await.unwrap().is_empty());
    assert_eq!(queue.admin(&only(a), AdminAction::Retry, at(2)).await, Ok(1));
    assert!(queue.claim_due(at(2), 10, LEASE).await.unwrap().is_empty(), "retry does not release");
    assert_eq!(queue.stats().held, 1);
    assert_eq!(queue.stats().oldest_by_state, [Some(at(0)), None, Some(at(0))]);

    assert_eq!(queue.admin(&only(a), AdminAction::Release, at(3)).await, Ok(1));
    let claim = claim_one(&queue, at(3)).await;
    assert_eq!(content(&queue, a).await, b"a");
    defer(&queue, claim, at(4000)).await.unwrap();
    assert_eq!(queue.stats().oldest_by_state, [Some(at(0)), Some(at(0)), None]);
    assert_eq!(queue.admin(&Filter::default(), AdminAction::Retry, at(10)).await, Ok(2));
    assert_eq!(queue.next_due(), Some(at(10)));

    assert_eq!(queue.admin(&only(a), AdminAction::Delete, at(11)).await, Ok(1));
    assert_eq!(ids(&queue, &Filter::default()).await.len(), 1);
    assert_eq!(queue.stats().oldest_by_state, [Some(at(0)), None, None]);
    assert_eq!(queue.admin(&only(a), AdminAction::Delete, at(11)).await, Ok(0));
}

#[tokio::test]
async fn an_item_in_an_attempt_is_held_or_deleted_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    for _ in 0..3 {
        queue.enqueue(message(&queue, &["a@one.example"], b"a")).await.unwrap();
    }
    let mut claims = queue.claim_due(at(0), 3, LEASE).await.unwrap();
    let (unclaimed, deleted, held) = (claims.pop().unwrap(), claims.pop().unwrap(), claims.pop().unwrap());
    let only = |claim: &Claim| Filter { item: Some(claim.item.id), ..Filter::default() };
    assert_eq!(queue.admin(&only(&held), AdminAction::Hold, at(1)).await, Ok(1));
    assert_eq!(queue.admin(&only(&deleted), AdminAction::Delete, at(1)).await, Ok(1));
    assert_eq!(queue.admin(&only(&unclaimed), AdminAction::Delete, at(1)).await, Ok(1));
    assert_eq!(queue.stats().active, 3, "attempts go on");

    let only_held = only(&held);
    defer(&queue, held, at(2)).await.unwrap();
    defer(&queue, deleted, at(2)).await.unwrap();
    queue.unclaim(unclaimed, at(2)).await.unwrap();
    assert!(queue.claim_due(at(100), 10, LEASE).await.unwrap().is_empty());
    let page = queue.list(&Filter::default(), None, 10).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].state, EntryState::Held);
    queue.admin(&only_held, AdminAction::Release, at(101)).await.unwrap();
    assert_eq!(claim_one(&queue, at(101)).await.item.attempts, 1);
    queue.close().await;
    assert_eq!(open(dir.path()).0.stats().active, 0);
}

#[tokio::test]
async fn history_is_bounded_and_keeps_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"a")).await.unwrap();
    for round in 0..20 {
        let claim = claim_one(&queue, at(round)).await;
        let settlement = settlement(&claim, Some(at(round + 1)));
        queue.settle(claim, &settlement, attempt(at(round), &round.to_string()), vec![]).await.unwrap();
    }
    let claim = claim_one(&queue, at(20)).await;
    assert_eq!((claim.item.attempts, claim.item.history.len()), (20, ATTEMPTS_KEPT));
    assert_eq!(claim.item.history[ATTEMPTS_KEPT - 1].result, "19");
}

#[tokio::test]
async fn large_contents_are_files_and_leave_with_their_message() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let text: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let mut writer = queue.body_writer();
    for piece in text.chunks(70_001) {
        writer.write(piece).await.unwrap();
    }
    assert_eq!(writer.len(), 3_000_000);
    let body = writer.finish().await.unwrap();
    assert!(matches!(&body, Body::File { len: 3_000_000, .. }));
    assert_eq!(body.head(5).await.unwrap(), text[..5]);
    let mut new = message(&queue, &["a@one.example"], b"");
    new.body = body;
    let id = queue.enqueue(new).await.unwrap();
    let files = |name: &str| std::fs::read_dir(dir.path().join("queue").join(name)).unwrap().count();
    assert_eq!((files("spool"), files("bodies")), (0, 1));
    assert!(content(&queue, id).await == text);
    assert!(queue.stats().bytes > 3_000_000);

    // A content of somebody else's stays where it is, e.g. when a notification quotes a message.
    let mut copy = message(&queue, &["b@one.example"], b"");
    copy.body = queue.body(id).await.unwrap();
    let copy = queue.enqueue(copy).await.unwrap();
    assert!(content(&queue, copy).await == text);
    queue.close().await;

    let (queue, _) = open(dir.path());
    assert!(content(&queue, id).await == text);
    for claim in queue.claim_due(at(1), 10, LEASE).await.unwrap() {
        deliver(&queue, claim, at(2)).await.unwrap();
    }
    queue.close().await;
    assert_eq!((files("spool"), files("bodies")), (0, 0));
}

#[tokio::test]
async fn a_large_content_in_memory_is_kept_as_a_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let id = queue.enqueue(message(&queue, &["a@one.example"], &vec![b'x'; (1 << 20) + 1])).await.unwrap();
    assert!(matches!(queue.body(id).await.unwrap(), Body::File { .. }));
    assert_eq!(content(&queue, id).await.len(), (1 << 20) + 1);
}

#[tokio::test]
async fn an_unfinished_content_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let mut writer = queue.body_writer();
    writer.write(&vec![0; 2 << 20]).await.unwrap();
    let spool = dir.path().join("queue/spool");
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 1);
    drop(writer);
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    let mut small = queue.body_writer();
    small.write(b"hello").await.unwrap();
    assert!(matches!(small.finish().await.unwrap(), Body::Memory(bytes) if bytes == "hello"));
}

#[tokio::test]
async fn ids_are_never_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = None;
    for round in 0..4 {
        let (queue, _) = open(dir.path());
        let id = queue.allocate_id();
        assert!(last < Some(id), "{last:?} {id:?}");
        // Given out and never queued: gone all the same.
        last = Some(queue.allocate_id());
        if round % 2 == 0 {
            queue.close().await;
        }
    }
}

#[tokio::test]
async fn two_processes_cannot_have_the_same_queue() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let error = open_on(Arc::new(RealDisk), "boot", dir.path()).err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
    drop(queue);
    open(dir.path());
}

#[tokio::test]
async fn after_close_everything_fails_and_nothing_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    queue.enqueue(message(&queue, &["a@one.example"], b"a")).await.unwrap();
    let claim = claim_one(&queue, at(0)).await;
    queue.close().await;
    queue.close().await;
    assert!(matches!(
        queue.enqueue(message(&queue, &["a@b.example"], b"")).await,
        Err(QueueError::Storage(_))
    ));
    assert!(queue.claim_due(at(0), 1, LEASE).await.is_err());
    assert!(deliver(&queue, claim, at(0)).await.is_err());
    assert!(queue.admin(&Filter::default(), AdminAction::Hold, at(0)).await.is_err());
    assert_eq!(queue.next_due(), None);
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_stop_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    for _ in 0..2 {
        queue.enqueue(message(&queue, &["a@one.example"], b"a")).await.unwrap();
    }
    let deferred = claim_one(&queue, at(0)).await;
    let lost = claim_one(&queue, at(0)).await;
    defer(&queue, deferred, at(300)).await.unwrap();
    let day = 86_400;
    // The clock was a day ahead.
    assert!(queue.claim_due(at(-day), 10, LEASE).await.unwrap().is_empty());
    assert_eq!(queue.next_due(), Some(at(300 - day)));
    assert_eq!(queue.claim_due(at(300 - day), 10, LEASE).await.unwrap().len(), 1);
    let again = queue.claim_due(at(600 - day), 10, LEASE).await.unwrap();
    assert_eq!(again[0].item.id, lost.item.id);
    queue.close().await;

    // The same over a restart: nothing waits for a day that is long ago.
    let month = Timestamp::from_second(1_790_000_000).unwrap();
    let (queue, _) = super::Queue::open_over(&ground(RealDisk, "boot"), &options(dir.path()), month).unwrap();
    let soon = month + SignedDuration::try_from(Duration::from_secs(301)).unwrap();
    assert_eq!(queue.claim_due(soon, 10, LEASE).await.unwrap().len(), 2);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let mut want = Vec::new();
    for index in 0..40 {
        let body = vec![b'a' + (index % 26) as u8; 1500];
        let id = queue.enqueue(message(&queue, &["a@one.example", "b@two.example"], &body)).await.unwrap();
        want.push((id, body));
    }
    for claim in queue.claim_due(at(0), 20, LEASE).await.unwrap() {
        deliver(&queue, claim, at(1)).await.unwrap();
    }
    for claim in queue.claim_due(at(0), 10, LEASE).await.unwrap() {
        defer(&queue, claim, at(300)).await.unwrap();
    }
    let held = Filter { id: Some(want[39].0), ..Filter::default() };
    queue.admin(&held, AdminAction::Hold, at(1)).await.unwrap();
    // In an attempt when the process ends: due at once.
    queue.claim_due(at(0), 7, LEASE).await.unwrap();
    let before = queue.list(&Filter::default(), None, 1000).await.unwrap().entries;
    queue.close().await;

    let (queue, repaired) = open(dir.path());
    assert_eq!(repaired, Vec::<String>::new());
    let after = queue.list(&Filter::default(), None, 1000).await.unwrap().entries;
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.item, before.next_attempt), (&after.item, after.next_attempt));
    }
    let stats = queue.stats();
    assert_eq!((stats.active, stats.deferred, stats.held), (48, 10, 2));
    for (id, body) in &want[10..] {
        assert!(content(&queue, *id).await == *body);
    }
    assert_eq!(queue.claim_due(at(0), 1000, LEASE).await.unwrap().len(), 48);
}

/// Enqueues so many messages for one destination.
async fn enqueue_to(queue: &Queue, to: &str, count: usize) {
    for _ in 0..count {
        queue.enqueue(message(queue, &[to], b"x")).await.unwrap();
    }
}

fn destinations(claims: &[Claim]) -> Vec<String> {
    claims.iter().map(|claim| claim.item.destination.to_string()).collect()
}

#[tokio::test]
async fn a_parked_destination_is_left_out_until_all_of_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    enqueue_to(&queue, "a@busy.example", 5).await;
    enqueue_to(&queue, "a@other.example", 1).await;
    let claim = claim_one(&queue, at(0)).await;
    let busy = claim.item.destination.clone();
    queue.park(claim.clone()).await.unwrap();
    assert!(matches!(queue.park(claim).await, Err(QueueError::Fenced(_))));
    let claims = queue.claim_due(at(0), 10, LEASE).await.unwrap();
    assert_eq!(destinations(&claims), ["other.example"]);
    assert_eq!(queue.next_due(), Some(at(600)), "the end of the lease: nobody waits for what is parked");
    // What comes later waits with it, and is asked for after it.
    enqueue_to(&queue, "late@busy.example", 1).await;
    assert!(queue.claim_due(at(0), 10, LEASE).await.unwrap().is_empty());
    let five = [(busy.clone(), 5)];
    let (claims, unparked) = queue.claim_parked(&five, at(0), LEASE).await.unwrap();
    assert_eq!((claims.len(), unparked), (5, vec![]));
    let (claims, unparked) = queue.claim_parked(&five, at(0), LEASE).await.unwrap();
    assert_eq!(
        (claims[0].item.envelope.recipients[0].path.to_string(), unparked),
        ("late@busy.example".into(), vec![busy])
    );
    enqueue_to(&queue, "a@busy.example", 1).await;
    assert_eq!(queue.claim_due(at(0), 10, LEASE).await.unwrap().len(), 1, "parked no more");
}

#[tokio::test]
async fn parked_items_obey_operators_and_park_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    enqueue_to(&queue, "a@busy.example", 3).await;
    let claim = claim_one(&queue, at(0)).await;
    let (id, busy) = (claim.item.id, claim.item.destination.clone());
    queue.park(claim).await.unwrap();
    assert!(queue.claim_due(at(0), 10, LEASE).await.unwrap().is_empty());
    let one = Filter { item: Some(id), ..Filter::default() };
    assert_eq!(queue.admin(&one, AdminAction::Hold, at(1)).await, Ok(1));
    let (claims, unparked) = queue.claim_parked(&[(busy.clone(), 1)], at(1), LEASE).await.unwrap();
    assert_eq!((claims.len(), unparked), (1, vec![]));
    assert_eq!(queue.admin(&one, AdminAction::Release, at(2)).await, Ok(1));
    assert!(queue.claim_due(at(2), 10, LEASE).await.unwrap().is_empty());
    deliver(&queue, claims.into_iter().next().unwrap(), at(2)).await.unwrap();
    assert_eq!(queue.admin(&Filter::default(), AdminAction::Delete, at(3)).await, Ok(2));
    queue.housekeeping();
    // The destination is gone, and its number is another's now.
    enqueue_to(&queue, "a@next.example", 1).await;
    let claims = queue.claim_due(at(3), 10, LEASE).await.unwrap();
    assert_eq!(destinations(&claims), ["next.example"]);
    let (claims, unparked) = queue.claim_parked(&[(busy.clone(), 9)], at(3), LEASE).await.unwrap();
    assert_eq!((claims.len(), unparked), (0, vec![busy]));
}
