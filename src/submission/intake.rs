//! One message on its way into the queue: trace, limits, fix-ups, and the durable end.
//!
//! Takes content in pieces as the session unstuffs them and holds little of it: up to
//! [`SPILL_BYTES`], then it goes to the queue's body writer. The header section is looked at once,
//! when it is complete: hops are counted, and what an authenticated client left out is added. A
//! message is never altered beyond that, and one with a DKIM signature only gets its Received field.
//! `Ok` from [`Incoming::commit`] means stable storage (invariant I1); dropping an [`Incoming`]
//! leaves nothing behind.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use memchr::memmem;

use super::senders::Senders;
use crate::mail::{BodyType, Domain, EnhancedStatus, Envelope, Mailbox, Reply, TlsRequest, header};
use crate::queue::QueueId;
use crate::store::{Body, BodyWriter, Health, NewMessage, Queue, QueueError, Suppressions};

/// Octets of content held before they go to the body writer, at most and by and large; a message
/// that is smaller never sees it.
const SPILL_BYTES: usize = 256 << 10;
/// Octets of a header section at most: it is looked at in memory.
const HEADER_BYTES_MAX: usize = SPILL_BYTES;
/// Received fields at most; more is a loop (RFC 5321 §6.3 wants at least 100 allowed).
const HOPS_MAX: usize = 100;

/// What intake needs of a queue: [`Queue`], or in tests one that fails on purpose.
pub trait Inbox: Send + Sync + 'static {
    /// See [`Queue::health`].
    fn health(&self) -> Health;
    /// See [`Queue::health_for`].
    fn health_for(&self, _octets: u64) -> Health {
        self.health()
    }
    /// See [`Queue::allocate_id`].
    fn allocate_id(&self) -> QueueId;
    /// See [`Queue::body_writer`].
    fn body_writer(&self) -> Box<dyn InboxBody>;
    /// See [`Queue::enqueue`].
    fn enqueue(&self, message: NewMessage) -> BoxFuture<'_, Result<QueueId, QueueError>>;
    /// Why mail to this recipient is suppressed at `now`, if it is; one line of ASCII.
    fn suppressed(&self, _recipient: &Mailbox, _now: Timestamp) -> Option<String> {
        None
    }
}

/// The queue, and the recipients nothing is queued for where the options say so.
#[derive(Clone)]
pub struct Guarded {
    /// Where messages go.
    pub queue: Queue,
    /// Whom no message goes to.
    pub suppressions: Suppressions,
}

impl Inbox for Guarded {
    fn health(&self) -> Health {
        self.queue.health()
    }
    fn health_for(&self, octets: u64) -> Health {
        self.queue.health_for(octets)
    }
    fn allocate_id(&self) -> QueueId {
        self.queue.allocate_id()
    }
    fn body_writer(&self) -> Box<dyn InboxBody> {
        Inbox::body_writer(&self.queue)
    }
    fn enqueue(&self, message: NewMessage) -> BoxFuture<'_, Result<QueueId, QueueError>> {
        Inbox::enqueue(&self.queue, message)
    }
    fn suppressed(&self, recipient: &Mailbox, now: Timestamp) -> Option<String> {
        self.suppressions.active(recipient, now).map(|entry| entry.sentence())
    }
}

/// What intake needs of a body writer.
pub trait InboxBody: Send + Sync {
    /// See [`BodyWriter::write`].
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), QueueError>>;
    /// See [`BodyWriter::finish`].
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Body, QueueError>>;
}

impl Inbox for Queue {
    fn health(&self) -> Health {
        Queue::health(self)
    }
    fn health_for(&self, octets: u64) -> Health {
        Queue::health_for(self, octets)
    }
    fn allocate_id(&self) -> QueueId {
        Queue::allocate_id(self)
    }
    fn body_writer(&self) -> Box<dyn InboxBody> {
        Box::new(Queue::body_writer(self))
    }
    fn enqueue(&self, message: NewMessage) -> BoxFuture<'_, Result<QueueId, QueueError>> {
        Box::pin(Queue::enqueue(self, message))
    }
}

