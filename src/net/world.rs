//! The doors, bundled, with the two smallest of them: the clock and chance.

use std::sync::Arc;

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

use super::dns::Dns;
use super::https::Https;
use super::tcp::Dial;
use super::tls::ClientTls;

/// What the stories see of the outside.
#[derive(Clone)]
pub struct World {
    /// Wall time. Waiting is tokio's (`tokio::time`), which tests pause.
    pub clock: Arc<dyn Clock>,
    /// Chance: jitter, the order of equals, what must be hard to guess.
    pub random: Arc<dyn Randomness>,
    /// DNS questions.
    pub dns: Arc<dyn Dns>,
    /// MTA-STS policies and TLS-RPT posts.
    pub https: Arc<dyn Https>,
    /// Outgoing TCP.
    pub dial: Arc<dyn Dial>,
    /// STARTTLS as a client.
    pub tls: Arc<ClientTls>,
}

/// Wall time.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The machine's clock; the one place that reads it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Chance. Only what may differ from run to run comes from here; keys and nonces of TLS do not.
pub trait Randomness: Send + Sync {
    /// Any number.
    fn number(&self) -> u64;

    /// Any fraction in 0.0..1.0.
    fn fraction(&self) -> f64 {
        // The 53 bits that a double can hold.
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A generator for shuffling, which takes an unknown number of draws.
    fn generator(&self) -> StdRng {
        StdRng::seed_from_u64(self.number())
    }
}

/// The thread's generator, seeded by the system; the one place that asks it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn number(&self) -> u64 {
        rand::random()
    }
}

/// Does work that takes milliseconds (compression, RSA, password hashes) away from the threads that
/// serve. Where one thread runs everything it is done in place: nobody else could do it, and the order
/// of a simulation must not depend on other threads.
///
/// # Errors
/// The work panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(u64);
    impl Randomness for Always {
        fn number(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn fractions_lie_below_one() {
        assert_eq!(Always(0).fraction(), 0.0);
        assert_eq!(Always(1 << 63).fraction(), 0.5);
        assert!(Always(u64::MAX).fraction() < 1.0);
    }
}
