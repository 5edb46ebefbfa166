//! Whom reports are kept from, and what is left out of them.

use super::house::*;
use super::*;
use crate::store::targets::Refusal;

fn statuses(house: &House, of: &str) -> Vec<(RuaStatus, String)> {
    let told =
        |target: &crate::store::RuaState| (target.status.clone(), target.last.clone().unwrap_or_default());
    house.entry(of).targets.iter().map(told).collect()
}

async fn send(house: &House, of: &str) -> Vec<String> {
    outcomes(&house.reporting.send(None, Some(domain(of)), false).await)
}

#[tokio::test]
async fn a_denied_domain_is_not_even_asked_about() {
    let house = House::new(NOON);
    house.change(|options| options.hygiene.deny_domains = vec!["*.example.org".parse().unwrap()]);
    for of in ["a.example.org", "example.org"] {
        house.session(of, DURING);
        house.record(of, "https://rua.example/");
    }
    assert!(
        send(&house, "a.example.org").await[0].contains("not sent: the domain is in tlsrpt.deny_domains")
    );
    assert!(house.dns.asked.lock().unwrap().is_empty() && house.posts().is_empty());
    assert!(house.entry("a.example.org").note.unwrap().contains("deny_domains"));
    assert_eq!(send(&house, "example.org").await, ["example.org https://rua.example/ accepted"]);
}

#[tokio::test]
async fn denied_targets_and_this_relay_itself_get_nothing_and_the_others_do() {
    let house = House::new(NOON);
    house.change(|options| options.hygiene.deny_targets = vec!["victim@v.example".parse().unwrap()]);
    house.session("example.org", DURING);
    house.record(
        "example.org",
        "mailto:Victim@v.example,https://relay.sender.example/x,mailto:root@relay.sender.example,https://rua.example/",
    );
    let lines = send(&house, "example.org").await;
    assert!(lines[0].contains("withheld: the target is in tlsrpt.deny_targets"), "{lines:?}");
    for line in &lines[1..3] {
        assert!(line.contains("withheld: the target is this relay itself"), "{line}");
    }
    assert!(lines[3].ends_with("accepted"), "{lines:?}");
    assert!(house.queued().await.is_empty());
    assert!(statuses(&house, "example.org")[..3].iter().all(|(status, _)| *status == RuaStatus::Withheld));
    // Settled: nothing is due, also after a restart.
    let house = house.restart().await;
    assert_eq!(house.due("example.org").await, None);
    assert_eq!(house.posts().len(), 1);
}

#[tokio::test]
async fn a_target_that_fails_day_after_day_is_left_alone_for_a_week() {
    let house = House::new(NOON);
    let target = "https://rua.example/";
    for day in 1..=3 {
        assert!(
            house
                .reports
                .targets()
                .suppressed(target, house.reporting.suppress_rule(), house.clock.now())
                .is_none()
        );
        let of = format!("d{day}.example");
        house.clock.set(&format!("2026-11-2{day}T12:00:00Z"));
        house.session(&of, &format!("2026-11-2{}T12:00:00Z", day - 1));
        house.record(&of, target);
        house.answer(&vec![refused(); 2]);
        house.reporting.send(None, Some(domain(&of)), false).await;
        house.clock.set(&format!("2026-11-2{}T13:00:00Z", day + 1));
        let on = self::day(&format!("2026-11-2{}", day - 1));
        house.reporting.work(on, &domain(&of), Mode::Due).await;
        assert_eq!(house.reports.get(on, &domain(&of)).unwrap().targets[0].status, RuaStatus::GivenUp);
    }
    // From now on nobody's report goes there; over a restart.
    let house = house.restart().await;
    house.session("d4.example", "2026-11-23T12:00:00Z");
    house.record("d4.example", target);
    let posts = house.posts().len();
    let lines = send(&house, "d4.example").await;
    assert!(lines[0].contains("left alone until 2026-12-01T13:00:00Z: it failed 3 times"), "{lines:?}");
    assert_eq!(house.posts().len(), posts);
    // The week is over, and it takes one: all is forgotten.
    house.clock.set("2026-12-01T13:00:00Z");
    house.session("d5.example", "2026-11-30T12:00:00Z");
    house.record("d5.example", target);
    assert!(send(&house, "d5.example").await[0].ends_with("accepted"));
    assert!(house.reports.targets().standings().is_empty());
}

