//! TLS reporting knowledge (RFC 8460): the record, one session's result, a day's report; and reading
//! the reports of others.
//!
//! Pure. `store::results` keeps the tallies, `reporting` sends.

mod json;
pub mod omit;
pub mod read;
pub mod record;
pub mod report;
pub mod result;
pub mod target;

pub use record::{Rua, TlsrptRecord};
pub use report::Report;
pub use result::{AppliedPolicy, FailureDetail, PolicyType, ResultType, SessionResult};
