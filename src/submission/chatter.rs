//! How many lines about clients the log is given: an attack must not fill the disk with its description.
//!
//! What is logged once per message or login is not counted here, only what a client can cause without
//! being let in: refusals, connections turned away or broken. What is left out is counted, and the
//! count is told when there is room again. Called by `serve` and the session.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Lines a second, on average.
const LINES_PER_SECOND: f64 = 50.0;
/// Lines that may come at once.
const LINES_AT_ONCE: f64 = 500.0;

/// What may be said. One for all sessions.
pub(super) struct Chatter(Mutex<State>);

struct State {
    lines: f64,
    at: Instant,
    left_out: u64,
}

impl Default for Chatter {
    fn default() -> Self {
        Self(Mutex::new(State { lines: LINES_AT_ONCE, at: Instant::now(), left_out: 0 }))
    }
}

impl Chatter {
    /// Whether one more line may be logged.
    pub(super) fn allows(&self) -> bool {
        let left_out = {
            // Valid after a panic elsewhere: it holds plain numbers.
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let more = now.duration_since(state.at).as_secs_f64() * LINES_PER_SECOND;
            state.lines = (state.lines + more).min(LINES_AT_ONCE);
            state.at = now;
            if state.lines < 1.0 {
                state.left_out += 1;
                return false;
            }
            state.lines -= 1.0;
            std::mem::take(&mut state.left_out)
        };
        if left_out > 0 {
            tracing::warn!(
                lines = left_out,
                "clients caused more lines than the log is given; some were left out"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_then_so_many_a_second() {
        let chatter = Chatter::default();
        let told = |tries: usize| (0..tries).filter(|_| chatter.allows()).count();
        assert_eq!(told(2000), 500);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(told(2000), 100);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(told(2000), 500);
    }
}
