//! The queue's part of the protocol: which items, what is done to them, how they are told of. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::status::health_text;
use crate::mail::{Destination, Failure, TlsRequest};
use crate::queue::{AttemptRecord, ItemId, QueueId, RecipientState};
use crate::store;

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActCursor {
    /// The last item looked at.
    pub after: Option<ItemId>,
    /// Messages from this one on were queued since the operation began.
    pub below: QueueId,
}

/// Which queue items; all conditions must hold. An empty filter is all items.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFilter {
    /// The items of this message.
    pub id: Option<QueueId>,
    /// This item.
    pub item: Option<ItemId>,
    /// Of this sender, without brackets; empty for the null sender.
    pub sender: Option<String>,
    /// To this domain or address literal.
    pub recipient_domain: Option<String>,
    /// Standing like this.
    pub state: Option<QueueState>,
    /// Received then or before.
    pub received_before: Option<Timestamp>,
    /// Received then or after.
    pub received_after: Option<Timestamp>,
    /// Whose last error has these words, in whatever case.
    pub error: Option<String>,
}

/// How an item may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueState {
    /// Waiting for its first attempt or in one.
    Active,
    /// Waiting for another attempt.
    Deferred,
    /// Stopped by an operator.
    Held,
    /// Of a frozen destination, whatever else.
    Frozen,
}

/// What can be done to queue items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueAction {
    /// Due now.
    Retry,
    /// Not tried until released.
    Hold,
    /// Undo a hold; due now.
    Release,
    /// Removed without a bounce.
    Delete,
    /// Given up now, with a bounce to the sender.
    Bounce,
}

/// How an operation on queue items went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActOutcome {
    /// The message or item that was named, if one was.
    pub id: Option<String>,
    /// What was done.
    pub action: QueueAction,
    /// Only counted.
    pub dry_run: bool,
    /// Items changed.
    pub count: u64,
    /// Items that stayed as they are, being in an attempt.
    pub left: u64,
    /// Why it ended early.
    pub trouble: Option<String>,
}

/// A queue item as listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its name.
    pub id: ItemId,
    /// `active`, `deferred` or `held`.
    pub state: EntryState,
    /// Reverse-path without brackets; empty for the null sender.
    pub sender: String,
    /// Where all its recipients are.
    pub destination: String,
    /// Its recipients.
    pub recipients: Vec<EntryRecipient>,
    /// When the message was accepted.
    pub received_at: Timestamp,
    /// Octets.
    pub size: u64,
    /// So far.
    pub attempts: u32,
    /// Absent when held.
    pub next_attempt: Option<Timestamp>,
    /// What its destination waits for beside the schedule, one sentence.
    #[serde(default)]
    pub waits: Option<String>,
    /// Our own report mail.
    pub is_report: bool,
    /// What the message itself asks of TLS (RFC 8689); absent when policies decide.
    #[serde(default)]
    pub asks: Option<TlsAsk>,
    /// Its destination is frozen.
    #[serde(default)]
    pub frozen: bool,
    /// The attempts asked for, oldest first: all kept ones, or the last one.
    pub history: Vec<AttemptRecord>,
}

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// Waiting for its first attempt or in one.
    Active,
    /// Waiting for another attempt.
    Deferred,
    /// Stopped by an operator.
    Held,
}

/// What a message asks of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsAsk {
    /// `REQUIRETLS` (RFC 8689 §4.2.1).
    Requiretls,
    /// `TLS-Required: No` (RFC 8689 §4.2.2).
    TlsRequiredNo,
}

/// One recipient of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryRecipient {
    /// Its mailbox.
    pub address: String,
    /// `pending`, `delivered` or `failed`.
    pub state: String,
    /// The last reply or failure.
    pub last: Option<String>,
}

impl QueueEntry {
    /// The listed form of an entry.
    pub fn new(entry: &store::Entry, whole_history: bool) -> Self {
        let item = &entry.item;
        let recipients = item
            .recipients
            .iter()
            .filter_map(|status| {
                let recipient = item.envelope.recipients.get(status.index)?;
                let (state, last) = match &status.state {
                    RecipientState::Pending(failure) => ("pending", failure.as_ref().map(Failure::sentence)),
                    RecipientState::Delivered(reply) => ("delivered", Some(reply.to_string())),
                    RecipientState::Failed(failure) => ("failed", Some(failure.sentence())),
                };
                Some(EntryRecipient { address: recipient.path.to_string(), state: state.to_owned(), last })
            })
            .collect();
        let skip = if whole_history { 0 } else { item.history.len().saturating_sub(1) };
        Self {
            id: item.id,
            state: match entry.state {
                store::EntryState::Active => EntryState::Active,
                store::EntryState::Deferred => EntryState::Deferred,
                store::EntryState::Held => EntryState::Held,
            },
            sender: item.envelope.reverse_path.mailbox().map(ToString::to_string).unwrap_or_default(),
            destination: item.destination.to_string(),
            recipients,
            received_at: item.received_at,
            size: item.size,
            attempts: item.attempts,
            next_attempt: entry.next_attempt,
            waits: None,
            is_report: item.is_report,
            asks: match item.envelope.tls {
                TlsRequest::None => None,
                TlsRequest::Required => Some(TlsAsk::Requiretls),
                TlsRequest::NotRequired => Some(TlsAsk::TlsRequiredNo),
            },
            frozen: false,
            history: item.history.iter().skip(skip).cloned().collect(),
        }
    }
}

