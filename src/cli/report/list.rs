//! `report list` and `report show`: what was sent, to whom, with what result, when tried next.

use jiff::civil::Date;

use super::super::output::{Output, Table, cut, instant, wrap};
use super::super::{Exit, Failure};
use super::which::Which;
use super::{ask, pretty, strange};
use crate::admin::client::Client;
use crate::admin::protocol::reports::{
    ReportListRequest, ReportView, ReportsAnswer, ReportsRequest, mail_end,
};
use crate::store::targets::MailEnd;
use crate::store::{ReportEntry, RuaState, RuaStatus};

/// How a report is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Words,
    /// One object.
    Json,
    /// The report's text alone.
    Raw,
}

fn status_name(target: &RuaState, mails: &[MailEnd]) -> String {
    match (&target.status, mail_end(target, mails)) {
        (RuaStatus::Waiting(at), _) => format!("next at {}", instant(*at)),
        (RuaStatus::Queued(_), Some(end)) if end.delivered => "delivered".to_owned(),
        (RuaStatus::Queued(_), Some(_)) => "not delivered".to_owned(),
        (RuaStatus::Queued(id), None) => format!("queued as {id}"),
        (RuaStatus::Accepted, _) => "accepted".to_owned(),
        (RuaStatus::GivenUp, _) => "given up".to_owned(),
        (RuaStatus::Withheld, _) => "withheld".to_owned(),
    }
}

/// The last thing that happened.
fn last(target: &RuaState, mails: &[MailEnd]) -> Option<String> {
    let end = mail_end(target, mails).map(|end| format!("{}: {}", instant(end.at), end.text));
    end.or_else(|| target.last.clone())
}

/// Prints page by page: there may be a hundred thousand.
pub(super) fn list(
    daemon: &mut Client,
    mut asked: ReportListRequest,
    as_json: bool,
) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let mut table = Table::new(&["DAY", "DOMAIN", "TARGET", "TRIES", "STATUS"], 2);
    let mut none = true;
    loop {
        let ReportsAnswer::Page { entries, mails, more } = ask(daemon, ReportsRequest::List(asked.clone()))?
        else {
            return Err(strange());
        };
        for entry in &entries {
            none = false;
            if as_json {
                out.json(&ReportView::new(entry, &mails))?;
            } else {
                add_rows(&mut table, entry, &mails);
            }
        }
        if !as_json && !none {
            table.take_lines().iter().try_for_each(|line| out.line(line))?;
        }
        asked.after = entries.last().map(|entry| (entry.day, entry.domain.clone()));
        if !more || asked.after.is_none() {
            break;
        }
    }
    if none && !as_json {
        out.line(if asked.failed { "no report failed" } else { "no reports were made" })?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn add_rows(table: &mut Table, entry: &ReportEntry, mails: &[MailEnd]) {
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
                status_name(target, mails),
            ],
            last(target, mails),
        );
    }
}

/// Shows one report.
pub(super) fn show(
    daemon: &mut Client,
    which: &Which,
    day: Option<Date>,
    form: Form,
) -> Result<Exit, Failure> {
    let request = ReportsRequest::Show { day: which.day().or(day), domain: which.domain().clone() };
    let ReportsAnswer::Page { entries, mails, .. } = ask(daemon, request)? else { return Err(strange()) };
    if let (Which::Id { id, .. }, Some(entry)) = (which, entries.first())
        && *id != entry.report_id
    {
        let text =
            format!("no report {id}; the one to {} of {} is {}", entry.domain, entry.day, entry.report_id);
        return Err(Failure::new(Exit::Negative, text));
    }
    let mut out = Output::new();
    for entry in &entries {
        match form {
            Form::Json => out.json(&ReportView::new(entry, &mails))?,
            Form::Raw => out.line(&entry.json)?,
            Form::Words => words(entry, &mails).iter().try_for_each(|line| out.line(line))?,
        }
    }
    out.finish()?;
    Ok(Exit::Fine)
}

fn words(entry: &ReportEntry, mails: &[MailEnd]) -> Vec<String> {
    let mut lines = vec![format!("{}  {}  {}", entry.day, entry.domain, entry.report_id)];
    lines.push(format!("  due since {}", instant(entry.started_at)));
    for target in &entry.targets {
        let last = last(target, mails).map(|last| format!(": {last}")).unwrap_or_default();
        let status = status_name(target, mails);
        let text = format!("{}, {status}, tries: {}{last}", target.rua, target.attempts);
        lines.extend(wrap("  to ", &text));
    }
    if let Some(note) = &entry.note {
        lines.extend(wrap("  ", note));
    }
    if !entry.json.is_empty() {
        lines.push(pretty(&entry.json));
    }
    lines
}
