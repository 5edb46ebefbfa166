//! Rows: cached entry × TXT answer × clock, and what a fetch makes of the entry.

use super::super::policy::Mode;
use super::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;

fn at(offset: i64) -> Timestamp {
    Timestamp::from_second(NOW + offset).unwrap()
}

fn domain() -> Domain {
    Domain::parse("example.org").unwrap()
}

fn policy(mode: &str, max_age: u32) -> StsPolicy {
    StsPolicy::parse(
        format!("version: STSv1\nmode: {mode}\nmx: mx.example.org\nmax_age: {max_age}\n").as_bytes(),
    )
    .unwrap()
}

/// A policy of a week fetched at NOW under id `1`, refreshed after a day less a quarter at the most.
fn held() -> CachedPolicy {
    succeeded(&domain(), policy("enforce", 604_800), "1".to_owned(), at(0), 1.0).unwrap()
}

fn fails(entry: Option<&CachedPolicy>, id: Option<&str>, when: Timestamp) -> CachedPolicy {
    failed(&domain(), entry, id.map(str::to_owned), TroubleKind::Fetch, "status 500".to_owned(), when)
}

fn record(id: &str) -> TxtFact {
    TxtFact::Record(id.to_owned())
}

fn absent() -> TxtFact {
    TxtFact::Unusable(RecordError::Absent)
}

fn servfail() -> TxtFact {
    TxtFact::Failed("SERVFAIL".to_owned())
}

/// What `assess` says, in short words.
fn says(entry: Option<&CachedPolicy>, txt: &TxtFact, now: Timestamp) -> (&'static str, Fetch) {
    let assessment = assess(entry, txt, now);
    let standing = match assessment.standing {
        Standing::Policy(held) => match held.policy.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        },
        Standing::NoPolicy => "no policy",
        Standing::Unknown => "unknown",
    };
    (standing, assessment.fetch)
}

#[test]
fn the_first_contact_fetches_before_the_message_goes_on() {
    assert_eq!(says(None, &record("1"), at(0)), ("no policy", Fetch::Now));
    assert_eq!(says(None, &absent(), at(0)), ("no policy", Fetch::No));
    let several = TxtFact::Unusable(RecordError::Several);
    assert_eq!(says(None, &several, at(0)), ("no policy", Fetch::No));
    assert_eq!(says(None, &servfail(), at(0)), ("unknown", Fetch::No));
}

#[test]
fn a_held_policy_survives_everything_dns_can_say() {
    for txt in [record("1"), absent(), servfail()] {
        assert_eq!(says(Some(&held()), &txt, at(60)), ("enforce", Fetch::No), "{txt:?}");
    }
    assert_eq!(says(Some(&held()), &record("2"), at(60)), ("enforce", Fetch::Now));
    assert_eq!(
        says(Some(&held()), &TxtFact::Unusable(RecordError::Malformed("no id")), at(60)),
        ("enforce", Fetch::No)
    );
}

#[test]
fn a_bumped_id_with_a_failing_fetch_keeps_the_old_policy_and_its_id_and_age() {
    let entry = fails(Some(&held()), Some("2"), at(60));
    assert_eq!(entry.held, held().held);
    assert_eq!(says(Some(&entry), &record("2"), at(60 + 299)), ("enforce", Fetch::No));
    assert_eq!(says(Some(&entry), &record("2"), at(60 + 300)), ("enforce", Fetch::Now));
    // Another id is another matter.
    assert_eq!(says(Some(&entry), &record("3"), at(61)), ("enforce", Fetch::Now));
}

#[test]
fn ids_are_compared_for_equality_only() {
    let entry = succeeded(&domain(), policy("enforce", 604_800), "9".to_owned(), at(0), 1.0).unwrap();
    assert_eq!(says(Some(&entry), &record("1"), at(60)), ("enforce", Fetch::Now));
    let entry = succeeded(&domain(), policy("enforce", 604_800), "a".to_owned(), at(0), 1.0).unwrap();
    assert_eq!(says(Some(&entry), &record("A"), at(60)), ("enforce", Fetch::Now));
}

#[test]
fn after_a_failed_first_fetch_mail_goes_on_and_the_next_fetch_waits_five_minutes() {
    let entry = fails(None, Some("1"), at(0));
    assert_eq!(says(Some(&entry), &record("1"), at(1)), ("no policy", Fetch::No));
    assert_eq!(says(Some(&entry), &record("1"), at(299)), ("no policy", Fetch::No));
    assert_eq!(says(Some(&entry), &record("1"), at(300)), ("no policy", Fetch::Now));
    assert_eq!(says(Some(&entry), &record("2"), at(1)), ("no policy", Fetch::Now));
}

#[test]
fn a_policy_expires_strictly_after_max_age() {
    let entry = held();
    assert_eq!(says(Some(&entry), &absent(), at(604_800)).0, "enforce");
    let late = Timestamp::from_millisecond((NOW + 604_800) * 1000 + 1).unwrap();
    assert_eq!(says(Some(&entry), &absent(), late), ("no policy", Fetch::No));
    assert_eq!(says(Some(&entry), &record("1"), late), ("no policy", Fetch::Now));
    assert_eq!(says(Some(&entry), &servfail(), late), ("unknown", Fetch::No));
    // Expired and the fetch fails: as without MTA-STS, and the dead policy is not kept.
    let entry = fails(Some(&entry), Some("1"), late);
    assert_eq!(entry.held, None);
    assert_eq!(says(Some(&entry), &record("1"), late), ("no policy", Fetch::No));
}

