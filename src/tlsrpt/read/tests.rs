//! Reports as others send them, each with its liberties, and files made to do harm.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::Deviation::*;
use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/foreign-reports").join(name)
}

fn found(bytes: &[u8], name: Option<&str>, asked: bool) -> Vec<Found> {
    let mut all = Vec::new();
    unpack(bytes, name, asked, &mut |found| all.push(found));
    all
}

fn read(name: &str) -> Vec<Found> {
    found(&std::fs::read(fixture(name)).unwrap(), Some(name), false)
}

fn one(name: &str) -> ReadReport {
    let mut all = read(name);
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all.remove(0).report.unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn trouble(found: &[Found]) -> &str {
    match found {
        [Found { report: Err(why), .. }] => why,
        other => panic!("one trouble was expected: {other:?}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn each_deviation_is_read_all_the_same_and_named() {
    for (name, deviations) in [
        ("rfc8460-appendix-b.json", &[][..]),
        ("google.json", &[]),
        ("google.com!rcpt.example!1795219200!1795305599!001.json.gz", &[]),
        ("microsoft.json", &[DateWithoutZone, PolicyStringPacked]),
        ("byte-order-mark.json", &[ByteOrderMark]),
        ("utf16.json", &[Utf16]),
        ("not-utf8.json", &[NotUtf8]),
        ("trailing-octets.json", &[TrailingOctets]),
        ("numbers-as-text.json", &[NumberAsText]),
        ("count-unreadable.json", &[NumberAsText, CountUnreadable]),
        ("count-missing.json", &[CountMissing]),
        ("text-of-other-type.json", &[TextOfOtherType]),
        ("texts-instead-of-lists.json", &[PolicyStringNotArray, MxHostNotArray]),
        ("names-of-drafts.json", &[MxHostPattern, FailureErrorCode, KeySpelling]),
        ("mx-host-pattern-text.json", &[MxHostPattern, MxHostNotArray]),
        ("null-members.json", &[]),
        ("objects-instead-of-lists.json", &[FailureDetailsNotArray, PoliciesNotArray]),
        ("policies-missing.json", &[PoliciesMissing]),
        ("policy-unreadable.json", &[PolicyUnreadable]),
        ("policy-flat.json", &[PolicyFlat]),
        ("summary-missing.json", &[SummaryMissing]),
        ("label-missing.json", &[OrganizationMissing, ContactMissing, ReportIdMissing]),
        ("date-range-missing.json", &[DateRangeMissing]),
        ("date-range-beside.json", &[]),
        ("date-offset.json", &[]),
        ("date-seconds.json", &[DateForm]),
        ("date-blank.json", &[DateForm]),
        ("date-reversed.json", &[DateRangeReversed]),
        ("unknown-types.json", &[PolicyTypeUnknown, ResultTypeUnknown]),
        ("key-spelling.json", &[KeySpelling]),
        ("damaged-end.json.gz", &[GzipDamaged]),
        ("plain-by-the-name-of.json.gz", &[FileName]),
        ("packed-by-the-name-of.json", &[FileName]),
        ("packed-twice.json.gz", &[]),
        ("mail-base64.eml", &[]),
        ("mail-quoted-printable.eml", &[]),
        ("mail-other-type.eml", &[ContentType, FileName]),
        ("mail-line-feeds.eml", &[]),
        ("mail-forwarded.eml", &[]),
        ("mail-forwarded-encoded.eml", &[]),
        ("mail-body-only.eml", &[]),
        ("mail-no-end.eml", &[]),
    ] {
        let wanted: BTreeSet<Deviation> = deviations.iter().copied().collect();
        assert_eq!(one(name).deviations, wanted, "{name}");
    }
}

#[test]
fn what_deviates_says_what_was_meant() {
    let policy = |name: &str| one(name).policies.remove(0);
    let plain = policy("byte-order-mark.json");
    assert_eq!((plain.total_successful_session_count, plain.total_failure_session_count), (8, 2));
    for same in [
        "utf16.json",
        "trailing-octets.json",
        "numbers-as-text.json",
        "texts-instead-of-lists.json",
        "objects-instead-of-lists.json",
        "policy-flat.json",
        "policy-unreadable.json",
        "date-offset.json",
        "mail-body-only.eml",
        "damaged-end.json.gz",
        "packed-twice.json.gz",
    ] {
        assert_eq!(policy(same), plain, "{same}");
    }
    let days = |name: &str| {
        let report = one(name);
        (report.start_datetime.unwrap().to_string(), report.end_datetime.unwrap().to_string())
    };
    let day = ("2026-11-21T00:00:00Z".to_owned(), "2026-11-21T23:59:59Z".to_owned());
    for same in [
        "date-offset.json",
        "date-seconds.json",
        "date-blank.json",
        "date-range-beside.json",
        "microsoft.json",
        "key-spelling.json",
    ] {
        assert_eq!(days(same), day, "{same}");
    }
    assert_eq!(one("microsoft.json").policies[1].policy_string.len(), 2);
    assert!(one("microsoft.json").policies[1].policy_string[0].starts_with("3 1 1 8D02"));
    let draft = policy("names-of-drafts.json");
    assert_eq!(draft.mx_host, ["*.rcpt.example"]);
    assert_eq!(draft.failure_details[0].failure_reason_code.as_deref(), Some("expired"));
    assert_eq!(draft.failure_details[0].additional_information.as_deref(), Some("https://sender.example/"));
    assert_eq!(policy("summary-missing.json").total_failure_session_count, 2);
    assert_eq!(policy("count-missing.json").failure_details[0].failed_session_count, 1);
    assert_eq!(one("text-of-other-type.json").report_id.as_deref(), Some("4711"));
    assert_eq!(one("label-missing.json").sender(), "(unnamed)");
    // Types nobody registered stay as they are.
    let unknown = policy("unknown-types.json");
    assert_eq!(
        (unknown.policy_type.as_str(), unknown.failure_details[0].result_type.as_str()),
        ("dnssec", "certificate-revoked")
    );
    assert!(policy("null-members.json").failure_details.is_empty());
    assert_eq!((one("google.json").successful(), one("google.json").failed()), (46, 3));
}

#[test]
fn folders_of_reports_in_one_file_are_all_read() {
    let ids = |name: &str| -> Vec<(String, String)> {
        let id = |found: Found| (found.place, found.report.unwrap().report_id.unwrap());
        read(name).into_iter().map(id).collect()
    };
    let pair = |place: &str, id: &str| (place.to_owned(), id.to_owned());
    assert_eq!(
        ids("reports.zip"),
        [pair("entry a/one.json", "zip1@sender.example"), pair("entry a/two.json.gz", "zip2@sender.example")]
    );
    assert_eq!(
        ids("inbox.mbox"),
        [pair("message 1", "mbox1_rcpt.example"), pair("message 3", "2026-11-21T00:00:00Z_rcpt.example")]
    );
    assert_eq!(
        ids("list-of-reports.json"),
        [pair("", "list1@sender.example"), pair("", "list2@sender.example")]
    );
}

#[test]
fn what_is_no_report_is_told_where_one_was_promised() {
    assert!(trouble(&read("cut-short.json")).contains("not readable as JSON"));
    assert!(trouble(&read("cut-short.json.gz")).contains("gzip file is damaged"));
    assert!(trouble(&read("mail-broken.eml")).contains("neither gzip nor JSON"));
    for other in ["no-report.json", "mail-unrelated.eml"] {
        assert!(read(other).is_empty(), "{other}: somebody else's file in a folder");
    }
    let named = |bytes: &[u8]| trouble(&found(bytes, Some("x"), true)).to_owned();
    assert!(named(br#"{"name":"package"}"#).contains("no TLS report"));
    assert!(named(b"\x00\x01").contains("neither JSON"));
    assert!(named(b"PK\x03\x04broken").contains("zip file is damaged"));
}

#[test]
fn nothing_in_a_report_steers_a_terminal() {
    let report = one("steering-the-terminal.json");
    let mut texts = vec![report.sender().to_owned(), report.report_id.clone().unwrap()];
    let policy = &report.policies[0];
    texts.extend(policy.policy_domain.clone());
    let failure = &policy.failure_details[0];
    texts.extend([failure.result_type.clone(), failure.failure_reason_code.clone().unwrap()]);
    texts.extend(failure.receiving_mx_hostname.clone());
    for text in &texts {
        assert!(text.contains('?') && !text.chars().any(is_steering), "{text:?}");
    }
    assert_eq!(report.sender(), "Evil?[2J?Org?row");
    assert_eq!(clean(&"x".repeat(5000)).chars().count(), TEXT_CHARS_MAX + 1);
}

#[test]
fn a_small_file_does_not_unpack_to_a_large_one() {
    let bomb = gzip(&vec![b' '; UNPACKED_BYTES_MAX + 1]);
    assert!(bomb.len() < 1 << 20);
    assert!(trouble(&found(&bomb, Some("a.json.gz"), false)).contains("unpacks to more than 64 MB"));
    // A report text has a smaller limit.
    let long = gzip(&[&b"{\"policies\":[],\"x\":\""[..], &vec![b'x'; json::JSON_BYTES_MAX], b"\"}"].concat());
    assert!(trouble(&found(&long, None, true)).contains("larger than 16 MB"));
    // Packed in itself again and again.
    let mut nested = b"{}".to_vec();
    for _ in 0..20 {
        nested = gzip(&nested);
    }
    assert!(trouble(&found(&nested, None, true)).contains("too many times"));
    // The bound is one for all entries together.
    let part = gzip(&vec![b' '; UNPACKED_BYTES_MAX / 3]);
    let mut zip = Vec::new();
    let mut archive = rawzip::ZipArchiveWriter::new(&mut zip);
    for number in 0..5 {
        let name = format!("{number}.json.gz");
        let (mut entry, config) =
            archive.new_file(&name).compression_method(rawzip::CompressionMethod::STORE).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(&part).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    let all = found(&zip, None, true);
    assert!(all.iter().any(|found| found.report.as_ref().is_err_and(|why| why.contains("more than 64 MB"))));
}

#[test]
fn mail_is_followed_so_deep_and_no_deeper() {
    let report = std::fs::read_to_string(fixture("mail-base64.eml")).unwrap();
    let wrapped = |times: usize| {
        let mail = "Content-Type: message/rfc822\r\n\r\n".repeat(times) + &report;
        found(mail.as_bytes(), None, true)
    };
    assert!(matches!(&wrapped(5)[..], [Found { report: Ok(_), .. }]));
    assert!(trouble(&wrapped(100_000)).contains("nested too deeply"));
    let many =
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(100_000));
    assert!(trouble(&found(many.as_bytes(), None, true)).contains("more than 1000 parts"));
    let deep = "[".repeat(1 << 20);
    assert!(trouble(&found(deep.as_bytes(), None, true)).contains("not readable as JSON"));
}

#[test]
fn an_mbox_is_read_message_by_message() {
    let messages = |text: &str, max: usize| {
        let mut all = Vec::new();
        let took = |message: Option<&[u8]>| {
            all.push(message.map(|message| String::from_utf8(message.to_vec()).unwrap()));
        };
        mbox::messages(&mut text.as_bytes(), max, took).unwrap();
        all
    };
    let text = "From a\nA: 1\n\nFrom within\nFrom b 10:00\n\nFrom c 10:00\nB: 2\n\nlong long long\n\nFrom d 10:00\nC: 3\n";
    // A line `From ` that follows no empty one, or has no time, is text.
    let first = Some("A: 1\n\nFrom within\nFrom b 10:00\n\n".to_owned());
    assert_eq!(
        messages(text, 100),
        [first, Some("B: 2\n\nlong long long\n\n".into()), Some("C: 3\n".into())]
    );
    let few = messages(text, 12);
    assert_eq!(few, [None, None, Some("C: 3\n".to_owned())], "too large, and the others are read");
    assert!(messages("", 10).is_empty());
    let long = format!("From a\n\n{}From x 10:00\n", "y".repeat(1 << 16));
    assert_eq!(messages(&long, 1 << 20).len(), 1, "a piece of a long line begins nothing");
}

#[test]
fn a_report_is_counted_once() {
    let mut sums = Sums::default();
    let google = one("google.json");
    assert_eq!(sums.add(&google), Counted::Once);
    assert_eq!(sums.add(&one("mail-base64.eml")), Counted::Again, "the same by mail");
    let mut other = google.clone();
    other.policies[0].total_successful_session_count += 1;
    assert_eq!(sums.add(&other), Counted::AgainOtherwise);
    let mut another = google.clone();
    another.organization_name = Some("Another".to_owned());
    assert_eq!(sums.add(&another), Counted::Once, "ids are each sender's own");
    let unnamed = one("label-missing.json");
    assert_eq!((sums.add(&unnamed), sums.add(&unnamed)), (Counted::Once, Counted::Again));
    assert_eq!(sums.duplicates, 3);
    assert_eq!(sums.total, Sum { reports: 3, successful: 46 + 46 + 8, failed: 3 + 3 + 2 });
    let row = &sums.domains[&("rcpt.example".to_owned(), "sts".to_owned())];
    assert_eq!(*row, Sum { reports: 3, successful: 41 + 41 + 8, failed: 8 });
    let failed = Failed {
        result_type: "validation-failure".to_owned(),
        receiving_mx_hostname: Some("mx2.rcpt.example".to_owned()),
        failure_reason_code: None,
    };
    assert_eq!(sums.failures[&failed].sessions, 6);
    assert_eq!(sums.failures[&failed].organizations.len(), 2);
    assert!((sums.total.failed_percent() - 100.0 * 8.0 / 108.0).abs() < 1e-9);
}

#[test]
fn our_own_reports_are_read_without_a_deviation() {
    use crate::mail::{Domain, Mailbox};
    use crate::tlsrpt::report::{Report, Tally, report_id};
    use crate::tlsrpt::{AppliedPolicy, FailureDetail, PolicyType, ResultType, SessionResult};
    let domain = Domain::parse("rcpt.example").unwrap();
    let contact = Mailbox::parse("tls@sender.example").unwrap();
    let mut tally = Tally::new(domain.clone());
    let detail = FailureDetail {
        result_type: ResultType::TlsaInvalid,
        sending_mta_ip: Some("192.0.2.1".parse().unwrap()),
        receiving_mx_hostname: Some("mx.rcpt.example".into()),
        receiving_mx_helo: None,
        receiving_ip: None,
        failure_reason_code: Some("no record matches".into()),
    };
    let policy = AppliedPolicy {
        policy_type: PolicyType::Tlsa,
        policy_domain: domain.clone(),
        policy_string: ["3 1 1 ab".into()].into(),
        mx_host: [].into(),
    };
    let result = SessionResult { report_domain: domain.clone(), policy, failures: vec![detail] };
    tally.fold(&result);
    let day = jiff::civil::Date::new(2026, 11, 21).unwrap();
    let id = report_id(day, 1, &domain, &contact);
    let text = Report::make(tally, day, "Sender", &contact, id.clone()).render();
    let report = found(text.as_bytes(), None, true).remove(0).report.unwrap();
    assert_eq!(report.deviations, BTreeSet::new());
    assert_eq!((report.report_id, report.policies[0].total_failure_session_count), (Some(id), 1));
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), start in 0usize..5) {
        let starts: [&[u8]; 5] =
            [b"", b"\x1f\x8b\x08\0\0\0\0\0\0\0", b"PK\x03\x04", b"From x\nA: b\n\n", b"Content-Type: multipart/x; boundary=a\n\n--a\n"];
        let _ = found(&[starts[start], &bytes[..]].concat(), Some("a!b!c!d.json"), true);
    }
}
