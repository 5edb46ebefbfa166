//! The demo says what it should, of the real program.

mod support;

#[allow(dead_code, reason = "nobody stays to look around")]
#[path = "demo/internet.rs"]
mod internet;
#[path = "demo/scenes.rs"]
mod scenes;
#[path = "demo/table.rs"]
mod table;

use internet::Internet;
use scenes::{Became, SCENES};

#[tokio::test]
async fn every_scene_ends_as_it_must_and_no_host_sees_mail_that_is_not_for_it() {
    let internet = Internet::start().await;
    let mut seen = internet.send_to_all().await;
    seen.push(internet.attack().await);
    assert_eq!(seen.len(), SCENES.len() + 1);
    for seen in &seen {
        assert_eq!(seen.became, seen.expected, "{}: {}", seen.about, seen.how);
        assert_eq!(seen.host_saw_envelope, seen.became != Became::Waits, "{}: {}", seen.about, seen.how);
    }
    let mail = table::mail(&seen);
    assert_eq!(mail.matches("NOT SENT").count(), 7, "{mail}");
    assert!(mail.contains("STARTTLS not available") && !mail.contains("BUT A HOST"), "{mail}");
    let bounces = table::bounces(&internet.bounces(&seen).await);
    assert!(bounces.contains("5.1.1 for somebody@nobody.test"), "{bounces}");
    let reports = table::reports(&internet.reports().await);
    for result in ["certificate-expired", "starttls-not-supported", "tlsa-invalid", "dnssec-invalid"] {
        assert!(reports.contains(result), "{reports}");
    }
    for text in [mail, bounces, reports] {
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
