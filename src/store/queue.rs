//! The queue's boundary: messages in, leased items out, settled for good.
//!
//! Durable verbs (`enqueue`, `settle`, `admin`) return when their journal record is on stable
//! storage. Leases are in memory: after a restart every item still in the queue is due at its time.
//! See `journal` for how records are written, `table` for what is in memory, `open` for starting.

mod operate;
mod portable;
mod survey;

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

pub use super::body::{BODY_MEMORY_BYTES, Body, BodyReader, BodyWriter};
pub use super::notions::{
    AGE_CLASSES, AdminAction, Claim, DestinationTotal, Entry, EntryState, Filter, Health, NewMessage, Page,
    QueueError, Stats, Survey,
};

pub use portable::{Export, Portable, PortableItem};

use super::body;
use super::evidence::{Tried, render_draft};
use super::freezes::Freezes;
use super::ground;
use super::ground::Ground;
use super::journal::{Draft, Journal};
use super::keeper::Keeper;
use super::open::{self, Opened};
use super::read;
use super::record::{self, Change, Message};
use super::shared::{Shared, blocking};
use super::table::{DOOMED, Leased, Table, length, micros, micros_up, timestamp};
use crate::mail::Destination;
use crate::queue::{QueueId, QueueItem, Settlement};

/// Destinations in [`Stats`].
const DESTINATIONS_MAX: usize = 20;
/// When an item is looked at again whose record cannot be read.
const UNREADABLE_WAIT_MICROS: i64 = 15 * 60 * 1_000_000;

/// Where and how the queue is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueOptions {
    /// `server.data_dir`; the queue lives in `queue/` below it.
    pub data_dir: PathBuf,
    /// Part of every queue id.
    pub node: u16,
}

/// A durable queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    freezes: Arc<Freezes>,
    node: u16,
    boot: String,
    running: Mutex<Option<Running>>,
}

/// What ends with `close`.
struct Running {
    writer: ground::Running<()>,
    keeper: ground::Running<bool>,
    ask: UnboundedSender<SyncSender<()>>,
    /// Nobody else may open the queue as long as this file is open.
    lock: File,
}

