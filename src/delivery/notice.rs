//! Which notices an attempt calls for: bounces, delay warnings, `relayed` notices (RFC 3461 §5.2).
//!
//! Composing is `dsn`'s; here is who gets one, and how it becomes a message of the queue. Never about
//! a null reverse-path (invariant I3) and never about report mail (RFC 8460 §5.5: dropped silently).
//! Called by `delivery::run` between an attempt and its settling.

use jiff::Timestamp;
use tracing::warn;

use super::Delivery;
use super::attempt::Attempted;
use crate::dsn::{self, Notice, NoticeFacts};
use crate::mail::{Outcome, Ret};
use crate::queue::{QueueItem, RecipientState, Settlement};
use crate::store::{Body, NewMessage, QueueError};

/// Octets of a message returned in full at most; of larger ones only the header comes back.
const RETURN_BYTES_MAX: usize = 50 * 1024;

impl Delivery {
    /// The messages born of this attempt.
    ///
    /// # Errors
    /// [`QueueError`] when the original cannot be read: the caller settles nothing then, so that no
    /// failure goes untold (invariant I2).
    pub async fn notices(
        &self,
        item: &QueueItem,
        attempted: &Attempted,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Result<Vec<NewMessage>, QueueError> {
        if item.is_report || item.envelope.reverse_path.is_null() {
            if !settlement.newly_failed.is_empty() {
                let what = if item.is_report { "report" } else { "message with null reverse-path" };
                warn!(recipients = settlement.newly_failed.len(), "{what} failed; nobody is told");
            }
            return Ok(Vec::new());
        }
        let groups = [failed(item, settlement), delayed(self, item, settlement), relayed(item, attempted)];
        let mut born = Vec::new();
        for recipients in groups {
            if let Some(message) = self.notice(item, recipients, now).await? {
                born.push(message);
            }
        }
        Ok(born)
    }

    async fn notice(
        &self,
        item: &QueueItem,
        recipients: Vec<(usize, Notice)>,
        now: Timestamp,
    ) -> Result<Option<NewMessage>, QueueError> {
        if recipients.is_empty() {
            return Ok(None);
        }
        let body = self.queue.body(item.id.queue_id).await?;
        let original = body.head(RETURN_BYTES_MAX).await?;
        let options = self.options.borrow().clone();
        let facts = NoticeFacts {
            hostname: &options.hostname,
            envelope: &item.envelope,
            queue_id: item.id.queue_id.to_string(),
            received_at: item.received_at,
            now,
            recipients,
            original: &original,
            complete: body.len() <= RETURN_BYTES_MAX as u64 && item.envelope.ret != Some(Ret::Headers),
            random: rand::random(),
        };
        let Some(composed) = dsn::compose(&facts) else { return Ok(None) };
        Ok(Some(NewMessage {
            id: self.queue.allocate_id(),
            envelope: composed.envelope,
            body: Body::Memory(composed.content.into()),
            received_at: now,
            is_report: false,
            expires_at: None,
        }))
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

fn delayed(delivery: &Delivery, item: &QueueItem, settlement: &Settlement) -> Vec<(usize, Notice)> {
    if !settlement.warn_delay {
        return Vec::new();
    }
    let will_retry_until = item.expires_at(&delivery.options.borrow().retry);
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
