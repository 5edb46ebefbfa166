//! Reads and writes for one session, with every time limit: samotop's `Drive` over tokio.
//!
//! What is in the buffer is interpreted before anything is read, and all replies to it leave in one
//! write. A line without end is cut off at its limit and skipped without being kept. Nothing
//! received in clear survives a TLS handshake (invariant I5). An io that failed is never touched
//! again: the session just ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use samotop_core::common::io::{Read, Write};
use samotop_core::common::{S1Fut, poll_fn};
use samotop_core::io::tls::MayBeTls;
use samotop_core::mail::MailService;
use samotop_core::smtp::{
    Drive, DriverControl, DriverError, Interpret, ParseError, SessionService, SmtpContext,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Client, Mode, Say, dialogue, line_limit, mode};
use crate::submission::ListenerTls;

/// Octets asked for at a time while commands are read: a full AUTH line and more.
const COMMAND_READ_BYTES: usize = 16 << 10;
/// Octets asked for at a time while content comes in faster than that.
const CONTENT_READ_BYTES: usize = 64 << 10;
/// Replies held back at most before they are written.
const REPLIES_BYTES_MAX: usize = 16 << 10;
/// Commands, or octets of content, that one session may have interpreted before others get their turn:
/// a client that pipelines without end must not hold a thread.
const TURN_COMMANDS: usize = 8;
const TURN_OCTETS: usize = 64 << 10;
/// How long closing may take: the client has had its last reply.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) client: Arc<Client>,
}

impl Drive for Driver {
    fn drive<'a, 'i, 'x, 's, 'f>(
        &'a self,
        io: &'i mut Box<dyn MayBeTls>,
        interpretter: &'x (dyn Interpret + Send + Sync),
        state: &'s mut SmtpContext,
    ) -> S1Fut<'f, Result<(), DriverError>>
    where
        'a: 'f,
        'i: 'f,
        'x: 'f,
        's: 'f,
    {
        Box::pin(async move {
            if self.client.listener.tls == ListenerTls::Implicit {
                self.handshake(io).await?;
            }
            service(state).prepare_session(io, state).await;
            let mut talk = Talk {
                io,
                out: Vec::new(),
                waiting: None,
                content: None,
                drain: None,
                plenty: false,
                spent: 0,
            };
            self.converse(&mut talk, interpretter, state).await
        })
    }
}

/// `SmtpContext::service` with a name for what it returns, so that the borrow ends.
fn service(state: &SmtpContext) -> impl MailService + use<> {
    state.service()
}

/// A conversation's side of the wire.
struct Talk<'i> {
    io: &'i mut Box<dyn MayBeTls>,
    /// Replies not written yet.
    out: Vec<u8>,
    /// Since when a command has been waited for.
    waiting: Option<Instant>,
    /// Since when a message's content has been coming in.
    content: Option<Instant>,
    /// When a message still in transfer is given up, once shutdown was asked for.
    drain: Option<Instant>,
    /// The last read brought as much as was asked for: a large message, worth larger reads.
    plenty: bool,
    /// What is spent of this turn, in octets.
    spent: usize,
}

/// What a read brought.
enum Brought {
    Octets,
    End,
    TimedOut,
    Shutdown,
    /// The place is wanted for somebody else.
    Wanted,
}

impl Driver {
    async fn converse(
        &self,
        talk: &mut Talk<'_>,
        interpretter: &(dyn Interpret + Send + Sync),
        state: &mut SmtpContext,
    ) -> Result<(), DriverError> {
        loop {
            let hungry = self.interpret(talk, interpretter, state).await;
            if self.obey(talk, state, hungry).await? {
                return Ok(());
            }
            if talk.spent >= TURN_OCTETS {
                talk.spent = 0;
                yield_now().await;
            }
            if !hungry {
                continue;
            }
            match self.read(talk, state).await? {
                Brought::Octets => {}
                Brought::End => return Ok(()),
                Brought::TimedOut => state.session.say_last(421, "4.4.2", "timeout, closing the connection"),
                Brought::Shutdown => state.session.say_last(421, "4.3.2", "shutting down, try again later"),
                Brought::Wanted => {
                    state.session.say_last(421, "4.3.2", "too busy for silent clients, try again later");
                }
            }
        }
    }

