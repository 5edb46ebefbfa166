//! Whose turn it is: which claims run, which wait for their destination, which destinations wait in
//! the queue.
//!
//! Bounded in all and per destination. Free places go round the destinations that wait, and the last
//! ones are for destinations that have none, so that a few dozen hosts that never answer do not hold up
//! the mail for all others. Pure memory. Called by `delivery::run`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::mail::Destination;

/// Claims that may wait for their destination's turn, per destination: enough that places are
/// filled while the queue is asked for more.
pub(super) const BACKLOG_PER_DESTINATION: usize = 40;
/// Claims that may wait in all, as a multiple of the concurrency, and of two destinations at least.
const BACKLOG_FACTOR: usize = 2;
/// One part in so many of the places is only for destinations that have none.
const RESERVED_PART: usize = 4;

/// How many may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// In all.
    pub(super) all: usize,
    /// To one destination.
    pub(super) per_destination: usize,
}

/// What becomes of an offered piece of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<T> {
    /// It runs from now on.
    Start(T),
    /// It is kept for its destination's turn.
    Waits,
    /// There is no room for more of this destination.
    Full(T),
}

/// See the file's header.
pub(super) struct Turns<T> {
    running: HashMap<Destination, usize>,
    running_total: usize,
    waiting: BTreeMap<Destination, VecDeque<T>>,
    waiting_total: usize,
    /// The destinations of `waiting`, the next one first.
    order: VecDeque<Destination>,
    /// Destinations whose further items stay in the queue until they are asked for.
    parked: BTreeSet<Destination>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            running: HashMap::new(),
            running_total: 0,
            waiting: BTreeMap::new(),
            waiting_total: 0,
            order: VecDeque::new(),
            parked: BTreeSet::new(),
        }
    }
}

impl<T> Turns<T> {
    /// Takes the work up, keeps it waiting, or gives it back when there is no room; its destination
    /// is parked then.
    pub(super) fn offer(&mut self, destination: &Destination, work: T, places: Places) -> Offered<T> {
        let waiting = self.waiting.get(destination).map_or(0, VecDeque::len);
        if waiting == 0 && self.may_start(destination, places) {
            self.start(destination.clone());
            return Offered::Start(work);
        }
        if waiting >= self.backlog(places) {
            self.parked.insert(destination.clone());
            return Offered::Full(work);
        }
        if waiting == 0 {
            self.order.push_back(destination.clone());
        }
        self.waiting_total += 1;
        self.waiting.entry(destination.clone()).or_default().push_back(work);
        Offered::Waits
    }

    /// The next work to start, in the order of destinations; call until there is none.
    pub(super) fn next(&mut self, places: Places) -> Option<T> {
        for _ in 0..self.order.len() {
            if self.running_total >= places.all {
                return None;
            }
            let destination = self.order.pop_front()?;
            if !self.may_start(&destination, places) {
                self.order.push_back(destination);
                continue;
            }
            let Some(waiting) = self.waiting.get_mut(&destination) else { continue };
            let work = waiting.pop_front();
            if waiting.is_empty() {
                self.waiting.remove(&destination);
            } else {
                self.order.push_back(destination.clone());
            }
            if let Some(work) = work {
                self.waiting_total -= 1;
                self.start(destination);
                return Some(work);
            }
        }
        None
    }

    /// One piece of work for `destination` ended.
    pub(super) fn ended(&mut self, destination: &Destination) {
        self.running_total = self.running_total.saturating_sub(1);
        if let Some(running) = self.running.get_mut(destination) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(destination);
            }
        }
    }

    /// How many more may be claimed.
    pub(super) fn room(&self, places: Places) -> usize {
        (places.all + waiting_max(places)).saturating_sub(self.running_total + self.waiting_total)
    }

    /// Parked destinations that have room again, with how many they may be given.
    pub(super) fn hungry(&self, places: Places) -> Vec<(Destination, usize)> {
        let backlog = self.backlog(places);
        let waiting = |destination: &Destination| self.waiting.get(destination).map_or(0, VecDeque::len);
        self.parked
            .iter()
            .map(|destination| (destination, waiting(destination)))
            .filter(|(_, waiting)| *waiting <= backlog / 2)
            .map(|(destination, waiting)| (destination.clone(), backlog - waiting))
            .collect()
    }

    /// The queue has no parked items of this destination any more.
    pub(super) fn unpark(&mut self, destination: &Destination) {
        self.parked.remove(destination);
    }

    /// Everything that waits, at shutdown.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = T> {
        self.waiting.into_values().flatten()
    }

    fn may_start(&self, destination: &Destination, places: Places) -> bool {
        let running = self.running.get(destination).copied().unwrap_or(0);
        let shared = places.all - places.all / RESERVED_PART;
        let free = if running == 0 { places.all } else { shared };
        running < places.per_destination && self.running_total < free
    }

    /// How many of one destination may wait now: when much waits, one of each.
    fn backlog(&self, places: Places) -> usize {
        if self.waiting_total < waiting_max(places) / 2 { BACKLOG_PER_DESTINATION } else { 1 }
    }

    fn start(&mut self, destination: Destination) {
        *self.running.entry(destination).or_default() += 1;
        self.running_total += 1;
    }
}

