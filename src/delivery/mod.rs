//! Story 2, mail out: takes due items from the queue, tries each, settles what came of it.
//!
//! Here is what every attempt needs; [`run()`] is the only place that spawns deliveries. Never settles
//! without the bounce that a failure calls for (invariant I2).
//! See also: `run` (the loop), `settle` (one claim), [`attempt`] (one item), [`gather`] (facts),
//! [`judge`] (consequences).

pub mod attempt;
pub mod conversation;
pub mod evidence;
pub mod explain;
mod frozen;
pub mod gather;
pub mod giveup;
mod hosts;
pub mod judge;
mod known;
pub mod limits;
mod notice;
pub mod pace;
mod plain;
pub mod pool;
mod reported;
mod run;
mod settle;
pub mod static_route;
mod suppression;
pub mod tally;
mod throttle;
mod traffic;
mod turns;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::conversation::Conversation;
use self::evidence::EvidenceOptions;
use self::gather::Gather;
pub use self::hosts::HostStanding;
use self::limits::DestinationLimit;
use self::plain::PlainHosts;
use self::pool::Pool;
pub use self::run::run;
pub use self::traffic::{Held, Traffic};
use crate::mail::Domain;
use crate::metrics::Metrics;
use crate::net::World;
use crate::queue::RetryOptions;
use crate::smtp::client::Timeouts;
use crate::store::suppressions::SuppressionOptions;
use crate::store::targets::Targets;
use crate::store::{Queue, Results, Suppressions};
use crate::tlspolicy::{DaneInsecureMx, DaneUse, DaneWithSts, Override};
use crate::tlsrpt::SessionResult;

/// How mail goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Our name in EHLO and in notices.
    pub hostname: Domain,
    /// Attempts at a time. Default 500.
    pub concurrency: usize,
    /// Attempts at a time to one recipient domain at most. Default 20.
    pub concurrency_per_destination: usize,
    /// Attempts at a time to one host address at most, whatever the domains. Default 50.
    pub concurrency_per_host: usize,
    /// `[[delivery.destination]]`
    pub limits: Vec<DestinationLimit>,
    /// Schedule, lifetime, delay warning.
    pub retry: RetryOptions,
    /// Time limits (RFC 5321 §4.5.3.2).
    pub timeouts: Timeouts,
    /// Content by BDAT where a host offers CHUNKING (RFC 3030).
    pub chunking: bool,
    /// How long open connections are kept.
    pub pool: pool::Options,
    /// `policy.dane_with_sts`
    pub dane_with_sts: DaneWithSts,
    /// `policy.dane_insecure_mx`
    pub dane_insecure_mx: DaneInsecureMx,
    /// `policy.dane_audit_only`
    pub dane_use: DaneUse,
    /// `tlsrpt.mx_host_reports`: sessions under DANE are counted for the MX host's own report as well.
    pub count_for_mx_hosts: bool,
    /// `[[policy.override]]`
    pub overrides: Vec<Override>,
    /// `[evidence]`
    pub evidence: EvidenceOptions,
    /// `[delivery.suppression]`, where it is enabled. Default none.
    pub suppression: Option<SuppressionOptions>,
}

/// What every attempt needs.
pub struct Delivery {
    world: World,
    gather: Gather,
    queue: Queue,
    results: Results,
    pool: Pool,
    plain: PlainHosts,
    options: watch::Receiver<Arc<Options>>,
    traffic: Traffic,
    suppressions: Option<Suppressions>,
    metrics: Metrics,
    report_targets: Option<Targets>,
    closing: TaskTracker,
}

impl Delivery {
    /// A delivery engine over its doors; see [`run()`].
    pub fn new(
        world: World,
        gather: Gather,
        queue: Queue,
        results: Results,
        options: watch::Receiver<Arc<Options>>,
    ) -> Self {
        Self {
            world,
            gather,
            queue,
            results,
            pool: Pool::default(),
            plain: PlainHosts::default(),
            options,
            traffic: Traffic::default(),
            suppressions: None,
            metrics: Metrics::default(),
            report_targets: None,
            closing: TaskTracker::new(),
        }
    }

    /// Counts there what is delivered.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// How hosts stand, for the operator.
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// I8: counting never waits and never fails a delivery.
    fn record_results(&self, results: Vec<SessionResult>) {
        let now = self.now();
        for result in results {
            self.results.record(now, result);
        }
    }

    /// Says QUIT in the background.
    fn close(&self, conversation: Conversation) {
        self.closing.spawn(conversation.quit());
    }
}
