//! Rows for the turns: whose place it is, who waits, who is asked for more.

use std::collections::HashSet;

use super::*;
use crate::mail::Domain;

fn places(all: usize, per_destination: usize) -> Places {
    Places { all, per_destination, per_host: 50, limits: Vec::new() }
}

fn few() -> Turns<usize> {
    Turns::new(places(4, 3))
}

fn to(name: &str) -> Destination {
    Destination::Domain(Domain::parse(name).unwrap())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn ip(last: u8) -> IpAddr {
    std::net::Ipv4Addr::new(192, 0, 2, last).into()
}

fn offer(turns: &mut Turns<usize>, to: &Destination, work: usize) -> Offered<usize> {
    let offered = turns.offer(to, work, false, at(0));
    if matches!(offered, Offered::Start(_)) {
        arrive(turns, to, ip(destination_number(to)), at(0));
    }
    offered
}

fn next(turns: &mut Turns<usize>) -> Option<usize> {
    turns.next(at(0))
}

/// A host of its own for each destination.
fn destination_number(to: &Destination) -> u8 {
    to.to_string().bytes().fold(7, |sum, b| sum.wrapping_mul(31).wrapping_add(b))
}

/// What was just started goes to a host.
fn arrive(turns: &mut Turns<usize>, to: &Destination, host: IpAddr, now: Timestamp) {
    let from = turns.home(to);
    turns.moved(to, from, host, "mx.example", now);
}

fn ended(turns: &mut Turns<usize>, to: &Destination) {
    end(turns, to, Signal::None, at(0));
}

fn end(turns: &mut Turns<usize>, to: &Destination, signal: Signal, now: Timestamp) {
    turns.ended(to, Ended { at: turns.home(to), signal, begun: now }, now);
}

/// Offers numbered work until it is refused; how many were taken.
fn fill(turns: &mut Turns<usize>, destination: &Destination) -> usize {
    (0..).take_while(|n| !matches!(offer(turns, destination, *n), Offered::Full(_))).count()
}

/// How many start of much that is offered.
fn started(turns: &mut Turns<usize>, destination: &Destination, now: Timestamp) -> usize {
    let mut count = 0;
    while turns.next(now).is_some() {
        count += 1;
    }
    (0..30).fold(count, |count, n| match turns.offer(destination, n, false, now) {
        Offered::Start(_) => {
            arrive(turns, destination, ip(1), now);
            count + 1
        }
        _ => count,
    })
}

#[test]
fn a_destination_that_waits_for_a_free_place_gets_it_though_nothing_of_its_own_ends() {
    let mut turns = few();
    let (slow, other, quick) = (to("slow.example"), to("other.example"), to("quick.example"));
    fill(&mut turns, &slow);
    assert_eq!(offer(&mut turns, &other, 7), Offered::Start(7));
    assert_eq!(offer(&mut turns, &quick, 8), Offered::Waits, "all places are taken");
    assert_eq!(next(&mut turns), None);
    ended(&mut turns, &slow);
    assert_eq!(next(&mut turns), Some(8), "the last place is not for the one that has two");
    assert_eq!(next(&mut turns), None);
    ended(&mut turns, &quick);
    assert_eq!(next(&mut turns), None);
    ended(&mut turns, &other);
    assert!(next(&mut turns).is_some());
}

#[test]
fn few_places_leave_room_for_others_too() {
    let mut turns = few();
    for n in 0..4 {
        fill(&mut turns, &to(&format!("slow{n}.example")));
    }
    assert!(turns.room() > 0);
}

#[test]
fn destinations_that_never_end_leave_places_and_room_for_others() {
    let mut turns = Turns::new(places(100, 20));
    for n in 0..20 {
        let slow = to(&format!("slow{n}.example"));
        (0..).take_while(|n| !matches!(offer(&mut turns, &slow, *n), Offered::Full(_))).count();
    }
    assert!(turns.room() > 0);
    assert_eq!(turns.hungry(), []);
    assert_eq!(offer(&mut turns, &to("quick.example"), 7), Offered::Start(7));
}

#[test]
fn places_go_round_the_destinations() {
    let mut turns = few();
    let names = ["a.example", "b.example", "c.example"].map(to);
    turns.adopt(places(1, 1));
    assert_eq!(offer(&mut turns, &names[0], 0), Offered::Start(0));
    for round in 0..3 {
        for (n, name) in names.iter().enumerate() {
            assert_eq!(offer(&mut turns, name, 10 * round + n), Offered::Waits);
        }
    }
    let mut running = names[0].clone();
    let order: Vec<usize> = (0..9)
        .map(|_| {
            ended(&mut turns, &running);
            let first = next(&mut turns).unwrap();
            assert_eq!(next(&mut turns), None, "one at a time");
            running = names[first % 10].clone();
            first
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
    assert_eq!(turns.room(), 2 * BACKLOG_PER_DESTINATION);
}

#[test]
fn a_parked_destination_asks_for_more_when_half_its_backlog_is_used_up() {
    let mut turns = few();
    let busy = to("busy.example");
    assert_eq!(fill(&mut turns, &busy), 3 + BACKLOG_PER_DESTINATION);
    assert_eq!(turns.hungry(), []);
    for _ in 0..BACKLOG_PER_DESTINATION / 2 {
        ended(&mut turns, &busy);
        assert!(next(&mut turns).is_some());
    }
    assert_eq!(turns.hungry(), [(busy.clone(), BACKLOG_PER_DESTINATION / 2)]);
    turns.unpark(&busy);
    assert_eq!(turns.hungry(), []);
    assert_eq!(turns.into_waiting().count(), BACKLOG_PER_DESTINATION / 2);
}

#[test]
fn a_stranger_sends_two_ahead_and_then_as_many_as_its_window_allows() {
    let mut turns = Turns::new(places(100, 20));
    let new = to("new.example");
    for n in 0..10 {
        let offered = turns.offer(&new, n, false, at(0));
        assert_eq!(matches!(offered, Offered::Start(_)), n < STRANGERS_MAX, "{n}");
    }
    for _ in 0..STRANGERS_MAX {
        turns.moved(&new, None, ip(1), "mx.example", at(0));
    }
    assert_eq!(std::iter::from_fn(|| turns.next(at(0))).count(), 3, "five in all");
}

#[test]
fn success_makes_room_and_trouble_takes_it() {
    let mut turns = Turns::new(places(1000, 20));
    let busy = to("busy.example");
    let mut running = started(&mut turns, &busy, at(0));
    for second in 1..40 {
        for _ in 0..running {
            end(&mut turns, &busy, Signal::Good, at(second));
        }
        running = started(&mut turns, &busy, at(second));
    }
    assert_eq!(running, 20);
    for _ in 0..running {
        end(&mut turns, &busy, Signal::Trouble, at(50));
    }
    assert_eq!(started(&mut turns, &busy, at(50)), 10);
}

#[test]
fn urgent_work_does_not_wait_for_a_small_window() {
    let mut turns = Turns::new(places(1000, 20));
    let dead = to("dead.example");
    for second in 0..5 {
        assert!(matches!(turns.offer(&dead, 1, false, at(second)), Offered::Start(1)));
        arrive(&mut turns, &dead, ip(1), at(second));
        end(&mut turns, &dead, Signal::Trouble, at(second));
    }
    for n in 0..20 {
        assert_eq!(turns.offer(&dead, n, true, at(9)), Offered::Start(n));
    }
    assert_eq!(turns.offer(&dead, 20, true, at(9)), Offered::Waits, "what is configured holds");
}

#[test]
fn many_domains_on_one_host_share_its_places() {
    let mut turns = Turns::new(Places { per_host: 8, ..places(1000, 20) });
    let domains: Vec<Destination> = (0..40).map(|n| to(&format!("d{n}.example"))).collect();
    // Each is known to live there.
    for domain in &domains {
        assert_eq!(turns.offer(domain, 0, false, at(0)), Offered::Start(0));
        turns.moved(domain, None, ip(1), "mx.example", at(0));
    }
    for domain in &domains {
        end(&mut turns, domain, Signal::None, at(1));
    }
    let start = |turns: &mut Turns<usize>| {
        (0..10)
            .flat_map(|_| &domains)
            .filter(|d| turns.offer(d, 1, false, at(2)) == Offered::Start(1))
            .count()
    };
    assert_eq!(start(&mut turns), 5, "a new host starts small");
    assert_eq!(turns.offer(&to("elsewhere.example"), 7, false, at(2)), Offered::Start(7));
    // Each place that is free goes to another domain.
    let mut seen = HashSet::new();
    for n in 0..5 {
        end(&mut turns, &domains[n], Signal::None, at(2));
        assert!(turns.next(at(2)).is_some());
        assert!(turns.next(at(2)).is_none());
        seen.extend(domains.iter().filter(|d| turns.lanes[*d].running > 0));
    }
    assert!(seen.len() > 5);
}

#[test]
fn a_rate_makes_work_wait_and_says_for_how_long() {
    let limit = |whom: &str, table: &str| {
        let pattern = whom.parse().unwrap();
        let whom = if table == "mx" { limits::Whom::Mx(pattern) } else { limits::Whom::Domain(pattern) };
        let rate = Some("60/m".parse().unwrap());
        DestinationLimit { whom, concurrency: Some(3), rate, messages_per_connection: None }
    };
    let limits = vec![limit("slow.example", "domain"), limit("*.big.example", "mx")];
    let mut turns = Turns::new(Places { limits, ..places(100, 20) });
    let slow = to("slow.example");
    assert_eq!(turns.offer(&slow, 1, false, at(0)), Offered::Start(1));
    end(&mut turns, &slow, Signal::Good, at(0));
    assert_eq!(turns.offer(&slow, 2, false, at(0)), Offered::Waits);
    assert_eq!(turns.wake(), Some(at(1)));
    assert_eq!(turns.next(at(0)), None);
    assert_eq!(turns.next(at(1)), Some(2));
    // The hosts of a table share its rate and its places, whatever the domain.
    let (one, two) = (to("one.example"), to("two.example"));
    for domain in [&one, &two] {
        assert_eq!(turns.offer(domain, 3, false, at(10)), Offered::Start(3));
        turns.moved(domain, None, ip(9), "mx1.big.example", at(10));
    }
    assert_eq!(turns.offer(&one, 4, false, at(11)), Offered::Waits, "two have gone in one second");
    assert_eq!(turns.next(at(12)), Some(4));
    assert_eq!(turns.offer(&two, 5, false, at(60)), Offered::Waits, "three run");
    end(&mut turns, &one, Signal::Good, at(60));
    assert_eq!(turns.next(at(60)), Some(5));
}

#[test]
fn what_is_remembered_of_destinations_and_hosts_is_bounded() {
    let mut turns = Turns::new(places(100, 20));
    for n in 0..3 * KNOWN_MAX {
        let one = to(&format!("d{n}.example"));
        turns.offer(&one, 1, false, at(0));
        let host = std::net::Ipv4Addr::from(0x0A00_0000 + n as u32).into();
        turns.moved(&one, None, host, "mx.example", at(0));
        end(&mut turns, &one, if n % 2 == 0 { Signal::Trouble } else { Signal::None }, at(0));
        assert!(turns.lanes.len() <= KNOWN_MAX && turns.hosts.len() <= KNOWN_MAX);
    }
    assert_eq!(turns.running_total, 0);
}
