//! The state of one walk over the hosts of an item: who still waits, what each host said, and what
//! the attempt comes to.
//!
//! Does nothing itself: `attempt` walks, this remembers and sums up.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::super::Options;
use super::super::conversation::Conversation;
use super::super::evidence::Trail;
use super::super::judge::{self, Judgement};
use super::super::pace::Signal;
use super::super::pool;
use super::super::run::Turn;
use super::super::static_route::Hop;
use super::super::traffic::Held;
use crate::mail::{Domain, EnhancedStatus, Failure, Outcome, Permanence, Scope, TlsRequest};
use crate::queue::{AttemptRecord, QueueItem};
use crate::smtp::client::{Transaction, TransactionRecipient};
use crate::store::Body;
use crate::tlspolicy::{self, TlsPlan};

/// After this time a walk begins with no further host or address: an attempt that goes from one hanging
/// host to the next would hold its place for hours.
const WALK_MAX: Duration = Duration::from_secs(15 * 60);

/// What an attempt brought.
#[derive(Debug)]
pub struct Attempted {
    /// Per recipient tried, by position in the envelope.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Delivered to a host that does not pass DSN requests on (RFC 3461 §5.2.2).
    pub relayed: Vec<usize>,
    /// For the operator.
    pub record: AttemptRecord,
    /// What it says of the pace.
    pub(in crate::delivery) signal: Signal,
    /// The destination asked for less, in these words.
    pub throttled: Option<String>,
    /// No host was tried, since they are left alone for now: `outcomes` need not be settled.
    pub held: Option<Held>,
    /// For the evidence.
    pub trail: Trail,
}

/// The state of one walk.
pub(super) struct Walk<'a> {
    pub(super) item: &'a QueueItem,
    pub(super) begun: Instant,
    pub(super) body: Body,
    /// What the message asks of TLS, as far as this walk goes along with it (RFC 8689 §5).
    pub(super) request: TlsRequest,
    pub(super) options: Arc<Options>,
    /// Where the mail is handed over.
    pub(super) hop: Hop,
    /// Whose `_smtp._tls` record hears of these sessions: the hop's; nobody for report mail and addresses.
    pub(super) report_domain: Option<Domain>,
    /// Hosts passed over and counted so: an attempt that begins anew with other demands counts them once.
    pub(super) passed_over: Vec<Domain>,
    /// Still without an outcome in this attempt.
    pub(super) remaining: Vec<usize>,
    pub(super) outcomes: Vec<(usize, Outcome)>,
    pub(super) relayed: Vec<usize>,
    /// Failures of hosts: for everybody remaining, or for one recipient.
    pub(super) failures: Vec<(Option<usize>, Failure)>,
    pub(super) record: AttemptRecord,
    /// The last attempt before giving up: hosts that are left alone are tried all the same.
    pub(super) last: bool,
    /// A connection was tried, or one from before used.
    pub(super) tried: bool,
    /// What was heard of the pace.
    pub(super) signal: Signal,
    /// The destination asked for less, in these words.
    pub(super) throttled: Option<String>,
    /// Told where the walk goes.
    pub(super) turn: &'a Turn,
    /// Hosts that were left alone.
    pub(super) held: Option<Held>,
    pub(super) trail: Trail,
}

