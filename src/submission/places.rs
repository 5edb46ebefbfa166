//! Places for connections: never more than there are, and never all of them for those who only wait.
//!
//! When every place is taken, the next connection gets that of the one that can best do without: first of
//! the clients that have shown no right to submit yet, the oldest of those whose address has most such; then
//! the one among the rest that has been silent longest between two commands, from [`SILENT_MIN`] on. A client that is sending a message, or
//! waits for us, is never asked to leave. So ten thousand idle connections keep nobody out, and a
//! client that submits at once is served whoever else is connected.
//! Called by `serve` (taking places) and the session's driver (what a client is doing).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// From then on a client that may submit, and says nothing, can lose its place: honest ones pause between
/// messages too, and find a 421 where they look for their next reply.
const SILENT_MIN: Duration = Duration::from_secs(10);

/// All places.
#[derive(Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
    begun: Instant,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// In order of arrival.
    by_age: BTreeMap<u64, Arc<Standing>>,
}

/// What the holder of a place is doing.
#[derive(Debug)]
struct Standing {
    begun: Instant,
    /// What stands for its address.
    address: IpAddr,
    /// It may submit.
    entitled: AtomicBool,
    /// Milliseconds from `begun` to when a command began to be waited for; [`BUSY`] while none is.
    silent_since: AtomicU64,
    leave: CancellationToken,
}

const BUSY: u64 = u64::MAX;

/// A place that is held until dropped.
pub(super) struct Place {
    number: u64,
    standing: Arc<Standing>,
    taken: Arc<Mutex<Taken>>,
    _permit: OwnedSemaphorePermit,
}

/// A session's view of its place.
#[derive(Debug, Clone)]
pub(super) struct Holder(Arc<Standing>);

impl Places {
    pub(super) fn new(count: usize) -> Self {
        let free = Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        Self { free, taken: Arc::default(), begun: Instant::now() }
    }

    /// A place; waits for one if there is none and nobody can do without. Those who wait are served in
    /// the order they came. The flag tells that somebody was asked to leave.
    pub(super) async fn enter(&self, address: IpAddr) -> (Place, bool) {
        let (permit, asked) = match self.free.clone().try_acquire_owned() {
            Ok(permit) => (Ok(permit), false),
            Err(_) => {
                let asked = self.ask_one_to_leave();
                (self.free.clone().acquire_owned().await, asked)
            }
        };
        let permit = permit.expect("the semaphore is never closed");
        let standing = Arc::new(Standing {
            begun: self.begun,
            address,
            entitled: AtomicBool::new(false),
            silent_since: AtomicU64::new(BUSY),
            leave: CancellationToken::new(),
        });
        let mut taken = lock(&self.taken);
        let number = taken.next;
        taken.next += 1;
        taken.by_age.insert(number, Arc::clone(&standing));
        drop(taken);
        (Place { number, standing, taken: Arc::clone(&self.taken), _permit: permit }, asked)
    }

    fn ask_one_to_leave(&self) -> bool {
        let taken = lock(&self.taken);
        let staying = || taken.by_age.values().filter(|standing| !standing.leave.is_cancelled());
        let strangers = || staying().filter(|standing| !standing.entitled.load(Ordering::Relaxed));
        let mut crowds: HashMap<IpAddr, usize> = HashMap::new();
        strangers().for_each(|standing| *crowds.entry(standing.address).or_default() += 1);
        // In order of age, so the first of the smallest is the oldest.
        let stranger = strangers().min_by_key(|standing| Reverse(crowds.get(&standing.address)));
        let now = millis(self.begun.elapsed());
        let silent = |standing: &&Arc<Standing>| {
            let since = standing.silent_since.load(Ordering::Relaxed);
            since != BUSY && now.saturating_sub(since) >= millis(SILENT_MIN)
        };
        let leaving = stranger.or_else(|| {
            staying().filter(silent).min_by_key(|standing| standing.silent_since.load(Ordering::Relaxed))
        });
        leaving.inspect(|standing| standing.leave.cancel()).is_some()
    }
}

