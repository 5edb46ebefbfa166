//! The table's rows, and the invariants over the whole cross product.

use std::sync::Arc;

use super::*;
use crate::tlsrpt::PolicyType;

const MX: &str = "mx.example.org";

const LOCAL_RULES: [LocalRule; 5] =
    [LocalRule::None, LocalRule::Encrypt, LocalRule::Verify, LocalRule::Dane, LocalRule::IgnoreSts];

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn policy(mode: &str, mx: &str) -> Option<Arc<StsPolicy>> {
    let text = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n");
    Some(Arc::new(StsPolicy::parse(text.as_bytes()).unwrap()))
}

fn usable() -> Tlsa {
    Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] }
}

fn unusable() -> Tlsa {
    Tlsa { usage: 9, selector: 9, matching: 9, data: vec![1] }
}

fn plain() -> HostFacts {
    HostFacts {
        mx: domain(MX),
        policy_domain: domain("example.org"),
        expanded: None,
        mx_status: DnssecStatus::Insecure,
        sts: None,
        sts_id: None,
        sts_trouble: None,
        tlsa: TlsaAnswer::Absent,
        tlsa_base: domain(MX),
        request: TlsRequest::None,
        local: LocalRule::None,
        local_text: None,
        dane_use: DaneUse::Enforce,
        dane_with_sts: DaneWithSts::Both,
    }
}

fn enforce() -> HostFacts {
    HostFacts { sts: policy("enforce", MX), sts_id: Some("4711".to_owned()), ..plain() }
}

fn with_tlsa(facts: HostFacts, records: Vec<Tlsa>) -> HostFacts {
    HostFacts { tlsa: TlsaAnswer::Secure(records), ..facts }
}

fn plan(facts: &HostFacts) -> TlsPlan {
    match decide(facts) {
        Verdict::Use(plan) => plan,
        Verdict::Skip(skip) => panic!("skipped: {skip:?}"),
    }
}

fn skip(facts: &HostFacts) -> SkipReason {
    match decide(facts) {
        Verdict::Use(plan) => panic!("used: {plan:?}"),
        Verdict::Skip(skip) => skip,
    }
}

/// The requirement in short words, with the rule.
fn says(facts: &HostFacts) -> (&'static str, Rule) {
    let plan = plan(facts);
    assert_eq!(plan.name, domain(MX));
    let words = match plan.require {
        Requirement::Dane { .. } => "dane",
        Requirement::DaneAndPkix { name, .. } => {
            assert_eq!(name, domain(MX));
            "dane and pkix"
        }
        Requirement::Encrypt => "encrypt",
        Requirement::Pkix { name } => {
            assert_eq!(name, domain(MX));
            "pkix"
        }
        Requirement::Opportunistic => "opportunistic",
    };
    (words, plan.rule)
}

/// The reported policies in short words.
fn reports(facts: &HostFacts) -> Vec<(PolicyType, String, Expectation)> {
    let entry = |report: ReportOn| {
        (report.policy.policy_type, report.policy.policy_domain.to_string(), report.expects)
    };
    plan(facts).report_on.into_iter().map(entry).collect()
}

#[test]
fn rows_without_dane() {
    assert_eq!(says(&plain()), ("opportunistic", Rule::Opportunistic));
    assert_eq!(says(&enforce()), ("pkix", Rule::StsEnforce));
    for mx in [MX, "other.example"] {
        let facts = HostFacts { sts: policy("testing", mx), ..plain() };
        assert_eq!(says(&facts), ("opportunistic", Rule::StsTesting));
        let facts = HostFacts { sts: policy("none", mx), ..plain() };
        assert_eq!(says(&facts), ("opportunistic", Rule::Opportunistic));
    }
    let insecure = HostFacts { tlsa: TlsaAnswer::Insecure, ..plain() };
    assert_eq!(says(&insecure), ("opportunistic", Rule::Opportunistic));
    assert_eq!(says(&HostFacts { tlsa: TlsaAnswer::Insecure, ..enforce() }), ("pkix", Rule::StsEnforce));
}

