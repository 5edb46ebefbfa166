//! Listings and operations over many items: filters, steps, freezes.

use super::*;
use crate::mail::Destination;
use crate::store::{AdminAction, EntryState, Freeze};

fn domain(name: &str) -> Destination {
    Destination::parse(name).unwrap()
}

/// Messages 0..count to `d0.example` and `d1.example` in turn, received a minute apart.
async fn fill(queue: &Queue, count: i64) -> Vec<QueueId> {
    let mut all = Vec::new();
    for number in 0..count {
        let to = format!("someone@d{}.example", number % 2);
        let one = NewMessage { received_at: at(60 * number), ..message(queue, &[&to], b"body") };
        all.push(queue.enqueue(one).await.unwrap());
    }
    all
}

#[tokio::test]
async fn filters_narrow_by_age_state_error_and_destinations() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let all = fill(&queue, 6).await;
    for claim in queue.claim_due(at(1000), 2, LEASE).await.unwrap() {
        let settlement = settlement(&claim, Some(at(9000)));
        queue.settle(claim, &settlement, attempt(at(1000), "421 Too many Errors"), vec![]).await.unwrap();
    }
    let third = Filter { id: Some(all[2]), ..Filter::default() };
    assert_eq!(queue.admin(&third, AdminAction::Hold, at(1001)).await, Ok(1));
    let which = |filter: Filter| {
        let queue = queue.clone();
        let all = all.clone();
        async move {
            let found = ids(&queue, &filter).await;
            found.iter().map(|id| all.iter().position(|one| *one == id.queue_id).unwrap()).collect::<Vec<_>>()
        }
    };
    let none = Filter::default;
    for (filter, expected) in [
        (none(), vec![0, 1, 2, 3, 4, 5]),
        (Filter { received_before: Some(at(120)), ..none() }, vec![0, 1, 2]),
        (Filter { received_after: Some(at(120)), ..none() }, vec![2, 3, 4, 5]),
        (Filter { received_after: Some(at(61)), received_before: Some(at(239)), ..none() }, vec![2, 3]),
        (Filter { state: Some(EntryState::Deferred), ..none() }, vec![0, 1]),
        (Filter { state: Some(EntryState::Held), ..none() }, vec![2]),
        (Filter { state: Some(EntryState::Active), ..none() }, vec![3, 4, 5]),
        (Filter { error: Some("too MANY".into()), ..none() }, vec![0, 1]),
        (Filter { error: Some("no answer".into()), ..none() }, vec![0, 1]),
        (Filter { error: Some("refused".into()), ..none() }, vec![]),
        (Filter { below: Some(all[3]), ..none() }, vec![0, 1, 2]),
        (Filter { among: Some(Arc::new([domain("d1.example")].into())), ..none() }, vec![1, 3, 5]),
        (Filter { among: Some(Arc::default()), ..none() }, vec![]),
        (
            Filter { recipient_domain: Some(domain("d0.example")), error: Some("421".into()), ..none() },
            vec![0],
        ),
    ] {
        assert_eq!(which(filter.clone()).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn pages_end_where_the_queue_ends_and_a_step_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let all = fill(&queue, 10).await;
    let pages = |max| {
        let queue = queue.clone();
        async move {
            let (mut cursor, mut sizes) = (None, Vec::new());
            loop {
                let page = queue.list(&Filter::default(), cursor, max).await.unwrap();
                sizes.push(page.entries.len());
                cursor = page.cursor;
                if cursor.is_none() {
                    return sizes;
                }
            }
        }
    };
    assert_eq!(pages(4).await, [4, 4, 2]);
    assert_eq!(pages(5).await, [5, 5], "a full page at the end is the last");
    assert_eq!(pages(10).await, [10]);

    // More than a step has: every item once, and what comes meanwhile not at all.
    for _ in 0..300 {
        queue.enqueue(message(&queue, &["x@d2.example"], b"more")).await.unwrap();
    }
    let below = Filter { below: Some(queue.next_id()), ..Filter::default() };
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let (some, next) = queue.matching(&below, cursor).await.unwrap();
        assert!(some.len() <= 256);
        queue.enqueue(message(&queue, &["x@d2.example"], b"later")).await.unwrap();
        seen.extend(some);
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 310);
    assert_eq!(seen[0].queue_id, all[0]);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
}

#[tokio::test]
async fn items_are_claimed_by_name_unless_an_attempt_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let all = fill(&queue, 4).await;
    let busy = claim_one(&queue, at(0)).await;
    let held = Filter { id: Some(all[1]), ..Filter::default() };
    queue.admin(&held, AdminAction::Hold, at(0)).await.unwrap();
    let ids: Vec<ItemId> = all.iter().map(|id| ItemId { queue_id: *id, part: 0 }).collect();
    let claims = queue.claim_items(&ids, at(0), LEASE).await.unwrap();
    let claimed: Vec<ItemId> = claims.iter().map(|claim| claim.item.id).collect();
    assert_eq!(claimed, ids[1..], "held and not yet due ones too; not that in an attempt");
    assert!(queue.claim_items(&ids, at(1), LEASE).await.unwrap().is_empty());
    for claim in claims {
        deliver(&queue, claim, at(2)).await.unwrap();
    }
    deliver(&queue, busy, at(2)).await.unwrap();
    assert!(super::ids(&queue, &Filter::default()).await.is_empty());
}

