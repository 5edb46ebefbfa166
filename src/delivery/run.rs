//! The loop of story 2: claims due items, gives each its place, spawns its delivery.
//!
//! Concurrency is bounded in all and per destination; items of a busy destination wait here up to a
//! bound and then in the queue until that destination has room, so that one destination never holds
//! the claims of all others. Decides nothing about an item: that is `settle`'s. Called by the daemon.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::Delivery;
use super::settle::{LEASE, STORE_PAUSE};
use super::turns::{Offered, Places, Turns};
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
                while let Some(destination) = next {
                    turns.ended(&destination);
                    next = endings.try_recv().ok();
                }
            }
            () = delivery.queue.wakeup() => {}
            () = sleep(pause.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) => {}
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
