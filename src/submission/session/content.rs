//! Content of a message, by DATA or BDAT: from the command to the reply after its true end.
//!
//! Whatever goes wrong on the way, the octets are read to the end first, so that nothing of a message
//! is ever taken for a command; only then is the refusal said. A stray CR, LF or NUL in DATA ends the
//! session as well: some other server may see two messages there.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use samotop_core::common::S1Fut;
use samotop_core::mail::MailDispatch;
use samotop_core::smtp::{Action, DriverControl, ParseError, ParseResult, Parser, SmtpContext, SmtpSession};
use tokio::time::Instant;

use super::commands::{out_of_order, reply};
use super::lines::not_mine;
use super::sink::{Receipt, Sink, close, refusal, write};
use super::{BDAT_MODE, Client, Dialogue, Draft, Mode, Say, dialogue, mode, reset};
use crate::mail::{Reply, ReversePath};
use crate::smtp::body::{BareNewlines, LINE_BYTES_MAX, Normalizer, Unstuffer, Violation};
use crate::submission::ReceivedClient;
use crate::submission::intake::{Incoming, IntakeError, Opening, queue_reply};
use crate::submission::received::Received;

/// A message coming in, as the session sees it.
#[derive(Debug)]
pub(super) struct Transfer {
    framing: Framing,
    /// What will be said at the end; from then on content is thrown away.
    refusal: Option<Reply>,
    /// For the log.
    from: Option<ReversePath>,
    recipients: usize,
    receipt: Receipt,
}

/// Where content ends.
#[derive(Debug, Clone)]
enum Framing {
    /// At CRLF dot CRLF; strays are mended by the second, where they are not refused.
    Dots(Unstuffer, Option<Normalizer>),
    /// After so many octets, chunk by chunk.
    Chunks {
        /// Octets of this chunk still to come.
        left: u64,
        /// Octets of this chunk.
        size: u64,
        /// It is the last.
        last: bool,
        lines: Normalizer,
    },
}

impl Framing {
    fn violation(&self) -> Option<Violation> {
        match self {
            Self::Dots(_, Some(lines)) | Self::Chunks { lines, .. } => lines.violation(),
            Self::Dots(unstuffer, None) => unstuffer.violation(),
        }
    }

    /// A line end other than CRLF was made one.
    fn was_mended(&self) -> bool {
        matches!(self, Self::Dots(unstuffer, Some(_)) if unstuffer.violation().is_some())
    }
}

/// Some content, unstuffed.
#[derive(Debug)]
pub(super) struct Piece {
    content: Vec<u8>,
    framing: Framing,
    /// The content or the chunk has ended.
    ended: bool,
}

/// Reads content.
#[derive(Debug)]
pub(super) struct Pieces;

impl Parser<Piece> for Pieces {
    fn parse(&self, input: &[u8], state: &SmtpContext) -> ParseResult<Piece> {
        if mode(&state.session) != Mode::Content {
            return not_mine();
        }
        let Some(transfer) = state.get::<Dialogue>().and_then(|now| now.transfer.as_ref()) else {
            return not_mine();
        };
        if input.is_empty() {
            return Err(ParseError::Incomplete);
        }
        let mut framing = transfer.framing.clone();
        let mut content = Vec::with_capacity(input.len());
        let (used, ended) = match &mut framing {
            Framing::Dots(unstuffer, None) => unstuffer.feed(input, &mut content),
            Framing::Dots(unstuffer, Some(lines)) => {
                let mut raw = Vec::with_capacity(input.len());
                let (used, ended) = unstuffer.feed(input, &mut raw);
                lines.feed(&raw, &mut content);
                if ended {
                    lines.finish(&mut content);
                }
                (used, ended)
            }
            Framing::Chunks { left, last, lines, .. } => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                lines.feed(&input[..used], &mut content);
                *left -= used as u64;
                if *left == 0 && *last {
                    lines.finish(&mut content);
                }
                (used, *left == 0)
            }
        };
        Ok((used, Piece { content, framing, ended }))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Content(pub(super) Arc<Client>);

impl Action<Piece> for Content {
    fn apply<'a, 's, 'f>(&'a self, piece: Piece, state: &'s mut SmtpContext) -> S1Fut<'f, ()>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(self.take(piece, state))
    }
}

impl Client {
    /// Whether the Received field names it.
    fn is_told_of(&self, authenticated: bool) -> bool {
        match self.listener.received_client {
            ReceivedClient::Full => true,
            ReceivedClient::OmitForUsers => !authenticated,
            ReceivedClient::Omit => false,
        }
    }
}

