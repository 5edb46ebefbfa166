//! What is known of a destination before its hosts are looked at, and the facts of each host made of
//! it. Pure. Used by `attempt`, and by `explain` so that it explains what an attempt decides.

use super::gather::{HostAnswers, StsState};
use crate::dane::TlsaAnswer;
use crate::mail::{Domain, Failure, TlsRequest};
use crate::route::{MxHost, Route};
use crate::tlspolicy::{DaneWithSts, HostFacts, LocalRule};

/// See the file's header.
pub(super) struct Known<'a> {
    pub(super) domain: &'a Domain,
    pub(super) route: &'a Route,
    pub(super) sts: &'a StsState,
    pub(super) request: TlsRequest,
    pub(super) local: LocalRule,
    pub(super) dane_with_sts: DaneWithSts,
}

impl Known<'_> {
    /// The facts `tlspolicy::decide` wants of one host.
    pub(super) fn of(&self, host: &MxHost, found: &Result<HostAnswers, Failure>) -> HostFacts {
        // Without addresses nobody is connected to; an enforced policy may still forbid the host.
        let (tlsa, tlsa_base) = match found {
            Ok(found) => (found.tlsa.clone(), found.tlsa_base.clone()),
            Err(_) => (TlsaAnswer::Absent, host.name.clone()),
        };
        HostFacts {
            mx: host.name.clone(),
            policy_domain: self.domain.clone(),
            expanded: self.route.expanded.clone(),
            mx_status: self.route.status,
            sts: self.sts.policy.clone(),
            sts_id: self.sts.id.clone(),
            sts_trouble: self.sts.trouble.as_ref().map(|trouble| trouble.text.clone()),
            tlsa,
            tlsa_base,
            request: self.request,
            local: self.local,
            dane_with_sts: self.dane_with_sts,
        }
    }
}
