//! Says in the log, at every use, which demand of a destination this relay's operator has put aside.
//!
//! Decides nothing. `ignore-sts` for a whole domain is told by `delivery::gather`, which asks for no
//! policy then. Called by `attempt` for each host.

use tracing::warn;

use crate::dane::TlsaAnswer;
use crate::mail::TlsRequest;
use crate::sts::Mode;
use crate::tlspolicy::{DaneUse, HostFacts, LocalRule};

/// Tells what of the facts is not heeded.
pub(super) fn tell(facts: &HostFacts) {
    let rule = facts.local_text.as_deref().unwrap_or_default();
    let (domain, mx) = (&facts.policy_domain, &facts.mx);
    if facts.local == LocalRule::IgnoreSts
        && facts.sts.as_ref().is_some_and(|policy| policy.mode != Mode::None)
    {
        warn!(%domain, %mx, "MTA-STS is not applied: local rule {rule}");
    }
    let audited = facts.dane_use == DaneUse::Audit && facts.local != LocalRule::Dane;
    if audited && facts.request != TlsRequest::NotRequired {
        match &facts.tlsa {
            TlsaAnswer::Secure(records) => warn!(
                %domain, %mx, records = records.len(),
                "DANE is only audited (policy.dane_audit_only): TLSA records of the host do not stop mail"
            ),
            TlsaAnswer::Failed(why) => warn!(
                %domain, %mx, %why,
                "DANE is only audited (policy.dane_audit_only): a failed TLSA lookup does not stop mail"
            ),
            TlsaAnswer::Absent | TlsaAnswer::Insecure => {}
        }
    }
}
