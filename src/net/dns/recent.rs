//! Domains that failed validation lately, with no secure answer between.
//!
//! Bounded. Told by every answer, asked when validation is judged. Time is `tokio`'s.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::mail::Domain;

/// What failed longer ago says nothing about now.
const LATELY: Duration = Duration::from_secs(15 * 60);
/// Domains kept; a few are enough for the judgement, more only for its text.
const DOMAINS_MAX: usize = 16;

/// What failed, oldest first.
#[derive(Default)]
pub(super) struct Recent {
    bogus: Mutex<VecDeque<(Instant, String)>>,
}

impl Recent {
    /// An answer was secure: validation works.
    pub(super) fn secure(&self) {
        self.bogus.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The answer about a name failed validation.
    pub(super) fn bogus(&self, name: &Domain) {
        let domain = organisation(name);
        let mut bogus = self.bogus.lock().unwrap_or_else(PoisonError::into_inner);
        // Many names below one domain are one domain's fault.
        bogus.retain(|(at, known)| *known != domain && at.elapsed() < LATELY);
        if bogus.len() >= DOMAINS_MAX {
            bogus.pop_front();
        }
        bogus.push_back((Instant::now(), domain.to_owned()));
    }

    /// The domains that failed lately, each once.
    pub(super) fn domains(&self) -> Vec<String> {
        let mut bogus = self.bogus.lock().unwrap_or_else(PoisonError::into_inner);
        bogus.retain(|(at, _)| at.elapsed() < LATELY);
        bogus.iter().map(|(_, domain)| domain.clone()).collect()
    }
}

/// The last two labels: near enough to what one operator runs.
fn organisation(name: &Domain) -> &str {
    let name = name.as_str();
    match name.rmatch_indices('.').nth(1) {
        Some((at, _)) => &name[at + 1..],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_domain_counts_once_until_an_answer_is_secure_or_time_has_passed() {
        let recent = Recent::default();
        for name in ["a.test", "_25._tcp.mx.a.test", "_mta-sts.b.test", "b.test", "c.test"] {
            recent.bogus(&domain(name));
        }
        assert_eq!(recent.domains(), ["a.test", "b.test", "c.test"]);
        recent.secure();
        assert!(recent.domains().is_empty());
        recent.bogus(&domain("a.test"));
        tokio::time::advance(LATELY - Duration::from_secs(1)).await;
        recent.bogus(&domain("b.test"));
        assert_eq!(recent.domains().len(), 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(recent.domains(), ["b.test"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_stays_bounded() {
        let recent = Recent::default();
        for n in 0..1000 {
            recent.bogus(&domain(&format!("d{n}.test")));
        }
        assert_eq!(recent.domains().len(), DOMAINS_MAX);
    }
}
