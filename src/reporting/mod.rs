//! Story 3: the daily TLS-RPT reports (RFC 8460).
//!
//! After 00:00 UTC each domain's results of the day before become a report; the domain's record is
//! looked up anew, and the report goes to every target it names: `mailto:` by way of our own queue,
//! DKIM-signed, `https:` by POST, each for 24 hours at most.
//! Never: counts its own mail and posts (delivery leaves out `is_report`), sends without a record,
//! sends a report twice because of a restart, or forgets one.
//! Started by `daemon`; `admin` calls [`Reporting::send`] and [`Reporting::preview`].
//! See also: `entry` (the life of one report), `work` (one step of it), `run` (when), `mail` and
//! [`dkim`] (the mail).

pub mod digest;
pub mod dkim;
mod entry;
mod handover;
pub mod hygiene;
pub mod keys;
mod mail;
mod options;
mod run;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::{StreamExt, stream};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::mail::Domain;
use crate::metrics::Metrics;
use crate::net::dns::Dns;
use crate::net::https::Https;
use crate::net::{Clock, Randomness, World};
use crate::queue::QueueId;
use crate::store::targets::SuppressRule;
use crate::store::{Queue, Reports, Results};
use crate::tlsrpt::report::{Report, day_of, report_id};

pub use digest::mailing::DigestOptions;
pub use dkim::Signer;
pub use hygiene::Hygiene;
pub use options::{Options, RETRY, START_DELAY};

/// Reports worked on at once: each is a DNS question and a post or two; a slow endpoint holds up one.
const CONCURRENCY: usize = 8;

/// The reports' story. Cheap to clone; all clones share their state.
#[derive(Clone)]
pub struct Reporting {
    inner: Arc<Inner>,
}

struct Inner {
    doors: Doors,
    queue: Queue,
    results: Results,
    reports: Reports,
    options: watch::Receiver<Arc<Options>>,
    shared: Mutex<Shared>,
    /// `send` left something in [`Shared::inbox`].
    mail_in: Notify,
    metrics: OnceLock<Metrics>,
}

/// What this story needs of the world.
#[derive(Clone)]
struct Doors {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    dns: Arc<dyn Dns>,
    https: Arc<dyn Https>,
}

/// What all clones know of the reports, beyond what is kept; nothing of it is missed after a restart.
#[derive(Default)]
struct Shared {
    /// Being worked on.
    busy: HashSet<(Date, Domain)>,
    /// Looked up, nothing to send.
    done: HashSet<(Date, Domain)>,
    /// Reports begun per target, see [`Hygiene::reports_per_target`]; one more once that was told.
    sent: HashMap<(Date, String), u32>,
    /// Entries kept that say "nothing to send", see `work::NOTES_PER_DAY_MAX`.
    notes: HashMap<Date, u32>,
    /// What `send` leaves for `run` to go on with.
    inbox: Vec<(Timestamp, Date, Domain)>,
}

/// The right to work on one report, given back when dropped.
struct Claim {
    inner: Arc<Inner>,
    key: (Date, Domain),
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.inner.shared).busy.remove(&self.key);
    }
}

