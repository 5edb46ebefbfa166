//! What moved between this store and others, so that importing twice never doubles a message.
//!
//! An import is written down before the message is taken in (begun, under which id), and again when
//! it is (done), and when it may leave (free); until it is done the message is held and cannot leave.
//! So whenever it is interrupted, the same import finds out what was done and ends it. An item that was
//! removed by an export is written down too: it may come back here.
//!
//! A move is forgotten when the message is older than any queue should keep it, and a message that old
//! is taken in no more: what may have been forgotten never comes twice.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::ground::Ground;
use super::ledger::Ledger;
use super::queue::{Body, Portable, PortableItem, Queue, QueueError};
use crate::queue::{ItemId, QueueId, after};

/// Messages accepted longer ago are not imported: whether they were before may be forgotten. Far
/// beyond a message's lifetime, also of one that was held by an operator meanwhile.
const AGE_MAX: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// Moves are remembered for this long beyond [`AGE_MAX`], so that clocks may differ.
const SLACK: Duration = Duration::from_secs(24 * 60 * 60);
/// How often is looked for what may be forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);
/// Moved items remembered at most: some hundred octets of memory each.
const MOVES_MAX: usize = 5_000_000;

/// The moves. Cheap to clone.
#[derive(Clone)]
pub struct Moves {
    ledger: Arc<Ledger<Moved>>,
    /// One import at a time looks and acts.
    importing: Arc<Semaphore>,
    /// When is looked again for what may be forgotten.
    forget_at: Arc<Mutex<Timestamp>>,
}

/// A move, and how old its message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Moved {
    #[serde(flatten)]
    what: Move,
    /// When the message was accepted, or left with an export. Without it the move is kept.
    #[serde(default = "never")]
    since: Timestamp,
}

fn never() -> Timestamp {
    Timestamp::MAX
}

impl Moved {
    /// Unfinished imports are kept: their items are held.
    fn is_over(&self, now: Timestamp) -> bool {
        matches!(self.what, Move::Free(_) | Move::Out(_)) && after(self.since, AGE_MAX + SLACK) < now
    }
}

/// What became of an item of another store here, or of one of ours elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Move {
    /// Taken out of this queue with an export.
    Out(Timestamp),
    /// About to be taken in under this name.
    Begun(ItemId),
    /// Taken in under this name, and perhaps still held for the import.
    Done(ItemId),
    /// Taken in under this name and let go: nothing is left to do.
    Free(ItemId),
}

/// What is to be done about an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Items to take in: the content is needed.
    pub wanted: Vec<u32>,
    /// Items that were taken in before, under which name; an interrupted import of them is ended.
    pub known: Vec<(u32, ItemId)>,
    /// Items of our own that may not come back, and why.
    pub refused: Vec<(u32, String)>,
}

