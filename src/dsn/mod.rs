//! Bounces, delay warnings and success notices (RFC 3461, RFC 3464, RFC 6522, RFC 6533).
//!
//! Pure: composes bytes from facts; the queue carries them like any message. A notice has three
//! parts: words for the sender (`text`), fields for programs (`status`), and the message or its
//! header (`returned`).
//! Never: a notice about a null reverse-path (invariant I3), SMTPUTF8 where the sender's address does
//! without, a reply we were not given.
//! Called by `delivery` when an attempt is settled.

mod returned;
mod status;
#[cfg(test)]
mod tests;
mod text;

use jiff::Timestamp;

use crate::mail::header::{self, date};
use crate::mail::mime::{Header, Part, multipart};
use crate::mail::{
    BodyType, Domain, EnhancedStatus, Envelope, Failure, Recipient, Reply, ReversePath, TlsRequest,
};

/// What a notice says of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Given up.
    Failed(Failure),
    /// Still trying, with the last failure.
    Delayed {
        /// The last failure.
        failure: Failure,
        /// Given up at this instant.
        will_retry_until: Timestamp,
    },
    /// Handed to a host without DSN (`relayed`, RFC 3461 §5.2.2).
    Relayed(Reply),
}

/// Everything a notice is made of.
#[derive(Debug, Clone)]
pub struct NoticeFacts<'a> {
    /// Our name: Reporting-MTA, From domain, Message-ID.
    pub hostname: &'a Domain,
    /// The message's envelope.
    pub envelope: &'a Envelope,
    /// Our name for the message.
    pub queue_id: String,
    /// When it came in.
    pub received_at: Timestamp,
    /// When the notice is made.
    pub now: Timestamp,
    /// `(position in the envelope, what happened)`; never empty.
    pub recipients: Vec<(usize, Notice)>,
    /// The start of the stored message: whole header at least, whole message if `complete`.
    pub original: &'a [u8],
    /// `original` is the whole message.
    pub complete: bool,
    /// For Message-ID and MIME boundary.
    pub random: u64,
}

/// A notice ready to be queued: null reverse-path, recipient = the reverse-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposedNotice {
    /// Its envelope.
    pub envelope: Envelope,
    /// Its content, CRLF lines, without Received.
    pub content: Vec<u8>,
}

/// Octets of a message returned whole at most; more, and only its header is returned. Senders know
/// their message, and a bounce must get through where the message did not.
pub const RETURNED_BYTES_MAX: usize = 50_000;

/// `Action` (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Failed,
    Delayed,
    Relayed,
}

impl Notice {
    fn action(&self) -> Action {
        match self {
            Self::Failed(_) => Action::Failed,
            Self::Delayed { .. } => Action::Delayed,
            Self::Relayed(_) => Action::Relayed,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) | Self::Delayed { failure, .. } => Some(failure),
            Self::Relayed(_) => None,
        }
    }

    /// In the class that goes with the action (RFC 3464 §2.3.4).
    fn status(&self) -> EnhancedStatus {
        match self {
            Self::Failed(failure) => failure.status.with_class(5),
            Self::Delayed { failure, .. } => failure.status.with_class(4),
            Self::Relayed(reply) => reply.enhanced.unwrap_or(EnhancedStatus::new(2, 0, 0)).with_class(2),
        }
    }
}

/// One recipient's entry of the envelope with its notice.
type Told<'a> = (&'a Recipient, &'a Notice);

/// Composes one notice about recipients of one kind, or several kinds; `None` when the reverse-path
/// is null (invariant I3). The caller has already left out recipients whose NOTIFY forbids it.
pub fn compose(facts: &NoticeFacts<'_>) -> Option<ComposedNotice> {
    let ReversePath::Mailbox(sender) = &facts.envelope.reverse_path else { return None };
    let told: Vec<Told<'_>> = facts
        .recipients
        .iter()
        .filter_map(|(index, notice)| Some((facts.envelope.recipients.get(*index)?, notice)))
        .collect();
    if told.is_empty() {
        return None;
    }
    // RFC 6533 §4: only a sender whose own address needs SMTPUTF8 is sure to read it; all others get
    // their notice in ASCII.
    let unicode = sender.needs_smtputf8();
    let returned = returned::part(facts, &told);
    let parts = vec![
        Part {
            fields: vec![("Content-Description", "Notification".to_owned())],
            ..Part::text(text::render(facts, &told, &returned.remark))
        },
        status::part(facts, &told, unicode),
        returned.part,
    ];
    let multipart = multipart(parts, facts.random);

    let hostname = facts.hostname;
    let original_id = original_message_id(facts.original);
    let mut content = Header::new()
        .field("From", &format!("Mail Delivery System <MAILER-DAEMON@{hostname}>"))
        .field("To", &format!("<{sender}>"))
        .field("Subject", subject(&told))
        .field("Date", &date(facts.now))
        .field("Message-ID", &format!("<{}.{:016x}@{hostname}>", facts.queue_id, facts.random))
        .optional("In-Reply-To", original_id)
        .optional("References", original_id)
        // RFC 3834 §5.1: a notice answers a message; auto-generated would be untrue.
        .field("Auto-Submitted", "auto-replied")
        .field("MIME-Version", "1.0")
        .field(
            "Content-Type",
            &format!(
                "multipart/report; report-type={}; boundary=\"{}\"",
                if unicode { "global-delivery-status" } else { "delivery-status" },
                multipart.boundary
            ),
        )
        .into_bytes();
    content.extend_from_slice(b"\r\n");
    content.extend_from_slice(&multipart.body);

    let envelope = Envelope {
        // RFC 3461 §6.1: from the null path, without RET, ENVID, NOTIFY or ORCPT.
        reverse_path: ReversePath::Null,
        recipients: vec![Recipient::plain(sender.clone())],
        body: match multipart.eight_bit || unicode {
            true => BodyType::EightBitMime,
            false => BodyType::SevenBit,
        },
        smtputf8: unicode,
        ret: None,
        envid: None,
        // RFC 8689 §5: the header is in it, so it travels as the message did; and without the body, since
        // mail from the null path goes on where no host offers REQUIRETLS.
        tls: match facts.envelope.tls {
            TlsRequest::Required => TlsRequest::Required,
            // Never: a notice weakens nobody's policy; the author's wish was about the message.
            TlsRequest::NotRequired | TlsRequest::None => TlsRequest::None,
        },
    };
    Some(ComposedNotice { envelope, content })
}

fn subject(told: &[Told<'_>]) -> &'static str {
    let all = |action| told.iter().all(|(_, notice)| notice.action() == action);
    if all(Action::Failed) {
        "Undelivered mail returned to sender"
    } else if all(Action::Delayed) {
        "Delayed mail (still being tried)"
    } else if all(Action::Relayed) {
        "Mail relayed successfully"
    } else {
        "Mail delivery report"
    }
}

/// The author's Message-ID, if it is one we may repeat.
fn original_message_id(original: &[u8]) -> Option<&str> {
    let (header, _) = header::split(original);
    let id = std::str::from_utf8(header::first(header, "Message-ID")?).ok()?;
    let sound = id.len() <= 250 && id.starts_with('<') && id.ends_with('>');
    (sound && id.bytes().all(|b| b.is_ascii_graphic())).then_some(id)
}