#[tokio::test]
async fn a_survey_counts_by_destination_and_state() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path());
    let all = fill(&queue, 5).await;
    let claim = claim_one(&queue, at(0)).await;
    defer(&queue, claim, at(500)).await.unwrap();
    let last = Filter { id: Some(all[4]), ..Filter::default() };
    queue.admin(&last, AdminAction::Hold, at(0)).await.unwrap();
    let survey = queue.survey(at(0)).await.unwrap();
    let rows: Vec<_> = survey
        .destinations
        .iter()
        .map(|total| (total.destination.to_string(), total.active, total.deferred, total.held, total.oldest))
        .collect();
    assert_eq!(rows, [("d0.example".into(), 1, 1, 1, at(0)), ("d1.example".into(), 2, 0, 0, at(60))]);
    assert_eq!(survey.ages, [5, 0, 0, 0, 0]);
    // Received a minute apart: the classes end where they say.
    assert_eq!(queue.survey(at(3_600 + 60)).await.unwrap().ages, [3, 2, 0, 0, 0]);
    assert_eq!(queue.survey(at(200_000)).await.unwrap().ages, [0, 0, 0, 0, 5]);
}

#[tokio::test]
async fn freezes_end_in_their_time_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let freeze = |name: &str, until| Freeze {
        destination: domain(name),
        reason: Some("moving".into()),
        since: at(0),
        until,
    };
    let names = |queue: &Queue, now| {
        queue.freezes(now).iter().map(|freeze| freeze.destination.to_string()).collect::<Vec<_>>()
    };
    {
        let (queue, _) = open(dir.path());
        assert!(names(&queue, at(0)).is_empty() && !dir.path().join("queue/frozen.log").exists());
        assert_eq!(queue.thaw(&domain("a.example"), at(0)).await, Ok(false));
        queue.freeze(freeze("a.example", None), at(0)).await.unwrap();
        queue.freeze(freeze("b.example", Some(at(60))), at(0)).await.unwrap();
        queue.freeze(freeze("c.example", None), at(0)).await.unwrap();
        assert_eq!(queue.thaw(&domain("c.example"), at(0)).await, Ok(true));
        assert_eq!(names(&queue, at(59)), ["a.example", "b.example"]);
    }
    let (queue, repaired) = open(dir.path());
    assert!(!repaired.iter().any(|line| line.contains("frozen")), "{repaired:?}");
    assert_eq!(names(&queue, at(59)), ["a.example", "b.example"]);
    assert_eq!(names(&queue, at(60)), ["a.example"]);
    assert_eq!(queue.frozen(&domain("a.example"), at(60)).unwrap().reason.as_deref(), Some("moving"));
    assert!(queue.frozen(&domain("b.example"), at(60)).is_none());
    // Mail for it is accepted, and claimed: delivery decides what becomes of it.
    queue.enqueue(message(&queue, &["x@a.example"], b"waits")).await.unwrap();
    assert_eq!(claim_one(&queue, at(0)).await.item.destination, domain("a.example"));
}

#[tokio::test]
async fn what_waits_for_a_freeze_is_due_when_that_is_over_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (name, day) = (domain("a.example"), 86_400);
    let freeze = |until| Freeze { destination: name.clone(), reason: None, since: at(0), until };
    {
        let (queue, _) = open(dir.path());
        queue.freeze(freeze(None), at(0)).await.unwrap();
        for to in ["x@a.example", "y@a.example", "z@b.example"] {
            queue.enqueue(message(&queue, &[to], b"waits")).await.unwrap();
        }
        for claim in queue.claim_due(at(0), 9, LEASE).await.unwrap() {
            queue.unclaim(claim, at(day)).await.unwrap();
        }
        assert_eq!(queue.next_due(), Some(at(day)), "nobody looks at them before");
        // Another end: they have to learn of it.
        queue.freeze(freeze(Some(at(3600))), at(1)).await.unwrap();
        let claims = queue.claim_due(at(1), 9, LEASE).await.unwrap();
        assert_eq!(claims.len(), 2);
        for claim in claims {
            queue.unclaim(claim, at(day)).await.unwrap();
        }
        assert_eq!(queue.thaw(&name, at(2)).await, Ok(true));
        assert_eq!(queue.thaw(&name, at(2)).await, Ok(false));
        assert_eq!(queue.claim_due(at(2), 9, LEASE).await.unwrap().len(), 2);
        queue.freeze(freeze(None), at(3)).await.unwrap();
    }
    // As an index may have it: they wait for the freeze, which ends before anybody makes them due.
    let (queue, _) = open(dir.path());
    for claim in queue.claim_due(at(3), 9, LEASE).await.unwrap() {
        queue.unclaim(claim, at(day)).await.unwrap();
    }
    queue.thaw(&name, at(4)).await.unwrap();
    queue.close().await;
    drop(queue);
    let (queue, _) = open(dir.path());
    assert!(queue.freezes(at(5)).is_empty());
    assert!(queue.claim_due(at(5), 9, LEASE).await.unwrap().len() >= 2);
}
