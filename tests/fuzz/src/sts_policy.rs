//! A policy body, and how long what it says may live.
//!
//! The first octets are the clock; the rest is the body.

use jiff::Timestamp;
use stsrelay::mail::Domain;
use stsrelay::sts::freshness::{self, Fetch, Standing, TroubleKind, TxtFact};
use stsrelay::sts::policy::{MAX_AGE_MAX, POLICY_BYTES_MAX};
use stsrelay::sts::{CachedPolicy, Mode, MxPattern, StsPolicy};

use super::address::{check_domain, kept};
use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (now, later) = (instant(input.number()), instant(input.number()));
    let jitter = f64::from(input.octet()) / 256.0;
    let body = input.rest();
    let Ok(policy) = StsPolicy::parse(body) else { return };
    assert!(body.len() <= POLICY_BYTES_MAX && policy.text().as_bytes() == body);
    assert!(policy.max_age <= MAX_AGE_MAX);
    assert!(policy.mode == Mode::None || !policy.mx.is_empty());
    assert_eq!(kept(&policy), policy);
    policy.mx.iter().take(50).for_each(|pattern| check_pattern(&policy, pattern));
    // What a report repeats: lines, and nothing that is not in the text.
    for line in policy.lines().iter() {
        assert!(!line.contains(['\r', '\n']) && policy.text().contains(line.as_str()));
    }
    // RFC 8461 §3.2: LF or CRLF.
    let with_lf = policy.text().replace("\r\n", "\n");
    for text in [with_lf.clone(), with_lf.replace('\n', "\r\n")] {
        if let Ok(same) = StsPolicy::parse(text.as_bytes()) {
            assert_eq!((same.mode, same.max_age, &same.mx), (policy.mode, policy.max_age, &policy.mx));
        } else {
            assert!(text.len() > POLICY_BYTES_MAX, "{text:?}");
        }
    }
    check_life(policy, now, later, jitter);
}

fn check_pattern(policy: &StsPolicy, pattern: &MxPattern) {
    let (MxPattern::Exact(name) | MxPattern::Wildcard(name)) = pattern;
    check_domain(name);
    match pattern {
        MxPattern::Exact(name) => assert!(pattern.matches(name) && policy.allows(name)),
        MxPattern::Wildcard(parent) => {
            // §4.1: one label, no more and no less.
            assert!(!pattern.matches(parent));
            let Ok(below) = parent.prefixed("mx") else { return };
            assert!(pattern.matches(&below) && policy.allows(&below));
            if let Ok(deeper) = below.prefixed("a") {
                assert!(!pattern.matches(&deeper));
            }
        }
    }
}

fn check_life(policy: StsPolicy, now: Timestamp, later: Timestamp, jitter: f64) {
    let domain = Domain::parse("example.org").expect("a domain");
    let max_age = i64::from(policy.max_age);
    let Some(entry) = freshness::succeeded(&domain, policy.clone(), "1".into(), now, jitter) else {
        return assert_eq!(max_age, 0, "only what lives for no time is not kept");
    };
    let held = entry.held.clone().expect("a success holds the policy");
    assert!(held.expires_at() >= now && !held.is_expired(now));
    assert!(held.expires_at().as_second() - now.as_second() <= max_age);
    if now.as_second() + max_age < Timestamp::MAX.as_second() {
        assert_eq!(held.expires_at().as_second() - now.as_second(), max_age);
    }
    // Whatever the clock says afterwards, nothing but a success makes it live longer (I7).
    for at in [now, later, Timestamp::MIN, Timestamp::MAX] {
        let live = entry.live(at).is_some();
        for txt in [
            TxtFact::Record("1".into()),
            TxtFact::Record("2".into()),
            TxtFact::Unusable(stsrelay::sts::RecordError::Absent),
            TxtFact::Failed("no answer".into()),
        ] {
            let assessment = freshness::assess(Some(&entry), &txt, at);
            assert_eq!(matches!(assessment.standing, Standing::Policy(_)), live, "{txt:?} at {at}");
            assert!(live || assessment.fetch != Fetch::Background);
        }
        let failed =
            freshness::failed(&domain, Some(&entry), None, TroubleKind::Fetch, "no answer".into(), at);
        let dies = |entry: &CachedPolicy| entry.held.as_ref().map(|held| held.expires_at());
        assert!(dies(&failed).is_none_or(|end| end == held.expires_at()), "a failure never prolongs");
        assert_eq!(failed.live(at).is_some(), live);
        let _ = (entry.refresh_due_at(at), failed.refresh_due_at(at), failed.is_dead(at));
        if let Some(anchored) = entry.anchored(at) {
            assert!(dies(&anchored).expect("still held") <= held.expires_at(), "set back, never on");
        }
        assert_eq!(kept(&failed), failed);
    }
}

fn instant(number: u64) -> Timestamp {
    // Times the relay lives in, and now and then any at all.
    let second = match number >> 62 {
        0 => (number % (1 << 35)) as i64,
        1 => Timestamp::MAX.as_second() - (number % 100_000_000) as i64,
        2 => Timestamp::MIN.as_second() + (number % 100_000_000) as i64,
        _ => 1_790_000_000 + (number % (1 << 26)) as i64,
    };
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}
