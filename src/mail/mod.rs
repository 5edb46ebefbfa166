//! The nouns everyone shares: domains, paths, envelopes, replies, outcomes.
//!
//! Pure: no tokio, no clock, no disk, no network. Everything here is parsed once at the border and
//! never validated again inside. Imports nothing of the crate.

pub mod address;
pub mod domain;
pub mod envelope;
mod explanation;
pub mod header;
pub mod mime;
pub mod outcome;
pub mod pattern;
pub mod reply;

pub use address::{AddressError, ForwardPath, Mailbox, ReversePath};
pub use domain::{Destination, Domain, DomainError};
pub use envelope::{BodyType, Envelope, Notify, NotifyWhen, Recipient, Ret, TlsRequest};
pub use outcome::{Failure, Outcome, Permanence, Scope};
pub use pattern::Pattern;
pub use reply::{EnhancedStatus, Reply};