#[test]
fn rows_with_usable_tlsa_records() {
    let records = vec![usable(), unusable()];
    assert_eq!(says(&with_tlsa(plain(), records.clone())), ("dane", Rule::Dane));
    assert_eq!(says(&with_tlsa(enforce(), records.clone())), ("dane and pkix", Rule::DaneAndSts));
    for mode in ["testing", "none"] {
        let facts = HostFacts { sts: policy(mode, "other.example"), ..plain() };
        assert_eq!(says(&with_tlsa(facts, records.clone())), ("dane", Rule::Dane));
    }
    // Only usable records are matched against.
    let Requirement::Dane { records, names } = plan(&with_tlsa(plain(), records)).require else { panic!() };
    assert_eq!(records, [usable()]);
    assert_eq!(names, [domain(MX)]);
}

#[test]
fn rows_with_unusable_tlsa_records_only() {
    assert_eq!(says(&with_tlsa(plain(), vec![unusable()])), ("encrypt", Rule::DaneUnusable));
    assert_eq!(says(&with_tlsa(enforce(), vec![unusable()])), ("pkix", Rule::StsEnforce));
    for mode in ["testing", "none"] {
        let facts = HostFacts { sts: policy(mode, MX), ..plain() };
        assert_eq!(says(&with_tlsa(facts, vec![unusable()])), ("encrypt", Rule::DaneUnusable));
    }
}

#[test]
fn a_failed_tlsa_lookup_skips_the_host_whatever_else_holds() {
    for sts in [None, policy("enforce", MX), policy("testing", MX), policy("none", MX)] {
        for local in LOCAL_RULES {
            for dane_with_sts in [DaneWithSts::Both, DaneWithSts::Dane] {
                let tlsa = TlsaAnswer::Failed("SERVFAIL".to_owned());
                let skip = skip(&HostFacts { sts: sts.clone(), local, dane_with_sts, tlsa, ..plain() });
                assert_eq!(skip.rule, Rule::DaneLookupFailed);
                assert!(skip.text.contains("SERVFAIL") && skip.text.contains(MX), "{}", skip.text);
                assert_eq!(skip.report.len(), 1);
                assert_eq!(skip.report[0].1, ResultType::DnssecInvalid);
                assert_eq!(skip.report[0].0.policy_domain, domain(MX));
            }
        }
    }
    // A host the policy does not list is reported as such too.
    let tlsa = TlsaAnswer::Failed("SERVFAIL".to_owned());
    let skip = skip(&HostFacts { sts: policy("enforce", "other.example"), tlsa, ..plain() });
    assert_eq!(skip.report.len(), 2);
}

#[test]
fn enforce_skips_a_host_that_is_not_listed_and_says_so() {
    let facts = HostFacts { sts: policy("enforce", "*.other.example"), ..enforce() };
    let skip = skip(&facts);
    assert_eq!(skip.rule, Rule::StsEnforce);
    assert_eq!(
        skip.text,
        "mx host mx.example.org is not listed in the MTA-STS policy of example.org (mode enforce, id 4711)"
    );
    let (policy, result_type, reason) = &skip.report[0];
    assert_eq!((policy.policy_type, *result_type), (PolicyType::Sts, ResultType::ValidationFailure));
    assert_eq!(reason, "mx-not-in-policy:mx.example.org");
    assert_eq!(*policy.mx_host, ["*.other.example"]);
    assert_eq!(policy.policy_string[1], "mode: enforce");
    // TLSA records do not make up for it, unless the operator says that DANE is enough.
    for records in [vec![usable()], vec![unusable()]] {
        let facts = with_tlsa(facts.clone(), records);
        assert!(matches!(decide(&facts), Verdict::Skip(skip) if skip.rule == Rule::StsEnforce));
    }
}

