//! One message for one destination: its recipients, their states, and how an attempt changes them.
//!
//! An item leaves the queue only when every recipient is delivered or failed (invariant I2).
//! Pure: `now` is given, randomness is given.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::retry::{RetryOptions, after};
use crate::mail::{Destination, EnhancedStatus, Envelope, Failure, Outcome, Permanence, Recipient, Reply};

/// A message's name in our queue: the node that took it and a number, never reused.
///
/// Text form: `node-number` in Crockford base 32, e.g. `1-00C5QF3A`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// The relay that accepted the message; 1 where nothing else is configured.
    pub node: u16,
    /// Ascending per node.
    pub sequence: u64,
}

/// An item of a message: the message's [`QueueId`] and the destination's number within it.
///
/// Text form: `1-00C5QF3A.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId {
    /// The message.
    pub queue_id: QueueId,
    /// 0 for the message's first destination.
    pub part: u32,
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn base32(mut number: u64, width: usize) -> String {
    let mut digits = Vec::with_capacity(13);
    while number > 0 || digits.len() < width {
        digits.push(CROCKFORD[(number % 32) as usize]);
        number /= 32;
    }
    digits.iter().rev().map(|&b| char::from(b)).collect()
}

fn unbase32(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 13 {
        return None;
    }
    text.bytes().try_fold(0u64, |number, b| {
        let digit = CROCKFORD.iter().position(|c| *c == b.to_ascii_uppercase())? as u64;
        number.checked_mul(32)?.checked_add(digit)
    })
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", base32(u64::from(self.node), 1), base32(self.sequence, 8))
    }
}

impl FromStr for QueueId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (node, sequence) = text.split_once('-').ok_or(())?;
        let node = unbase32(node).and_then(|node| u16::try_from(node).ok()).ok_or(())?;
        Ok(Self { node, sequence: unbase32(sequence).ok_or(())? })
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.queue_id, self.part)
    }
}

impl FromStr for ItemId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (queue_id, part) = text.split_once('.').ok_or(())?;
        Ok(Self { queue_id: queue_id.parse()?, part: part.parse().map_err(|_| ())? })
    }
}

macro_rules! serde_as_text {
    ($type:ty, $what:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|()| serde::de::Error::custom(concat!("not a ", $what)))
            }
        }
    };
}
serde_as_text!(QueueId, "queue id");
serde_as_text!(ItemId, "queue item id");

/// What a claim hands to delivery: one message × one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueItem {
    /// Its name.
    pub id: ItemId,
    /// Where all its recipients are.
    pub destination: Destination,
    /// The whole message's envelope, shared by its items.
    pub envelope: Arc<Envelope>,
    /// The recipients of this destination.
    pub recipients: Vec<RecipientStatus>,
    /// When the message was accepted.
    pub received_at: Timestamp,
    /// Octets of the stored message, our Received field included.
    pub size: u64,
    /// Attempts made so far.
    pub attempts: u32,
    /// The sender has been told of the delay.
    pub delay_warned: bool,
    /// Our own report mail: ignores policy failures and is not counted (RFC 8460 §3, §5).
    pub is_report: bool,
    /// Given up after this instant instead of after the configured lifetime; for report mail
    /// (RFC 8460 §5.5: 24 hours).
    pub expires_at: Option<Timestamp>,
    /// The latest attempts, oldest first, at most [`ATTEMPTS_KEPT`].
    pub history: Vec<AttemptRecord>,
}

/// Attempts remembered per item, for `queue show`.
pub const ATTEMPTS_KEPT: usize = 16;

/// One recipient of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientStatus {
    /// Position in [`Envelope::recipients`].
    pub index: usize,
    /// What became of it so far.
    pub state: RecipientState,
}

/// The state of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// Still to be delivered; with the last failure, if it was tried.
    Pending(Option<Failure>),
    /// The next hop has it.
    Delivered(Reply),
    /// Given up; its bounce, if one is due, is durable in the same step.
    Failed(Failure),
}

/// One attempt as remembered for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When it ended.
    pub at: Timestamp,
    /// The MX host reached last, if any.
    pub host: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// `TLSv1.3 TLS13_AES_256_GCM_SHA384`, absent without TLS.
    pub tls: Option<String>,
    /// What was verified: `pkix`, `dane`, `none`, ...
    pub verified: Option<String>,
    /// The rule that decided.
    pub rule: String,
    /// What happened, one sentence.
    pub result: String,
}

