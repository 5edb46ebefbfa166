//! What moved between this store and others, so that importing twice never doubles a message.
//!
//! An import is written down before the message is taken in (begun, under which id), and again when
//! it is (done), and when it may leave (free); until it is done the message is held and cannot leave. So whenever it is interrupted, the
//! same import finds out what was done and ends it. An item that was removed by an export is written
//! down too: it may come back here. Never forgets.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::ground::Ground;
use super::ledger::Ledger;
use super::queue::{Body, Portable, PortableItem, Queue, QueueError};
use crate::queue::{ItemId, QueueId};

/// The moves. Cheap to clone.
#[derive(Clone)]
pub struct Moves {
    ledger: Arc<Ledger<Move>>,
    /// One import at a time looks and acts.
    importing: Arc<Semaphore>,
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
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), data_dir)
    }

    /// [`Moves::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Moves::open`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (ledger, repaired) = Ledger::open(ground, &data_dir.join("moves"), "moves")?;
        Ok((Self { ledger: Arc::new(ledger), importing: Arc::new(Semaphore::new(1)) }, repaired))
    }

    /// Writes down that items of this queue leave with an export; they may come back.
    ///
    /// # Errors
    /// [`QueueError`]: then they must not be removed.
    pub async fn leaving(&self, queue: &Queue, items: &[ItemId], now: Timestamp) -> Result<(), QueueError> {
        let store = queue.identity();
        let puts = items.iter().map(|item| self.ledger.put(key(&store, *item), Move::Out(now)));
        futures_util::future::join_all(puts).await.into_iter().collect()
    }

    /// What importing a message would do.
    pub fn plan(&self, queue: &Queue, portable: &Portable) -> Plan {
        let mut plan = Plan::default();
        let own = portable.store == queue.identity();
        for item in &portable.items {
            let from = ItemId { queue_id: portable.id, part: item.part };
            let known = self.ledger.get(&key(&portable.store, from));
            match known.as_deref() {
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
        let plan = self.plan(queue, portable);
        let id = queue.allocate_id();
        let wanted = |part: u32| plan.wanted.contains(&part);
        let mut names: Vec<(ItemId, ItemId, PortableItem)> = Vec::new();
        for item in &portable.items {
            let from = ItemId { queue_id: portable.id, part: item.part };
            let known = plan.known.iter().find(|(part, _)| *part == item.part).map(|(_, name)| *name);
            match known {
                Some(name) => {
                    let done = self.ledger.get(&key(&portable.store, from));
                    if matches!(done.as_deref(), Some(Move::Begun(_) | Move::Done(_))) {
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
            let begun = names
                .iter()
                .map(|(from, name, _)| self.ledger.put(key(&portable.store, *from), Move::Begun(*name)));
            futures_util::future::join_all(begun).await.into_iter().collect::<Result<(), _>>()?;
            let mut taken = portable.clone();
            taken.items.retain(|item| wanted(item.part));
            queue.take_in(&taken, id, body, now).await?;
        }
        let done = names
            .iter()
            .map(|(from, name, _)| self.ledger.put(key(&portable.store, *from), Move::Done(*name)));
        futures_util::future::join_all(done).await.into_iter().collect::<Result<(), _>>()?;
        let free: Vec<_> = names.iter().map(|(_, name, item)| (*name, item.clone())).collect();
        queue.let_go(&free, now).await?;
        let freed = names
            .iter()
            .map(|(from, name, _)| self.ledger.put(key(&portable.store, *from), Move::Free(*name)));
        futures_util::future::join_all(freed).await.into_iter().collect::<Result<(), _>>()?;
        Ok((id, plan))
    }
}

fn key(store: &str, item: ItemId) -> String {
    format!("{store} {item}")
}
