//! The doors, bundled, and the clock.

use std::sync::Arc;

use jiff::Timestamp;

use super::dns::Dns;
use super::https::Https;
use super::tcp::Dial;
use super::tls::ClientTls;

/// What the stories see of the outside.
#[derive(Clone)]
pub struct World {
    /// Wall time. Waiting is tokio's (`tokio::time`), which tests pause.
    pub clock: Arc<dyn Clock>,
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