/// What settling an attempt does to the item; made by [`QueueItem::settle`], kept by `store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The item's recipients afterwards.
    pub recipients: Vec<RecipientStatus>,
    /// What follows.
    pub settled: Settled,
    /// Recipients (positions in [`Envelope::recipients`]) that failed in this step.
    pub newly_failed: Vec<usize>,
    /// Recipients delivered in this step.
    pub newly_delivered: Vec<usize>,
    /// A delay warning is due for the recipients still pending.
    pub warn_delay: bool,
}

/// What follows for the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Every recipient is delivered or failed: it leaves the queue.
    Done,
    /// Tried again at this instant.
    Again(Timestamp),
}

impl QueueItem {
    /// The recipients still to be delivered, with their positions in the envelope.
    pub fn pending(&self) -> impl Iterator<Item = (usize, &Recipient)> {
        self.recipients
            .iter()
            .filter(|status| matches!(status.state, RecipientState::Pending(_)))
            .filter_map(|status| Some((status.index, self.envelope.recipients.get(status.index)?)))
    }

    /// When this item is given up.
    pub fn expires_at(&self, options: &RetryOptions) -> Timestamp {
        self.expires_at.unwrap_or_else(|| options.expires_at(self.received_at))
    }

    /// Whether a transient failure now would be the last one.
    pub fn is_expired(&self, now: Timestamp, options: &RetryOptions) -> bool {
        now >= self.expires_at(options)
    }

    /// When the sender is to be told of the delay, if that is still to come.
    fn warned_at(&self, options: &RetryOptions) -> Option<Timestamp> {
        let told = self.delay_warned || self.is_report || self.envelope.reverse_path.is_null();
        (!told).then(|| after(self.received_at, options.delay_warning))
    }

    /// When this item has to be settled, whatever its hosts are waiting for: its sender is to be warned
    /// then, or it is given up.
    pub fn settled_by(&self, options: &RetryOptions) -> Timestamp {
        let end = self.expires_at(options);
        self.warned_at(options).map_or(end, |at| at.min(end))
    }

    /// Applies one attempt's outcomes, given by position in the envelope.
    ///
    /// A recipient without outcome stays as it was. Transient failures become permanent once the
    /// lifetime is over (5.4.7, RFC 3463; the cause stays in the text). `jitter` is in 0.0..1.0.
    pub fn settle(
        &self,
        outcomes: &[(usize, Outcome)],
        now: Timestamp,
        options: &RetryOptions,
        jitter: f64,
    ) -> Settlement {
        let expired = self.is_expired(now, options);
        let (mut newly_failed, mut newly_delivered) = (Vec::new(), Vec::new());
        let mut recipients = self.recipients.clone();
        for status in &mut recipients {
            let RecipientState::Pending(last) = &status.state else { continue };
            let outcome =
                outcomes.iter().find(|(index, _)| *index == status.index).map(|(_, outcome)| outcome);
            status.state = match outcome {
                Some(Outcome::Delivered(reply)) => RecipientState::Delivered(reply.clone()),
                Some(Outcome::Failed(failure)) => RecipientState::Failed(failure.clone()),
                Some(Outcome::Deferred(failure)) if expired => RecipientState::Failed(expire(failure)),
                Some(Outcome::Deferred(failure)) => RecipientState::Pending(Some(failure.clone())),
                None => RecipientState::Pending(last.clone()),
            };
            match status.state {
                RecipientState::Delivered(_) => newly_delivered.push(status.index),
                RecipientState::Failed(_) => newly_failed.push(status.index),
                RecipientState::Pending(_) => {}
            }
        }
        let pending = recipients.iter().any(|status| matches!(status.state, RecipientState::Pending(_)));
        let settled = if pending {
            let wait = options.wait(self.attempts.saturating_add(1), jitter);
            // Never later than the end of life, so that giving up is on time.
            let end = self.expires_at(options);
            let at = after(now, wait);
            Settled::Again(if now < end { at.min(end) } else { at })
        } else {
            Settled::Done
        };
        let warn_delay = pending && self.warned_at(options).is_some_and(|at| now >= at);
        Settlement { recipients, settled, newly_failed, newly_delivered, warn_delay }
    }
}

/// A transient failure at the end of the lifetime (RFC 3463 X.4.7: delivery time expired).
fn expire(failure: &Failure) -> Failure {
    Failure {
        permanence: Permanence::Permanent,
        status: if failure.rule.is_some() {
            failure.status.with_class(5)
        } else {
            EnhancedStatus::new(5, 4, 7)
        },
        text: format!("delivery time expired; last attempt: {}", failure.text),
        ..failure.clone()
    }
}

#[cfg(test)]
mod tests;
