//! One report, one step further: look up the record, post, or hand over to the queue (`handover`).
//!
//! Every change is kept in `store::reports` before and after it shows outside, so that no report is
//! sent twice by us and none forgotten, whatever crashes (see `entry` for the states). What remains:
//! an `https:` post whose answer we never saw is repeated, and a mail that was queued, delivered and
//! gone within the moment before its state was kept; receivers know both by the report-id.
//! Called by `run` for what is due and by [`Reporting::send`].

use std::collections::hash_map::Entry as MapEntry;

use jiff::Timestamp;
use jiff::civil::Date;
use tracing::{info, warn};

use super::mail::{GZIP_TYPE, gzip};
use super::{Options, Reporting, SendLine, SendOutcome, entry};
use crate::mail::Domain;
use crate::net::dns::Lookup;
use crate::net::https::PostOutcome;
use crate::net::world::aside;
use crate::queue::retry::after;
use crate::store::targets::Refusal;
use crate::store::{ReportEntry, RuaState, RuaStatus};
use crate::tlsrpt::record::{self, Rua};
use crate::tlsrpt::report::{Report, day_of, report_id};

/// Entries kept per day that only say "nothing to send": most domains publish no record, and the
/// listing is for the others.
pub(super) const NOTES_PER_DAY_MAX: u32 = 5000;

/// Which targets are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Those that are due.
    Due,
    /// All that wait, due or not: an operator asks.
    Now,
    /// All, also those settled before: an operator insists.
    Again,
}

/// What a step led to.
#[derive(Debug)]
pub(super) struct Worked {
    /// When the report is to be worked on again.
    pub(super) next: Option<Timestamp>,
    /// What happened, a line per target.
    pub(super) lines: Vec<SendLine>,
}

/// Why nothing more is done for a report now.
pub(super) enum Stop {
    /// Nothing to send.
    Nothing(String),
    /// Not now: the state could not be kept.
    Storage(String),
}

impl Reporting {
    /// Works on one report. Two works on the same report never run at once.
    pub(super) async fn work(&self, day: Date, domain: &Domain, mode: Mode) -> Worked {
        let now = self.now();
        let options = self.options();
        let busy = |why: &str| SendOutcome::NotSent { why: why.to_owned() };
        let Some(_claim) = self.claim(day, domain) else {
            let next = Some(after(now, options.retry_first()));
            return Worked { next, lines: vec![self.line(domain, None, busy("it is being sent right now"))] };
        };
        let mut entry = match self.begin(&options, day, domain, mode, now) {
            Ok(entry) => entry,
            Err(why) => return Worked { next: None, lines: vec![self.line(domain, None, busy(&why))] },
        };
        let mut lines = Vec::new();
        match self.steps(&options, &mut entry, mode, &mut lines).await {
            Ok(()) => Worked { next: entry::next_due(&entry), lines },
            Err(Stop::Nothing(why)) => {
                lines.push(self.line(domain, None, SendOutcome::NotSent { why }));
                Worked { next: None, lines }
            }
            Err(Stop::Storage(why)) => {
                warn!(%day, %domain, error = %why, "state of a TLS report could not be kept");
                let next = after(now, options.retry_first());
                lines.push(self.line(domain, None, SendOutcome::Deferred { next, why }));
                Worked { next: Some(next), lines }
            }
        }
    }

    /// The entry to work on: the one kept, or a new one that is not kept yet.
    fn begin(
        &self,
        options: &Options,
        day: Date,
        domain: &Domain,
        mode: Mode,
        now: Timestamp,
    ) -> Result<ReportEntry, String> {
        let today = day_of(now);
        let kept = self.reports().get(day, domain);
        match kept.as_deref() {
            // A record that was not there may be there by now, when an operator asks.
            Some(kept) if mode != Mode::Due && kept.targets.is_empty() => {}
            Some(kept) if entry::is_begun(Some(kept), day, today) => {
                let cut_short = kept.targets.iter().any(|target| entry::unconfirmed(target).is_some());
                let mut kept = kept.clone();
                if mode != Mode::Again || cut_short {
                    return Ok(kept);
                }
                // What was sent of an unfinished day is out of date; a finished day's report is the
                // same report when sent again (RFC 8460 §4.4, report-id).
                if day < today && !kept.json.is_empty() {
                    kept.started_at = now;
                    kept.note = None;
                    kept.targets = vec![entry::lookup(domain, now)];
                    return Ok(kept);
                }
            }
            _ => {}
        }
        let tally = self.results().tally(day, domain).filter(|tally| tally.sessions() > 0);
        let tally = tally.ok_or("no results for this domain on this day")?;
        let tally = tally.without(options.omit);
        let report_id = report_id(day, self.random().number(), domain, &options.contact_info);
        let report =
            Report::make(tally, day, &options.organization_name, &options.contact_info, report_id.clone())
                .until(now);
        Ok(ReportEntry {
            day,
            domain: domain.clone(),
            report_id,
            started_at: now,
            targets: vec![entry::lookup(domain, now)],
            note: None,
            json: report.render(),
        })
    }

