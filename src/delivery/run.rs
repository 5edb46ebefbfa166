//! The loop of story 2: claims due items, gives each its place, spawns its delivery.
//!
//! Concurrency is bounded in all and per destination; items of a busy destination wait here up to a
//! bound and then in the queue until that destination has room, so that one destination never holds
//! the claims of all others. Decides nothing about an item: that is `settle`'s. Called by the daemon.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::frozen::Frozen;
use super::pace::Signal;
use super::settle::{LEASE, STORE_PAUSE};
use super::traffic::Held;
use super::turns::{Ended, Offered, Places, Turns};
use super::{Delivery, Options};
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
/// The shortest wait for a rate: several messages of a fast one go together.
const RATE_PAUSE_MIN: Duration = Duration::from_millis(5);
/// A clock that is further ahead than it should be was set; less is NTP at work.
const CLOCK_SET: Duration = Duration::from_secs(1);
/// How often idle connections are looked through, when there are any.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Delivers until `shutdown` is cancelled, then lets running attempts end; the caller bounds that.
pub async fn run(delivery: Delivery, shutdown: CancellationToken) {
    let delivery = Arc::new(delivery);
    let options = delivery.options.borrow().clone();
    let (events, mut heard) = mpsc::unbounded_channel::<Event>();
    let mut engine = Engine {
        delivery: Arc::clone(&delivery),
        turns: Turns::new(places(&options)),
        options,
        tracker: TaskTracker::new(),
        events,
        shutdown: shutdown.clone(),
        looked: (delivery.now(), Instant::now()),
    };
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut parked_first = false;
    while !shutdown.is_cancelled() {
        engine.adopt();
        while let Some(claim) = engine.turns.next(delivery.now()) {
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
        let pause = [pause, engine.wake()].into_iter().flatten().min().unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
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
            event = heard.recv() => {
                let mut next = event;
                while let Some(event) = next {
                    engine.hear(event);
                    next = heard.try_recv().ok();
                }
            }
            () = delivery.queue.wakeup() => {}
            () = delivery.traffic.changed() => {}
            () = sleep(pause) => {}
        }
    }
    engine.end().await;
}

/// What the loop works with.
struct Engine {
    delivery: Arc<Delivery>,
    turns: Turns<Claim>,
    /// Those that `turns` knows.
    options: Arc<Options>,
    tracker: TaskTracker,
    events: mpsc::UnboundedSender<Event>,
    shutdown: CancellationToken,
    /// When the clock was looked at last, and what time it really was.
    looked: (Timestamp, Instant),
}

impl Engine {
    /// The time, at which items are claimed. What is in an attempt stays in it though the clock was set
    /// forward: claimed again it would be delivered twice.
    fn now(&mut self) -> Timestamp {
        let (now, real) = (self.delivery.now(), Instant::now());
        let passed = Duration::try_from(now.duration_since(self.looked.0)).unwrap_or_default();
        let ahead = passed.saturating_sub(real.duration_since(self.looked.1));
        if ahead > CLOCK_SET {
            info!(seconds = ahead.as_secs(), "the clock was set forward");
            self.delivery.queue.lengthen(ahead);
        }
        self.looked = (now, real);
        now
    }

    /// Takes up what a reload has changed.
    fn adopt(&mut self) {
        let options = self.delivery.options.borrow();
        if !Arc::ptr_eq(&options, &self.options) {
            self.options = Arc::clone(&options);
            self.turns.adopt(places(&options));
        }
    }

    /// How long until a rate lets the next one go.
    fn wake(&self) -> Option<Duration> {
        let wait = self.turns.wake()?.duration_since(self.delivery.now());
        Some(Duration::try_from(wait).unwrap_or_default().max(RATE_PAUSE_MIN))
    }

    /// Starts a claim that has its place, unless it is to wait for something else by now.
    async fn start(&mut self, claim: Claim) {
        match self.held(&claim) {
            None => self.spawn(claim),
            Some(held) => {
                let destination = &claim.item.destination;
                let (now, at) = (self.delivery.now(), self.turns.home(destination));
                self.turns.ended(destination, Ended { at, signal: Signal::None, begun: now }, now);
                self.set_aside(claim, &held).await;
            }
        }
    }

    /// Why a claim is not tried now, if it need not be settled all the same.
    fn held(&self, claim: &Claim) -> Option<Held> {
        let now = self.delivery.now();
        match self.delivery.frozen(&claim.item, now) {
            Some(Frozen::Waits(until)) => {
                let text = "its destination is frozen".to_owned();
                return Some(Held { addresses: Vec::new(), until, brief: false, text });
            }
            // Its sender is to hear of it, whatever its hosts wait for.
            Some(Frozen::Told(_)) => return None,
            None => {}
        }
        let held = self.delivery.traffic.held(&claim.item.destination, now)?;
        (!self.is_urgent(claim, now)).then_some(held)
    }

    /// Whether a claim is to be settled now, whatever its hosts wait for: its sender is to hear of it, or
    /// some of its recipients need no host.
    fn is_urgent(&self, claim: &Claim, now: Timestamp) -> bool {
        now >= claim.item.settled_by(&self.options.retry) || !self.delivery.suppressed(&claim.item).is_empty()
    }

    async fn set_aside(&mut self, claim: Claim, held: &Held) {
        if held.brief {
            self.turns.park(&claim.item.destination);
        }
        self.delivery.give_back(claim, held).await;
    }

