//! One item, one walk over its hosts: facts, verdict, connection, transaction, judgement.
//!
//! Never talks to a host the verdict skips, and never sends an envelope on a connection that does not
//! meet the plan. The opportunistic second try in clear is a candidate of the walk, offered only where
//! the requirement allows clear. Called by `delivery::run`, once per claim.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;

use super::conversation::{Conversation, TlsSeen};
use super::gather::{Heed, HostAnswers, NextHop, StsState};
use super::judge::{self, Judgement};
use super::tally::{self, Ends};
use super::{Delivery, Options};
use crate::dane::TlsaAnswer;
use crate::mail::{Destination, Domain, EnhancedStatus, Failure, Outcome, Permanence, Scope, TlsRequest};
use crate::queue::{AttemptRecord, QueueItem};
use crate::route::{DnssecStatus, MxHost};
use crate::smtp::client::{SessionEnd, TlsUse, Transaction, TransactionEnd, TransactionRecipient};
use crate::store::Body;
use crate::tlspolicy::{self, HostFacts, LocalRule, TlsPlan, Verdict};

/// Hosts tried in one attempt; what a sane domain has, and a bound on what a hostile one costs.
pub(super) const HOSTS_MAX: usize = 10;
/// Addresses tried per host (RFC 5321 §5.1 asks for at least two).
pub(super) const ADDRESSES_MAX: usize = 4;
/// After this time a walk begins with no further host or address: an attempt that goes from one hanging
/// host to the next would hold its place for hours.
const WALK_MAX: Duration = Duration::from_secs(15 * 60);
/// Recipients per transaction (RFC 5321 §4.5.3.1.8: what every server must take).
const RECIPIENTS_MAX: usize = 100;

/// What an attempt brought.
#[derive(Debug)]
pub struct Attempted {
    /// Per recipient tried, by position in the envelope.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Delivered to a host that does not pass DSN requests on (RFC 3461 §5.2.2).
    pub relayed: Vec<usize>,
    /// For the operator.
    pub record: AttemptRecord,
}

/// The state of one walk.
struct Walk<'a> {
    item: &'a QueueItem,
    begun: Instant,
    body: Body,
    options: Arc<Options>,
    /// Whose `_smtp._tls` record hears of these sessions; nobody for report mail and literals.
    report_domain: Option<Domain>,
    /// Still without an outcome in this attempt.
    remaining: Vec<usize>,
    outcomes: Vec<(usize, Outcome)>,
    relayed: Vec<usize>,
    /// Failures of hosts: for everybody remaining, or for one recipient.
    failures: Vec<(Option<usize>, Failure)>,
    record: AttemptRecord,
}

/// How using a connection went.
enum Used {
    /// Whoever could be decided is decided.
    Done,
    /// A pooled connection had died meanwhile; nothing was sent on it.
    Stale,
}

impl Delivery {
    /// Tries to deliver an item once.
    pub async fn attempt(&self, item: &QueueItem) -> Attempted {
        let options = self.options.borrow().clone();
        let report_domain = match (&item.destination, item.is_report) {
            (Destination::Domain(domain), false) => Some(domain.clone()),
            _ => None,
        };
        let body = match self.queue.body(item.id.queue_id).await {
            Ok(body) => body,
            Err(error) => return not_tried(item, self.now(), local_failure(&error.to_string())),
        };
        let mut walk = Walk {
            item,
            begun: Instant::now(),
            body,
            options,
            report_domain,
            remaining: item.pending().map(|(index, _)| index).collect(),
            outcomes: Vec::new(),
            relayed: Vec::new(),
            failures: Vec::new(),
            record: empty_record(self.now()),
        };
        match &item.destination {
            Destination::Literal(ip) => self.walk_literal(&mut walk, *ip).await,
            Destination::Domain(domain) => {
                if let Err(failure) = self.walk_domain(&mut walk, domain).await {
                    return not_tried(item, self.now(), failure);
                }
            }
        }
        walk.finish(self.now())
    }

