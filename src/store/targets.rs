//! How the targets of TLS reports stand: which fail, and what became of mail sent to them.
//!
//! Keeps what it is told. Whether a target is left alone is worked out from its failures and the
//! present rule, so that a changed rule holds at once. Nobody waits for the disk here: a count lost
//! to a power cut is made up for by the next failure. Bounded in number and time. Told by `delivery`
//! (mail) and `reporting` (posts), asked by `reporting` and the admin socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::ground::Ground;
use super::ledger::Ledger;
use super::queue::QueueError;
use crate::mail::header::sanitize;
use crate::queue::QueueId;
use crate::queue::retry::after;

/// Targets remembered that fail; some 300 octets each. Beyond it those that failed longest ago go.
pub const TARGETS_MAX: usize = 20_000;
/// Report mails whose end is remembered, for `report list`; some 300 octets each, a day of many domains.
pub const MAILS_MAX: usize = 100_000;
/// A failure says nothing any more after this.
const FAILURES_KEPT: Duration = Duration::from_secs(60 * 86_400);
/// As long as reports are listed, and a little more.
const MAILS_KEPT: Duration = Duration::from_secs(35 * 86_400);
/// Characters kept of what happened.
const TEXT_CHARS_MAX: usize = 200;

/// The targets. Cheap to clone; reads are from memory.
#[derive(Clone)]
pub struct Targets {
    standings: Arc<Ledger<Standing>>,
    mails: Arc<Ledger<MailEnd>>,
}

/// When a target is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuppressRule {
    /// After so many failures without a success between them.
    pub after: u32,
    /// For so long from the last one.
    pub keep: Duration,
}

/// A target that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// `mailto:` or `https:` URI.
    pub target: String,
    /// Failures since it last took a report.
    pub failures: u32,
    /// The first of them.
    pub first_at: Timestamp,
    /// The last of them.
    pub last_at: Timestamp,
    /// What the last one was. One line.
    pub reason: String,
}

impl Standing {
    /// The instant until which it is left alone, if it failed often enough; it may be over.
    pub fn suppressed_until(&self, rule: SuppressRule) -> Option<Timestamp> {
        (self.failures >= rule.after).then(|| after(self.last_at, rule.keep))
    }
}

/// How a report could fail at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Refused for good: each counts.
    Permanent,
    /// Not taken in 24 hours. It may be our own network's fault, so a day counts once.
    Expired,
}

/// What became of one report mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailEnd {
    /// The mail in our queue.
    pub id: QueueId,
    /// When it left the queue.
    pub at: Timestamp,
    /// Whether its host took it.
    pub delivered: bool,
    /// The reply, or why it failed. One line.
    pub text: String,
}

impl Targets {
    /// Opens or creates `report-targets` and `report-mails` below `data_dir`; returns what was repaired.
    /// Blocking.
    ///
    /// # Errors
    /// [`QueueError::Storage`].
    pub fn open_over(ground: &Ground, data_dir: &Path) -> Result<(Self, Vec<String>), QueueError> {
        let folder = data_dir.join("report-targets");
        let (standings, mut repaired) = Ledger::open(ground, &folder, "report-targets")?;
        let (mails, more) = Ledger::open(ground, &data_dir.join("report-mails"), "report-mails")?;
        repaired.extend(more);
        Ok((Self { standings: Arc::new(standings), mails: Arc::new(mails) }, repaired))
    }

    /// A report could not be delivered to a target.
    pub fn failed(&self, target: &str, refusal: Refusal, reason: &str, now: Timestamp) {
        let known = self.standings.get(target).filter(|known| now < after(known.last_at, FAILURES_KEPT));
        let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
        let counts = match (&known, refusal) {
            (Some(known), Refusal::Expired) => day(known.last_at) != day(now),
            _ => true,
        };
        let before = known.as_ref().map_or(0, |known| known.failures);
        if known.is_none() {
            self.make_room();
        }
        let standing = Standing {
            target: target.to_owned(),
            failures: before.saturating_add(u32::from(counts)),
            first_at: known.as_ref().map_or(now, |known| known.first_at),
            last_at: known.map_or(now, |known| known.last_at.max(now)),
            reason: one_line(reason),
        };
        self.standings.post(target.to_owned(), Some(standing));
    }

    /// A report reached a target: its failures are forgotten. Whether there were any.
    pub fn succeeded(&self, target: &str) -> bool {
        let known = self.standings.get(target).is_some();
        if known {
            self.standings.post(target.to_owned(), None);
        }
        known
    }

    /// What is known of a target that fails.
    pub fn standing(&self, target: &str) -> Option<Arc<Standing>> {
        self.standings.get(target)
    }

    /// Until when a target is left alone at `now`, and why.
    pub fn suppressed(
        &self,
        target: &str,
        rule: SuppressRule,
        now: Timestamp,
    ) -> Option<(Timestamp, Arc<Standing>)> {
        let standing = self.standings.get(target)?;
        let until = standing.suppressed_until(rule).filter(|until| now < *until)?;
        Some((until, standing))
    }

    /// All that fail, in order of target.
    pub fn standings(&self) -> Vec<Arc<Standing>> {
        self.standings.list()
    }

