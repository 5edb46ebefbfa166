//! The loop of story 2: claims due items, gives each its place, spawns its delivery.
//!
//! Concurrency is bounded in all and per destination; items of a busy destination wait here up to a
//! bound and then in the queue until that destination has room, so that one destination never holds
//! the claims of all others. Decides nothing about an item: that is `settle`'s. Called by the daemon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::Delivery;
use super::settle::{LEASE, STORE_PAUSE};
use super::traffic::Held;
use super::turns::{Offered, Turns};
use crate::mail::Destination;
use crate::store::{Claim, QueueError};

/// Claims taken at once.
const CLAIM_BATCH: usize = 100;
/// Rounds of claims before the ends of attempts are heard again.
const FILL_ROUNDS: usize = 20;
/// The shortest wait for an item that is due, so that one which cannot be claimed costs little.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The queue is looked at this often though nothing is known to be due: the clock may have been set.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often idle connections are looked through, when there are any.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Delivers until `shutdown` is cancelled, then lets running attempts end; the caller bounds that.
pub async fn run(delivery: Delivery, shutdown: CancellationToken) {
    let delivery = Arc::new(delivery);
    let (ended, mut endings) = mpsc::unbounded_channel::<Ending>();
    let mut engine = Engine {
        delivery: Arc::clone(&delivery),
        turns: Turns::default(),
        tracker: TaskTracker::new(),
        ended,
        shutdown: shutdown.clone(),
    };
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut parked_first = false;
    while !shutdown.is_cancelled() {
        let places = delivery.places();
        while let Some(claim) = engine.turns.next(places) {
            engine.start(claim).await;
        }
        // In turn, so that neither what was parked nor what becomes due takes all the room.
        parked_first = !parked_first;
        let pause = match engine.fill_both(parked_first).await {
            Ok(pause) => pause,
            Err(error) => {
                error!(%error, "queue not readable");
                Some(STORE_PAUSE)
            }
        };
        tokio::select! {
            // In this order, so that equal runs are equal: first what is rare, so that the busy branches
            // cannot keep it waiting, and ends before new work, so that there is room for it.
            biased;
            () = shutdown.cancelled() => break,
            _ = sweep.tick(), if !delivery.pool.is_empty() => {
                let options = delivery.options.borrow().clone();
                for conversation in delivery.pool.expired(&options.pool) {
                    delivery.close(conversation);
                }
            }
            ending = endings.recv() => {
                let mut next = ending;
                while let Some(ending) = next {
                    engine.hear(&ending);
                    next = endings.try_recv().ok();
                }
            }
            () = delivery.queue.wakeup() => {}
            () = delivery.traffic.changed() => {}
            () = sleep(pause.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) => {}
        }
    }
    engine.end().await;
}

/// What the loop works with.
struct Engine {
    delivery: Arc<Delivery>,
    turns: Turns<Claim>,
    tracker: TaskTracker,
    ended: mpsc::UnboundedSender<Ending>,
    shutdown: CancellationToken,
}

impl Engine {
    /// Starts a claim that has its place, unless its hosts are left alone by now.
    async fn start(&mut self, claim: Claim) {
        match self.held(&claim) {
            None => self.spawn(claim),
            Some(held) => {
                self.turns.ended(&claim.item.destination);
                self.set_aside(claim, &held).await;
            }
        }
    }

    /// Why a claim is not tried now, if it need not be settled all the same.
    fn held(&self, claim: &Claim) -> Option<Held> {
        let now = self.delivery.now();
        let held = self.delivery.traffic.held(&claim.item.destination, now)?;
        (now < claim.item.settled_by(&self.delivery.options.borrow().retry)).then_some(held)
    }

    async fn set_aside(&mut self, claim: Claim, held: &Held) {
        if held.probed {
            self.turns.park(&claim.item.destination);
        }
        self.delivery.give_back(claim, held).await;
    }

    fn spawn(&self, claim: Claim) {
        let (delivery, shutdown) = (self.delivery.clone(), self.shutdown.clone());
        let turn = Turn {
            destination: claim.item.destination.clone(),
            parks: AtomicBool::new(false),
            ended: self.ended.clone(),
        };
        let span = info_span!(
            "attempt",
            queue_id = %claim.item.id,
            domain = %claim.item.destination,
            attempt = claim.item.attempts + 1,
        );
        self.tracker.spawn(
            async move {
                // Given back also when the attempt panics; the lease then brings the item back.
                let turn = turn;
                delivery.deliver(claim, &turn, &shutdown).await;
            }
            .instrument(span),
        );
    }

