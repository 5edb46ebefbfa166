//! The daily refetch of every held policy (RFC 8461 §3.3, §10.2), and the sweeping of dead entries.
//!
//! Due times come from `sts::freshness`, jittered there. Never extends a life by anything but an
//! HTTPS success. Policies that run out are told as well.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::fetch::FIRST_FETCH_WAIT_MAX;
use crate::sts::CachedPolicy;

/// Refetches at once; the rest of the fetch permits is for mail that waits.
const REFRESHES_MAX: usize = 8;
/// The cache is looked over at least this often: policies are added, and clocks are set.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(300);
/// ... and not more often than this.
const LOOK_WAIT_MIN: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn refresh_until(self: &Arc<Self>, shutdown: &CancellationToken) {
        loop {
            let wait = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                wait = self.refresh_what_is_due() => wait,
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Refetches what is due, drops what is dead, and says how long to wait.
    async fn refresh_what_is_due(self: &Arc<Self>) -> Duration {
        if !self.options().mta_sts {
            return LOOK_WAIT_MAX;
        }
        let now = self.clock.now();
        let mut due = Vec::new();
        for entry in self.policies.list() {
            let entry = self.anchor(entry, now).await;
            self.watch_policy(&entry, now);
            if entry.is_dead(now) {
                // A fetch may have brought it back to life since the list was made.
                let unchanged = self
                    .policies
                    .get(&entry.domain)
                    .is_some_and(|latest| latest.is_dead(now) && !self.fetches.is_in_flight(&entry.domain));
                if unchanged && let Err(error) = self.policies.remove(&entry.domain).await {
                    tracing::error!(domain = %entry.domain, %error, "expired MTA-STS policy could not be removed");
                }
            } else if entry.refresh_due_at(now).is_some_and(|at| at <= now) {
                due.push(entry);
            }
        }
        futures_util::stream::iter(due)
            .for_each_concurrent(REFRESHES_MAX, |entry| async move {
                let txt = self.txt_fact(&entry.domain).await;
                self.watch_record(&entry.domain, Some(&entry), &txt);
                self.fetch_and_wait(&entry.domain, txt.id(), FIRST_FETCH_WAIT_MAX).await;
            })
            .await;
        let now = self.clock.now();
        next_look(&self.policies.list(), now)
    }
}

fn next_look(entries: &[Arc<CachedPolicy>], now: Timestamp) -> Duration {
    let next = entries.iter().filter_map(|entry| entry.refresh_due_at(now)).min();
    let wait = next.map_or(LOOK_WAIT_MAX, |next| {
        // A time that has passed is no Duration.
        Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO)
    });
    wait.clamp(LOOK_WAIT_MIN, LOOK_WAIT_MAX)
}