#[tokio::test]
async fn refused_report_mail_keeps_further_mail_from_its_target() {
    let house = House::new(NOON);
    house.session("example.org", DURING);
    house.record("example.org", "mailto:Gone@rua.example,mailto:there@rua.example");
    for _ in 0..3 {
        house.reports.targets().failed(
            "mailto:gone@rua.example",
            Refusal::Permanent,
            "550 no such user",
            house.clock.now(),
        );
    }
    let lines = send(&house, "example.org").await;
    assert!(lines[0].contains("withheld") && lines[0].contains("550 no such user"), "{lines:?}");
    assert!(lines[1].contains("queued as"), "{lines:?}");
    assert!(house.reports.targets().succeeded("mailto:gone@rua.example"));
    let again = outcomes(&house.reporting.send(None, Some(domain("example.org")), true).await);
    assert!(again[0].contains("queued as"), "forgiven: {again:?}");
}

#[tokio::test]
async fn the_bound_of_reports_to_one_target_holds_over_a_restart_and_any_spelling() {
    let house = House::new(NOON);
    house.change(|options| options.hygiene.reports_per_target = 3);
    for (number, rua) in
        ["mailto:v@rua.example", "mailto:V@RUA.example", "mailto:v@rua.example?x"].iter().enumerate()
    {
        house.session(&format!("d{number}.example"), DURING);
        house.record(&format!("d{number}.example"), rua);
    }
    let lines = outcomes(&house.reporting.send(None, None, false).await);
    assert!(lines.iter().all(|line| line.contains("queued as")), "{lines:?}");
    let house = house.restart().await;
    house.change(|options| options.hygiene.reports_per_target = 3);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    // A run takes up what was there before.
    house.reporting.clone().run(shutdown).await;
    house.session("late.example", DURING);
    house.record("late.example", "mailto:v@rua.example");
    let lines = send(&house, "late.example").await;
    assert!(
        lines[0].contains("withheld: 3 reports of this day were sent to this target already"),
        "{lines:?}"
    );
    assert_eq!(house.queued().await.len(), 3);
}

#[tokio::test]
async fn so_many_targets_of_a_record_are_used() {
    let house = House::new(NOON);
    house.change(|options| options.hygiene.targets_per_domain = 2);
    house.session("example.org", DURING);
    house.record("example.org", "https://a.example/,https://b.example/,https://c.example/");
    let lines = send(&house, "example.org").await;
    assert!(lines[2].contains("withheld: only the first 2 targets"), "{lines:?}");
    assert_eq!(house.posts(), ["https://a.example/", "https://b.example/"]);
}

#[tokio::test]
async fn our_addresses_and_the_names_of_hosts_are_left_out_where_wanted() {
    use crate::tlsrpt::{AppliedPolicy, FailureDetail, PolicyType, ResultType, SessionResult};
    let house = House::new(NOON);
    house.results.record(
        at(DURING),
        SessionResult {
            report_domain: domain("example.org"),
            policy: AppliedPolicy {
                policy_type: PolicyType::NoPolicyFound,
                policy_domain: domain("example.org"),
                policy_string: [].into(),
                mx_host: [].into(),
            },
            failures: vec![FailureDetail {
                result_type: ResultType::CertificateExpired,
                sending_mta_ip: Some("192.0.2.77".parse().unwrap()),
                receiving_mx_hostname: Some("mx.example.org".into()),
                receiving_mx_helo: Some("helo.example.org".into()),
                receiving_ip: Some("198.51.100.1".parse().unwrap()),
                failure_reason_code: None,
            }],
        },
    );
    house.record("example.org", "https://rua.example/");
    house.change(|options| {
        options.omit = crate::tlsrpt::omit::Omit { sending_mta_ip: true, receiving_mx_helo: true };
    });
    send(&house, "example.org").await;
    let posts = house.https.posts.lock().unwrap().clone();
    let text = gunzip(&posts[0].2);
    assert!(!text.contains("192.0.2.77") && !text.contains("helo.example.org"), "{text}");
    assert!(text.contains("mx.example.org") && text.contains("198.51.100.1"), "{text}");
}

#[tokio::test]
async fn a_hundred_thousand_domains_are_sent_page_by_page() {
    let house = House::new(NOON);
    for number in 0..25 {
        house.session(&format!("d{number:02}.example"), DURING);
        house.record(&format!("d{number:02}.example"), &format!("https://{number}.example/"));
    }
    let (mut after, mut pages, mut told) = (None, 0, Vec::new());
    loop {
        let (lines, next) = house.reporting.send_some(None, None, false, after.take(), 10).await;
        pages += 1;
        told.extend(lines);
        // A midnight between two pages does not change the day.
        house.clock.set("2026-11-23T00:10:00Z");
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((pages, told.len(), house.posts().len()), (3, 25, 25));
}