impl InboxBody for BodyWriter {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(BodyWriter::write(self, bytes))
    }
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Body, QueueError>> {
        Box::pin(BodyWriter::finish(*self))
    }
}

/// Why a message is not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Larger than `limits.message_size`.
    #[error("message larger than {0} octets")]
    TooLarge(u64),
    /// A header section that cannot be looked at in memory.
    #[error("header section larger than {HEADER_BYTES_MAX} octets")]
    HeaderTooLarge,
    /// It has been around too often.
    #[error("mail loop: {0} Received fields")]
    Loop(usize),
    /// Its author is not one that this user may name.
    #[error("{0}")]
    Author(String),
    /// The queue refused it.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl IntakeError {
    /// What the client is told; what is wrong with our disk is for our log.
    pub fn reply(&self) -> Reply {
        match self {
            Self::TooLarge(_) | Self::HeaderTooLarge => {
                Reply::new(552, EnhancedStatus::new(5, 3, 4), self.to_string())
            }
            Self::Author(_) => Reply::new(550, EnhancedStatus::new(5, 7, 1), self.to_string()),
            Self::Loop(_) => Reply::new(554, EnhancedStatus::new(5, 4, 6), self.to_string()),
            Self::Queue(error) => queue_reply(matches!(error, QueueError::Full(_) | QueueError::ReadOnly(_))),
        }
    }
}

/// What a client is told when the queue cannot take mail: its disk takes nothing now, or something worse.
pub(super) fn queue_reply(full: bool) -> Reply {
    if full {
        Reply::new(452, EnhancedStatus::new(4, 3, 1), "no space for mail now, try again later")
    } else {
        Reply::new(451, EnhancedStatus::new(4, 3, 0), "mail cannot be stored now, try again later")
    }
}

/// What is known of a message when its content begins.
pub(super) struct Opening {
    pub id: QueueId,
    pub envelope: Envelope,
    /// Our Received field, with its CRLF.
    pub received: String,
    pub received_at: Timestamp,
    /// 0 for no limit.
    pub message_size: u64,
    /// What the From field is held to.
    pub author_rule: Option<Senders>,
    /// Add Date and Message-ID where missing, with our name: for authenticated clients.
    pub complete_as: Option<Domain>,
}

/// A message coming in.
pub(super) struct Incoming {
    inbox: Arc<dyn Inbox>,
    opening: Opening,
    /// Our Received field and content that is not with the writer yet.
    buffer: Vec<u8>,
    /// Where content begins in the buffer, until the header section is closed.
    start: usize,
    head: Head,
    writer: Option<Box<dyn InboxBody>>,
    /// Octets of content.
    size: u64,
    eight_bit: bool,
}

/// How far the header section is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Its end is not in the buffer before this position.
    Open(usize),
    /// It has been looked at.
    Closed,
}

impl Incoming {
    pub(super) fn new(inbox: Arc<dyn Inbox>, mut opening: Opening) -> Self {
        let buffer = std::mem::take(&mut opening.received).into_bytes();
        let start = buffer.len();
        let head = Head::Open(start);
        Self { inbox, opening, buffer, start, head, writer: None, size: 0, eight_bit: false }
    }

    /// Takes a piece of content.
    ///
    /// # Errors
    /// The message is refused; what else comes of it may be thrown away.
    pub(super) fn take(&mut self, content: &[u8]) -> Result<(), IntakeError> {
        self.size += content.len() as u64;
        if self.opening.message_size > 0 && self.size > self.opening.message_size {
            return Err(IntakeError::TooLarge(self.opening.message_size));
        }
        self.eight_bit |= !content.is_ascii();
        self.buffer.extend_from_slice(content);
        if let Head::Open(from) = self.head {
            self.find_header_end(from)?;
        }
        Ok(())
    }

