//! What each admin request does, through the stories' own doors.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::history::keep::KeptHistory;
use super::protocol::changes::ChangesAnswer;
use super::protocol::evidence::EvidenceAnswer;
use super::protocol::status::{ListenerStatus, Status, health_text};
use super::protocol::{Answer, PAGE_MAX, Request};
use super::transfer::Transfer;
use crate::delivery::Traffic;
use crate::delivery::explain::Explainer;
use crate::delivery::explain::facts::LocalFacts;
use crate::delivery::gather::Gather;
use crate::delivery::giveup::GiveUp;
use crate::mail::{Domain, Mailbox};
use crate::metrics::Metrics;
use crate::net::Clock;
use crate::net::tls::ServerTls;
use crate::reporting::Reporting;
use crate::store::{Health, Policies, Queue, Reports, Suppressions};

/// Everything the command line may look at or change.
#[derive(Clone)]
pub struct AdminHandles {
    /// For `now`.
    pub clock: Arc<dyn Clock>,
    /// The queue.
    pub queue: Queue,
    /// Bounces items of it.
    pub giving_up: GiveUp,
    /// Cached MTA-STS policies.
    pub policies: Policies,
    /// Refreshes and forgets them.
    pub gather: Gather,
    /// Outgoing reports.
    pub reports: Reports,
    /// Recipients that are suppressed.
    pub suppressions: Suppressions,
    /// Makes and sends them.
    pub reporting: Reporting,
    /// How hosts stand.
    pub traffic: Traffic,
    /// Moves messages out of the queue and into it.
    pub transfer: Arc<Transfer>,
    /// Explains what would become of mail.
    pub explainer: Explainer,
    /// What is counted.
    pub metrics: Metrics,
    /// What was counted, over time.
    pub history: KeptHistory,
    /// What listeners show of themselves, as it is now.
    pub server_tls: watch::Receiver<Option<Arc<ServerTls>>>,
    /// What the daemon is.
    pub about: Arc<About>,
    /// Cancelled when it stops.
    pub shutdown: CancellationToken,
}

/// What stays as it is while the daemon runs.
#[derive(Debug, Clone)]
pub struct About {
    /// `server.hostname`
    pub hostname: Domain,
    /// When it was started.
    pub started_at: Timestamp,
    /// Where mail is taken: name and address.
    pub listeners: Vec<(String, SocketAddr)>,
}

