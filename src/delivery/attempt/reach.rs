//! What an attempt does with the memory of hosts: asks before it connects, tells how it went.
//!
//! What is told concerns the connection alone: it was not made, or ended before mail could be said, or our
//! login was refused. A
//! TLS or policy failure says that the host answers. Decides nothing: `hosts` does.

use std::io;
use std::net::SocketAddr;

use super::super::pace::Signal;
use super::super::{Delivery, judge, throttle};
use super::walk::Walk;
use crate::mail::{Permanence, Reply};
use crate::smtp::client::{Phase, SessionEnd, TransactionEnd};
use crate::tlspolicy::TlsPlan;

impl Delivery {
    /// How a transaction ended, for the pace of its destination.
    pub(super) fn hear(
        &self,
        walk: &mut Walk<'_>,
        end: &TransactionEnd,
        session: Option<&SessionEnd>,
        carried: u32,
    ) {
        if let Some(cause) = throttle::asks_for_less(end, session, carried) {
            walk.signal = Signal::Throttled;
            walk.throttled = Some(cause);
        } else if walk.signal != Signal::Throttled {
            match end {
                TransactionEnd::Answered(replies) if replies.iter().any(Reply::is_positive) => {
                    walk.signal = Signal::Good;
                }
                TransactionEnd::Broken { .. } => walk.signal = Signal::Trouble,
                _ => {}
            }
        }
    }

    /// Whether a host is left alone by this walk; why is noted in it then.
    pub(super) fn leaves_alone(&self, walk: &mut Walk<'_>, host: &str, address: SocketAddr) -> bool {
        // RFC 8461 §5.1, RFC 5321 §4.5.4.1: the last attempt before giving up is really made.
        if walk.last {
            return false;
        }
        let Err(held) = self.traffic.ask(address, self.now()) else { return false };
        walk.record.host.get_or_insert_with(|| host.to_owned());
        walk.failures.push((None, judge::held_failure(&held.text, host)));
        walk.held = Some(match walk.held.take() {
            Some(before) => before.or(held),
            None => held,
        });
        true
    }

    /// A connection was not made.
    pub(super) fn remember_dial(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        address: SocketAddr,
        error: &io::Error,
    ) {
        if is_theirs(error) {
            walk.signal = walk.signal.or(Signal::Trouble);
            let cause = format!("it could not be connected to ({error})");
            self.traffic.failed(address, host, &cause, self.now(), self.world.random.fraction());
        } else {
            self.traffic.unseen(address);
        }
    }

    /// A connection was made; how its session began.
    pub(super) fn remember_opening(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        address: SocketAddr,
        plan: &TlsPlan,
        end: Option<&SessionEnd>,
    ) {
        let cause = match end {
            Some(end) if is_host_trouble(end) => {
                walk.hop.failing(judge::session_failure(end, host, plan.demands()))
            }
            _ => return self.traffic.reached(address, host),
        };
        // A refusal for good is every message's own to hear: it bounces with the host's words.
        if cause.permanence == Permanence::Permanent {
            return self.traffic.reached(address, host);
        }
        walk.signal = walk.signal.or(Signal::Trouble);
        let text = cause.text.strip_prefix(&format!("host {host}")).unwrap_or(&cause.text);
        let text = format!("it {}", text.trim_start_matches([':', ' ']));
        self.traffic.failed(address, host, &text, self.now(), self.world.random.fraction());
    }
}

/// Whether the network or the host is why, and not this machine (no descriptors, a guarded address, a
/// source address that is not ours).
fn is_theirs(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut
    )
}

/// Whether a session ended before TLS and mail, so that any message would have met the same.
fn is_host_trouble(end: &SessionEnd) -> bool {
    matches!(
        end,
        SessionEnd::Refused { phase: Phase::Greeting | Phase::Hello | Phase::Auth, .. }
            | SessionEnd::Lost { phase: Phase::Greeting | Phase::Hello | Phase::Auth, .. }
            // A host that counts failed logins locks accounts, or us out.
            | SessionEnd::Auth(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Reply;
    use crate::smtp::client::AuthFailure;
    use crate::tlspolicy::TlsFailure;

    #[test]
    fn only_what_every_message_would_meet_is_held_against_a_host() {
        let reply = |code| Reply { code, enhanced: None, lines: vec!["busy".into()] };
        for (end, held) in [
            (SessionEnd::Refused { phase: Phase::Greeting, reply: reply(421) }, true),
            (SessionEnd::Refused { phase: Phase::Hello, reply: reply(451) }, true),
            (SessionEnd::Lost { phase: Phase::Greeting, text: "timed out".into() }, true),
            (SessionEnd::Refused { phase: Phase::Mail, reply: reply(421) }, false),
            (SessionEnd::Lost { phase: Phase::Dot, text: "closed".into() }, false),
            (SessionEnd::Tls(TlsFailure::NotOffered("EHLO lacks it".into())), false),
            (SessionEnd::Tls(TlsFailure::Lost("closed".into())), false),
            (SessionEnd::Auth(AuthFailure::Refused(reply(535))), true),
            (SessionEnd::Refused { phase: Phase::Auth, reply: reply(421) }, true),
            (SessionEnd::Quit, false),
        ] {
            assert_eq!(is_host_trouble(&end), held, "{end:?}");
        }
    }

    #[test]
    fn trouble_of_this_machine_is_not_held_against_a_host() {
        for (kind, theirs) in [
            (io::ErrorKind::ConnectionRefused, true),
            (io::ErrorKind::TimedOut, true),
            (io::ErrorKind::HostUnreachable, true),
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::AddrNotAvailable, false),
        ] {
            assert_eq!(is_theirs(&io::Error::from(kind)), theirs, "{kind:?}");
        }
        // EMFILE
        assert!(!is_theirs(&io::Error::from_raw_os_error(24)));
    }
}
