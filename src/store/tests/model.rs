//! Random operations against a model that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::queue::{AdminAction, EntryState, Filter};
use super::*;

#[derive(Debug, Clone)]
enum Operation {
    Enqueue { parts: usize, size: usize },
    Claim { max: usize },
    Deliver(usize),
    Defer { claim: usize, wait: i64, born: bool },
    Unclaim(usize),
    Admin { item: usize, action: AdminAction },
    Wait(i64),
    Housekeeping,
    Close,
    Kill,
    Rebuild,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let action = prop_oneof![
        Just(AdminAction::Retry),
        Just(AdminAction::Hold),
        Just(AdminAction::Release),
        Just(AdminAction::Delete)
    ];
    prop_oneof![
        6 => (1..4usize, 0..6000usize).prop_map(|(parts, size)| Enqueue { parts, size }),
        4 => (1..4usize).prop_map(|max| Claim { max }),
        5 => any::<usize>().prop_map(Deliver),
        3 => (any::<usize>(), 1..900i64, any::<bool>())
            .prop_map(|(claim, wait, born)| Defer { claim, wait, born }),
        1 => any::<usize>().prop_map(Unclaim),
        3 => (any::<usize>(), action).prop_map(|(item, action)| Admin { item, action }),
        2 => (1..400i64).prop_map(Wait),
        2 => Just(Housekeeping),
        1 => Just(Close),
        1 => Just(Kill),
        1 => Just(Rebuild),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    body: Vec<u8>,
    due: i64,
    attempts: u32,
    held: bool,
    doomed: bool,
    /// The end of its lease.
    leased: Option<i64>,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<ItemId, Row>,
    claims: Vec<(Claim, i64)>,
    now: i64,
}

impl Model {
    fn insert(&mut self, id: QueueId, parts: usize, body: &[u8]) {
        for part in 0..parts as u32 {
            let row = Row {
                body: body.to_vec(),
                due: self.now,
                attempts: 0,
                held: false,
                doomed: false,
                leased: None,
            };
            self.rows.insert(ItemId { queue_id: id, part }, row);
        }
    }

    fn restarted(&mut self) {
        self.claims.clear();
        self.rows.retain(|_, row| !row.doomed);
        self.rows.values_mut().for_each(|row| row.leased = None);
    }

