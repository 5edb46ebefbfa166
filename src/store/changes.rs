//! What protects mail less than it did, kept over restarts; and what of DNS is secure, so that its loss
//! is noticed.
//!
//! Keeps what it is told and decides only what is news: that is `sts::radar`'s. Bounded: the oldest
//! changes go first, and of what is secure whatever was seen least recently. Nobody waits for the disk
//! here: a change lost to a power cut is in the log all the same. Called by `delivery::gather`, read
//! by the admin socket.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ground::Ground;
use super::ledger::Ledger;
use super::queue::QueueError;
use crate::mail::Domain;
use crate::sts::radar::{Change, Guard, Noticed, Now};

/// Changes kept; a few megabytes, and more than anybody reads.
const CHANGES_MAX: usize = 10_000;
/// Names remembered as secure; some ten megabytes. Only what mail goes to is looked up.
const GUARDED_MAX: usize = 50_000;
/// That something is still secure is written down about so often.
const SEEN_EVERY: Duration = Duration::from_secs(86_400);

/// The list of changes and what is guarded. Cheap to clone; reads are from memory.
#[derive(Clone)]
pub struct Changes {
    inner: Arc<Inner>,
}

struct Inner {
    noticed: Ledger<Noticed>,
    guarded: Ledger<Guarded>,
    next: AtomicU64,
}

/// Something that is secure.
#[derive(Serialize, Deserialize)]
struct Guarded {
    /// When last written down.
    seen_at: Timestamp,
}

/// Which changes; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeFilter {
    /// Of this policy domain or MX host, and of names below it.
    #[serde(default)]
    pub domain: Option<Domain>,
    /// Not before this.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// After the one of this number.
    #[serde(default)]
    pub after: Option<u64>,
    /// Before the one of this number, the newest first.
    #[serde(default)]
    pub newest_before: Option<u64>,
}

impl Changes {
    /// Opens or creates `changes` and `guards` below `data_dir`; returns what was repaired. Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open(data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        Self::open_over(&Ground::machine(), data_dir)
    }

    /// [`Changes::open`] on a ground of one's own.
    ///
    /// # Errors
    /// As [`Changes::open`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let (noticed, mut repaired) = Ledger::<Noticed>::open(ground, &data_dir.join("changes"), "changes")?;
        let (guarded, more) = Ledger::open(ground, &data_dir.join("guards"), "guards")?;
        repaired.extend(more);
        let next = noticed.last().map_or(1, |last| last.number.saturating_add(1));
        Ok((Self { inner: Arc::new(Inner { noticed, guarded, next: AtomicU64::new(next) }) }, repaired))
    }

    /// Keeps a change.
    pub fn record(&self, domain: &Domain, change: Change, at: Timestamp) {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let noticed = Noticed { number, at, domain: domain.clone(), severity: change.severity(), change };
        self.inner.noticed.post(key_of(number), Some(noticed));
        while self.inner.noticed.len() > CHANGES_MAX
            && let Some(first) = self.inner.noticed.first()
        {
            self.inner.noticed.post(key_of(first.number), None);
        }
    }

    /// A page of at most `max` changes, oldest first unless [`ChangeFilter::newest_before`] is said, and
    /// whether there are more.
    pub fn list(&self, filter: &ChangeFilter, max: usize) -> (Vec<Arc<Noticed>>, bool) {
        let fits = |noticed: &Arc<Noticed>| {
            filter.after.is_none_or(|after| noticed.number > after)
                && filter.newest_before.is_none_or(|before| noticed.number < before)
                && filter.since.is_none_or(|since| noticed.at >= since)
                && filter.domain.as_ref().is_none_or(|domain| {
                    let about = std::iter::once(&noticed.domain).chain(noticed.change.domains());
                    about.into_iter().any(|name| is_at_or_below(name, domain))
                })
        };
        let all = self.inner.noticed.list().into_iter();
        let mut found: Vec<_> = if filter.newest_before.is_some() {
            all.rev().filter(fits).take(max + 1).collect()
        } else {
            all.filter(fits).take(max + 1).collect()
        };
        let more = found.len() > max;
        found.truncate(max);
        (found, more)
    }

    /// Takes in what is known now; whether something secure was lost by it, which is told once.
    pub fn observe(&self, guard: Guard, name: &Domain, now: Now, at: Timestamp) -> bool {
        let guarded = &self.inner.guarded;
        let key = format!("{} {name}", word(guard));
        match (guarded.get(&key), now) {
            (None, Now::Secure) => {
                self.make_room();
                guarded.post(key, Some(Guarded { seen_at: at }));
                false
            }
            (Some(known), Now::Secure) => {
                // Either way, also after a clock was set.
                if at.duration_since(known.seen_at).unsigned_abs() > SEEN_EVERY {
                    guarded.post(key, Some(Guarded { seen_at: at }));
                }
                false
            }
            (Some(_), Now::Absent | Now::Insecure) => {
                guarded.post(key, None);
                true
            }
            (Some(_), Now::Unknown) | (None, _) => false,
        }
    }

    /// Whether this was secure when it was last seen.
    pub fn is_guarded(&self, guard: Guard, name: &Domain) -> bool {
        self.inner.guarded.get(&format!("{} {name}", word(guard))).is_some()
    }

    /// The least recently seen tenth goes when the map is full.
    fn make_room(&self) {
        let guarded = &self.inner.guarded;
        if guarded.len() < GUARDED_MAX {
            return;
        }
        let mut all: Vec<_> =
            guarded.entries().into_iter().map(|(key, known)| (known.seen_at, key)).collect();
        all.sort_unstable();
        all.truncate(GUARDED_MAX / 10);
        all.into_iter().for_each(|(_, key)| guarded.post(key, None));
    }
}

