//! One claim: the attempt, its lease, and what came of it written down.
//!
//! Never lets an item go without the bounce that a failure calls for (invariant I2), and never judges
//! an attempt as the last that did not begin as one. Called by `run`, in a task per claim.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::evidence::{self, Trail};
use super::frozen::Frozen;
use super::run::Turn;
use super::traffic::Held;
use super::{Delivery, attempt};
use crate::mail::Outcome;
use crate::queue::{QueueItem, RetryOptions, Settled, Settlement};
use crate::store::{Claim, QueueError, Tried};

/// A claim is ours for this long; lengthened while an attempt runs.
pub(super) const LEASE: Duration = Duration::from_secs(900);
/// When a running attempt lengthens its lease.
const EXTEND_EVERY: Duration = Duration::from_secs(300);
/// After a store error, before trying again.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(5);

impl Delivery {
    /// Tries a claim and settles it. A result that cannot be written is kept and written as soon as
    /// that is possible again, so that nobody gets a message twice because a disk was full; only when
    /// `shutdown` comes first, the item is tried again.
    pub(super) async fn deliver(&self, mut claim: Claim, turn: &Turn, shutdown: &CancellationToken) {
        // It may have waited long for its destination's turn; so long that it is not ours any more, which a
        // clock that was set back must not hide.
        if claim.leased_at.elapsed() > EXTEND_EVERY
            && let Err(error) = self.queue.extend(&mut claim, self.now(), LEASE).await
        {
            debug!(%error, "claim lost while waiting");
            return;
        }
        let item = claim.item.clone();
        let started = self.now();
        let mut attempted = match self.frozen(&item, started) {
            // Since it got its place.
            Some(Frozen::Waits(until)) => {
                debug!(%until, "the destination is frozen");
                if let Err(error) = self.queue.unclaim(claim, until).await {
                    warn!(%error, "claim not given back; it becomes due when its lease ends");
                }
                return;
            }
            Some(Frozen::Told(failure)) => {
                let options = Arc::clone(&self.options.borrow());
                let trail = Trail::of(&self.queue, &item, &options.evidence).await;
                let mut told = attempt::not_tried(&item, Vec::new(), started, failure, trail);
                "frozen".clone_into(&mut told.record.rule);
                told
            }
            None => self.attempted(&item, &mut claim, turn).await,
        };
        let now = self.now();
        turn.hears(attempted.signal);
        let options = self.options.borrow().clone();
        if let Some(held) = attempted.held.clone() {
            info!(reason = %held.text, "not tried now");
            self.traffic.hold(&item.destination, held.clone(), now);
            if now < item.settled_by(&options.retry) {
                // Who was decided without a host does not wait for one.
                attempted.outcomes.retain(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
                if attempted.outcomes.is_empty() {
                    if held.brief {
                        turn.parks();
                    }
                    return self.give_back(claim, &held).await;
                }
            }
        }
        let judged_at = judged_at(&item, started, now, &options.retry);
        let mut settlement =
            item.settle(&attempted.outcomes, judged_at, &options.retry, self.world.random.fraction());
        if let (Some(held), Settled::Again(at)) = (&attempted.held, &mut settlement.settled) {
            // The others were not tried, so they wait for their hosts and not by their schedule.
            *at = held.until.max(now).min(*at);
        }
        if let Some(cause) = &attempted.throttled {
            let jitter = self.world.random.fraction();
            let until = self.traffic.throttled(&item.destination, cause, (started, now), jitter);
            if let Settled::Again(at) = &mut settlement.settled {
                // It goes on when its destination does, instead of the next step of its schedule.
                *at = until.min(*at);
            }
        }
        let born = self.notices(&item, &attempted, &settlement, now).await;
        log_settled(&settlement, &attempted, born.len());
        self.count_settled(&item, &settlement, &attempted, born.len(), now);
        let evidence = evidence::draft(&item, &mut attempted, &settlement, &options.evidence, now);
        let tried = Tried { record: attempted.record, evidence };
        let mut told = false;
        loop {
            let settled = self.queue.settle(claim.clone(), &settlement, tried.clone(), born.clone()).await;
            match settled {
                Ok(()) => {
                    if told {
                        info!("attempt recorded after all");
                    }
                    self.learn(&item, &settlement).await;
                    self.reported(&item, &settlement, &tried.record.result);
                }
                Err(error @ QueueError::Fenced(_)) => {
                    warn!(%error, "attempt came too late; its result is dropped");
                }
                Err(error) => {
                    if !told {
                        error!(%error, "attempt not recorded yet; it is kept until it can be");
                        told = true;
                    }
                    // A lease that is no longer ours shows at the next round.
                    let _ = self.queue.extend(&mut claim, self.now(), LEASE).await;
                    tokio::select! {
                        // Rather one more try than a message twice.
                        biased;
                        () = sleep(STORE_PAUSE) => continue,
                        () = shutdown.cancelled() => {
                            // I9: delivered but not recorded: it will be sent again, and the log says so.
                            error!("attempt not recorded; delivered recipients may get the message twice");
                        }
                    }
                }
            }
            return;
        }
    }

    fn count_settled(
        &self,
        item: &QueueItem,
        settlement: &Settlement,
        attempted: &attempt::Attempted,
        notices: usize,
        now: Timestamp,
    ) {
        let (delivered, failed) = (settlement.newly_delivered.len(), settlement.newly_failed.len());
        let outcome = match settlement.settled {
            Settled::Done if failed == 0 => "delivered",
            Settled::Done => "failed",
            Settled::Again(_) => "deferred",
        };
        self.metrics.attempt(outcome, &attempted.record.rule);
        self.metrics.recipients("delivered", delivered as u64);
        self.metrics.recipients("failed", failed as u64);
        self.metrics.notices(if failed > 0 { "bounce" } else { "other" }, notices as u64);
        if delivered > 0 {
            let age = now.duration_since(item.received_at);
            self.metrics.delivered_after(Duration::try_from(age).unwrap_or_default());
        }
    }

    /// The attempt, its lease lengthened meanwhile.
    async fn attempted(&self, item: &QueueItem, claim: &mut Claim, turn: &Turn) -> attempt::Attempted {
        let attempt = self.attempt(item, turn);
        tokio::pin!(attempt);
        let mut extend = interval(EXTEND_EVERY);
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        extend.tick().await;
        loop {
            tokio::select! {
                // An attempt that has ended needs no longer lease.
                biased;
                attempted = &mut attempt => break attempted,
                _ = extend.tick() => {
                    if let Err(error) = self.queue.extend(claim, self.now(), LEASE).await {
                        warn!(%error, "lease not lengthened");
                    }
                }
            }
        }
    }

    /// Ends a claim that was not tried, without an attempt of its schedule spent: due again when a host
    /// may be tried, or when its sender is to hear of it; and parked while that is being found out.
    pub(super) async fn give_back(&self, claim: Claim, held: &Held) {
        let given = if held.brief {
            self.queue.park(claim).await
        } else {
            let by = claim.item.settled_by(&self.options.borrow().retry);
            self.queue.unclaim(claim, held.until.min(by)).await
        };
        if let Err(error) = given {
            warn!(%error, "claim not given back; it becomes due when its lease ends");
        }
    }
}

/// The instant an attempt is judged by. RFC 8461 §5.1: only an attempt that began when the lifetime was
/// over looked the policy up afresh, so only such a one may be the last.
fn judged_at(item: &QueueItem, started: Timestamp, now: Timestamp, retry: &RetryOptions) -> Timestamp {
    if item.is_expired(started, retry) { now } else { now.min(before(item.expires_at(retry))) }
}

fn before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_millis(1)).unwrap_or(at)
}

