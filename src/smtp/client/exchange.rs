//! A transaction on the wire: which commands go out together, which reply belongs to which.
//!
//! With BDAT (RFC 3030) content goes out only when the replies to all RCPTs are known, so that none is
//! sent for nobody, and a connection that had died shows before it; unless the driver has reason to send
//! all in one flight (RFC 3030 §4.2), a small content on a lively connection. And a chunk goes out only
//! when the one before was accepted, so that a refused message is not sent to its end.
//!
//! With PIPELINING, MAIL, the RCPTs and DATA leave in one group (RFC 2920 §3.1), a window of RCPTs
//! at a time; without it, one by one. Replies are matched in order. DATA is always last in its
//! group. Called by `session`; never touches the connection.

use std::collections::VecDeque;

use super::options::{GROUP_BYTES_MAX, RCPT_WINDOW};
use super::phases::Phase;
use super::session::SessionEnd;
use super::states::{Expect, Next, unexpected};
use super::transaction::{Transaction, TransactionEnd};
use crate::mail::Reply;
use crate::smtp::extensions::Extensions;

/// A running transaction.
#[derive(Debug)]
pub(super) struct Exchange {
    transaction: Transaction,
    offers: Extensions,
    /// What is in flight, oldest first.
    awaited: VecDeque<Awaited>,
    /// What goes out next.
    due: Due,
    /// The deciding reply of each recipient; only refusals until the final dot.
    replies: Vec<Option<Reply>>,
    /// How many RCPTs were accepted.
    accepted: usize,
    mail_refused: bool,
    /// Chunks that were sent.
    chunks: u32,
}

/// A chunk that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// More follow.
    More,
    /// It ends the message.
    Last,
}

/// A command whose reply has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// A chunk that is not the last.
    Chunk,
    /// The dot that ends the message, or its last chunk.
    Dot,
    /// A lone dot for nobody, after a 354 that should not have come.
    EmptyDot,
}

/// The next command to send, in the order of a transaction.
#[derive(Debug, Clone, Copy)]
enum Due {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    Nothing,
}

impl Exchange {
    /// Starts a transaction: its first group of commands, and itself to take the replies.
    /// `offers` were found sufficient; `reset` puts RSET first.
    pub(super) fn begin(transaction: Transaction, offers: Extensions, reset: bool) -> (Vec<u8>, Box<Self>) {
        let replies = vec![None; transaction.recipients.len()];
        let due = if reset { Due::Reset } else { Due::Mail };
        let mut exchange = Box::new(Self {
            transaction,
            offers,
            awaited: VecDeque::new(),
            due,
            replies,
            accepted: 0,
            mail_refused: false,
            chunks: 0,
        });
        (exchange.next_group(), exchange)
    }

    /// Whether nothing but content is left to be sent: it may follow at once.
    pub(super) fn has_said_all(&self) -> bool {
        self.offers.chunking && matches!(self.due, Due::Data)
    }

    /// What the oldest unanswered command is.
    pub(super) fn phase(&self) -> Phase {
        match self.awaited.front() {
            Some(Awaited::Reset) => Phase::Reset,
            Some(Awaited::Mail) => Phase::Mail,
            Some(Awaited::Rcpt(_)) => Phase::Rcpt,
            // Nothing can be delivered twice by an empty dot, so it is not `Dot`.
            Some(Awaited::Data | Awaited::EmptyDot) => Phase::Data,
            Some(Awaited::Dot) => Phase::Dot,
            Some(Awaited::Chunk) | None => Phase::Body,
        }
    }

    /// The content and its final dot are written.
    pub(super) fn body_sent(&mut self) {
        self.awaited.push_back(Awaited::Dot);
    }

    /// A chunk is written.
    pub(super) fn chunk_sent(&mut self, chunk: Chunk) {
        self.chunks = self.chunks.saturating_add(1);
        self.awaited.push_back(match chunk {
            Chunk::More => Awaited::Chunk,
            Chunk::Last => Awaited::Dot,
        });
    }