fn key_of(number: u64) -> String {
    format!("{number:020}")
}

fn word(guard: Guard) -> &'static str {
    match guard {
        Guard::Tlsa => "tlsa",
        Guard::Mx => "mx",
        Guard::Record => "record",
        Guard::Policy => "policy",
    }
}

fn is_at_or_below(name: &Domain, top: &Domain) -> bool {
    name == top || name.as_str().strip_suffix(top.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn numbers(changes: &Changes, filter: &ChangeFilter, max: usize) -> (Vec<u64>, bool) {
        let (found, more) = changes.list(filter, max);
        (found.iter().map(|noticed| noticed.number).collect(), more)
    }

    #[tokio::test]
    async fn changes_are_found_by_domain_and_time_page_by_page_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut changes, repaired) = Changes::open(dir.path()).unwrap();
        assert_eq!(repaired, [""; 0]);
        for (second, name) in ["a.test", "mx.a.test", "ba.test", "a.test"].into_iter().enumerate() {
            changes.record(&domain(name), Change::MxInsecure, at(second as i64));
        }
        let domains = vec![domain("user.test")];
        changes.record(&domain("host.test"), Change::TlsaVanished { domains }, at(4));
        for _ in 0..2 {
            let of = |name: &str| ChangeFilter { domain: Some(domain(name)), ..ChangeFilter::default() };
            assert_eq!(numbers(&changes, &ChangeFilter::default(), 9), (vec![1, 2, 3, 4, 5], false));
            assert_eq!(numbers(&changes, &of("user.test"), 9), (vec![5], false));
            assert_eq!(numbers(&changes, &of("a.test"), 9), (vec![1, 2, 4], false));
            assert_eq!(numbers(&changes, &of("mx.a.test"), 9), (vec![2], false));
            let since = ChangeFilter { since: Some(at(2)), ..ChangeFilter::default() };
            assert_eq!(numbers(&changes, &since, 9), (vec![3, 4, 5], false));
            let page = ChangeFilter { after: Some(1), ..ChangeFilter::default() };
            assert_eq!(numbers(&changes, &page, 2), (vec![2, 3], true));
            let newest = |before| ChangeFilter { newest_before: Some(before), ..ChangeFilter::default() };
            assert_eq!(numbers(&changes, &newest(u64::MAX), 2), (vec![5, 4], true));
            assert_eq!(numbers(&changes, &newest(3), 2), (vec![2, 1], false));
            drop(changes);
            changes = Changes::open(dir.path()).unwrap().0;
        }
        changes.record(&domain("c.test"), Change::MxInsecure, at(9));
        assert_eq!(numbers(&changes, &ChangeFilter::default(), 9).0, [1, 2, 3, 4, 5, 6]);
    }

    #[tokio::test]
    async fn the_oldest_changes_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let (changes, _) = Changes::open(dir.path()).unwrap();
        for second in 0..CHANGES_MAX + 3 {
            changes.record(&domain("a.test"), Change::MxInsecure, at(second as i64));
        }
        let (found, more) = numbers(&changes, &ChangeFilter::default(), CHANGES_MAX);
        assert_eq!((found.len(), found[0], more), (CHANGES_MAX, 4, false));
    }

    #[tokio::test]
    async fn a_loss_is_told_once_and_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (changes, _) = Changes::open(dir.path()).unwrap();
        let mx = domain("mx.a.test");
        assert!(!changes.observe(Guard::Tlsa, &mx, Now::Absent, at(0)), "it never was there");
        assert!(!changes.observe(Guard::Tlsa, &mx, Now::Secure, at(1)));
        drop(changes);
        let (changes, _) = Changes::open(dir.path()).unwrap();
        assert!(!changes.observe(Guard::Mx, &mx, Now::Insecure, at(2)), "another thing");
        assert!(!changes.observe(Guard::Tlsa, &mx, Now::Unknown, at(2)));
        assert!(changes.observe(Guard::Tlsa, &mx, Now::Absent, at(3)));
        assert!(!changes.observe(Guard::Tlsa, &mx, Now::Absent, at(4)));
        assert!(!changes.observe(Guard::Tlsa, &mx, Now::Secure, at(5)));
        assert!(changes.observe(Guard::Tlsa, &mx, Now::Insecure, at(6)));
    }

    #[tokio::test]
    async fn what_was_seen_long_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let (changes, _) = Changes::open(dir.path()).unwrap();
        for n in 0..=GUARDED_MAX {
            changes.observe(Guard::Tlsa, &domain(&format!("mx{n}.test")), Now::Secure, at(n as i64));
        }
        assert_eq!(changes.inner.guarded.len(), GUARDED_MAX - GUARDED_MAX / 10 + 1);
        let last = domain(&format!("mx{GUARDED_MAX}.test"));
        assert!(changes.observe(Guard::Tlsa, &last, Now::Absent, at(0)));
        assert!(!changes.observe(Guard::Tlsa, &domain("mx0.test"), Now::Absent, at(0)));
    }
}
