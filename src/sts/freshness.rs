//! How long a policy may be trusted and when it must be asked for again (RFC 8461 §3.3, §5.1, §10.2).
//!
//! Pure: facts and `now` in, what to do out. An unexpired policy survives a bumped id, a removed or
//! failing TXT lookup and a failing fetch; nothing but an HTTPS success makes it live longer (I7).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::policy::StsPolicy;
use crate::mail::Domain;

/// What the cache knows of one policy domain; kept over restarts.
///
/// Either part may be missing: a domain whose only fetch failed has no policy but a trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedPolicy {
    /// The policy domain.
    pub domain: Domain,
    /// The last policy fetched and valid.
    pub held: Option<HeldPolicy>,
    /// The last failed fetch since then, if any.
    pub trouble: Option<FetchTrouble>,
}

/// A policy with its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPolicy {
    /// The policy.
    pub policy: StsPolicy,
    /// The TXT id it was fetched under; stored only together with a valid policy.
    pub id: String,
    /// The HTTPS success that made it; its life is `max_age` from here.
    pub fetched_at: Timestamp,
    /// When the daily refetch is due (RFC 8461 §3.3), jittered.
    pub refresh_at: Timestamp,
}

/// A failed fetch or an invalid policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchTrouble {
    /// The TXT id at that time, if one was seen.
    pub id: Option<String>,
    /// When.
    pub at: Timestamp,
    /// How many in a row.
    pub count: u32,
    /// What kind, for TLS-RPT.
    pub kind: TroubleKind,
    /// One sentence for the operator.
    pub text: String,
}

/// The TLS-RPT result type of a fetch trouble (RFC 8460 §4.3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TroubleKind {
    /// `sts-policy-fetch-error`
    Fetch,
    /// `sts-policy-invalid`
    Invalid,
    /// `sts-webpki-invalid`
    WebPki,
}
