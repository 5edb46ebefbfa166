//! `stsrelay evidence ...`: how messages travelled, told like a proof.

use clap::Args;
use jiff::Timestamp;

use super::output::{Output, instant, relative, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, unexpected};
use crate::admin::protocol::evidence::{EvidenceAnswer, EvidenceRequest, named};
use crate::admin::protocol::{Answer, Request};
use crate::mail::Destination;
use crate::net::{Clock as _, SystemClock};
use crate::queue::Evidence;
use crate::queue::evidence::{HostEvidence, HostVerdict, OutcomeWord};
use crate::store::EvidenceFilter;

/// Which attempts.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true)
    .args(["id", "recipient_domain", "since", "until"]))]
pub(super) struct Arguments {
    /// Message-ID, queue id (1-000000A1) or item id (1-000000A1.0)
    #[arg(value_name = "MESSAGE-ID-or-QUEUE-ID")]
    id: Option<String>,
    /// To this domain
    #[arg(long, value_name = "DOMAIN", value_parser = destination)]
    recipient_domain: Option<String>,
    /// Not before this: 2026-01-31 (UTC) or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = super::since::parse)]
    since: Option<Timestamp>,
    /// Before this
    #[arg(long, value_name = "TIME", value_parser = super::since::parse)]
    until: Option<Timestamp>,
    #[command(flatten)]
    json: JsonArg,
}

fn destination(text: &str) -> Result<String, String> {
    Destination::parse(text).map(|destination| destination.to_string()).map_err(|error| error.to_string())
}

fn filter(arguments: &Arguments) -> EvidenceFilter {
    EvidenceFilter {
        destination: arguments.recipient_domain.clone(),
        since: arguments.since,
        until: arguments.until,
        ..arguments.id.as_deref().map(named).unwrap_or_default()
    }
}

pub(super) fn run(arguments: &Arguments, config: &ConfigArgs) -> Result<Exit, Failure> {
    let mut daemon = config.connect()?;
    let (filter, now) = (filter(arguments), SystemClock.now());
    let mut out = Output::new();
    let (mut cursor, mut count) = (None, 0);
    loop {
        let asked = EvidenceRequest { filter: filter.clone(), cursor, max: None };
        let EvidenceAnswer { attempts, cursor: next } = match daemon.ask(Request::Evidence(asked))? {
            Answer::Evidence(page) => page,
            other => return Err(unexpected(other)),
        };
        count += attempts.len();
        for attempt in &attempts {
            if arguments.json.json {
                out.json(attempt)?;
            } else {
                describe(attempt, now).iter().try_for_each(|line| out.line(line))?;
            }
        }
        if next.is_none() {
            break;
        }
        cursor = next;
    }
    out.finish()?;
    if count == 0 {
        let what = arguments.id.clone().unwrap_or_else(|| "such an attempt".to_owned());
        return Err(Failure::new(
            Exit::Negative,
            format!(
                "no evidence of {what}: not tried yet, older than evidence.keep, never here, or not kept \
                 (evidence.enabled)"
            ),
        ));
    }
    Ok(Exit::Fine)
}

