//! The daily digest: what it says, and that it is mailed once.

use super::house::*;
use super::*;
use crate::mail::ReversePath;
use crate::store::Policies;
use crate::store::targets::Refusal;
use crate::sts::radar::Change;
use crate::sts::{CachedPolicy, StsPolicy};
use crate::tlsrpt::{AppliedPolicy, FailureDetail, PolicyType, ResultType, SessionResult};

fn failure(house: &House, of: &str, result_type: ResultType, when: &str) {
    let result = SessionResult {
        report_domain: domain(of),
        policy: AppliedPolicy {
            policy_type: PolicyType::NoPolicyFound,
            policy_domain: domain(of),
            policy_string: [].into(),
            mx_host: [].into(),
        },
        failures: vec![FailureDetail {
            result_type,
            sending_mta_ip: None,
            receiving_mx_hostname: Some(format!("mx.{of}")),
            receiving_mx_helo: None,
            receiving_ip: None,
            failure_reason_code: Some("\x1b[2Jexpired".to_owned()),
        }],
    };
    house.results.record(at(when), result);
}

fn policies(house: &House) -> Policies {
    Policies::open(house.dir.path()).unwrap().0
}

#[tokio::test]
async fn a_digest_tells_what_failed_what_is_new_and_what_did_not_arrive() {
    let house = House::new(NOON);
    let policies = policies(&house);
    let before = "2026-11-20T12:00:00Z";
    for _ in 0..3 {
        failure(&house, "old.example", ResultType::CertificateExpired, before);
        failure(&house, "old.example", ResultType::CertificateExpired, DURING);
    }
    failure(&house, "new.example", ResultType::StarttlsNotSupported, DURING);
    failure(&house, "old.example", ResultType::TlsaInvalid, DURING);
    house.session("fine.example", DURING);

    // A policy that cannot be fetched again, one that is well, and a change of yesterday and of today.
    let policy =
        StsPolicy::parse(b"version: STSv1\nmode: enforce\nmx: mx.danger.example\nmax_age: 604800\n").unwrap();
    let held = crate::sts::freshness::HeldPolicy {
        policy,
        id: "1".to_owned(),
        fetched_at: at("2026-11-17T12:00:00Z"),
        refresh_at: at("2026-11-18T12:00:00Z"),
    };
    let trouble = crate::sts::FetchTrouble {
        id: None,
        at: at(DURING),
        count: 5,
        kind: crate::sts::freshness::TroubleKind::Fetch,
        text: "no answer".to_owned(),
    };
    let well = crate::sts::freshness::HeldPolicy { refresh_at: at("2026-11-24T00:00:00Z"), ..held.clone() };
    for (name, held, trouble) in [("danger.example", held, Some(trouble)), ("well.example", well, None)] {
        policies.put(CachedPolicy { domain: domain(name), held: Some(held), trouble }).await.unwrap();
    }
    policies.changes().record(
        &domain("mx.weak.example"),
        Change::TlsaVanished { domains: Vec::new() },
        at(DURING),
    );
    policies.changes().record(
        &domain("mx.later.example"),
        Change::TlsaVanished { domains: Vec::new() },
        at(NOON),
    );

    // A report that was given up, and a target that is left alone.
    house.record("new.example", "https://dead.example/");
    house.answer(&[refused(), refused()]);
    house.reporting.send(None, Some(domain("new.example")), false).await;
    house.clock.set("2026-11-23T12:30:00Z");
    house.due("new.example").await;
    for _ in 0..3 {
        house.reports.targets().failed(
            "mailto:x@gone.example",
            Refusal::Permanent,
            "550 gone",
            house.clock.now(),
        );
    }

    let digest = house.reporting.digest(&policies, Some(day("2026-11-21"))).await;
    assert_eq!((digest.domains, digest.sessions, digest.failed), (3, 6, 5));
    let worst: Vec<_> =
        digest.worst.first.iter().map(|worst| (worst.domain.as_str(), worst.failed)).collect();
    assert_eq!(worst, [("old.example", 4), ("new.example", 1)]);
    assert_eq!(digest.worst.first[0].result_type, Some(ResultType::CertificateExpired));
    let mut new: Vec<_> =
        digest.new_failures.first.iter().map(|new| (new.domain.as_str(), new.result_type)).collect();
    new.sort();
    assert_eq!(
        new,
        [("new.example", ResultType::StarttlsNotSupported), ("old.example", ResultType::TlsaInvalid)]
    );
    assert_eq!(digest.policies.first.len(), 1);
    assert_eq!(
        (digest.policies.first[0].domain.as_str(), digest.policies.first[0].failures),
        ("danger.example", 5)
    );
    assert_eq!(digest.changes.first.len(), 1, "{:?}", digest.changes);
    assert_eq!(digest.undelivered.first.len(), 1, "{:?}", digest.undelivered);
    assert_eq!(digest.undelivered.first[0].target, "https://dead.example/");
    assert_eq!(digest.suppressed.first.len(), 1);
    assert!(!digest.is_quiet());

    assert_eq!(
        digest.headline(),
        "2026-11-21: 5 of 6 TLS sessions failed, 2 new failures, 1 policies in danger, 1 reports not delivered"
    );
    let text = digest.text();
    for wanted in [
        "- old.example: 4 of 4 sessions failed, mostly certificate-expired",
        "- new.example: starttls-not-supported in 1 sessions at mx.new.example: [2Jexpired",
        "- danger.example: applies until 2026-11-24T12:00:00Z; 5 fetches failed in a row, no",
        "mx.weak.example",
        "- 2026-11-21 new.example to https://dead.example/: 503 Service Unavailable",
        "- mailto:x@gone.example until 2026-11-30T12:30:00Z: 550 gone",
    ] {
        let flat = text.replace("\n  ", " ");
        assert!(flat.contains(wanted), "{wanted}\n{text}");
    }
    assert!(!text.contains("mx.later.example") && !text.contains("well.example"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
}

#[tokio::test]
async fn lists_of_a_digest_are_bounded_and_say_what_they_leave_out() {
    let house = House::new(NOON);
    let policies = policies(&house);
    for number in 0..300 {
        let of = format!("d{number}.example");
        for _ in 0..=number / 100 {
            failure(&house, &of, ResultType::CertificateExpired, DURING);
        }
    }
    let digest = house.reporting.digest(&policies, None).await;
    assert_eq!((digest.day, digest.failed), (day("2026-11-21"), 100 + 200 + 300));
    assert_eq!((digest.worst.first.len(), digest.worst.more), (50, 250));
    assert!(digest.worst.first.iter().all(|worst| worst.failed == 3));
    assert_eq!((digest.new_failures.first.len(), digest.new_failures.more), (50, 250));
    assert!(digest.text().contains("- and 250 more"));
}

fn wants_digest(house: &House) {
    house.change(|options| {
        options.digest.to = vec![crate::mail::Mailbox::parse("ops@sender.example").unwrap()]
    });
}

async fn when_due(house: &House, policies: &Policies) {
    house.reporting.mail_when_due(policies, &house.reporting.options()).await;
}

#[tokio::test]
async fn yesterdays_digest_is_mailed_once_when_its_time_has_come() {
    let house = House::new("2026-11-22T05:59:00Z");
    let known = policies(&house);
    failure(&house, "new.example", ResultType::CertificateExpired, DURING);
    when_due(&house, &known).await;
    assert!(house.queued().await.is_empty(), "nobody wants it");
    wants_digest(&house);
    when_due(&house, &known).await;
    assert!(house.queued().await.is_empty(), "too early");
    house.clock.set("2026-11-22T06:00:00Z");
    for _ in 0..3 {
        when_due(&house, &known).await;
    }
    let queued = house.queued().await;
    assert_eq!(queued.len(), 1);
    let item = &queued[0].item;
    assert!(!item.is_report, "its policies are enforced as those of any mail");
    assert_eq!(item.envelope.reverse_path, ReversePath::parse("<tlsrpt@sender.example>").unwrap());
    let mail = house.mail(item.id.queue_id).await;
    let subject = mail.field("Subject").unwrap();
    assert!(subject.starts_with("relay.sender.example 2026-11-21: 1 of 1 TLS sessions failed"), "{subject}");
    assert_eq!(mail.field("Auto-Submitted"), Some("auto-generated"));
    assert!(mail.field("DKIM-Signature").is_some());
    assert!(mail.text().contains("- new.example: 1 of 1 sessions failed"), "{}", mail.text());

    drop(known);
    let house = house.restart().await;
    wants_digest(&house);
    let known = policies(&house);
    when_due(&house, &known).await;
    assert_eq!(house.queued().await.len(), 1, "not again after a restart");
    house.clock.set("2026-11-23T06:00:00Z");
    when_due(&house, &known).await;
    assert_eq!(house.queued().await.len(), 2, "the next day's");
}

#[tokio::test]
async fn wherever_the_process_dies_the_digest_is_queued_once() {
    for nth in 0.. {
        let house = House::new(NOON);
        wants_digest(&house);
        let known = policies(&house);
        let ended = cut_at(nth, when_due(&house, &known)).await;
        drop(known);
        let house = house.restart().await;
        wants_digest(&house);
        let known = policies(&house);
        when_due(&house, &known).await;
        assert_eq!(house.queued().await.len(), 1, "cut at {nth}");
        if ended {
            assert!(nth >= 1, "{nth} await points");
            break;
        }
    }
}
