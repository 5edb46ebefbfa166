//! Hosts that offer CHUNKING and do not live up to it (RFC 3030), to be given DATA for a while.
//!
//! Remembered in memory only: after a restart one message finds out again. Bounded in number and time.
//! Called by `delivery::attempt`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a host is remembered: what stands before it may be mended.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Hosts remembered; there are few such.
const HOSTS_MAX: usize = 1000;

/// The hosts, by name.
#[derive(Default)]
pub(super) struct PlainHosts {
    since: Mutex<HashMap<String, Instant>>,
}

impl PlainHosts {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this host gets DATA.
    pub(super) fn remember(&self, host: &str) {
        let mut since = self.lock();
        if since.len() >= HOSTS_MAX {
            since.retain(|_, at| at.elapsed() < REMEMBERED);
        }
        if since.len() >= HOSTS_MAX {
            since.clear();
        }
        since.insert(host.to_owned(), Instant::now());
    }

    /// Whether this host gets DATA.
    pub(super) fn contains(&self, host: &str) -> bool {
        self.lock().get(host).is_some_and(|at| at.elapsed() < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_remembered_for_a_day_and_the_memory_is_bounded() {
        let hosts = PlainHosts::default();
        hosts.remember("mx.example.org");
        assert!(hosts.contains("mx.example.org") && !hosts.contains("mx.example.net"));
        tokio::time::advance(REMEMBERED).await;
        assert!(!hosts.contains("mx.example.org"));
        for number in 0..3 * HOSTS_MAX {
            hosts.remember(&format!("mx{number}.example.org"));
        }
        assert!(hosts.lock().len() <= HOSTS_MAX);
    }
}
