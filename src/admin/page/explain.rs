//! An explanation, as the command line tells it: the conclusion first, then every fact. Pure.

use jiff::Timestamp;
use maud::{Markup, html};

use super::destinations;
use super::shell::badge;
use super::text::{count, exactly, foreign, name, words};
use crate::delivery::explain::facts::{
    Asked, Explanation, Fate, HostExplained, LocalFacts, PolicyFacts, RecordFacts, ReportFacts, RouteFacts,
    Try,
};
use crate::delivery::static_route::HopTls;
use crate::tlspolicy::LocalRule;

/// Hosts shown; one attempt goes to fewer.
const HOSTS_MAX: usize = 20;
/// Records shown of one answer.
const RECORDS_MAX: usize = 20;

/// All of it.
pub(super) fn show(explained: &Explanation) -> Markup {
    // What a host shows is known only when somebody connected to it.
    let (tone, word) = match explained.conclusion.mail {
        Fate::Goes if explained.connected => ("fine", "Mail goes: "),
        Fate::Goes => ("quiet", "Mail goes, as far as is known without connecting: "),
        Fate::Waits => ("odd", "Mail waits: "),
        Fate::Bounces => ("bad", "Mail bounces: "),
    };
    html! {
        p class={ "verdict " (tone) } { strong { (word) } (words(&explained.conclusion.text)) }
        @if let Some(pause) = &explained.pause {
            p.note { "At present queued mail is not tried"
                @if let Some(until) = pause.until { " until " (exactly(until, explained.at)) }
                ": " (words(&pause.text)) }
        }
        dl.facts {
            @if let Some(route) = &explained.route { dt { "Route" } dd { (by_route(route)) } }
            @if let Some(validator) = &explained.validator { dt { "DNSSEC" } dd { (words(validator)) } }
            dt { "MX" } dd {
                @match &explained.mx {
                    Some(mx) => { (asked(mx)) (records(mx)) @if explained.implicit_mx { " The domain itself is the host." } },
                    None if explained.policy.is_some() => "none is asked for: the route names the host",
                    None => "none is asked for: an address is connected to directly",
                }
                @if let Some(trouble) = &explained.route_trouble { br; (trouble.status) " " (words(&trouble.text)) }
            }
            @if let Some(record) = &explained.record { dt { "_mta-sts" } dd { (sts_record(record)) } }
            @if let Some(policy) = &explained.policy { (policy_facts(policy, explained.at)) }
            dt { "Local rule" } dd { (local(&explained.local)) }
        }
        div.hosts {
            @for host in explained.hosts.iter().take(HOSTS_MAX) { (one_host(host, explained.connected)) }
        }
        @if explained.hosts.len() > HOSTS_MAX { p.quiet { "and " (count((explained.hosts.len() - HOSTS_MAX) as u64)) " more hosts" } }
    }
}

fn by_route(route: &RouteFacts) -> Markup {
    html! {
        "the one for " (name(&route.whom)) " to " (name(&route.next_hop)) ": port " (route.port) ", "
        (match route.tls { HopTls::Starttls => "STARTTLS", HopTls::Implicit => "implicit TLS" }) ", "
        @match &route.username { Some(username) => { "login as " (name(username)) }, None => "no login" }
        @if let Some(domain) = &route.policy_domain { "; what counts is MTA-STS, DANE and TLS-RPT of " (destinations::to(domain.as_str())) }
    }
}

fn asked(asked: &Asked) -> Markup {
    html! {
        @match (&asked.trouble, asked.answer.as_str()) {
            (Some(trouble), _) => (words(trouble)),
            (None, "found") => { (count(asked.records.len() as u64)) @if asked.records.len() == 1 { " record" } @else { " records" } },
            (None, "no-data") => "no such record",
            (None, "no-such-name") => "no such name",
            (None, other) => (name(other)),
        }
        @if let Some(dnssec) = &asked.dnssec { ", DNSSEC " (dnssec_word(dnssec)) }
        @if let Some(ttl) = asked.ttl { span.quiet { ", TTL " (count(ttl)) " s" } }
    }
}

fn dnssec_word(word: &str) -> Markup {
    match word {
        "secure" => badge("fine", "secure"),
        "bogus" => badge("bad", "bogus"),
        other => badge("quiet", other),
    }
}

fn records(asked: &Asked) -> Markup {
    html! {
        @for record in asked.records.iter().take(RECORDS_MAX) { br; code { (foreign(record, 300)) } }
        @if asked.records.len() > RECORDS_MAX { br; span.quiet { "and more" } }
    }
}

fn sts_record(record: &RecordFacts) -> Markup {
    html! {
        @match (&record.id, &record.unusable) {
            (Some(id), _) => { "id " (name(id)) },
            (None, Some(unusable)) => { "not usable: " (words(unusable)) },
            (None, None) => "not known",
        }
        "; " (asked(&record.asked)) (records(&record.asked))
    }
}

fn policy_facts(policy: &PolicyFacts, now: Timestamp) -> Markup {
    if policy.switched_off {
        return html! { dt { "Policy" } dd { "MTA-STS is switched off (" code { "policy.mta_sts" } ")" } };
    }
    html! {
        dt { "Policy" } dd {
            @match (&policy.applies, &policy.unknown) {
                (Some(applies), _) => {
                    (destinations::mode(applies.mode))
                    @if let Some(id) = &applies.id { " id " (name(id)) }
                    ", max_age " (count(applies.max_age.into())) " s, hosts "
                    @if applies.mx.is_empty() { "–" } @else { (words(&applies.mx.join(" "))) }
                },
                (None, Some(unknown)) => { "not known: " (unknown.status) " " (words(&unknown.text)) },
                (None, None) => "none applies",
            }
        }
        @if let Some(trouble) = &policy.fetch_trouble {
            dt { "Last fetch" } dd { "failed " (exactly(trouble.at, now)) ", " (trouble.count) " in a row: " (words(&trouble.text))
                " " span.quiet { "TLS-RPT: " (word(&trouble.result_type)) } }
        }
    }
}

