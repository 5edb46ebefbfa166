//! Decides what one MX host must prove before it gets mail: the facts, the verdict, and the words.
//!
//! Pure: no DNS, no clock. [`decide`](decide()) is called once per host by `delivery::attempt`.
//! Total: every combination of facts has one row in the table of [`mod@decide`].
//! Never downgrades: a failed TLSA lookup skips the host (RFC 7672 §2.1.2).
//! See also: `delivery::gather` (the facts), `net::tls` (where proof is checked), [`failure`] (what to
//! report of a failed proof), [`address`] (next hops without a name), [`applied`] (how a policy stands in a report), [`local`] (rules of our own).

pub mod address;
pub mod applied;
pub mod decide;
pub mod failure;
pub mod local;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dane::{Tlsa, TlsaAnswer};
use crate::mail::{Domain, Permanence, TlsRequest};
use crate::route::DnssecStatus;
use crate::sts::StsPolicy;
use crate::tlsrpt::AppliedPolicy;

pub use address::{AddressFacts, decide_address};
pub use decide::decide;
pub use failure::{CertificateFailure, TlsFailure};
pub use local::{Course, LocalRule, Override, Whom, local_rule, local_rule_on};

/// Everything known about one host when it is decided on.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The MX record's name: matched against `mx` patterns, and the name to verify under PKIX.
    pub mx: Domain,
    /// Recipient domain or next-hop domain: whose policy this is.
    pub policy_domain: Domain,
    /// Where the CNAME chain of the policy domain's MX answer ends, if it is an alias.
    pub expanded: Option<Domain>,
    /// What DNSSEC says of the MX answer that named the host ([`Route::status`](crate::route::Route)).
    pub mx_status: DnssecStatus,
    /// The live or cached policy that applies now; `None` without one.
    pub sts: Option<Arc<StsPolicy>>,
    /// The TXT id of that policy, for texts.
    pub sts_id: Option<String>,
    /// The domain's policy could not be had lately, and why. Without a policy it is then not known
    /// that there is none.
    pub sts_trouble: Option<String>,
    /// What the TLSA lookup for this host said.
    pub tlsa: TlsaAnswer,
    /// The base domain of that lookup: the host, or what it is an alias of (RFC 7672 §2.2.2).
    pub tlsa_base: Domain,
    /// What the message asks (RFC 8689); report mail says [`TlsRequest::NotRequired`].
    pub request: TlsRequest,
    /// The local rule in force for this host, expired ones already left out.
    pub local: LocalRule,
    /// That rule as texts name it; absent where there is none.
    pub local_text: Option<String>,
    /// Whether DANE is enforced (`policy.dane_audit_only`).
    pub dane_use: DaneUse,
    /// How `enforce` and usable DANE combine (`policy.dane_with_sts`).
    pub dane_with_sts: DaneWithSts,
}

/// `policy.dane_with_sts`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaneWithSts {
    /// Both must pass.
    #[default]
    Both,
    /// DANE is enough where it is usable.
    Dane,
}

/// `policy.dane_audit_only`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DaneUse {
    /// What TLSA records demand must be shown.
    #[default]
    Enforce,
    /// It is looked at, logged and reported, and stops no mail (RFC 7672 §9.1).
    Audit,
}

/// `policy.dane_insecure_mx`: TLSA records of hosts named by MX records without DNSSEC (RFC 7672 §2.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaneInsecureMx {
    /// They are enforced: the host is authenticated, not that it serves the domain.
    #[default]
    Use,
    /// They are left alone.
    Ignore,
}

/// May this host be used, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, once the plan is met.
    Use(TlsPlan),
    /// No: try the next host, defer when none is left.
    Skip(SkipReason),
}

/// What must be proven on the connection, and whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPlan {
    /// What must be proven before MAIL FROM (invariant I4).
    pub require: Requirement,
    /// The MX host name: the PKIX reference identity that is checked (and recorded) even where nothing
    /// is required, so that testing policies can be reported.
    pub name: Domain,
    /// The name for SNI: the TLSA base domain where TLSA records must match (RFC 7672 §8.1), otherwise
    /// the MX host name (RFC 8461 §7.1).
    pub sni: Domain,
    /// Whether DNSSEC vouches for the MX records. Without it DANE authenticates the host, not the
    /// domain it serves (RFC 7672 §2.2.1).
    pub mx_status: DnssecStatus,
    /// The policies this session counts under, with what each needs to count as met. Whether it is
    /// counted at all is the caller's: report mail is not (RFC 8460 §5).
    pub report_on: Vec<ReportOn>,
    /// The rule that decided.
    pub rule: Rule,
    /// Where that is a local rule, which one.
    pub local_text: Option<String>,
}

impl TlsPlan {
    /// The rule, where it demands something of the connection; a plan that allows clear (no policy,
    /// testing, `ignore-sts`, report mail) demands nothing, and no failure is that rule's doing.
    pub fn demands(&self) -> Option<Demand<'_>> {
        let demand = Demand { rule: self.rule, local: self.local_text.as_deref() };
        (!self.require.allows_cleartext()).then_some(demand)
    }
}