#[test]
fn dane_may_be_enough_where_it_is_usable_and_only_there() {
    let enough = |facts: HostFacts| HostFacts { dane_with_sts: DaneWithSts::Dane, ..facts };
    assert_eq!(says(&enough(with_tlsa(enforce(), vec![usable()]))), ("dane", Rule::Dane));
    let unlisted = HostFacts { sts: policy("enforce", "other.example"), ..plain() };
    assert_eq!(says(&enough(with_tlsa(unlisted.clone(), vec![usable()]))), ("dane", Rule::Dane));
    assert_eq!(says(&enough(with_tlsa(enforce(), vec![unusable()]))), ("pkix", Rule::StsEnforce));
    assert_eq!(says(&enough(enforce())), ("pkix", Rule::StsEnforce));
    assert_eq!(skip(&enough(unlisted)).rule, Rule::StsEnforce);
}

#[test]
fn local_rules_only_raise_the_bar() {
    let with = |local, facts: HostFacts| HostFacts { local, ..facts };
    let testing = HostFacts { sts: policy("testing", MX), ..plain() };
    for facts in [plain(), testing] {
        assert_eq!(says(&with(LocalRule::Encrypt, facts.clone())), ("encrypt", Rule::LocalOverride));
        assert_eq!(says(&with(LocalRule::Verify, facts)), ("pkix", Rule::LocalOverride));
    }
    assert_eq!(says(&with(LocalRule::Encrypt, enforce())), ("pkix", Rule::StsEnforce));
    assert_eq!(says(&with(LocalRule::Verify, enforce())), ("pkix", Rule::StsEnforce));
    let dane = with_tlsa(plain(), vec![usable()]);
    assert_eq!(says(&with(LocalRule::Encrypt, dane.clone())), ("dane", Rule::Dane));
    assert_eq!(says(&with(LocalRule::Verify, dane)), ("dane and pkix", Rule::LocalOverride));
    let unlisted = HostFacts { sts: policy("enforce", "other.example"), ..plain() };
    assert_eq!(skip(&with(LocalRule::Verify, unlisted)).rule, Rule::StsEnforce);
}

#[test]
fn ignore_sts_is_as_if_there_were_no_policy_and_leaves_dane_alone() {
    let with = |facts: HostFacts| HostFacts { local: LocalRule::IgnoreSts, ..facts };
    let unlisted = HostFacts { sts: policy("enforce", "other.example"), ..plain() };
    for facts in [plain(), enforce(), unlisted.clone()] {
        assert_eq!(says(&with(facts.clone())), ("opportunistic", Rule::LocalOverride));
        assert_eq!(reports(&with(facts))[0].0, PolicyType::NoPolicyFound);
    }
    assert_eq!(says(&with(with_tlsa(unlisted, vec![usable()]))), ("dane", Rule::Dane));
    assert_eq!(says(&with(with_tlsa(enforce(), vec![unusable()]))), ("encrypt", Rule::DaneUnusable));
}

#[test]
fn requiretls_wants_a_host_that_is_vouched_for_and_authenticated() {
    let with = |facts: HostFacts| HostFacts { request: TlsRequest::Required, ..facts };
    let signed = |facts: HostFacts| HostFacts { mx_status: DnssecStatus::Secure, ..facts };
    assert_eq!(says(&with(enforce())), ("pkix", Rule::StsEnforce));
    assert_eq!(says(&with(signed(plain()))), ("pkix", Rule::RequireTls));
    assert_eq!(says(&with(signed(with_tlsa(plain(), vec![unusable()])))), ("pkix", Rule::RequireTls));
    assert_eq!(says(&with(signed(with_tlsa(plain(), vec![usable()])))), ("dane", Rule::Dane));
    let testing = HostFacts { sts: policy("testing", MX), ..plain() };
    let ignored = HostFacts { local: LocalRule::IgnoreSts, ..enforce() };
    for facts in [plain(), testing, ignored, with_tlsa(plain(), vec![usable()])] {
        let skip = skip(&with(facts));
        assert_eq!((skip.rule, skip.report), (Rule::RequireTls, Vec::new()));
        assert!(skip.text.contains("REQUIRETLS") && skip.text.contains(MX));
    }
    // A policy that may exist may vouch for the host later; one that does not exist will not.
    assert_eq!(skip(&with(plain())).permanence, Permanence::Permanent);
    let unknown = HostFacts { sts_trouble: Some("connection refused".to_owned()), ..plain() };
    assert_eq!(skip(&with(unknown.clone())).permanence, Permanence::Transient);
    let held = HostFacts { sts: policy("testing", MX), ..unknown };
    assert_eq!(skip(&with(held)).permanence, Permanence::Permanent);
    // A host that is the domain itself was named by nobody (RFC 8689 §2).
    let itself = HostFacts { policy_domain: domain(MX), ..plain() };
    assert_eq!(says(&with(itself)), ("pkix", Rule::RequireTls));
    for mx_status in [DnssecStatus::Bogus, DnssecStatus::Indeterminate] {
        assert_eq!(skip(&with(HostFacts { mx_status, ..plain() })).rule, Rule::RequireTls);
    }
}

