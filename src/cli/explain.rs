//! `stsrelay explain`: what would become of mail to a destination, and why, as the daemon sees it.
//!
//! Everything is gathered by the daemon, with its caches, rules and resolver; here it is only shown.

use clap::Args;
use jiff::Timestamp;

use super::output::{COLUMNS, Output, cut, instant, relative, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, output, unexpected};
use crate::admin::protocol::{Answer, Request, whereto};
use crate::delivery::explain::facts::{
    Asked, Explanation, Fate, HostExplained, LocalFacts, PolicyFacts, ReportFacts, RouteFacts, Try,
    VerdictFacts,
};
use crate::delivery::static_route::HopTls;
use crate::mail::Destination;
use crate::tlspolicy::LocalRule;

/// What to explain.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// An address, or the part of one after @
    #[arg(value_name = "ADDRESS-or-DOMAIN", value_parser = whereto)]
    to: Destination,
    /// Connect to the hosts too, up to the TLS handshake; no message is sent
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    json: JsonArg,
}

pub(super) fn run(arguments: Arguments, args: &ConfigArgs) -> Result<Exit, Failure> {
    let mut daemon = args.connect()?;
    let Arguments { to, connect, json } = arguments;
    output::progress(&format!("asking about mail to {to} ..."));
    let explanation = match daemon.ask(Request::Explain { destination: to, connect })? {
        Answer::Explained(explanation) => explanation,
        other => return Err(unexpected(other)),
    };
    let mut out = Output::new();
    if json.json {
        out.json(&explanation)?;
    } else {
        lines(&explanation).iter().try_for_each(|line| out.line(line))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

/// The whole explanation, no line wider than [`COLUMNS`].
fn lines(explanation: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    let fate = match explanation.conclusion.mail {
        Fate::Goes => "goes",
        Fate::Waits => "waits",
        Fate::Bounces => "bounces",
    };
    let label = format!("mail to {} {fate}: ", explanation.destination);
    lines.extend(wrap_under(&label, "  ", &explanation.conclusion.text));
    if let Some(pause) = &explanation.pause {
        let until = pause.until.map(|until| format!(" until {}", instant(until))).unwrap_or_default();
        lines.extend(field("at present", &format!("queued mail is not tried{until}: {}", pause.text)));
    }
    lines.push(String::new());
    if let Some(route) = &explanation.route {
        lines.extend(field("route", &route_text(route)));
    }
    if let Some(validator) = &explanation.validator {
        lines.extend(field("DNSSEC", validator));
    }
    if let Some(mx) = &explanation.mx {
        lines.extend(field("MX", &mx_text(mx, explanation.implicit_mx)));
    } else if explanation.policy.is_some() {
        lines.extend(field("MX", "none is asked for: the route names the host"));
    } else {
        lines.extend(field("MX", "none is asked for: an address is connected to directly"));
    }
    if let Some(trouble) = &explanation.route_trouble {
        lines.extend(field("", &format!("{} {}", trouble.status, trouble.text)));
    }
    if let Some(record) = &explanation.record {
        let said = match (&record.id, &record.unusable) {
            (Some(id), _) => format!("id {id}"),
            (None, Some(unusable)) => format!("not usable: {unusable}"),
            (None, None) => "not known".to_owned(),
        };
        lines.extend(field("_mta-sts", &format!("{said}; {}", asked_text(&record.asked))));
        for text in &record.asked.records {
            lines.push(cut(&format!("{:INDENT$}{text:?}", ""), COLUMNS));
        }
    }
    if let Some(policy) = &explanation.policy {
        lines.extend(policy_lines(policy, explanation.at));
    }
    lines.extend(field("local rule", &local_text(&explanation.local)));
    for host in &explanation.hosts {
        lines.push(String::new());
        lines.extend(host_lines(host, explanation.connected));
    }
    lines.iter().map(|line| cut(line, COLUMNS)).collect()
}

fn route_text(route: &RouteFacts) -> String {
    let tls = match route.tls {
        HopTls::Starttls => "STARTTLS",
        HopTls::Implicit => "implicit TLS",
    };
    let login = route.username.as_ref().map_or("no login".to_owned(), |name| format!("login as {name}"));
    let whose = route
        .policy_domain
        .as_ref()
        .map_or(String::new(), |domain| format!("; what counts is MTA-STS, DANE and TLS-RPT of {domain}"));
    format!("the one for {} to {}: port {}, {tls}, {login}{whose}", route.whom, route.next_hop, route.port)
}

/// Where values begin.
const INDENT: usize = 12;

fn field(name: &str, text: &str) -> Vec<String> {
    wrap(&format!("{name:<INDENT$}"), text)
}

/// A value of a host.
fn under(name: &str, text: &str) -> Vec<String> {
    wrap(&format!("  {name:<width$}", width = INDENT - 2), text)
}

/// Wrapped with its own indent, where the label is long.
fn wrap_under(label: &str, indent: &str, text: &str) -> Vec<String> {
    let mut lines = wrap(indent, &format!("{label}{text}"));
    if let Some(first) = lines.first_mut() {
        *first = first.trim_start().to_owned();
    }
    lines
}

fn asked_text(asked: &Asked) -> String {
    if let Some(trouble) = &asked.trouble {
        return trouble.clone();
    }
    let records = match asked.answer.as_str() {
        "found" => match asked.records.len() {
            1 => "one record".to_owned(),
            count => format!("{count} records"),
        },
        "no-data" => "no such record".to_owned(),
        "no-such-name" => "no such name".to_owned(),
        other => other.to_owned(),
    };
    let dnssec = asked.dnssec.as_ref().map(|word| format!(", DNSSEC {word}")).unwrap_or_default();
    let ttl = asked.ttl.map(|ttl| format!(", TTL {ttl} s")).unwrap_or_default();
    format!("{records}{dnssec}{ttl}")
}

fn mx_text(mx: &Asked, implicit: bool) -> String {
    let implicit = if implicit { "; the domain itself is the host" } else { "" };
    let records = if mx.records.is_empty() { String::new() } else { format!(": {}", mx.records.join(", ")) };
    format!("{}{records}{implicit}", asked_text(mx))
}

fn policy_lines(policy: &PolicyFacts, now: Timestamp) -> Vec<String> {
    if policy.switched_off {
        return field("policy", "MTA-STS is switched off (policy.mta_sts)");
    }
    let mut lines = Vec::new();
    let applies = match (&policy.applies, &policy.unknown) {
        (Some(applies), _) => {
            let id = applies.id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
            format!(
                "mode {}{id}, max_age {} s, mx {}",
                applies.mode,
                applies.max_age,
                if applies.mx.is_empty() { "-".to_owned() } else { applies.mx.join(" ") }
            )
        }
        (None, Some(unknown)) => format!("not known: {} {}", unknown.status, unknown.text),
        (None, None) => "none applies".to_owned(),
    };
    lines.extend(field("policy", &applies));
    match &policy.held {
        Some(held) => lines.extend(field(
            "cache",
            &format!(
                "mode {}, id {}, fetched {} ({}), expires {} ({}), next fetch {}",
                held.mode,
                held.id,
                instant(held.fetched_at),
                relative(held.fetched_at, now),
                instant(held.expires_at),
                relative(held.expires_at, now),
                relative(held.refresh_at, now)
            ),
        )),
        None => lines.extend(field("cache", "no policy is held")),
    }
    if let Some(trouble) = &policy.fetch_trouble {
        let text = format!(
            "failed {} ({}), {} in a row: {}",
            instant(trouble.at),
            relative(trouble.at, now),
            trouble.count,
            trouble.text
        );
        lines.extend(field("last fetch", &text));
        lines.extend(field("TLS-RPT", &format!("{} for the fetch", word(&trouble.result_type))));
    }
    lines
}

/// A local rule as `policy show` and `explain` tell it.
pub(super) fn local_text(local: &LocalFacts) -> String {
    let rule = match local.rule {
        LocalRule::None => return "none".to_owned(),
        LocalRule::Encrypt => "encrypt: TLS is demanded, whatever the certificate",
        LocalRule::Verify => "verify: TLS with a trusted certificate is demanded",
        LocalRule::Dane => "dane: secure MX records and a TLSA record that matches are demanded",
        LocalRule::IgnoreSts => "ignore-sts: MTA-STS of this domain is not applied",
    };
    let until = local.until.map(|until| format!(", until {}", instant(until))).unwrap_or_default();
    let reason = local.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let whom = local.whom.as_ref().map(|whom| format!(", for {whom}")).unwrap_or_default();
    format!("{rule}{whom}{until}{reason}")
}

fn host_lines(host: &HostExplained, connected: bool) -> Vec<String> {
    let mut lines = vec![format!("{} {}", host.preference, host.host)];
    if host.out_of_reach {
        lines.extend(under("", "one attempt does not get as far as this host"));
    }
    lines.extend(under("verdict", &verdict_text(host)));
    lines.extend(under("rule", &host.verdict.rule.to_string()));
    if let Some(verdict) = host.requiretls.as_ref().filter(|verdict| **verdict != host.verdict) {
        lines.extend(under("", &format!("with REQUIRETLS: {}", requiretls_text(verdict))));
    }
    if let Some(listed) = host.listed {
        lines.extend(under("policy", if listed { "lists it" } else { "does not list it" }));
    }
    lines.extend(under("TLSA", &tlsa_text(host)));
    if let Some(local) = &host.local {
        lines.extend(under("local rule", &local_text(local)));
    }
    match &host.address_trouble {
        Some(trouble) => lines.extend(under("addresses", &format!("{} {}", trouble.status, trouble.text))),
        None => {
            for (index, address) in host.addresses.iter().enumerate() {
                let refused =
                    address.refused.as_ref().map(|why| format!(", refused: {why}")).unwrap_or_default();
                let name = if index == 0 { "addresses" } else { "" };
                lines.extend(under(name, &format!("{}{refused}", address.ip)));
            }
        }
    }
    for tried in &host.tries {
        lines.extend(try_lines(host, tried));
    }
    if connected && host.tries.is_empty() {
        lines.extend(under("connect", "none was made"));
    }
    // What a session showed says more than what it was expected to show.
    if host.tries.iter().all(|tried| tried.tls_rpt.is_empty()) {
        for report in &host.tls_rpt {
            lines.extend(under("TLS-RPT", &report_text(report)));
        }
    }
    lines
}

fn verdict_text(host: &HostExplained) -> String {
    let verdict = &host.verdict;
    if verdict.usable { format!("use: {}", verdict.text) } else { format!("skip: {}", verdict.text) }
}

/// What a message with REQUIRETLS (RFC 8689) meets there.
fn requiretls_text(verdict: &VerdictFacts) -> String {
    if verdict.usable {
        format!("{}; and the host must offer it", verdict.text)
    } else {
        verdict.text.clone()
    }
}

fn tlsa_text(host: &HostExplained) -> String {
    let Some(tlsa) = &host.tlsa else { return "not looked up".to_owned() };
    if let Some(trouble) = &tlsa.trouble {
        return trouble.clone();
    }
    match tlsa.answer.as_str() {
        "secure" => {
            tlsa.records
                .iter()
                .map(|record| {
                    if record.usable { record.text.clone() } else { format!("{} (not usable)", record.text) }
                })
                .collect::<Vec<_>>()
                .join(", ")
        }
        "insecure" => "records without DNSSEC: they do not count".to_owned(),
        _ => "none".to_owned(),
    }
}

fn try_lines(host: &HostExplained, tried: &Try) -> Vec<String> {
    let clear = if tried.in_clear { ", tried again in clear" } else { "" };
    let says = tried.host_says.as_ref().map(|name| format!(", says it is {name}")).unwrap_or_default();
    let mut lines = under("connect", &format!("{}{says}{clear}", tried.address));
    if let Some(tls) = &tried.tls {
        lines.extend(under("", &format!("{} {}", tls.version, tls.cipher)));
        let trusted = format!("certificate is trusted and names {}", host.host);
        let certificate = match (tls.tlsa_matches, &tls.certificate_trouble) {
            (None, None) => trusted,
            (None, Some(trouble)) => trouble.clone(),
            (Some(true), None) => format!("a TLSA record matches the certificate; without DANE: {trusted}"),
            (Some(true), Some(trouble)) => {
                format!("a TLSA record matches the certificate; without DANE: {trouble}")
            }
            (Some(false), None) => format!("no TLSA record matches the certificate; without DANE: {trusted}"),
            (Some(false), Some(trouble)) => {
                format!("no TLSA record matches the certificate; without DANE: {trouble}")
            }
        };
        lines.extend(under("", &certificate));
        match tried.offers_requiretls {
            Some(true) => lines.extend(under("", "offers REQUIRETLS")),
            Some(false) => lines.extend(under("", "does not offer REQUIRETLS: no such message goes there")),
            None => {}
        }
        lines.extend(under("", &format!("chain SHA-256 {}", tls.chain_sha256)));
    }
    let end = match (&tried.trouble, host.verdict.usable) {
        (Some(trouble), _) => format!("{} {}", trouble.status, trouble.text),
        (None, true) => "ready for mail".to_owned(),
        (None, false) => "only looked at: no mail goes to this host".to_owned(),
    };
    lines.extend(under("", &end));
    for report in &tried.tls_rpt {
        lines.extend(under("TLS-RPT", &report_text(report)));
    }
    lines
}

fn report_text(report: &ReportFacts) -> String {
    let policy = format!("{} {}", word(&report.policy_type), report.policy_domain);
    match (&report.failures, &report.expects) {
        (Some(failures), _) if failures.is_empty() => format!("{policy}: success"),
        (Some(failures), _) => {
            let failures: Vec<String> = failures
                .iter()
                .map(|failure| {
                    let reason =
                        failure.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                    format!("{}{reason}", word(&failure.result_type))
                })
                .collect();
            format!("{policy}: {}", failures.join(", "))
        }
        (None, Some(expects)) => format!("{policy}: success is {expects}"),
        (None, None) => policy,
    }
}

/// The registered word of a policy type or result type, as it serialises.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests;
