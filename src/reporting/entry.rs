//! The life of one report, as kept in `store::reports`.
//!
//! 1. The record is looked up. Until that gave an answer the entry has one target, the lookup itself
//!    (`dns:_smtp._tls.example.org?type=TXT`, RFC 4501), so that an operator sees what is waited for.
//! 2. The entry gets its targets, all `Waiting`, before anything is sent.
//! 3. `https:`: posted until accepted or given up after 24 hours (RFC 8460 §5.5).
//!    `mailto:`: the queue id is kept first (`Queued`, nothing said yet: hand-over under way), then
//!    the mail is queued, then the entry says so. A hand-over cut short is looked up in the queue.
//!
//! An entry begun before its day was over is partial: the whole day's report takes its place.
//! Pure. Called by `work` and `run`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::mail::Domain;
use crate::queue::QueueId;
use crate::queue::retry::after;
use crate::store::{ReportEntry, RuaState, RuaStatus};
use crate::tlsrpt::report::day_end;

/// A report is not tried any longer than this after its first try (RFC 8460 §5.5).
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The wait where `tlsrpt.retry` is empty.
const RETRY_FALLBACK: Duration = Duration::from_secs(15 * 60);

/// Not tried yet.
pub(super) fn waiting(rua: String, now: Timestamp) -> RuaState {
    RuaState { rua, status: RuaStatus::Waiting(now), attempts: 0, last: None }
}

/// The target that stands for the record's lookup.
pub(super) fn lookup(domain: &Domain, now: Timestamp) -> RuaState {
    waiting(format!("dns:_smtp._tls.{domain}?type=TXT"), now)
}

/// Whether a target is the record's lookup.
pub(super) fn is_lookup(target: &RuaState) -> bool {
    target.rua.starts_with("dns:")
}

/// The queue id of a hand-over that was begun and not confirmed.
pub(super) fn unconfirmed(target: &RuaState) -> Option<QueueId> {
    match target.status {
        RuaStatus::Queued(id) if target.last.is_none() => Some(id),
        _ => None,
    }
}

/// Whether a try at it was made, so that it counts for the target's bound.
pub(super) fn is_sent(target: &RuaState) -> bool {
    target.attempts > 0 || matches!(target.status, RuaStatus::Queued(_) | RuaStatus::Accepted)
}

/// Whether the entry was begun before its day was over.
pub(super) fn is_partial(entry: &ReportEntry) -> bool {
    entry.started_at.as_second() <= day_end(entry.day).as_second()
}

/// Whether the entry stands for the report that is due at `today`: none is to be begun any more.
pub(super) fn is_begun(entry: Option<&ReportEntry>, day: Date, today: Date) -> bool {
    entry.is_some_and(|entry| day >= today || !is_partial(entry))
}

/// When something is to be done next; `None` when everything is settled.
pub(super) fn next_due(entry: &ReportEntry) -> Option<Timestamp> {
    let due = |target: &RuaState| match target.status {
        RuaStatus::Waiting(at) => Some(at),
        RuaStatus::Queued(_) => unconfirmed(target).map(|_| entry.started_at),
        RuaStatus::Accepted | RuaStatus::GivenUp | RuaStatus::Withheld => None,
    };
    entry.targets.iter().filter_map(due).min()
}

/// Counts a failed try: tried again on schedule, given up when 24 hours are over.
pub(super) fn defer(
    target: &mut RuaState,
    started_at: Timestamp,
    now: Timestamp,
    retry: &[Duration],
    why: String,
) {
    target.attempts = target.attempts.saturating_add(1);
    target.last = Some(why);
    let end = after(started_at, GIVE_UP_AFTER);
    let nth = (target.attempts as usize - 1).min(retry.len().saturating_sub(1));
    let wait = retry.get(nth).copied().unwrap_or(RETRY_FALLBACK);
    // The last try is at the end itself, so that giving up is on time.
    target.status = match now >= end {
        true => RuaStatus::GivenUp,
        false => RuaStatus::Waiting(after(now, wait).min(end)),
    };
}

/// Ends a target for good.
pub(super) fn give_up(target: &mut RuaState, why: String) {
    target.status = RuaStatus::GivenUp;
    target.last = Some(why);
}

/// Nothing is sent to a target, by rule.
pub(super) fn withhold(target: &mut RuaState, why: String) {
    target.status = RuaStatus::Withheld;
    target.last = Some(why);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry(started_at: &str, targets: Vec<RuaState>) -> ReportEntry {
        ReportEntry {
            day: Date::new(2026, 11, 21).unwrap(),
            domain: Domain::parse("example.org").unwrap(),
            report_id: "id".into(),
            started_at: at(started_at),
            targets,
            note: None,
            json: "{}".into(),
        }
    }

    #[test]
    fn tries_follow_the_schedule_until_24_hours_are_over() {
        let started = at("2026-11-22T00:00:00Z");
        let retry = [5 * MINUTE, HOUR, 20 * HOUR];
        let mut target = waiting("https://a/".into(), started);
        let mut now = started;
        let mut times = Vec::new();
        while let RuaStatus::Waiting(next) = target.status {
            now = next;
            times.push(next.to_string());
            defer(&mut target, started, now, &retry, "refused".into());
        }
        assert_eq!(
            times,
            [
                "2026-11-22T00:00:00Z",
                "2026-11-22T00:05:00Z",
                "2026-11-22T01:05:00Z",
                "2026-11-22T21:05:00Z",
                "2026-11-23T00:00:00Z"
            ]
        );
        assert_eq!(target.status, RuaStatus::GivenUp);
        assert_eq!((target.attempts, target.last.as_deref()), (5, Some("refused")));
        assert_eq!(now, at("2026-11-23T00:00:00Z"));
    }

    #[test]
    fn what_is_due_next_is_the_earliest_and_a_hand_over_cut_short_is_due_at_once() {
        let id = QueueId { node: 1, sequence: 7 };
        let queued = |last: Option<&str>| RuaState {
            rua: "mailto:a@b.example".into(),
            status: RuaStatus::Queued(id),
            attempts: 0,
            last: last.map(str::to_owned),
        };
        let late = waiting("https://a/".into(), at("2026-11-22T09:00:00Z"));
        let early = waiting("https://b/".into(), at("2026-11-22T08:00:00Z"));
        let due = |targets| next_due(&entry("2026-11-22T01:00:00Z", targets)).map(|at| at.to_string());
        assert_eq!(due(vec![late.clone(), early]).as_deref(), Some("2026-11-22T08:00:00Z"));
        assert_eq!(due(vec![late, queued(None)]).as_deref(), Some("2026-11-22T01:00:00Z"));
        assert_eq!(due(vec![queued(Some("queued"))]), None);
        assert_eq!(due(vec![]), None);
        assert_eq!(unconfirmed(&queued(None)), Some(id));
    }

    #[test]
    fn an_entry_begun_within_its_day_is_partial() {
        let partial = entry("2026-11-21T23:59:59.9Z", vec![]);
        let whole = entry("2026-11-22T00:00:00Z", vec![]);
        assert!(is_partial(&partial) && !is_partial(&whole));
        let (day, next) = (whole.day, whole.day.tomorrow().unwrap());
        assert!(is_begun(Some(&partial), day, day), "while the day lasts it stands");
        assert!(!is_begun(Some(&partial), day, next), "then the whole day's report is due");
        assert!(is_begun(Some(&whole), day, next));
        assert!(!is_begun(None, day, next));
    }
}
