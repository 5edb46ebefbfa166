use jiff::SignedDuration;

use super::super::fixture::item;
use super::*;
use crate::mail::Scope;

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(hours)
}

fn reply(code: u16) -> Reply {
    Reply::new(code, EnhancedStatus::new((code / 100) as u8, 0, 0), "x")
}

fn failure(permanence: Permanence, rule: Option<&str>) -> Failure {
    let class = if permanence == Permanence::Permanent { 5 } else { 4 };
    Failure {
        scope: Scope::Recipient,
        permanence,
        status: EnhancedStatus::new(class, 7, 5),
        text: "why".to_owned(),
        host: None,
        reply: None,
        rule: rule.map(str::to_owned),
    }
}

fn deferred(rule: Option<&str>) -> Outcome {
    Outcome::Deferred(failure(Permanence::Transient, rule))
}

#[test]
fn each_recipient_keeps_its_own_state_and_only_those_who_wait_are_tried() {
    let retry = RetryOptions::default();
    let mail = item("<a@example.net>", 4, at(0));
    let outcomes = [
        (0, Outcome::Delivered(reply(250))),
        (1, Outcome::Failed(failure(Permanence::Permanent, None))),
        (2, deferred(None)),
    ];
    let settled = mail.settle(&outcomes, at(1), &retry, 0.5);
    assert_eq!((&settled.newly_delivered[..], &settled.newly_failed[..]), (&[0][..], &[1][..]));
    assert_eq!(settled.settled, Settled::Again(at(1) + SignedDuration::from_mins(5)));
    let again = QueueItem { recipients: settled.recipients, attempts: 1, ..mail };
    assert_eq!(again.pending().map(|(index, _)| index).collect::<Vec<_>>(), [2, 3]);
    // What was said of those who are settled changes nothing any more.
    let outcomes = [
        (0, deferred(None)),
        (1, Outcome::Delivered(reply(250))),
        (2, Outcome::Delivered(reply(250))),
        (3, Outcome::Delivered(reply(250))),
    ];
    let last = again.settle(&outcomes, at(2), &retry, 0.5);
    assert_eq!((&last.newly_delivered[..], &last.newly_failed[..]), (&[2, 3][..], &[][..]));
    assert_eq!(last.settled, Settled::Done);
    assert!(matches!(last.recipients[1].state, RecipientState::Failed(_)));
}

#[test]
fn a_transient_failure_is_the_last_one_when_the_lifetime_is_over_and_keeps_its_rule() {
    let retry = RetryOptions::default();
    let mail = item("<a@example.net>", 2, at(0));
    let outcomes = [(0, deferred(None)), (1, deferred(Some("mta-sts enforce")))];
    let days = 24 * 5;
    let before = mail.settle(&outcomes, at(days) - SignedDuration::from_millis(1), &retry, 0.5);
    assert_eq!(before.settled, Settled::Again(at(days)), "given up in time, not a wait later");
    let over = mail.settle(&outcomes, at(days), &retry, 0.5);
    assert_eq!((over.settled, &over.newly_failed[..]), (Settled::Done, &[0, 1][..]));
    let status = |index: usize| match &over.recipients[index].state {
        RecipientState::Failed(failure) => failure.status.to_string(),
        other => panic!("{other:?}"),
    };
    // RFC 3463 X.4.7: delivery time expired; a policy's own code says more.
    assert_eq!((status(0), status(1)), ("5.4.7".to_owned(), "5.7.5".to_owned()));
    // A report has a shorter life of its own (RFC 8460 §5.5).
    let report = QueueItem { is_report: true, expires_at: Some(at(24)), ..mail };
    assert!(!report.is_expired(at(23), &retry) && report.is_expired(at(24), &retry));
}

#[test]
fn the_sender_is_warned_once_and_nobody_of_a_notice_or_a_report() {
    let retry = RetryOptions::default();
    let outcomes = [(0, deferred(None))];
    let warns = |item: &QueueItem, hours| item.settle(&outcomes, at(hours), &retry, 0.5).warn_delay;
    let mail = item("<a@example.net>", 1, at(0));
    assert!(!warns(&mail, 3) && warns(&mail, 4) && warns(&mail, 90));
    assert!(!warns(&QueueItem { delay_warned: true, ..mail.clone() }, 90));
    assert!(!warns(&QueueItem { is_report: true, ..mail.clone() }, 90));
    assert!(!warns(&item("<>", 1, at(0)), 90));
    // Not of what is given up, delivered or failed by then.
    assert!(!warns(&mail, 24 * 6));
    let done = [(0, Outcome::Delivered(reply(250)))];
    assert!(!mail.settle(&done, at(5), &retry, 0.5).warn_delay);
    assert_eq!(mail.settled_by(&retry), at(4));
    assert_eq!(QueueItem { delay_warned: true, ..mail }.settled_by(&retry), at(24 * 5));
}