    /// Takes the reply to the oldest unanswered command.
    pub(super) fn handle(mut self: Box<Self>, reply: Reply) -> Next {
        let phase = self.phase();
        let Some(&awaited) = self.awaited.front() else {
            return Next::Broken(self.broken(), unexpected(phase, &reply));
        };
        let refused = reply.is_transient() || reply.is_permanent();
        let first_chunk = matches!(awaited, Awaited::Chunk | Awaited::Dot) && self.chunks == 1;
        // Without anybody to send to, a chunk in the same flight is refused as it should be.
        if first_chunk && self.accepted > 0 && matches!(reply.code, 500..=504) {
            // It offers CHUNKING, or something before it does, and takes BDAT for no command or for a
            // wrong one: what it makes of the octets that followed is anybody's guess, so not a word more
            // is said on this connection. A refusal all the same: the message was not taken.
            self.awaited.clear();
            return Next::Broken(self.broken(), SessionEnd::BdatUnknown(reply));
        }
        let fits = match awaited {
            // RFC 5321 §4.3.2: only 354 asks for content; a 250 here delivers nothing.
            Awaited::Data => reply.code == 354 || refused,
            Awaited::EmptyDot => true,
            _ => reply.is_positive() || refused,
        };
        if !fits {
            return Next::Broken(self.broken(), unexpected(phase, &reply));
        }
        self.awaited.pop_front();
        match awaited {
            Awaited::Reset if refused => {
                return Next::Broken(self.broken(), SessionEnd::Refused { phase, reply });
            }
            Awaited::Mail if refused => {
                // RFC 2920 §3.1: a failed MAIL fails every RCPT sent with it.
                self.mail_refused = true;
                self.decide_rest(&reply);
            }
            Awaited::Rcpt(_) if self.mail_refused => {}
            Awaited::Rcpt(index) if refused => self.replies[index] = Some(reply),
            Awaited::Rcpt(_) => self.accepted += 1,
            Awaited::Data if refused => {
                self.decide_rest(&reply);
                return self.done(Ending::Aborted);
            }
            Awaited::Data if self.accepted > 0 => return Next::SendBody(self),
            Awaited::Data => {
                // RFC 2920 §3.1: 354 although nobody is left: a lone dot takes it back.
                self.awaited.push_back(Awaited::EmptyDot);
                return Next::Send(b".\r\n".to_vec(), Expect::Transaction(self));
            }
            Awaited::EmptyDot => return self.done(Ending::Aborted),
            Awaited::Chunk if refused || self.accepted == 0 => {
                // RFC 3030 §2: the transaction has failed, and no further chunk may be sent.
                self.decide_rest(&reply);
                return self.done(Ending::Aborted);
            }
            Awaited::Chunk => return Next::SendChunk(Vec::new(), self),
            Awaited::Dot => {
                // RFC 5321 §4.2.5: the answer is for exactly the accepted recipients.
                self.decide_rest(&reply);
                return self.done(if refused { Ending::Aborted } else { Ending::Complete });
            }
            Awaited::Reset | Awaited::Mail => {}
        }
        if !self.awaited.is_empty() {
            return Next::Read(Expect::Transaction(self));
        }
        let group = self.next_group();
        if group.is_empty() && self.is_chunk_due() {
            Next::SendChunk(Vec::new(), self)
        } else if group.is_empty() {
            self.done(Ending::Aborted)
        } else {
            Next::Send(group, Expect::Transaction(self))
        }
    }

    /// The server ends the session with 421 in place of the awaited reply (RFC 5321 §3.8): a refusal
    /// for now, so not uncertain, even in answer to the final dot.
    pub(super) fn shut_down(mut self: Box<Self>) -> TransactionEnd {
        self.awaited.clear();
        self.broken()
    }

    /// The session broke.
    pub(super) fn broken(self: Box<Self>) -> TransactionEnd {
        // In one flight the end of the message may have been taken though nothing was answered yet.
        let uncertain = self.awaited.contains(&Awaited::Dot);
        if self.replies.iter().all(Option::is_some) {
            return TransactionEnd::Answered(self.replies.into_iter().flatten().collect());
        }
        TransactionEnd::Broken { replies: self.replies, uncertain }
    }

    fn is_chunk_due(&self) -> bool {
        self.offers.chunking && matches!(self.due, Due::Data) && !self.mail_refused && self.accepted > 0
    }

    fn decide_rest(&mut self, reply: &Reply) {
        for undecided in self.replies.iter_mut().filter(|slot| slot.is_none()) {
            *undecided = Some(reply.clone());
        }
    }

    fn done(self: Box<Self>, ending: Ending) -> Next {
        let reset = ending == Ending::Aborted;
        // All are decided here; should one not be, `broken` says so instead of inventing a reply.
        Next::Done { end: self.broken(), reset }
    }

    /// The commands that may go out now; empty when the transaction has nothing left to say.
    fn next_group(&mut self) -> Vec<u8> {
        let mut group = Vec::new();
        let mut recipients = 0;
        while let Some((line, awaited, next)) = self.next_command(recipients > 0) {
            if matches!(awaited, Awaited::Rcpt(_)) {
                // RFC 2920 §3.1: a bounded window, so that neither side blocks in writing.
                if recipients == RCPT_WINDOW || group.len() > GROUP_BYTES_MAX {
                    break;
                }
                recipients += 1;
            }
            group.extend_from_slice(line.as_bytes());
            self.awaited.push_back(awaited);
            self.due = next;
            if !self.offers.pipelining {
                break;
            }
        }
        group
    }

    fn next_command(&self, rcpt_in_flight: bool) -> Option<(String, Awaited, Due)> {
        if self.mail_refused {
            return None;
        }
        match self.due {
            Due::Reset => Some(("RSET\r\n".to_owned(), Awaited::Reset, Due::Mail)),
            Due::Mail => Some((self.transaction.mail_command(&self.offers), Awaited::Mail, Due::Rcpt(0))),
            Due::Rcpt(index) => {
                let recipient = self.transaction.recipients.get(index)?;
                let last = index + 1 == self.transaction.recipients.len();
                let next = if last { Due::Data } else { Due::Rcpt(index + 1) };
                Some((recipient.rcpt_command(&self.offers), Awaited::Rcpt(index), next))
            }
            // RFC 3030 §2: never both in one transaction.
            Due::Data if self.offers.chunking => None,
            // RFC 2920 §3.1: no DATA once it is known that every RCPT was refused.
            Due::Data if self.accepted > 0 || rcpt_in_flight => {
                Some(("DATA\r\n".to_owned(), Awaited::Data, Due::Nothing))
            }
            Due::Data | Due::Nothing => None,
        }
    }
}

/// Whether the server has forgotten the transaction by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The final dot was accepted.
    Complete,
    /// Anything else: RSET goes first next time (RFC 5321 §4.1.4).
    Aborted,
}
