//! Golden texts.

use super::*;
use crate::delivery::explain::facts::{
    AddressFacts, AppliedFacts, Conclusion, HeldFacts, LocalFacts, RecordFacts, ResultFacts, TlsShown,
    Trouble, VerdictFacts,
};
use crate::mail::Domain;
use crate::sts::Mode;
use crate::tlspolicy::Rule;
use crate::tlsrpt::{PolicyType, ResultType};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn host(name: &str, preference: u16, ip: &str) -> HostExplained {
    HostExplained {
        host: name.to_owned(),
        preference,
        listed: Some(true),
        addresses: vec![AddressFacts { ip: ip.parse().unwrap(), refused: None }],
        address_trouble: None,
        tlsa: None,
        local: None,
        verdict: VerdictFacts {
            usable: true,
            rule: Rule::StsEnforce,
            require: Some("pkix".to_owned()),
            text: format!(
                "TLS with a trusted certificate for {name}, or nothing is sent \
                 (MTA-STS of the domain is in mode enforce)"
            ),
        },
        requiretls: None,
        out_of_reach: false,
        tls_rpt: vec![ReportFacts {
            policy_type: PolicyType::Sts,
            policy_domain: Domain::parse("a.example").unwrap(),
            expects: Some("TLS with a trusted certificate for the host".to_owned()),
            failures: None,
        }],
        tries: Vec::new(),
    }
}

fn explanation() -> Explanation {
    let found = |records: &[&str]| Asked {
        answer: "found".to_owned(),
        dnssec: Some("insecure".to_owned()),
        records: records.iter().map(|&record| record.to_owned()).collect(),
        ttl: Some(300),
        trouble: None,
    };
    let mut stray = host("stray.b.example", 20, "10.0.0.1");
    stray.listed = Some(false);
    stray.addresses[0].refused = Some("10.0.0.1 is private and not globally routable".to_owned());
    stray.verdict = VerdictFacts {
        usable: false,
        rule: Rule::StsEnforce,
        require: None,
        text: "mx host stray.b.example is not listed in the MTA-STS policy of a.example (mode enforce, id 7)"
            .to_owned(),
    };
    stray.tls_rpt[0].expects = None;
    stray.tls_rpt[0].failures = Some(vec![ResultFacts {
        result_type: ResultType::ValidationFailure,
        reason: Some("mx-not-in-policy:stray.b.example".to_owned()),
    }]);
    Explanation {
        pause: None,
        route: None,
        at: at("2026-01-10T12:00:00Z"),
        destination: Destination::parse("a.example").unwrap(),
        validator: None,
        conclusion: Conclusion {
            mail: Fate::Goes,
            text:
                "to mx.a.example first: TLS with a trusted certificate for mx.a.example, or nothing is sent \
                   (MTA-STS of the domain is in mode enforce)"
                    .to_owned(),
        },
        mx: Some(found(&["10 mx.a.example", "20 stray.b.example"])),
        implicit_mx: false,
        route_trouble: None,
        record: Some(RecordFacts {
            asked: found(&["v=STSv1; id=7;"]),
            id: Some("7".to_owned()),
            unusable: None,
        }),
        policy: Some(PolicyFacts {
            applies: Some(AppliedFacts {
                mode: Mode::Enforce,
                id: Some("7".to_owned()),
                mx: vec!["mx.a.example".to_owned()],
                max_age: 604_800,
            }),
            held: Some(HeldFacts {
                mode: Mode::Enforce,
                id: "7".to_owned(),
                fetched_at: at("2026-01-10T10:00:00Z"),
                expires_at: at("2026-01-17T10:00:00Z"),
                refresh_at: at("2026-01-11T10:00:00Z"),
            }),
            ..PolicyFacts::default()
        }),
        local: LocalFacts::default(),
        hosts: vec![host("mx.a.example", 10, "192.0.2.1"), stray],
        connected: false,
    }
}

#[test]
fn an_enforced_domain_is_explained_host_by_host() {
    let want = "\
mail to a.example goes: to mx.a.example first: TLS with a trusted certificate for mx.a.example, or
  nothing is sent (MTA-STS of the domain is in mode enforce)

MX          2 records, DNSSEC insecure, TTL 300 s: 10 mx.a.example, 20 stray.b.example
_mta-sts    id 7; one record, DNSSEC insecure, TTL 300 s
            \"v=STSv1; id=7;\"
policy      mode enforce, id 7, max_age 604800 s, mx mx.a.example
cache       mode enforce, id 7, fetched 2026-01-10T10:00:00Z (2h ago), expires 2026-01-17T10:00:00Z
            (in 6d), next fetch in 22h
local rule  none

10 mx.a.example
  verdict   use: TLS with a trusted certificate for mx.a.example, or nothing is sent (MTA-STS of the
            domain is in mode enforce)
  rule      mta-sts enforce
  policy    lists it
  TLSA      not looked up
  addresses 192.0.2.1
  TLS-RPT   sts a.example: success is TLS with a trusted certificate for the host

20 stray.b.example
  verdict   skip: mx host stray.b.example is not listed in the MTA-STS policy of a.example (mode
            enforce, id 7)
  rule      mta-sts enforce
  policy    does not list it
  TLSA      not looked up
  addresses 10.0.0.1, refused: 10.0.0.1 is private and not globally routable
  TLS-RPT   sts a.example: validation-failure (mx-not-in-policy:stray.b.example)";
    assert_eq!(lines(&explanation()).join("\n"), want);
}

