//! Story 3: the daily TLS-RPT reports.

pub mod dkim;
mod mail;
mod options;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::mail::Domain;
use crate::net::World;
use crate::queue::QueueId;
use crate::store::{Queue, Reports, Results};

pub use dkim::Signer;
pub use options::{Options, RETRY, START_DELAY};

/// The reports' story. Cheap to clone; all clones share their state.
#[derive(Clone)]
pub struct Reporting {
    inner: Arc<()>,
}

/// One line of what [`Reporting::send`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SendLine {
    /// The report domain.
    pub domain: Domain,
    /// The target, as published; absent where there is none.
    pub rua: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub outcome: SendOutcome,
}

/// What became of a report at one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum SendOutcome {
    /// Handed to our own queue under this id.
    Queued {
        /// See `queue show`.
        id: QueueId,
    },
    /// The endpoint took it.
    Accepted,
    /// Not now; tried again.
    Deferred {
        /// When.
        next: Timestamp,
        /// What happened.
        why: String,
    },
    /// Not now and not again.
    GivenUp {
        /// What happened.
        why: String,
    },
    /// Nothing was sent this time.
    NotSent {
        /// E.g. already sent, no record, no results.
        why: String,
    },
}

impl fmt::Display for SendOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued { id } => write!(f, "queued as {id}"),
            Self::Accepted => f.write_str("accepted"),
            Self::Deferred { next, why } => write!(f, "{why}; tried again at {next:.0}"),
            Self::GivenUp { why } => write!(f, "given up: {why}"),
            Self::NotSent { why } => write!(f, "not sent: {why}"),
        }
    }
}

impl Reporting {
    /// Bundles the story; does nothing yet.
    pub fn new(
        world: World,
        queue: Queue,
        results: Results,
        reports: Reports,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        todo!()
    }

    /// Sends each finished day's reports until `shutdown`; returns when what was under way has ended.
    pub async fn run(self, shutdown: CancellationToken) {
        todo!()
    }

    /// Sends reports of a day (default: yesterday) at once, of all domains or of one; also of the
    /// unfinished current day. `again` repeats what was already sent.
    pub async fn send(&self, day: Option<Date>, domain: Option<Domain>, again: bool) -> Vec<SendLine> {
        todo!()
    }

    /// What today's report for a domain would say now; `None` without results.
    pub fn preview(&self, domain: &Domain) -> Option<String> {
        todo!()
    }
}
