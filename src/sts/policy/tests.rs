//! Rows for the policy grammar and for matching.

use proptest::prelude::*;

use super::*;

const GOOD: &str =
    "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n";

fn policy(text: &str) -> StsPolicy {
    StsPolicy::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn bad(text: &str, hint: &str) {
    let error = StsPolicy::parse(text.as_bytes()).expect_err(text);
    assert!(error.0.contains(hint), "{text:?}: {error} does not say {hint:?}");
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

#[test]
fn the_policy_of_the_rfc_is_read() {
    let read = policy(GOOD);
    assert_eq!(read.mode, Mode::Enforce);
    assert_eq!(read.max_age, 604_800);
    let patterns: Vec<String> = read.mx.iter().map(ToString::to_string).collect();
    assert_eq!(patterns, ["mail.example.com", "*.example.net"]);
    assert!(read.warnings().is_empty());
}

#[test]
fn line_ends_may_be_lf_crlf_mixed_or_missing_at_the_end() {
    let want = policy(GOOD);
    for text in [
        GOOD.replace('\n', "\r\n"),
        GOOD.trim_end().to_owned(),
        GOOD.replace('\n', "\r\n").trim_end().to_owned(),
        GOOD.replacen('\n', "\r\n", 2),
    ] {
        let read = policy(&text);
        assert_eq!((read.mode, &read.mx, read.max_age), (want.mode, &want.mx, want.max_age), "{text:?}");
    }
}

#[test]
fn keys_come_in_any_order_and_blanks_around_values_are_taken_off() {
    let read = policy("max_age:86400\nmx:\t a.example \t\nmode:testing \nfuture: é\nversion:   STSv1\t");
    assert_eq!((read.mode, read.max_age, read.mx.len()), (Mode::Testing, 86_400, 1));
}

#[test]
fn each_required_key_must_be_there() {
    for key in ["version", "mode", "max_age", "mx"] {
        let text: String =
            GOOD.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        bad(&text, &format!("{key} is missing"));
    }
    bad("", "version is missing");
    bad("\r\n\r\n", "version is missing");
}

#[test]
fn mode_none_needs_no_mx_and_may_have_some() {
    assert_eq!(policy("version: STSv1\nmode: none\nmax_age: 60\n").mx, []);
    assert_eq!(policy("version: STSv1\nmode: none\nmx: a.example\nmax_age: 60\n").mx.len(), 1);
}

#[test]
fn of_a_repeated_key_the_first_counts_and_mx_accumulates() {
    let read = policy(
        "version: STSv1\nversion: STSv2\nmode: testing\nmode: enforce\nmode: bogus\nmax_age: 1\nmax_age: x\nmx: a.example\nmx: b.example\n",
    );
    assert_eq!((read.mode, read.max_age, read.mx.len()), (Mode::Testing, 1, 2));
    assert_eq!(read.warnings(), ["repeated key; the first counts"]);
}

#[test]
fn values_are_case_sensitive_and_exact() {
    let with = |from: &str, to: &str| GOOD.replace(from, to);
    bad(&with("mode: enforce", "mode: Enforce"), "line 2: mode is \"Enforce\"");
    bad(&with("mode: enforce", "mode: enforced"), "mode is");
    bad(&with("mode: enforce", "mode:"), "mode is");
    bad(&with("mode: enforce", "Mode: enforce"), "mode is missing");
    bad(&with("STSv1", "stsv1"), "version is");
    bad(&with("STSv1", "STSv2"), "version is");
    bad(&with("STSv1", "STSv1;"), "version is");
}

#[test]
fn max_age_is_one_to_ten_digits_and_clamped_to_a_year() {
    let with = |value: &str| GOOD.replace("604800", value);
    for (value, want) in [
        ("0", 0),
        ("1", 1),
        ("0000000007", 7),
        ("31557600", MAX_AGE_MAX),
        ("31557601", MAX_AGE_MAX),
        ("4294967295", MAX_AGE_MAX),
        ("9999999999", MAX_AGE_MAX),
    ] {
        assert_eq!(policy(&with(value)).max_age, want, "{value}");
    }
    assert!(policy(&with("31557600")).warnings().is_empty());
    assert_eq!(policy(&with("31557601")).warnings().len(), 1);
    for value in ["", "-1", "+1", "1d", "1.5", "1 2", "99999999999", "١", "0x10"] {
        bad(&with(value), "max_age is");
    }
}

#[test]
fn a_malformed_mx_makes_the_policy_invalid() {
    let with = |value: &str| GOOD.replace("mail.example.com", value);
    for value in [
        "",
        "*",
        "*.",
        "*..",
        "a.*.b",
        "mx*.b",
        "*.*.b",
        ".example.com",
        "a..b",
        "192.0.2.1",
        "[192.0.2.1]",
        "bücher.test",
        "*.bücher.test",
        "a.example b.example",
        "a.example,b.example",
        "-a.example",
    ] {
        bad(&with(value), "line 3: mx ");
    }
    assert_eq!(policy(&with("MX1.Example.TEST.")).mx[0], MxPattern::Exact(domain("mx1.example.test")));
    assert_eq!(
        policy(&with("*.xn--bcher-kva.test")).mx[0],
        MxPattern::Wildcard(domain("xn--bcher-kva.test"))
    );
}

#[test]
fn unknown_keys_are_ignored_and_kept_verbatim_for_reports() {
    let text = "version: STSv1\r\nmode:  testing \r\n\r\nfuture: é ü\r\nmx: A.Example\nmax_age: 60\r\n\n";
    let read = policy(text);
    assert_eq!(read.text(), text);
    let lines: Vec<&str> = read.lines().iter().map(String::as_str).collect();
    assert_eq!(lines, ["version: STSv1", "mode:  testing ", "future: é ü", "mx: A.Example", "max_age: 60"]);
    assert_eq!(read.warnings(), ["blank line between the fields"]);
    assert!(policy("version: STSv1\nmode: none\nmax_age: 1\nempty:\n").mx.is_empty());
}

#[test]
fn lines_that_are_no_fields_make_the_policy_invalid() {
    for (line, hint) in [
        ("mode : enforce", "bad key"),
        (" mode: enforce", "bad key"),
        ("<html>", "no \":\""),
        ("<a: b>", "bad key"),
        ("just text", "no \":\""),
        (": x", "bad key"),
        ("x: a\u{0}b", "control character"),
        ("x: a\rb", "control character"),
        ("abcdefghijklmnopqrstuvwxyzabcdefg: x", "bad key"),
    ] {
        bad(&format!("{GOOD}{line}\n"), hint);
    }
    assert!(StsPolicy::parse(b"version: STSv1\nmode: none\nmax_age: 1\nx: \xff\n").is_err());
    bad(&format!("\u{feff}{GOOD}"), "bad key");
}

#[test]
fn a_body_of_64_kib_is_read_and_one_octet_more_is_not() {
    let filler = |len: usize| {
        let mut text = GOOD.to_owned();
        while text.len() < len {
            let left = len - text.len();
            text.push_str(&if left > 200 { format!("x: {}\n", "y".repeat(96)) } else { " ".repeat(left) });
        }
        text
    };
    assert_eq!(policy(filler(POLICY_BYTES_MAX).trim_end()).mode, Mode::Enforce);
    assert!(StsPolicy::parse(filler(POLICY_BYTES_MAX + 1).as_bytes()).is_err());
}

#[test]
fn a_wildcard_stands_for_exactly_one_label() {
    let allows = |pattern: &str, mx: &str| {
        policy(&format!("version: STSv1\nmode: enforce\nmx: {pattern}\nmax_age: 1\n")).allows(&domain(mx))
    };
    assert!(allows("*.example.com", "mx1.example.com"));
    assert!(!allows("*.example.com", "example.com"));
    assert!(!allows("*.example.com", "a.b.example.com"));
    assert!(!allows("*.mx.microsoft", "x.h-v1.mx.microsoft")); // seen in the field
    assert!(!allows("*.example.com", "mx1.badexample.com"));
    assert!(!allows("*.example.com", "mx1.example.com.evil.test"));
    assert!(!allows("*.com", "localhost"));
    assert!(allows("mx1.example.com", "MX1.Example.COM."));
    assert!(allows("MX1.Example.COM.", "mx1.example.com"));
    assert!(!allows("mx1.example.com", "a.mx1.example.com"));
    assert!(!allows("example.com", "mx1.example.com"));
    assert!(allows("xn--bcher-kva.test", "bücher.test"));
}

#[test]
fn a_policy_survives_being_written_and_read() {
    let read = policy(GOOD);
    let json = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<StsPolicy>(&json).unwrap(), read);
    assert!(serde_json::from_str::<StsPolicy>("\"mode: enforce\"").is_err());
}

#[test]
fn an_error_never_repeats_more_than_a_little_of_the_body() {
    for text in ["x".repeat(5000), format!("mode: {}", "é".repeat(5000)), format!("mx: {}", "x".repeat(5000))]
    {
        assert!(StsPolicy::parse(text.as_bytes()).unwrap_err().0.len() < 200, "{text:.20}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in any::<Vec<u8>>(), tail in ".{0,80}") {
        let _ = StsPolicy::parse(&body);
        let _ = StsPolicy::parse(format!("{GOOD}{tail}").as_bytes());
    }
}