impl Walk<'_> {
    /// No further host or address is begun.
    pub(super) fn is_over(&self) -> bool {
        self.begun.elapsed() >= WALK_MAX
    }

    pub(super) fn transaction(&self, batch: &[usize]) -> Transaction {
        let envelope = &self.item.envelope;
        Transaction {
            reverse_path: envelope.reverse_path.clone(),
            recipients: batch
                .iter()
                .filter_map(|index| envelope.recipients.get(*index))
                .map(|recipient| TransactionRecipient {
                    path: recipient.path.clone(),
                    notify: recipient.notify,
                    orcpt: recipient.orcpt.clone(),
                })
                .collect(),
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            ret: envelope.ret,
            envid: envelope.envid.clone(),
            require_tls: self.request == TlsRequest::Required,
            size: self.body.len(),
        }
    }

    pub(super) fn note(&mut self, host: &str, plan: &TlsPlan, conversation: &Conversation) {
        self.record.host = Some(host.to_owned());
        self.record.address = Some(conversation.remote.ip());
        self.record.tls = conversation.tls_text();
        self.record.verified = conversation.verified_text(plan).map(str::to_owned);
        self.record.rule = plan.rule.to_string();
    }

    /// Takes a judgement in; returns whom to try again in the same session.
    pub(super) fn apply(&mut self, judgement: Judgement, offers_dsn: bool) -> Vec<usize> {
        self.trail.took(judgement.outcomes.iter().map(|(index, _)| *index));
        for (index, outcome) in judgement.outcomes {
            if matches!(outcome, Outcome::Delivered(_)) && !offers_dsn {
                self.relayed.push(index);
            }
            self.outcomes.push((index, outcome));
        }
        self.trail.refused(&judgement.next_host);
        self.leave(judgement.next_host);
        judgement.again
    }

    /// Leaves recipients to the next host, remembering why this one failed them.
    pub(super) fn leave(&mut self, failures: impl IntoIterator<Item = (usize, Failure)>) {
        for (index, failure) in failures {
            self.remaining.push(index);
            self.failures.push((Some(index), failure));
        }
    }

    /// Whether all hosts have failed for good, and REQUIRETLS is why.
    pub(super) fn is_refused_for_requiretls(&self) -> bool {
        let rule = tlspolicy::Rule::RequireTls.to_string();
        self.request == TlsRequest::Required
            && !self.remaining.is_empty()
            && matches!(self.exhausted(), Outcome::Failed(failure) if failure.rule == Some(rule))
    }

    /// What the failures of all hosts come to, whomever they hit.
    fn exhausted(&self) -> Outcome {
        let failures: Vec<Failure> = self.failures.iter().map(|(_, failure)| failure.clone()).collect();
        judge::exhausted(&failures)
    }

    /// RFC 8689 §5: mail from the null path must not be lost for want of REQUIRETLS. Whether this walk
    /// has ended so that it is to be done again without.
    pub(super) fn goes_without_requiretls(&self, now: Timestamp) -> bool {
        self.request == TlsRequest::Required
            && self.item.envelope.reverse_path.is_null()
            && !self.remaining.is_empty()
            && (self.item.is_expired(now, &self.options.retry)
                || matches!(self.exhausted(), Outcome::Failed(_)))
    }

    /// Connections to addresses are not pooled: they have no host name to be keyed by.
    pub(super) fn pool_key(&self, host: &str) -> Option<pool::Key> {
        self.hop.policy_domain()?;
        let host = Domain::parse_a_label(host).ok()?;
        Some(pool::Key::new(host, self.hop.port, self.hop.via.as_deref()))
    }

    pub(super) fn finish(mut self, now: Timestamp) -> Attempted {
        for index in std::mem::take(&mut self.remaining) {
            let failures: Vec<Failure> = self
                .failures
                .iter()
                .filter(|(whose, _)| whose.is_none_or(|whose| whose == index))
                .map(|(_, failure)| failure.clone())
                .collect();
            let outcome = judge::exhausted(&failures);
            let first = self.item.attempts == 0 && !self.last;
            self.outcomes.push((index, if first { judge::not_at_once(outcome) } else { outcome }));
        }
        self.record.at = now;
        self.record.result = summary(&self.outcomes);
        let held = self.held.filter(|_| !self.tried);
        Attempted {
            outcomes: self.outcomes,
            relayed: self.relayed,
            record: self.record,
            signal: self.signal,
            throttled: self.throttled,
            held,
            trail: self.trail,
        }
    }
}

fn summary(outcomes: &[(usize, Outcome)]) -> String {
    let mut delivered = 0usize;
    let mut last = None;
    for (_, outcome) in outcomes {
        match outcome {
            Outcome::Delivered(reply) => {
                delivered += 1;
                last.get_or_insert_with(|| format!("delivered: {reply}"));
            }
            Outcome::Deferred(failure) => last = Some(format!("deferred: {}", failure.sentence())),
            Outcome::Failed(failure) => last = Some(format!("failed: {}", failure.sentence())),
        }
    }
    let last = last.unwrap_or_else(|| "nobody left to deliver to".to_owned());
    if outcomes.len() > 1 { format!("{delivered} of {} delivered; {last}", outcomes.len()) } else { last }
}

pub(super) fn empty_record(at: Timestamp) -> AttemptRecord {
    AttemptRecord {
        at,
        host: None,
        address: None,
        tls: None,
        verified: None,
        rule: tlspolicy::Rule::Opportunistic.to_string(),
        result: String::new(),
    }
}

/// An attempt that ended before any host was reached: routing or policy lookup failed. Who is `decided`
/// needed no host.
pub(in crate::delivery) fn not_tried(
    item: &QueueItem,
    decided: Vec<(usize, Outcome)>,
    now: Timestamp,
    failure: Failure,
    trail: Trail,
) -> Attempted {
    let outcome = |failure: &Failure| match failure.permanence {
        Permanence::Transient => Outcome::Deferred(failure.clone()),
        Permanence::Permanent => Outcome::Failed(failure.clone()),
    };
    let mut outcomes = decided;
    let known = outcomes.len();
    for (index, _) in item.pending() {
        if !outcomes[..known].iter().any(|(decided, _)| *decided == index) {
            outcomes.push((index, outcome(&failure)));
        }
    }
    untried(outcomes, now, failure.rule.as_deref().unwrap_or("routing"), trail)
}

/// An attempt that needed no host to be decided, by this rule.
pub(super) fn untried(
    outcomes: Vec<(usize, Outcome)>,
    now: Timestamp,
    rule: &str,
    trail: Trail,
) -> Attempted {
    let mut record = empty_record(now);
    record.rule = rule.to_owned();
    record.result = summary(&outcomes);
    let (signal, throttled, held) = (Signal::None, None, None);
    Attempted { outcomes, relayed: Vec::new(), record, signal, throttled, held, trail }
}

/// Our own trouble (RFC 3463 X.3.0).
pub(super) fn local_failure(text: &str) -> Failure {
    Failure {
        scope: Scope::Message,
        permanence: Permanence::Transient,
        status: EnhancedStatus::new(4, 3, 0),
        text: text.to_owned(),
        host: None,
        reply: None,
        rule: None,
    }
}