#[test]
fn tls_not_required_delivers_anyway_and_counts_but_yields_to_local_rules() {
    let with = |facts: HostFacts| HostFacts { request: TlsRequest::NotRequired, ..facts };
    let unlisted = HostFacts { sts: policy("enforce", "other.example"), ..plain() };
    let failed = HostFacts { tlsa: TlsaAnswer::Failed("SERVFAIL".to_owned()), ..plain() };
    for facts in [plain(), enforce(), unlisted, failed, with_tlsa(enforce(), vec![usable()])] {
        assert_eq!(says(&with(facts.clone())), ("opportunistic", Rule::TlsNotRequired));
        assert!(!plan(&with(facts)).report_on.is_empty());
    }
    // Counted by the policies that would have decided.
    assert_eq!(reports(&with(enforce())), reports(&enforce()));
    let both = with_tlsa(enforce(), vec![usable()]);
    assert_eq!(plan(&with(both.clone())).report_on, plan(&both).report_on);
    assert_eq!(plan(&with(both.clone())).sni, plan(&both).sni);
    let of = |facts: HostFacts| plan(&with(facts)).report_on.remove(0).expects;
    let unlisted = HostFacts { sts: policy("enforce", "other.example"), ..plain() };
    assert!(matches!(of(unlisted), Expectation::Never(ResultType::ValidationFailure, _)));
    let failed = HostFacts { tlsa: TlsaAnswer::Failed("SERVFAIL".to_owned()), ..plain() };
    assert!(matches!(of(failed), Expectation::Never(ResultType::DnssecInvalid, _)));
    let local = |local| with(HostFacts { local, ..enforce() });
    assert_eq!(says(&local(LocalRule::Encrypt)), ("encrypt", Rule::LocalOverride));
    assert_eq!(says(&local(LocalRule::Verify)), ("pkix", Rule::LocalOverride));
    assert_eq!(says(&local(LocalRule::IgnoreSts)), ("opportunistic", Rule::TlsNotRequired));
}

#[test]
fn usage_2_may_name_the_next_hop_only_over_a_secure_mx() {
    let facts = HostFacts { mx_status: DnssecStatus::Secure, ..with_tlsa(enforce(), vec![usable()]) };
    let Requirement::DaneAndPkix { names, .. } = plan(&facts).require else { panic!() };
    assert_eq!(names, [domain(MX), domain("example.org")]);
    let alias = HostFacts { expanded: Some(domain("example.net")), ..facts };
    let Requirement::DaneAndPkix { names, .. } = plan(&alias).require else { panic!() };
    assert_eq!(names, [domain(MX), domain("example.org"), domain("example.net")]);
    // Without MX records the next hop is the host, and nobody has to vouch for the way there.
    let base = domain("host.example.net");
    let implicit = HostFacts {
        policy_domain: domain(MX),
        tlsa_base: base.clone(),
        ..with_tlsa(plain(), vec![usable()])
    };
    let Requirement::Dane { names, .. } = plan(&implicit).require else { panic!() };
    assert_eq!(names, [base.clone(), domain(MX)]);
    let insecure = HostFacts { policy_domain: domain("example.org"), ..implicit };
    let Requirement::Dane { names, .. } = plan(&insecure).require else { panic!() };
    assert_eq!(names, [base]);
}