    fn is_due(&self, row: &Row) -> bool {
        let free = row.leased.is_none_or(|until| until <= self.now);
        free && !row.held && !row.doomed && row.due <= self.now
    }
}

async fn step(queue: &mut Queue, dir: &Path, model: &mut Model, operation: Operation) {
    let now = at(model.now);
    match operation {
        Operation::Enqueue { parts, size } => {
            let to = ["a@one.example", "b@two.example", "c@three.example"];
            let body = vec![(size % 251) as u8; size];
            let mut new = message(queue, &to[..parts], &body);
            new.received_at = now;
            let id = queue.enqueue(new).await.unwrap();
            model.insert(id, parts, &body);
        }
        Operation::Claim { max } => {
            let claims = queue.claim_due(now, max, LEASE).await.unwrap();
            let mut due: Vec<_> = model
                .rows
                .iter()
                .filter(|(_, row)| model.is_due(row))
                .map(|(id, row)| (row.due, *id))
                .collect();
            due.sort();
            due.truncate(max);
            let claimed: Vec<_> = claims.iter().map(|claim| claim.item.id).collect();
            assert_eq!(claimed, due.iter().map(|(_, id)| *id).collect::<Vec<_>>());
            for claim in claims {
                let row = model.rows.get_mut(&claim.item.id).unwrap();
                assert_eq!((claim.item.attempts, claim.item.size), (row.attempts, row.body.len() as u64));
                row.leased = Some(model.now + 600);
                model.claims.retain(|(old, _)| old.item.id != claim.item.id);
                model.claims.push((claim, model.now));
            }
        }
        Operation::Deliver(index) if !model.claims.is_empty() => {
            let (claim, _) = model.claims.remove(index % model.claims.len());
            let id = claim.item.id;
            deliver(queue, claim, now).await.unwrap();
            model.rows.remove(&id);
        }
        Operation::Defer { claim, wait, born } if !model.claims.is_empty() => {
            let (claim, _) = model.claims.remove(claim % model.claims.len());
            let id = claim.item.id;
            let settlement = settlement(&claim, Some(at(model.now + wait)));
            let mut born_ids = Vec::new();
            let mut messages = Vec::new();
            if born {
                let mut new = message(queue, &["from@example.org"], b"born");
                new.received_at = now;
                born_ids.push(new.id);
                messages.push(new);
            }
            queue.settle(claim, &settlement, attempt(now, "deferred"), messages).await.unwrap();
            born_ids.into_iter().for_each(|id| model.insert(id, 1, b"born"));
            let row = model.rows.get_mut(&id).unwrap();
            (row.due, row.attempts, row.leased) = (model.now + wait, row.attempts + 1, None);
            if row.doomed {
                model.rows.remove(&id);
            }
        }
        Operation::Unclaim(index) if !model.claims.is_empty() => {
            let (claim, _) = model.claims.remove(index % model.claims.len());
            let row = model.rows.get_mut(&claim.item.id).unwrap();
            row.leased = None;
            let id = claim.item.id;
            // At the time it had, so that a restart makes no difference.
            queue.unclaim(claim, at(row.due)).await.unwrap();
            if row.doomed {
                model.rows.remove(&id);
            }
        }
        Operation::Admin { item, action } if !model.rows.is_empty() => {
            let id = *model.rows.keys().nth(item % model.rows.len()).unwrap();
            let filter = Filter { item: Some(id), ..Filter::default() };
            let row = model.rows.get_mut(&id).unwrap();
            // Whether a lease that ran out was noticed depends on the last claim.
            if row.leased.is_some_and(|until| until <= model.now) {
                return;
            }
            let count = queue.admin(&filter, action, now).await.unwrap();
            assert_eq!(count, u64::from(!row.doomed));
            match action {
                _ if row.doomed => {}
                AdminAction::Retry if row.leased.is_none() => row.due = model.now,
                AdminAction::Retry => {}
                AdminAction::Hold => row.held = true,
                AdminAction::Release if row.held => (row.held, row.due) = (false, model.now),
                AdminAction::Release => {}
                AdminAction::Delete if row.leased.is_some() => row.doomed = true,
                AdminAction::Delete => drop(model.rows.remove(&id)),
            }
        }
        Operation::Wait(seconds) => model.now += seconds,
        Operation::Housekeeping => queue.housekeeping(),
        Operation::Close | Operation::Kill | Operation::Rebuild => {
            if matches!(operation, Operation::Close) {
                queue.close().await;
            }
            let other = tempfile::tempdir().unwrap();
            // The old one must let go of the folder before the new one can have it.
            *queue = open(other.path()).0;
            if matches!(operation, Operation::Rebuild) {
                std::fs::remove_dir_all(dir.join("queue/index")).unwrap();
            }
            *queue = Queue::open_over(&ground(RealDisk, "boot"), &options(dir), now).unwrap().0;
            model.restarted();
        }
        _ => {}
    }
}

async fn compare(queue: &Queue, model: &Model) {
    let entries = queue.list(&Filter::default(), None, 10_000).await.unwrap().entries;
    // What was deleted during an attempt may be shown until the attempt's lease is over.
    let shown: Vec<_> = entries.iter().map(|entry| entry.item.id).collect();
    let certain = model.rows.iter().filter(|(_, row)| !row.doomed);
    let want: Vec<_> = certain.clone().map(|(id, _)| *id).collect();
    assert_eq!(
        shown.iter().filter(|id| !model.rows.get(id).is_some_and(|row| row.doomed)).collect::<Vec<_>>(),
        want.iter().collect::<Vec<_>>()
    );
    for (id, row) in certain {
        let entry = entries.iter().find(|entry| entry.item.id == *id).unwrap();
        assert_eq!(entry.item.attempts, row.attempts, "{id}");
        let leased = row.leased.is_some();
        if !leased {
            assert_eq!(entry.state == EntryState::Held, row.held, "{id}");
            assert_eq!(entry.next_attempt, (!row.held).then(|| at(row.due)), "{id}");
        }
        assert!(content(queue, id.queue_id).await == row.body, "{id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_behaves_like_a_table(operations in prop::collection::vec(operation(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (mut queue, _) = open(dir.path());
            let mut model = Model::default();
            for operation in operations {
                step(&mut queue, dir.path(), &mut model, operation).await;
            }
            compare(&queue, &model).await;
        });
    }
}
