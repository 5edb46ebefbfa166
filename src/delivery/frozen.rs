//! What becomes of an item whose destination an operator has frozen: it waits, and its sender hears
//! of it as of any other delay.
//!
//! A freeze stops attempts and nothing else: the delay warning goes out in its hour, and at the end of
//! the item's lifetime it is given up. Decides by facts and `now`; called by `run` before an item gets
//! its place, and by `settle` before an attempt would begin.

use jiff::Timestamp;

use super::Delivery;
use crate::mail::{Destination, EnhancedStatus, Failure, Permanence, Scope};
use crate::queue::{QueueItem, RetryOptions};
use crate::store::Freeze;

/// What to do with the item.
#[derive(Debug, PartialEq)]
pub(super) enum Frozen {
    /// Nothing before this instant.
    Waits(Timestamp),
    /// Its sender is to be told: settle it with this failure.
    Told(Failure),
}

/// Decides for an item that is due.
pub(super) fn decide(item: &QueueItem, freeze: &Freeze, now: Timestamp, retry: &RetryOptions) -> Frozen {
    let by = item.settled_by(retry);
    if now >= by {
        return Frozen::Told(failure(&item.destination, freeze));
    }
    // Nothing looks at it before: a thaw makes it due (`Queue::thaw`).
    Frozen::Waits(freeze.until.map_or(by, |until| until.min(by)))
}

impl Delivery {
    /// What a freeze makes of an item that is due; nothing when there is none.
    pub(super) fn frozen(&self, item: &QueueItem, now: Timestamp) -> Option<Frozen> {
        let freeze = self.queue.frozen(&item.destination, now)?;
        Some(decide(item, &freeze, now, &self.options.borrow().retry))
    }
}

/// RFC 3463 X.3.0: our own side's doing, nothing the destination did.
/// What is told of mail to a frozen destination.
pub(super) fn failure(destination: &Destination, freeze: &Freeze) -> Failure {
    let why = freeze.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Failure {
        scope: Scope::Domain,
        permanence: Permanence::Transient,
        status: EnhancedStatus::new(4, 3, 0),
        text: format!("the operator of this relay has stopped deliveries to {destination}{why}"),
        host: None,
        reply: None,
        rule: None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::queue::fixture::item;

    #[test]
    fn an_item_waits_until_its_sender_must_be_told_or_the_freeze_may_be_over() {
        let received = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |minutes| received + SignedDuration::from_mins(minutes);
        let retry = RetryOptions::default();
        let destination = Destination::parse("example.org").unwrap();
        let freeze = |until| Freeze {
            destination: destination.clone(),
            reason: Some("moving house".into()),
            since: received,
            until,
        };
        let mail = item("<a@example.net>", 1, received);
        let warned = QueueItem { delay_warned: true, ..mail.clone() };
        let bounce = item("<>", 1, received);
        let (hour, day) = (60, 24 * 60);
        for (item, until, now, wanted) in [
            (&mail, None, 0, Some(4 * hour)),
            (&mail, Some(at(7)), 0, Some(7)),
            (&mail, None, 4 * hour - 1, Some(4 * hour)),
            (&mail, None, 4 * hour, None),
            (&mail, Some(at(9 * hour)), 0, Some(4 * hour)),
            (&warned, None, 4 * hour, Some(5 * day)),
            (&warned, Some(at(9 * hour)), 4 * hour, Some(9 * hour)),
            (&bounce, None, 5 * hour, Some(5 * day)),
            (&bounce, None, 5 * day - 3, Some(5 * day)),
            (&bounce, None, 5 * day, None),
            (&warned, None, 5 * day, None),
        ] {
            match (decide(item, &freeze(until), at(now), &retry), wanted) {
                (Frozen::Waits(next), Some(wanted)) => assert_eq!(next, at(wanted), "at minute {now}"),
                (Frozen::Told(failure), None) => assert!(failure.text.ends_with(": moving house")),
                (other, _) => panic!("at minute {now}: {other:?}"),
            }
        }
    }
}
