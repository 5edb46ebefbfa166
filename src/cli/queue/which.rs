//! Which items a verb is about: by id, or by what they have in common.

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::super::JsonArg;
use crate::admin::protocol::{QueueFilter, QueueState};
use crate::config::value::Span;
use crate::mail::Destination;
use crate::net::{Clock as _, SystemClock};
use crate::queue::retry::after;
use crate::queue::{ItemId, QueueId};

/// What items may have in common; each narrows.
const COMMON: [&str; 6] = ["sender", "recipient_domain", "state", "older_than", "newer_than", "error"];

/// Which items, by what they have in common; all of it must hold.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Of {
    /// Of this sender; "" is the null sender of bounces
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// To this domain
    #[arg(long, value_name = "DOMAIN", value_parser = destination)]
    recipient_domain: Option<Destination>,
    /// Standing like this
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Received longer ago: 90s, 15m, 2h, 5d
    #[arg(long, value_name = "AGE", value_parser = ago)]
    older_than: Option<Timestamp>,
    /// Received within this time
    #[arg(long, value_name = "AGE", value_parser = ago)]
    newer_than: Option<Timestamp>,
    /// Whose last error has these words, in whatever case
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
}

/// How items may stand.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Waiting for the first attempt or in one
    Active,
    /// Waiting for another attempt
    Deferred,
    /// Stopped by an operator
    Held,
    /// To a frozen destination, whatever else
    Frozen,
}

/// Which items to change.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true)
    .args(["ids", "sender", "recipient_domain", "state", "older_than", "newer_than", "error", "all"]))]
pub(in crate::cli) struct Which {
    /// Queue ids or item ids
    #[arg(value_name = "ID", conflicts_with_all = COMMON, conflicts_with = "all")]
    ids: Vec<Id>,
    #[command(flatten)]
    of: Of,
    /// All items
    #[arg(long, conflicts_with_all = COMMON)]
    all: bool,
    #[command(flatten)]
    pub(super) json: JsonArg,
}

/// Which items to change, or to count only.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Target {
    #[command(flatten)]
    pub(super) which: Which,
    /// Only tell how many items it would be
    #[arg(long)]
    pub(super) dry_run: bool,
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

pub(super) fn destination(text: &str) -> Result<Destination, String> {
    Destination::parse(text).map_err(|error| error.to_string())
}

/// An item's name, as `queue list` shows it.
pub(super) fn item(text: &str) -> Result<ItemId, String> {
    text.parse().map_err(|()| "not the id of an item like 1-000000A1.0".to_owned())
}

/// So long ago.
fn ago(text: &str) -> Result<Timestamp, String> {
    let Span(age) = text.parse()?;
    SystemClock.now().checked_sub(age).map_err(|_| format!("{text} ago is before the first day"))
}

/// An instant, or so long from now.
pub(super) fn when(text: &str) -> Result<Timestamp, String> {
    match (text.parse::<Timestamp>(), text.parse::<Span>()) {
        (Ok(at), _) => Ok(at),
        (_, Ok(Span(span))) => Ok(after(SystemClock.now(), span)),
        _ => Err("neither an instant like 2026-01-31T12:00:00Z nor a time from now like 2h".to_owned()),
    }
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
            recipient_domain: self.recipient_domain.as_ref().map(ToString::to_string),
            state: self.state.map(|state| match state {
                State::Active => QueueState::Active,
                State::Deferred => QueueState::Deferred,
                State::Held => QueueState::Held,
                State::Frozen => QueueState::Frozen,
            }),
            received_before: self.older_than,
            received_after: self.newer_than,
            error: self.error.clone(),
            ..QueueFilter::default()
        }
    }
}

impl Which {
    /// What to ask for, one after the other; with the id where one was named.
    pub(super) fn filters(&self) -> Vec<(Option<Id>, QueueFilter)> {
        if self.ids.is_empty() {
            return vec![(None, self.of.filter())];
        }
        self.ids.iter().map(|id| (Some(*id), id.filter())).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        target: Target,
    }

    fn parse(line: &str) -> Result<Which, clap::Error> {
        let words = line.split_whitespace().map(|word| word.replace('_', " "));
        Line::try_parse_from(std::iter::once("x".to_owned()).chain(words)).map(|line| line.target.which)
    }

    #[test]
    fn items_are_named_by_id_or_by_what_they_have_in_common_or_all() {
        for good in [
            "1-000000A1",
            "1-000000A1.0 1-000000A2",
            "--all",
            "--all --dry-run --json",
            "--sender <a@b.example>",
            "--recipient-domain example.org --state deferred --older-than 2h --newer-than 5d",
            "--error no_route",
            "--state frozen",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good).err());
        }
        for bad in [
            "",
            "--dry-run",
            "nonsense",
            "1-000000A1 --all",
            "1-000000A1 --state held",
            "--all --older-than 2h",
            "--state asleep",
            "--older-than 2",
            "--older-than 2026-01-31T12:00:00Z",
            "--recipient-domain a..b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let which = parse("--sender <a@b.example> --error no_route").unwrap();
        let [(None, filter)] = &which.filters()[..] else { panic!("{which:?}") };
        assert_eq!(
            (filter.sender.as_deref(), filter.error.as_deref()),
            (Some("a@b.example"), Some("no route"))
        );
    }

    #[test]
    fn a_freeze_ends_at_an_instant_or_after_a_time() {
        assert_eq!(when("2026-01-31T12:00:00Z"), Ok("2026-01-31T12:00:00Z".parse().unwrap()));
        assert!(when("2h").unwrap() > SystemClock.now());
        assert!(when("tomorrow").is_err() && when("").is_err());
    }
}
