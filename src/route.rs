//! From MX answers to the ordered list of hosts to try (RFC 5321 §5.1, RFC 7505).
//!
//! Pure: the answers and the random numbers are given. Never filters by policy: that would break
//! loop trimming (RFC 8461 §8.4); each host is decided on when its turn comes.
//! Called by `delivery::gather`.

use serde::{Deserialize, Serialize};

use crate::mail::Domain;

/// What DNSSEC says of an answer (RFC 4035 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnssecStatus {
    /// Validated.
    Secure,
    /// Proven unsigned, or no validation took place.
    Insecure,
    /// Validation failed.
    Bogus,
    /// It cannot be told.
    Indeterminate,
}

/// One host of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxHost {
    /// The name as in the MX record, before any CNAME: what policies, SNI and certificates speak of.
    pub name: Domain,
    /// Lower first; 0 for an implicit MX.
    pub preference: u16,
}

/// Where mail for a domain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In the order to try; never empty.
    pub hosts: Vec<MxHost>,
    /// Status of the MX answer (or of the proof that there is none).
    pub status: DnssecStatus,
    /// No MX records: the domain itself is the host (RFC 5321 §5.1).
    pub implicit: bool,
}
