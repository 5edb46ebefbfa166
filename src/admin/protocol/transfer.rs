//! The words for moving messages between queues. Pure.

use serde::{Deserialize, Serialize};

use super::QueueFilter;
use crate::queue::{ItemId, QueueId};
use crate::store::{Plan, Portable};

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "transfer", rename_all = "kebab-case")]
pub enum TransferRequest {
    /// Holds a page of items, so that none of them leaves meanwhile.
    Hold {
        /// Which.
        filter: QueueFilter,
        /// From the page before.
        cursor: Option<ItemId>,
    },
    /// A message with those of its items that move.
    Read {
        /// The message.
        id: QueueId,
        /// Its items.
        parts: Vec<u32>,
    },
    /// A piece of a message's content.
    Content {
        /// The message.
        id: QueueId,
        /// Octets before it.
        offset: u64,
    },
    /// Removes exported items; they may be imported here again.
    Remove {
        /// Which.
        items: Vec<ItemId>,
    },
    /// Ends the hold of items that were not exported after all.
    Release {
        /// Which.
        items: Vec<ItemId>,
    },
    /// Begins an import.
    Begin {
        /// What comes.
        message: Box<Portable>,
    },
    /// A piece of the content, in order.
    Piece {
        /// From the answer to `Begin`.
        upload: u64,
        /// Base64.
        data: String,
    },
    /// The content is complete.
    End {
        /// From the answer to `Begin`.
        upload: u64,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "transfer", rename_all = "kebab-case")]
pub enum TransferAnswer {
    /// These are held now.
    Held {
        /// In order of id.
        items: Vec<HeldItem>,
        /// For the next page; absent at the end.
        cursor: Option<ItemId>,
    },
    /// The message.
    Message(Box<Portable>),
    /// An attempt runs.
    Busy,
    /// It left the queue.
    Gone,
    /// A piece of the content; empty at its end.
    Content {
        /// Base64.
        data: String,
    },
    /// Items, or octets so far.
    Count {
        /// So many.
        count: u64,
    },
    /// The content is wanted.
    Upload {
        /// Its name in what follows.
        upload: u64,
    },
    /// It is in the queue, as far as it was not before.
    Imported {
        /// The new queue id of what was taken in now.
        id: QueueId,
        /// What was done.
        plan: Plan,
    },
}

/// An item held for an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldItem {
    /// Its name.
    pub id: ItemId,
    /// An operator had held it before.
    pub held_before: bool,
}
