//! The session as its driver sees it: actions out, events in.
//!
//! Owns the current state and the reply decoder. An event that does not fit the state, whether the
//! server or the driver caused it, ends the session; it never panics and never goes on guessing.
//! Called by `delivery::conversation`.

use std::fmt;
use std::mem;

use super::Action;
use super::auth::{AuthFailure, Credentials};
use super::exchange::{Chunk, Exchange};
use super::options::{Timeouts, TlsUse};
use super::phases::Phase;
use super::states::{Expect, ExpectGreeting, ExpectHello, Facts, Next};
use super::transaction::{Transaction, TransactionEnd};
use crate::mail::Reply;
use crate::smtp::decoder::Decoder;
use crate::smtp::extensions::Extensions;
use crate::tlspolicy::TlsFailure;

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// We said QUIT.
    Quit,
    /// The greeting or EHLO was refused with this reply (4yz, 5yz, 421 at any point).
    Refused {
        /// While doing what.
        phase: Phase,
        /// Its words.
        reply: Reply,
    },
    /// CHUNKING was offered and BDAT not understood (RFC 3030 §3); the message was not taken, and DATA on
    /// another connection may do.
    BdatUnknown(Reply),
    /// TLS was needed or tried and failed.
    Tls(TlsFailure),
    /// Our login was not taken.
    Auth(AuthFailure),
    /// Closed, reset, timed out, or not SMTP.
    Lost {
        /// While doing what.
        phase: Phase,
        /// One sentence.
        text: String,
    },
}

/// The session. Made per connection, carries any number of transactions.
#[derive(Debug)]
pub struct Session {
    facts: Facts,
    timeouts: Timeouts,
    decoder: Decoder,
    state: State,
    /// BDAT where it is offered.
    chunking: bool,
    /// A message sent by BDAT was accepted on this session.
    bdat_accepted: bool,
    /// The content of the next transaction may leave with its commands.
    one_flight: bool,
    /// Content of the last transaction went out by BDAT.
    chunk_sent: bool,
    /// The last transaction was cut short.
    reset_due: bool,
    result: Option<TransactionEnd>,
    end: Option<SessionEnd>,
    replies_read: u64,
}

/// Where a session begins to be talked.
const GREETING: State = State::Reading(Expect::Greeting(ExpectGreeting));

#[derive(Debug)]
enum State {
    /// To be handed to the driver.
    Outgoing {
        bytes: Outgoing,
        then: Expect,
    },
    /// With the driver.
    Sending(Expect),
    Reading(Expect),
    HandshakeDue,
    Handshaking,
    Idle,
    BodyDue(Box<Exchange>),
    BodySending(Box<Exchange>),
    ChunkDue {
        before: Vec<u8>,
        exchange: Box<Exchange>,
    },
    ChunkSending(Box<Exchange>),
    Closed,
}

/// Octets that may hold a password: shown by their number alone.
struct Outgoing(Vec<u8>);

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets", self.0.len())
    }
}

impl Session {
    /// A session on a fresh connection. `ehlo_name` is our host name or address literal.
    pub fn new(ehlo_name: &str, tls: TlsUse, timeouts: Timeouts) -> Self {
        // The name comes from configuration, where it was checked; this only keeps a line one line.
        let ehlo_name = ehlo_name.chars().filter(char::is_ascii_graphic).collect();
        Self {
            facts: Facts {
                ehlo_name,
                tls,
                credentials: None,
                is_tls: false,
                extensions: Extensions::default(),
                server_name: None,
                starttls_refusal: None,
            },
            timeouts,
            decoder: Decoder::default(),
            state: match tls {
                TlsUse::Implicit => State::HandshakeDue,
                TlsUse::Required | TlsUse::IfOffered | TlsUse::Never => GREETING,
            },
            chunking: false,
            bdat_accepted: false,
            one_flight: false,
            chunk_sent: false,
            reset_due: false,
            result: None,
            end: None,
            replies_read: 0,
        }
    }

