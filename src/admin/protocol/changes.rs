//! The words for listing what protects mail less than it did. Pure.

use serde::{Deserialize, Serialize};

use crate::store::ChangeFilter;
use crate::sts::radar::Noticed;

/// A page of changes, please.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangesRequest {
    /// Which.
    pub filter: ChangeFilter,
}

/// A page of changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangesAnswer {
    /// Oldest first.
    pub changes: Vec<Noticed>,
    /// There are more after the last of them.
    pub more: bool,
}
