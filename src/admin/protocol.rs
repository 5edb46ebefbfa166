//! What the command line and the daemon say to each other over the admin socket.
//!
//! One JSON object a line, a [`Call`] out, an [`Answer`] back, any number in turn on a connection.
//! Listings come in pages. Both sides use these types; a daemon of another protocol version answers
//! with an error that says so. Pure.

pub mod changes;
pub mod evidence;
pub mod policies;
mod queue;
pub mod reports;
pub mod status;
pub mod transfer;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::delivery::explain::facts::{Explanation, LocalFacts};
use crate::mail::{Destination, Domain, Mailbox};
use crate::queue::ItemId;
use crate::store::suppressions::Suppressed;
use crate::sts::CachedPolicy;
pub use queue::{
    ActCursor, ActOutcome, AgeTotal, DestinationTotal, EntryRecipient, EntryState, FrozenTotal, QueueAction,
    QueueEntry, QueueFilter, QueueState, QueueTotals, TlsAsk,
};

/// Raised whenever an older side could misunderstand.
pub const VERSION: u32 = 2;
/// Octets of a request line at most; an imported message with all its recipients is the largest.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
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
        /// Entries of the page at most, below [`PAGE_MAX`].
        #[serde(default)]
        max: Option<usize>,
    },
    /// Totals.
    QueueStats {
        /// So many destinations, those with most items.
        destinations: usize,
    },
    /// Changes queue items, for a moment; the answer tells where to go on.
    QueueAct {
        /// Which.
        filter: QueueFilter,
        /// How.
        action: QueueAction,
        /// For the senders of what is bounced.
        reason: Option<String>,
        /// From the answer before.
        cursor: Option<ActCursor>,
        /// Only counts.
        dry_run: bool,
    },
    /// Stops deliveries to a destination.
    QueueFreeze {
        /// Which.
        destination: Destination,
        /// Why.
        reason: Option<String>,
        /// Ends by itself then.
        until: Option<Timestamp>,
    },
    /// Lets deliveries to a destination go on.
    QueueThaw {
        /// Which.
        destination: Destination,
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
    /// Of TLS reports.
    Reports(reports::ReportsRequest),
    /// Moves messages out of the queue or into it.
    Transfer(transfer::TransferRequest),
    /// How messages travelled.
    Evidence(evidence::EvidenceRequest),
    /// What protects mail less than it did.
    Changes(changes::ChangesRequest),
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
    /// How the daemon is.
    Status,
    /// Everything that decides about mail to a destination, now.
    Explain {
        /// Where mail would go.
        destination: Destination,
        /// Also connects to its hosts.
        connect: bool,
    },
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
    QueueTotals(Box<QueueTotals>),
    /// So many things were changed, or none was there.
    Changed {
        /// Things.
        count: u64,
    },
    /// So far an operation on queue items went.
    Acted {
        /// Items changed with this request.
        count: u64,
        /// Items that stayed as they are, being in an attempt.
        left: u64,
        /// To go on; absent at the end.
        cursor: Option<ActCursor>,
        /// Why it ended early.
        trouble: Option<String>,
    },
    /// A page of policies, or the one asked for.
    Policies {
        /// In order of domain.
        entries: Vec<CachedPolicy>,
        /// There are more after the last one.
        more: bool,
        /// The local rule for the one asked for.
        local: Option<LocalFacts>,
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
    /// Of TLS reports.
    Reports(reports::ReportsAnswer),
    /// Of a move.
    Transfer(transfer::TransferAnswer),
    /// How messages travelled.
    Evidence(evidence::EvidenceAnswer),
    /// What protects mail less than it did.
    Changes(changes::ChangesAnswer),
    /// A page of the suppression list, or the entry asked for.
    Suppressions {
        /// In order of address.
        entries: Vec<Suppressed>,
        /// There are more after the last one.
        more: bool,
    },
    /// How the daemon is.
    Status(Box<status::Status>),
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

/// A recipient was taken off the suppression list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedView {
    /// Whom.
    pub address: Mailbox,
    /// It was.
    pub removed: bool,
}

/// Where mail to this address or domain goes: an address, with or without angle brackets, or the part of
/// one after `@`.
///
/// # Errors
/// What is wrong with it.
pub fn whereto(text: &str) -> Result<Destination, String> {
    // Operators paste addresses as logs show them.
    let text = text.trim_start_matches('<').trim_end_matches('>');
    if !text.contains('@') {
        return Destination::parse(text).map_err(|error| error.to_string());
    }
    let mailbox = Mailbox::parse(text).map_err(|error| error.to_string())?;
    Ok(mailbox.domain().clone())
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
            max: None,
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