/// An attempt in words; also for `queue show`.
pub(super) fn describe(attempt: &Evidence, now: Timestamp) -> Vec<String> {
    let own = &attempt.message;
    let mut lines = vec![format!(
        "{}  attempt {}  {} ({})",
        attempt.item,
        own.attempt,
        instant(attempt.at),
        relative(attempt.at, now)
    )];
    let mut say = |label: &str, text: &str| lines.extend(wrap(&format!("  {label:<12}"), text));
    if let Some(id) = &own.message_id {
        say("Message-ID", &format!("<{id}>"));
    }
    if let Some(sender) = &own.sender {
        say("from", if sender.is_empty() { "<>" } else { sender });
    }
    say("destination", &own.destination);
    for recipient in &own.recipients {
        let to = recipient.to.as_deref().unwrap_or("a recipient");
        let word = match recipient.outcome {
            OutcomeWord::Delivered => "delivered",
            OutcomeWord::Deferred => "deferred",
            OutcomeWord::Failed => "failed",
        };
        let status = recipient.status.map(|status| format!(" {status}")).unwrap_or_default();
        let status = if recipient.outcome == OutcomeWord::Delivered { String::new() } else { status };
        let by = recipient.host.and_then(|host| attempt.hosts.get(usize::from(host)));
        let by = by.and_then(|host| host.mx.as_deref()).map(|mx| format!(" by {mx}")).unwrap_or_default();
        say("to", &format!("{to}: {word}{by}:{status} {}", recipient.text));
    }
    for refusal in &own.refusals {
        let by = attempt.hosts.get(usize::from(refusal.host)).and_then(|host| host.mx.as_deref());
        let many = if refusal.recipients == 1 { "recipient" } else { "recipients" };
        let text = format!("{}, for {} {many}: {}", by.unwrap_or("-"), refusal.recipients, refusal.text);
        say("refused by", &text);
    }
    for (index, host) in attempt.hosts.iter().enumerate() {
        let last = index + 1 == attempt.hosts.len();
        lines.extend(describe_host(host, own.carried_before.filter(|_| last)));
    }
    if attempt.hosts.is_empty() {
        lines.push("  no host was reached".to_owned());
    }
    lines
}

