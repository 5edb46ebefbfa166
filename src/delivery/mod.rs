//! Story 2, mail out: takes due items from the queue, tries each, settles what came of it.
//!
//! [`run`] is the only place that spawns deliveries. Concurrency is bounded in all and per
//! destination; items of a busy destination wait here up to a bound and then in the queue until that
//! destination has room, so that one destination never holds the claims of all others. Never settles without the bounce that a
//! failure calls for (invariant I2).
//! See also: [`attempt`] (one item), [`gather`] (facts), [`judge`] (consequences).

pub mod attempt;
pub mod conversation;
pub mod explain;
pub mod gather;
pub mod judge;
mod known;
mod notice;
pub mod pool;
pub mod tally;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

use self::conversation::Conversation;
use self::gather::Gather;
use self::pool::Pool;
use self::turns::{Offered, Places, Turns};
use crate::mail::{Destination, Domain};
use crate::net::World;
use crate::queue::{QueueItem, RetryOptions, Settled, Settlement};
use crate::smtp::client::Timeouts;
use crate::store::{Claim, Queue, QueueError, Results};
use crate::tlspolicy::{DaneWithSts, Override};
use crate::tlsrpt::SessionResult;

/// How mail goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Our name in EHLO and in notices.
    pub hostname: Domain,
    /// `delivery.smtp_port`; 25 but for tests.
    pub smtp_port: u16,
    /// Attempts at a time. Default 500.
    pub concurrency: usize,
    /// Attempts at a time to one recipient domain. Default 20.
    pub concurrency_per_destination: usize,
    /// Schedule, lifetime, delay warning.
    pub retry: RetryOptions,
    /// Time limits (RFC 5321 §4.5.3.2).
    pub timeouts: Timeouts,
    /// How long open connections are kept.
    pub pool: pool::Options,
    /// `policy.dane_with_sts`
    pub dane_with_sts: DaneWithSts,
    /// `[[policy.override]]`
    pub overrides: Vec<Override>,
}

/// Claims taken at once.
const CLAIM_BATCH: usize = 100;
/// A claim is ours for this long; lengthened while an attempt runs.
const LEASE: Duration = Duration::from_secs(900);
/// When a running attempt lengthens its lease.
const EXTEND_EVERY: Duration = Duration::from_secs(300);
/// Rounds of claims before the ends of attempts are heard again.
const FILL_ROUNDS: usize = 20;
/// The shortest wait for an item that is due, so that one which cannot be claimed costs little.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// After a store error, before trying again.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// How often idle connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What every attempt needs.
pub struct Delivery {
    world: World,
    gather: Gather,
    queue: Queue,
    results: Results,
    pool: Pool,
    options: watch::Receiver<Arc<Options>>,
    closing: TaskTracker,
}

impl Delivery {
    /// A delivery engine over its doors; see [`run`].
    pub fn new(
        world: World,
        gather: Gather,
        queue: Queue,
        results: Results,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        Self { world, gather, queue, results, pool: Pool::default(), options, closing: TaskTracker::new() }
    }

    fn places(&self) -> Places {
        let options = self.options.borrow();
        Places { all: options.concurrency, per_destination: options.concurrency_per_destination }
    }

    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// I8: counting never waits and never fails a delivery.
    fn record_results(&self, results: Vec<SessionResult>) {
        let now = self.now();
        for result in results {
            self.results.record(now, result);
        }
    }

    /// Says QUIT in the background.
    fn close(&self, conversation: Conversation) {
        self.closing.spawn(conversation.quit());
    }

