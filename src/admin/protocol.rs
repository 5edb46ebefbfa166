//! What the command line and the daemon say to each other over the admin socket.
//!
//! One JSON object a line, a [`Call`] out, an [`Answer`] back, any number in turn on a connection.
//! Listings come in pages. Both sides use these types; a daemon of another protocol version answers
//! with an error that says so. Pure.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::delivery::explain::facts::Explanation;
use crate::mail::{Destination, Domain, Failure, Mailbox};
use crate::queue::{AttemptRecord, ItemId, QueueId, RecipientState};
use crate::store;
use crate::store::suppressions::Suppressed;
use crate::sts::CachedPolicy;

/// Raised whenever an older side could misunderstand.
pub const VERSION: u32 = 1;
/// Octets of a request line at most: filters and names, nothing large.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Octets of an answer line at most; a day's report of one domain is the largest.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Entries of a page at most.
pub const PAGE_MAX: usize = 200;

/// A request with its protocol version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// [`VERSION`] of the asking side.
    pub version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// A page of queue items.
    QueueList {
        /// Which.
        filter: QueueFilter,
        /// From the page before.
        cursor: Option<ItemId>,
        /// With every attempt, not only the last one.
        history: bool,
    },
    /// Totals.
    QueueStats,
    /// Changes queue items.
    QueueAct {
        /// Which.
        filter: QueueFilter,
        /// How.
        action: QueueAction,
    },
    /// One cached policy.
    PolicyShow {
        /// Of this domain.
        domain: Domain,
    },
    /// A page of cached policies.
    PolicyList {
        /// The last domain of the page before.
        after: Option<Domain>,
    },
    /// Asks TXT and HTTPS anew.
    PolicyRefresh {
        /// Of this domain.
        domain: Domain,
    },
    /// Drops a cached policy.
    PolicyForget {
        /// Of this domain.
        domain: Domain,
    },
    /// A page of reports, without their text.
    ReportList {
        /// The last report of the page before.
        after: Option<(Date, Domain)>,
        /// Of this day only.
        day: Option<Date>,
        /// To this domain only.
        domain: Option<Domain>,
    },
    /// One report with its text.
    ReportShow {
        /// Of this day; the latest without it.
        day: Option<Date>,
        /// To this domain.
        domain: Domain,
    },
    /// What today's report would say now.
    ReportPreview {
        /// To this domain.
        domain: Domain,
    },
    /// Sends reports now.
    ReportSend {
        /// Of this day; yesterday without it.
        day: Option<Date>,
        /// To this domain; to all without it.
        domain: Option<Domain>,
        /// Also what was sent already.
        again: bool,
    },
    /// A page of the suppression list.
    SuppressionList {
        /// The last address of the page before.
        after: Option<Mailbox>,
    },
    /// One entry of the suppression list.
    SuppressionShow {
        /// Of this recipient.
        address: Mailbox,
    },
    /// Suppresses mail to a recipient.
    SuppressionAdd {
        /// Whom.
        address: Mailbox,
        /// Why.
        reason: String,
        /// Until this instant.
        until: Timestamp,
    },
    /// Forgets a recipient.
    SuppressionRemove {
        /// Whom.
        address: Mailbox,
    },
    /// Everything that decides about mail to a destination, now.
    Explain {
        /// Where mail would go.
        destination: Destination,
        /// Also connects to its hosts.
        connect: bool,
    },
}

/// Which queue items; all conditions must hold. An empty filter is all items.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QueueFilter {
    /// The items of this message.
    pub id: Option<QueueId>,
    /// This item.
    pub item: Option<ItemId>,
    /// Of this sender, without brackets; empty for the null sender.
    pub sender: Option<String>,
    /// To this domain or address literal.
    pub recipient_domain: Option<String>,
}

/// What can be done to queue items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueAction {
    /// Due now.
    Retry,
    /// Not tried until released.
    Hold,
    /// Undo a hold; due now.
    Release,
    /// Removed without a bounce.
    Delete,
}

impl From<QueueAction> for store::AdminAction {
    fn from(action: QueueAction) -> Self {
        match action {
            QueueAction::Retry => Self::Retry,
            QueueAction::Hold => Self::Hold,
            QueueAction::Release => Self::Release,
            QueueAction::Delete => Self::Delete,
        }
    }
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// A page of the queue.
    QueuePage {
        /// In order of id.
        entries: Vec<QueueEntry>,
        /// For the next page; absent at the end.
        cursor: Option<ItemId>,
    },
    /// Totals of the queue.
    QueueTotals(QueueTotals),
    /// So many items were changed, or none was there.
    Changed {
        /// Items.
        count: u64,
    },
    /// A page of policies, or the one asked for.
    Policies {
        /// In order of domain.
        entries: Vec<CachedPolicy>,
        /// There are more after the last one.
        more: bool,
    },
    /// What a refresh found.
    Refreshed {
        /// The TXT id published now, or why there is none.
        record: Result<String, String>,
        /// How the fetch went, if one was called for: the policy's mode, or the trouble.
        fetch: Option<Result<String, String>>,
        /// What is known now.
        entry: Option<Box<CachedPolicy>>,
    },
    /// A page of reports.
    Reports {
        /// Latest day first, then by domain.
        entries: Vec<store::ReportEntry>,
        /// There are more after the last one.
        more: bool,
    },
    /// The text of a report (JSON, RFC 8460 §4.4).
    ReportText {
        /// The text.
        json: String,
    },
    /// What was sent.
    Sent {
        /// One line per report and target.
        lines: Vec<SentLine>,
    },
    /// A page of the suppression list, or the entry asked for.
    Suppressions {
        /// In order of address.
        entries: Vec<Suppressed>,
        /// There are more after the last one.
        more: bool,
    },
    /// What decides about mail to a destination.
    Explained(Box<Explanation>),
    /// There is no such thing.
    Nothing {
        /// One sentence.
        text: String,
    },
    /// It could not be done.
    Failed {
        /// One sentence.
        text: String,
    },
}

