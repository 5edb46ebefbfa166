//! One item, one walk over its hosts: facts, verdict, connection, transaction, judgement.
//!
//! Never talks to a host the verdict skips, and never sends an envelope on a connection that does not
//! meet the plan. The opportunistic second try in clear is a candidate of the walk, offered only where
//! the requirement allows clear. Called by `delivery::run`, once per claim.

mod connect;
mod exceptions;
mod reach;
mod walk;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::walk::{Walk, empty_record, local_failure, untried};
use super::Delivery;
use super::conversation::Conversation;
use super::evidence::Trail;
use super::gather::{Heed, HostAnswers, NextHop, StsState};
use super::known::{self, Known};
use super::pace::Signal;
use super::run::Turn;
use super::static_route::Hop;
use super::{judge, limits, pool};
use crate::mail::{Destination, Failure, Outcome, Scope, TlsRequest};
use crate::queue::QueueItem;
use crate::route::MxHost;
use crate::smtp::client::{SessionEnd, TransactionEnd};
use crate::tlspolicy::{self, AddressFacts, LocalRule, Override, TlsPlan, Verdict};

pub use self::walk::Attempted;
pub(super) use self::walk::not_tried;

/// Hosts tried in one attempt; what a sane domain has, and a bound on what a hostile one costs.
pub(super) const HOSTS_MAX: usize = 10;
/// Addresses tried per host, the families in turn (RFC 5321 §5.1 asks for at least two).
pub(super) const ADDRESSES_MAX: usize = 4;
/// Recipients per transaction (RFC 5321 §4.5.3.1.8: what every server must take).
const RECIPIENTS_MAX: usize = 100;

/// How using a connection went.
enum Used {
    /// Whoever could be decided is decided.
    Done,
    /// A pooled connection had died meanwhile; nothing was sent on it.
    Stale,
    /// The host offers CHUNKING and does not understand BDAT; on another connection it gets DATA.
    BdatUnknown,
}

impl Delivery {
    /// Tries to deliver an item once.
    pub(super) async fn attempt(&self, item: &QueueItem, turn: &Turn) -> Attempted {
        let suppressed = self.suppressed(item);
        let remaining: Vec<usize> = item
            .pending()
            .map(|(index, _)| index)
            .filter(|index| !suppressed.iter().any(|(known, _)| known == index))
            .collect();
        let options = self.options.borrow().clone();
        if remaining.is_empty() && !suppressed.is_empty() {
            let trail = Trail::of(&self.queue, item, &options.evidence).await;
            return untried(suppressed, self.now(), "suppression list", trail);
        }
        // For the whole walk, whatever a reload changes meanwhile.
        let hop = self.gather.hop(&item.destination);
        // RFC 8460 §1.1: with a smart host, its domain hears of it.
        let report_domain = hop.policy_domain().filter(|_| !item.is_report).cloned();
        let body = match self.queue.body(item.id.queue_id).await {
            Ok(body) => body,
            Err(error) => {
                let failure = local_failure(&error.to_string());
                return not_tried(item, suppressed, self.now(), failure, Trail::default());
            }
        };
        // RFC 8460 §3: report mail goes whatever TLS shows.
        let request = if item.is_report { TlsRequest::NotRequired } else { item.envelope.tls };
        let trail = Trail::begin(&options.evidence, &body).await;
        let mut walk = Walk {
            item,
            begun: Instant::now(),
            body,
            request,
            hop: hop.clone(),
            report_domain,
            passed_over: Vec::new(),
            remaining,
            outcomes: suppressed,
            relayed: Vec::new(),
            failures: Vec::new(),
            record: empty_record(self.now()),
            last: item.is_expired(self.now(), &options.retry),
            tried: false,
            signal: Signal::None,
            throttled: None,
            turn,
            held: None,
            trail,
            options,
        };
        walk.trail.goes_by(&hop);
        if let Err(failure) = self.walk_hop(&mut walk, &hop).await {
            return not_tried(item, walk.outcomes, self.now(), failure, walk.trail);
        }
        walk.finish(self.now())
    }

