//! Gives items up at an operator's word, with the bounce that a failure calls for (invariant I2).
//!
//! Never bounces a null reverse-path (invariant I3) and tells nobody of report mail: `notice` sees to
//! both. Items in an attempt are left to it. Called by `admin`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{Instrument as _, info, info_span};

use super::Options;
use super::attempt::Attempted;
use super::evidence::{self, Trail};
use super::notice::Notifier;
use super::pace::Signal;
use crate::mail::{EnhancedStatus, Failure, Outcome, Permanence, Scope};
use crate::net::World;
use crate::queue::{AttemptRecord, ItemId};
use crate::store::{Claim, Queue, QueueError, Tried};

/// Items composed and written at a time: they share the journal's syncs.
const AT_A_TIME: usize = 64;
/// Long enough for a step; short, so that what a failing disk left over is soon tried again.
const LEASE: Duration = Duration::from_secs(60);

/// Gives items up. Cheap to clone.
#[derive(Clone)]
pub struct GiveUp {
    /// Clock and chance.
    pub world: World,
    /// Whose items.
    pub queue: Queue,
    /// Our name and the lifetime.
    pub options: watch::Receiver<Arc<Options>>,
}

/// What became of the items named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Left the queue, their senders told where one is to be told.
    pub done: u64,
    /// In an attempt, or not readable; they stay.
    pub left: u64,
}

impl GiveUp {
    /// Gives these items up now; `reason` is told to the senders.
    ///
    /// # Errors
    /// [`QueueError`]; items before the error are done.
    pub async fn give_up(&self, ids: &[ItemId], reason: Option<&str>) -> Result<GivenUp, QueueError> {
        let now = self.world.clock.now();
        let claims = self.queue.claim_items(ids, now, LEASE).await?;
        let mut given = GivenUp { done: 0, left: (ids.len() - claims.len()) as u64 };
        let mut trouble = None;
        let mut endings =
            stream::iter(claims).map(|claim| self.end(claim, reason, now)).buffer_unordered(AT_A_TIME);
        while let Some(ended) = endings.next().await {
            match ended {
                Ok(()) => given.done += 1,
                Err(QueueError::Fenced(_)) => given.left += 1,
                // The others may be written already: what became of each is waited for.
                Err(error) => trouble = Some(error),
            }
        }
        trouble.map_or(Ok(given), Err)
    }

    async fn end(&self, claim: Claim, reason: Option<&str>, now: Timestamp) -> Result<(), QueueError> {
        let item = claim.item.clone();
        let span = info_span!("give up", queue_id = %item.id, domain = %item.destination);
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("given up by the operator of this relay{why}");
        // RFC 3463 X.0.0: no code is nearer to what happened.
        let failure = Failure {
            scope: Scope::Message,
            permanence: Permanence::Permanent,
            status: EnhancedStatus::new(5, 0, 0),
            text: text.clone(),
            host: None,
            reply: None,
            rule: None,
        };
        let outcomes = item.pending().map(|(index, _)| (index, Outcome::Failed(failure.clone()))).collect();
        let record = AttemptRecord {
            at: now,
            host: None,
            address: None,
            tls: None,
            verified: None,
            rule: "operator".to_owned(),
            result: text,
        };
        let options = Arc::clone(&self.options.borrow());
        let mut attempted = Attempted {
            outcomes,
            relayed: Vec::new(),
            record,
            signal: Signal::None,
            throttled: None,
            held: None,
            trail: Trail::of(&self.queue, &item, &options.evidence).await,
        };
        let settlement = item.settle(&attempted.outcomes, now, &options.retry, 0.5);
        async {
            let notifier = Notifier { world: &self.world, queue: &self.queue, options: &self.options };
            let born = notifier.notices(&item, &attempted, &settlement, now).await;
            let notices = born.len();
            let claimed = claim.clone();
            let evidence = evidence::draft(&item, &mut attempted, &settlement, &options.evidence, now);
            let tried = Tried { record: attempted.record, evidence };
            let settled = self.queue.settle(claimed, &settlement, tried, born).await;
            match &settled {
                Ok(()) => info!(notices, reason, "given up by an operator"),
                // Due as before, or at the end of this short lease.
                Err(_) => drop(self.queue.unclaim(claim, now).await),
            }
            settled
        }
        .instrument(span)
        .await
    }
}