#[test]
fn connections_are_shown_with_what_they_proved() {
    let mut explained = explanation();
    explained.connected = true;
    explained.hosts.truncate(1);
    let report = |failures| ReportFacts {
        expects: None,
        failures: Some(failures),
        ..explained.hosts[0].tls_rpt[0].clone()
    };
    let tls = |trouble: Option<&str>| {
        Some(TlsShown {
            version: "TLSv1.3".to_owned(),
            cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
            certificate_trouble: trouble.map(str::to_owned),
            tlsa_matches: None,
            chain_sha256: "ab".repeat(32),
        })
    };
    let failed = Try {
        address: "[2001:db8::1]:25".parse().unwrap(),
        in_clear: false,
        host_says: Some("mx.a.example".to_owned()),
        tls: tls(Some("certificate has expired (not valid after 2020-02-01)")),
        offers_requiretls: None,
        trouble: Some(Trouble {
            status: "4.7.5".to_owned(),
            text: "host mx.a.example: certificate has expired".to_owned(),
            permanent: false,
        }),
        tls_rpt: vec![report(vec![ResultFacts {
            result_type: ResultType::CertificateExpired,
            reason: Some("not valid after 2020-02-01".to_owned()),
        }])],
    };
    let good = Try {
        address: "192.0.2.1:25".parse().unwrap(),
        tls: tls(None),
        offers_requiretls: None,
        trouble: None,
        tls_rpt: vec![report(Vec::new())],
        ..failed.clone()
    };
    explained.hosts[0].tries = vec![failed, good];
    let text = lines(&explained).join("\n");
    let want = "\
  connection[2001:db8::1]:25, says it is mx.a.example
            TLSv1.3 TLS13_AES_256_GCM_SHA384
            certificate has expired (not valid after 2020-02-01)
            chain SHA-256 abababababababababababababababababababababababababababababababab
            4.7.5 host mx.a.example: certificate has expired
  TLS-RPT   sts a.example: certificate-expired (not valid after 2020-02-01)
  connection192.0.2.1:25, says it is mx.a.example
            TLSv1.3 TLS13_AES_256_GCM_SHA384
            certificate is trusted and names mx.a.example
            chain SHA-256 abababababababababababababababababababababababababababababababab
            ready for mail
  TLS-RPT   sts a.example: success"
        .replace("connection", "connect   ");
    assert!(text.ends_with(&want), "{text}");
}

#[test]
fn every_line_fits_and_nothing_foreign_steers_the_terminal() {
    let mut explained = explanation();
    let record = explained.record.as_mut().unwrap();
    record.asked.records = vec![format!("v=STSv1; \x1b[2J{}", "x".repeat(300))];
    explained.hosts[0].host = format!("{}.example", "m".repeat(120));
    explained.conclusion.text = "word ".repeat(100);
    let lines = lines(&explained);
    assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:#?}");
}

#[test]
fn addresses_and_domains_are_read_as_operators_paste_them() {
    for text in ["a.example", "b@a.example", "<b@a.example>", "B@A.Example"] {
        assert_eq!(whereto(text).unwrap().to_string(), "a.example", "{text}");
    }
    assert_eq!(whereto("b@[192.0.2.1]").unwrap(), Destination::parse("[192.0.2.1]").unwrap());
    for text in ["", "<>", "a..b", "@a.example", "a@b@"] {
        assert!(whereto(text).is_err(), "{text}");
    }
}

#[test]
fn the_json_reads_back() {
    let explained = explanation();
    let json = serde_json::to_string(&explained).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explained);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["conclusion"]["mail"], "goes");
    assert_eq!(value["record"]["answer"], "found");
    assert_eq!(value["hosts"][1]["verdict"]["rule"], "sts-enforce");
    assert_eq!(value["hosts"][1]["tls_rpt"][0]["failures"][0]["result_type"], "validation-failure");
}

#[test]
fn a_validator_out_of_order_is_told_before_what_it_makes_of_the_domain() {
    let mut explained = explanation();
    explained.validator = Some("validation broken: 127.0.0.1:53 refuses to answer".to_owned());
    let lines = lines(&explained);
    let at = |word: &str| lines.iter().position(|line| line.starts_with(word)).unwrap();
    assert!(at("DNSSEC") < at("MX"));
    assert_eq!(lines[at("DNSSEC")], "DNSSEC      validation broken: 127.0.0.1:53 refuses to answer");
}

#[test]
fn what_dane_says_of_a_certificate_is_told_before_what_pkix_would_say() {
    let mut explained = explanation();
    explained.connected = true;
    explained.hosts.truncate(1);
    let trouble = || Some("certificate is not trusted (no chain to a trusted root)".to_owned());
    for (matches, certificate_trouble, words) in [
        (
            Some(true),
            trouble(),
            "a TLSA record matches the certificate; without DANE: certificate is not trusted",
        ),
        (Some(true), None, "a TLSA record matches the certificate; without DANE: certificate is trusted"),
        (Some(false), None, "no TLSA record matches the certificate; without DANE: certificate is trusted"),
        (None, trouble(), "certificate is not trusted (no chain to a trusted root)"),
    ] {
        explained.hosts[0].tries = vec![Try {
            address: "192.0.2.1:25".parse().unwrap(),
            in_clear: false,
            host_says: None,
            tls: Some(TlsShown {
                version: "TLSv1.3".to_owned(),
                cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
                certificate_trouble,
                tlsa_matches: matches,
                chain_sha256: "ab".repeat(32),
            }),
            offers_requiretls: None,
            trouble: None,
            tls_rpt: Vec::new(),
        }];
        let said = lines(&explained).join(" ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(words), "{said}");
    }
}