impl Moves {
    /// Opens or creates `moves` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path, now: Timestamp) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), data_dir, now)
    }

    /// [`Moves::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Moves::open`].
    pub fn open_over(
        ground: &Ground,
        data_dir: &Path,
        now: Timestamp,
    ) -> Result<(Self, Vec<String>), QueueError> {
        let keep = |moved: &Moved| !moved.is_over(now);
        let (ledger, repaired) = Ledger::open_some(ground, &data_dir.join("moves"), "moves", keep)?;
        let forget_at = Arc::new(Mutex::new(after(now, FORGET_EVERY)));
        Ok((Self { ledger: Arc::new(ledger), importing: Arc::new(Semaphore::new(1)), forget_at }, repaired))
    }

    /// Forgets what is too old to come again, now and then.
    async fn forget(&self, now: Timestamp) {
        {
            let mut at = self.forget_at.lock().unwrap_or_else(PoisonError::into_inner);
            if now < *at {
                return;
            }
            *at = after(now, FORGET_EVERY);
        }
        for key in self.ledger.keys(|moved| moved.is_over(now)) {
            if let Err(error) = self.ledger.remove(&key).await {
                tracing::warn!(%error, "old moves of messages are still remembered");
                return;
            }
        }
    }

    /// Writes down that items of this queue leave with an export; they may come back.
    ///
    /// # Errors
    /// [`QueueError`]: then they must not be removed.
    pub async fn leaving(&self, queue: &Queue, items: &[ItemId], now: Timestamp) -> Result<(), QueueError> {
        self.forget(now).await;
        let store = queue.identity();
        let moved = Moved { what: Move::Out(now), since: now };
        let puts = items.iter().map(|item| self.ledger.put(key(&store, *item), moved.clone()));
        futures_util::future::join_all(puts).await.into_iter().collect()
    }

    /// What importing a message would do.
    pub fn plan(&self, queue: &Queue, portable: &Portable, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let old = after(portable.received_at, AGE_MAX) < now;
        let own = portable.store == queue.identity();
        for item in &portable.items {
            let from = ItemId { queue_id: portable.id, part: item.part };
            let known = self.ledger.get(&key(&portable.store, from));
            match known.as_deref().map(|moved| &moved.what) {
                Some(Move::Done(now) | Move::Free(now)) => plan.known.push((item.part, *now)),
                Some(Move::Begun(now)) if queue.has(*now) => plan.known.push((item.part, *now)),
                // Interrupted before it was taken in: what is held cannot have left.
                Some(Move::Begun(_)) => plan.wanted.push(item.part),
                _ if own && queue.has(from) => {
                    plan.refused.push((item.part, "is still in this queue".to_owned()));
                }
                None if own => plan.refused.push((
                    item.part,
                    "is of this queue and left it since, delivered, given up or deleted".to_owned(),
                )),
                None if old => plan.refused.push((
                    item.part,
                    format!(
                        "was accepted more than {} days ago: whether it was imported before is forgotten",
                        AGE_MAX.as_secs() / (24 * 60 * 60)
                    ),
                )),
                Some(Move::Out(_)) | None => plan.wanted.push(item.part),
            }
        }
        plan
    }

    /// Takes in what is wanted of a message, and ends what was interrupted; gives the new name and
    /// what was done.
    ///
    /// # Errors
    /// [`QueueError`]; importing again goes on.
    pub async fn import(
        &self,
        queue: &Queue,
        portable: &Portable,
        body: Option<Body>,
        now: Timestamp,
    ) -> Result<(QueueId, Plan), QueueError> {
        let _alone = self.importing.acquire().await;
        portable.check().map_err(QueueError::Storage)?;
        self.forget(now).await;
        let plan = self.plan(queue, portable, now);
        let put = |from: &ItemId, what| {
            self.ledger.put(key(&portable.store, *from), Moved { what, since: portable.received_at })
        };
        let id = queue.allocate_id();
        let wanted = |part: u32| plan.wanted.contains(&part);
        let mut names: Vec<(ItemId, ItemId, PortableItem)> = Vec::new();
        for item in &portable.items {
            let from = ItemId { queue_id: portable.id, part: item.part };
            let known = plan.known.iter().find(|(part, _)| *part == item.part).map(|(_, name)| *name);
            match known {
                Some(name) => {
                    let done = self.ledger.get(&key(&portable.store, from));
                    let done = done.as_deref().map(|moved| &moved.what);
                    if matches!(done, Some(Move::Begun(_) | Move::Done(_))) {
                        names.push((from, name, item.clone()));
                    }
                }
                None if wanted(item.part) => {
                    names.push((from, ItemId { queue_id: id, part: item.part }, item.clone()));
                }
                None => {}
            }
        }
        if !plan.wanted.is_empty() {
            let body = body.filter(|body| body.len() == portable.size);
            let body = body
                .ok_or_else(|| QueueError::Storage("the content is missing or has another length".into()))?;
            if self.ledger.len() + names.len() > MOVES_MAX {
                let text =
                    format!("{MOVES_MAX} moved items are remembered already; they are forgotten with time");
                return Err(QueueError::Storage(text));
            }
            let begun = names.iter().map(|(from, name, _)| put(from, Move::Begun(*name)));
            futures_util::future::join_all(begun).await.into_iter().collect::<Result<(), _>>()?;
            let mut taken = portable.clone();
            taken.items.retain(|item| wanted(item.part));
            queue.take_in(&taken, id, body, now).await?;
        }
        let done = names.iter().map(|(from, name, _)| put(from, Move::Done(*name)));
        futures_util::future::join_all(done).await.into_iter().collect::<Result<(), _>>()?;
        let free: Vec<_> = names.iter().map(|(_, name, item)| (*name, item.clone())).collect();
        queue.let_go(&free, now).await?;
        let freed = names.iter().map(|(from, name, _)| put(from, Move::Free(*name)));
        futures_util::future::join_all(freed).await.into_iter().collect::<Result<(), _>>()?;
        Ok((id, plan))
    }
}

fn key(store: &str, item: ItemId) -> String {
    format!("{store} {item}")
}
