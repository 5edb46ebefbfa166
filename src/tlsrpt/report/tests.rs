use super::*;
use crate::tlsrpt::PolicyType;

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn sts(id: &str) -> AppliedPolicy {
    AppliedPolicy {
        policy_type: PolicyType::Sts,
        policy_domain: domain("example.org"),
        policy_string: [
            "version: STSv1".into(),
            "mode: testing".into(),
            format!("x: {id}"),
            "mx: *.example.org".into(),
        ]
        .into(),
        mx_host: ["*.example.org".into()].into(),
    }
}

fn failure(result_type: ResultType, reason: &str) -> FailureDetail {
    FailureDetail {
        result_type,
        sending_mta_ip: Some("::ffff:192.0.2.1".parse().unwrap()),
        receiving_mx_hostname: Some("mx.example.org".into()),
        receiving_mx_helo: Some("mx.example.org".into()),
        receiving_ip: Some("2001:DB8:0::1".parse().unwrap()),
        failure_reason_code: Some(reason.into()),
    }
}

fn session(policy: AppliedPolicy, failures: Vec<FailureDetail>) -> SessionResult {
    SessionResult { report_domain: domain("example.org"), policy, failures }
}

fn tally(sessions: &[SessionResult]) -> Tally {
    let mut tally = Tally::new(domain("example.org"));
    sessions.iter().for_each(|session| tally.fold(session));
    tally
}

fn report(tally: Tally) -> Report {
    let contact = Mailbox::parse("postmaster@sender.example").unwrap();
    let day = Date::new(2026, 11, 21).unwrap();
    let id = report_id(day, 0xabc, &tally.report_domain, &contact);
    Report::make(tally, day, "Sender", &contact, id)
}

#[test]
fn the_report_is_exactly_the_json_of_the_rfc() {
    let tlsa = AppliedPolicy {
        policy_type: PolicyType::Tlsa,
        policy_domain: domain("mx.example.org"),
        policy_string: ["3 1 1 ab12".into()].into(),
        mx_host: ["never shown".into()].into(),
    };
    let none = AppliedPolicy {
        policy_type: PolicyType::NoPolicyFound,
        policy_domain: domain("bücher.example"),
        policy_string: [].into(),
        mx_host: [].into(),
    };
    let fetch = FailureDetail {
        result_type: ResultType::StsPolicyFetchError,
        sending_mta_ip: None,
        receiving_mx_hostname: None,
        receiving_mx_helo: None,
        receiving_ip: None,
        failure_reason_code: Some("404".into()),
    };
    let made = report(tally(&[
        session(sts("1"), vec![]),
        session(sts("1"), vec![failure(ResultType::CertificateExpired, "expired")]),
        session(sts("1"), vec![failure(ResultType::CertificateExpired, "expired"), fetch]),
        session(tlsa, vec![]),
        session(none, vec![]),
    ]));
    assert_eq!(
        made.render(),
        concat!(
            r#"{"organization-name":"Sender","#,
            r#""date-range":{"start-datetime":"2026-11-21T00:00:00Z","end-datetime":"2026-11-21T23:59:59Z"},"#,
            r#""contact-info":"postmaster@sender.example","#,
            r#""report-id":"20261121.0000000000000abc.example.org@sender.example","#,
            r#""policies":["#,
            r#"{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: testing","x: 1","mx: *.example.org"],"#,
            r#""policy-domain":"example.org","mx-host":["*.example.org"]},"#,
            r#""summary":{"total-successful-session-count":1,"total-failure-session-count":2},"#,
            r#""failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.1","#,
            r#""receiving-mx-hostname":"mx.example.org","receiving-mx-helo":"mx.example.org","#,
            r#""receiving-ip":"2001:db8::1","failed-session-count":2,"failure-reason-code":"expired"},"#,
            r#"{"result-type":"sts-policy-fetch-error","failed-session-count":1,"failure-reason-code":"404"}]},"#,
            r#"{"policy":{"policy-type":"tlsa","policy-string":["3 1 1 ab12"],"policy-domain":"mx.example.org"},"#,
            r#""summary":{"total-successful-session-count":1,"total-failure-session-count":0}},"#,
            r#"{"policy":{"policy-type":"no-policy-found","policy-domain":"xn--bcher-kva.example"},"#,
            r#""summary":{"total-successful-session-count":1,"total-failure-session-count":0}}]}"#,
        )
    );
    assert_eq!(made.label.file_name(), "sender.example!example.org!1795219200!1795305599.json.gz");
    assert_eq!(
        made.label.subject(),
        "Report Domain: example.org Submitter: sender.example \
         Report-ID: <20261121.0000000000000abc.example.org@sender.example>"
    );
}

