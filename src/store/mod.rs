//! Everything that survives a restart; the only folder that names sled.
//!
//! The boundary is items, claims and leases: no trees, keys, iterators or transactions cross it, so
//! that a shared database can be a second backend.
//!
//! Inside, from the caller to the disk: `queue` (the verbs) over `table` (what is in memory) and
//! `journal` (what is durable: group commit of `frame`s of `record`s through `disk`); `keeper` with
//! `index`, `compaction` and `evidence` behind them; `open` and `replay` at start, after `format` has
//! looked what is there. Beside it `policies`, `changes`, `reports`, `targets`, `digests` and `suppressions` over `ledger`, and `results` over
//! `resultlog`, both files of checksummed `lines`. All of them stand on a `ground`: the disk, and the
//! way their loops run.

mod body;
pub mod changes;
mod check;
mod compaction;
mod dense;
mod destinations;
pub mod digests;
pub mod disk;
mod evidence;
mod format;
mod frame;
mod freezes;
pub mod ground;
mod index;
mod journal;
mod keeper;
mod ledger;
mod lines;
pub mod moves;
mod notions;
mod open;
pub mod policies;
pub mod queue;
mod read;
mod record;
mod replay;
pub mod reports;
mod resultlog;
pub mod results;
mod room;
mod segments;
mod shared;
pub mod suppressions;
mod table;
pub mod targets;
#[cfg(test)]
mod tests;

pub use changes::{ChangeFilter, Changes};
pub use check::{Checked, Finding, Severity, check};
pub use evidence::{EvidenceCursor, EvidenceFilter, EvidenceLimits, EvidencePage, Tried};
pub use format::survey;
pub use freezes::Freeze;
pub use ground::Ground;
pub use moves::{Moves, Plan};
pub use policies::Policies;
pub use queue::{
    AGE_CLASSES, AdminAction, Body, BodyReader, BodyWriter, Claim, DestinationTotal, Entry, EntryState,
    Export, Filter, Health, NewMessage, Page, Portable, PortableItem, Queue, QueueError, QueueOptions, Stats,
    Survey,
};
pub use reports::{ReportEntry, Reports, RuaState, RuaStatus};
pub use results::Results;
pub use room::RoomLimits;
pub use suppressions::Suppressions;
