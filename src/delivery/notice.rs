//! Which notices an attempt calls for: bounces, delay warnings, `relayed` notices (RFC 3461 §5.2).
//!
//! Composing is `dsn`'s; here is who gets one, and how it becomes a message of the queue. Never about
//! a null reverse-path (invariant I3) and never about report mail (RFC 8460 §5.5: dropped silently).
//! Called by `delivery::run` between an attempt and its settling.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, warn};

use super::attempt::Attempted;
use super::{Delivery, Options};
use crate::dsn::{self, Notice, NoticeFacts};
use crate::mail::{Outcome, Ret};
use crate::net::World;
use crate::queue::{QueueItem, RecipientState, Settlement};
use crate::store::{Body, NewMessage, Queue, QueueError};

/// Octets of a message returned in full at most; of larger ones only the header comes back.
const RETURN_BYTES_MAX: usize = 50 * 1024;

/// What composing a notice needs.
pub(super) struct Notifier<'a> {
    pub(super) world: &'a World,
    pub(super) queue: &'a Queue,
    pub(super) options: &'a watch::Receiver<Arc<Options>>,
}

impl Delivery {
    /// The messages born of this attempt.
    pub async fn notices(
        &self,
        item: &QueueItem,
        attempted: &Attempted,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Vec<NewMessage> {
        let notifier = Notifier { world: &self.world, queue: &self.queue, options: &self.options };
        notifier.notices(item, attempted, settlement, now).await
    }
}

impl Notifier<'_> {
    /// The messages born of this attempt.
    pub(super) async fn notices(
        &self,
        item: &QueueItem,
        attempted: &Attempted,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Vec<NewMessage> {
        if item.is_report || item.envelope.reverse_path.is_null() {
            if !settlement.newly_failed.is_empty() {
                let what = if item.is_report { "report" } else { "message with null reverse-path" };
                warn!(recipients = settlement.newly_failed.len(), "{what} failed; nobody is told");
            }
            return Vec::new();
        }
        let groups = [failed(item, settlement), delayed(self, item, settlement), relayed(item, attempted)];
        let mut born = Vec::new();
        for recipients in groups {
            born.extend(self.notice(item, recipients, now).await);
        }
        born
    }

    async fn notice(
        &self,
        item: &QueueItem,
        recipients: Vec<(usize, Notice)>,
        now: Timestamp,
    ) -> Option<NewMessage> {
        if recipients.is_empty() {
            return None;
        }
        let (original, len) = self.original(item).await;
        let options = self.options.borrow().clone();
        let facts = NoticeFacts {
            hostname: &options.hostname,
            envelope: &item.envelope,
            queue_id: item.id.queue_id.to_string(),
            received_at: item.received_at,
            now,
            recipients,
            original: &original,
            complete: len <= RETURN_BYTES_MAX as u64 && item.envelope.ret != Some(Ret::Headers),
            random: self.world.random.number(),
        };
        let composed = dsn::compose(&facts)?;
        Some(NewMessage {
            id: self.queue.allocate_id(),
            envelope: composed.envelope,
            body: Body::Memory(composed.content.into()),
            received_at: now,
            is_report: false,
            expires_at: None,
        })
    }

    /// The start of the message, and its length. A message that cannot be read any more must still be
    /// bounced (invariant I2): then nothing comes back, and the notice says so.
    async fn original(&self, item: &QueueItem) -> (Bytes, u64) {
        let read = async {
            let body = self.queue.body(item.id.queue_id).await?;
            Ok::<_, QueueError>((body.head(RETURN_BYTES_MAX).await?, body.len()))
        };
        read.await.unwrap_or_else(|error| {
            error!(%error, "message not readable; its notice goes without it");
            (Bytes::new(), 0)
        })
    }
}

fn failed(item: &QueueItem, settlement: &Settlement) -> Vec<(usize, Notice)> {
    settlement
        .recipients
        .iter()
        .filter(|status| settlement.newly_failed.contains(&status.index))
        .filter(|status| item.envelope.recipients.get(status.index).is_some_and(|r| r.wants_failure()))
        .filter_map(|status| match &status.state {
            RecipientState::Failed(failure) => Some((status.index, Notice::Failed(failure.clone()))),
            _ => None,
        })
        .collect()
}

fn delayed(notifier: &Notifier<'_>, item: &QueueItem, settlement: &Settlement) -> Vec<(usize, Notice)> {
    if !settlement.warn_delay {
        return Vec::new();
    }
    let will_retry_until = item.expires_at(&notifier.options.borrow().retry);
    settlement
        .recipients
        .iter()
        .filter(|status| item.envelope.recipients.get(status.index).is_some_and(|r| r.wants_delay()))
        .filter_map(|status| match &status.state {
            RecipientState::Pending(Some(failure)) => {
                Some((status.index, Notice::Delayed { failure: failure.clone(), will_retry_until }))
            }
            _ => None,
        })
        .collect()
}

fn relayed(item: &QueueItem, attempted: &Attempted) -> Vec<(usize, Notice)> {
    attempted
        .outcomes
        .iter()
        .filter(|(index, _)| attempted.relayed.contains(index))
        .filter(|(index, _)| item.envelope.recipients.get(*index).is_some_and(|r| r.wants_success()))
        .filter_map(|(index, outcome)| match outcome {
            Outcome::Delivered(reply) => Some((*index, Notice::Relayed(reply.clone()))),
            _ => None,
        })
        .collect()
}
