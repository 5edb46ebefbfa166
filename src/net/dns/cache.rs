//! Answers kept for as long as they say.
//!
//! Never keeps failures. Time is `tokio`'s, so that tests can pause it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::Instant;

use super::Lookup;
use crate::mail::Domain;

/// Answers kept at most: some 20 MB when each is a usual MX or address answer.
const ENTRIES_MAX: usize = 20_000;

/// What is asked for.
const KINDS: [RecordType; 6] =
    [RecordType::MX, RecordType::TXT, RecordType::A, RecordType::AAAA, RecordType::TLSA, RecordType::CNAME];

/// One answer without its time.
type Kept = Lookup<RData>;

/// A bounded map from question to answer.
#[derive(Default)]
pub(super) struct Cache {
    entries: Mutex<HashMap<(Domain, RecordType), Entry>>,
}

struct Entry {
    answer: Kept,
    until: Instant,
}

impl Cache {
    /// What is known, with the time it has left.
    pub(super) fn get(&self, name: &Domain, kind: RecordType) -> Option<Kept> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&(name.clone(), kind))?;
        let left = entry.until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        let mut answer = entry.answer.clone();
        if let Lookup::Found(found) = &mut answer {
            found.ttl = left;
        }
        Some(answer)
    }

    /// Keeps an answer for `ttl`; a zero ttl is for this use only (RFC 1035 §3.2.1).
    pub(super) fn put(&self, name: &Domain, kind: RecordType, answer: &Kept, ttl: Duration) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let question = (name.clone(), kind);
        if ttl.is_zero() {
            // A newer answer that may not be kept still replaces the older one.
            entries.remove(&question);
            return;
        }
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&question) {
            entries.retain(|_, entry| entry.until > now);
            if entries.len() >= ENTRIES_MAX
                && let Some(any) = entries.keys().next().cloned()
            {
                entries.remove(&any);
            }
        }
        entries.insert(question, Entry { answer: answer.clone(), until: now + ttl });
    }

    /// Forgets all about a name.
    pub(super) fn forget(&self, name: &Domain) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in KINDS {
            entries.remove(&(name.clone(), kind));
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
