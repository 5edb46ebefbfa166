//! Our own validation, from trust anchors that are keys or digests of keys.
//!
//! Keys that DS anchors name are fetched when they are first needed, and now and then again, for a key that
//! is rolled. A key is trusted because its digest is, so it does not matter who hands it over. A zone whose
//! anchor matches no key fails, it is never taken for unsigned. Called by `resolver`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::proto::dnssec::PublicKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::LookupFailureKind;
use super::anchors::Anchors;
use super::reply::Trust;
use super::resolver::{Checking, request};
use super::upstream::Upstream;

/// Keys that were found are looked up again after so long: a rolled key is in the zone for weeks before.
const KEYS_FOR: Duration = Duration::from_secs(3600);
/// ... and those that were not, so soon.
const KEYS_AGAIN: Duration = Duration::from_secs(5);

/// A validator that is ready when its anchors are.
pub(super) struct Validating {
    upstream: Upstream,
    anchors: Anchors,
    ready: Mutex<Arc<OnceCell<Ready>>>,
}

struct Ready {
    handle: DnssecDnsHandle<Upstream>,
    /// Zones whose anchor leads nowhere, and why.
    lost: Vec<(Name, Lost)>,
    /// `None`: for ever.
    until: Option<Instant>,
}

/// Why an anchor leads nowhere.
struct Lost {
    /// The keys came, and none is the one.
    mismatch: bool,
    text: String,
}

impl Validating {
    pub(super) fn new(upstream: Upstream, anchors: Anchors) -> Self {
        Self { upstream, anchors, ready: Mutex::default() }
    }

    /// The handle to ask about a name.
    ///
    /// # Errors
    /// The anchor above the name is of no use now.
    pub(super) async fn handle(&self, name: &Name) -> Result<DnssecDnsHandle<Upstream>, LookupFailureKind> {
        let cell = self.cell();
        let ready = cell.get_or_init(|| self.prepare()).await;
        // Never around an anchor: what is below it would seem unsigned.
        match ready.lost.iter().find(|(zone, _)| zone.zone_of(name)) {
            Some((_, Lost { mismatch, text })) => {
                Err(LookupFailureKind { bogus: *mismatch, text: text.clone() })
            }
            None => Ok(ready.handle.clone()),
        }
    }

    fn cell(&self) -> Arc<OnceCell<Ready>> {
        let mut cell = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |ready: &Ready| ready.until.is_some_and(|until| Instant::now() >= until);
        if cell.get().is_some_and(over) {
            *cell = Arc::default();
        }
        Arc::clone(&cell)
    }

    async fn prepare(&self) -> Ready {
        let mut anchors = self.anchors.keys.clone();
        let mut lost = Vec::new();
        let zones: BTreeSet<&Name> = self.anchors.digests.iter().map(|(zone, _)| zone).collect();
        for zone in &zones {
            match self.keys_of(zone).await {
                Ok(keys) => {
                    for key in keys {
                        anchors.insert_with_name(key.public_key(), (*zone).into());
                    }
                }
                Err(why) => {
                    tracing::warn!(%zone, error = %why.text, "dns.trust_anchor_file is of no use for now");
                    lost.push(((*zone).clone(), why));
                }
            }
        }
        let again = if lost.is_empty() { KEYS_FOR } else { KEYS_AGAIN };
        let handle = DnssecDnsHandle::with_trust_anchor(self.upstream.clone(), Arc::new(anchors))
            // A key that did not come in time would leave its mark on all that it signs.
            .negative_validation_ttl(Duration::ZERO..=Duration::ZERO);
        Ready { handle, lost, until: (!zones.is_empty()).then(|| Instant::now() + again) }
    }

    /// The keys of a zone that its DS anchors name.
    async fn keys_of(&self, zone: &Name) -> Result<Vec<DNSKEY>, Lost> {
        // Unchecked: a resolver that validates with an older anchor would keep the keys to itself.
        let request = request(zone, RecordType::DNSKEY, Trust::Proofs, Checking::Disabled);
        let answer = self.upstream.send(request).first_answer().await;
        let response = answer.map_err(|error| Lost {
            mismatch: false,
            text: format!("the DNSKEY records of {zone} cannot be fetched: {error}"),
        })?;
        let keys: Vec<DNSKEY> = response
            .answers
            .iter()
            .filter(|record| record.name == *zone)
            .filter_map(|record| match &record.data {
                RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
                _ => None,
            })
            // RFC 5011 §2.1: a revoked key is no anchor, whatever the file says.
            .filter(|key| !key.revoke() && self.is_named(zone, key))
            .cloned()
            .collect();
        if keys.is_empty() {
            let text = format!(
                "no DNSKEY record of {zone} matches a DS record of dns.trust_anchor_file; a rolled key needs a new one"
            );
            return Err(Lost { mismatch: true, text });
        }
        Ok(keys)
    }

    fn is_named(&self, zone: &Name, key: &DNSKEY) -> bool {
        self.anchors.digests.iter().any(|(owner, ds)| {
            owner == zone
                && ds.algorithm() == key.public_key().algorithm()
                && key.calculate_key_tag().is_ok_and(|tag| tag == ds.key_tag())
                && ds.covers(zone, key).unwrap_or(false)
        })
    }
}