    /// Interprets one line or piece; true when more octets are needed for that.
    async fn interpret(
        &self,
        talk: &mut Talk<'_>,
        interpretter: &(dyn Interpret + Send + Sync),
        state: &mut SmtpContext,
    ) -> bool {
        if state.session.input.is_empty() || !state.session.output.is_empty() {
            return state.session.output.is_empty();
        }
        match interpretter.interpret(state).await {
            Ok(consumed) => {
                let consumed = consumed.unwrap_or(0).min(state.session.input.len());
                state.session.input.drain(..consumed);
                talk.spent += consumed.max(TURN_OCTETS / TURN_COMMANDS);
                talk.waiting = None;
                if mode(&state.session) != Mode::Content {
                    talk.content = None;
                    self.client.place.entitle(self.client.entitled(dialogue(state)));
                }
                consumed == 0
            }
            Err(ParseError::Incomplete) => true,
            // Our parsers cover every input in every mode; a gap must not become a busy loop.
            Err(ParseError::Failed(_) | ParseError::Mismatch(_)) => {
                state.session.say_last(421, "4.3.0", "internal error, closing the connection");
                false
            }
        }
    }

    /// Does what the session asks for; true when it has ended.
    async fn obey(
        &self,
        talk: &mut Talk<'_>,
        state: &mut SmtpContext,
        hungry: bool,
    ) -> Result<bool, DriverError> {
        for control in std::mem::take(&mut state.session.output) {
            match control {
                DriverControl::Response(reply) => talk.out.extend_from_slice(&reply),
                DriverControl::StartTls => {
                    self.flush(talk).await?;
                    // RFC 3207 §4.2: what came before the handshake is forgotten.
                    state.session.input.clear();
                    self.handshake(talk.io).await?;
                }
                DriverControl::Shutdown => {
                    self.flush(talk).await?;
                    let close = poll_fn(|cx| Pin::new(&mut *talk.io).poll_close(cx));
                    return match timeout(CLOSE_TIMEOUT, close).await {
                        Ok(Err(error)) => Err(DriverError::CloseFailed(error)),
                        Ok(Ok(())) | Err(_) => Ok(true),
                    };
                }
            }
        }
        if hungry || talk.out.len() >= REPLIES_BYTES_MAX {
            self.flush(talk).await?;
        }
        Ok(false)
    }

