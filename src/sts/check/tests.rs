//! One row per finding.

use super::*;

const GOOD: &str = "version: STSv1\nmode: enforce\nmx: mx.a.example\nmx: *.b.example\nmax_age: 1209600\n";

fn good() -> Facts {
    Facts {
        domain: Domain::parse("a.example").unwrap(),
        mx: mx(&["mx.a.example", "one.b.example"]),
        record: txt(&["v=STSv1; id=1;"]),
        policy: Served::Body(GOOD.as_bytes().to_vec()),
        certificate_ends_soon: None,
        hosts: None,
        report: ReportRecord::Usable { targets: vec!["mailto:r@a.example".to_owned()], unusable: Vec::new() },
    }
}

fn mx(hosts: &[&str]) -> Asked<(u16, String)> {
    Asked::Found(hosts.iter().map(|&host| (10, host.to_owned())).collect())
}

fn txt(records: &[&str]) -> Asked<Vec<u8>> {
    Asked::Found(records.iter().map(|record| record.as_bytes().to_vec()).collect())
}

fn body(policy: &str) -> Served {
    Served::Body(policy.as_bytes().to_vec())
}

/// What is not as it should be.
fn found(facts: &Facts) -> Vec<(Severity, &'static str)> {
    let checked = check(facts);
    let wrong = checked.findings.iter().filter(|finding| finding.severity != Severity::Info);
    wrong.map(|finding| (finding.severity, finding.code)).collect()
}

#[test]
fn a_good_domain_has_nothing_but_information() {
    let checked = check(&good());
    assert!(!checked.is_bad() && checked.unanswered.is_empty());
    let codes: Vec<&str> = checked.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["record", "mode-enforce", "mx-listed", "tlsrpt"]);
}

#[test]
fn each_fault_has_its_finding() {
    use Severity::{High, Low, Medium};
    let trouble = |fault| Served::Trouble { fault, text: "GET x: y".to_owned() };
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = good();
        change(&mut facts);
        found(&facts)
    };
    let record = |records: &[&str]| with(&|facts| facts.record = txt(records));
    assert_eq!(with(&|facts| facts.record = Asked::NoName), [(High, "record-missing")]);
    assert_eq!(record(&["v=spf1 -all"]), [(High, "record-missing")]);
    assert_eq!(record(&["v=STSv1; id=1;", "v=STSv1; id=2;"]), [(High, "record-several")]);
    assert_eq!(record(&["v=STSv1; id=not-alnum;"]), [(High, "record-bad")]);
    for (fault, code) in [
        (FetchFault::Unreachable, "policy-unreachable"),
        (FetchFault::Certificate, "policy-certificate"),
        (FetchFault::Redirect, "policy-redirect"),
        (FetchFault::Status, "policy-status"),
        (FetchFault::ContentType, "policy-content-type"),
        (FetchFault::TooLong, "policy-too-long"),
    ] {
        assert_eq!(with(&|facts| facts.policy = trouble(fault)), [(High, code)]);
    }
    let policy = |from: &str, to: &str| {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        with(&move |facts| facts.policy = body(&text))
    };
    assert_eq!(policy("enforce", "Enforce"), [(High, "policy-invalid")]);
    assert_eq!(policy("enforce", "none"), [(High, "mode-none")]);
    assert_eq!(policy("enforce", "testing"), [(Medium, "mode-testing")]);
    assert_eq!(policy("1209600", "86399"), [(Medium, "max-age-short")]);
    assert_eq!(policy("1209600", "86400"), [(Low, "max-age-short")]);
    assert_eq!(policy("1209600", "604800"), []);
    assert_eq!(policy("max_age", "mode: enforce\nmax_age"), [(Low, "policy-odd")]);
    assert_eq!(policy("mx: mx.a.example\n", ""), [(High, "mx-not-listed")]);
    assert_eq!(policy("max_age", "mx: gone.a.example\nmax_age"), [(Low, "mx-unused")]);
    assert_eq!(
        with(&|facts| facts.policy =
            body(&GOOD.replace("enforce", "testing").replace("mx: mx.a.example\n", ""))),
        [(Medium, "mode-testing"), (Medium, "mx-not-listed")]
    );
    assert_eq!(
        with(&|facts| facts.certificate_ends_soon = Some("not valid after x".to_owned())),
        [(Medium, "certificate-ends-soon")]
    );
    let report = |report: ReportRecord| with(&move |facts| facts.report = report.clone());
    assert_eq!(report(ReportRecord::Absent), [(Medium, "tlsrpt-missing")]);
    assert_eq!(report(ReportRecord::Bad("x".to_owned())), [(Medium, "tlsrpt-bad")]);
    assert_eq!(
        report(ReportRecord::Usable {
            targets: vec!["mailto:r@a.example".to_owned()],
            unusable: vec![("http://a.example/".to_owned(), "x".to_owned())],
        }),
        [(Low, "tlsrpt-target")]
    );
}

#[test]
fn mx_answers_of_every_kind_are_held_against_the_policy() {
    use Severity::{High, Low, Medium};
    let with = |mx: Asked<(u16, String)>| found(&Facts { mx, ..good() });
    assert_eq!(with(Asked::NoName), [(High, "domain-missing")]);
    // The domain itself is the host then, and the policy does not list it.
    assert_eq!(
        with(Asked::NoData),
        [(High, "mx-not-listed"), (Low, "mx-implicit"), (Low, "mx-unused"), (Low, "mx-unused")]
    );
    assert_eq!(with(mx(&[""])), []);
    assert_eq!(with(mx(&["mx.a.example", "one.b.example", "192.0.2.1"])), [(Medium, "mx-bad")]);
    // A wildcard stands for one label.
    assert_eq!(with(mx(&["mx.a.example", "x.y.b.example"])), [(High, "mx-not-listed"), (Low, "mx-unused")]);
}

#[test]
fn questions_without_answer_are_told_and_nothing_is_concluded_from_them() {
    let failed = |name: &str| format!("DNS lookup of {name} failed");
    let facts = Facts {
        mx: Asked::Failed(failed("a")),
        record: Asked::Failed(failed("b")),
        report: ReportRecord::Failed(failed("c")),
        ..good()
    };
    assert_eq!(check(&facts).unanswered.len(), 3);
    assert_eq!(found(&facts), []);
}
