//! MTA-STS knowledge (RFC 8461): the TXT record, the policy, and how long one may be trusted.
//!
//! Pure. `net` brings the bytes, `store::policies` keeps what was learnt, `delivery::gather` asks. For
//! the owner of a domain, `check` judges what is published and `publish` makes it. `radar` tells when a
//! destination protects its mail less than it did.

pub mod check;
pub mod freshness;
pub mod policy;
pub mod publish;
pub mod radar;
pub mod record;

pub use freshness::{CachedPolicy, FetchTrouble};
pub use policy::{Mode, MxPattern, PolicyError, StsPolicy};
pub use record::{RecordError, StsRecord};