#[test]
fn label_and_totals_are_read_back_from_the_text() {
    let bad = vec![failure(ResultType::ValidationFailure, "x")];
    let made = report(tally(&[session(sts("1"), vec![]), session(sts("2"), vec![]), session(sts("2"), bad)]));
    let (label, totals) = Label::read(&domain("example.org"), &made.render()).unwrap();
    assert_eq!(label, made.label);
    assert_eq!(totals, Totals { successful: 2, failed: 1, cut: false });
    assert!(Label::read(&domain("example.org"), "{}").is_err());
}

#[test]
fn all_result_types_have_their_registered_names() {
    let names = [
        (ResultType::StarttlsNotSupported, "starttls-not-supported"),
        (ResultType::CertificateHostMismatch, "certificate-host-mismatch"),
        (ResultType::CertificateExpired, "certificate-expired"),
        (ResultType::CertificateNotTrusted, "certificate-not-trusted"),
        (ResultType::ValidationFailure, "validation-failure"),
        (ResultType::TlsaInvalid, "tlsa-invalid"),
        (ResultType::DnssecInvalid, "dnssec-invalid"),
        (ResultType::DaneRequired, "dane-required"),
        (ResultType::StsPolicyFetchError, "sts-policy-fetch-error"),
        (ResultType::StsPolicyInvalid, "sts-policy-invalid"),
        (ResultType::StsWebpkiInvalid, "sts-webpki-invalid"),
    ];
    for (result_type, name) in names {
        assert_eq!(serde_json::to_string(&result_type).unwrap(), format!("\"{name}\""));
    }
}

#[test]
fn a_policy_changed_within_the_day_has_its_own_entry() {
    let tally = tally(&[session(sts("1"), vec![]), session(sts("2"), vec![]), session(sts("1"), vec![])]);
    let counts: Vec<_> = tally.policies.iter().map(|policy| policy.successful).collect();
    assert_eq!(counts, [2, 1]);
    assert_eq!(tally.sessions(), 3);
}

#[test]
fn a_session_with_several_failures_counts_once_and_each_detail_once() {
    let (a, b) = (failure(ResultType::ValidationFailure, "a"), failure(ResultType::TlsaInvalid, "b"));
    let tally = tally(&[session(sts("1"), vec![a.clone(), b.clone(), a.clone()])]);
    let policy = &tally.policies[0];
    assert_eq!((policy.successful, policy.failed), (0, 1));
    assert_eq!(policy.details, [(a, 1), (b, 1)]);
}

#[test]
fn a_flood_of_different_failures_stays_small_and_loses_no_count() {
    let mut tally = Tally::new(domain("example.org"));
    let flood = 3000;
    for n in 0..flood {
        let kind = if n % 2 == 0 { ResultType::CertificateNotTrusted } else { ResultType::ValidationFailure };
        tally.fold(&session(sts("1"), vec![failure(kind, &format!("{n}"))]));
    }
    let policy = &tally.policies[0];
    assert_eq!(policy.failed, flood);
    assert_eq!(policy.details.len(), DETAILS_MAX + 2);
    assert_eq!(policy.details.iter().map(|(_, count)| count).sum::<u64>(), flood);
    assert_eq!(policy.details_cut, flood - DETAILS_MAX as u64);

    let (label, totals) = Label::read(&domain("example.org"), &report(tally.clone()).render()).unwrap();
    assert_eq!((label.report_domain, totals.failed, totals.cut), (domain("example.org"), flood, true));

    // Everybody says as much as they may, in the characters that take most room.
    for n in 0..100 {
        let mut policy = sts(&format!("{n}"));
        let more = [policy.policy_string.to_vec(), vec!["\u{1}".repeat(60_000)]].concat();
        policy.policy_string = more.into();
        for m in 0..200 {
            let mut failure =
                failure(ResultType::CertificateNotTrusted, &format!("{m:03}{}", "𝕏".repeat(300)));
            failure.receiving_mx_helo = Some("𝕏".repeat(300));
            tally.fold(&session(policy.clone(), vec![failure]));
        }
    }
    assert_eq!(tally.sessions(), flood + 100 * 200);
    let last = tally.policies.last().unwrap();
    assert_eq!(*last.policy.policy_string, [POLICIES_CUT_TEXT]);
    assert_eq!(
        (last.policy.policy_domain.as_str(), last.policy.policy_type),
        ("example.org", PolicyType::Sts)
    );
    assert_eq!(tally.policies_cut, last.failed);
    let details: usize = tally.policies.iter().map(|policy| policy.details.len()).sum();
    assert!(details <= DETAILS_TOTAL_MAX + 11 * POLICIES_MAX, "{details}");
    let json = report(tally).render();
    assert!(json.len() < 10_000_000, "{}", json.len());
    assert_eq!(Label::read(&domain("example.org"), &json).unwrap().1.failed, flood + 100 * 200);
}