    /// Keeps what became of a report mail.
    pub fn mail_ended(&self, id: QueueId, delivered: bool, text: &str, at: Timestamp) {
        let end = MailEnd { id, at, delivered, text: one_line(text) };
        self.mails.post(id.to_string(), Some(end));
        // Ids ascend, so the first is the oldest.
        while self.mails.len() > MAILS_MAX
            && let Some(first) = self.mails.first()
        {
            self.mails.post(first.id.to_string(), None);
        }
    }

    /// What became of a report mail, if it has left the queue and that is remembered.
    pub fn mail(&self, id: QueueId) -> Option<Arc<MailEnd>> {
        self.mails.get(&id.to_string())
    }

    /// Forgets what is old.
    pub fn forget(&self, now: Timestamp) {
        for standing in self.standings.list() {
            if now >= after(standing.last_at, FAILURES_KEPT) {
                self.standings.post(standing.target.clone(), None);
            }
        }
        for end in self.mails.list() {
            if now >= after(end.at, MAILS_KEPT) {
                self.mails.post(end.id.to_string(), None);
            }
        }
    }

    /// Drops a hundredth of the targets, those that failed longest ago, when there are too many.
    fn make_room(&self) {
        if self.standings.len() < TARGETS_MAX {
            return;
        }
        let mut all = self.standings.list();
        all.sort_by_key(|standing| standing.last_at);
        for standing in all.iter().take(TARGETS_MAX / 100) {
            self.standings.post(standing.target.clone(), None);
        }
    }
}

fn one_line(text: &str) -> String {
    sanitize(text).chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SuppressRule = SuppressRule { after: 3, keep: Duration::from_secs(7 * 86_400) };
    const TARGET: &str = "mailto:gone@rua.example";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn open(dir: &Path) -> Targets {
        Targets::open_over(&Ground::machine(), dir).unwrap().0
    }

    #[tokio::test]
    async fn refusals_suppress_a_target_for_a_while_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let targets = open(dir.path());
        let now = at("2026-11-22T05:00:00Z");
        for _ in 0..2 {
            targets.failed(TARGET, Refusal::Permanent, "550 nobody\r\nhere", now);
        }
        assert_eq!(targets.suppressed(TARGET, RULE, now), None);
        targets.failed(TARGET, Refusal::Permanent, "550 nobody\r\nhere", now);
        drop(targets);
        let targets = open(dir.path());
        let (until, standing) = targets.suppressed(TARGET, RULE, now).unwrap();
        assert_eq!((until, standing.failures), (at("2026-11-29T05:00:00Z"), 3));
        assert!(!standing.reason.contains(['\r', '\n']), "{}", standing.reason);
        // It ends by itself; the next failure begins it again, a success ends everything.
        assert_eq!(targets.suppressed(TARGET, RULE, until), None);
        targets.failed(TARGET, Refusal::Permanent, "550", until);
        assert!(targets.suppressed(TARGET, RULE, until).is_some());
        assert!(targets.succeeded(TARGET) && !targets.succeeded(TARGET));
        assert_eq!(targets.suppressed(TARGET, RULE, until), None);
    }

    #[tokio::test]
    async fn what_may_be_our_own_fault_counts_once_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let targets = open(dir.path());
        for (when, failures) in [
            ("2026-11-22T05:00:00Z", 1),
            ("2026-11-22T23:59:59Z", 1),
            ("2026-11-23T00:00:00Z", 2),
            ("2026-11-23T09:00:00Z", 2),
            ("2026-11-24T01:00:00Z", 3),
        ] {
            targets.failed(TARGET, Refusal::Expired, "no answer", at(when));
            assert_eq!(targets.standing(TARGET).unwrap().failures, failures, "{when}");
        }
        // Much later it begins anew.
        targets.failed(TARGET, Refusal::Expired, "no answer", at("2027-06-01T00:00:00Z"));
        assert_eq!(targets.standing(TARGET).unwrap().failures, 1);
        targets.forget(at("2027-09-01T00:00:00Z"));
        assert!(targets.standings().is_empty());
    }

    #[tokio::test]
    async fn ends_of_mails_are_bounded_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let targets = open(dir.path());
        let id = |sequence| QueueId { node: 1, sequence };
        let now = at("2026-11-22T05:00:00Z");
        for sequence in 0..MAILS_MAX as u64 + 5 {
            targets.mail_ended(id(sequence), true, "250 ok", now);
        }
        assert_eq!(targets.mails.len(), MAILS_MAX);
        assert!(targets.mail(id(4)).is_none() && targets.mail(id(5)).is_some());
        targets.forget(after(now, MAILS_KEPT));
        assert_eq!(targets.mails.len(), 0);
    }

    #[tokio::test]
    async fn many_failing_targets_make_room_for_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let targets = open(dir.path());
        for number in 0..=TARGETS_MAX {
            let now = Timestamp::from_second(1_800_000_000 + number as i64).unwrap();
            targets.failed(&format!("https://{number}.example/"), Refusal::Expired, "x", now);
        }
        assert!(targets.standings().len() <= TARGETS_MAX);
        assert!(targets.standing("https://0.example/").is_none());
        assert!(targets.standing(&format!("https://{TARGETS_MAX}.example/")).is_some());
    }
}
