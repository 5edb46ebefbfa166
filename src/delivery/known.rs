//! What is known of a destination before its hosts are looked at, and the facts of each host made of
//! it. Pure. Used by `attempt`, and by `explain` so that it explains what an attempt decides.

use jiff::Timestamp;

use super::Options;
use super::gather::{HostAnswers, StsState};
use super::static_route::Hop;
use crate::dane::TlsaAnswer;
use crate::mail::{Destination, Domain, Failure, TlsRequest};
use crate::route::{DnssecStatus, MxHost, Route};
use crate::tlspolicy::{Course, DaneInsecureMx, HostFacts, Override, local_rule_on};

/// See the file's header.
pub(super) struct Known<'a> {
    /// Whom the mail is for.
    pub(super) recipient: &'a Destination,
    /// Where it is handed over.
    pub(super) hop: &'a Hop,
    /// Whose policies count: of the hop.
    pub(super) domain: &'a Domain,
    pub(super) route: &'a Route,
    pub(super) sts: &'a StsState,
    pub(super) request: TlsRequest,
    /// The local rules that count: none for report mail.
    pub(super) overrides: &'a [Override],
    pub(super) options: &'a Options,
    pub(super) now: Timestamp,
}

/// What local rules are asked about.
pub(super) fn course<'a>(recipient: &'a Destination, hop: &'a Hop, host: Option<&'a Domain>) -> Course<'a> {
    Course { recipient: recipient.domain(), next_hop: hop.policy_domain(), host, route: hop.rule() }
}

impl Known<'_> {
    /// The facts `tlspolicy::decide` wants of one host.
    pub(super) fn of(&self, host: &MxHost, found: &Result<HostAnswers, Failure>) -> HostFacts {
        // Without addresses nobody is connected to; an enforced policy may still forbid the host.
        let (tlsa, tlsa_base) = match found {
            Ok(found) => (found.tlsa.clone(), found.tlsa_base.clone()),
            Err(_) => (TlsaAnswer::Absent, host.name.clone()),
        };
        // RFC 7672 §2.2.1: a host named by insecure MX records need not be held to its TLSA records.
        let safely_named = self.route.status == DnssecStatus::Secure || *self.domain == host.name;
        let ignored = self.options.dane_insecure_mx == DaneInsecureMx::Ignore && !safely_named;
        let (tlsa, tlsa_base) =
            if ignored { (TlsaAnswer::Absent, host.name.clone()) } else { (tlsa, tlsa_base) };
        let course = course(self.recipient, self.hop, Some(&host.name));
        let local = local_rule_on(self.overrides, &course, self.now);
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
            local: local.map(|rule| rule.require).unwrap_or_default(),
            local_text: local.map(ToString::to_string),
            dane_use: self.options.dane_use,
            dane_with_sts: self.options.dane_with_sts,
        }
    }
}