    async fn steps(
        &self,
        options: &Options,
        entry: &mut ReportEntry,
        mode: Mode,
        lines: &mut Vec<SendLine>,
    ) -> Result<(), Stop> {
        let is_due = |target: &RuaState, now: Timestamp| match target.status {
            RuaStatus::Waiting(at) => mode != Mode::Due || at <= now,
            _ => entry::unconfirmed(target).is_some(),
        };
        if let [target] = &entry.targets[..]
            && entry::is_lookup(target)
            && is_due(target, self.now())
        {
            self.lookup(options, entry).await?;
        }
        if let Some(note) = entry.note.clone().filter(|_| entry.targets.is_empty()) {
            return Err(Stop::Nothing(note));
        }
        for index in 0..entry.targets.len() {
            let target = &entry.targets[index];
            if !entry::is_lookup(target) && is_due(target, self.now()) {
                self.send_to(options, entry, index).await?;
                self.count(&entry.targets[index]);
                lines.push(self.told(entry, index));
            } else {
                lines.push(self.told_before(entry, index));
            }
        }
        Ok(())
    }

    /// Replaces the lookup by the targets the record names, or says why there are none.
    async fn lookup(&self, options: &Options, entry: &mut ReportEntry) -> Result<(), Stop> {
        let found = match entry.domain.prefixed("_smtp._tls") {
            // Nobody is asked then: a question tells its owner of us.
            _ if let Some(why) = options.hygiene.domain_denied(&entry.domain) => Ok(Err(why.to_owned())),
            Err(_) => Ok(Err("the domain is too long for a TLS-RPT record".to_owned())),
            Ok(name) => match self.dns().txt(&name).await {
                Lookup::Failed(failure) => Err(failure.to_string()),
                Lookup::NoData(_) | Lookup::NxDomain(_) => Ok(Err(format!("no TXT record at {name}"))),
                Lookup::Found(answer) => {
                    Ok(record::parse(&answer.records).map_err(|error| format!("{error} at {name}")))
                }
            },
        };
        let now = self.now();
        match found {
            Err(why) => {
                let started_at = entry.started_at;
                entry::defer(&mut entry.targets[0], started_at, now, &options.retry, why);
                if entry.targets[0].status == RuaStatus::GivenUp {
                    entry.note = Some("the TLS-RPT record could not be looked up for 24 hours".to_owned());
                }
                self.keep(entry).await
            }
            Ok(Ok(record)) => {
                entry.targets = record.rua.iter().map(|rua| entry::waiting(rua.to_string(), now)).collect();
                self.keep(entry).await
            }
            Ok(Err(why)) => {
                // Nothing was promised for this day (RFC 8460 §3): what was counted is let go.
                entry.targets.clear();
                entry.json.clear();
                entry.note = Some(why.clone());
                // An entry that says "looking it up" must not go on saying so.
                let told = self.reports().get(entry.day, &entry.domain).is_some();
                if told || self.may_note(entry.day) {
                    self.keep(entry).await?;
                }
                self.mark_done(entry.day, &entry.domain);
                Err(Stop::Nothing(why))
            }
        }
    }

    /// One try at one target.
    async fn send_to(&self, options: &Options, entry: &mut ReportEntry, index: usize) -> Result<(), Stop> {
        let target = &mut entry.targets[index];
        let Ok(rua) = target.rua.parse::<Rua>() else {
            entry::give_up(target, "not a target we can send to".to_owned());
            return self.keep(entry).await;
        };
        // What is in the queue already is not called back.
        if entry::unconfirmed(target).is_none()
            && let Some(why) = self.withheld(options, entry.day, &rua, index, target.attempts == 0)
        {
            entry::withhold(target, why);
            return self.keep(entry).await;
        }
        match rua {
            Rua::Https(url) => self.post(options, entry, index, &url).await,
            Rua::Mailto(mailbox) => self.hand_over(options, entry, index, &mailbox).await,
        }
    }

    /// One try, as metrics count it.
    fn count(&self, target: &RuaState) {
        let Some(metrics) = self.inner.metrics.get() else { return };
        let kind = match target.rua.parse::<Rua>() {
            Ok(Rua::Https(_)) => "https",
            Ok(Rua::Mailto(_)) => "mailto",
            Err(_) => "unusable",
        };
        let outcome = match target.status {
            RuaStatus::Waiting(_) => "deferred",
            RuaStatus::Queued(_) => "queued",
            RuaStatus::Accepted => "accepted",
            RuaStatus::GivenUp => "given up",
            RuaStatus::Withheld => "withheld",
        };
        metrics.report(kind, outcome);
    }