/// A local rule in words.
fn local(local: &LocalFacts) -> Markup {
    let rule = match local.rule {
        LocalRule::None => return html! { "none" },
        LocalRule::Encrypt => "encrypt: TLS is demanded, whatever the certificate",
        LocalRule::Verify => "verify: TLS with a trusted certificate is demanded",
        LocalRule::Dane => "dane: secure MX records and a TLSA record that matches are demanded",
        LocalRule::IgnoreSts => "ignore-sts: MTA-STS of this domain is not applied",
    };
    html! {
        (rule)
        @if let Some(whom) = &local.whom { ", for " (name(whom)) }
        @if let Some(until) = local.until { ", until " (super::text::stamp(until)) }
        @if let Some(reason) = &local.reason { " (" (words(reason)) ")" }
    }
}

fn one_host(host: &HostExplained, connected: bool) -> Markup {
    let verdict = &host.verdict;
    html! {
        section.panel.host {
            h3 { span.quiet { (host.preference) " " } (name(&host.host)) " "
                @if verdict.usable { (badge("fine", "use")) } @else { (badge("bad", "skip")) }
                @if host.out_of_reach { " " (badge("quiet", "out of reach")) } }
            dl.facts {
                dt { "Verdict" } dd { (words(&verdict.text)) }
                dt { "Rule" } dd { (name(&verdict.rule.to_string())) }
                @if let Some(other) = host.requiretls.as_ref().filter(|other| **other != host.verdict) {
                    dt { "REQUIRETLS" } dd { (words(&other.text)) @if other.usable { "; and the host must offer it" } }
                }
                @if let Some(listed) = host.listed { dt { "Policy" } dd { @if listed { "lists it" } @else { "does not list it" } } }
                dt { "TLSA" } dd {
                    @match &host.tlsa {
                        None => "not looked up",
                        Some(tlsa) => @match (&tlsa.trouble, tlsa.answer.as_str()) {
                            (Some(trouble), _) => (words(trouble)),
                            (None, "secure") => @for (at, record) in tlsa.records.iter().take(RECORDS_MAX).enumerate() {
                                @if at > 0 { br; } span.hash { (words(&record.text)) } @if !record.usable { " (not usable)" }
                            },
                            (None, "insecure") => "records without DNSSEC: they do not count",
                            (None, _) => "none",
                        }
                    }
                }
                @if let Some(rule) = &host.local { dt { "Local rule" } dd { (local(rule)) } }
                dt { "Addresses" } dd {
                    @match &host.address_trouble {
                        Some(trouble) => { (trouble.status) " " (words(&trouble.text)) },
                        None => @for (at, address) in host.addresses.iter().take(RECORDS_MAX).enumerate() {
                            @if at > 0 { br; } (address.ip)
                            @if let Some(refused) = &address.refused { ", refused: " (words(refused)) }
                        },
                    }
                }
                @for tried in &host.tries { dt { "Connected" } dd { (one_try(host, tried)) } }
                @if connected && host.tries.is_empty() { dt { "Connected" } dd { "no" } }
                // What a session showed says more than what it was expected to show.
                @if host.tries.iter().all(|tried| tried.tls_rpt.is_empty()) {
                    @for report in &host.tls_rpt { dt { "TLS-RPT" } dd { (reported(report)) } }
                }
            }
        }
    }
}

fn one_try(host: &HostExplained, tried: &Try) -> Markup {
    html! {
        (tried.address)
        @if let Some(says) = &tried.host_says { ", says it is " (name(says)) }
        @if tried.in_clear { ", tried again in clear" }
        @if let Some(tls) = &tried.tls {
            br; (name(&tls.version)) " " (name(&tls.cipher)) br;
            @match tls.tlsa_matches {
                None => {},
                Some(true) => "a TLSA record matches the certificate; without DANE: ",
                Some(false) => "no TLSA record matches the certificate; without DANE: ",
            }
            @match &tls.certificate_trouble {
                None => { "certificate is trusted and names " (name(&host.host)) },
                Some(trouble) => (words(trouble)),
            }
            @match tried.offers_requiretls {
                Some(true) => { br; "offers REQUIRETLS" },
                Some(false) => { br; "does not offer REQUIRETLS: no such message goes there" },
                None => {},
            }
            br; span.hash { "chain SHA-256 " (name(&tls.chain_sha256)) }
        }
        br;
        @match (&tried.trouble, host.verdict.usable) {
            (Some(trouble), _) => { (trouble.status) " " (words(&trouble.text)) },
            (None, true) => "ready for mail",
            (None, false) => "only looked at: no mail goes to this host",
        }
        @for report in &tried.tls_rpt { br; "TLS-RPT: " (reported(report)) }
    }
}

fn reported(report: &ReportFacts) -> Markup {
    html! {
        (word(&report.policy_type)) " " (name(report.policy_domain.as_str()))
        @match (&report.failures, &report.expects) {
            (Some(failures), _) if failures.is_empty() => ": success",
            (Some(failures), _) => { ": " @for (at, failure) in failures.iter().enumerate() {
                @if at > 0 { ", " } (word(&failure.result_type))
                @if let Some(reason) = &failure.reason { " (" (words(reason)) ")" }
            } },
            (None, Some(expects)) => { ": success is " (words(expects)) },
            (None, None) => {},
        }
    }
}

/// The registered word of a policy type or result type, as it serialises.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}