    async fn walk_domain(&self, walk: &mut Walk<'_>, domain: &Domain) -> Result<(), Failure> {
        let request = if walk.item.is_report { TlsRequest::NotRequired } else { walk.item.envelope.tls };
        // RFC 8460 §3: report mail heeds no policy, so none is asked for.
        let (sts, local) = if walk.item.is_report {
            (StsState::default(), LocalRule::None)
        } else {
            let waiting = self.now().duration_since(walk.item.received_at).unsigned_abs();
            let local = tlspolicy::override_for(&walk.options.overrides, domain, self.now());
            // I6, RFC 8461 §5.1: the last attempt before giving up looks the policy up afresh.
            if walk.item.is_expired(self.now(), &walk.options.retry) {
                self.gather.recheck(domain).await;
            }
            (self.gather.sts(domain, waiting).await?, local)
        };
        let route = match self.gather.route(&walk.item.destination).await? {
            NextHop::Route(route) => route,
            NextHop::Literal(ip) => {
                self.walk_literal(walk, ip).await;
                return Ok(());
            }
        };
        // Hosts that are skipped cost nothing and do not count.
        let mut tried = 0;
        for host in &route.hosts {
            if walk.remaining.is_empty() || tried == HOSTS_MAX || walk.is_over() {
                break;
            }
            let heed = if walk.item.is_report { Heed::Nothing } else { Heed::Dane };
            let found = self.gather.host(host, heed).await;
            // Without addresses nobody is connected to; an enforced policy may still forbid the host.
            let (tlsa, tlsa_base) = match &found {
                Ok(found) => (found.tlsa.clone(), found.tlsa_base.clone()),
                Err(_) => (TlsaAnswer::Absent, host.name.clone()),
            };
            let facts = HostFacts {
                mx: host.name.clone(),
                policy_domain: domain.clone(),
                expanded: route.expanded.clone(),
                mx_status: route.status,
                sts: sts.policy.clone(),
                sts_id: sts.id.clone(),
                tlsa,
                tlsa_base,
                request,
                local,
                dane_with_sts: walk.options.dane_with_sts,
            };
            match tlspolicy::decide(&facts) {
                Verdict::Skip(reason) => {
                    let failure = judge::skip_failure(&reason, host.name.as_str());
                    debug!(mx = %host.name, rule = %reason.rule, reason = %reason.text, "host skipped");
                    if let Some(report_domain) = &walk.report_domain {
                        self.record_results(tally::of_skip(report_domain, &host.name, &reason));
                    }
                    walk.record.rule = reason.rule.to_string();
                    walk.record.host = Some(host.name.to_string());
                    walk.failures.push((None, failure));
                }
                Verdict::Use(plan) => {
                    tried += 1;
                    if let Err(ourselves) = self.try_host(walk, host, &plan, found).await {
                        // RFC 5321 §5.1: hosts of our own preference and worse are not for us.
                        walk.failures.push((None, ourselves));
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// RFC 5321 §4.1.3: an address literal is connected to directly; no policy domain, so no policy.
    async fn walk_literal(&self, walk: &mut Walk<'_>, ip: IpAddr) {
        if walk.item.envelope.tls == TlsRequest::Required {
            walk.record.rule = tlspolicy::Rule::RequireTls.to_string();
            walk.failures.push((None, judge::literal_failure(&walk.item.destination.to_string())));
            return;
        }
        let name = walk.options.hostname.clone();
        let plan = TlsPlan {
            require: tlspolicy::Requirement::Opportunistic,
            // Never verified and never reported: an address has no name to hold a certificate to.
            sni: name.clone(),
            name,
            mx_status: DnssecStatus::Insecure,
            report_on: Vec::new(),
            rule: tlspolicy::Rule::Opportunistic,
        };
        let host = walk.item.destination.to_string();
        self.try_addresses(walk, &host, &plan, &[ip]).await;
    }

    /// # Errors
    /// The host is ourselves: the walk ends.
    async fn try_host(
        &self,
        walk: &mut Walk<'_>,
        host: &MxHost,
        plan: &TlsPlan,
        found: Result<HostAnswers, Failure>,
    ) -> Result<(), Failure> {
        let name = host.name.as_str();
        // Not even a pooled connection serves without addresses: what TLSA demands is not known then.
        let found = match found {
            Ok(found) => found,
            Err(failure) if failure.scope == Scope::Domain => return Err(failure),
            Err(failure) => {
                walk.record.host = Some(name.to_owned());
                walk.record.rule = plan.rule.to_string();
                walk.failures.push((None, failure));
                return Ok(());
            }
        };
        if let Some(conversation) = self.pool.take(&host.name, plan)
            && let Used::Done = self.use_connection(walk, name, plan, conversation, true).await
        {
            return Ok(());
        }
        self.try_addresses(walk, name, plan, &found.addresses).await;
        Ok(())
    }

    async fn try_addresses(&self, walk: &mut Walk<'_>, host: &str, plan: &TlsPlan, addresses: &[IpAddr]) {
        for ip in addresses.iter().take(ADDRESSES_MAX) {
            if walk.is_over() {
                break;
            }
            let address = SocketAddr::new(*ip, walk.options.smtp_port);
            let mut tls_use =
                if plan.require.allows_cleartext() { TlsUse::IfOffered } else { TlsUse::Required };
            loop {
                match self.open(walk, host, plan, address, tls_use).await {
                    Ok(conversation) => {
                        self.use_connection(walk, host, plan, conversation, false).await;
                        return;
                    }
                    // RFC 7435: opportunistic, so in clear rather than not at all; on a new connection.
                    Err(Opening::Tls) if tls_use == TlsUse::IfOffered => {
                        // What counts is how it goes in clear: no TLS is no failure here.
                        walk.failures.pop();
                        tls_use = TlsUse::Never;
                    }
                    Err(_) => break,
                }
            }
        }
    }

    async fn open(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        plan: &TlsPlan,
        address: SocketAddr,
        tls_use: TlsUse,
    ) -> Result<Conversation, Opening> {
        walk.record.host = Some(host.to_owned());
        walk.record.address = Some(address.ip());
        walk.record.rule = plan.rule.to_string();
        walk.record.tls = None;
        walk.record.verified = None;
        let connection = match self.world.dial.dial(address, walk.options.timeouts.connect).await {
            Ok(connection) => connection,
            Err(error) => {
                let text = format!("connection to {address} failed: {error}");
                debug!(mx = host, %address, %error, "connection failed");
                walk.failures.push((None, judge::dial_failure(&text, host)));
                return Err(Opening::Host);
            }
        };
        let (mut conversation, opened) = Conversation::open(
            connection,
            self.world.tls.clone(),
            plan,
            tls_use,
            &walk.options.hostname,
            walk.options.timeouts.clone(),
        )
        .await;
        self.count(walk, plan, &mut conversation);
        let Err(end) = opened else { return Ok(conversation) };
        debug!(mx = host, %address, end = ?end, "session failed");
        walk.record.tls = conversation.tls_text();
        walk.failures.push((None, judge::session_failure(&end, host, plan.demands())));
        let by_tls = matches!(end, SessionEnd::Tls(_)) || matches!(conversation.seen, TlsSeen::Failed(_));
        Err(if by_tls { Opening::Tls } else { Opening::Host })
    }

    /// Counts a session for TLS-RPT, once per connection and policy (RFC 8460 §4: sessions, not mails).
    fn count(&self, walk: &Walk<'_>, plan: &TlsPlan, conversation: &mut Conversation) {
        let Some(report_domain) = &walk.report_domain else { return };
        if !conversation.first_use_by(report_domain) {
            return;
        }
        let ends = Ends {
            local: conversation.local,
            remote: Some(conversation.remote.ip()),
            helo: conversation.server_name().map(str::to_owned),
        };
        self.record_results(tally::of_session(report_domain, plan, &conversation.seen, &ends));
    }

    async fn use_connection(
        &self,
        walk: &mut Walk<'_>,
        host: &str,
        plan: &TlsPlan,
        mut conversation: Conversation,
        reused: bool,
    ) -> Used {
        let mut first = true;
        let mut queue: Vec<usize> = std::mem::take(&mut walk.remaining);
        while !queue.is_empty() {
            let batch: Vec<usize> = queue.drain(..queue.len().min(RECIPIENTS_MAX)).collect();
            // I4, I10: asked again for every message, whatever the pool thought.
            if !conversation.is_open() || !conversation.meets(plan) {
                let failure = judge::session_failure(&conversation.end(), host, plan.demands());
                walk.leave(batch.into_iter().map(|index| (index, failure.clone())));
                continue;
            }
            let end = conversation.carry(walk.transaction(&batch), &walk.body).await;
            if reused && first && is_untouched(&end) {
                walk.remaining = batch.into_iter().chain(queue).collect();
                debug!(mx = host, "pooled connection had closed");
                return Used::Stale;
            }
            if first {
                walk.note(host, plan, &conversation);
                if reused {
                    self.count(walk, plan, &mut conversation);
                }
            }
            first = false;
            let session_end = (!conversation.is_open()).then(|| conversation.end());
            let judgement = judge::judge(&end, session_end.as_ref(), &batch, host, plan.demands());
            let progress = judgement.again.len() < batch.len();
            let again = walk.apply(judgement, conversation.offers_dsn());
            // RFC 5321 §4.5.3.1.10: those refused as one too many, in the same session; each round
            // decides at least one recipient, so it ends.
            if progress {
                queue.splice(0..0, again);
            } else {
                let failure = local_failure("the host keeps refusing recipients as too many");
                walk.leave(again.into_iter().map(|index| (index, failure.clone())));
            }
        }
        if let Some(name) = walk.pool_name(host)
            && let Some(full) = self.pool.keep(&name, conversation)
        {
            self.close(full);
        }
        Used::Done
    }
}

/// Why a connection could not be used.
enum Opening {
    /// TLS failed; an opportunistic walk may try in clear.
    Tls,
    /// Anything else: next address.
    Host,
}

impl Walk<'_> {
    /// No further host or address is begun.
    fn is_over(&self) -> bool {
        self.begun.elapsed() >= WALK_MAX
    }

    fn transaction(&self, batch: &[usize]) -> Transaction {
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
            require_tls: envelope.tls == TlsRequest::Required,
            size: self.body.len(),
        }
    }

    fn note(&mut self, host: &str, plan: &TlsPlan, conversation: &Conversation) {
        self.record.host = Some(host.to_owned());
        self.record.address = Some(conversation.remote.ip());
        self.record.tls = conversation.tls_text();
        self.record.verified = conversation.verified_text(plan).map(str::to_owned);
        self.record.rule = plan.rule.to_string();
    }

    /// Takes a judgement in; returns whom to try again in the same session.
    fn apply(&mut self, judgement: Judgement, offers_dsn: bool) -> Vec<usize> {
        for (index, outcome) in judgement.outcomes {
            if matches!(outcome, Outcome::Delivered(_)) && !offers_dsn {
                self.relayed.push(index);
            }
            self.outcomes.push((index, outcome));
        }
        self.leave(judgement.next_host);
        judgement.again
    }

    /// Leaves recipients to the next host, remembering why this one failed them.
    fn leave(&mut self, failures: impl IntoIterator<Item = (usize, Failure)>) {
        for (index, failure) in failures {
            self.remaining.push(index);
            self.failures.push((Some(index), failure));
        }
    }

    /// Connections to address literals are not pooled: they have no host name to be keyed by.
    fn pool_name(&self, host: &str) -> Option<Domain> {
        self.item.destination.domain().and_then(|_| Domain::parse_a_label(host).ok())
    }

    fn finish(mut self, now: Timestamp) -> Attempted {
        for index in std::mem::take(&mut self.remaining) {
            let failures: Vec<Failure> = self
                .failures
                .iter()
                .filter(|(whose, _)| whose.is_none_or(|whose| whose == index))
                .map(|(_, failure)| failure.clone())
                .collect();
            self.outcomes.push((index, judge::exhausted(&failures)));
        }
        self.record.at = now;
        self.record.result = summary(&self.outcomes);
        Attempted { outcomes: self.outcomes, relayed: self.relayed, record: self.record }
    }
}

/// Nothing was answered and no content went out: trying on another connection cannot duplicate.
fn is_untouched(end: &TransactionEnd) -> bool {
    matches!(end, TransactionEnd::Broken { replies, uncertain: false } if replies.iter().all(Option::is_none))
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
            Outcome::Deferred(failure) => {
                last = Some(format!("deferred: {} {}", failure.status, failure.text))
            }
            Outcome::Failed(failure) => last = Some(format!("failed: {} {}", failure.status, failure.text)),
        }
    }
    let last = last.unwrap_or_else(|| "nobody left to deliver to".to_owned());
    if outcomes.len() > 1 { format!("{delivered} of {} delivered; {last}", outcomes.len()) } else { last }
}

fn empty_record(at: Timestamp) -> AttemptRecord {
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

/// An attempt that ended before any host was reached: routing or policy lookup failed.
fn not_tried(item: &QueueItem, now: Timestamp, failure: Failure) -> Attempted {
    let outcome = |failure: &Failure| match failure.permanence {
        Permanence::Transient => Outcome::Deferred(failure.clone()),
        Permanence::Permanent => Outcome::Failed(failure.clone()),
    };
    let outcomes: Vec<(usize, Outcome)> =
        item.pending().map(|(index, _)| (index, outcome(&failure))).collect();
    let mut record = empty_record(now);
    record.rule = failure.rule.clone().unwrap_or_else(|| "routing".to_owned());
    record.result = summary(&outcomes);
    Attempted { outcomes, relayed: Vec::new(), record }
}

/// Our own trouble (RFC 3463 X.3.0).
fn local_failure(text: &str) -> Failure {
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
