//! What the journal's operations say, as JSON: messages, item states, marks, ends.
//!
//! Pure. Unknown keys are ignored and new ones must be optional, so that an older journal stays
//! readable; what an older stsrelay must not misread raises `format::JOURNAL`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::{Kind, Op};
use super::notions::NewMessage;
use crate::mail::{Destination, Envelope};
use crate::queue::item::ATTEMPTS_KEPT;
use crate::queue::{
    AttemptRecord, ItemId, QueueId, QueueItem, RecipientState, RecipientStatus, Settled, Settlement,
};

/// A message as enqueued, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub id: QueueId,
    pub envelope: Arc<Envelope>,
    pub received_at: Timestamp,
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_report: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    pub size: u64,
    /// The content is a file of its own, not the next operation.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_file: bool,
    /// One per destination; a copy made by compaction names only those still in the queue.
    pub parts: Vec<Part>,
}

/// One destination's share of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub part: u32,
    /// Positions in the envelope's recipients; never empty.
    pub recipients: Vec<u32>,
}

/// An item after an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub item: ItemId,
    pub recipients: Vec<RecipientStatus>,
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub delay_warned: bool,
    pub history: Vec<AttemptRecord>,
    /// Due at.
    pub due: Timestamp,
    /// When that was decided.
    pub since: Timestamp,
}

/// An operator's decision on an item; replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub item: ItemId,
    #[serde(default, skip_serializing_if = "is_false")]
    pub held: bool,
    /// To be removed as soon as no attempt runs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub doomed: bool,
    pub due: Timestamp,
    pub since: Timestamp,
}

/// One change of the queue, as applied to the table when it is durable, and when it is replayed.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Enqueue(Arc<Message>),
    State(State),
    Mark(Mark),
    Done(ItemId),
    Reserve(u64),
}

fn is_false(value: &bool) -> bool {
    !*value
}

impl Change {
    /// The operation that says this.
    pub(super) fn op(&self) -> Op {
        match self {
            Self::Enqueue(message) => json(Kind::Enqueue, message.as_ref()),
            Self::State(state) => json(Kind::State, state),
            Self::Mark(mark) => json(Kind::Mark, mark),
            Self::Done(item) => json(Kind::Done, item),
            Self::Reserve(below) => json(Kind::Reserve, below),
        }
    }

    /// Reads an operation; `Ok(None)` for a body or evidence, which change nothing by themselves.
    pub(super) fn parse(kind: Kind, bytes: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
            serde_json::from_slice(bytes)
        }
        Ok(Some(match kind {
            Kind::Body | Kind::Evidence => return Ok(None),
            Kind::Enqueue => Self::Enqueue(Arc::new(read(bytes)?)),
            Kind::State => Self::State(read(bytes)?),
            Kind::Mark => Self::Mark(read(bytes)?),
            Kind::Done => Self::Done(read(bytes)?),
            Kind::Reserve => Self::Reserve(read(bytes)?),
        }))
    }

    /// The item whose lease a failure to write this must give back.
    pub(super) fn leased_item(&self) -> Option<ItemId> {
        match self {
            Self::State(state) => Some(state.item),
            Self::Done(item) => Some(*item),
            _ => None,
        }
    }
}

fn json<T: Serialize>(kind: Kind, value: &T) -> Op {
    let bytes = serde_json::to_vec(value).expect("these types have only string keys and no failing parts");
    Op::new(kind, Bytes::from(bytes))
}

impl Message {
    /// Groups the recipients by destination, in order of first appearance.
    pub(super) fn new(message: &NewMessage, in_file: bool) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut known: HashMap<&Destination, usize> = HashMap::new();
        for (index, recipient) in message.envelope.recipients.iter().enumerate() {
            let at = *known.entry(recipient.path.domain()).or_insert(parts.len());
            if at == parts.len() {
                parts.push(Part { part: at as u32, recipients: Vec::new() });
            }
            parts[at].recipients.push(index as u32);
        }
        Self {
            id: message.id,
            envelope: Arc::new(message.envelope.clone()),
            received_at: message.received_at,
            is_report: message.is_report,
            expires_at: message.expires_at,
            size: message.body.len(),
            in_file,
            parts,
        }
    }

    /// Where a part goes; `None` when the record contradicts itself.
    pub(super) fn destination(&self, part: &Part) -> Option<&Destination> {
        let first = *part.recipients.first()?;
        Some(self.envelope.recipients.get(first as usize)?.path.domain())
    }

    /// The item as claimed or listed; `None` when the message has no such part.
    pub(super) fn item(&self, number: u32, state: Option<State>) -> Option<QueueItem> {
        let part = self.parts.iter().find(|part| part.part == number)?;
        let destination = self.destination(part)?.clone();
        let fresh = || {
            let pending = |index: &u32| RecipientStatus {
                index: *index as usize,
                state: RecipientState::Pending(None),
            };
            part.recipients.iter().map(pending).collect()
        };
        let (recipients, attempts, delay_warned, history) = match state {
            Some(state) => (state.recipients, state.attempts, state.delay_warned, state.history),
            None => (fresh(), 0, false, Vec::new()),
        };
        Some(QueueItem {
            id: ItemId { queue_id: self.id, part: number },
            destination,
            envelope: Arc::clone(&self.envelope),
            recipients,
            received_at: self.received_at,
            size: self.size,
            attempts,
            delay_warned,
            is_report: self.is_report,
            expires_at: self.expires_at,
            history,
        })
    }
}

/// What settling leaves of an item.
pub(super) fn settled(item: &QueueItem, settlement: &Settlement, attempt: AttemptRecord) -> Change {
    let due = match settlement.settled {
        Settled::Done => return Change::Done(item.id),
        Settled::Again(at) => at,
    };
    let since = attempt.at;
    let mut history = item.history.clone();
    history.push(attempt);
    let surplus = history.len().saturating_sub(ATTEMPTS_KEPT);
    history.drain(..surplus);
    Change::State(State {
        item: item.id,
        recipients: settlement.recipients.clone(),
        attempts: item.attempts.saturating_add(1),
        delay_warned: item.delay_warned || settlement.warn_delay,
        history,
        due,
        since,
    })
}