/// A queue item as listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its name.
    pub id: ItemId,
    /// `active`, `deferred` or `held`.
    pub state: EntryState,
    /// Reverse-path without brackets; empty for the null sender.
    pub sender: String,
    /// Where all its recipients are.
    pub destination: String,
    /// Its recipients.
    pub recipients: Vec<EntryRecipient>,
    /// When the message was accepted.
    pub received_at: Timestamp,
    /// Octets.
    pub size: u64,
    /// So far.
    pub attempts: u32,
    /// Absent when held.
    pub next_attempt: Option<Timestamp>,
    /// Our own report mail.
    pub is_report: bool,
    /// The attempts asked for, oldest first: all kept ones, or the last one.
    pub history: Vec<AttemptRecord>,
}

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// Waiting for its first attempt or in one.
    Active,
    /// Waiting for another attempt.
    Deferred,
    /// Stopped by an operator.
    Held,
}

/// One recipient of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryRecipient {
    /// Its mailbox.
    pub address: String,
    /// `pending`, `delivered` or `failed`.
    pub state: String,
    /// The last reply or failure.
    pub last: Option<String>,
}

impl QueueEntry {
    /// The listed form of an entry.
    pub fn new(entry: &store::Entry, whole_history: bool) -> Self {
        let item = &entry.item;
        let recipients = item
            .recipients
            .iter()
            .filter_map(|status| {
                let recipient = item.envelope.recipients.get(status.index)?;
                let (state, last) = match &status.state {
                    RecipientState::Pending(failure) => ("pending", failure.as_ref().map(Failure::sentence)),
                    RecipientState::Delivered(reply) => ("delivered", Some(reply.to_string())),
                    RecipientState::Failed(failure) => ("failed", Some(failure.sentence())),
                };
                Some(EntryRecipient { address: recipient.path.to_string(), state: state.to_owned(), last })
            })
            .collect();
        let skip = if whole_history { 0 } else { item.history.len().saturating_sub(1) };
        Self {
            id: item.id,
            state: match entry.state {
                store::EntryState::Active => EntryState::Active,
                store::EntryState::Deferred => EntryState::Deferred,
                store::EntryState::Held => EntryState::Held,
            },
            sender: item.envelope.reverse_path.mailbox().map(ToString::to_string).unwrap_or_default(),
            destination: item.destination.to_string(),
            recipients,
            received_at: item.received_at,
            size: item.size,
            attempts: item.attempts,
            next_attempt: entry.next_attempt,
            is_report: item.is_report,
            history: item.history.iter().skip(skip).cloned().collect(),
        }
    }
}

/// Totals of the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueTotals {
    /// Items waiting for their first attempt or in one.
    pub active: u64,
    /// Items waiting for another attempt.
    pub deferred: u64,
    /// Items held.
    pub held: u64,
    /// Octets on disk.
    pub bytes: u64,
    /// When the oldest message was received.
    pub oldest: Option<Timestamp>,
    /// Items per destination, most first.
    pub destinations: Vec<DestinationTotal>,
    /// `fine`, or why no message is accepted.
    pub health: String,
}

/// Items of one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DestinationTotal {
    /// A domain or an address literal.
    pub destination: String,
    /// Items.
    pub items: u64,
}

impl QueueTotals {
    /// The form for the socket.
    pub fn new(stats: &store::Stats, health: &store::Health) -> Self {
        Self {
            active: stats.active,
            deferred: stats.deferred,
            held: stats.held,
            bytes: stats.bytes,
            oldest: stats.oldest,
            destinations: stats
                .destinations
                .iter()
                .map(|(destination, items)| DestinationTotal {
                    destination: destination.to_string(),
                    items: *items,
                })
                .collect(),
            health: match health {
                store::Health::Fine => "fine".to_owned(),
                store::Health::Full(text) => format!("disk full: {text}"),
                store::Health::Failed(text) => format!("storage failed: {text}"),
            },
        }
    }
}

/// One report at one target, as sent by `report send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentLine {
    /// The report domain.
    pub domain: Domain,
    /// The target, if there is one.
    pub rua: Option<String>,
    /// `queued`, `accepted`, `deferred`, `given-up` or `not-sent`.
    pub outcome: String,
    /// One sentence.
    pub text: String,
}

impl TryFrom<&QueueFilter> for store::Filter {
    type Error = String;

    fn try_from(filter: &QueueFilter) -> Result<Self, String> {
        let recipient_domain = filter
            .recipient_domain
            .as_deref()
            .map(|text| Destination::parse(text).map_err(|error| format!("{text:?}: {error}")))
            .transpose()?;
        Ok(Self { id: filter.id, item: filter.item, sender: filter.sender.clone(), recipient_domain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_answers_are_single_lines_that_read_back() {
        let request = Request::QueueList {
            filter: QueueFilter { sender: Some("a\nb@c.example".to_owned()), ..QueueFilter::default() },
            cursor: "1-00000005.2".parse().ok(),
            history: true,
        };
        let line = serde_json::to_string(&Call { version: VERSION, request: request.clone() }).unwrap();
        assert!(!line.contains('\n') && line.contains("\"do\":\"queue-list\""), "{line}");
        assert_eq!(serde_json::from_str::<Call>(&line).unwrap().request, request);

        let answer = Answer::Refreshed {
            record: Ok("1".to_owned()),
            fetch: Some(Err("x\ny".to_owned())),
            entry: None,
        };
        let line = serde_json::to_string(&answer).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer);
    }
}