/// Nothing behind the lock can be left half done, so a panic elsewhere does not matter.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Not sent, by rule: see [`hygiene`].
    Withheld {
        /// Which.
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
            Self::Withheld { why } => write!(f, "withheld: {why}"),
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
        let doors = Doors { clock: world.clock, random: world.random, dns: world.dns, https: world.https };
        Self::with_doors(doors, queue, results, reports, options)
    }

    fn with_doors(
        doors: Doors,
        queue: Queue,
        results: Results,
        reports: Reports,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        let (shared, mail_in, metrics) = (Mutex::default(), Notify::new(), OnceLock::new());
        let inner = Inner { doors, queue, results, reports, options, shared, mail_in, metrics };
        Self { inner: Arc::new(inner) }
    }

    /// Counts what becomes of reports; before the story runs.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        // A second one is none of ours.
        let _ = self.inner.metrics.set(metrics);
        self
    }

    /// Sends each finished day's reports until `shutdown`; returns when what was under way has ended,
    /// a few seconds later at most.
    ///
    /// Each report of a day starts at a time of its own within [`Options::start_delay`] after 00:00 UTC;
    /// days left over from before a restart start at once. Never ends by itself.
    pub async fn run(self, shutdown: CancellationToken) {
        run::run(&self, shutdown).await;
    }

    /// Sends reports of a day (default: yesterday) at once, of all domains or of one; also of the
    /// unfinished current day, up to now: its whole report follows after midnight all the same. What
    /// was sent before is left alone unless `again`.
    ///
    /// What cannot be sent now is tried again by [`Reporting::run`]. Empty without results.
    pub async fn send(&self, day: Option<Date>, domain: Option<Domain>, again: bool) -> Vec<SendLine> {
        self.send_some(day, domain, again, None, usize::MAX).await.0
    }

    /// [`Reporting::send`] for at most `max` domains behind those of `after`; where to go on, unless that
    /// was all.
    pub async fn send_some(
        &self,
        day: Option<Date>,
        domain: Option<Domain>,
        again: bool,
        after: Option<(Date, Domain)>,
        max: usize,
    ) -> (Vec<SendLine>, Option<(Date, Domain)>) {
        let yesterday = || day_of(self.now()).yesterday().ok();
        // A midnight between two pages changes nothing.
        let begun = after.as_ref().map(|(day, _)| *day);
        let Some(day) = begun.or(day).or_else(yesterday) else { return (Vec::new(), None) };
        let mut domains = match domain {
            Some(domain) => vec![domain],
            None => self.domains(day),
        };
        if let Some((_, after)) = &after {
            domains.retain(|domain| domain > after);
        }
        let more = domains.len() > max;
        domains.truncate(max);
        let next = domains.last().filter(|_| more).map(|last| (day, last.clone()));
        (self.send_these(day, domains, again).await, next)
    }

    async fn send_these(&self, day: Date, domains: Vec<Domain>, again: bool) -> Vec<SendLine> {
        if !self.options().enabled {
            let why = "TLS reports are switched off (tlsrpt.enabled)".to_owned();
            let outcome = SendOutcome::NotSent { why };
            return domains
                .into_iter()
                .map(|domain| SendLine { domain, rua: None, outcome: outcome.clone() })
                .collect();
        }
        let mode = if again { work::Mode::Again } else { work::Mode::Now };
        let works = domains.into_iter().map(|domain| async move {
            let worked = self.work(day, &domain, mode).await;
            if let Some(next) = worked.next {
                self.shared().inbox.push((next, day, domain));
                self.inner.mail_in.notify_one();
            }
            worked.lines
        });
        stream::iter(works).buffered(CONCURRENCY).flat_map(stream::iter).collect().await
    }

    /// Domains that have results today, after `after`, at most `max`, in order: each with its sessions and how
    /// many of them failed.
    pub fn today(&self, after: Option<&Domain>, max: usize) -> Vec<(Domain, u64, u64)> {
        self.results().sums(day_of(self.now()), after, max)
    }

    /// What today's report for a domain would say now; `None` without results.
    pub fn preview(&self, domain: &Domain) -> Option<String> {
        let (now, options) = (self.now(), self.options());
        let today = day_of(now);
        let tally = self.results().tally(today, domain).filter(|tally| tally.sessions() > 0)?;
        let id = report_id(today, self.random().number(), domain, &options.contact_info);
        let tally = tally.without(options.omit);
        let report = Report::make(tally, today, &options.organization_name, &options.contact_info, id);
        Some(report.until(now).render())
    }

    /// What is wrong with our key records in DNS, a sentence each; nothing where no mail is signed. Takes
    /// some seconds at most.
    pub async fn check_keys(&self) -> Vec<String> {
        let options = self.options();
        if !options.enabled {
            return Vec::new();
        }
        keys::check(self.dns(), &options.dkim).await.into_iter().map(|(_, text)| text).collect()
    }

    /// Domains with results or a report of a day, in order.
    fn domains(&self, day: Date) -> Vec<Domain> {
        let mut domains: BTreeSet<Domain> = self.results().domains(day).into_iter().collect();
        domains.extend(self.reports().of_day(day).iter().map(|entry| entry.domain.clone()));
        domains.into_iter().collect()
    }

    /// When a target is left alone.
    pub fn suppress_rule(&self) -> SuppressRule {
        self.options().hygiene.suppress
    }

    fn claim(&self, day: Date, domain: &Domain) -> Option<Claim> {
        let key = (day, domain.clone());
        let free = self.shared().busy.insert(key.clone());
        free.then(|| Claim { inner: self.inner.clone(), key })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.inner.shared)
    }

    fn now(&self) -> Timestamp {
        self.inner.doors.clock.now()
    }

    fn random(&self) -> &dyn Randomness {
        &*self.inner.doors.random
    }

    fn options(&self) -> Arc<Options> {
        self.inner.options.borrow().clone()
    }

    fn dns(&self) -> &dyn Dns {
        &*self.inner.doors.dns
    }

    fn https(&self) -> &dyn Https {
        &*self.inner.doors.https
    }

    fn queue(&self) -> &Queue {
        &self.inner.queue
    }

    fn results(&self) -> &Results {
        &self.inner.results
    }

    fn reports(&self) -> &Reports {
        &self.inner.reports
    }
}
