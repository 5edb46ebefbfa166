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
    /// Attempts of the page at most, below [`super::PAGE_MAX`].
    #[serde(default)]
    pub max: Option<usize>,
}

/// Attempts of what has this name: a queue id, an item id, or else a Message-ID.
pub fn named(id: &str) -> EvidenceFilter {
    let mut filter = EvidenceFilter { item: id.parse().ok(), ..EvidenceFilter::default() };
    filter.id = id.parse().ok().filter(|_| filter.item.is_none());
    filter.message_id = Some(id.to_owned()).filter(|_| filter.item.is_none() && filter.id.is_none());
    filter
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
