//! `stsrelay report ...`: outgoing TLS reports (RFC 8460), and reading those of others.

mod keygen;
mod read;

use clap::Subcommand;
use jiff::civil::Date;

use super::output::{Output, Table, cut, instant, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, output, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::{Answer, Request};
use crate::mail::Domain;
use crate::store::{ReportEntry, RuaStatus};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List reports made: day, domain, where they went and with what result
    List {
        /// Of this UTC day only
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<Date>,
        /// To this domain only
        #[arg(long)]
        domain: Option<Domain>,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Show a report as sent, with its targets
    Show {
        /// The report domain
        domain: Domain,
        /// The UTC day it covers; the latest report without it
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<Date>,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Print what today's report to a domain would say now
    Preview {
        /// The report domain
        domain: Domain,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Send reports now, without waiting for the night
    Send {
        /// Of this UTC day, today included [default: yesterday]
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<Date>,
        /// To this domain only
        #[arg(long)]
        domain: Option<Domain>,
        /// Also what was sent already
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Make a DKIM key for mailed reports and print what to publish; needs no daemon
    Keygen(keygen::Arguments),
    /// Read the TLS reports that others sent, and add them up
    ///
    /// Files may be JSON, gzip, zip, whole mails, mbox files or folders of these (Maildirs too), whatever
    /// their names say. Nothing is verified: whoever can send mail can send a report. Needs no daemon.
    /// Exit status 1 when something is no report, or none is found; 2 when something cannot be read.
    Read(read::Arguments),
}

pub(super) fn run(verb: Verb, args: &ConfigArgs) -> Result<Exit, Failure> {
    let verb = match verb {
        Verb::Keygen(arguments) => return keygen::run(&arguments),
        Verb::Read(arguments) => return read::run(&arguments),
        other => other,
    };
    let mut daemon = args.connect()?;
    match verb {
        // These need none.
        Verb::Keygen(arguments) => keygen::run(&arguments),
        Verb::Read(arguments) => read::run(&arguments),
        Verb::List { day, domain, json } => list(&mut daemon, day, domain.as_ref(), json.json),
        Verb::Show { domain, day, json } => show(&mut daemon, domain, day, json.json),
        Verb::Preview { domain, json } => preview(&mut daemon, domain, json.json),
        Verb::Send { day, domain, again, json } => {
            send(&mut daemon, Request::ReportSend { day, domain, again }, json.json)
        }
    }
}

fn status_name(status: &RuaStatus) -> String {
    match status {
        RuaStatus::Waiting(at) => format!("waiting for {}", instant(*at)),
        RuaStatus::Queued(id) => format!("queued as {id}"),
        RuaStatus::Accepted => "accepted".to_owned(),
        RuaStatus::GivenUp => "given up".to_owned(),
    }
}

fn list(
    daemon: &mut Client,
    day: Option<Date>,
    domain: Option<&Domain>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let mut table = Table::new(&["DAY", "DOMAIN", "TARGET", "TRIES", "STATUS"], 2);
    let mut last = None;
    loop {
        let request = Request::ReportList { after: last.take(), day, domain: domain.cloned() };
        let (entries, more) = match daemon.ask(request)? {
            Answer::Reports { entries, more } => (entries, more),
            other => return Err(unexpected(other)),
        };
        for entry in &entries {
            if as_json {
                out.json(&as_object(entry))?;
            } else {
                add_rows(&mut table, entry);
            }
        }
        last = entries.last().map(|entry| (entry.day, entry.domain.clone()));
        if !more || last.is_none() {
            break;
        }
    }
    if !as_json {
        if table.is_empty() {
            out.line("no reports were made")?;
        } else {
            table.lines().iter().try_for_each(|line| out.line(line))?;
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn add_rows(table: &mut Table, entry: &ReportEntry) {
    let (day, domain) = (entry.day.to_string(), cut(entry.domain.as_str(), 30));
    if entry.targets.is_empty() {
        let cells = vec![day, domain, "-".to_owned(), "0".to_owned(), "nothing sent".to_owned()];
        table.row(cells, entry.note.clone());
        return;
    }
    for target in &entry.targets {
        table.row(
            vec![
                day.clone(),
                domain.clone(),
                target.rua.clone(),
                target.attempts.to_string(),
                status_name(&target.status),
            ],
            target.last.clone(),
        );
    }
}

/// The entry with its report as an object, where it has one.
fn as_object(entry: &ReportEntry) -> serde_json::Value {
    let mut object = serde_json::to_value(entry).unwrap_or_default();
    if let Some(members) = object.as_object_mut()
        && let Some(text) = members.shift_remove("json")
    {
        let report = text.as_str().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        members.extend(report.map(|report| ("report".to_owned(), report)));
    }
    object
}

fn show(daemon: &mut Client, domain: Domain, day: Option<Date>, as_json: bool) -> Result<Exit, Failure> {
    let entries = match daemon.ask(Request::ReportShow { day, domain })? {
        Answer::Reports { entries, .. } => entries,
        other => return Err(unexpected(other)),
    };
    let mut out = Output::new();
    for entry in &entries {
        if as_json {
            out.json(&as_object(entry))?;
            continue;
        }
        out.line(&format!("{}  {}  {}", entry.day, entry.domain, entry.report_id))?;
        out.line(&format!("  due since {}", instant(entry.started_at)))?;
        for target in &entry.targets {
            let last = target.last.as_deref().map(|last| format!(": {last}")).unwrap_or_default();
            let text =
                format!("{}, {}, tries: {}{last}", target.rua, status_name(&target.status), target.attempts);
            wrap("  to ", &text).iter().try_for_each(|line| out.line(line))?;
        }
        if let Some(note) = &entry.note {
            wrap("  ", note).iter().try_for_each(|line| out.line(line))?;
        }
        out.line(&pretty(&entry.json))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn pretty(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| json.to_owned())
}

fn preview(daemon: &mut Client, domain: Domain, as_json: bool) -> Result<Exit, Failure> {
    let json = match daemon.ask(Request::ReportPreview { domain })? {
        Answer::ReportText { json } => json,
        other => return Err(unexpected(other)),
    };
    let mut out = Output::new();
    match serde_json::from_str::<serde_json::Value>(&json) {
        Ok(value) if as_json => out.json(&value)?,
        _ => out.line(&pretty(&json))?,
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn send(daemon: &mut Client, request: Request, as_json: bool) -> Result<Exit, Failure> {
    output::progress("sending ...");
    let lines = match daemon.ask(request)? {
        Answer::Sent { lines } => lines,
        other => return Err(unexpected(other)),
    };
    let mut out = Output::new();
    for line in &lines {
        if as_json {
            out.json(line)?;
        } else {
            let rua = line.rua.as_deref().unwrap_or("no target");
            wrap(&format!("{}  ", line.domain), &format!("{rua}  {}", line.text))
                .iter()
                .try_for_each(|line| out.line(line))?;
        }
    }
    if lines.is_empty() && !as_json {
        out.line("nothing to report")?;
    }
    out.finish()?;
    // Negative when something could not go out at all; what waits is tried again by itself.
    let negative = lines.iter().any(|line| line.outcome == "given-up" || line.outcome == "not-sent");
    Ok(if negative { Exit::Negative } else { Exit::Fine })
}
