//! The words for TLS reports: listing, sending, their targets, the digest. Pure.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::mail::Domain;
use crate::reporting::digest::Digest;
use crate::store::targets::{MailEnd, Standing};
use crate::store::{ReportEntry, RuaState, RuaStatus};

/// What can be asked of reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum ReportsRequest {
    /// A page of reports, without their text.
    List(ReportListRequest),
    /// One report with its text.
    Show {
        /// Of this day; the latest without it.
        day: Option<Date>,
        /// To this domain.
        domain: Domain,
    },
    /// What today's report would say now.
    Preview {
        /// To this domain.
        domain: Domain,
    },
    /// A page of the domains that today's reports would go to.
    Today {
        /// The last domain of the page before.
        after: Option<Domain>,
    },
    /// Sends some reports now; the answer tells where to go on.
    Send {
        /// Of this day; yesterday without it.
        day: Option<Date>,
        /// To this domain; to all without it.
        domain: Option<Domain>,
        /// Also what was sent already.
        again: bool,
        /// From the answer before.
        after: Option<(Date, Domain)>,
    },
    /// A page of the targets that fail.
    Targets {
        /// The last target of the page before.
        after: Option<String>,
    },
    /// Forgets the failures of a target.
    Forgive {
        /// Which.
        target: String,
    },
    /// A day, digested.
    Digest {
        /// Yesterday without it.
        day: Option<Date>,
    },
}

/// Which reports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportListRequest {
    /// The last report of the page before.
    pub after: Option<(Date, Domain)>,
    /// Of this day only.
    pub day: Option<Date>,
    /// To this domain only.
    pub domain: Option<Domain>,
    /// Only those that did not reach a target, and will not.
    pub failed: bool,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum ReportsAnswer {
    /// A page of reports, or the one asked for.
    Page {
        /// Latest day first, then by domain.
        entries: Vec<ReportEntry>,
        /// What became of those that were mailed, as far as it is known.
        mails: Vec<MailEnd>,
        /// There are more after the last one.
        more: bool,
    },
    /// A page of domains with results today.
    Today {
        /// In order of domain.
        domains: Vec<TodayLine>,
        /// There are more after the last one.
        more: bool,
    },
    /// The text of a report (JSON, RFC 8460 §4.4).
    Text {
        /// The text.
        json: String,
    },
    /// What was sent.
    Sent {
        /// One line per report and target.
        lines: Vec<SentLine>,
        /// Where to go on; absent at the end.
        next: Option<(Date, Domain)>,
    },
    /// A page of targets.
    Targets {
        /// In order of target.
        targets: Vec<TargetLine>,
        /// There are more after the last one.
        more: bool,
    },
    /// A day, digested.
    Digest(Box<Digest>),
}

/// A domain with results today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TodayLine {
    /// The report domain.
    pub domain: Domain,
    /// TLS sessions, counted per policy.
    pub sessions: u64,
    /// Those that failed their policy.
    pub failed: u64,
}

/// A report and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportView {
    /// The UTC day it covers.
    pub day: Date,
    /// To whom.
    pub domain: Domain,
    /// Its report-id.
    pub report_id: String,
    /// When it was first due.
    pub started_at: Timestamp,
    /// Where it goes, in the order of the record; none when the record was gone.
    pub targets: Vec<TargetView>,
    /// Why nothing is sent, if so.
    pub note: Option<String>,
    /// The report as sent (RFC 8460 §4.4), where one report is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<serde_json::Value>,
}

/// How it stands with one target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetView {
    /// The target.
    #[serde(flatten)]
    pub state: RuaState,
    /// What became of the mail, if it was mailed and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailEnd>,
}

impl ReportView {
    /// Of an entry and the ends of its mails among these.
    pub fn new(entry: &ReportEntry, mails: &[MailEnd]) -> Self {
        let target =
            |state: &RuaState| TargetView { mail: mail_end(state, mails).cloned(), state: state.clone() };
        Self {
            day: entry.day,
            domain: entry.domain.clone(),
            report_id: entry.report_id.clone(),
            started_at: entry.started_at,
            targets: entry.targets.iter().map(target).collect(),
            note: entry.note.clone(),
            report: serde_json::from_str(&entry.json).ok(),
        }
    }
}

/// What became of the mail to a target, if it was mailed and that is known.
pub fn mail_end<'a>(target: &RuaState, mails: &'a [MailEnd]) -> Option<&'a MailEnd> {
    match target.status {
        RuaStatus::Queued(id) => mails.iter().find(|end| end.id == id),
        _ => None,
    }
}

/// The failures of a target were forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForgivenView {
    /// The target.
    pub target: String,
    /// They were.
    pub forgiven: bool,
}

/// A target that fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetLine {
    /// Its failures.
    #[serde(flatten)]
    pub standing: Standing,
    /// It is left alone until then.
    pub suppressed_until: Option<Timestamp>,
}

/// One report at one target, as sent by `report send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentLine {
    /// The report domain.
    pub domain: Domain,
    /// The target, if there is one.
    pub rua: Option<String>,
    /// `queued`, `accepted`, `deferred`, `given-up`, `withheld` or `not-sent`.
    pub outcome: String,
    /// One sentence.
    pub text: String,
}