    async fn walk_hop(&self, walk: &mut Walk<'_>, hop: &Hop) -> Result<(), Failure> {
        let Some(domain) = hop.policy_domain() else {
            if let NextHop::Literal(ip) = self.gather.route(hop).await? {
                self.walk_literal(walk, hop, ip).await;
            }
            return Ok(());
        };
        // RFC 8460 §3: report mail heeds no policy, so none is asked for.
        let options = Arc::clone(&walk.options);
        let (sts, overrides): (_, &[Override]) = if walk.item.is_report {
            (StsState::default(), &[])
        } else {
            let waiting = match walk.request {
                // Without the policy it is not known whether it vouches for the hosts: no waiting ends that.
                TlsRequest::Required => Duration::ZERO,
                _ => self.now().duration_since(walk.item.received_at).unsigned_abs(),
            };
            // I6, RFC 8461 §5.1: the last attempt before giving up looks the policy up afresh.
            if walk.item.is_expired(self.now(), &walk.options.retry) {
                self.gather.recheck(domain).await;
            }
            let sts = match self.gather.sts(domain, waiting).await {
                Ok(sts) => sts,
                // RFC 8689 §4.2.2: no policy stops it, so none has to be known.
                Err(_) if walk.request == TlsRequest::NotRequired => StsState::default(),
                Err(failure) => return Err(failure),
            };
            (sts, &options.overrides)
        };
        let NextHop::Route(route) = self.gather.route(hop).await? else { return Ok(()) };
        let (request, now, recipient) = (walk.request, self.now(), &walk.item.destination);
        let (route, options) = (&route, &options);
        let known = Known { recipient, hop, domain, route, sts: &sts, request, overrides, options, now };
        self.walk_hosts(walk, &known).await;
        let mut afresh = None;
        if walk.is_refused_for_requiretls() {
            // I6 here too: what the policy vouches for is asked once more before the sender is told.
            let now = self.gather.recheck(domain).await;
            let changed = now.policy != sts.policy || now.trouble.is_some() != sts.trouble.is_some();
            afresh = changed.then_some(now);
        }
        let known = Known { sts: afresh.as_ref().unwrap_or(&sts), ..known };
        if afresh.is_some() {
            walk.failures.clear();
            self.walk_hosts(walk, &known).await;
        }
        if walk.goes_without_requiretls(self.now()) {
            info!("no host takes it with REQUIRETLS; mail from the null path goes without");
            walk.request = TlsRequest::None;
            self.walk_hosts(walk, &Known { request: walk.request, ..known }).await;
        }
        Ok(())
    }

