//! `stsrelay queue show`: a message, its recipients and every attempt.

use jiff::Timestamp;

use super::super::output::{Output, instant, octets, relative, wrap};
use super::super::{Exit, Failure};
use super::list::{due, sender_name, state_name};
use super::which::Id;
use super::{Range, pages};
use crate::admin::client::Client;
use crate::admin::protocol::{QueueEntry, TlsAsk};
use crate::net::{Clock as _, SystemClock};

pub(super) fn show(daemon: &mut Client, id: Id, as_json: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut out = Output::new();
    let mut count = 0;
    pages(daemon, &id.filter(), Range::ALL, true, |entries| {
        count += entries.len();
        for entry in &entries {
            if as_json {
                out.json(entry)?;
            } else {
                describe(entry, now).iter().try_for_each(|line| out.line(line))?;
            }
        }
        Ok(())
    })?;
    out.finish()?;
    match count {
        0 => Err(Failure::new(
            Exit::Negative,
            format!(
                "{id} is not in the queue: delivered, given up or never here; `stsrelay evidence {id}` tells"
            ),
        )),
        _ => Ok(Exit::Fine),
    }
}

fn describe(entry: &QueueEntry, now: Timestamp) -> Vec<String> {
    let mut lines = vec![
        format!("{}  {}  {}", entry.id, state_name(entry), entry.destination),
        format!("  from      {}", sender_name(&entry.sender)),
        format!(
            "  received  {} ({}), {}",
            instant(entry.received_at),
            relative(entry.received_at, now),
            octets(entry.size)
        ),
        match entry.next_attempt {
            Some(at) => format!("  next try  {} ({})", instant(at), due(at, now)),
            None => "  next try  when released".to_owned(),
        },
    ];
    if let Some(asks) = entry.asks {
        lines.extend(wrap("  asks      ", words(asks)));
    }
    if let Some(waits) = &entry.waits {
        lines.extend(wrap("  waits     ", waits));
    }
    for recipient in &entry.recipients {
        let last = recipient.last.as_deref().map(|last| format!(": {last}")).unwrap_or_default();
        lines.extend(wrap("  to        ", &format!("{} {}{last}", recipient.address, recipient.state)));
    }
    for attempt in &entry.history {
        let host = match (&attempt.host, attempt.address) {
            (Some(host), Some(address)) => format!("{host} [{address}]"),
            (Some(host), None) => host.clone(),
            _ => "no host".to_owned(),
        };
        let tls = attempt.tls.as_deref().unwrap_or("no TLS");
        let verified = attempt.verified.as_deref().unwrap_or("nothing");
        let at = instant(attempt.at);
        let facts = format!("{at} {host}, {tls}, verified: {verified}, rule: {}", attempt.rule);
        lines.extend(wrap("  attempt   ", &facts));
        lines.extend(wrap("            ", &attempt.result));
    }
    if entry.history.is_empty() {
        lines.push("  attempt   none yet".to_owned());
    } else {
        let text =
            format!("stsrelay evidence {}: hosts, policy, TLSA, certificates and TLS of each", entry.id);
        lines.extend(wrap("  more      ", &text));
    }
    lines
}

fn words(asks: TlsAsk) -> &'static str {
    match asks {
        TlsAsk::Requiretls => "REQUIRETLS: goes only over verified TLS to hosts that offer REQUIRETLS",
        TlsAsk::TlsRequiredNo => "TLS-Required: No: goes whether TLS can be verified or not",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::output::COLUMNS;
    use super::super::list::list_table;
    use super::*;
    use crate::admin::protocol::{EntryRecipient, EntryState};
    use crate::queue::AttemptRecord;

    fn entry() -> QueueEntry {
        let at = "2026-01-10T12:00:00Z".parse().unwrap();
        QueueEntry {
            id: "1-000000A1.0".parse().unwrap(),
            state: EntryState::Deferred,
            sender: "a-very-long-sender-address-of-a-mailing-list+bounces-12345@lists.example.org".into(),
            destination: "example.net".into(),
            recipients: vec![EntryRecipient {
                address: "someone@example.net".into(),
                state: "pending".into(),
                last: Some("mx.example.net does not offer STARTTLS, which MTA-STS demands ".repeat(4)),
            }],
            received_at: at,
            size: 12_345,
            attempts: 3,
            next_attempt: "2026-01-10T12:20:00Z".parse().ok(),
            waits: None,
            is_report: false,
            asks: Some(TlsAsk::Requiretls),
            frozen: false,
            history: vec![AttemptRecord {
                at,
                host: Some("mx.example.net".into()),
                address: "192.0.2.1".parse().ok(),
                tls: None,
                verified: None,
                rule: "mta-sts enforce".into(),
                result: "mx.example.net does not offer STARTTLS ".repeat(5),
            }],
        }
    }

    #[test]
    fn listings_and_details_fit_a_hundred_columns() {
        let now = "2026-01-10T12:10:00Z".parse().unwrap();
        let lines = list_table(&[entry()], now).lines();
        assert!(lines[1].starts_with("1-000000A1.0  deferred  10m  in 10m  3"), "{}", lines[1]);
        let details = describe(&entry(), now);
        for line in lines.iter().chain(&details) {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        let words = details.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("no TLS, verified: nothing, rule: mta-sts enforce"), "{details:#?}");
    }
}
