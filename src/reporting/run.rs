//! When reports are worked on: the schedule behind [`Reporting::run`].
//!
//! One ordered set of (when, day, domain) holds everything that is to be done; what is due is worked
//! on, a few at a time, on this task. When a day is over each of its domains enters the set with a time of
//! its own within the start delay; what a restart left unsettled enters at once. Never keeps state of its own: a restart rebuilds the
//! set from `store`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::work::{Mode, Worked};
use super::{CONCURRENCY, Reporting, entry};
use crate::mail::Domain;
use crate::queue::retry::after;
use crate::store::QueueError;
use crate::tlsrpt::Rua;
use crate::tlsrpt::report::{day_end, day_of};

/// Days a report is kept for `report list`.
const REPORTS_KEPT_DAYS: i64 = 30;
/// Days results are kept after their own, for `report send --day`; longer while still to be sent.
const RESULTS_KEPT_DAYS: i64 = 7;
/// Results of so many domains are kept in all: a relay that writes to 100,000 domains a day keeps the last
/// two days, at about a kilobyte each, and what is still to be sent.
const RESULTS_KEPT_MAX: usize = 200_000;
/// Octets of reports that are kept for `report list` in all, beyond yesterday's and what is still to be sent.
const REPORTS_KEPT_OCTETS: usize = 128 << 20;
/// What a report costs in memory beside its text: names, targets, how they stand.
const REPORT_OCTETS: usize = 800;
/// Sleeps are no longer than this, so that a changed wall clock is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// Yesterday's domains are looked at again this often: a session that began before midnight may be
/// counted after the reports have started.
const RESCAN: Duration = Duration::from_secs(3600);
/// What is under way at shutdown has this long to end; what is cut off goes on after the restart.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

type Key = (Timestamp, Date, Domain);

/// See [`Reporting::run`].
pub(super) async fn run(reporting: &Reporting, shutdown: CancellationToken) {
    let mut options = reporting.inner.options.clone();
    let mut options_end = false;
    let mut schedule = Schedule::resume(reporting);
    let mut works: FuturesUnordered<BoxFuture<'_, (Date, Domain, Worked)>> = FuturesUnordered::new();
    if reporting.options().enabled {
        reporting.options().warnings().iter().for_each(|warning| warn!("{warning}"));
    }
    while !shutdown.is_cancelled() {
        let current = options.borrow_and_update().clone();
        let now = reporting.now();
        schedule.due.extend(reporting.shared().inbox.drain(..));
        schedule.sweep(reporting, now).await;
        let mut wait = SLEEP_MAX;
        if current.enabled {
            schedule.plan(reporting, now, current.start_delay);
            while works.len() < CONCURRENCY
                && let Some((_, day, domain)) = schedule.pop_due(now)
            {
                works.push(Box::pin(async move {
                    let worked = reporting.work(day, &domain, Mode::Due).await;
                    (day, domain, worked)
                }));
            }
            if works.len() < CONCURRENCY {
                wait = schedule.wait(now);
            }
        }
        tokio::select! {
            // In this order, so that equal runs are equal; what ends makes room for what begins.
            biased;
            () = shutdown.cancelled() => break,
            Some((day, domain, worked)) = works.next() => {
                schedule.due.extend(worked.next.map(|next| (next, day, domain)));
            }
            changed = options.changed(), if !options_end => {
                options_end = changed.is_err();
                schedule.plan_at = None;
            }
            () = reporting.inner.mail_in.notified() => {}
            () = sleep(wait) => {}
        }
    }
    if timeout(SHUTDOWN_GRACE, async { while works.next().await.is_some() {} }).await.is_err() {
        info!("TLS reports under way were cut off; they go on after the restart");
    }
}

/// What is to be done, and when.
#[derive(Default)]
struct Schedule {
    due: BTreeSet<Key>,
    /// Of this process: what spreads the reports of a day.
    seed: u64,
    /// Finished days, with the time their domains were last looked at.
    planned: BTreeMap<Date, Timestamp>,
    /// When [`Schedule::plan`] has something to do again; at once if `None`.
    plan_at: Option<Timestamp>,
    /// The day the last forgetting was done on.
    swept: Option<Date>,
}

impl Schedule {
    /// Everything a former run left unsettled.
    fn resume(reporting: &Reporting) -> Self {
        let mut schedule = Self { seed: reporting.random().number(), ..Self::default() };
        let mut shared = reporting.shared();
        shared.notes.clear();
        shared.sent.clear();
        for kept in reporting.reports().list() {
            if kept.targets.is_empty() {
                *shared.notes.entry(kept.day).or_insert(0) += 1;
            }
            // The bound on reports to one target holds over a restart.
            for target in kept.targets.iter().filter(|target| entry::is_sent(target)) {
                if let Ok(rua) = target.rua.parse::<Rua>() {
                    *shared.sent.entry((kept.day, rua.key())).or_insert(0) += 1;
                }
            }
            schedule.due.extend(entry::next_due(&kept).map(|at| (at, kept.day, kept.domain.clone())));
        }
        schedule
    }

