//! Reports against a JSON schema: ours meet RFC 8460 §4.4 to the letter, in every shape they take, and
//! the schema that other senders' reports meet as well.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use serde_json::{Map, Value, json};

use stsrelay::mail::{Domain, Mailbox};
use stsrelay::tlsrpt::report::{POLICIES_MAX, Report, Tally, report_id};
use stsrelay::tlsrpt::{AppliedPolicy, FailureDetail, PolicyType, ResultType, SessionResult};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/report-schema")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// The part of JSON Schema our schemas use; any other keyword is an error, so that none goes unheeded.
struct Schema(Value);

impl Schema {
    fn named(name: &str) -> Self {
        Self(read(&folder().join(name)))
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        self.holds(&self.0, value, "report")
    }

    fn holds(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let fault = |text: String| Err(format!("{place}: {text}: {value}"));
        let object = value.as_object();
        let length = value.as_str().map(|text| text.chars().count() as u64);
        for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
            match keyword.as_str() {
                "$schema" | "title" | "description" | "$defs" => {}
                "$ref" => {
                    let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").expect("a local name");
                    self.holds(&self.0["$defs"][name], value, place)?;
                }
                "type" => {
                    let good = match wanted.as_str().unwrap() {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "integer" => value.is_u64() || value.is_i64(),
                        other => panic!("type {other}"),
                    };
                    if !good {
                        return fault(format!("not of type {wanted}"));
                    }
                }
                "enum" if wanted.as_array().unwrap().contains(value) => {}
                "enum" => return fault(format!("none of {wanted}")),
                "anyOf" => {
                    let tries = wanted.as_array().unwrap().iter();
                    let faults: Vec<String> =
                        tries.map_while(|schema| self.holds(schema, value, place).err()).collect();
                    if faults.len() == wanted.as_array().unwrap().len() {
                        return Err(faults.join("; "));
                    }
                }
                "required" => {
                    let missing = wanted.as_array().unwrap().iter().find(|name| {
                        !object.is_some_and(|object| object.contains_key(name.as_str().unwrap()))
                    });
                    if let Some(missing) = missing {
                        return fault(format!("{missing} is missing"));
                    }
                }
                "additionalProperties" => {
                    let known = schema["properties"].as_object().unwrap();
                    let more = object.into_iter().flatten().find(|(name, _)| !known.contains_key(*name));
                    if let (Value::Bool(false), Some((name, _))) = (wanted, more) {
                        return fault(format!("{name} is not known"));
                    }
                }
                "properties" => {
                    for (name, member) in object.unwrap_or(&Map::new()) {
                        if let Some(schema) = wanted.get(name) {
                            self.holds(schema, member, &format!("{place}.{name}"))?;
                        }
                    }
                }
                "items" => {
                    for (nth, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.holds(wanted, item, &format!("{place}[{nth}]"))?;
                    }
                }
                "minItems" if value.as_array().is_none_or(|a| a.len() as u64 >= wanted.as_u64().unwrap()) => {
                }
                "minLength" if length.is_none_or(|length| length >= wanted.as_u64().unwrap()) => {}
                "maxLength" if length.is_none_or(|length| length <= wanted.as_u64().unwrap()) => {}
                "minimum" if value.as_i64().is_none_or(|number| number >= wanted.as_i64().unwrap()) => {}
                "maximum" if value.as_i64().is_none_or(|number| number <= wanted.as_i64().unwrap()) => {}
                "minItems" | "minLength" | "maxLength" | "minimum" | "maximum" => {
                    return fault(format!("{keyword} {wanted}"));
                }
                "format" if has_format(wanted.as_str().unwrap(), value.as_str().unwrap_or_default()) => {}
                "format" => return fault(format!("no {wanted}")),
                other => panic!("the schema says {other}, which is not understood here"),
            }
        }
        Ok(())
    }
}