    fn hear(&mut self, ending: &Ending) {
        self.turns.ended(&ending.destination);
        if ending.parks {
            self.turns.park(&ending.destination);
        }
    }

    async fn fill_both(&mut self, parked_first: bool) -> Result<Option<Duration>, QueueError> {
        let (again, pause) = if parked_first {
            (self.fill_parked().await?, self.fill().await?)
        } else {
            let pause = self.fill().await?;
            (self.fill_parked().await?, pause)
        };
        Ok(if again { Some(PAUSE_MIN) } else { pause })
    }

    /// Claims what is due while there is room; returns how long to wait for the next item.
    async fn fill(&mut self) -> Result<Option<Duration>, QueueError> {
        for _ in 0..FILL_ROUNDS {
            let room = self.turns.room(self.delivery.places()).min(CLAIM_BATCH);
            if room == 0 {
                return Ok(None);
            }
            let now = self.delivery.now();
            let claims = self.delivery.queue.claim_due(now, room, LEASE).await?;
            if claims.is_empty() {
                let next = self.delivery.queue.next_due();
                return Ok(next.map(|at| {
                    Duration::try_from(at.duration_since(now)).unwrap_or_default().max(PAUSE_MIN)
                }));
            }
            for claim in claims {
                self.offer(claim).await;
            }
        }
        Ok(Some(PAUSE_MIN))
    }

    /// Claims for the destinations that were full and have room again; whether some were set aside, so
    /// that there is room for more at once.
    async fn fill_parked(&mut self) -> Result<bool, QueueError> {
        let mut again = false;
        for (destination, wanted) in self.turns.hungry(self.delivery.places()) {
            let now = self.delivery.now();
            let held = self.delivery.traffic.held(&destination, now);
            // They wait where they are until it is known.
            if held.as_ref().is_some_and(|held| held.probed) {
                continue;
            }
            let room = self.turns.room(self.delivery.places()).min(wanted);
            if room == 0 {
                break;
            }
            let (claims, parked) = self.delivery.queue.claim_parked(&destination, now, room, LEASE).await?;
            if !parked {
                self.turns.unpark(&destination);
            }
            again |= held.is_some() && parked;
            for claim in claims {
                self.offer(claim).await;
            }
        }
        Ok(again)
    }

    async fn offer(&mut self, claim: Claim) {
        if let Some(held) = self.held(&claim) {
            return self.set_aside(claim, &held).await;
        }
        let destination = claim.item.destination.clone();
        match self.turns.offer(&destination, claim, self.delivery.places()) {
            Offered::Start(claim) => self.spawn(claim),
            Offered::Waits => {}
            Offered::Full(claim) => {
                debug!(queue_id = %claim.item.id, domain = %destination, "destination busy");
                if let Err(error) = self.delivery.queue.park(claim).await {
                    warn!(%error, "claim not given back; it becomes due when its lease ends");
                }
            }
        }
    }

    /// Gives back what waits, lets end what runs, closes connections.
    async fn end(self) {
        let Self { delivery, turns, tracker, .. } = self;
        let now = delivery.now();
        for claim in turns.into_waiting() {
            if let Err(error) = delivery.queue.unclaim(claim, now).await {
                warn!(%error, "claim not given back; it becomes due when its lease ends");
            }
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
}

/// How an attempt ended, for the loop.
struct Ending {
    destination: Destination,
    /// Its claim was parked: its destination's items wait in the queue.
    parks: bool,
}

/// Says that an attempt ended, however it ended.
pub(super) struct Turn {
    destination: Destination,
    parks: AtomicBool,
    ended: mpsc::UnboundedSender<Ending>,
}

impl Turn {
    /// The claim was parked.
    pub(super) fn parks(&self) {
        self.parks.store(true, Ordering::Relaxed);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (destination, parks) = (self.destination.clone(), *self.parks.get_mut());
        // The receiver is gone only while shutting down.
        let _ = self.ended.send(Ending { destination, parks });
    }
}