    /// Tries a claim and settles it. A result that cannot be written is kept and written as soon as
    /// that is possible again, so that nobody gets a message twice because a disk was full; only when
    /// `shutdown` comes first, the item is tried again.
    async fn deliver(&self, mut claim: Claim, shutdown: &CancellationToken) {
        // It may have waited long for its destination's turn.
        if let Err(error) = self.queue.extend(&mut claim, self.now(), LEASE).await {
            debug!(%error, "claim lost while waiting");
            return;
        }
        let item = claim.item.clone();
        let started = self.now();
        let attempted = {
            let attempt = self.attempt(&item);
            tokio::pin!(attempt);
            let mut extend = interval(EXTEND_EVERY);
            extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
            extend.tick().await;
            loop {
                tokio::select! {
                    attempted = &mut attempt => break attempted,
                    _ = extend.tick() => {
                        if let Err(error) = self.queue.extend(&mut claim, self.now(), LEASE).await {
                            warn!(%error, "lease not lengthened");
                        }
                    }
                }
            }
        };
        let now = self.now();
        let options = self.options.borrow().clone();
        let judged_at = judged_at(&item, started, now, &options.retry);
        let settlement = item.settle(&attempted.outcomes, judged_at, &options.retry, rand::random());
        let born = self.notices(&item, &attempted, &settlement, now).await;
        log_settled(&settlement, &attempted, born.len());
        let mut told = false;
        loop {
            let settled =
                self.queue.settle(claim.clone(), &settlement, attempted.record.clone(), born.clone()).await;
            match settled {
                Ok(()) if told => info!("attempt recorded after all"),
                Ok(()) => {}
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
                next_attempt = tracing::field::display(at)
            );
        }
    }
}

/// Delivers until `shutdown` is cancelled, then lets running attempts end; the caller bounds that.
pub async fn run(delivery: Delivery, shutdown: CancellationToken) {
    let delivery = Arc::new(delivery);
    let tracker = TaskTracker::new();
    let (ended, mut endings) = mpsc::unbounded_channel::<Destination>();
    let mut turns = Turns::default();
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let spawn = |claim: Claim| {
        let (delivery, shutdown) = (delivery.clone(), shutdown.clone());
        let turn = Turn { destination: claim.item.destination.clone(), ended: ended.clone() };
        let span = info_span!(
            "attempt",
            queue_id = %claim.item.id,
            domain = %claim.item.destination,
            attempt = claim.item.attempts + 1,
        );
        tracker.spawn(
            async move {
                // Given back also when the attempt panics; the lease then brings the item back.
                let _turn = turn;
                delivery.deliver(claim, &shutdown).await;
            }
            .instrument(span),
        );
    };
    let mut parked_first = false;
    while !shutdown.is_cancelled() {
        let places = delivery.places();
        while let Some(claim) = turns.next(places) {
            spawn(claim);
        }
        // In turn, so that neither what was parked nor what becomes due takes all the room.
        parked_first = !parked_first;
        let filled = async {
            if parked_first {
                fill_parked(&delivery, &mut turns, places, &spawn).await?;
                fill(&delivery, &mut turns, places, &spawn).await
            } else {
                let pause = fill(&delivery, &mut turns, places, &spawn).await?;
                fill_parked(&delivery, &mut turns, places, &spawn).await?;
                Ok(pause)
            }
        };
        let pause = match filled.await {
            Ok(pause) => pause,
            Err(error) => {
                error!(%error, "queue not readable");
                Some(STORE_PAUSE)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            ending = endings.recv() => {
                let mut next = ending;
                while let Some(destination) = next {
                    turns.ended(&destination);
                    next = endings.try_recv().ok();
                }
            }
            () = delivery.queue.wakeup() => {}
            () = sleep(pause.unwrap_or(SWEEP_EVERY)) => {}
            _ = sweep.tick() => {
                for conversation in delivery.pool.expired(&delivery.options.borrow().pool.clone()) {
                    delivery.close(conversation);
                }
            }
        }
    }
    let now = delivery.now();
    for claim in turns.into_waiting() {
        give_back(&delivery, claim, now).await;
    }
    tracker.close();
    if !tracker.is_empty() {
        info!(running = tracker.len(), "waiting for running deliveries");
    }
    tracker.wait().await;
    for conversation in delivery.pool.all() {
        delivery.close(conversation);
    }
    delivery.closing.close();
    delivery.closing.wait().await;
}

/// Claims what is due while there is room; returns how long to wait for the next item.
async fn fill(
    delivery: &Delivery,
    turns: &mut Turns<Claim>,
    places: Places,
    spawn: &impl Fn(Claim),
) -> Result<Option<Duration>, QueueError> {
    for _ in 0..FILL_ROUNDS {
        let room = turns.room(places).min(CLAIM_BATCH);
        if room == 0 {
            return Ok(None);
        }
        let now = delivery.now();
        let claims = delivery.queue.claim_due(now, room, LEASE).await?;
        if claims.is_empty() {
            let next = delivery.queue.next_due();
            return Ok(
                next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default().max(PAUSE_MIN))
            );
        }
        for claim in claims {
            offer(delivery, turns, claim, places, spawn).await;
        }
    }
    Ok(Some(PAUSE_MIN))
}

