//! `stsrelay report ...`: outgoing TLS reports (RFC 8460), and reading those of others.

mod digest;
mod keygen;
mod list;
mod read;
mod send;
mod targets;
mod which;

use clap::Subcommand;
use jiff::civil::Date;

use self::which::Which;
use super::output::Output;
use super::{ConfigArgs, Exit, Failure, JsonArg, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::reports::{ReportListRequest, ReportsAnswer, ReportsRequest};
use crate::admin::protocol::{Answer, Request};
use crate::mail::Domain;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List reports made: day, domain, where they went, with what result, when tried next
    List {
        /// Of this UTC day only
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<Date>,
        /// To this domain only
        #[arg(long)]
        domain: Option<Domain>,
        /// Only those that did not reach a target, and will not
        #[arg(long)]
        failed: bool,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Show a report as sent, with its targets
    Show {
        /// The report domain, or the report-id
        #[arg(value_name = "DOMAIN|REPORT-ID")]
        which: Which,
        /// The UTC day it covers; the latest report without it
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<Date>,
        /// Only its text, to the octet
        #[arg(long, conflicts_with = "json")]
        raw: bool,
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
    /// Send a report again to all its targets: the same report under the same report-id
    Resend {
        /// The report domain, or the report-id
        #[arg(value_name = "DOMAIN|REPORT-ID")]
        which: Which,
        /// The UTC day it covers [default: yesterday]
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<Date>,
        #[command(flatten)]
        json: JsonArg,
    },
    /// List report targets that fail, and until when they are left alone
    Targets(JsonArg),
    /// Forget the failures of a target: it gets reports again
    Forgive {
        /// The mailto: or https: target, as `report targets` lists it
        target: String,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Digest a day: worst destinations, new failures, policies in danger, reports not delivered
    ///
    /// The same text is mailed once a day where the configuration has [digest] to.
    Digest {
        /// The UTC day, today included [default: yesterday]
        #[arg(long, value_name = "YYYY-MM-DD")]
        day: Option<Date>,
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
        Verb::List { day, domain, failed, json } => {
            let asked = ReportListRequest { after: None, day, domain, failed };
            list::list(&mut daemon, asked, json.json)
        }
        Verb::Show { which, day, raw, json } => {
            let form = match (raw, json.json) {
                (true, _) => list::Form::Raw,
                (false, true) => list::Form::Json,
                (false, false) => list::Form::Words,
            };
            list::show(&mut daemon, &which, day, form)
        }
        Verb::Preview { domain, json } => preview(&mut daemon, domain, json.json),
        Verb::Send { day, domain, again, json } => {
            send::send(&mut daemon, send::What { day, domain, again }, json.json)
        }
        Verb::Resend { which, day, json } => send::resend(&mut daemon, &which, day, json.json),
        Verb::Targets(json) => targets::list(&mut daemon, json.json),
        Verb::Forgive { target, json } => targets::forgive(&mut daemon, &target, json.json),
        Verb::Digest { day, json } => digest::run(&mut daemon, day, json.json),
    }
}

/// Asks for something of reports.
fn ask(daemon: &mut Client, request: ReportsRequest) -> Result<ReportsAnswer, Failure> {
    match daemon.ask(Request::Reports(request))? {
        Answer::Reports(answer) => Ok(answer),
        other => Err(unexpected(other)),
    }
}

/// What every verb does with an answer about reports it did not ask for.
fn strange() -> Failure {
    Failure::new(Exit::Failed, "the daemon answered something else than was asked")
}

fn pretty(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| json.to_owned())
}

fn preview(daemon: &mut Client, domain: Domain, as_json: bool) -> Result<Exit, Failure> {
    let ReportsAnswer::Text { json } = ask(daemon, ReportsRequest::Preview { domain })? else {
        return Err(strange());
    };
    let mut out = Output::new();
    match serde_json::from_str::<serde_json::Value>(&json) {
        Ok(value) if as_json => out.json(&value)?,
        _ => out.line(&pretty(&json))?,
    }
    out.finish()?;
    Ok(Exit::Fine)
}