    async fn flush(&self, talk: &mut Talk<'_>) -> Result<(), DriverError> {
        if talk.out.is_empty() {
            return Ok(());
        }
        let io = &mut *talk.io;
        let mut rest = talk.out.as_slice();
        let write = async {
            while !rest.is_empty() {
                match poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, rest)).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => rest = &rest[written..],
                }
            }
            poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await
        };
        let written = timeout(self.client.options.command_timeout, write).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(DriverError::WriteFailed)?;
        talk.out.clear();
        Ok(())
    }

    async fn handshake(&self, io: &mut Box<dyn MayBeTls>) -> Result<(), DriverError> {
        Pin::new(&mut *io).encrypt();
        let ready = poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx));
        let ready = timeout(self.client.options.handshake_timeout, ready);
        tokio::select! {
            biased;
            ready = ready => ready.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            // There is no way to say why.
            () = self.client.place.asked_to_leave() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
        .map_err(DriverError::IoFailed)
    }

    /// Reads what there is, within the limits of the session's mode.
    async fn read(&self, talk: &mut Talk<'_>, state: &mut SmtpContext) -> Result<Brought, DriverError> {
        if mode(&state.session) == Mode::Content {
            let now = Instant::now();
            let began = *talk.content.get_or_insert(now);
            let options = &self.client.options;
            let until = (now + options.data_timeout).min(began + options.message_timeout);
            let chunk = if talk.plenty { CONTENT_READ_BYTES } else { COMMAND_READ_BYTES };
            return self.read_until(talk, &mut state.session.input, chunk, until, false).await;
        }
        let began = *talk.waiting.get_or_insert_with(Instant::now);
        let until = began + self.client.options.command_timeout;
        let limit = line_limit(&state.session);
        let input = &mut state.session.input;
        if input.is_empty() && input.capacity() > 2 * COMMAND_READ_BYTES {
            // What a large message needed is given back while the client thinks.
            *input = Vec::new();
        }
        let overlong = cut(input, limit);
        self.client.place.falls_silent();
        let brought = self.read_until(talk, input, COMMAND_READ_BYTES, until, true).await;
        self.client.place.speaks();
        if overlong {
            skip(input, limit);
        }
        brought
    }

    async fn read_until(
        &self,
        talk: &mut Talk<'_>,
        input: &mut Vec<u8>,
        chunk: usize,
        until: Instant,
        between_commands: bool,
    ) -> Result<Brought, DriverError> {
        let shutdown = &self.client.shared.shutdown;
        let kept = input.len();
        input.resize(kept + chunk, 0);
        let brought = loop {
            let io = &mut *talk.io;
            let read = poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, &mut input[kept..]));
            let until = talk.drain.map_or(until, |drain| drain.min(until));
            tokio::select! {
                biased;
                octets = read => break octets.map_err(DriverError::IoFailed),
                () = shutdown.cancelled(), if between_commands || talk.drain.is_none() => {
                    if between_commands {
                        input.truncate(kept);
                        return Ok(Brought::Shutdown);
                    }
                    talk.drain = Some(Instant::now() + self.client.options.drain_timeout);
                }
                () = self.client.place.asked_to_leave(), if between_commands => {
                    input.truncate(kept);
                    return Ok(Brought::Wanted);
                }
                () = sleep_until(until) => {
                    input.truncate(kept);
                    return Ok(Brought::TimedOut);
                }
            }
        };
        let octets = *brought.as_ref().unwrap_or(&0);
        talk.plenty = octets == chunk;
        input.truncate(kept + octets);
        brought.map(|octets| if octets == 0 { Brought::End } else { Brought::Octets })
    }
}

/// Cuts a line that is too long already, and has no end yet, to `limit` octets and a final CR that
/// may belong to its end; true when it is that long.
fn cut(input: &mut Vec<u8>, limit: usize) -> bool {
    if input.len() > limit {
        let half = input.last() == Some(&b'\r');
        input.truncate(limit);
        if half {
            input.push(b'\r');
        }
    }
    input.len() >= limit
}

/// Takes out what lies between the first `limit` octets of an overlong line and its end, if that has
/// come: the parser sees a line that is too long, and the next one after it.
fn skip(input: &mut Vec<u8>, limit: usize) {
    let from = limit - 1;
    if let Some(end) = memmem::find(&input[from..], b"\r\n")
        && from + end > limit
    {
        input.drain(limit..from + end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlong_line_is_cut_and_skipped_to_its_end_in_any_split() {
        let line = [&b"x".repeat(100)[..], b"\ry\nz\r", b"\r\nNOOP\r\n"].concat();
        for step in 1..line.len() {
            let mut input = Vec::new();
            for piece in line.chunks(step) {
                let overlong = memmem::find(&input, b"\r\n").is_none() && cut(&mut input, 10);
                input.extend_from_slice(piece);
                if overlong {
                    skip(&mut input, 10);
                }
                assert!(input.len() <= 11 + step.max(30), "step {step}");
            }
            let end = memmem::find(&input, b"\r\n").unwrap();
            assert!(end + 2 > 10, "step {step}: still seen as too long");
            assert_eq!(&input[end + 2..], b"NOOP\r\n", "step {step}");
        }
    }
}