#[test]
fn the_base_domain_is_named_in_sni_and_reports_and_the_mx_record_to_mta_sts() {
    let base = domain("host.example.net");
    let at_base = |facts| HostFacts { tlsa_base: base.clone(), ..facts };
    let facts = at_base(with_tlsa(enforce(), vec![usable()]));
    // Listed under its MX name, and PKIX is for that name.
    assert_eq!(says(&facts), ("dane and pkix", Rule::DaneAndSts));
    assert_eq!((plan(&facts).sni, plan(&facts).mx_status), (base.clone(), DnssecStatus::Insecure));
    assert_eq!(reports(&facts)[0].1, base.as_str());
    assert_eq!(plan(&at_base(with_tlsa(plain(), vec![usable()]))).sni, base);
    // What DANE does not authenticate is asked for by its MX name.
    for facts in [plain(), enforce(), with_tlsa(plain(), vec![unusable()])] {
        assert_eq!(plan(&at_base(facts)).sni, domain(MX));
    }
    let failed = skip(&at_base(HostFacts { tlsa: TlsaAnswer::Failed("SERVFAIL".to_owned()), ..plain() }));
    assert_eq!(failed.report[0].0.policy_domain, base);
    assert_eq!(failed.report[0].1, ResultType::DnssecInvalid);
}

#[test]
fn of_digests_only_the_strongest_is_matched_against() {
    let strong = Tlsa { matching: 2, data: vec![8; 64], ..usable() };
    let facts = with_tlsa(plain(), vec![usable(), strong.clone()]);
    let Requirement::Dane { records, .. } = plan(&facts).require else { panic!() };
    assert_eq!(records, [strong]);
    assert_eq!(plan(&facts).report_on[0].policy.policy_string.len(), 2);
}

#[test]
fn sessions_are_counted_under_each_policy_that_applies() {
    let none = (PolicyType::NoPolicyFound, "example.org".to_owned(), Expectation::Tls);
    let of_records =
        |records| (PolicyType::Tlsa, MX.to_owned(), Expectation::Tlsa { records, names: vec![domain(MX)] });
    let tlsa = of_records(vec![usable()]);
    let sts = (PolicyType::Sts, "example.org".to_owned(), Expectation::Pkix);
    let testing = |mx| HostFacts { sts: policy("testing", mx), ..plain() };
    assert_eq!(reports(&plain()), std::slice::from_ref(&none));
    assert_eq!(reports(&HostFacts { sts: policy("none", MX), ..plain() }), [none]);
    assert_eq!(reports(&enforce()), std::slice::from_ref(&sts));
    assert_eq!(reports(&testing(MX)), std::slice::from_ref(&sts));
    assert_eq!(reports(&with_tlsa(enforce(), vec![usable()])), [tlsa.clone(), sts]);
    assert_eq!(reports(&with_tlsa(plain(), vec![unusable()])), [of_records(Vec::new())]);
    let never = (
        PolicyType::Sts,
        "example.org".to_owned(),
        Expectation::Never(ResultType::ValidationFailure, "mx-not-in-policy:mx.example.org".to_owned()),
    );
    assert_eq!(reports(&testing("other.example")), std::slice::from_ref(&never));
    assert_eq!(reports(&with_tlsa(testing("other.example"), vec![usable()])), [tlsa, never]);
    // All records stand in the report, one string each, usable or not.
    let both = plan(&with_tlsa(plain(), vec![unusable(), usable()]));
    assert_eq!(both.report_on, plan(&with_tlsa(plain(), vec![usable(), unusable()])).report_on);
    assert_eq!(both.report_on[0].policy.policy_string.len(), 2);
    assert_eq!(both.report_on[0].policy.policy_string[1], "9 9 9 01");
}

