//! Open, idle connections, kept for the next message to the same host.
//!
//! Keyed by host name, port and login; whether a connection may carry a message is asked of what was verified on
//! it ([`Conversation::meets`], invariant I10), never of what some other message needed. Bounded in
//! number, age, idle time and messages. Called by `delivery::attempt`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::conversation::Conversation;
use super::static_route::{HopTls, StaticRoute};
use crate::mail::Domain;
use crate::smtp::client::Credentials;
use crate::tlspolicy::TlsPlan;

/// How long open connections are kept (`[delivery.pool]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Time without use. Default 20 s: shorter than what servers wait for a command (RFC 5321
    /// §4.5.3.2.7: 5 minutes), and an idle connection holds one of the server's places.
    pub idle_time: Duration,
    /// Age from which a connection is not used again. Default 5 minutes: certificates and policies are
    /// looked at afresh.
    pub age: Duration,
    /// Messages on one connection. Default 1000; servers have such limits too and answer 421 beyond.
    pub messages: u32,
    /// Idle connections in all. Default 500; each costs a socket and some 50 KB.
    pub connections: usize,
    /// Idle connections to one host. Default 20.
    pub connections_per_host: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle_time: Duration::from_secs(20),
            age: Duration::from_secs(300),
            messages: 1000,
            connections: 500,
            connections_per_host: 20,
        }
    }
}

/// Where a connection leads, and as whom we are there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    host: Domain,
    port: u16,
    tls: HopTls,
    credentials: Option<Credentials>,
}

impl Key {
    /// For a host at a port, reached by a static route or by none.
    pub fn new(host: Domain, port: u16, via: Option<&StaticRoute>) -> Self {
        Self {
            host,
            port,
            tls: via.map(StaticRoute::tls).unwrap_or_default(),
            credentials: via.and_then(StaticRoute::credentials).cloned(),
        }
    }
}

/// The pool.
#[derive(Default)]
pub struct Pool {
    hosts: Mutex<Hosts>,
}

#[derive(Default)]
struct Hosts {
    /// In order, so that equal runs close them in equal order.
    idle: BTreeMap<Key, Vec<Idle>>,
    total: usize,
}

struct Idle {
    conversation: Conversation,
    since: Instant,
}

impl Idle {
    fn is_usable(&self, now: Instant, options: &Options) -> bool {
        now.duration_since(self.since) < options.idle_time
            && now.duration_since(self.conversation.opened_at) < options.age
            && self.conversation.carried < options.messages
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Hosts> {
        // A panic elsewhere leaves at worst a wrong count, never a wrong connection.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of this key that meets the plan, the most recently used first.
    pub fn take(&self, key: &Key, plan: &TlsPlan, options: &Options) -> Option<Conversation> {
        let now = Instant::now();
        let mut hosts = self.lock();
        let idle = hosts.idle.get_mut(key)?;
        let position =
            idle.iter().rposition(|idle| idle.is_usable(now, options) && idle.conversation.meets(plan))?;
        let taken = idle.remove(position);
        if idle.is_empty() {
            hosts.idle.remove(key);
        }
        hosts.total -= 1;
        Some(taken.conversation)
    }

    /// Keeps an idle connection, or gives it back when there is no room or it is too old.
    pub fn keep(&self, key: &Key, conversation: Conversation, options: &Options) -> Option<Conversation> {
        let idle = Idle { conversation, since: Instant::now() };
        let mut hosts = self.lock();
        let kept_here = hosts.idle.get(key).map_or(0, Vec::len);
        let room = hosts.total < options.connections && kept_here < options.connections_per_host;
        if !room || !idle.conversation.is_open() || !idle.is_usable(idle.since, options) {
            return Some(idle.conversation);
        }
        hosts.idle.entry(key.clone()).or_default().push(idle);
        hosts.total += 1;
        None
    }

    /// Whether no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.lock().total == 0
    }

    /// Takes out what must not be used any more, to be closed properly.
    pub fn expired(&self, options: &Options) -> Vec<Conversation> {
        let now = Instant::now();
        self.drain(|idle| !idle.is_usable(now, options))
    }

    /// Takes out everything, at shutdown.
    pub fn all(&self) -> Vec<Conversation> {
        self.drain(|_| true)
    }

    fn drain(&self, leave: impl Fn(&Idle) -> bool) -> Vec<Conversation> {
        let mut hosts = self.lock();
        let mut out = Vec::new();
        for idle in hosts.idle.values_mut() {
            out.extend(idle.extract_if(.., |idle| leave(idle)).map(|idle| idle.conversation));
        }
        hosts.idle.retain(|_, idle| !idle.is_empty());
        hosts.total -= out.len();
        out
    }
}
