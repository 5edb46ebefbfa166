//! What a session is told when it is made, and its own bounds.

use std::time::Duration;

/// How long to wait for the answer to QUIT; nothing depends on it (RFC 5321 §4.1.1.10).
pub(super) const QUIT_WAIT: Duration = Duration::from_secs(5);

/// RCPT commands in flight at most. Their replies, 512 octets each at most, fit any receive buffer,
/// so that neither side blocks in writing (RFC 2920 §3.1); beyond it a round trip is paid.
pub(super) const RCPT_WINDOW: usize = 100;

/// Octets of commands in one group, about; what small servers buffer (RFC 2920 §3.1).
pub(super) const GROUP_BYTES_MAX: usize = 16 * 1024;

/// How TLS is to be used on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsUse {
    /// No MAIL before a verified handshake.
    Required,
    /// Used when offered; a session without it goes on in clear.
    IfOffered,
    /// From the first octet (RFC 8314 §3.3): a next hop that is configured so.
    Implicit,
    /// Not even asked for: the second, clear candidate after a failed opportunistic handshake.
    Never,
}

/// Time limits (RFC 5321 §4.5.3.2), configurable under `[delivery.timeouts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect; used by the driver.
    pub connect: Duration,
    /// 220 greeting: 5 minutes.
    pub greeting: Duration,
    /// EHLO, STARTTLS, MAIL, RSET, the handshake: 5 minutes.
    pub command: Duration,
    /// RCPT: 5 minutes.
    pub rcpt: Duration,
    /// DATA: 2 minutes.
    pub data: Duration,
    /// Each block of content: 3 minutes.
    pub body: Duration,
    /// The final dot: 10 minutes.
    pub dot: Duration,
    /// Octets of content per second that the server must take on average, once `body` is over; 0 is no
    /// limit. Used by the driver. 8 KiB: one that takes an octet a minute is gone after `body`, and 50
    /// MB take two hours at most.
    pub octets_per_second: u64,
}

impl Timeouts {
    /// For all content of so many octets; `None` is no limit.
    pub fn content(&self, octets: u64) -> Option<Duration> {
        let seconds = octets.checked_div(self.octets_per_second)?;
        Some(self.body.saturating_add(Duration::from_secs(seconds)))
    }

    /// For all commands of a transaction up to the content: two recipients at their slowest, so that a
    /// server which takes its full time for each of a hundred holds no place for hours.
    pub fn envelope(&self) -> Duration {
        self.command.saturating_add(self.rcpt.saturating_mul(2)).saturating_add(self.data)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connect: secs(30),
            greeting: secs(300),
            command: secs(300),
            rcpt: secs(300),
            data: secs(120),
            body: secs(180),
            dot: secs(600),
            octets_per_second: 8 * 1024,
        }
    }
}
