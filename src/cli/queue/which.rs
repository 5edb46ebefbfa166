//! Which items a verb is about: by id, or by what they have in common.

use clap::Args;

use super::super::JsonArg;
use crate::admin::protocol::QueueFilter;
use crate::mail::Destination;
use crate::queue::{ItemId, QueueId};

/// Which items, by what they have in common.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Of {
    /// Of this sender; "" is the null sender of bounces
    #[arg(long, value_name = "ADDRESS")]
    pub(super) sender: Option<String>,
    /// To this domain
    #[arg(long, value_name = "DOMAIN", value_parser = destination)]
    pub(super) recipient_domain: Option<String>,
}

/// Which items to change.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true)
    .args(["ids", "sender", "recipient_domain", "all"]))]
pub(in crate::cli) struct Which {
    /// Queue ids or item ids
    #[arg(value_name = "ID", conflicts_with_all = ["sender", "recipient_domain", "all"])]
    pub(super) ids: Vec<Id>,
    #[command(flatten)]
    pub(super) of: Of,
    /// All items
    #[arg(long, conflicts_with_all = ["sender", "recipient_domain"])]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) json: JsonArg,
}

/// A message, or one item of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Id {
    Message(QueueId),
    Item(ItemId),
}

impl std::str::FromStr for Id {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self::Item)
            .or_else(|()| text.parse().map(Self::Message))
            .map_err(|()| "not a queue id; `stsrelay queue list` shows them".to_owned())
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(id) => id.fmt(f),
            Self::Item(id) => id.fmt(f),
        }
    }
}

fn destination(text: &str) -> Result<String, String> {
    Destination::parse(text).map(|destination| destination.to_string()).map_err(|error| error.to_string())
}

impl Id {
    pub(super) fn filter(self) -> QueueFilter {
        match self {
            Self::Message(id) => QueueFilter { id: Some(id), ..QueueFilter::default() },
            Self::Item(id) => QueueFilter { item: Some(id), ..QueueFilter::default() },
        }
    }
}

impl Of {
    pub(super) fn filter(&self) -> QueueFilter {
        QueueFilter {
            // Operators paste addresses as logs show them.
            sender: self
                .sender
                .as_ref()
                .map(|text| text.trim_start_matches('<').trim_end_matches('>').to_owned()),
            recipient_domain: self.recipient_domain.clone(),
            ..QueueFilter::default()
        }
    }
}