    fn spawn(&self, claim: Claim) {
        let (delivery, shutdown) = (self.delivery.clone(), self.shutdown.clone());
        let turn = Turn::new(&claim.item.destination, self.turns.home(&claim.item.destination), self);
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
                // By itself on the heap: a task is moved several times before it is first polled, and this
                // future is large.
                Box::pin(delivery.deliver(claim, &turn, &shutdown)).await;
            }
            .instrument(span),
        );
    }

    fn hear(&mut self, event: Event) {
        let now = self.delivery.now();
        match event {
            Event::Moved { destination, from, to, name } => {
                self.turns.moved(&destination, from, to, &name, now);
            }
            Event::Ended { destination, ended, parks } => {
                if self.turns.ended(&destination, ended, now) {
                    self.delivery.traffic.eased(&destination);
                }
                if parks {
                    self.turns.park(&destination);
                }
            }
        }
    }

    async fn fill_both(&mut self, parked_first: bool) -> Result<Option<Duration>, QueueError> {
        let pauses = if parked_first {
            [self.fill_parked().await?, self.fill().await?]
        } else {
            let pause = self.fill().await?;
            [self.fill_parked().await?, pause]
        };
        Ok(pauses.into_iter().flatten().min())
    }

    /// Claims what is due while there is room; returns how long to wait for the next item.
    async fn fill(&mut self) -> Result<Option<Duration>, QueueError> {
        for _ in 0..FILL_ROUNDS {
            let room = self.turns.room().min(CLAIM_BATCH);
            if room == 0 {
                return Ok(None);
            }
            let now = self.now();
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

    /// Claims for the destinations that were full and have room again; how long to
    /// wait for the next of those that are held.
    async fn fill_parked(&mut self) -> Result<Option<Duration>, QueueError> {
        let mut pause: Option<Duration> = None;
        let mut sooner = |wait: Duration| pause = Some(pause.map_or(wait, |pause| pause.min(wait)));
        for _ in 0..FILL_ROUNDS {
            let now = self.now();
            // Of all of them in one go: what waits is read from the disk.
            let mut room = self.turns.room().min(CLAIM_BATCH);
            let (mut wanted, mut set_aside) = (Vec::new(), Vec::new());
            for (destination, most) in self.turns.hungry() {
                let held = self.delivery.traffic.held(&destination, now);
                // They wait where they are until it is known.
                if let Some(held) = held.as_ref().filter(|held| held.brief) {
                    let wait = Duration::try_from(held.until.duration_since(now)).unwrap_or_default();
                    sooner(wait.max(PAUSE_MIN));
                    continue;
                }
                let most = room.min(most);
                if most == 0 {
                    break;
                }
                room -= most;
                if held.is_some() || self.delivery.queue.frozen(&destination, now).is_some() {
                    set_aside.push(destination.clone());
                }
                wanted.push((destination, most));
            }
            if wanted.is_empty() {
                break;
            }
            let (claims, unparked) = self.delivery.queue.claim_parked(&wanted, now, LEASE).await?;
            for destination in &unparked {
                self.turns.unpark(destination);
            }
            if set_aside.iter().any(|destination| !unparked.contains(destination)) {
                // They are set aside at once, so that there is room for more.
                sooner(PAUSE_MIN);
            }
            if claims.is_empty() {
                break;
            }
            for claim in claims {
                self.offer(claim).await;
            }
        }
        Ok(pause)
    }

    async fn offer(&mut self, claim: Claim) {
        if let Some(held) = self.held(&claim) {
            return self.set_aside(claim, &held).await;
        }
        let destination = claim.item.destination.clone();
        let now = self.delivery.now();
        let urgent = self.is_urgent(&claim, now);
        match self.turns.offer(&destination, claim, urgent, now) {
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

fn places(options: &Options) -> Places {
    Places {
        all: options.concurrency,
        per_destination: options.concurrency_per_destination,
        per_host: options.concurrency_per_host,
        limits: options.limits.clone(),
    }
}

/// What attempts tell the loop.
enum Event {
    /// One goes to a host.
    Moved { destination: Destination, from: Option<IpAddr>, to: IpAddr, name: String },
    /// One ended.
    Ended {
        destination: Destination,
        ended: Ended,
        /// Its claim was parked: its destination's items wait in the queue.
        parks: bool,
    },
}

/// A place that an attempt has; says where it goes, and that it ended, however it ended.
pub(super) struct Turn {
    destination: Destination,
    state: Mutex<TurnState>,
    events: mpsc::UnboundedSender<Event>,
}

#[derive(Clone, Copy)]
struct TurnState {
    ended: Ended,
    parks: bool,
}

impl Turn {
    fn new(destination: &Destination, at: Option<IpAddr>, engine: &Engine) -> Self {
        let ended = Ended { at, signal: Signal::None, begun: engine.delivery.now() };
        Self {
            destination: destination.clone(),
            state: Mutex::new(TurnState { ended, parks: false }),
            events: engine.events.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt goes to a host now.
    pub(super) fn goes_to(&self, to: IpAddr, name: &str) {
        let from = self.lock().ended.at.replace(to);
        if from != Some(to) {
            let (destination, name) = (self.destination.clone(), name.to_owned());
            // The receiver is gone only while shutting down.
            let _ = self.events.send(Event::Moved { destination, from, to, name });
        }
    }

    /// What the attempt says of the pace.
    pub(super) fn hears(&self, signal: Signal) {
        self.lock().ended.signal = signal;
    }

    /// The claim was parked.
    pub(super) fn parks(&self) {
        self.lock().parks = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let destination = self.destination.clone();
        let TurnState { ended, parks } = *self.lock();
        let _ = self.events.send(Event::Ended { destination, ended, parks });
    }
}
