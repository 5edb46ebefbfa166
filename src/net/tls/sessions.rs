//! TLS sessions that may be resumed, each kept under what was demanded and verified when it began
//! (invariant I10).
//!
//! A session serves only a plan with the same SNI, the same name and the same requirement, TLSA records
//! included, as the plan whose full handshake met it. It is kept only after that proof, and only where
//! the certificate proved something: a host that showed a bad one is looked at afresh each time. Before
//! it is offered, its chain is held against the requirement again, at the present instant; its life
//! counts from the full handshake, however often it was resumed since.
//!
//! Never: early data (RFC 9325 §3.10), or a session known to two keys. Bounded in keys, in sessions per
//! key and in time. Called by [`super::ClientTls`].

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName};

use crate::mail::Domain;
use crate::tlspolicy::{Requirement, TlsPlan};

/// What sessions are kept for at once; some 10 KB each.
const KEYS_MAX: usize = 1000;
/// Sessions of one key. A TLS 1.3 ticket is used once, and servers send two or so a time.
const SESSIONS_PER_KEY_MAX: usize = 8;
/// Tickets held until the proof; a server may send any number.
const HELD_MAX: usize = 4;

/// What was demanded of the host.
///
/// The whole requirement is the key, not its policy's id: two policies which demand the same of the
/// same host are met by the same proof, as on a connection used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    sni: Domain,
    name: Domain,
    require: Requirement,
}

impl Key {
    pub(super) fn of(plan: &TlsPlan) -> Self {
        Self { sni: plan.sni.clone(), name: plan.name.clone(), require: plan.require.clone() }
    }
}

/// The full handshake that a session goes back to.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) verified_at: Timestamp,
    pub(super) chain: Arc<[CertificateDer<'static>]>,
}

/// What the library needs for resuming.
pub(super) enum Secret {
    Tls12(Box<Tls12ClientSessionValue>),
    Tls13(Box<Tls13ClientSessionValue>),
}

/// A session to offer.
pub struct Recalled {
    pub(super) secret: Secret,
    pub(super) origin: Origin,
}

/// All sessions.
pub(super) struct Sessions {
    life: SignedDuration,
    kept: Mutex<HashMap<Key, VecDeque<Recalled>>>,
}

impl Sessions {
    /// Sessions that are resumed within `life` of their full handshake.
    pub(super) fn new(life: Duration) -> Self {
        let life = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
        Self { life, kept: Mutex::new(HashMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, VecDeque<Recalled>>> {
        // A panic elsewhere leaves at worst a session less.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The youngest session of a key that is alive and that `still` accepts; others are forgotten.
    pub(super) fn recall(
        &self,
        key: &Key,
        now: Timestamp,
        still: impl Fn(&Origin) -> bool,
    ) -> Option<Recalled> {
        loop {
            // Not under the lock: it may verify signatures.
            let candidate = self.pop(key)?;
            if self.is_alive(&candidate.origin, now) && still(&candidate.origin) {
                if let Secret::Tls12(value) = &candidate.secret {
                    // RFC 5077: unlike a TLS 1.3 ticket it may be used any number of times.
                    self.keep(key, Secret::Tls12(value.clone()), candidate.origin.clone());
                }
                return Some(candidate);
            }
        }
    }

    fn pop(&self, key: &Key) -> Option<Recalled> {
        let mut kept = self.lock();
        let sessions = kept.get_mut(key)?;
        let last = sessions.pop_back();
        if sessions.is_empty() {
            kept.remove(key);
        }
        last
    }

    /// A clock that was set back tells nothing about age.
    fn is_alive(&self, origin: &Origin, now: Timestamp) -> bool {
        let age = now.duration_since(origin.verified_at);
        !age.is_negative() && age < self.life
    }

    fn keep(&self, key: &Key, secret: Secret, origin: Origin) {
        let mut kept = self.lock();
        if kept.len() >= KEYS_MAX && !kept.contains_key(key) {
            // Any will do; at worst a host gets a full handshake.
            let surplus: Vec<Key> = kept.keys().take(KEYS_MAX / 4).cloned().collect();
            for key in surplus {
                kept.remove(&key);
            }
        }
        let sessions = kept.entry(key.clone()).or_default();
        if let Secret::Tls12(_) = secret {
            sessions.retain(|session| matches!(session.secret, Secret::Tls13(_)));
        }
        if sessions.len() >= SESSIONS_PER_KEY_MAX {
            sessions.pop_front();
        }
        sessions.push_back(Recalled { secret, origin });
    }

    /// Forgets all sessions of a key: one of them did not work.
    pub(super) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }
}

/// The library's view of the store during one connection: the session to offer, and what the server
/// sends, which is kept only once [`Slot::approve`] has said that the plan was met.
pub(super) struct Slot {
    sessions: Arc<Sessions>,
    key: Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    offer: Option<Secret>,
    approved: Option<Origin>,
    held: Vec<Secret>,
}

impl Slot {
    pub(super) fn new(sessions: Arc<Sessions>, key: Key, offer: Option<Secret>) -> Arc<Self> {
        Arc::new(Self { sessions, key, state: Mutex::new(State { offer, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan is met; what this connection was and will be given may be resumed.
    pub(super) fn approve(&self, origin: &Origin) {
        let held = {
            let mut state = self.state();
            state.approved = Some(origin.clone());
            std::mem::take(&mut state.held)
        };
        for secret in held {
            self.sessions.keep(&self.key, secret, origin.clone());
        }
    }

    fn receive(&self, secret: Secret) {
        let approved = {
            let mut state = self.state();
            match &state.approved {
                Some(origin) => origin.clone(),
                None => {
                    if state.held.len() < HELD_MAX {
                        state.held.push(secret);
                    }
                    return;
                }
            }
        };
        self.sessions.keep(&self.key, secret, approved);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of the secrets.
        f.debug_struct("Slot").field("key", &self.key).finish_non_exhaustive()
    }
}

impl ClientSessionStore for Slot {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.receive(Secret::Tls12(Box::new(value)));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        match &self.state().offer {
            Some(Secret::Tls12(value)) => Some(value.as_ref().clone()),
            _ => None,
        }
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.state().offer = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.receive(Secret::Tls13(Box::new(value)));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut state = self.state();
        match state.offer.take() {
            Some(Secret::Tls13(value)) => Some(*value),
            other => {
                state.offer = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
