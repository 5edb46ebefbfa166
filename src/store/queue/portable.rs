//! Messages on their way to another store: what of them travels, taking them out, taking them in.
//!
//! Nothing here decides what was moved already: `moves` remembers that. What is taken in is held, so
//! that it cannot leave before that is remembered.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::body::{self, BODY_MEMORY_BYTES, Body};
use super::super::journal::Draft;
use super::super::notions::QueueError;
use super::super::read;
use super::super::record::{Change, Mark, Message, Part, State};
use super::super::shared::blocking;
use super::super::table::{DOOMED, HELD, timestamp};
use super::Queue;
use crate::mail::Envelope;
use crate::queue::{AttemptRecord, ItemId, QueueId, RecipientState, RecipientStatus};

/// A message, or some of its items, as it moves between stores; the content travels beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portable {
    /// The store it comes from, see [`Queue::identity`].
    pub store: String,
    /// Its queue id there.
    pub id: QueueId,
    /// With all recipients, those of other items too.
    pub envelope: Envelope,
    /// When it was accepted; its lifetime counts from here.
    pub received_at: Timestamp,
    /// See [`QueueItem::expires_at`](crate::queue::QueueItem::expires_at).
    pub expires_at: Option<Timestamp>,
    /// See [`QueueItem::is_report`](crate::queue::QueueItem::is_report).
    pub is_report: bool,
    /// Octets of the content.
    pub size: u64,
    /// The items that move; never empty.
    pub items: Vec<PortableItem>,
}

/// An item as it moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortableItem {
    /// Its number within the message.
    pub part: u32,
    /// How it stands with each of its recipients.
    pub recipients: Vec<RecipientStatus>,
    /// Attempts so far.
    pub attempts: u32,
    /// The sender was told of the delay.
    pub delay_warned: bool,
    /// Held by an operator, not only for the move.
    pub held: bool,
    /// When it is tried next.
    pub due: Timestamp,
    /// The latest attempts.
    pub history: Vec<AttemptRecord>,
}

impl Portable {
    /// What is wrong with it, whoever wrote it.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        if self.items.is_empty() || self.envelope.recipients.is_empty() {
            return Err(format!("message {} has no items or no recipients", self.id));
        }
        for item in &self.items {
            let mut destinations = BTreeSet::new();
            for status in &item.recipients {
                let recipient = self.envelope.recipients.get(status.index);
                let recipient = recipient.ok_or_else(|| {
                    format!("message {} has a recipient {} that its envelope lacks", self.id, status.index)
                })?;
                if !seen.insert(status.index) {
                    return Err(format!("message {} has recipient {} twice", self.id, status.index));
                }
                destinations.insert(recipient.path.domain().to_string());
            }
            if destinations.len() != 1 {
                return Err(format!("item {}.{} has not one destination", self.id, item.part));
            }
        }
        let parts: BTreeSet<u32> = self.items.iter().map(|item| item.part).collect();
        if parts.len() < self.items.len() {
            return Err(format!("message {} has an item twice", self.id));
        }
        Ok(())
    }
}

/// What [`Queue::portable`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// It may travel.
    Ready(Box<Portable>),
    /// An attempt runs: ask again.
    Busy,
    /// None of it is in the queue any more.
    Gone,
}

impl Queue {
    /// A name of this store that no other has. Tells nothing of what protects its records.
    pub fn identity(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"stsrelay store ");
        context.update(&self.inner.shared.nonce);
        context.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether an item is in the queue.
    pub fn has(&self, item: ItemId) -> bool {
        self.inner.shared.table().slot(item).is_some_and(|slot| !slot.is(DOOMED))
    }

