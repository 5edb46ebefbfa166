//! The words for looking up how messages travelled. Pure.

use serde::{Deserialize, Serialize};

use crate::queue::Evidence;
use crate::store::{EvidenceCursor, EvidenceFilter};

/// A page of attempts, please.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EvidenceRequest {
    /// Which.
    pub filter: EvidenceFilter,
    /// From the page before.
    #[serde(default)]
    pub cursor: Option<EvidenceCursor>,
}

/// A page of attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EvidenceAnswer {
    /// In the order they were settled.
    pub attempts: Vec<Evidence>,
    /// For the next page, which may be there though this one is not full, or empty.
    #[serde(default)]
    pub cursor: Option<EvidenceCursor>,
}
