//! The suppression list as deliveries see it: what they learn for it, and whom they do not try.
//!
//! Counts only what a recipient's own mail system said of the address itself, never policy, content or
//! trouble. Mail from the null path and reports are neither counted nor held back: nobody could be
//! told. Called by `attempt` before the walk, and by `settle` after it.

use tracing::{error, info};

use super::Delivery;
use crate::mail::{EnhancedStatus, Failure, Mailbox, Outcome, Permanence, Scope};
use crate::queue::{QueueItem, RecipientState, Settlement};
use crate::store::suppressions::{SuppressionAnswer, Suppressions};

impl Delivery {
    /// Keeps and heeds this list, where the options say so.
    pub fn with_suppressions(mut self, suppressions: Suppressions) -> Self {
        self.suppressions = Some(suppressions);
        self
    }

    /// The recipients that are not tried, each with its failure.
    pub(super) fn suppressed(&self, item: &QueueItem) -> Vec<(usize, Outcome)> {
        let options = self.options.borrow().clone();
        let bounces =
            options.suppression.as_ref().is_some_and(|list| list.answer == SuppressionAnswer::Bounce);
        let Some(list) = self.suppressions.as_ref().filter(|_| bounces && concerns(item)) else {
            return Vec::new();
        };
        let now = self.now();
        item.pending()
            .filter_map(|(index, recipient)| {
                let entry = list.active(&recipient.path, now)?;
                Some((index, Outcome::Failed(suppressed_failure(entry.sentence()))))
            })
            .collect()
    }

    /// Learns from an attempt that is settled. Never fails a delivery: what cannot be written is told
    /// and stays in memory.
    pub(super) async fn learn(&self, item: &QueueItem, settlement: &Settlement) {
        let options = self.options.borrow().clone();
        let (Some(list), Some(options)) = (&self.suppressions, &options.suppression) else { return };
        if !concerns(item) {
            return;
        }
        let now = self.now();
        let address = |index: usize| item.envelope.recipients.get(index).map(|recipient| &recipient.path);
        for address in settlement.newly_delivered.iter().filter_map(|index| address(*index)) {
            match list.delivered(address, now).await {
                Ok(true) => info!(%address, "recipient exists: no longer counted for the suppression list"),
                Ok(false) => {}
                Err(error) => error!(%error, "the suppression list was not written"),
            }
        }
        for (address, reason) in hard_bounces(item, settlement) {
            match list.bounced(address, &reason, now, options).await {
                Ok(Some(entry)) => {
                    let until = format_args!("{:.0}", entry.until);
                    info!(%address, %until, bounces = entry.bounces, "recipient suppressed");
                }
                Ok(None) => {}
                Err(error) => error!(%error, "the suppression list was not written"),
            }
        }
    }
}

fn concerns(item: &QueueItem) -> bool {
    !item.is_report && !item.envelope.reverse_path.is_null()
}

/// The recipients that failed because their mail system knows no such address, with its words.
fn hard_bounces<'a>(item: &'a QueueItem, settlement: &'a Settlement) -> Vec<(&'a Mailbox, String)> {
    settlement
        .recipients
        .iter()
        .filter(|status| settlement.newly_failed.contains(&status.index))
        .filter_map(|status| {
            let RecipientState::Failed(failure) = &status.state else { return None };
            let recipient = item.envelope.recipients.get(status.index)?;
            let reply = failure.reply.as_ref().filter(|_| names_no_mailbox(failure))?;
            Some((&recipient.path, reply.to_string()))
        })
        .collect()
}

/// RFC 3463 §3.2: X.1.1 no such mailbox, X.1.6 moved away. Without such a code a refusal may be about
/// anything.
fn names_no_mailbox(failure: &Failure) -> bool {
    let permanent = failure.reply.as_ref().is_some_and(crate::mail::Reply::is_permanent);
    permanent && failure.status.subject == 1 && matches!(failure.status.detail, 1 | 6)
}

fn suppressed_failure(text: String) -> Failure {
    Failure {
        scope: Scope::Recipient,
        permanence: Permanence::Permanent,
        status: EnhancedStatus::new(5, 1, 1),
        text,
        host: None,
        reply: None,
        rule: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Reply;

    #[test]
    fn only_a_permanent_word_about_the_address_counts() {
        let said = |code: u16, subject, detail| {
            let status = EnhancedStatus::new((code / 100) as u8, subject, detail);
            Failure { status, reply: Some(Reply::new(code, status, "x")), ..suppressed_failure("x".into()) }
        };
        for (failure, counts) in [
            (said(550, 1, 1), true),
            (said(551, 1, 6), true),
            (said(550, 0, 0), false),
            (said(550, 7, 1), false),
            (said(552, 2, 2), false),
            (said(554, 6, 0), false),
            (said(450, 1, 1), false),
            // Our own words, such as of this list.
            (suppressed_failure("x".into()), false),
        ] {
            assert_eq!(names_no_mailbox(&failure), counts, "{failure:?}");
        }
    }
}
