//! What each admin request about TLS reports does.

use std::sync::Arc;

use jiff::civil::Date;
use tracing::info;

use super::answer::AdminHandles;
use super::protocol::reports::{
    ReportListRequest, ReportsAnswer, ReportsRequest, SentLine, TargetLine, TodayLine,
};
use super::protocol::{Answer, PAGE_MAX};
use crate::mail::Domain;
use crate::reporting::{SendLine, SendOutcome};
use crate::store::targets::MailEnd;
use crate::store::{ReportEntry, RuaState, RuaStatus};

/// Report domains worked on for one request to send: each is a DNS question and some posts, and whoever
/// asked hears of it in between.
const SEND_MAX: usize = 100;

impl AdminHandles {
    /// Does what is asked of reports.
    pub(super) async fn report(&self, request: ReportsRequest) -> Answer {
        let answer = match request {
            ReportsRequest::List(asked) => self.report_page(asked),
            ReportsRequest::Show { day, domain } => match self.report_entry(day, &domain) {
                Some(entry) => ReportsAnswer::Page {
                    mails: self.mail_ends(&entry),
                    entries: vec![(*entry).clone()],
                    more: false,
                },
                None => return Answer::Nothing { text: format!("no report to {domain} was made") },
            },
            ReportsRequest::Today { after } => {
                let mut found = self.reporting.today(after.as_ref(), PAGE_MAX + 1);
                let more = found.len() > PAGE_MAX;
                found.truncate(PAGE_MAX);
                let line = |(domain, sessions, failed)| TodayLine { domain, sessions, failed };
                ReportsAnswer::Today { domains: found.into_iter().map(line).collect(), more }
            }
            ReportsRequest::Preview { domain } => match self.reporting.preview(&domain) {
                Some(json) => ReportsAnswer::Text { json },
                None => return Answer::Nothing { text: format!("no session with {domain} today") },
            },
            ReportsRequest::Send { day, domain, again, after } => {
                let (lines, next) = self.reporting.send_some(day, domain, again, after, SEND_MAX).await;
                ReportsAnswer::Sent { lines: lines.into_iter().map(sent_line).collect(), next }
            }
            ReportsRequest::Targets { after } => self.target_page(after.as_deref()),
            ReportsRequest::Forgive { target } => {
                let key = target.parse::<crate::tlsrpt::Rua>().map_or(target.clone(), |rua| rua.key());
                if !self.reports.targets().succeeded(&key) {
                    return Answer::Nothing { text: format!("no report to {target} failed") };
                }
                info!(target = key, "failures of a report target forgotten by an operator");
                return Answer::Changed { count: 1 };
            }
            ReportsRequest::Digest { day } => {
                ReportsAnswer::Digest(Box::new(self.reporting.digest(&self.policies, day).await))
            }
        };
        Answer::Reports(answer)
    }

    fn report_entry(&self, day: Option<Date>, domain: &Domain) -> Option<Arc<ReportEntry>> {
        match day {
            Some(day) => self.reports.get(day, domain),
            None => self.reports.page(None, None, Some(domain), 1, |_| true).0.pop(),
        }
    }

    fn report_page(&self, asked: ReportListRequest) -> ReportsAnswer {
        let wanted = |entry: &ReportEntry| !asked.failed || entry.targets.iter().any(|t| self.is_troubled(t));
        let (found, more) =
            self.reports.page(asked.after.as_ref(), asked.day, asked.domain.as_ref(), PAGE_MAX, wanted);
        let mails = found.iter().flat_map(|entry| self.mail_ends(entry)).collect();
        let entries = found.iter().map(|entry| entry.without_text()).collect();
        ReportsAnswer::Page { entries, mails, more }
    }

    /// Whether a report did not reach a target, and will not.
    fn is_troubled(&self, target: &RuaState) -> bool {
        match target.status {
            RuaStatus::GivenUp | RuaStatus::Withheld => true,
            RuaStatus::Queued(id) => self.reports.targets().mail(id).is_some_and(|end| !end.delivered),
            RuaStatus::Waiting(_) | RuaStatus::Accepted => false,
        }
    }

    fn mail_ends(&self, entry: &ReportEntry) -> Vec<MailEnd> {
        let end = |target: &RuaState| match target.status {
            RuaStatus::Queued(id) => self.reports.targets().mail(id).map(|end| (*end).clone()),
            _ => None,
        };
        entry.targets.iter().filter_map(end).collect()
    }

    fn target_page(&self, after: Option<&str>) -> ReportsAnswer {
        let (rule, now) = (self.reporting.suppress_rule(), self.clock.now());
        let mut standings = self.reports.targets().standings();
        standings.retain(|standing| after.is_none_or(|after| standing.target.as_str() > after));
        let more = standings.len() > PAGE_MAX;
        standings.truncate(PAGE_MAX);
        let line = |standing: &Arc<crate::store::targets::Standing>| TargetLine {
            suppressed_until: standing.suppressed_until(rule).filter(|until| now < *until),
            standing: (**standing).clone(),
        };
        ReportsAnswer::Targets { targets: standings.iter().map(line).collect(), more }
    }
}

fn sent_line(line: SendLine) -> SentLine {
    let outcome = match &line.outcome {
        SendOutcome::Queued { .. } => "queued",
        SendOutcome::Accepted => "accepted",
        SendOutcome::Deferred { .. } => "deferred",
        SendOutcome::GivenUp { .. } => "given-up",
        SendOutcome::Withheld { .. } => "withheld",
        SendOutcome::NotSent { .. } => "not-sent",
    };
    let (outcome, text) = (outcome.to_owned(), line.outcome.to_string());
    SentLine { domain: line.domain, rua: line.rua, outcome, text }
}
