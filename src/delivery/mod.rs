//! Story 2, mail out: takes due items from the queue, tries each, settles what came of it.
//!
//! Here is what every attempt needs; [`run()`] is the only place that spawns deliveries. Never settles
//! without the bounce that a failure calls for (invariant I2).
//! See also: `run` (the loop), `settle` (one claim), [`attempt`] (one item), [`gather`] (facts),
//! [`judge`] (consequences).

pub mod attempt;
pub mod conversation;
pub mod explain;
pub mod gather;
pub mod judge;
mod known;
mod notice;
pub mod pool;
mod run;
mod settle;
mod suppression;
pub mod tally;
mod turns;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::conversation::Conversation;
use self::gather::Gather;
use self::pool::Pool;
pub use self::run::run;
use self::turns::Places;
use crate::mail::Domain;
use crate::net::World;
use crate::queue::RetryOptions;
use crate::smtp::client::Timeouts;
use crate::store::suppressions::SuppressionOptions;
use crate::store::{Queue, Results, Suppressions};
use crate::tlspolicy::{DaneWithSts, Override};
use crate::tlsrpt::SessionResult;

/// How mail goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Our name in EHLO and in notices.
    pub hostname: Domain,
    /// `delivery.smtp_port`; 25 but for tests.
    pub smtp_port: u16,
    /// Attempts at a time. Default 500.
    pub concurrency: usize,
    /// Attempts at a time to one recipient domain. Default 20.
    pub concurrency_per_destination: usize,
    /// Schedule, lifetime, delay warning.
    pub retry: RetryOptions,
    /// Time limits (RFC 5321 §4.5.3.2).
    pub timeouts: Timeouts,
    /// How long open connections are kept.
    pub pool: pool::Options,
    /// `policy.dane_with_sts`
    pub dane_with_sts: DaneWithSts,
    /// `[[policy.override]]`
    pub overrides: Vec<Override>,
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
    options: watch::Receiver<Arc<Options>>,
    suppressions: Option<Suppressions>,
    closing: TaskTracker,
}

impl Delivery {
    /// A delivery engine over its doors; see [`run`].
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
            options,
            suppressions: None,
            closing: TaskTracker::new(),
        }
    }

    fn places(&self) -> Places {
        let options = self.options.borrow();
        Places { all: options.concurrency, per_destination: options.concurrency_per_destination }
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
