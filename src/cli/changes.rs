//! `stsrelay policy changes`: destinations that protect their mail less than they did.

use clap::Args;
use jiff::Timestamp;

use super::output::{Output, instant, relative, wrap};
use super::{Exit, Failure, JsonArg, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::changes::{ChangesAnswer, ChangesRequest};
use crate::admin::protocol::{Answer, Request};
use crate::mail::Domain;
use crate::net::{Clock as _, SystemClock};
use crate::store::ChangeFilter;
use crate::sts::radar::{Noticed, Severity};

/// Which changes.
#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {
    /// Of this policy domain or MX host, and of names below it
    domain: Option<Domain>,
    /// Not before this: 2026-01-31 (UTC) or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = super::since::parse)]
    since: Option<Timestamp>,
    #[command(flatten)]
    json: JsonArg,
}

pub(super) fn run(arguments: Arguments, daemon: &mut Client) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut filter =
        ChangeFilter { domain: arguments.domain, since: arguments.since, ..ChangeFilter::default() };
    let mut out = Output::new();
    let mut none = true;
    loop {
        let asked = ChangesRequest { filter: filter.clone() };
        let ChangesAnswer { changes, more } = match daemon.ask(Request::Changes(asked))? {
            Answer::Changes(page) => page,
            other => return Err(unexpected(other)),
        };
        none &= changes.is_empty();
        for noticed in &changes {
            if arguments.json.json {
                out.json(noticed)?;
            } else {
                lines(noticed, now).iter().try_for_each(|line| out.line(line))?;
            }
        }
        filter.after = changes.last().map(|noticed| noticed.number);
        if !more || filter.after.is_none() {
            break;
        }
    }
    if none && !arguments.json.json {
        out.line("no destination was seen to protect its mail less than before")?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn lines(noticed: &Noticed, now: Timestamp) -> Vec<String> {
    let severity = match noticed.severity {
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Alarm => "ALARM",
    };
    let head =
        format!("{} ({})  {severity:<8}{}", instant(noticed.at), relative(noticed.at, now), noticed.domain);
    let mut lines = wrap("", &head);
    lines.extend(wrap("  ", &noticed.change.to_string()));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::output::COLUMNS;
    use super::*;
    use crate::sts::radar::Change;

    #[test]
    fn a_change_is_told_within_a_hundred_columns() {
        let at: Timestamp = "2026-01-10T12:00:00Z".parse().unwrap();
        let added = (0..16).map(|n| format!("mx{n}.example.net")).collect();
        let change = Change::MxChanged { added, removed: vec!["*.example.org".to_owned()], more: 0 };
        let domain = Domain::parse("example.org").unwrap();
        let noticed = Noticed { number: 7, at, domain, severity: change.severity(), change };
        let lines = lines(&noticed, at);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:?}");
        let text = lines.join("\n");
        for wanted in ["warning", "example.org", "other MX hosts: +mx0.example.net", "-*.example.org"] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
    }
}
