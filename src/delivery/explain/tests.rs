//! What follows from what is known of the hosts.

use super::connect::empty_try;
use super::facts::{Fate, Try};
use super::*;
use crate::mail::Permanence;
use crate::route::DnssecStatus;
use crate::smtp::client::TlsUse;
use crate::tlspolicy::{Rule, SkipReason};

fn plan(rule: Rule) -> TlsPlan {
    let name = Domain::parse("mx.a.example").unwrap();
    let require = match rule {
        Rule::StsEnforce => Requirement::Pkix { name: name.clone() },
        _ => Requirement::Opportunistic,
    };
    TlsPlan {
        require,
        sni: name.clone(),
        name,
        mx_status: DnssecStatus::Insecure,
        report_on: Vec::new(),
        rule,
        local_text: None,
    }
}

fn usable(name: &str, rule: Rule) -> Explained {
    Explained {
        host: HostExplained {
            host: name.to_owned(),
            preference: 10,
            listed: None,
            addresses: Vec::new(),
            address_trouble: None,
            tlsa: None,
            local: None,
            verdict: VerdictFacts::of_plan(&plan(rule)),
            requiretls: None,
            out_of_reach: false,
            tls_rpt: Vec::new(),
            tries: Vec::new(),
        },
        failures: Vec::new(),
        ends_walk: false,
    }
}

fn skipped(name: &str) -> Explained {
    let reason = SkipReason {
        rule: Rule::StsEnforce,
        permanence: Permanence::Transient,
        text: format!("{name} is not listed"),
        report: Vec::new(),
    };
    let mut explained = usable(name, Rule::StsEnforce);
    explained.host.verdict = VerdictFacts::of_skip(&reason);
    explained.failures = vec![judge::skip_failure(&reason, name)];
    explained
}

fn without_address(name: &str) -> Explained {
    let failure = Failure { permanence: Permanence::Permanent, ..judge::dial_failure("no address", name) };
    Explained { failures: vec![failure], ..usable(name, Rule::Opportunistic) }
}

#[test]
fn mail_goes_to_the_first_host_that_may_be_used() {
    let conclusion = conclude(None, &[skipped("one"), usable("two", Rule::StsEnforce)], false);
    assert_eq!(conclusion.mail, Fate::Goes);
    assert!(conclusion.text.starts_with("to two first: TLS with a trusted certificate"), "{conclusion:?}");
}

#[test]
fn mail_waits_when_a_policy_forbids_every_host_in_the_words_of_the_policy() {
    let conclusion = conclude(None, &[skipped("one"), without_address("two")], false);
    assert_eq!(conclusion.mail, Fate::Waits);
    assert!(conclusion.text.contains("one is not listed"), "{conclusion:?}");
}

#[test]
fn mail_bounces_when_every_failure_is_lasting() {
    assert_eq!(conclude(None, &[without_address("one")], false).mail, Fate::Bounces);
    let failure = Failure { permanence: Permanence::Permanent, ..judge::dial_failure("no domain", "x") };
    let conclusion = conclude(Some(&failure), &[usable("two", Rule::Opportunistic)], false);
    assert_eq!(conclusion.mail, Fate::Bounces);
    assert!(conclusion.text.ends_with("no domain"), "{conclusion:?}");
}

#[test]
fn hosts_after_ourselves_and_beyond_an_attempt_do_not_count() {
    let ours = Explained { ends_walk: true, ..without_address("one") };
    assert_eq!(conclude(None, &[ours, usable("two", Rule::Opportunistic)], false).mail, Fate::Bounces);
    let mut far = usable("two", Rule::Opportunistic);
    far.host.out_of_reach = true;
    assert_eq!(conclude(None, &[skipped("one"), far], false).mail, Fate::Waits);
}

#[test]
fn a_connection_tells_how_mail_would_travel() {
    let mut host = usable("one", Rule::StsEnforce);
    let address = "192.0.2.1:25".parse().unwrap();
    let tls = facts::TlsShown {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
        certificate_trouble: None,
        tlsa_matches: None,
        chain_sha256: "00".to_owned(),
    };
    host.host.tries = vec![Try { tls: Some(tls), ..empty_try(address, TlsUse::Required) }];
    assert_eq!(
        conclude(None, &[host], true).text,
        "to one at 192.0.2.1, over TLSv1.3 with a trusted certificate \
         (MTA-STS of the domain is in mode enforce)"
    );
}

#[test]
fn the_strongest_local_rule_is_told_with_its_reason() {
    let domain = Domain::parse("a.example").unwrap();
    let rule = |require, reason: &str| Override {
        whom: tlspolicy::Whom::Domain(domain.clone().into()),
        require,
        until: None,
        reason: reason.to_owned(),
    };
    let now = Timestamp::UNIX_EPOCH;
    let rules = [rule(LocalRule::Encrypt, "e"), rule(LocalRule::Verify, "v")];
    let course = Course { recipient: Some(&domain), next_hop: Some(&domain), ..Course::default() };
    let facts = local_facts(&rules, &course, now);
    assert_eq!((facts.rule, facts.reason.as_deref()), (LocalRule::Verify, Some("v")));
    assert_eq!(local_facts(&[], &course, now), LocalFacts::default());
    let ended = [Override { until: Some(now), ..rule(LocalRule::Verify, "v") }];
    assert_eq!(local_facts(&ended, &course, now), LocalFacts::default());
}