    fn find_header_end(&mut self, from: usize) -> Result<(), IntakeError> {
        let start = self.start;
        let content = &self.buffer[start..];
        if content.starts_with(b"\r\n") {
            return self.close_header(start);
        }
        // The end may straddle what was searched before.
        let from = from.saturating_sub(3).max(start);
        match memmem::find(&self.buffer[from..], b"\r\n\r\n") {
            Some(at) => self.close_header(from + at + 2),
            None if content.len() > HEADER_BYTES_MAX => Err(IntakeError::HeaderTooLarge),
            None => {
                self.head = Head::Open(self.buffer.len());
                Ok(())
            }
        }
    }

    /// Looks at the header section, which ends before `end`.
    fn close_header(&mut self, end: usize) -> Result<(), IntakeError> {
        self.head = Head::Closed;
        let start = self.start;
        let section = &self.buffer[start..end];
        let hops = header::count(section, "Received");
        if hops > HOPS_MAX {
            return Err(IntakeError::Loop(hops));
        }
        if let Some(rule) = &self.opening.author_rule {
            rule.check_from(section).map_err(IntakeError::Author)?;
        }
        // RFC 8689 §4.1: the header counts only where REQUIRETLS was not said.
        if self.opening.envelope.tls == TlsRequest::None && header::says_tls_not_required(section) {
            self.opening.envelope.tls = TlsRequest::NotRequired;
        }
        let added = self.additions(section);
        if !added.is_empty() {
            self.buffer.splice(start..start, added.into_bytes());
        }
        Ok(())
    }

    /// What goes between our Received field and the message.
    fn additions(&self, section: &[u8]) -> String {
        let mut added = String::new();
        let signed = header::first(section, "DKIM-Signature").is_some();
        // RFC 6409 §8: a submission server completes what the client left out; a signed message
        // stays as it was signed.
        if let Some(hostname) = self.opening.complete_as.as_ref().filter(|_| !signed) {
            if header::first(section, "Date").is_none() {
                added.push_str(&format!("Date: {}\r\n", header::date(self.opening.received_at)));
            }
            if header::first(section, "Message-ID").is_none() {
                let (id, second) = (self.opening.id, self.opening.received_at.as_second());
                added.push_str(&format!("Message-ID: <{id}.{second}@{hostname}>\r\n"));
            }
        }
        // Text that starts without any field must not become part of our header section.
        if !section.is_empty() && header::fields(section).next().is_none() {
            added.push_str("\r\n");
        }
        added
    }

    /// Whether [`Self::spill`] should be called before more is taken.
    pub(super) fn is_full(&self) -> bool {
        self.head == Head::Closed && self.buffer.len() >= SPILL_BYTES
    }

    /// Hands what is held to the body writer.
    pub(super) async fn spill(&mut self) -> Result<(), IntakeError> {
        let writer = self.writer.get_or_insert_with(|| self.inbox.body_writer());
        writer.write(&self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the content and queues the message.
    pub(super) async fn commit(mut self) -> Result<Queued, IntakeError> {
        if matches!(self.head, Head::Open(_)) {
            // All header, or no line end at all: what there is is the section.
            self.close_header(self.buffer.len())?;
        }
        if self.writer.is_some() {
            self.spill().await?;
        }
        let body = match self.writer {
            None => Body::Memory(Bytes::from(self.buffer)),
            Some(writer) => writer.finish().await?,
        };
        let Opening { id, mut envelope, received_at, .. } = self.opening;
        // RFC 6152 §3: content that is not 7-bit must not reach a host that cannot take it, whatever
        // the client declared.
        if self.eight_bit {
            envelope.body = BodyType::EightBitMime;
        }
        let queued = Queued { id, size: body.len() };
        let message = NewMessage { id, envelope, body, received_at, is_report: false, expires_at: None };
        self.inbox.enqueue(message).await?;
        Ok(queued)
    }
}

/// A message that is ours now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub id: QueueId,
    /// Octets as stored.
    pub size: u64,
}