    /// These items of a message as they travel. They must be held, or they may be delivered at any
    /// instant after.
    ///
    /// # Errors
    /// [`QueueError::Storage`] when a record cannot be read.
    pub async fn portable(&self, id: QueueId, parts: Vec<u32>) -> Result<Export, QueueError> {
        let (shared, store) = (Arc::clone(&self.inner.shared), self.identity());
        blocking(move || {
            let (mut items, mut message) = (Vec::new(), None);
            for part in parts {
                let item = ItemId { queue_id: id, part };
                let slot = {
                    let table = shared.table();
                    if table.is_leased(item) {
                        return Ok(Export::Busy);
                    }
                    table.slot(item).filter(|slot| !slot.is(DOOMED))
                };
                let Some(slot) = slot else { continue };
                let Some(read) = read::item(&shared, item)? else { continue };
                items.push(PortableItem {
                    part,
                    recipients: read.recipients.clone(),
                    attempts: read.attempts,
                    delay_warned: read.delay_warned,
                    held: slot.is(HELD),
                    due: timestamp(slot.due),
                    history: read.history.clone(),
                });
                message = Some(read);
            }
            let Some(read) = message else { return Ok(Export::Gone) };
            Ok(Export::Ready(Box::new(Portable {
                store,
                id,
                envelope: read.envelope.as_ref().clone(),
                received_at: read.received_at,
                expires_at: read.expires_at,
                is_report: read.is_report,
                size: read.size,
                items,
            })))
        })
        .await
    }

    /// Queues a message from elsewhere under `id`, with all that is known of it; every item is held
    /// until [`Queue::let_go`]. One durable step.
    ///
    /// # Errors
    /// As [`Queue::enqueue`]; then nothing of it is kept.
    pub async fn take_in(
        &self,
        portable: &Portable,
        id: QueueId,
        body: Body,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        self.accepting()?;
        portable.check().map_err(QueueError::Storage)?;
        let inline = match &body {
            Body::Memory(bytes) if bytes.len() <= BODY_MEMORY_BYTES => Some(bytes.clone()),
            _ => None,
        };
        let part = |item: &PortableItem| Part {
            part: item.part,
            recipients: item.recipients.iter().map(|status| status.index as u32).collect(),
        };
        let message = Message {
            id,
            envelope: Arc::new(portable.envelope.clone()),
            received_at: portable.received_at,
            is_report: portable.is_report,
            expires_at: portable.expires_at,
            size: body.len(),
            in_file: inline.is_none(),
            parts: portable.items.iter().map(part).collect(),
        };
        if inline.is_none() {
            let (shared, content) = (Arc::clone(&self.inner.shared), body.clone());
            blocking(move || body::keep(&shared, id, &content)).await?;
        }
        let mut draft = Draft::default();
        draft.push(Change::Enqueue(Arc::new(message)), inline.clone());
        for item in &portable.items {
            let of = ItemId { queue_id: id, part: item.part };
            let untouched = |status: &RecipientStatus| matches!(status.state, RecipientState::Pending(None));
            if item.attempts > 0 || !item.recipients.iter().all(untouched) {
                let state = State {
                    item: of,
                    recipients: item.recipients.clone(),
                    attempts: item.attempts,
                    delay_warned: item.delay_warned,
                    history: item.history.clone(),
                    due: item.due,
                    since: now,
                };
                draft.push(Change::State(state), None);
            }
            let mark = Mark { item: of, held: true, doomed: false, due: item.due, since: now };
            draft.push(Change::Mark(mark), None);
        }
        let result = self.inner.journal.commit(draft).await;
        if result.is_err() && inline.is_none() && self.inner.shared.refusal().is_ok() {
            let shared = Arc::clone(&self.inner.shared);
            let _ = blocking(move || Ok(shared.disk.remove(&shared.body_path(id)))).await;
        }
        result
    }

    /// Ends the hold of [`Queue::take_in`] for items that were not held where they came from.
    ///
    /// # Errors
    /// As [`Queue::enqueue`].
    pub async fn let_go(&self, items: &[(ItemId, PortableItem)], now: Timestamp) -> Result<(), QueueError> {
        let mut draft = Draft::vital();
        for (item, was) in items.iter().filter(|(item, was)| !was.held && self.has(*item)) {
            draft.push(
                Change::Mark(Mark { item: *item, held: false, doomed: false, due: was.due, since: now }),
                None,
            );
        }
        if draft.is_empty() { Ok(()) } else { self.inner.journal.commit(draft).await }
    }
}