/// Claims for the destinations that were full and have room again.
async fn fill_parked(
    delivery: &Delivery,
    turns: &mut Turns<Claim>,
    places: Places,
    spawn: &impl Fn(Claim),
) -> Result<(), QueueError> {
    for (destination, wanted) in turns.hungry(places) {
        let room = turns.room(places).min(wanted);
        if room == 0 {
            return Ok(());
        }
        let (claims, parked) = delivery.queue.claim_parked(&destination, delivery.now(), room, LEASE).await?;
        if !parked {
            turns.unpark(&destination);
        }
        for claim in claims {
            offer(delivery, turns, claim, places, spawn).await;
        }
    }
    Ok(())
}

async fn offer(
    delivery: &Delivery,
    turns: &mut Turns<Claim>,
    claim: Claim,
    places: Places,
    spawn: &impl Fn(Claim),
) {
    let destination = claim.item.destination.clone();
    match turns.offer(&destination, claim, places) {
        Offered::Start(claim) => spawn(claim),
        Offered::Waits => {}
        Offered::Full(claim) => {
            debug!(queue_id = %claim.item.id, domain = %destination, "destination busy");
            if let Err(error) = delivery.queue.park(claim).await {
                warn!(%error, "claim not given back; it becomes due when its lease ends");
            }
        }
    }
}

async fn give_back(delivery: &Delivery, claim: Claim, at: Timestamp) {
    if let Err(error) = delivery.queue.unclaim(claim, at).await {
        warn!(%error, "claim not given back; it becomes due when its lease ends");
    }
}

/// Says that an attempt ended, however it ended.
struct Turn {
    destination: Destination,
    ended: mpsc::UnboundedSender<Destination>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The receiver is gone only while shutting down.
        let _ = self.ended.send(self.destination.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{BodyType, Destination, Envelope, ReversePath, TlsRequest};

    #[test]
    fn only_an_attempt_that_began_after_the_lifetime_is_judged_as_the_last() {
        let retry = RetryOptions::default();
        let received_at = Timestamp::from_second(1_800_000_000).unwrap();
        let item = QueueItem {
            id: "1-00000001.0".parse().unwrap(),
            destination: Destination::Domain(Domain::parse("example.org").unwrap()),
            envelope: Arc::new(Envelope {
                reverse_path: ReversePath::parse("<>").unwrap(),
                recipients: Vec::new(),
                body: BodyType::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
                tls: TlsRequest::None,
            }),
            recipients: Vec::new(),
            received_at,
            size: 0,
            attempts: 0,
            delay_warned: false,
            is_report: false,
            expires_at: None,
            history: Vec::new(),
        };
        let end = item.expires_at(&retry);
        let minute = SignedDuration::from_mins(1);
        let late = judged_at(&item, end - minute, end + minute, &retry);
        assert!(!item.is_expired(late, &retry) && late > end - minute);
        assert_eq!(judged_at(&item, end, end + minute, &retry), end + minute);
        assert_eq!(judged_at(&item, received_at, received_at + minute, &retry), received_at + minute);
    }
}
