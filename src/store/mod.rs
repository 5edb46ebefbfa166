//! Everything that survives a restart; the only folder that names sled.
//!
//! The boundary is items, claims and leases: no trees, keys, iterators or transactions cross it, so
//! that a shared database can be a second backend.

pub mod policies;
pub mod queue;
pub mod reports;
pub mod results;

pub use policies::Policies;
pub use queue::{
    AdminAction, Body, BodyReader, BodyWriter, Claim, Entry, EntryState, Filter, Health, NewMessage, Page,
    Queue, QueueError, QueueOptions, Stats,
};
pub use reports::{ReportEntry, Reports, RuaState, RuaStatus};
pub use results::Results;