impl Place {
    pub(super) fn holder(&self) -> Holder {
        Holder(Arc::clone(&self.standing))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.taken).by_age.remove(&self.number);
    }
}

impl Default for Holder {
    /// Of no place: nobody asks it to leave.
    fn default() -> Self {
        Self(Arc::new(Standing {
            begun: Instant::now(),
            address: IpAddr::from([0, 0, 0, 0]),
            entitled: AtomicBool::new(true),
            silent_since: AtomicU64::new(BUSY),
            leave: CancellationToken::new(),
        }))
    }
}

impl Holder {
    /// The client may submit, or may not (any more).
    pub(super) fn entitle(&self, entitled: bool) {
        self.0.entitled.store(entitled, Ordering::Relaxed);
    }

    pub(super) fn is_entitled(&self) -> bool {
        self.0.entitled.load(Ordering::Relaxed)
    }

    /// A command is being waited for.
    pub(super) fn falls_silent(&self) {
        self.0.silent_since.store(millis(self.0.begun.elapsed()), Ordering::Relaxed);
    }

    /// The client said something.
    pub(super) fn speaks(&self) {
        self.0.silent_since.store(BUSY, Ordering::Relaxed);
    }

    /// Ends when the place is wanted for somebody else.
    pub(super) async fn asked_to_leave(&self) {
        self.0.leave.cancelled().await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(BUSY - 1)
}

/// Valid after a panic elsewhere: nothing is half done under it.
fn lock(taken: &Mutex<Taken>) -> std::sync::MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn leaves(place: &Place) -> bool {
        place.holder().asked_to_leave().now_or_never().is_some()
    }

    /// Somebody waits for a place, and is left waiting.
    fn knock(places: &Places) -> impl Future<Output = (Place, bool)> {
        let places = places.clone();
        let mut waiting = Box::pin(async move { places.enter(address(9)).await });
        assert!((&mut waiting).now_or_never().is_none());
        waiting
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_stranger_goes_first_and_the_entitled_stay() {
        let places = Places::new(3);
        let (entitled, _) = places.enter(address(1)).await;
        entitled.holder().entitle(true);
        let (older, _) = places.enter(address(1)).await;
        let (younger, asked) = places.enter(address(1)).await;
        assert!(!asked);
        let first = knock(&places);
        assert_eq!([leaves(&entitled), leaves(&older), leaves(&younger)], [false, true, false]);
        let second = knock(&places);
        assert_eq!([leaves(&entitled), leaves(&younger)], [false, true]);
        let third = knock(&places);
        assert!(!leaves(&entitled), "it is sending");
        drop((younger, older));
        let (_first, asked) = first.await;
        assert!(asked);
        let (_second, asked) = second.await;
        assert!(asked);
        drop(entitled);
        assert!(!third.await.1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_shares_an_address_with_many_goes_before_older_ones_who_do_not() {
        let places = Places::new(6);
        let mut held = Vec::new();
        for of in [1, 2, 2, 3, 3, 3] {
            held.push(places.enter(address(of)).await.0);
        }
        let mut waiting = Vec::new();
        for expected in [3, 1, 4, 0, 2, 5] {
            waiting.push(knock(&places));
            assert!(leaves(&held[expected]), "{expected}");
            assert_eq!(held.iter().filter(|place| leaves(place)).count(), waiting.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn among_the_entitled_the_one_silent_longest_goes_but_only_after_a_while() {
        let places = Places::new(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            let (place, _) = places.enter(address(1)).await;
            place.holder().entitle(true);
            held.push(place);
        }
        held[2].holder().falls_silent();
        tokio::time::advance(Duration::from_secs(1)).await;
        held[1].holder().falls_silent();
        tokio::time::advance(Duration::from_secs(8)).await;
        let _early = knock(&places);
        assert!(!held.iter().any(leaves), "nine seconds are a pause");
        tokio::time::advance(Duration::from_secs(2)).await;
        let _late = knock(&places);
        assert_eq!(held.iter().map(leaves).collect::<Vec<_>>(), [false, false, true]);
        held[1].holder().speaks();
        let _later = knock(&places);
        assert!(!leaves(&held[1]) && !leaves(&held[0]));
    }
}
