//! When an item is tried again, warned about and given up (RFC 5321 §4.5.4.1).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The retry schedule of all items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOptions {
    /// Waits after the first, second, ... failed attempt; the last one repeats. Never empty.
    pub retry: Vec<Duration>,
    /// After this time in the queue a transient failure becomes a bounce. Default 5 days.
    pub lifetime: Duration,
    /// After this time the sender is warned once. Default 4 hours.
    pub delay_warning: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        Self {
            retry: [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR]
                .map(Duration::from_secs)
                .to_vec(),
            lifetime: Duration::from_secs(5 * 24 * HOUR),
            delay_warning: Duration::from_secs(4 * HOUR),
        }
    }
}

/// `at + wait`, saturating at the end of time instead of failing.
pub fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| at.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

impl RetryOptions {
    /// The wait after `attempts` failed attempts (1 = the first), stretched or shortened by up to
    /// 10 % by `jitter` in 0.0..1.0, so that what failed together does not return together.
    pub fn wait(&self, attempts: u32, jitter: f64) -> Duration {
        let index = (attempts.max(1) as usize - 1).min(self.retry.len().saturating_sub(1));
        let base = self.retry.get(index).copied().unwrap_or(Duration::from_secs(300));
        base.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0))
    }

    /// When an item received at `received` is given up.
    pub fn expires_at(&self, received: Timestamp) -> Timestamp {
        after(received, self.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wait_repeats_and_jitter_stays_within_a_tenth() {
        let options = RetryOptions::default();
        assert_eq!(options.wait(1, 0.5), Duration::from_secs(300));
        assert_eq!(options.wait(7, 0.5), Duration::from_secs(4 * 3600));
        assert_eq!(options.wait(700, 0.5), Duration::from_secs(4 * 3600));
        assert_eq!(options.wait(1, 0.0), Duration::from_secs(270));
        assert_eq!(options.wait(1, 1.0), Duration::from_secs(330));
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        assert_eq!(after(Timestamp::MAX, Duration::MAX), Timestamp::MAX);
    }
}
