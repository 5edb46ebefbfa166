//! What deliveries learn of the targets of TLS reports: report mail that arrived, and that did not.
//!
//! Report mail is dropped without a notice (RFC 8460 §5.5), so this is the one place that hears of its
//! end. Never waits and never fails a delivery (invariant I8). Called by `settle`.

use super::Delivery;
use crate::queue::{QueueItem, RecipientState, RetryOptions, Settlement};
use crate::store::targets::{Refusal, Targets};
use crate::tlsrpt::Rua;

impl Delivery {
    /// Tells these what becomes of report mail.
    pub fn with_report_targets(mut self, targets: Targets) -> Self {
        self.report_targets = Some(targets);
        self
    }

    /// Learns from an attempt at report mail that is settled; `result` is what its record says.
    pub(super) fn reported(&self, item: &QueueItem, settlement: &Settlement, result: &str) {
        let Some(targets) = self.report_targets.as_ref().filter(|_| item.is_report) else { return };
        let (now, id) = (self.now(), item.id.queue_id);
        let key = |index: usize| {
            let recipient = item.envelope.recipients.get(index)?;
            Some(Rua::Mailto(recipient.path.clone()).key())
        };
        for target in settlement.newly_delivered.iter().filter_map(|index| key(*index)) {
            targets.mail_ended(id, true, result, now);
            targets.succeeded(&target);
        }
        for status in &settlement.recipients {
            let RecipientState::Failed(failure) = &status.state else { continue };
            if !settlement.newly_failed.contains(&status.index) {
                continue;
            }
            let text = failure.sentence();
            targets.mail_ended(id, false, &text, now);
            let options = self.options.borrow().clone();
            if let Some(target) = key(status.index) {
                targets.failed(&target, refusal(item, now, &options.retry), &text, now);
            }
        }
    }
}

/// A mail that fails before its time is over was refused.
fn refusal(item: &QueueItem, now: jiff::Timestamp, retry: &RetryOptions) -> Refusal {
    if item.is_expired(now, retry) { Refusal::Expired } else { Refusal::Permanent }
}