/// What a verdict makes a host show; a skipped host can never show enough.
fn demands(facts: &HostFacts) -> [bool; 4] {
    match decide(facts) {
        Verdict::Skip(_) => [true; 4],
        Verdict::Use(plan) => match plan.require {
            Requirement::Opportunistic => [false; 4],
            Requirement::Encrypt => [true, false, false, false],
            Requirement::Pkix { .. } => [true, true, false, false],
            Requirement::Dane { .. } => [true, false, true, false],
            Requirement::DaneAndPkix { .. } => [true, true, true, false],
        },
    }
}

fn at_least(strong: [bool; 4], weak: [bool; 4]) -> bool {
    weak.iter().zip(strong).all(|(weak, strong)| strong || !weak)
}

fn cross_product() -> Vec<HostFacts> {
    let mut all = Vec::new();
    for sts in [
        None,
        policy("none", MX),
        policy("testing", MX),
        policy("testing", "other.example"),
        policy("enforce", MX),
        policy("enforce", "other.example"),
    ] {
        for tlsa in [
            TlsaAnswer::Absent,
            TlsaAnswer::Insecure,
            TlsaAnswer::Secure(vec![unusable()]),
            TlsaAnswer::Secure(vec![unusable(), usable()]),
            TlsaAnswer::Failed("timeout".to_owned()),
        ] {
            for request in [TlsRequest::None, TlsRequest::Required, TlsRequest::NotRequired] {
                for local in LOCAL_RULES {
                    for dane_with_sts in [DaneWithSts::Both, DaneWithSts::Dane] {
                        for mx_status in [DnssecStatus::Secure, DnssecStatus::Insecure] {
                            let (sts, tlsa) = (sts.clone(), tlsa.clone());
                            all.push(HostFacts {
                                sts,
                                tlsa,
                                request,
                                local,
                                dane_with_sts,
                                mx_status,
                                ..plain()
                            });
                        }
                    }
                }
            }
        }
    }
    all
}

#[test]
fn a_stronger_fact_never_weakens_the_verdict() {
    let all = cross_product();
    assert_eq!(all.len(), 6 * 5 * 3 * 5 * 2 * 2);
    for facts in &all {
        let here = demands(facts);
        let stronger = |changed: HostFacts| {
            let there = demands(&changed);
            assert!(at_least(there, here), "{changed:?}\n{there:?} is weaker than {here:?} of\n{facts:?}");
        };
        // REQUIRETLS needs a basis, and enforce is one: there a policy opens a way that was shut.
        let opens = facts.request == TlsRequest::Required && facts.mx_status != DnssecStatus::Secure;
        let ignored = facts.local == LocalRule::IgnoreSts;
        if facts.local == LocalRule::None || (ignored && !opens) {
            stronger(HostFacts { local: LocalRule::Encrypt, ..facts.clone() });
        }
        let is_verified = matches!(facts.local, LocalRule::Verify | LocalRule::Dane);
        if !(is_verified || (ignored && opens)) {
            stronger(HostFacts { local: LocalRule::Verify, ..facts.clone() });
        }
        // A TLSA match is stronger than PKIX, and another proof.
        if matches!(facts.local, LocalRule::None | LocalRule::Encrypt)
            && facts.request != TlsRequest::Required
        {
            stronger(HostFacts { local: LocalRule::Dane, ..facts.clone() });
        }
        if facts.request != TlsRequest::Required {
            stronger(HostFacts { request: TlsRequest::Required, ..facts.clone() });
        }
        stronger(HostFacts { dane_with_sts: DaneWithSts::Both, ..facts.clone() });
        stronger(HostFacts { tlsa: TlsaAnswer::Failed("bogus".to_owned()), ..facts.clone() });
        if matches!(facts.tlsa, TlsaAnswer::Absent | TlsaAnswer::Insecure) {
            stronger(HostFacts { tlsa: TlsaAnswer::Secure(vec![unusable()]), ..facts.clone() });
            // `dane_with_sts = "dane"` is the operator's leave to show less under enforce, and REQUIRETLS
            // takes either kind of authentication (RFC 8689 §4.2.1).
            // Mandatory DANE is met by them.
            if facts.dane_with_sts == DaneWithSts::Both
                && facts.request != TlsRequest::Required
                && facts.local != LocalRule::Dane
            {
                stronger(HostFacts { tlsa: TlsaAnswer::Secure(vec![usable()]), ..facts.clone() });
            }
        }
        if !opens && !matches!(&facts.sts, Some(policy) if policy.mode == Mode::Enforce) {
            stronger(HostFacts { sts: policy("enforce", MX), ..facts.clone() });
            stronger(HostFacts { sts: policy("enforce", "other.example"), ..facts.clone() });
        }
    }
}