#[test]
fn further_policies_of_a_day_are_counted_together_by_type() {
    let mut tally = Tally::new(domain("example.org"));
    for n in 0..50 {
        tally.fold(&session(sts(&format!("{n}")), vec![]));
        let tlsa = AppliedPolicy {
            policy_type: PolicyType::Tlsa,
            policy_domain: domain(&format!("mx{n}.example.org")),
            policy_string: [format!("3 1 1 {n:02}")].into(),
            mx_host: [].into(),
        };
        tally.fold(&session(tlsa, vec![]));
    }
    assert_eq!((tally.policies.len(), tally.sessions()), (POLICIES_MAX + 2, 100));
    let collected: Vec<_> =
        tally.policies[POLICIES_MAX..].iter().map(|of| (of.policy.policy_type, of.successful)).collect();
    assert_eq!(collected, [(PolicyType::Sts, 34), (PolicyType::Tlsa, 34)]);
    assert!(Label::read(&domain("example.org"), &report(tally).render()).unwrap().1.cut, "and it is said");
}

#[test]
fn strings_of_others_become_strings_of_i_json() {
    let odd = failure(ResultType::ValidationFailure, "a\u{FFFF}b\u{FDD0}c\u{1FFFE}d\u{FFFD}e");
    let json = report(tally(&[session(sts("\u{10FFFF}"), vec![odd])])).render();
    assert!(json.contains("a\u{FFFD}b\u{FFFD}c\u{FFFD}d\u{FFFD}e"), "{json}");
    assert!(json.contains("x: \u{FFFD}"), "{json}");
}

#[test]
fn foreign_texts_are_cut_and_made_printable() {
    let mut foreign = failure(ResultType::ValidationFailure, &"ä\r\n".repeat(500));
    foreign.receiving_mx_helo = Some("x".repeat(5000));
    let tally = tally(&[session(sts("1"), vec![foreign])]);
    let (kept, _) = &tally.policies[0].details[0];
    assert_eq!(kept.failure_reason_code.as_ref().unwrap().chars().count(), 200);
    assert!(!kept.failure_reason_code.as_ref().unwrap().contains(char::is_control));
    assert_eq!(kept.receiving_mx_helo.as_ref().unwrap().len(), 255);
}

#[test]
fn days_are_utc_and_their_borders_sharp() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let day = Date::new(2026, 11, 21).unwrap();
    assert_eq!(day_of(at("2026-11-21T23:59:59.999Z")), day);
    assert_eq!(day_of(at("2026-11-22T00:00:00Z")), day.tomorrow().unwrap());
    assert_eq!(day_start(day), at("2026-11-21T00:00:00Z"));
    assert_eq!(day_end(day), at("2026-11-21T23:59:59Z"));
}

#[test]
fn an_unfinished_day_ends_now() {
    let made = report(tally(&[session(sts("1"), vec![])])).until("2026-11-21T11:30:00.5Z".parse().unwrap());
    assert!(made.render().contains(r#""end-datetime":"2026-11-21T11:30:00Z""#), "{}", made.render());
    assert!(made.label.file_name().ends_with("!1795219200!1795260600.json.gz"), "{}", made.label.file_name());
    let over = made.until("2026-12-01T00:00:00Z".parse().unwrap());
    assert!(over.label.end <= day_end(Date::new(2026, 11, 21).unwrap()));
}

#[test]
fn the_report_id_is_a_msg_id() {
    let contact = Mailbox::parse("a@sender.example").unwrap();
    let id = report_id(Date::new(2026, 1, 2).unwrap(), 7, &domain("_x.example.org"), &contact);
    assert_eq!(id, "20260102.0000000000000007._x.example.org@sender.example");
    let (left, right) = id.split_once('@').unwrap();
    for part in [left, right] {
        assert!(
            part.split('.').all(|atom| !atom.is_empty()
                && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
        );
    }
}

#[test]
fn a_tally_keeps_what_older_versions_wrote() {
    let tally: Tally = serde_json::from_str(r#"{"report_domain":"example.org","policies":[]}"#).unwrap();
    assert_eq!(tally, Tally::new(domain("example.org")));
}