fn describe_host(host: &HostEvidence, carried_before: Option<u32>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |label: &str, text: &str| lines.extend(wrap(&format!("  {label:<12}"), text));
    let address = host.address.map(|address| format!(" [{address}]")).unwrap_or_default();
    let local = host.local_address.map(|local| format!(", from {local}")).unwrap_or_default();
    let dnssec = host.mx_dnssec.as_ref().map(|word| format!(", MX records {word}")).unwrap_or_default();
    say("host", &format!("{}{address}{local}{dnssec}", host.mx.as_deref().unwrap_or("-")));
    if let Some(route) = &host.route {
        say("by route", route);
    }
    match &host.policy {
        Some(policy) => {
            let id = policy.id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
            let fetched =
                policy.fetched_at.map(|at| format!(", fetched {}", instant(at))).unwrap_or_default();
            say("MTA-STS", &format!("{}{id}{fetched}, max_age {} s", policy.mode, policy.max_age));
            say("", &format!("policy SHA-256 {}", policy.sha256));
        }
        None => say("MTA-STS", "no policy"),
    }
    if let Some(tlsa) = &host.tlsa {
        say("TLSA", &format!("{} at {}", tlsa.status, tlsa.base));
        for record in &tlsa.records {
            let matched = if tlsa.matched.as_ref() == Some(record) { "  <- matched" } else { "" };
            say("", &format!("{record}{matched}"));
        }
    }
    let names = if host.names.is_empty() { String::new() } else { format!(" for {}", host.names.join(", ")) };
    match &host.requirement {
        Some(requirement) => say("demanded", &format!("{requirement}{names} (rule: {})", host.rule)),
        None => say("demanded", &format!("nothing could be (rule: {})", host.rule)),
    }
    if let Some(tls) = &host.tls {
        let group = tls.group.as_ref().map(|group| format!(", {group}")).unwrap_or_default();
        let resumed = if tls.resumed { ", resumed; the chain as shown before" } else { "" };
        say("TLS", &format!("{} {}{group}{resumed}", tls.version, tls.cipher));
        let issuer = tls.issuer.as_deref().unwrap_or("?");
        let end = tls.not_after.map_or_else(|| "?".to_owned(), instant);
        say("certificate", &format!("issued by {issuer}, valid to {end}, PKIX: {}", tls.pkix));
        if let Some(name) = &tls.name_matched {
            say("", &format!("names {name}"));
        }
        say("", &format!("chain SHA-256 {}", tls.chain_sha256));
        if let Some(spki) = &tls.spki_sha256 {
            say("", &format!("key SHA-256 {spki}"));
        }
    }
    if let Some(count) = carried_before {
        let text = match count {
            0 => "a new one".to_owned(),
            1 => "reused, after 1 other message".to_owned(),
            _ => format!("reused, after {count} other messages"),
        };
        say("connection", &text);
    }
    let verdict = match host.verdict {
        HostVerdict::Met => "met: what was demanded was proven",
        HostVerdict::Allowed => "allowed: nothing was demanded",
        HostVerdict::Failed => "failed: nothing was sent",
        HostVerdict::Skipped => "skipped: not connected to",
    };
    let reason = host.reason.as_ref().map(|reason| format!("; {reason}")).unwrap_or_default();
    say("verdict", &format!("{verdict}{reason}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::output::COLUMNS;
    use super::*;
    use crate::queue::evidence::{
        MessageEvidence, PolicyEvidence, RecipientEvidence, RefusalEvidence, TlsEvidence, TlsaEvidence,
    };

    fn evidence() -> Evidence {
        let at = "2026-01-10T12:00:00Z".parse().unwrap();
        let hash = "ab".repeat(32);
        Evidence {
            at,
            item: "1-000000A1.0".parse().unwrap(),
            message: MessageEvidence {
                attempt: 2,
                message_id: Some(
                    "a-long-message-id.20260110.1200@".to_owned() + &"mail.".repeat(9) + "example",
                ),
                sender: Some(String::new()),
                destination: "example.net".to_owned(),
                recipients: vec![RecipientEvidence {
                    to: Some("someone@example.net".to_owned()),
                    outcome: OutcomeWord::Delivered,
                    status: None,
                    code: Some(250),
                    text: "250 2.0.0 queued as ABCDEF ".repeat(5),
                    host: Some(0),
                }],
                refusals: vec![RefusalEvidence {
                    host: 0,
                    recipients: 2,
                    text: "450 4.2.0 later".to_owned(),
                }],
                carried_before: Some(3),
            },
            hosts: vec![HostEvidence {
                mx: Some("mx.example.net".to_owned()),
                mx_dnssec: Some("secure".to_owned()),
                address: "2001:db8::1".parse().ok(),
                policy: Some(PolicyEvidence {
                    id: Some("20260101T000000".to_owned()),
                    mode: "enforce".to_owned(),
                    sha256: hash.clone(),
                    fetched_at: Some(at),
                    max_age: 604_800,
                }),
                tlsa: Some(TlsaEvidence {
                    status: "secure".to_owned(),
                    base: "mx.example.net".to_owned(),
                    records: vec![format!("3 1 1 {hash}")],
                    matched: Some(format!("3 1 1 {hash}")),
                }),
                rule: "dane and mta-sts enforce".to_owned(),
                requirement: Some("dane and pkix".to_owned()),
                names: vec!["mx.example.net".to_owned()],
                tls: Some(TlsEvidence {
                    version: "TLSv1.3".to_owned(),
                    cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
                    group: Some("X25519MLKEM768".to_owned()),
                    chain_sha256: hash.clone(),
                    spki_sha256: Some(hash),
                    not_after: Some(at),
                    issuer: Some("Example CA".to_owned()),
                    pkix: "valid".to_owned(),
                    resumed: false,
                    name_matched: Some("*.example.net".to_owned()),
                }),
                verdict: HostVerdict::Met,
                ..HostEvidence::default()
            }],
        }
    }

    #[test]
    fn the_proof_fits_a_hundred_columns_and_names_everything() {
        let lines = describe(&evidence(), "2026-01-10T13:00:00Z".parse().unwrap());
        for line in &lines {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        let text = lines.join("\n");
        for wanted in [
            "1-000000A1.0  attempt 2",
            "by mx.example.net: 250 2.0.0 queued",
            "enforce, id 20260101T000000",
            "<- matched",
            "mx.example.net, for 2 recipients: 450 4.2.0 later",
            "dane and pkix for mx.example.net (rule: dane and mta-sts enforce)",
            "TLSv1.3 TLS13_AES_256_GCM_SHA384, X25519MLKEM768",
            "reused, after 3 other messages",
            "met: what was demanded was proven",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let json = serde_json::to_string(&evidence()).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&json).unwrap(), evidence());
    }
}