/// How many may wait in all.
fn waiting_max(places: Places) -> usize {
    places.all.saturating_mul(BACKLOG_FACTOR).max(2 * BACKLOG_PER_DESTINATION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;

    const PLACES: Places = Places { all: 4, per_destination: 3 };

    fn to(name: &str) -> Destination {
        Destination::Domain(Domain::parse(name).unwrap())
    }

    /// Offers numbered work until it is refused; how many were taken.
    fn fill(turns: &mut Turns<usize>, destination: &Destination) -> usize {
        (0..).take_while(|n| !matches!(turns.offer(destination, *n, PLACES), Offered::Full(_))).count()
    }

    #[test]
    fn a_destination_that_waits_for_a_free_place_gets_it_though_nothing_of_its_own_ends() {
        let mut turns = Turns::default();
        let (slow, other, quick) = (to("slow.example"), to("other.example"), to("quick.example"));
        fill(&mut turns, &slow);
        assert_eq!(turns.offer(&other, 7, PLACES), Offered::Start(7));
        assert_eq!(turns.offer(&quick, 8, PLACES), Offered::Waits, "all places are taken");
        assert_eq!(turns.next(PLACES), None);
        turns.ended(&slow);
        assert_eq!(turns.next(PLACES), Some(8), "the last place is not for the one that has two");
        assert_eq!(turns.next(PLACES), None);
        turns.ended(&quick);
        assert_eq!(turns.next(PLACES), None);
        turns.ended(&other);
        assert!(turns.next(PLACES).is_some());
    }

    #[test]
    fn few_places_leave_room_for_others_too() {
        let mut turns = Turns::default();
        for n in 0..4 {
            fill(&mut turns, &to(&format!("slow{n}.example")));
        }
        assert!(turns.room(PLACES) > 0);
    }

    #[test]
    fn destinations_that_never_end_leave_places_and_room_for_others() {
        let mut turns = Turns::default();
        let places = Places { all: 100, per_destination: 20 };
        for n in 0..20 {
            let slow = to(&format!("slow{n}.example"));
            (0..).take_while(|n| !matches!(turns.offer(&slow, *n, places), Offered::Full(_))).count();
        }
        assert!(turns.room(places) > 0);
        assert_eq!(turns.hungry(places), []);
        assert_eq!(turns.offer(&to("quick.example"), 7, places), Offered::Start(7));
    }

    #[test]
    fn places_go_round_the_destinations() {
        let mut turns = Turns::default();
        let names = ["a.example", "b.example", "c.example"].map(to);
        let one = Places { all: 1, per_destination: 1 };
        assert_eq!(turns.offer(&names[0], 0, one), Offered::Start(0));
        for round in 0..3 {
            for (n, name) in names.iter().enumerate() {
                assert_eq!(turns.offer(name, 10 * round + n, one), Offered::Waits);
            }
        }
        let mut running = names[0].clone();
        let order: Vec<usize> = (0..9)
            .map(|_| {
                turns.ended(&running);
                let next = turns.next(one).unwrap();
                assert_eq!(turns.next(one), None, "one at a time");
                running = names[next % 10].clone();
                next
            })
            .collect();
        assert_eq!(order, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
        assert_eq!(turns.room(one), 2 * BACKLOG_PER_DESTINATION);
    }

    #[test]
    fn a_parked_destination_asks_for_more_when_half_its_backlog_is_used_up() {
        let mut turns = Turns::default();
        let busy = to("busy.example");
        assert_eq!(fill(&mut turns, &busy), PLACES.per_destination + BACKLOG_PER_DESTINATION);
        assert_eq!(turns.hungry(PLACES), []);
        for _ in 0..BACKLOG_PER_DESTINATION / 2 {
            turns.ended(&busy);
            assert!(turns.next(PLACES).is_some());
        }
        assert_eq!(turns.hungry(PLACES), [(busy.clone(), BACKLOG_PER_DESTINATION / 2)]);
        turns.unpark(&busy);
        assert_eq!(turns.hungry(PLACES), []);
        assert_eq!(turns.into_waiting().count(), BACKLOG_PER_DESTINATION / 2);
    }
}
