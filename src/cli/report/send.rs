//! `report send` and `report resend`: reports at once, page by page.

use jiff::civil::Date;

use super::super::output::{Output, progress, wrap};
use super::super::{Exit, Failure};
use super::which::Which;
use super::{ask, strange};
use crate::admin::client::Client;
use crate::admin::protocol::reports::{ReportsAnswer, ReportsRequest};
use crate::mail::Domain;

/// Which reports are sent.
pub(super) struct What {
    pub(super) day: Option<Date>,
    pub(super) domain: Option<Domain>,
    pub(super) again: bool,
}

pub(super) fn send(daemon: &mut Client, what: What, as_json: bool) -> Result<Exit, Failure> {
    progress("sending ...");
    let mut out = Output::new();
    let (mut after, mut told, mut negative) = (None, 0u64, false);
    loop {
        let What { day, domain, again } = &what;
        let request =
            ReportsRequest::Send { day: *day, domain: domain.clone(), again: *again, after: after.take() };
        let ReportsAnswer::Sent { lines, next } = ask(daemon, request)? else { return Err(strange()) };
        for line in &lines {
            told += 1;
            // What waits is tried again by itself.
            negative |= matches!(&line.outcome[..], "given-up" | "withheld" | "not-sent");
            if as_json {
                out.json(line)?;
            } else {
                let rua = line.rua.as_deref().unwrap_or("no target");
                wrap(&format!("{}  ", line.domain), &format!("{rua}  {}", line.text))
                    .iter()
                    .try_for_each(|line| out.line(line))?;
            }
        }
        after = next;
        if after.is_none() {
            break;
        }
        progress(&format!("{told} targets so far"));
    }
    if told == 0 && !as_json {
        out.line("nothing to report")?;
    }
    out.finish()?;
    Ok(if negative { Exit::Negative } else { Exit::Fine })
}

/// The same report once more; an id must be the one of the report we have.
pub(super) fn resend(
    daemon: &mut Client,
    which: &Which,
    day: Option<Date>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let (day, domain) = (which.day().or(day), which.domain().clone());
    if let Which::Id { id, .. } = which {
        let request = ReportsRequest::Show { day, domain: domain.clone() };
        let ReportsAnswer::Page { entries, .. } = ask(daemon, request)? else { return Err(strange()) };
        if entries.first().is_none_or(|entry| entry.report_id != *id) {
            return Err(Failure::new(Exit::Negative, format!("no report {id} was made")));
        }
    }
    send(daemon, What { day, domain: Some(domain), again: true }, as_json)
}