impl Queue {
    /// Opens or creates the queue, replaying or rebuilding the index from the journal as needed.
    /// Returns what was repaired, one sentence each, for the operator; empty when all was well.
    ///
    /// Blocking: call before the runtime serves, or from a blocking thread.
    ///
    /// # Errors
    /// [`QueueError::Storage`] names the path and the trouble, e.g. in use by another process.
    pub fn open(options: &QueueOptions, now: Timestamp) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), options, now)
    }

    /// [`Queue::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Queue::open`].
    pub fn open_over(
        ground: &Ground,
        options: &QueueOptions,
        now: Timestamp,
    ) -> Result<(Self, Vec<String>), QueueError> {
        let dir = options.data_dir.join("queue");
        let Opened { shared, tail, index, lock, mut repaired } = open::open(&dir, ground, now)?;
        let (freezes, more) = Freezes::open(ground, &dir)?;
        repaired.extend(more);
        let freezes = Arc::new(freezes);
        let (journal, writer) = Journal::start(Arc::clone(&shared), tail, ground.loops)?;
        let journal = Arc::new(journal);
        let keeper = Keeper::new(Arc::clone(&shared), Arc::clone(&journal), index);
        let (ask, asked) = unbounded_channel();
        let keeper = ground.loops.start("queue-keeper", keeper.run(asked))?;
        let running = Mutex::new(Some(Running { writer, keeper, ask, lock }));
        let (node, boot) = (options.node, ground.boot.clone());
        let queue = Self { inner: Arc::new(Inner { shared, journal, freezes, node, boot, running }) };
        let over = queue.inner.freezes.over(now);
        if !over.is_empty() {
            queue.hurry(over, now);
        }
        Ok((queue, repaired))
    }

    /// A new queue id, never used before on this node.
    pub fn allocate_id(&self) -> QueueId {
        QueueId { node: self.inner.node, sequence: self.inner.shared.allocate_id() }
    }

    /// Starts a body.
    pub fn body_writer(&self) -> BodyWriter {
        BodyWriter::new(Arc::clone(&self.inner.shared))
    }

    /// Queues a message; `Ok` means body and envelope are on stable storage (invariant I1).
    ///
    /// # Errors
    /// [`QueueError::Full`] or [`QueueError::Storage`]; then nothing of it is kept.
    pub async fn enqueue(&self, message: NewMessage) -> Result<QueueId, QueueError> {
        let id = message.id;
        let refused = self.accepting();
        let mut draft = Draft::default();
        let kept = match refused {
            Ok(()) => self.draft_message(&mut draft, &message).await,
            Err(error) => Err(error),
        };
        let result = match kept {
            Ok(()) => self.inner.journal.commit(draft).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.discard(&[message], error).await;
        }
        result.map(|()| id)
    }

    /// Leases up to `max` due items, longest due first; those of parked destinations stay
    /// ([`Queue::park`]). Never blocks on the disk for fresh messages.
    ///
    /// # Errors
    /// [`QueueError`] when what is delivered could not be recorded: then nothing may be delivered.
    pub async fn claim_due(
        &self,
        now: Timestamp,
        max: usize,
        lease: Duration,
    ) -> Result<Vec<Claim>, QueueError> {
        let shared = &self.inner.shared;
        shared.refusal()?;
        let leased = {
            let mut table = shared.table();
            unrecordable(&table)?;
            table.claim(micros(now), max, length(lease))
        };
        self.claims(leased, now, lease).await
    }

    /// Leases due items of destinations whose claims were given back by [`Queue::park`], of each up to
    /// as many as are wanted, longest due first; and tells which of them are parked no more, since
    /// nothing of theirs waits.
    ///
    /// # Errors
    /// As [`Queue::claim_due`].
    pub async fn claim_parked(
        &self,
        wanted: &[(Destination, usize)],
        now: Timestamp,
        lease: Duration,
    ) -> Result<(Vec<Claim>, Vec<Destination>), QueueError> {
        let shared = &self.inner.shared;
        shared.refusal()?;
        let (mut leased, mut unparked) = (Vec::new(), Vec::new());
        {
            let mut table = shared.table();
            unrecordable(&table)?;
            for (destination, max) in wanted {
                let (some, parked) = table.claim_parked(destination, micros(now), *max, length(lease));
                leased.extend(some);
                if !parked {
                    unparked.push(destination.clone());
                }
            }
        }
        Ok((self.claims(leased, now, lease).await?, unparked))
    }

    async fn claims(
        &self,
        leased: Vec<Leased>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Claim>, QueueError> {
        let shared = &self.inner.shared;
        let leased_until = timestamp(micros(now).saturating_add(length(lease)));
        let leased_at = Instant::now();
        let (fresh, stored): (Vec<_>, Vec<_>) = leased.into_iter().partition(|one| one.fresh.is_some());
        let mut claims: Vec<(i64, Claim)> = fresh
            .into_iter()
            .filter_map(|one| {
                let item = one.fresh?.item(one.id.part, None)?;
                Some((one.slot.due, Claim { item, fence: one.fence, leased_until, leased_at }))
            })
            .collect();
        if !stored.is_empty() {
            let read = shared.reading(move |shared| Ok(read_claims(shared, stored, now))).await?;
            let claim = |(due, item, fence)| (due, Claim { item, fence, leased_until, leased_at });
            claims.extend(read.into_iter().map(claim));
            claims.sort_by_key(|(due, claim)| (*due, claim.item.id));
        }
        Ok(claims.into_iter().map(|(_, claim)| claim).collect())
    }

    /// Lengthens a lease while a long attempt runs.
    ///
    /// # Errors
    /// [`QueueError::Fenced`].
    pub async fn extend(&self, claim: &mut Claim, now: Timestamp, lease: Duration) -> Result<(), QueueError> {
        let id = claim.item.id;
        if !self.inner.shared.table().extend(id, claim.fence, micros(now), length(lease)) {
            return Err(QueueError::Fenced(id));
        }
        claim.leased_until = timestamp(micros(now).saturating_add(length(lease)));
        claim.leased_at = Instant::now();
        Ok(())
    }

    /// The clock was set forward by so much since leases were given: they end so much later. Setting it
    /// back is noticed by itself.
    pub fn lengthen(&self, by: Duration) {
        self.inner.shared.table().lengthen(length(by));
    }

    /// Ends a claim: new recipient states, the attempt for the record with its evidence, and messages
    /// born of it (bounce, delay warning), all in one durable step (invariant I2). `Settlement::warn_delay`
    /// marks the delay warning as sent.
    ///
    /// A lease that ran out still settles as long as nobody claimed the item again.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when the claim is outdated: nothing was changed. Otherwise as
    /// [`Queue::enqueue`]; the claim stays valid and may be settled again.
    pub async fn settle(
        &self,
        claim: Claim,
        settlement: &Settlement,
        attempt: impl Into<Tried>,
        born: Vec<NewMessage>,
    ) -> Result<(), QueueError> {
        let id = claim.item.id;
        let Tried { record, evidence } = attempt.into();
        self.inner.shared.refusal()?;
        let mut draft = Draft::vital();
        let change = record::settled(&claim.item, settlement, record);
        let mut messages = Draft::vital();
        for message in &born {
            if let Err(error) = self.draft_message(&mut messages, message).await {
                self.discard(&born, &error).await;
                return Err(error);
            }
        }
        // Nothing may be waited for between here and the hand-over to the journal.
        let (slot, full) = {
            let mut table = self.inner.shared.table();
            (table.begin_settle(id, claim.fence), matches!(table.health, Health::Full(_)))
        };
        let result = match slot {
            None => Err(QueueError::Fenced(id)),
            Some(slot) => {
                // Deleted while the attempt ran: what it delivered is delivered, the rest is gone.
                draft.push(if slot.is(DOOMED) { Change::Done(id) } else { change }, None);
                // The room kept for a full disk is for recording deliveries.
                if let Some(evidence) = evidence.as_ref().filter(|_| !full) {
                    draft.push_evidence(render_draft(evidence).into());
                }
                draft.append(messages);
                self.inner.journal.commit(draft).await
            }
        };
        if let Err(error) = &result {
            self.discard(&born, error).await;
        }
        result
    }

    /// Gives a claim back without an attempt (shutdown, no permit): due again at `at`. Not durable:
    /// after a restart the item is due as it was before.
    ///
    /// # Errors
    /// [`QueueError::Fenced`].
    pub async fn unclaim(&self, claim: Claim, at: Timestamp) -> Result<(), QueueError> {
        let shared = &self.inner.shared;
        let mut table = shared.table();
        let due = table.next_due();
        // Due a fraction of a microsecond early it would be claimed and given back until `at` comes.
        if !table.unclaim(claim.item.id, claim.fence, micros_up(at)) {
            return Err(QueueError::Fenced(claim.item.id));
        }
        if table.next_due().is_some_and(|now| due.is_none_or(|before| now < before)) {
            shared.wake.notify_one();
        }
        Ok(())
    }

    /// Gives a claim back because its destination cannot take more now: [`Queue::claim_due`] leaves
    /// that destination out until [`Queue::claim_parked`] has taken all of its due items. Costs
    /// nothing however many of them wait. Not durable.
    ///
    /// # Errors
    /// [`QueueError::Fenced`].
    pub async fn park(&self, claim: Claim) -> Result<(), QueueError> {
        let id = claim.item.id;
        let parked = self.inner.shared.table().park(id, claim.fence);
        parked.then_some(()).ok_or(QueueError::Fenced(id))
    }

    /// The content of a message.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], or [`QueueError::Storage`] when it cannot be read.
    pub async fn body(&self, id: QueueId) -> Result<Body, QueueError> {
        let shared = &self.inner.shared;
        let fresh = shared.table().fresh(id).and_then(|fresh| fresh.body.clone());
        match fresh {
            Some(bytes) => Ok(Body::Memory(bytes)),
            None => shared.reading(move |shared| read::body(shared, id)).await,
        }
    }

    /// When the next item is due, or a lease over, if any waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        let table = self.inner.shared.table();
        let stopped = matches!(table.health, Health::Failed(_)) || table.closed;
        table.next_due().filter(|_| !stopped).map(timestamp)
    }

    /// Resolves when something became due earlier than was known, e.g. by `enqueue` or `retry`; for
    /// one waiter.
    pub async fn wakeup(&self) {
        self.inner.shared.wake.notified().await;
    }

    /// Totals.
    pub fn stats(&self) -> Stats {
        let table = self.inner.shared.table();
        let [active, deferred, held] = table.counts();
        let oldest_by_state = table.oldest().map(|oldest| oldest.map(timestamp));
        Stats {
            active,
            deferred,
            held,
            bytes: table.segments.bytes() + table.file_bytes,
            oldest: oldest_by_state.into_iter().flatten().min(),
            oldest_by_state,
            destinations: table.destinations.top(DESTINATIONS_MAX),
        }
    }

    /// Whether messages can be accepted.
    pub fn health(&self) -> Health {
        self.health_for(0)
    }

    /// Flushes, marks the store CLEAN and ends its loops. Later calls fail.
    pub async fn close(&self) {
        let Some(Running { writer, keeper, ask, lock }) = self.inner.begin_stop() else { return };
        let written = writer.ended().await.is_some();
        drop(ask);
        let indexed = keeper.ended().await.unwrap_or(false);
        let sound = !matches!(self.inner.shared.table().health, Health::Failed(_));
        self.inner.shared.wake.notify_one();
        let inner = Arc::clone(&self.inner);
        let closing = blocking(move || {
            if written && indexed && sound {
                open::write_marker(&inner.shared, &inner.boot, true)?;
            }
            // Now others may open it.
            drop(lock);
            Ok(())
        });
        if let Err(error) = closing.await {
            tracing::warn!(%error, "the queue could not be marked as closed; the next start reads the journal");
        }
    }

    /// Waits for one round of the keeper.
    #[cfg(test)]
    pub(super) fn housekeeping(&self) {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        if let Some(running) = self.inner.running.lock().unwrap().as_ref() {
            running.ask.send(answer).unwrap();
        }
        let _ = answered.recv();
    }

    /// Whether a new message may be tried.
    fn accepting(&self) -> Result<(), QueueError> {
        self.inner.shared.refusal()?;
        match &self.inner.shared.table().health {
            Health::Full(text) => Err(QueueError::Full(text.clone())),
            Health::ReadOnly(text) => Err(QueueError::ReadOnly(text.clone())),
            Health::Fine | Health::Low(_) | Health::Failed(_) => Ok(()),
        }
    }

    /// Adds a message to a frame; a large content is durable first.
    async fn draft_message(&self, draft: &mut Draft, message: &NewMessage) -> Result<(), QueueError> {
        let known = self.inner.shared.table().parts(message.id).next().is_some();
        if message.envelope.recipients.is_empty() || known {
            let id = message.id;
            return Err(QueueError::Storage(format!("message {id} has no recipients or is queued already")));
        }
        let inline = match &message.body {
            Body::Memory(bytes) if bytes.len() <= BODY_MEMORY_BYTES => Some(bytes.clone()),
            _ => None,
        };
        if inline.is_none() {
            let (shared, id, content) = (Arc::clone(&self.inner.shared), message.id, message.body.clone());
            blocking(move || body::keep(&shared, id, &content)).await?;
        }
        draft.push(Change::Enqueue(Arc::new(Message::new(message, inline.is_none()))), inline);
        Ok(())
    }

    /// Removes the files of messages that were refused.
    async fn discard(&self, messages: &[NewMessage], error: &QueueError) {
        let shared = Arc::clone(&self.inner.shared);
        // After a failed sync the record may be on disk all the same: the next start decides.
        let undecided = matches!(error, QueueError::Storage(_)) && shared.refusal().is_err();
        let file = |message: &NewMessage| match &message.body {
            Body::Memory(bytes) if bytes.len() <= BODY_MEMORY_BYTES => None,
            Body::Memory(_) => Some((message.id, None)),
            Body::File { path, .. } => {
                let ours = path.parent() == Some(shared.spool_dir().as_path());
                Some((message.id, ours.then(|| path.clone())))
            }
        };
        let files: Vec<_> = messages.iter().filter_map(file).collect();
        if files.is_empty() || undecided {
            return;
        }
        let _ = blocking(move || {
            for (id, spooled) in files {
                if shared.table().parts(id).next().is_none() {
                    let _ = shared.disk.remove(&shared.body_path(id));
                }
                let _ = spooled.map(|path| shared.disk.remove(&path));
            }
            Ok(())
        })
        .await;
    }
}