    /// The same with a login, which follows the handshake. Only for a driver that has the server
    /// authenticated in it: the password is shown to whoever answers.
    pub fn logging_in(mut self, credentials: Option<Credentials>) -> Self {
        self.facts.credentials = credentials;
        self
    }

    /// What to do next.
    pub fn next_action(&mut self) -> Action {
        if self.decoder.is_mid_reply() && !matches!(self.state, State::Reading(_)) {
            self.lost("server spoke out of turn");
        }
        let within = self.phase().limit(&self.timeouts);
        let (action, state) = match mem::replace(&mut self.state, State::Closed) {
            State::Outgoing { bytes, then } => {
                (Action::Send { bytes: bytes.0, within }, State::Sending(then))
            }
            State::Reading(expect) => (Action::Read { within }, State::Reading(expect)),
            State::HandshakeDue => (Action::StartTls { within }, State::Handshaking),
            State::Idle => (Action::Idle, State::Idle),
            State::BodyDue(exchange) => (Action::SendBody { within }, State::BodySending(exchange)),
            State::ChunkDue { before, exchange } => {
                (Action::SendChunk { before, within }, State::ChunkSending(exchange))
            }
            State::Closed => (Action::Close, State::Closed),
            busy @ (State::Sending(_)
            | State::Handshaking
            | State::BodySending(_)
            | State::ChunkSending(_)) => {
                self.state = busy;
                self.lost("next action asked before the last one was done");
                return Action::Close;
            }
        };
        self.state = state;
        action
    }

    /// The octets are written; or the error's text.
    pub fn handle_sent(&mut self, result: Result<(), String>) {
        if let Err(text) = result {
            return self.lost(&format!("connection lost ({})", one_line(&text)));
        }
        match mem::replace(&mut self.state, State::Closed) {
            State::Sending(expect) => self.state = State::Reading(expect),
            State::BodySending(mut exchange) => {
                exchange.body_sent();
                self.state = State::Reading(Expect::Transaction(exchange));
            }
            other => {
                self.state = other;
                self.lost("sending reported where nothing was sent");
            }
        }
    }

    /// A chunk is written; or the error's text.
    pub fn handle_chunk(&mut self, result: Result<Chunk, String>) {
        let chunk = match result {
            Ok(chunk) => chunk,
            Err(text) => return self.lost(&format!("connection lost ({})", one_line(&text))),
        };
        match mem::replace(&mut self.state, State::Closed) {
            State::ChunkSending(mut exchange) => {
                exchange.chunk_sent(chunk);
                self.chunk_sent = true;
                self.state = State::Reading(Expect::Transaction(exchange));
            }
            other => {
                self.state = other;
                self.lost("a chunk reported where none was asked for");
            }
        }
    }

