//! A file said to hold TLS reports of others: JSON, gzip, zip, mail, mbox, one in another.
//!
//! First octet: whether it was asked for, and its name. The rest is the file.

use stsrelay::tlsrpt::read::{Sums, unpack};

use super::input::Input;

/// Reports and troubles of one file: entries and messages are bounded by its octets.
const FOUND_MAX: usize = 20_000;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let asked = input.flag();
    let name = input.pick(&[
        None,
        Some("a.json"),
        Some("a.json.gz"),
        Some("mx.test!example.org!1!2.json.gz"),
        Some("a.eml"),
        Some("a.zip"),
    ]);
    let file = input.rest();
    let mut sums = Sums::default();
    let mut found = 0;
    unpack(file, name, asked, &mut |one| {
        found += 1;
        assert!(is_clean(&one.place), "{:?}", one.place);
        match one.report {
            Err(text) => assert!(is_clean(&text) && text.len() < 1000, "{text:?}"),
            Ok(report) => {
                // Whatever a terminal is shown of it.
                let text = serde_json::to_string(&report).expect("it can be shown");
                let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                check_clean(&shown);
                // Numbers are as they were sent, so sums must stand any.
                assert!(
                    report.successful()
                        >= report.policies.first().map_or(0, |p| p.total_successful_session_count)
                );
                let _ = (report.failed(), report.sender().len());
                sums.add(&report);
            }
        }
    });
    assert!(found <= FOUND_MAX);
    let percent = sums.total.failed_percent();
    assert!((0.0..=100.0).contains(&percent), "{percent}");
}

fn check_clean(value: &serde_json::Value) {
    match value {
        serde_json::Value::String(text) => assert!(is_clean(text), "{text:?}"),
        serde_json::Value::Array(all) => all.iter().for_each(check_clean),
        serde_json::Value::Object(all) => all.iter().for_each(|(key, value)| {
            assert!(is_clean(key), "{key:?}");
            check_clean(value);
        }),
        _ => {}
    }
}

fn is_clean(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