impl Content {
    /// `DATA`
    pub(super) async fn data(&self, state: &mut SmtpContext) {
        if dialogue(state).transfer.is_some() {
            // RFC 3030 §2: not after BDAT.
            return self.0.reproach(state, &out_of_order("BDAT has begun this message"));
        }
        let draft = match ready_draft(state) {
            Ok(draft) => draft,
            Err(refusal) => return self.0.reproach(state, &refusal),
        };
        let bare = self.0.listener.bare_newlines;
        let mend = (bare == BareNewlines::Normalise).then(Normalizer::default);
        match self.open(draft, Framing::Dots(Unstuffer::new(bare), mend), state).await {
            Ok(()) => {
                state.session.mode = Some(SmtpSession::DATA_MODE);
                let go = b"354 End data with <CR><LF>.<CR><LF>\r\n".to_vec();
                state.session.say(DriverControl::Response(go));
            }
            Err(refusal) => {
                reset(state);
                self.0.refuse(state, &refusal);
            }
        }
    }

    /// `BDAT size [LAST]`; the octets are read even if the message is refused (RFC 3030 §2).
    pub(super) async fn bdat(&self, size: u64, last: bool, state: &mut SmtpContext) {
        let chunk = |lines| Framing::Chunks { left: size, size, last, lines };
        if let Some(transfer) = &mut dialogue(state).transfer {
            if let Framing::Chunks { lines, .. } = &transfer.framing {
                transfer.framing = chunk(lines.clone());
            }
        } else {
            let opened = match ready_draft(state) {
                Err(_) if self.0.needs_tls() => Err(reply(530, 7, 0, "say STARTTLS first")),
                Ok(draft) => self.open(draft, chunk(Normalizer::default()), state).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = opened {
                dialogue(state).transfer = Some(Transfer {
                    framing: chunk(Normalizer::default()),
                    refusal: Some(refusal),
                    from: None,
                    recipients: 0,
                    receipt: Receipt::default(),
                });
            }
        }
        state.session.mode = Some(BDAT_MODE);
        if size == 0 {
            self.end_empty_chunk(state).await;
        }
    }

    /// A chunk without octets gives the parser nothing to see.
    async fn end_empty_chunk(&self, state: &mut SmtpContext) {
        let Some(transfer) = &dialogue(state).transfer else { return };
        let mut framing = transfer.framing.clone();
        let mut content = Vec::new();
        if let Framing::Chunks { last: true, lines, .. } = &mut framing {
            lines.finish(&mut content);
        }
        self.take(Piece { content, framing, ended: true }, state).await;
    }

    /// Puts the body sink in place.
    async fn open(&self, draft: Draft, framing: Framing, state: &mut SmtpContext) -> Result<(), Reply> {
        let client = &self.0;
        let now = dialogue(state);
        let (esmtp, authenticated) = (now.esmtp, now.login.is_some());
        let (message_size, author_rule) = (client.message_size(now), client.author_rule(now));
        let submitted_by_user = client.user(now).is_some();
        let id = client.shared.inbox.allocate_id();
        let received_at = client.shared.clock.now();
        let received = Received {
            client: client
                .is_told_of(authenticated)
                .then(|| (state.session.peer_name.as_deref().unwrap_or_default(), client.peer.ip())),
            hostname: &client.options.hostname,
            esmtp,
            tls: client.facts.get().map(|session| &session.facts),
            authenticated,
            smtputf8: draft.envelope.smtputf8,
            id,
            recipients: &draft.envelope.recipients,
            at: received_at,
        }
        .render();
        let receipt: Receipt = Arc::new(OnceLock::new());
        let transfer = Transfer {
            framing,
            refusal: None,
            from: Some(draft.envelope.reverse_path.clone()),
            recipients: draft.envelope.recipients.len(),
            receipt: receipt.clone(),
        };
        let opening = Opening {
            id,
            envelope: draft.envelope,
            received,
            received_at,
            message_size,
            author_rule,
            complete_as: submitted_by_user.then(|| client.options.hostname.clone()),
        };
        let incoming = Incoming::new(client.shared.inbox.clone(), opening);
        state.session.transaction.id = id.to_string();
        state.session.transaction.sink = Some(Box::pin(Sink::new(incoming, receipt)));
        let service = state.service();
        let opened = service.open_mail_body(&mut state.session).await;
        opened.map_err(|_| queue_reply(false))?;
        dialogue(state).transfer = Some(transfer);
        Ok(())
    }

    async fn take(&self, piece: Piece, state: &mut SmtpContext) {
        let Piece { content, framing, ended } = piece;
        let violation = framing.violation();
        let Some(transfer) = &mut dialogue(state).transfer else { return };
        transfer.framing = framing;
        if let Some(violation) = violation {
            transfer.refusal = Some(violation_reply(violation));
        }
        if transfer.refusal.is_some() {
            // The sink has nothing more to do; body mode goes on to the true end.
            state.session.transaction.sink = None;
        } else if let Err(error) = write(&mut state.session, &content).await {
            self.sink_failed(&error, state);
        }
        if ended {
            self.end(state).await;
        }
    }

    fn sink_failed(&self, error: &io::Error, state: &mut SmtpContext) {
        let why = refusal(error);
        tracing::debug!(error = %error, "the message is refused at its end");
        if matches!(why, Some(IntakeError::Author(_))) {
            self.0.shared.metrics.limited(&self.0.listener.name, "author");
        }
        let reply = why.map_or_else(|| queue_reply(false), |error| error.reply());
        state.session.transaction.sink = None;
        if let Some(transfer) = &mut dialogue(state).transfer {
            transfer.refusal = Some(reply);
        }
    }

    /// The content or the chunk has ended: the reply.
    async fn end(&self, state: &mut SmtpContext) {
        let Some(transfer) = &dialogue(state).transfer else { return };
        let stray = matches!(transfer.framing, Framing::Dots(..))
            && matches!(transfer.framing.violation(), Some(violation) if violation != Violation::LineTooLong);
        if let (Framing::Chunks { size, last: false, .. }, None) = (&transfer.framing, &transfer.refusal) {
            let text = format!("{size} octets received");
            state.session.mode = None;
            return state.session.say_line(250, "2.0.0", &text);
        }
        let begun = Instant::now();
        if transfer.refusal.is_none()
            && let Err(error) = close(&mut state.session).await
        {
            if let Some(IntakeError::Queue(error)) = refusal(&error) {
                tracing::error!(%error, "a message could not be queued");
            }
            self.sink_failed(&error, state);
        }
        let Some(transfer) = dialogue(state).transfer.take() else { return };
        if let Some(reply) = transfer.refusal.as_ref().filter(|_| transfer.from.is_some()) {
            let (queue_id, now) = (state.session.transaction.id.clone(), dialogue(state));
            let (listener, client) = (&self.0.listener.name, self.0.peer.ip());
            tracing::info!(queue_id, listener, %client, user = self.0.user(now), %reply, "message refused");
        }
        let reservation = dialogue(state).reservation.take();
        if let (None, Some(reservation)) = (&transfer.refusal, reservation) {
            reservation.spend(Instant::now());
        }
        reset(state);
        match transfer.refusal {
            None => self.accepted(&transfer, begun.elapsed(), state),
            // Out of order: counts as an error.
            Some(refusal) if matches!(refusal.code, 503 | 530) => self.0.reproach(state, &refusal),
            Some(refusal) => self.0.refuse(state, &refusal),
        }
        if stray {
            state.session.shutdown();
        }
    }

    fn accepted(&self, transfer: &Transfer, took: Duration, state: &mut SmtpContext) {
        let Some(queued) = transfer.receipt.get() else {
            return self.0.refuse(state, &queue_reply(false));
        };
        let now = dialogue(state);
        (now.errors, now.junk) = (0, 0);
        let recipients = transfer.recipients as u64;
        self.0.shared.metrics.accepted(&self.0.listener.name, queued.size, recipients, took);
        tracing::info!(
            queue_id = %queued.id,
            from = transfer.from.as_ref().map(tracing::field::display),
            size = queued.size,
            nrcpt = transfer.recipients,
            listener = self.0.listener.name,
            client = %self.0.peer.ip(),
            tls = self.0.facts.get().map(|tls| tls.version),
            user = self.0.user(now),
            normalised = transfer.framing.was_mended().then_some(true),
            "message accepted"
        );
        state.session.say_line(250, "2.0.0", &format!("Ok: queued as {}", queued.id));
    }
}

/// The transaction, if content may come now.
fn ready_draft(state: &mut SmtpContext) -> Result<Draft, Reply> {
    let draft = &mut dialogue(state).draft;
    match draft {
        None => Err(out_of_order("say MAIL first")),
        Some(Draft { envelope, refused: 0 }) if envelope.recipients.is_empty() => {
            Err(out_of_order("say RCPT first"))
        }
        Some(Draft { envelope, .. }) if envelope.recipients.is_empty() => {
            Err(reply(554, 5, 1, "no valid recipients"))
        }
        Some(_) => draft.take().ok_or_else(|| out_of_order("say MAIL first")),
    }
}

fn violation_reply(violation: Violation) -> Reply {
    match violation {
        Violation::BareCr => reply(550, 5, 2, "CR without LF in the message"),
        Violation::BareLf => reply(550, 5, 2, "LF without CR in the message"),
        Violation::Nul => reply(550, 5, 2, "NUL in the message"),
        Violation::LineTooLong => {
            reply(550, 6, 0, &format!("a line of the message is longer than {LINE_BYTES_MAX} octets"))
        }
    }
}