    /// Octets were read; none at all is the end of the stream.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return self.handle_closed("end of stream");
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if matches!(self.state, State::Closed) {
                return;
            }
            // RFC 3207 §4.2: whatever follows the 220 in clear was put there by somebody else (I5).
            if matches!(self.state, State::HandshakeDue | State::Handshaking) {
                return self.fail(SessionEnd::Tls(TlsFailure::Injected));
            }
            let (used, decoded) = self.decoder.feed(rest);
            rest = rest.get(used..).unwrap_or_default();
            match decoded {
                Err(error) => return self.lost(&error.to_string()),
                Ok(None) => return,
                Ok(Some(reply)) => self.handle_reply(reply),
            }
        }
    }

    fn handle_reply(&mut self, reply: Reply) {
        self.replies_read += 1;
        match mem::replace(&mut self.state, State::Closed) {
            State::Reading(expect) => {
                let next = expect.handle(reply, &mut self.facts);
                self.apply(next);
            }
            // Never: a reply taken for a command that was not sent, or for content that was not.
            other => {
                self.state = other;
                if reply.code == 421 {
                    // RFC 5321 §3.8: the server may close at any time, also while we are idle.
                    let phase = self.phase();
                    let end = SessionEnd::Refused { phase, reply };
                    self.fail(end);
                } else {
                    self.lost("server spoke out of turn");
                }
            }
        }
    }

    /// The server closed, or reading failed.
    pub fn handle_closed(&mut self, text: &str) {
        let text = one_line(text);
        match self.phase() {
            // From the STARTTLS command on: a host that breaks off there has failed at TLS.
            Phase::StartTls => self.fail(SessionEnd::Tls(TlsFailure::Lost(text))),
            _ => self.lost(&format!("connection lost ({text})")),
        }
    }

    /// The time of a `Read`, `Send`, `SendBody` or `StartTls` is over.
    pub fn handle_timeout(&mut self) {
        let text = format!("timed out after {} s", self.phase().limit(&self.timeouts).as_secs());
        match self.phase() {
            Phase::StartTls => self.fail(SessionEnd::Tls(TlsFailure::Lost(text))),
            _ => self.lost(&text),
        }
    }

    /// The handshake is done and its plan met; or why not.
    pub fn handle_tls(&mut self, result: Result<(), TlsFailure>) {
        match (&self.state, result) {
            (State::Handshaking, Ok(())) => {
                // RFC 3207 §4.2: everything learned before the handshake is forgotten.
                self.facts.extensions = Extensions::default();
                self.facts.server_name = None;
                self.facts.is_tls = true;
                self.decoder = Decoder::default();
                if self.facts.tls == TlsUse::Implicit {
                    self.state = GREETING;
                } else {
                    self.apply(ExpectHello::ask(&self.facts));
                }
            }
            // RFC 3207 §4: no way back into clear on this connection.
            (State::Handshaking, Err(failure)) => self.fail(SessionEnd::Tls(failure)),
            _ => self.lost("handshake reported where none was asked for"),
        }
    }

    /// Whether the next transactions use BDAT where the server offers CHUNKING (RFC 3030). Off at first.
    pub fn use_chunking(&mut self, on: bool) {
        self.chunking = on;
    }

    /// Whether content goes out by BDAT on this session.
    pub fn chunks(&self) -> bool {
        self.chunking && self.facts.extensions.chunking
    }

    /// Whether the content of the next transaction may leave together with its commands, where BDAT is
    /// used, the server pipelines, and it has accepted a message by BDAT on this session: a round trip
    /// less. For the driver to say, of a content that fits one chunk and a connection that was alive a
    /// moment ago: should it turn out dead, nobody knows whether the message was taken. Off at first.
    pub fn use_one_flight(&mut self, on: bool) {
        self.one_flight = on;
    }

    /// Whether [`Session::use_one_flight`] would be heeded.
    pub fn can_fly(&self) -> bool {
        matches!(self.state, State::Idle)
            && self.bdat_accepted
            && self.chunks()
            && self.facts.extensions.pipelining
    }

    /// Whether content of the last transaction went out by BDAT.
    pub fn sent_by_bdat(&self) -> bool {
        self.chunk_sent
    }

    /// Starts a transaction; only when the last action was [`Action::Idle`].
    pub fn begin(&mut self, transaction: Transaction) {
        if !matches!(self.state, State::Idle) {
            let nothing = vec![None; transaction.recipients.len()];
            self.lost("message begun where none was possible");
            self.result.get_or_insert(TransactionEnd::Broken { replies: nothing, uncertain: false });
            return;
        }
        self.result = None;
        self.chunk_sent = false;
        if transaction.recipients.is_empty() {
            self.result = Some(TransactionEnd::Answered(Vec::new()));
        } else if let Some(missing) = transaction.missing(&self.facts.extensions, self.facts.is_tls) {
            self.result = Some(TransactionEnd::Unsupported(missing));
        } else {
            let reset = mem::take(&mut self.reset_due);
            let mut offers = self.facts.extensions.clone();
            offers.chunking &= self.chunking;
            let flies = self.one_flight && self.can_fly();
            let (bytes, exchange) = Exchange::begin(transaction, offers, reset);
            self.state = if flies && exchange.has_said_all() {
                State::ChunkDue { before: bytes, exchange }
            } else {
                State::Outgoing { bytes: Outgoing(bytes), then: Expect::Transaction(exchange) }
            };
        }
    }

    /// The result of the transaction begun last, once. There is one as soon as the session is idle
    /// or over again.
    pub fn take_result(&mut self) -> Option<TransactionEnd> {
        self.result.take()
    }

    /// Says QUIT at the next action; only when idle.
    pub fn quit(&mut self) {
        match self.state {
            State::Idle => self.apply(Next::Leave(SessionEnd::Quit)),
            _ => self.lost("QUIT asked for in the middle of something"),
        }
    }

    /// Why the session is over; `None` while it lasts. Known as soon as it is decided, though QUIT
    /// may still be said: only [`Action::Close`] closes.
    pub fn end(&self) -> Option<&SessionEnd> {
        self.end.as_ref()
    }

    /// What the server offers now; after TLS only what it said inside (RFC 3207 §4.2).
    pub fn extensions(&self) -> &Extensions {
        &self.facts.extensions
    }

    /// The name in the banner or EHLO reply (`receiving-mx-helo`).
    pub fn server_name(&self) -> Option<&str> {
        self.facts.server_name.as_deref()
    }

    /// Whether the session is inside TLS.
    pub fn is_tls(&self) -> bool {
        self.facts.is_tls
    }

    /// The refusal of STARTTLS after which the session went on in clear, or ended: a failed TLS
    /// session to those who count (RFC 8460 §4.3.1, `starttls-not-supported`).
    pub fn starttls_refusal(&self) -> Option<&Reply> {
        self.facts.starttls_refusal.as_ref()
    }

    /// How many complete replies were read. While it does not change, the same reply is awaited and
    /// its time limit is running, whatever pieces of it have come.
    pub fn replies_read(&self) -> u64 {
        self.replies_read
    }

    /// What the session is doing.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Outgoing { then: expect, .. } | State::Sending(expect) | State::Reading(expect) => {
                expect.phase()
            }
            State::HandshakeDue | State::Handshaking => Phase::StartTls,
            State::Idle => Phase::Idle,
            State::BodyDue(_) | State::BodySending(_) | State::ChunkDue { .. } | State::ChunkSending(_) => {
                Phase::Body
            }
            State::Closed => Phase::Quit,
        }
    }

    fn apply(&mut self, next: Next) {
        match next {
            Next::Send(bytes, then) => self.state = State::Outgoing { bytes: Outgoing(bytes), then },
            Next::Read(expect) => self.state = State::Reading(expect),
            Next::Handshake => self.state = State::HandshakeDue,
            Next::SendBody(exchange) => self.state = State::BodyDue(exchange),
            Next::SendChunk(before, exchange) => self.state = State::ChunkDue { before, exchange },
            Next::Idle => self.state = State::Idle,
            Next::Done { end, reset } => {
                self.bdat_accepted |= self.chunk_sent && !reset;
                self.result = Some(end);
                self.reset_due = reset;
                self.state = State::Idle;
            }
            Next::Leave(end) => {
                self.end.get_or_insert(end);
                let bytes = Outgoing(b"QUIT\r\n".to_vec());
                self.state = State::Outgoing { bytes, then: Expect::Farewell };
            }
            Next::Close(end) => {
                self.end.get_or_insert(end);
                self.state = State::Closed;
            }
            Next::Broken(result, end) => {
                self.result = Some(result);
                self.end.get_or_insert(end);
                self.state = State::Closed;
            }
        }
    }

    fn lost(&mut self, what: &str) {
        let phase = self.phase();
        self.fail(SessionEnd::Lost { phase, text: format!("{what} while {}", phase.phrase()) });
    }

    /// Over at once. A reason that was there before stays: losing the connection in QUIT is no news.
    fn fail(&mut self, end: SessionEnd) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Outgoing { then: Expect::Transaction(exchange), .. }
            | State::Sending(Expect::Transaction(exchange))
            | State::Reading(Expect::Transaction(exchange))
            | State::BodyDue(exchange)
            | State::BodySending(exchange)
            | State::ChunkDue { exchange, .. }
            | State::ChunkSending(exchange) => self.result = Some(exchange.broken()),
            _ => {}
        }
        self.end.get_or_insert(end);
    }
}

/// An error's text without what could break a log line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