#[test]
fn invariants_hold_for_every_combination() {
    for facts in cross_product() {
        let enforced = facts.request != TlsRequest::NotRequired && facts.local != LocalRule::IgnoreSts;
        let policy = facts.sts.as_deref().filter(|policy| enforced && policy.mode == Mode::Enforce);
        let dane_usable =
            matches!(&facts.tlsa, TlsaAnswer::Secure(records) if records.iter().any(Tlsa::is_usable));
        let dane_is_enough = dane_usable && facts.dane_with_sts == DaneWithSts::Dane;
        match decide(&facts) {
            Verdict::Use(plan) => {
                assert!(
                    facts.request == TlsRequest::NotRequired || !matches!(facts.tlsa, TlsaAnswer::Failed(_))
                );
                if let Some(policy) = policy {
                    assert!(policy.allows(&facts.mx) || dane_is_enough, "{facts:?}");
                    assert!(!plan.require.allows_cleartext(), "{facts:?}");
                    assert!(demands(&facts)[1] || dane_is_enough, "{facts:?}");
                }
                if dane_usable && facts.request != TlsRequest::NotRequired {
                    assert!(demands(&facts)[2], "{facts:?}");
                }
                if facts.request == TlsRequest::Required {
                    assert!(demands(&facts)[1] || demands(&facts)[2], "{facts:?}");
                }
                assert!(!plan.report_on.is_empty());
                let kinds: Vec<PolicyType> =
                    plan.report_on.iter().map(|report| report.policy.policy_type).collect();
                assert!(!kinds.contains(&PolicyType::NoPolicyFound) || kinds == [PolicyType::NoPolicyFound]);
            }
            Verdict::Skip(skip) => {
                assert!(facts.request != TlsRequest::NotRequired || facts.local == LocalRule::Dane);
                assert!(skip.text.contains(MX) && skip.text.contains("example.org"));
            }
        }
    }
}

