//! Story 2, mail out: takes due items from the queue, tries each, settles what came of it.
//!
//! [`run`] is the only place that spawns deliveries. Concurrency is bounded in all and per
//! destination; items of a busy destination wait here up to a bound and then go back to the queue, so
//! that one destination never holds the claims of all others. Never settles without the bounce that a
//! failure calls for (invariant I2).
//! See also: [`attempt`] (one item), [`gather`] (facts), [`judge`] (consequences).

pub mod attempt;
pub mod conversation;
pub mod explain;
pub mod gather;
pub mod judge;
mod notice;
pub mod pool;
pub mod tally;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

use self::conversation::Conversation;
use self::gather::Gather;
use self::pool::Pool;
use crate::mail::{Destination, Domain};
use crate::net::World;
use crate::queue::{RetryOptions, Settled, Settlement, retry};
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
/// Claims that may wait for their destination's turn, per destination.
const BACKLOG_PER_DESTINATION: usize = 40;
/// Claims that may wait in all, as a multiple of the concurrency.
const BACKLOG_FACTOR: usize = 2;
/// How long an item of a busy destination goes back to the queue.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
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

    /// Tries a claim and settles it; on a store error the lease runs out and the item is due again.
    async fn deliver(&self, mut claim: Claim) {
        // It may have waited long for its destination's turn.
        if let Err(error) = self.queue.extend(&mut claim, self.now(), LEASE).await {
            debug!(%error, "claim lost while waiting");
            return;
        }
        let item = claim.item.clone();
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
        let settlement = item.settle(&attempted.outcomes, now, &options.retry, rand::random());
        let born = match self.notices(&item, &attempted, &settlement, now).await {
            Ok(born) => born,
            Err(error) => {
                error!(%error, "notice not composed; the item stays as it was");
                return;
            }
        };
        log_settled(&settlement, &attempted, born.len());
        if let Err(error) = self.queue.settle(claim, &settlement, attempted.record, born).await {
            match error {
                QueueError::Fenced(_) => warn!(%error, "attempt came too late; its result is dropped"),
                // I9: delivered but not recorded: it will be sent again, and the log says so.
                _ => error!(%error, "attempt not recorded; delivered recipients may get the message twice"),
            }
        }
    }
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

/// Claims being worked on or waiting for their destination's turn.
#[derive(Default)]
struct Turns {
    running: HashMap<Destination, usize>,
    running_total: usize,
    waiting: HashMap<Destination, VecDeque<Claim>>,
    waiting_total: usize,
}

impl Turns {
    /// Takes the claim up, keeps it waiting, or gives it back when there is no room.
    fn offer(&mut self, claim: Claim, options: &Options) -> Result<Option<Claim>, Box<Claim>> {
        let destination = &claim.item.destination;
        let running = self.running.get(destination).copied().unwrap_or(0);
        if running < options.concurrency_per_destination && self.running_total < options.concurrency {
            self.start(destination.clone());
            return Ok(Some(claim));
        }
        let waiting = self.waiting.get(destination).map_or(0, VecDeque::len);
        if waiting >= BACKLOG_PER_DESTINATION || self.waiting_total >= options.concurrency * BACKLOG_FACTOR {
            return Err(Box::new(claim));
        }
        self.waiting_total += 1;
        self.waiting.entry(destination.clone()).or_default().push_back(claim);
        Ok(None)
    }

    fn start(&mut self, destination: Destination) {
        *self.running.entry(destination).or_default() += 1;
        self.running_total += 1;
    }

    /// One attempt to `destination` ended; the next one waiting for it may start.
    fn ended(&mut self, destination: &Destination) -> Option<Claim> {
        self.running_total = self.running_total.saturating_sub(1);
        if let Some(running) = self.running.get_mut(destination) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(destination);
            }
        }
        let waiting = self.waiting.get_mut(destination)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(destination);
        }
        if next.is_some() {
            self.waiting_total -= 1;
            self.start(destination.clone());
        }
        next
    }

    fn room(&self, options: &Options) -> usize {
        let all = options.concurrency + options.concurrency * BACKLOG_FACTOR;
        all.saturating_sub(self.running_total + self.waiting_total)
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
        let delivery = delivery.clone();
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
                delivery.deliver(claim).await;
            }
            .instrument(span),
        );
    };
    while !shutdown.is_cancelled() {
        let options = delivery.options.borrow().clone();
        let pause = match fill(&delivery, &mut turns, &options, &spawn).await {
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
                    if let Some(claim) = turns.ended(&destination) {
                        spawn(claim);
                    }
                    next = endings.try_recv().ok();
                }
            }
            () = delivery.queue.wakeup() => {}
            () = sleep(pause.unwrap_or(SWEEP_EVERY)) => {}
            _ = sweep.tick() => {
                for conversation in delivery.pool.expired() {
                    delivery.close(conversation);
                }
            }
        }
    }
    let now = delivery.now();
    for claim in turns.waiting.into_values().flatten() {
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
    delivery: &Arc<Delivery>,
    turns: &mut Turns,
    options: &Options,
    spawn: &impl Fn(Claim),
) -> Result<Option<Duration>, QueueError> {
    loop {
        let room = turns.room(options).min(CLAIM_BATCH);
        if room == 0 {
            return Ok(None);
        }
        let now = delivery.now();
        let claims = delivery.queue.claim_due(now, room, LEASE).await?;
        if claims.is_empty() {
            let wait = delivery.queue.next_due().map(|at| at.duration_since(now));
            // An item due now but not claimed (leased, racing) is looked at again shortly.
            return Ok(wait.map(|wait| wait.unsigned_abs().max(Duration::from_millis(10))));
        }
        for claim in claims {
            match turns.offer(claim, options) {
                Ok(Some(claim)) => spawn(claim),
                Ok(None) => {}
                Err(claim) => {
                    debug!(queue_id = %claim.item.id, domain = %claim.item.destination, "destination busy");
                    give_back(delivery, *claim, retry::after(now, BUSY_PAUSE)).await;
                }
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