    /// Gives the reports of every finished day their times.
    fn plan(&mut self, reporting: &Reporting, now: Timestamp, start_delay: Duration) {
        if self.plan_at.is_some_and(|at| now < at) {
            return;
        }
        let today = day_of(now);
        let yesterday = today.yesterday().ok();
        for day in reporting.results().days().into_iter().filter(|day| *day < today) {
            let looked = self.planned.get(&day).copied();
            if looked.is_some_and(|at| Some(day) != yesterday || now < after(at, RESCAN)) {
                continue;
            }
            self.planned.insert(day, now);
            let domains = reporting.results().domains(day);
            let shared = reporting.shared();
            let before = self.due.len();
            for domain in domains {
                let begun = entry::is_begun(reporting.reports().get(day, &domain).as_deref(), day, today);
                if !begun && !shared.done.contains(&(day, domain.clone())) {
                    // RFC 8460 §4.1: not everybody reports at the stroke of midnight, and not one sender to
                    // everybody at once.
                    let wait = start_delay.mul_f64(fraction(self.seed, day, &domain));
                    self.due.insert((after(midnight_after(day), wait).max(now), day, domain));
                }
            }
            let domains = self.due.len() - before;
            if domains > 0 {
                info!(%day, domains, within = ?start_delay, "TLS reports start");
            }
        }
        // Something new can come with the next day or the next look.
        self.plan_at = Some(midnight_after(today).min(after(now, RESCAN)));
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<Key> {
        self.due.first().is_some_and(|(at, ..)| *at <= now).then(|| self.due.pop_first())?
    }

    /// How long nothing is to be done.
    fn wait(&self, now: Timestamp) -> Duration {
        let due = self.due.first().map(|(at, ..)| *at);
        let next = due.into_iter().chain(self.plan_at).min().unwrap_or(now);
        Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO).min(SLEEP_MAX)
    }

    /// Once a day: forgets what is old and settled.
    async fn sweep(&mut self, reporting: &Reporting, now: Timestamp) {
        let today = day_of(now);
        if self.swept == Some(today) {
            return;
        }
        self.swept = Some(today);
        let back = |days: i64| today.checked_sub(days.days()).unwrap_or(Date::MIN);
        // Never: results of a report that is still to be sent, however long we were down.
        let unsent = self.due.iter().map(|(_, day, _)| *day);
        let unplanned = reporting.results().days().into_iter().filter(|day| !self.planned.contains_key(day));
        let oldest = match reporting.options().enabled {
            true => unsent.chain(unplanned).min(),
            false => None,
        };
        let room = |days: i64, crowded: Option<Date>| back(days).max(crowded.unwrap_or(Date::MIN));
        let results_room = room(RESULTS_KEPT_DAYS, crowded_results(reporting, back(1)));
        let reports_room = room(REPORTS_KEPT_DAYS, crowded_reports(reporting, back(1)));
        let unsent = |room: Date| oldest.map_or(room, |day| day.min(room));
        let (keep, reports_keep) = (unsent(results_room), unsent(reports_room));
        self.planned.retain(|day, _| *day >= keep);
        {
            let mut shared = reporting.shared();
            shared.done.retain(|(day, _)| *day >= keep);
            shared.sent.retain(|(day, _), _| *day >= keep);
            shared.notes.retain(|day, _| *day >= keep);
        }
        reporting.reports().targets().forget(now);
        let tell = |what: &str, result: Result<(), QueueError>| {
            if let Err(error) = result {
                warn!(%error, "old TLS {what} could not be forgotten");
            }
        };
        tell("results", reporting.results().forget_before(keep).await);
        tell("reports", reporting.reports().forget_before(reports_keep).await);
    }
}

/// The first day whose results there is room for, when there are more; `from` has room in any case.
fn crowded_results(reporting: &Reporting, from: Date) -> Option<Date> {
    let mut kept = 0;
    let mut days = reporting.results().days().into_iter().rev();
    let crowded = days.find(|day| {
        kept += reporting.results().count(*day);
        kept > RESULTS_KEPT_MAX && *day < from
    })?;
    info!(%crowded, "results of many domains: those of this day and before are forgotten early");
    crowded.tomorrow().ok()
}

/// The same of reports.
fn crowded_reports(reporting: &Reporting, from: Date) -> Option<Date> {
    let mut octets = 0;
    let kept = reporting.reports().list();
    let crowded = kept.iter().find(|entry| {
        octets += REPORT_OCTETS + entry.json.len();
        octets > REPORTS_KEPT_OCTETS && entry.day < from
    })?;
    info!(crowded = %crowded.day, "many reports: those of this day and before are forgotten early");
    crowded.day.tomorrow().ok()
}

/// Where in the start delay a report has its place: anywhere, and the same at each look.
fn fraction(seed: u64, day: Date, domain: &Domain) -> f64 {
    let mut hasher = DefaultHasher::new();
    (seed, day, domain).hash(&mut hasher);
    // The 53 bits that a double can hold.
    (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// The instant a UTC day is over.
fn midnight_after(day: Date) -> Timestamp {
    after(day_end(day), Duration::from_secs(1))
}
