//! What is demanded of destinations: `[policy]` and `[mta_sts]`.

use serde::{Deserialize, Serialize};

use super::super::value::{Span, Until};
use super::seconds;
use crate::mail::Pattern;
use crate::tlspolicy::{DaneInsecureMx, DaneWithSts, LocalRule, Whom};

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Discover and enforce MTA-STS.
    pub mta_sts: bool,
    /// Look for TLSA records and enforce them.
    pub dane: bool,
    /// What must pass where both apply.
    pub dane_with_sts: DaneWithSts,
    /// Whether TLSA records count for hosts named by MX records without DNSSEC.
    pub dane_insecure_mx: DaneInsecureMx,
    /// TLSA records are looked at, logged and reported, and stop nothing.
    pub dane_audit_only: bool,
    /// Local rules.
    pub r#override: Vec<Override>,
}

/// `[[policy.override]]`: `domain` or `mx`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Recipient domains: one, or all below a name.
    #[serde(default)]
    pub domain: Option<Pattern>,
    /// MX hosts likewise, whatever the recipient domain.
    #[serde(default)]
    pub mx: Option<Pattern>,
    /// What is demanded.
    pub require: LocalRule,
    /// In force up to and with this day; without it, for ever.
    #[serde(default)]
    pub until: Option<Until>,
    /// For the log.
    #[serde(default)]
    pub reason: String,
}

/// `[mta_sts]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MtaSts {
    /// Port of policy hosts.
    pub https_port: u16,
    /// For a whole fetch (RFC 8461 §3.3).
    pub fetch_timeout: Span,
    /// Policies that do not come as text/plain are none (RFC 8461 §3.2).
    pub require_text_plain: bool,
}

impl Override {
    /// Whom it is for; absent where the shape is right and neither key is set.
    pub fn whom(&self) -> Option<Whom> {
        let by_domain = self.domain.clone().map(Whom::Domain);
        by_domain.or_else(|| self.mx.clone().map(Whom::Mx))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mta_sts: true,
            dane: true,
            dane_with_sts: DaneWithSts::Both,
            dane_insecure_mx: DaneInsecureMx::Use,
            dane_audit_only: false,
            r#override: Vec::new(),
        }
    }
}

impl Default for MtaSts {
    fn default() -> Self {
        Self { https_port: 443, fetch_timeout: seconds(60), require_text_plain: true }
    }
}