/// The one line per attempt that operators read: where, how, what was proven, which rule, what next.
fn log_settled(settlement: &Settlement, attempted: &attempt::Attempted, notices: usize) {
    let record = &attempted.record;
    let delivered = settlement.newly_delivered.len();
    let failed = settlement.newly_failed.len();
    macro_rules! line {
        ($level:ident, $what:literal $(, $name:ident = $value:expr)*) => {
            $level!(
                host = record.host.as_deref().unwrap_or("-"),
                address = record.address.map(tracing::field::display),
                tls = record.tls.as_deref().unwrap_or("-"),
                verified = record.verified.as_deref().unwrap_or("-"),
                rule = record.rule,
                delivered,
                $($name = $value,)*
                result = record.result,
                $what
            )
        };
    }
    match settlement.settled {
        Settled::Done if failed == 0 => line!(info, "delivered"),
        Settled::Done => line!(warn, "failed", failed = failed, notices = notices),
        Settled::Again(at) => {
            line!(
                warn,
                "deferred",
                failed = failed,
                notices = notices,
                // To the second, as elsewhere.
                next_attempt = tracing::field::display(format_args!("{at:.0}"))
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::fixture::item;

    #[test]
    fn only_an_attempt_that_began_after_the_lifetime_is_judged_as_the_last() {
        let retry = RetryOptions::default();
        let received_at = Timestamp::from_second(1_800_000_000).unwrap();
        let item = item("<>", 0, received_at);
        let end = item.expires_at(&retry);
        let minute = SignedDuration::from_mins(1);
        let late = judged_at(&item, end - minute, end + minute, &retry);
        assert!(!item.is_expired(late, &retry) && late > end - minute);
        assert_eq!(judged_at(&item, end, end + minute, &retry), end + minute);
        assert_eq!(judged_at(&item, received_at, received_at + minute, &retry), received_at + minute);
    }
}