impl AdminHandles {
    /// Does what is asked.
    pub(in crate::admin) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::QueueList { filter, cursor, history, max } => {
                self.queue_page(&filter, cursor, history, max).await
            }
            Request::QueueStats { destinations } => self.queue_totals(destinations).await,
            Request::QueueAct { filter, action, reason, cursor, dry_run } => {
                self.queue_act(&filter, action, reason.as_deref(), cursor, dry_run).await
            }
            Request::QueueFreeze { destination, reason, until } => {
                self.queue_freeze(destination, reason, until).await
            }
            Request::QueueThaw { destination } => self.queue_thaw(&destination).await,
            Request::PolicyShow { domain } => match self.policies.get(&domain) {
                Some(entry) => {
                    let local = self.local_rule(&domain);
                    Answer::Policies { entries: vec![(*entry).clone()], more: false, local }
                }
                None => self.without_policy(domain),
            },
            Request::PolicyList { after } => {
                let mut entries = self.policies.list();
                entries.retain(|entry| after.as_ref().is_none_or(|after| entry.domain > *after));
                let more = entries.len() > PAGE_MAX;
                entries.truncate(PAGE_MAX);
                let entries = entries.iter().map(|entry| (**entry).clone()).collect();
                Answer::Policies { entries, more, local: None }
            }
            Request::PolicyRefresh { domain } => {
                let found = self.gather.refresh(&domain).await;
                info!(%domain, "policy refreshed by an operator");
                Answer::Refreshed {
                    record: found.record,
                    fetch: found.fetch.map(|fetch| match fetch {
                        Ok(policy) => Ok(mode_name(&policy).to_owned()),
                        Err(trouble) => Err(trouble.text),
                    }),
                    entry: found.entry.map(|entry| Box::new((*entry).clone())),
                }
            }
            Request::PolicyForget { domain } => match self.gather.forget(&domain).await {
                Ok(true) => {
                    info!(%domain, "policy forgotten by an operator");
                    Answer::Changed { count: 1 }
                }
                Ok(false) => Answer::Nothing { text: format!("no policy of {domain} is cached") },
                Err(error) => Answer::Failed { text: error.to_string() },
            },
            Request::Reports(request) => self.report(request).await,
            Request::Transfer(request) => self.transfer.answer(request).await,
            Request::Evidence(asked) => {
                let max = asked.max.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
                match self.queue.evidence(&asked.filter, asked.cursor, max).await {
                    Ok(page) => {
                        Answer::Evidence(EvidenceAnswer { attempts: page.attempts, cursor: page.cursor })
                    }
                    Err(error) => Answer::Failed { text: error.to_string() },
                }
            }
            Request::Changes(asked) => {
                let (changes, more) = self.policies.changes().list(&asked.filter, PAGE_MAX);
                let changes = changes.iter().map(|noticed| (**noticed).clone()).collect();
                Answer::Changes(ChangesAnswer { changes, more })
            }
            Request::SuppressionList { after } => {
                let mut entries = self.suppressions.list(self.clock.now());
                let after = after.map(|after| after.to_string());
                entries.retain(|entry| after.as_ref().is_none_or(|after| entry.address.to_string() > *after));
                let more = entries.len() > PAGE_MAX;
                entries.truncate(PAGE_MAX);
                let entries = entries.iter().map(|entry| (**entry).clone()).collect();
                Answer::Suppressions { entries, more }
            }
            Request::SuppressionShow { address } => match self.suppressions.get(&address, self.clock.now()) {
                Some(entry) => Answer::Suppressions { entries: vec![(*entry).clone()], more: false },
                None => unsuppressed(&address),
            },
            Request::SuppressionAdd { address, reason, until } => {
                match self.suppressions.add(address, &reason, until, self.clock.now()).await {
                    Ok(entry) => {
                        info!(address = %entry.address, %until, reason, "recipient suppressed by an operator");
                        Answer::Suppressions { entries: vec![entry], more: false }
                    }
                    Err(error) => Answer::Failed { text: error.to_string() },
                }
            }
            Request::SuppressionRemove { address } => match self.suppressions.remove(&address).await {
                Ok(true) => {
                    info!(%address, "recipient taken off the suppression list by an operator");
                    Answer::Changed { count: 1 }
                }
                Ok(false) => unsuppressed(&address),
                Err(error) => Answer::Failed { text: error.to_string() },
            },
            Request::Status => Answer::Status(Box::new(self.status().await)),
            Request::Explain { destination, connect } => {
                Answer::Explained(Box::new(self.explainer.explain(destination, connect).await))
            }
        }
    }
}

impl AdminHandles {
    async fn status(&self) -> Status {
        let (about, not_ready) = (&self.about, self.not_ready());
        let uptime = self.clock.now().duration_since(about.started_at).as_secs();
        let listener = |(name, address): &(String, SocketAddr)| ListenerStatus {
            name: name.clone(),
            address: address.to_string(),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: about.hostname.to_string(),
            started_at: about.started_at,
            uptime: u64::try_from(uptime).unwrap_or_default(),
            ready: not_ready.is_none(),
            not_ready,
            health: health_text(&self.queue.health()),
            dnssec: self.gather.validation().await.to_string(),
            listeners: about.listeners.iter().map(listener).collect(),
        }
    }

    /// Why no mail is taken, in words.
    pub(in crate::admin) fn not_ready(&self) -> Option<String> {
        match self.queue.health() {
            _ if self.shutdown.is_cancelled() => Some("shutting down".to_owned()),
            Health::Fine => None,
            health => Some(health_text(&health)),
        }
    }

    fn local_rule(&self, domain: &Domain) -> Option<LocalFacts> {
        let local = self.explainer.local_rule(domain);
        (local != LocalFacts::default()).then_some(local)
    }

    /// What is known of a domain whose policy is not: its local rule, if it has one.
    fn without_policy(&self, domain: Domain) -> Answer {
        match self.local_rule(&domain) {
            None => Answer::Nothing { text: format!("no policy of {domain} is cached") },
            local => {
                let entry = crate::sts::CachedPolicy { domain, held: None, trouble: None };
                Answer::Policies { entries: vec![entry], more: false, local }
            }
        }
    }
}

fn unsuppressed(address: &Mailbox) -> Answer {
    Answer::Nothing { text: format!("{address} is not on the suppression list") }
}

/// The mode as policies write it.
fn mode_name(policy: &crate::sts::StsPolicy) -> &'static str {
    match policy.mode {
        crate::sts::Mode::Enforce => "enforce",
        crate::sts::Mode::Testing => "testing",
        crate::sts::Mode::None => "none",
    }
}