    async fn post(
        &self,
        options: &Options,
        entry: &mut ReportEntry,
        index: usize,
        url: &str,
    ) -> Result<(), Stop> {
        let json = entry.json.clone();
        let outcome = match aside(move || gzip(json.as_bytes())).await {
            Ok(body) => self.https().post_report(url, GZIP_TYPE, body).await,
            Err(error) => PostOutcome::Refused(format!("the report could not be compressed: {error}")),
        };
        let (now, started_at) = (self.now(), entry.started_at);
        let (day, domain) = (entry.day, entry.domain.clone());
        let target = &mut entry.targets[index];
        match outcome {
            PostOutcome::Accepted(code) => {
                target.attempts = target.attempts.saturating_add(1);
                target.status = RuaStatus::Accepted;
                target.last = Some(format!("accepted with {code}"));
                info!(%day, %domain, rua = url, code, "TLS report accepted");
                self.reports().targets().succeeded(&Rua::Https(url.to_owned()).key());
            }
            PostOutcome::Refused(why) => {
                entry::defer(target, started_at, now, &options.retry, why);
                let why = target.last.as_deref().unwrap_or_default();
                if target.status == RuaStatus::GivenUp {
                    let key = Rua::Https(url.to_owned()).key();
                    self.reports().targets().failed(&key, Refusal::Expired, why, now);
                }
                warn!(%day, %domain, rua = url, why, status = ?target.status, "TLS report not accepted");
            }
        }
        self.keep(entry).await
    }

    pub(super) async fn keep(&self, entry: &ReportEntry) -> Result<(), Stop> {
        self.reports().put(entry.clone()).await.map_err(|error| Stop::Storage(error.to_string()))
    }

    /// Why a target gets no report now; counts the report if it does.
    fn withheld(
        &self,
        options: &Options,
        day: Date,
        rua: &Rua,
        index: usize,
        first_try: bool,
    ) -> Option<String> {
        let hygiene = &options.hygiene;
        if let Some(why) = hygiene.target_denied(rua, &options.hostname) {
            return Some(why.to_owned());
        }
        if index >= hygiene.targets_per_domain {
            let max = hygiene.targets_per_domain;
            return Some(format!(
                "only the first {max} targets of a record are used (tlsrpt.targets_per_domain)"
            ));
        }
        let key = rua.key();
        if let Some((until, standing)) =
            self.reports().targets().suppressed(&key, hygiene.suppress, self.now())
        {
            return Some(format!(
                "the target is left alone until {until:.0}: it failed {} times, last with: {}",
                standing.failures, standing.reason
            ));
        }
        let max = hygiene.reports_per_target;
        (first_try && !self.may_send(day, &key, max)).then(|| {
            format!("{max} reports of this day were sent to this target already (tlsrpt.reports_per_target)")
        })
    }

    /// Counts a report to a target, unless it would be too many; that is logged once a day and target.
    pub(super) fn may_send(&self, day: Date, target: &str, max: u32) -> bool {
        let mut shared = self.shared();
        let count = match shared.sent.entry((day, target.to_owned())) {
            MapEntry::Occupied(count) => count.into_mut(),
            MapEntry::Vacant(slot) => slot.insert(0),
        };
        let may = *count < max;
        if *count == max {
            warn!(%day, target, reports = max, "so many reports go to this target that the others are withheld");
        }
        *count = count.saturating_add(u32::from(*count <= max));
        may
    }

    pub(super) fn may_note(&self, day: Date) -> bool {
        let mut shared = self.shared();
        let notes = shared.notes.entry(day).or_insert(0);
        let may = *notes < NOTES_PER_DAY_MAX;
        *notes += u32::from(may);
        may
    }

    fn mark_done(&self, day: Date, domain: &Domain) {
        self.shared().done.insert((day, domain.clone()));
    }

    fn line(&self, domain: &Domain, rua: Option<String>, outcome: SendOutcome) -> SendLine {
        SendLine { domain: domain.clone(), rua, outcome }
    }

    /// How a target stands, as a line for the operator.
    fn told(&self, entry: &ReportEntry, index: usize) -> SendLine {
        let target = &entry.targets[index];
        let last = target.last.clone().unwrap_or_else(|| "not tried yet".to_owned());
        let outcome = match target.status {
            RuaStatus::Waiting(next) => SendOutcome::Deferred { next, why: last },
            RuaStatus::Queued(id) => SendOutcome::Queued { id },
            RuaStatus::Accepted => SendOutcome::Accepted,
            RuaStatus::GivenUp => SendOutcome::GivenUp { why: last },
            RuaStatus::Withheld => SendOutcome::Withheld { why: last },
        };
        self.line(&entry.domain, Some(target.rua.clone()), outcome)
    }

    /// How a target stood already, nothing having been done now.
    fn told_before(&self, entry: &ReportEntry, index: usize) -> SendLine {
        let target = &entry.targets[index];
        let before = match target.status {
            RuaStatus::Queued(id) => format!("already queued as {id}"),
            RuaStatus::Accepted => "already accepted".to_owned(),
            RuaStatus::Waiting(_) | RuaStatus::GivenUp | RuaStatus::Withheld => {
                return self.told(entry, index);
            }
        };
        let why = format!("{before}; ask for it again to repeat it");
        self.line(&entry.domain, Some(target.rua.clone()), SendOutcome::NotSent { why })
    }
}
