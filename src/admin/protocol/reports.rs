//! The words for TLS reports: listing, sending, their targets, the digest. Pure.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::mail::Domain;
use crate::reporting::digest::Digest;
use crate::store::ReportEntry;
use crate::store::targets::{MailEnd, Standing};

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
