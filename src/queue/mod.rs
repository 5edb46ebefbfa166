//! Queue knowledge without a disk: what an item is, how outcomes change it, when it is due again.
//!
//! Pure. `store` keeps items, `delivery` produces outcomes; the rules between them are here.

pub mod evidence;
#[cfg(test)]
pub(crate) mod fixture;
pub mod item;
pub mod retry;

pub use evidence::{Evidence, EvidenceDraft, HostEvidence, MessageEvidence};
pub use item::{
    AttemptRecord, ItemId, QueueId, QueueItem, RecipientState, RecipientStatus, Settled, Settlement,
};
pub use retry::{RetryOptions, after};