#[test]
fn the_refetch_is_due_within_a_day_also_with_an_unchanged_or_missing_record() {
    for txt in [record("1"), absent(), servfail()] {
        assert_eq!(says(Some(&held()), &txt, at(DAY - 1)), ("enforce", Fetch::No), "{txt:?}");
        assert_eq!(says(Some(&held()), &txt, at(DAY)), ("enforce", Fetch::Background), "{txt:?}");
    }
}

#[test]
fn the_refetch_comes_well_before_the_end_and_is_spread() {
    let due = |max_age: u32, jitter: f64| {
        let entry = succeeded(&domain(), policy("enforce", max_age), "1".to_owned(), at(0), jitter).unwrap();
        entry.held.unwrap().refresh_at.as_second() - NOW
    };
    assert_eq!(due(31_557_600, 1.0), DAY);
    assert_eq!(due(31_557_600, 0.0), DAY * 3 / 4);
    assert_eq!(due(86_400, 1.0), DAY / 2);
    assert_eq!(due(3600, 0.0), 1350);
    assert_eq!(due(60, 0.0), 300); // after its end: asked for when mail wants it
}

#[test]
fn failing_refetches_are_spaced_out_and_never_lengthen_life() {
    let mut entry = fails(Some(&held()), Some("1"), at(DAY));
    assert_eq!(says(Some(&entry), &record("1"), at(DAY + 299)).1, Fetch::No);
    assert_eq!(says(Some(&entry), &record("1"), at(DAY + 300)).1, Fetch::Background);
    assert_eq!(says(Some(&entry), &absent(), at(DAY + 299)).1, Fetch::No);
    for _ in 0..100 {
        entry = fails(Some(&entry), None, at(2 * DAY));
    }
    assert_eq!(entry.refresh_due_at(at(2 * DAY)), Some(at(2 * DAY + 6 * 3600)));
    assert_eq!(entry.held.as_ref().unwrap().expires_at(), at(604_800));
    assert_eq!(entry.trouble.as_ref().unwrap().count, 101);
    assert_eq!(says(Some(&entry), &record("1"), at(604_801)).0, "no policy");
}

#[test]
fn a_success_starts_a_new_life_and_ends_the_trouble() {
    let entry = succeeded(&domain(), policy("enforce", 604_800), "2".to_owned(), at(DAY), 0.5).unwrap();
    assert_eq!(entry.trouble, None);
    assert_eq!(entry.held.as_ref().unwrap().expires_at(), at(DAY + 604_800));
    assert_eq!(says(Some(&entry), &record("2"), at(DAY + 604_800)).0, "enforce");
}

#[test]
fn mode_none_replaces_at_once_and_is_kept_for_its_own_life() {
    let entry = succeeded(&domain(), policy("none", 86_400), "2".to_owned(), at(60), 0.5).unwrap();
    assert_eq!(says(Some(&entry), &record("2"), at(61)), ("none", Fetch::No));
}

#[test]
fn max_age_zero_is_not_kept() {
    assert_eq!(succeeded(&domain(), policy("enforce", 0), "1".to_owned(), at(0), 0.5), None);
}

#[test]
fn a_clock_set_back_never_makes_a_policy_live_longer_than_max_age_from_there() {
    let year = 365 * DAY;
    let entry = held();
    assert_eq!(entry.anchored(at(0)), None);
    assert_eq!(entry.anchored(at(-300)), None); // small skew
    let anchored = entry.anchored(at(-year)).expect("fetched in the future");
    assert_eq!(says(Some(&anchored), &record("1"), at(-year)), ("enforce", Fetch::Background));
    assert_eq!(anchored.held.as_ref().unwrap().expires_at(), at(-year + 604_800));
    // A failing refetch changes nothing about that.
    let failing = fails(Some(&anchored), Some("1"), at(-year));
    assert_eq!(says(Some(&failing), &record("1"), at(-year + 604_801)).0, "no policy");
}

#[test]
fn a_trouble_or_due_time_from_the_future_holds_nothing_up() {
    let entry = fails(None, Some("1"), at(DAY));
    assert_eq!(says(Some(&entry), &record("1"), at(0)), ("no policy", Fetch::Now));
    let mut entry = fails(Some(&held()), Some("1"), at(10 * DAY));
    entry.held = held().held.map(|held| HeldPolicy { refresh_at: at(90 * DAY), ..held });
    assert_eq!(says(Some(&entry), &record("1"), at(0)), ("enforce", Fetch::Background));
    assert!(fails(None, None, at(DAY)).is_dead(at(0)));
}

#[test]
fn entries_are_dead_when_neither_policy_nor_fresh_trouble_is_left() {
    assert!(!held().is_dead(at(604_800)));
    assert!(held().is_dead(at(604_801)));
    let entry = fails(None, Some("1"), at(0));
    assert!(!entry.is_dead(at(DAY)));
    assert!(entry.is_dead(at(DAY + 1)));
}

#[test]
fn an_entry_survives_being_written_and_read() {
    for entry in [held(), fails(Some(&held()), None, at(5)), fails(None, Some("x"), at(5))] {
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<CachedPolicy>(&json).unwrap(), entry);
    }
}

#[test]
fn the_greatest_ages_and_instants_do_not_overflow() {
    let entry = succeeded(&domain(), policy("enforce", 4_294_967_295), "1".to_owned(), Timestamp::MAX, 1.0)
        .expect("kept");
    assert_eq!(entry.held.as_ref().unwrap().expires_at(), Timestamp::MAX);
    assert_eq!(says(Some(&entry), &record("1"), Timestamp::MAX).0, "enforce");
    assert!(entry.anchored(Timestamp::MIN).is_some());
}