fn has_format(format: &str, text: &str) -> bool {
    let dot_atom = |text: &str| {
        text.split('.').all(|atom| {
            !atom.is_empty()
                && atom.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
        })
    };
    let a_label = |text: &str| Domain::parse(text).is_ok_and(|domain| domain.as_str() == text);
    match format {
        "date-time" => text.parse::<Timestamp>().is_ok(),
        "local-date-time" => text.contains('T') && text.parse::<DateTime>().is_ok(),
        // As RFC 5952 writes them, or RFC 8460's own samples; never with brackets or a scope.
        "ip" => text.parse::<IpAddr>().is_ok(),
        "a-label" => a_label(text),
        "addr-spec" => Mailbox::parse(text).is_ok(),
        // RFC 5322 §3.6.4, and no `:` or `/` anywhere (RFC 8460 §5.3).
        "msg-id" => {
            text.split_once('@').is_some_and(|(left, right)| dot_atom(left) && a_label(right))
                && !text.contains([':', '/'])
        }
        other => panic!("format {other}"),
    }
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn policy(policy_type: PolicyType, of: &str, lines: &[&str], mx: &[&str]) -> AppliedPolicy {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    AppliedPolicy { policy_type, policy_domain: domain(of), policy_string: owned(lines), mx_host: owned(mx) }
}

fn failure(result_type: ResultType, connected: bool) -> FailureDetail {
    FailureDetail {
        result_type,
        sending_mta_ip: connected.then(|| "::ffff:192.0.2.1".parse().unwrap()),
        receiving_mx_hostname: connected.then(|| "mx.example.org".to_owned()),
        receiving_mx_helo: connected.then(|| "mx\u{1}.example.org \u{FFFF}ü".repeat(40)),
        receiving_ip: connected.then(|| "fe80::7".parse().unwrap()),
        failure_reason_code: Some("why\r\n it is".repeat(40)),
    }
}

const RESULT_TYPES: [ResultType; 11] = [
    ResultType::StarttlsNotSupported,
    ResultType::CertificateHostMismatch,
    ResultType::CertificateExpired,
    ResultType::CertificateNotTrusted,
    ResultType::ValidationFailure,
    ResultType::TlsaInvalid,
    ResultType::DnssecInvalid,
    ResultType::DaneRequired,
    ResultType::StsPolicyFetchError,
    ResultType::StsPolicyInvalid,
    ResultType::StsWebpkiInvalid,
];

/// One report with everything that can be in one.
fn everything(contact: &str) -> Value {
    let report_domain = domain("bücher.example");
    let of = report_domain.as_str();
    let sts = ["version: STSv1", "mode: enforce", "mx: *.example.org", "odd line", "max_age: 86400"];
    let mut policies = vec![
        policy(PolicyType::Sts, of, &sts, &["*.example.org"]),
        policy(PolicyType::Sts, of, &["<html>"], &[]),
        policy(PolicyType::Tlsa, "mx.example.org", &["3 1 1 ab12", "2 1 1 cd34"], &["never shown"]),
        policy(PolicyType::Tlsa, "mx2.example.org", &[], &[]),
        policy(PolicyType::NoPolicyFound, of, &["never shown"], &["never shown"]),
    ];
    policies.extend(
        (0..POLICIES_MAX).map(|n| policy(PolicyType::Sts, of, &[&format!("version: STSv{n}")], &["a.b"])),
    );
    let mut tally = Tally::new(report_domain.clone());
    for policy in policies {
        let session = |failures| SessionResult {
            report_domain: report_domain.clone(),
            policy: policy.clone(),
            failures,
        };
        tally.fold(&session(vec![]));
        for result_type in RESULT_TYPES {
            for connected in [true, false] {
                tally.fold(&session(vec![failure(result_type, connected)]));
            }
        }
    }
    let contact = Mailbox::parse(contact).unwrap();
    let day = Date::new(2026, 11, 21).unwrap();
    let id = report_id(day, 0xabc, &tally.report_domain, &contact);
    serde_json::from_str(&Report::make(tally, day, "Büro \u{FDD0}", &contact, id).render()).unwrap()
}

#[test]
fn our_reports_meet_the_schema_and_so_do_those_of_others() {
    let (ours, seen) = (Schema::named("ours.schema.json"), Schema::named("report.schema.json"));
    let report = everything("postmaster@sender.example");
    ours.check(&report).unwrap();
    seen.check(&report).unwrap();
    assert_eq!(report["policies"].as_array().unwrap().len(), POLICIES_MAX + 1);
    let mut others = 0;
    for entry in fs::read_dir(folder().join("others")).unwrap() {
        let path = entry.unwrap().path();
        seen.check(&read(&path)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        others += 1;
    }
    assert!(others >= 6, "{others}");
}

#[test]
fn what_deviates_is_found() {
    let (ours, seen) = (Schema::named("ours.schema.json"), Schema::named("report.schema.json"));
    let good = everything("postmaster@sender.example");
    let first = "/policies/0/failure-details/0";
    let rows: [(&str, Value, bool); 15] = [
        // Place, what is put there, and whether others may write so.
        ("/policies/0/policy/mx-host", json!("*.example.org"), true),
        ("/policies/0/policy/policy-string", json!([]), true),
        ("/policies/0/policy/policy-type", json!("mta-sts"), false),
        ("/policies/0/policy/policy-domain", json!("bücher.example"), false),
        ("/policies/0/policy/policy-domain", json!("example.org."), false),
        ("/policies/0/summary/total-successful-session-count", json!("1"), false),
        ("/policies/0/summary/total-successful-session-count", json!(-1), false),
        ("/policies/0/summary/total-successful-session-count", json!(1u64 << 53), false),
        ("/policies", json!({}), false),
        ("/contact-info", json!("mailto:a@b.example"), true),
        ("/report-id", json!("2026-11-20T00:00:00Z_example.org"), true),
        ("/date-range/start-datetime", json!("2026-11-21T00:00:00"), true),
        ("/date-range/start-datetime", json!("2026-11-21"), false),
        ("/policies/0/failure-details/0/receiving-ip", json!("[::1]"), false),
        ("/policies/0/failure-details/0/receiving-ip", json!(""), true),
    ];
    for (place, value, others_may) in rows {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        assert!(ours.check(&bad).is_err(), "{place}");
        assert_eq!(seen.check(&bad).is_ok(), others_may, "{place}: {:?}", seen.check(&bad));
    }
    for (place, member, value) in
        [("", "x", json!(1)), (first, "additional-information", json!("https://x/"))]
    {
        let mut bad = good.clone();
        bad.pointer_mut(place).unwrap().as_object_mut().unwrap().insert(member.to_owned(), value);
        assert!(ours.check(&bad).is_err() && seen.check(&bad).is_ok(), "{member}");
    }
    for (place, member) in [("", "report-id"), ("/policies/0", "summary"), (first, "failed-session-count")] {
        let mut bad = good.clone();
        bad.pointer_mut(place).unwrap().as_object_mut().unwrap().shift_remove(member);
        assert!(ours.check(&bad).is_err() && seen.check(&bad).is_err(), "{member}");
    }
}