/// A rule that demands something of a connection, as texts name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'a> {
    /// The rule.
    pub rule: Rule,
    /// Which local rule it is.
    pub local: Option<&'a str>,
}

impl From<Rule> for Demand<'_> {
    fn from(rule: Rule) -> Self {
        Self { rule, local: None }
    }
}

/// `the rule "dane"`, `the local rule "verify" for example.net (ticket 4711)`
impl fmt::Display for Demand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "the local rule {local}"),
            None => write!(f, "the rule \"{}\"", self.rule),
        }
    }
}

/// One policy a session is counted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportOn {
    /// As it will stand in the report.
    pub policy: AppliedPolicy,
    /// What the session must show to count as successful under this policy.
    pub expects: Expectation,
}

/// What makes a session count as successful under a policy (RFC 8460 §4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Any completed TLS handshake.
    Tls,
    /// TLS and a PKIX-valid certificate for the MX host.
    Pkix,
    /// TLS and a TLSA match.
    Tlsa {
        /// The usable records; none when no session can match.
        records: Vec<Tlsa>,
        /// Reference identities for usage 2.
        names: Vec<Domain>,
    },
    /// Cannot be met whatever the session shows, with what to report: the host is not in the policy
    /// (testing mode, or the message says `TLS-Required: No`), or the TLSA lookup failed (the latter).
    Never(crate::tlsrpt::ResultType, String),
}

/// What a connection must prove before any envelope data is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// TLSA authentication (RFC 7672 §2.2).
    Dane {
        /// The usable records.
        records: Vec<Tlsa>,
        /// Reference identities for usage 2.
        names: Vec<Domain>,
    },
    /// TLSA authentication and PKIX for the name, both.
    DaneAndPkix {
        /// The usable records.
        records: Vec<Tlsa>,
        /// Reference identities for usage 2.
        names: Vec<Domain>,
        /// The MX host name to verify.
        name: Domain,
    },
    /// TLS, unauthenticated (RFC 7672 §2.2: unusable records; local rule `encrypt`).
    Encrypt,
    /// TLS with a PKIX-valid certificate for this name (RFC 8461 §4.2).
    Pkix {
        /// The MX host name to verify.
        name: Domain,
    },
    /// TLS if it works, clear otherwise (RFC 7435).
    Opportunistic,
}

impl Requirement {
    /// Whether a session in clear may carry the message.
    pub fn allows_cleartext(&self) -> bool {
        matches!(self, Self::Opportunistic)
    }

    /// Whether a session that meets it is one with the server that is meant: what a password may be
    /// shown to.
    pub fn authenticates(&self) -> bool {
        matches!(self, Self::Dane { .. } | Self::DaneAndPkix { .. } | Self::Pkix { .. })
    }

    /// Whether the certificate must be for the MX host's name under PKIX.
    pub fn names_host(&self) -> bool {
        matches!(self, Self::Pkix { .. } | Self::DaneAndPkix { .. })
    }
}

/// Why a host may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipReason {
    /// The rule that decided.
    pub rule: Rule,
    /// Permanent only where no later attempt can end otherwise: REQUIRETLS towards a domain that has
    /// nothing to vouch for its hosts (RFC 8689 §4.2.1).
    pub permanence: Permanence,
    /// One sentence for logs, warnings and bounces.
    pub text: String,
    /// What to count: `(policy, result type, reason)`; empty for report mail.
    pub report: Vec<(AppliedPolicy, crate::tlsrpt::ResultType, String)>,
}

/// The rule that decided, as logs, evidence and bounces name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// No policy: TLS if it works.
    Opportunistic,
    /// MTA-STS in enforce mode.
    StsEnforce,
    /// MTA-STS in testing mode.
    StsTesting,
    /// Usable TLSA records.
    Dane,
    /// Usable TLSA records and MTA-STS enforce.
    DaneAndSts,
    /// Only unusable TLSA records.
    DaneUnusable,
    /// The TLSA lookup failed.
    DaneLookupFailed,
    /// A local override.
    LocalOverride,
    /// REQUIRETLS.
    RequireTls,
    /// `TLS-Required: No` in the message's header, or our own report mail.
    TlsNotRequired,
    /// TLSA records that are only looked at.
    DaneAudited,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opportunistic => "opportunistic",
            Self::StsEnforce => "mta-sts enforce",
            Self::StsTesting => "mta-sts testing",
            Self::Dane => "dane",
            Self::DaneAndSts => "dane and mta-sts enforce",
            Self::DaneUnusable => "dane with unusable records",
            Self::DaneLookupFailed => "dane lookup failed",
            Self::LocalOverride => "local override",
            Self::RequireTls => "requiretls",
            Self::TlsNotRequired => "tls not required",
            Self::DaneAudited => "dane, audit only",
        })
    }
}