impl Inner {
    /// Takes nothing more; whoever gets the loops ends them and lets others in.
    fn begin_stop(&self) -> Option<Running> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.shared.table().closed = true;
        self.journal.close();
        Some(running)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without `close` the next start replays.
        let Some(Running { writer, keeper, ask, lock }) = self.begin_stop() else { return };
        writer.join();
        drop(ask);
        keeper.join();
        drop(lock);
    }
}

/// Why nothing may be delivered: what became of it could not be recorded.
fn unrecordable(table: &Table) -> Result<(), QueueError> {
    match &table.health {
        Health::Full(text) if table.starved => Err(QueueError::Full(text.clone())),
        Health::ReadOnly(text) => Err(QueueError::ReadOnly(text.clone())),
        Health::Fine | Health::Low(_) | Health::Full(_) | Health::Failed(_) => Ok(()),
    }
}

fn read_claims(shared: &Shared, leased: Vec<Leased>, now: Timestamp) -> Vec<(i64, QueueItem, u64)> {
    let mut read = Vec::with_capacity(leased.len());
    for Leased { id, fence, slot, .. } in leased {
        match read::item(shared, id) {
            Ok(Some(item)) => read.push((slot.due, item, fence)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(queue_id = %id, %error, "a queued message cannot be read; tried again later");
                let at = micros(now).saturating_add(UNREADABLE_WAIT_MICROS);
                shared.table().unclaim(id, fence, at);
            }
        }
    }
    read
}