/// Totals of the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueTotals {
    /// Items waiting for their first attempt or in one.
    pub active: u64,
    /// Items waiting for another attempt.
    pub deferred: u64,
    /// Items held.
    pub held: u64,
    /// Octets on disk.
    pub bytes: u64,
    /// When the oldest message was received.
    pub oldest: Option<Timestamp>,
    /// Items per destination, most first.
    pub destinations: Vec<DestinationTotal>,
    /// Items by age, the youngest first.
    #[serde(default)]
    pub ages: Vec<AgeTotal>,
    /// Destinations that have items, listed or not.
    pub destination_count: u64,
    /// Frozen destinations, by name.
    pub frozen: Vec<FrozenTotal>,
    /// `fine`, or why no message is accepted.
    pub health: String,
    /// `works`, or what is the matter with DNSSEC validation and so with DANE.
    #[serde(default)]
    pub dnssec: Option<String>,
}

/// Items of one age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeTotal {
    /// Younger than so many seconds, and not of the class before; absent for all that is older.
    pub below: Option<u32>,
    /// Items.
    pub items: u64,
}

/// Items of one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DestinationTotal {
    /// A domain or an address literal.
    pub destination: String,
    /// Items.
    pub items: u64,
    /// Those waiting for their first attempt or in one.
    pub active: u64,
    /// Those waiting for another attempt.
    pub deferred: u64,
    /// Those held.
    pub held: u64,
    /// When the oldest message was received.
    pub oldest: Timestamp,
}

/// A frozen destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrozenTotal {
    /// A domain or an address literal.
    pub destination: String,
    /// Items that wait.
    pub items: u64,
    /// When it was frozen.
    pub since: Timestamp,
    /// When that ends by itself.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

impl QueueTotals {
    /// The form for the socket.
    pub fn new(stats: &store::Stats, survey: &store::Survey, health: &store::Health, max: usize) -> Self {
        let items = by_name(survey);
        Self {
            active: stats.active,
            deferred: stats.deferred,
            held: stats.held,
            bytes: stats.bytes,
            oldest: stats.oldest,
            destinations: survey
                .destinations
                .iter()
                .take(max)
                .map(|total| DestinationTotal {
                    destination: total.destination.to_string(),
                    items: total.items(),
                    active: total.active,
                    deferred: total.deferred,
                    held: total.held,
                    oldest: total.oldest,
                })
                .collect(),
            ages: survey
                .ages
                .iter()
                .enumerate()
                .map(|(class, items)| AgeTotal {
                    below: store::AGE_CLASSES.get(class).copied(),
                    items: *items,
                })
                .collect(),
            destination_count: survey.destinations.len() as u64,
            frozen: survey
                .frozen
                .iter()
                .map(|freeze| FrozenTotal {
                    destination: freeze.destination.to_string(),
                    items: items.get(&freeze.destination).copied().unwrap_or(0),
                    since: freeze.since,
                    until: freeze.until,
                    reason: freeze.reason.clone(),
                })
                .collect(),
            health: health_text(health),
            dnssec: None,
        }
    }
}

/// Items by destination.
fn by_name(survey: &store::Survey) -> BTreeMap<&Destination, u64> {
    survey.destinations.iter().map(|total| (&total.destination, total.items())).collect()
}

impl TryFrom<&QueueFilter> for store::Filter {
    type Error = String;

    fn try_from(filter: &QueueFilter) -> Result<Self, String> {
        let recipient_domain = filter
            .recipient_domain
            .as_deref()
            .map(|text| Destination::parse(text).map_err(|error| format!("{text:?}: {error}")))
            .transpose()?;
        Ok(Self {
            id: filter.id,
            item: filter.item,
            sender: filter.sender.clone(),
            recipient_domain,
            received_before: filter.received_before,
            received_after: filter.received_after,
            error: filter.error.clone(),
            ..Self::default()
        })
    }
}