    async fn walk_hosts(&self, walk: &mut Walk<'_>, known: &Known<'_>) {
        walk.trail.sts(known.sts);
        // Hosts that are skipped cost nothing and do not count.
        let mut tried = 0;
        for host in &known.route.hosts {
            if walk.remaining.is_empty() || tried == HOSTS_MAX || walk.is_over() {
                break;
            }
            // RFC 8460 §3; but what the operator demands of a next hop counts for all mail.
            let demanded = known.hop.rule().is_some_and(|rule| rule.require == LocalRule::Dane);
            let heed = match (walk.item.is_report && !demanded, walk.last) {
                (true, _) => Heed::Nothing,
                // As RFC 8461 §5.1 wants it of policies: nobody hears of a failure that is over.
                (false, true) => Heed::DaneAfresh,
                (false, false) => Heed::Dane,
            };
            let found = self.gather.host(host, known.hop, heed).await;
            let facts = known.of(host, &found);
            exceptions::tell(&facts);
            let verdict = tlspolicy::decide(&facts);
            walk.trail.facts(facts);
            match verdict {
                Verdict::Skip(reason) => {
                    walk.trail.skipped(&host.name, &reason);
                    let failure = judge::skip_failure(&reason, host.name.as_str());
                    debug!(mx = %host.name, rule = %reason.rule, reason = %reason.text, "host skipped");
                    self.count_passed_over(walk, &host.name, &reason);
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
    }

    /// RFC 5321 §4.1.3: an address is connected to directly; no policy domain, so no policy.
    async fn walk_literal(&self, walk: &mut Walk<'_>, hop: &Hop, ip: IpAddr) {
        // RFC 8689 §5: mail from the null path is not lost for want of it.
        if walk.request == TlsRequest::Required && walk.item.envelope.reverse_path.is_null() {
            walk.request = TlsRequest::None;
        }
        let options = Arc::clone(&walk.options);
        // RFC 8460 §3: report mail heeds no policy; what a route demands is none.
        let overrides = if walk.item.is_report { &[][..] } else { &options.overrides };
        let course = known::course(&walk.item.destination, hop, None);
        let local = tlspolicy::local_rule_on(overrides, &course, self.now());
        let (host, text) = (Destination::Literal(ip).to_string(), local.map(ToString::to_string));
        let verdict = tlspolicy::decide_address(&AddressFacts {
            literal: &host,
            own_name: &options.hostname,
            request: walk.request,
            local: local.map(|rule| rule.require).unwrap_or_default(),
            local_text: text.as_deref(),
        });
        match verdict {
            Verdict::Use(plan) => self.try_addresses(walk, &host, &plan, &[ip]).await,
            Verdict::Skip(reason) => {
                walk.record.rule = reason.rule.to_string();
                walk.record.host = Some(host.clone());
                walk.failures.push((None, judge::skip_failure(&reason, &host)));
            }
        }
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
                walk.trail.failed(name, plan, None, &failure.text);
                walk.failures.push((None, failure));
                return Ok(());
            }
        };
        let key = pool::Key::new(host.name.clone(), walk.hop.port, walk.hop.via.as_deref());
        if let Some(conversation) = self.pool.take(&key, plan, &walk.options.pool)
            && let Some(conversation) = self.unless_full(walk, name, conversation)
            && let Used::Done = self.use_connection(walk, name, plan, conversation, true).await
        {
            return Ok(());
        }
        self.try_addresses(walk, name, plan, &found.addresses).await;
        Ok(())
    }

    /// A connection, unless it has carried what the operator allows; then it is closed.
    fn unless_full(&self, walk: &Walk<'_>, host: &str, conversation: Conversation) -> Option<Conversation> {
        let domain = walk.item.destination.domain();
        let max = limits::messages_per_connection(&walk.options.limits, domain, host);
        if max.is_some_and(|max| conversation.carried >= max) {
            self.close(conversation);
            return None;
        }
        Some(conversation)
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
                if first {
                    walk.trail.failed(host, plan, Some(&conversation), &failure.text);
                }
                walk.leave(batch.into_iter().map(|index| (index, failure.clone())));
                continue;
            }
            conversation.use_chunking(walk.options.chunking && !self.plain.contains(host));
            walk.tried = true;
            walk.turn.goes_to(conversation.remote.ip(), host);
            let before = conversation.carried;
            let end = conversation.carry(walk.transaction(&batch), &walk.body).await;
            if conversation.broke_in_bdat() {
                warn!(mx = host, end = ?conversation.end(), "host offers CHUNKING and broke in BDAT; it gets DATA for a day");
                self.plain.remember(host);
            }
            let bdat_unknown = matches!(conversation.end(), SessionEnd::BdatUnknown(_));
            if reused && first && is_untouched(&end) && !bdat_unknown {
                walk.remaining = batch.into_iter().chain(queue).collect();
                debug!(mx = host, "pooled connection had closed");
                return Used::Stale;
            }
            if first {
                walk.note(host, plan, &conversation);
                walk.trail.carried(host, plan, &mut conversation, before);
                if reused {
                    self.count(walk, plan, &mut conversation);
                }
            }
            first = false;
            let session_end = (!conversation.is_open()).then(|| conversation.end());
            self.hear(walk, &end, session_end.as_ref(), conversation.carried);
            let mut judgement = judge::judge(&end, session_end.as_ref(), &batch, host, plan.demands());
            if walk.hop.via.is_some() {
                judgement = judge::without_login(judgement);
            }
            let progress = judgement.again.len() < batch.len();
            let delivered =
                judgement.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Delivered(_)));
            self.metrics.delivered_under(conversation.protection(plan), delivered.count() as u64);
            let again = walk.apply(judgement, conversation.offers_dsn());
            if bdat_unknown {
                walk.remaining.extend(again.into_iter().chain(queue));
                return Used::BdatUnknown;
            }
            // RFC 5321 §4.5.3.1.10: those refused as one too many, in the same session; each round
            // decides at least one recipient, so it ends.
            if progress {
                queue.splice(0..0, again);
            } else {
                let failure = local_failure("the host keeps refusing recipients as too many");
                walk.leave(again.into_iter().map(|index| (index, failure.clone())));
            }
        }
        if let Some(key) = walk.pool_key(host)
            && let Some(conversation) = self.unless_full(walk, host, conversation)
            && let Some(full) = self.pool.keep(&key, conversation, &walk.options.pool)
        {
            self.close(full);
        }
        Used::Done
    }
}

/// Nothing was answered and no content went out: trying on another connection cannot duplicate.
fn is_untouched(end: &TransactionEnd) -> bool {
    matches!(end, TransactionEnd::Broken { replies, uncertain: false } if replies.iter().all(Option::is_none))
}
