//! The suppression list: what counts, what ends it, and what survives.

use std::time::Duration;

use super::super::suppressions::{
    ENTRIES_MAX, SuppressedBy, SuppressionAnswer, SuppressionOptions, Suppressions,
};
use super::sim::SimDisk;
use super::*;

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

fn options(after: u32) -> SuppressionOptions {
    SuppressionOptions { after, keep: Duration::from_secs(3600), answer: SuppressionAnswer::Refuse }
}

const REASON: &str = "550 5.1.1 grün\r\ngibt es nicht";

#[tokio::test]
async fn enough_hard_bounces_suppress_until_time_a_delivery_or_an_operator_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (list, _) = Suppressions::open_over(&ground(SimDisk::new(), "boot"), dir.path()).unwrap();
    let bob = mailbox("bob@Example.net");
    assert_eq!(list.bounced(&bob, REASON, at(0), &options(2)).await.unwrap(), None);
    assert!(list.active(&bob, at(1)).is_none() && list.get(&bob, at(1)).is_some());
    let entry =
        list.bounced(&mailbox("bob@example.net"), REASON, at(10), &options(2)).await.unwrap().unwrap();
    assert_eq!((entry.bounces, entry.since, entry.first_at), (2, Some(at(10)), at(0)));
    let sentence = list.active(&bob, at(11)).unwrap().sentence();
    assert!(sentence.is_ascii() && !sentence.contains(['\r', '\n']), "{sentence}");
    assert!(sentence.contains("suppression list since 2027-01-15, until 2027-01-15"), "{sentence}");
    assert!(sentence.contains("550 5.1.1 gr?n"), "{sentence}");
    // Only news is told.
    assert_eq!(list.bounced(&bob, REASON, at(20), &options(2)).await.unwrap(), None);
    assert!(list.active(&bob, at(3619)).is_some() && list.active(&bob, at(3620)).is_none());
    assert!(list.list(at(3620)).is_empty());
    // What has ended counts no more.
    assert_eq!(list.bounced(&bob, REASON, at(4000), &options(2)).await.unwrap(), None);
    assert!(list.delivered(&bob, at(4001)).await.unwrap() && list.get(&bob, at(4001)).is_none());

    let added = list.add(bob.clone(), "asked to", at(90_000), at(5000)).await.unwrap();
    assert_eq!((added.by, added.until), (SuppressedBy::Operator, at(90_000)));
    assert_eq!(list.bounced(&bob, REASON, at(5001), &options(1)).await.unwrap(), None);
    assert!(!list.delivered(&bob, at(5002)).await.unwrap());
    assert!(list.active(&bob, at(5003)).unwrap().sentence().contains("added by an operator: asked to"));
    assert!(list.remove(&bob).await.unwrap() && !list.remove(&bob).await.unwrap());
}

#[tokio::test]
async fn the_list_survives_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let bob = mailbox("bob@example.net");
    let (list, _) = Suppressions::open_over(&ground(disk.clone(), "boot"), dir.path()).unwrap();
    list.bounced(&bob, REASON, at(0), &options(1)).await.unwrap().unwrap();
    list.add(mailbox("carol@example.net"), "x", at(100), at(0)).await.unwrap();
    list.remove(&mailbox("carol@example.net")).await.unwrap();
    let cut = tempfile::tempdir().unwrap();
    disk.power_cut(dir.path(), cut.path(), 0);
    let (list, repaired) = Suppressions::open(cut.path()).unwrap();
    assert_eq!(repaired, Vec::<String>::new());
    assert_eq!(list.list(at(1)).len(), 1);
    assert!(list.active(&bob, at(1)).is_some());
}

#[tokio::test]
async fn the_list_is_bounded_and_what_ends_first_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let (list, _) = Suppressions::open_over(&ground(SimDisk::new(), "boot"), dir.path()).unwrap();
    let put = |number: usize| {
        let list = list.clone();
        async move {
            let until = at(10_000 + number as i64);
            list.add(mailbox(&format!("u{number:06}@example.net")), "x", until, at(0)).await.unwrap();
        }
    };
    for from in (0..ENTRIES_MAX).step_by(1000) {
        futures_util::future::join_all((from..from + 1000).map(put)).await;
    }
    put(ENTRIES_MAX).await;
    let listed = list.list(at(1));
    assert_eq!(listed.len(), ENTRIES_MAX - ENTRIES_MAX / 100 + 1);
    assert!(list.get(&mailbox("u000000@example.net"), at(1)).is_none());
    assert!(list.get(&mailbox(&format!("u{ENTRIES_MAX:06}@example.net")), at(1)).is_some());
}