#[test]
fn mandatory_dane_wants_secure_mx_records_and_a_usable_tlsa_record() {
    let must = |facts: HostFacts| HostFacts {
        local: LocalRule::Dane,
        local_text: Some("\"dane\" for *.example.org (ticket 7)".to_owned()),
        ..facts
    };
    let signed = |facts: HostFacts| HostFacts { mx_status: DnssecStatus::Secure, ..facts };
    let not_required = |facts: HostFacts| HostFacts { request: TlsRequest::NotRequired, ..facts };
    assert_eq!(says(&must(signed(with_tlsa(plain(), vec![usable()])))), ("dane", Rule::Dane));
    let both = signed(with_tlsa(enforce(), vec![usable()]));
    assert_eq!(says(&must(both)), ("dane and pkix", Rule::DaneAndSts));
    // The host that is the domain itself was named by nobody.
    let itself = HostFacts { policy_domain: domain(MX), ..with_tlsa(plain(), vec![usable()]) };
    assert_eq!(says(&must(itself)), ("dane", Rule::Dane));
    let no = not_required(must(signed(with_tlsa(plain(), vec![usable()]))));
    assert_eq!(says(&no), ("dane", Rule::LocalOverride));
    for (facts, why) in [
        (with_tlsa(plain(), vec![usable()]), "the MX records of example.org are not DNSSEC-secure"),
        (signed(plain()), "it has no TLSA records"),
        (signed(enforce()), "it has no TLSA records"),
        (signed(with_tlsa(plain(), vec![unusable()])), "none of its TLSA records is usable"),
        (
            signed(HostFacts { tlsa: TlsaAnswer::Insecure, ..plain() }),
            "its TLSA records are not DNSSEC-secure",
        ),
    ] {
        for facts in [must(facts.clone()), not_required(must(facts))] {
            let skip = skip(&facts);
            assert_eq!((skip.rule, skip.permanence), (Rule::LocalOverride, Permanence::Transient));
            assert!(
                skip.text.ends_with(why) && skip.text.contains("(ticket 7) demands DANE"),
                "{}",
                skip.text
            );
            let (policy, result_type, reason) = &skip.report[0];
            assert_eq!((policy.policy_type, *result_type), (PolicyType::Tlsa, ResultType::DaneRequired));
            assert_eq!(reason, why);
        }
    }
    let failed = signed(HostFacts { tlsa: TlsaAnswer::Failed("SERVFAIL".to_owned()), ..plain() });
    assert_eq!(skip(&not_required(must(failed))).report[0].1, ResultType::DnssecInvalid);
}

#[test]
fn dane_that_is_only_audited_stops_nothing_and_is_counted() {
    let audit = |facts: HostFacts| HostFacts { dane_use: DaneUse::Audit, ..facts };
    let failed = HostFacts { tlsa: TlsaAnswer::Failed("SERVFAIL".to_owned()), ..plain() };
    let base = domain("host.example.net");
    let usable = HostFacts { tlsa_base: base.clone(), ..with_tlsa(plain(), vec![usable()]) };
    for facts in [failed.clone(), usable.clone(), with_tlsa(plain(), vec![unusable()])] {
        assert_eq!(says(&audit(facts.clone())), ("opportunistic", Rule::DaneAudited));
        assert_eq!(reports(&audit(facts))[0].0, PolicyType::Tlsa);
    }
    // The session shows what the records are about, and is counted by it.
    assert_eq!(plan(&audit(usable.clone())).sni, base);
    assert_eq!(plan(&audit(usable.clone())).report_on, plan(&usable).report_on);
    assert!(matches!(reports(&audit(failed))[0].2, Expectation::Never(ResultType::DnssecInvalid, _)));
    // Nothing else is lowered.
    let enforced = HostFacts { tlsa_base: base, ..with_tlsa(enforce(), vec![unusable()]) };
    assert_eq!(says(&audit(enforced.clone())), ("pkix", Rule::StsEnforce));
    assert_eq!(plan(&audit(enforced)).sni, domain(MX));
    let verify = HostFacts { local: LocalRule::Verify, ..usable.clone() };
    assert_eq!(says(&audit(verify)), ("pkix", Rule::LocalOverride));
    let must = HostFacts { local: LocalRule::Dane, mx_status: DnssecStatus::Secure, ..usable };
    assert_eq!(says(&audit(must)), ("dane", Rule::Dane));
    assert_eq!(says(&audit(plain())), ("opportunistic", Rule::Opportunistic));
}

#[test]
fn reasons_for_reports_are_bounded_and_one_line() {
    let long = format!("{}.example", ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("."));
    let facts = HostFacts { mx: domain(&long), sts: policy("enforce", MX), ..plain() };
    assert_eq!(skip(&facts).report[0].2.chars().count(), applied::REASON_CHARS_MAX);
    let tlsa = TlsaAnswer::Failed("line\r\nbreak".repeat(99));
    let reason = skip(&HostFacts { tlsa, ..plain() }).report[0].2.clone();
    assert!(reason.chars().count() <= applied::REASON_CHARS_MAX && !reason.contains(['\r', '\n']));
}
