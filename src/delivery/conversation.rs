//! One SMTP connection: the driver loop around `smtp::client::Session`, from greeting to QUIT.
//!
//! Does what the session asks, tells it what happened, and keeps the facts of the TLS handshake.
//! Never decides: the plan comes in, ends go out. Invariant I4 lives here: `handle_tls(Ok)` is said
//! only when [`TlsFacts::verify`] passed, and [`Conversation::meets`] is asked before every message.
//! Called by `delivery::attempt` and `delivery::pool`.

mod chunks;
mod content;

use std::future::{Future as _, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use self::content::{BLOCK_BYTES, read, send, send_body, send_chunk};
use super::evidence::Rendered;
use crate::mail::Domain;
use crate::metrics::Protection;
use crate::net::tcp::{Connection, Stream};
use crate::net::tls::{ClientTls, TlsFacts};
use crate::route::DnssecStatus;
use crate::smtp::client::{
    Action, Credentials, Phase, Session, SessionEnd, Timeouts, TlsUse, Transaction, TransactionEnd,
};
use crate::store::Body;
use crate::tlspolicy::{Requirement, Rule, TlsFailure, TlsPlan};

/// Time for QUIT and its answer (RFC 5321 §4.1.1.10: say it, but wait for nobody long).
const QUIT_WITHIN: Duration = Duration::from_secs(5);

/// How long after a host's last word its connection counts as lively.
const LIVELY: Duration = Duration::from_secs(1);

/// How a session is to be held, beside what it must prove.
#[derive(Debug, Clone)]
pub struct Manner<'a> {
    /// How TLS is used.
    pub tls: TlsUse,
    /// Our login there, if it wants one.
    pub credentials: Option<&'a Credentials>,
    /// Our name where the connection's source address has none of its own.
    pub ehlo_name: &'a Domain,
}

/// What was seen of TLS on a connection; what TLS-RPT counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSeen {
    /// The session ended before a STARTTLS decision, or TLS was not even wanted.
    NotReached,
    /// The server had no STARTTLS and the session went on, or ended, in clear.
    Clear(TlsFailure),
    /// The handshake did not complete.
    Failed(TlsFailure),
    /// The handshake completed; the facts say what it proved.
    Established(TlsFacts),
}

/// What was counted of a session.
#[derive(Debug)]
pub struct Counted {
    seen: TlsSeen,
    domains: Vec<Domain>,
}

/// An open SMTP session on a connection.
pub struct Conversation {
    session: Session,
    stream: Option<Box<dyn Stream>>,
    timeouts: Timeouts,
    tls: Arc<ClientTls>,
    name: Domain,
    /// What was seen of TLS.
    pub seen: TlsSeen,
    /// A session was offered for resumption, and that did not lead to one which meets the plan: a full
    /// handshake on a new connection may.
    pub resumption_failed: bool,
    /// Our address.
    pub local: Option<IpAddr>,
    /// Their address.
    pub remote: SocketAddr,
    /// When the connection was made.
    pub opened_at: Instant,
    /// When the host last said something.
    heard_at: Instant,
    /// Transactions carried so far.
    pub carried: u32,
    /// What is kept as evidence of it, from the last message.
    pub(super) evidence: Option<Box<Rendered>>,
    /// Report domains this session has been counted for.
    counted: Vec<Domain>,
}

enum Stop {
    Idle,
    Closed,
}

impl Conversation {
    /// Takes a fresh connection through greeting, EHLO, STARTTLS and login until it is ready for mail.
    ///
    /// # Errors
    /// The session's end; `seen` of the returned conversation still tells what TLS showed.
    pub async fn open(
        connection: Connection,
        tls: Arc<ClientTls>,
        plan: &TlsPlan,
        manner: &Manner<'_>,
        timeouts: Timeouts,
    ) -> (Self, Result<(), SessionEnd>) {
        let tls_use = manner.tls;
        let ehlo_name = connection.hostname.as_ref().unwrap_or(manner.ehlo_name);
        // A password is for the server that is meant: under a plan that proves less than that, none is shown.
        let credentials = manner.credentials.filter(|_| plan.require.authenticates()).cloned();
        let mut conversation = Self {
            session: Session::new(ehlo_name.as_str(), tls_use, timeouts.clone()).logging_in(credentials),
            timeouts,
            stream: Some(connection.stream),
            tls,
            name: plan.name.clone(),
            seen: TlsSeen::NotReached,
            resumption_failed: false,
            local: connection.local,
            remote: connection.remote,
            opened_at: Instant::now(),
            heard_at: Instant::now(),
            carried: 0,
            evidence: None,
            counted: Vec::new(),
        };
        let stop = conversation.drive(Some(plan), None).await;
        let end = match stop {
            Stop::Idle => Ok(()),
            Stop::Closed => Err(conversation.end()),
        };
        if conversation.seen == TlsSeen::NotReached && tls_use != TlsUse::Never {
            match &end {
                Err(SessionEnd::Tls(failure)) => conversation.seen = TlsSeen::Clear(failure.clone()),
                Ok(()) => {
                    conversation.seen = TlsSeen::Clear(match conversation.session.starttls_refusal() {
                        Some(reply) => TlsFailure::Refused(format!("refused with {reply}")),
                        None => TlsFailure::NotOffered("the host does not offer it".to_owned()),
                    });
                }
                Err(_) => {}
            }
        }
        (conversation, end)
    }

    /// Whether this connection may carry a message with this plan (invariants I4, I10).
    pub fn meets(&self, plan: &TlsPlan) -> bool {
        match &self.seen {
            TlsSeen::Established(facts) => {
                // Under another SNI the host might have shown another certificate.
                facts.sni == plan.sni && facts.name == plan.name && facts.verify(&plan.require).is_ok()
            }
            _ => self.name == plan.name && plan.require.allows_cleartext(),
        }
    }

    /// Whether content of the next transactions goes out by BDAT where the host offers it.
    pub fn use_chunking(&mut self, on: bool) {
        self.session.use_chunking(on);
    }

    /// Whether the last transaction broke where its content was sent by BDAT.
    pub fn broke_in_bdat(&self) -> bool {
        match self.session.end() {
            Some(SessionEnd::BdatUnknown(_)) => true,
            Some(SessionEnd::Lost { phase: Phase::Body | Phase::Dot, .. }) => self.session.chunks(),
            // In one flight it may not even come to the answers before.
            Some(SessionEnd::Lost { .. }) => self.session.sent_by_bdat(),
            _ => false,
        }
    }

    /// Carries one transaction; the session is idle or over afterwards.
    pub async fn carry(&mut self, transaction: Transaction, body: &Body) -> TransactionEnd {
        let recipients = transaction.recipients.len();
        let flies = self.may_fly(body).await;
        self.session.use_one_flight(flies);
        self.session.begin(transaction);
        self.carried = self.carried.saturating_add(1);
        self.drive(None, Some(body)).await;
        self.session
            .take_result()
            .unwrap_or(TransactionEnd::Broken { replies: vec![None; recipients], uncertain: false })
    }

    /// Whether all of a transaction may go out in one flight: it takes one round trip instead of two, and
    /// where the connection turns out dead, nobody knows whether the message was taken. So only what is
    /// small, and only a moment after the host's last word, as long as there is no sign of its end.
    async fn may_fly(&mut self, body: &Body) -> bool {
        let lively = self.heard_at.elapsed() < LIVELY;
        if !lively || body.len() > BLOCK_BYTES as u64 || !self.session.can_fly() {
            return false;
        }
        let Some(stream) = self.stream.as_mut() else { return false };
        let mut buffer = Vec::new();
        // Polled once: whatever is there is not waited for.
        let word = poll_fn(|context| {
            let mut read = pin!(read(stream, &mut buffer));
            Poll::Ready(read.as_mut().poll(context))
        });
        match word.await {
            Poll::Pending => return true,
            Poll::Ready(Ok(0)) => self.session.handle_closed("the host closed the connection"),
            Poll::Ready(Ok(_)) => self.session.handle_bytes(&buffer),
            Poll::Ready(Err(error)) => self.session.handle_closed(&error.to_string()),
        }
        false
    }

    /// Whether this session has not yet been counted for a report domain; it is from now on.
    pub fn first_use_by(&mut self, report_domain: &Domain) -> bool {
        let first = !self.counted.contains(report_domain);
        if first {
            self.counted.push(report_domain.clone());
        }
        first
    }

    /// What is counted of a session whose TLS failed, for the one in clear that takes its place.
    pub fn into_counted(self) -> Counted {
        Counted { seen: self.seen, domains: self.counted }
    }

    /// This session, in clear, takes the place of one whose TLS failed. They are one to those who count:
    /// domains that have heard of the failure hear nothing more, others whose mail rides on this
    /// connection hear of it.
    pub fn take_place_of(&mut self, failed: Counted) {
        // I10: what was established on another connection proves nothing of this one.
        if !matches!(failed.seen, TlsSeen::Established(_)) {
            self.seen = failed.seen;
        }
        self.counted = failed.domains;
    }

    /// Whether another transaction can be begun.
    pub fn is_open(&self) -> bool {
        self.stream.is_some() && self.session.end().is_none()
    }

    /// Why the session is over.
    pub fn end(&self) -> SessionEnd {
        self.session.end().cloned().unwrap_or_else(|| SessionEnd::Lost {
            phase: Phase::Quit,
            text: "the session stopped early".to_owned(),
        })
    }

    /// The name the server gave in its banner or EHLO reply.
    pub fn server_name(&self) -> Option<&str> {
        self.session.server_name()
    }

    /// Whether the server passes DSN parameters on (RFC 3461 §5.2.2).
    pub fn offers_dsn(&self) -> bool {
        self.session.extensions().dsn
    }

    /// Whether the server promises to protect such a message further on (RFC 8689 §2).
    pub fn offers_requiretls(&self) -> bool {
        self.session.extensions().require_tls
    }

    /// `TLSv1.3 TLS13_AES_256_GCM_SHA384`, with `(resumed)` where it is; if inside TLS.
    pub fn tls_text(&self) -> Option<String> {
        match &self.seen {
            TlsSeen::Established(facts) => {
                let resumed = if facts.resumed { " (resumed)" } else { "" };
                Some(format!("{} {}{resumed}", facts.version, facts.cipher))
            }
            _ => None,
        }
    }

    /// What is proven about the peer of a session that meets this plan: by TLSA records, by PKIX, `none`
    /// inside unauthenticated TLS; absent in clear.
    pub fn verified_text(&self, plan: &TlsPlan) -> Option<&'static str> {
        let TlsSeen::Established(facts) = &self.seen else { return None };
        let vouched = plan.mx_status == DnssecStatus::Secure;
        Some(match &plan.require {
            Requirement::Dane { .. } if vouched => "dane",
            // RFC 7672 §2.2.1: nobody vouches that this host serves the domain.
            Requirement::Dane { .. } => "dane, mx host only",
            Requirement::DaneAndPkix { .. } => "dane and pkix",
            _ if facts.pkix.is_ok() => "pkix",
            _ => "none",
        })
    }

    /// What protects mail on a session that meets this plan.
    pub fn protection(&self, plan: &TlsPlan) -> Protection {
        if !matches!(self.seen, TlsSeen::Established(_)) {
            return Protection::Clear;
        }
        match (&plan.require, plan.rule) {
            (Requirement::Dane { .. } | Requirement::DaneAndPkix { .. }, _) => Protection::Dane,
            (Requirement::Pkix { .. }, Rule::StsEnforce) => Protection::StsEnforce,
            (Requirement::Pkix { .. } | Requirement::Encrypt, _) => Protection::Demanded,
            (Requirement::Opportunistic, Rule::StsTesting) => Protection::StsTesting,
            (Requirement::Opportunistic, _) => Protection::Opportunistic,
        }
    }

    /// Says QUIT and closes, within a few seconds.
    pub async fn quit(mut self) {
        if self.is_open() {
            self.session.quit();
            // Nothing depends on the answer; the connection is dropped either way.
            let _ = timeout(QUIT_WITHIN, self.drive(None, None)).await;
        }
        if let Some(mut stream) = self.stream.take() {
            let _ = timeout(QUIT_WITHIN, stream.shutdown()).await;
        }
    }

    async fn drive(&mut self, plan: Option<&TlsPlan>, body: Option<&Body>) -> Stop {
        // Made at the first read and of the heap: in the future it would be copied with every attempt begun.
        let mut buffer = Vec::new();
        let (mut chunks, mut content_until) = (None, None);
        let envelope = self.timeouts.envelope();
        let envelope_until = body.map(|_| Instant::now() + envelope);
        // The time for a reply runs from its command, however slowly its octets drip.
        let mut reply = (u64::MAX, Instant::now());
        loop {
            let action = self.session.next_action();
            let Some(stream) = self.stream.as_mut() else {
                self.session.handle_closed("the connection is gone");
                return Stop::Closed;
            };
            match action {
                Action::Send { bytes, within } => {
                    let sent = send(stream, &bytes, within).await;
                    self.session.handle_sent(sent);
                }
                Action::Read { within } => {
                    if reply.0 != self.session.replies_read() {
                        reply = (self.session.replies_read(), Instant::now() + within);
                    }
                    // The content and the answer to it have times of their own.
                    let in_content = matches!(self.session.phase(), Phase::Body | Phase::Dot);
                    let until = envelope_until.filter(|_| !in_content);
                    let until = until.map_or(reply.1, |until| until.min(reply.1));
                    match timeout_at(until, read(stream, &mut buffer)).await {
                        Err(_) if until < reply.1 => {
                            let text = format!("no end of the envelope within {} s", envelope.as_secs());
                            self.session.handle_closed(&text);
                        }
                        Err(_) => self.session.handle_timeout(),
                        Ok(Ok(0)) => self.session.handle_closed("the host closed the connection"),
                        Ok(Ok(_)) => {
                            self.heard_at = Instant::now();
                            self.session.handle_bytes(&buffer);
                        }
                        Ok(Err(error)) => self.session.handle_closed(&error.to_string()),
                    }
                }
                Action::StartTls { within } => {
                    let result = self.start_tls(plan, within).await;
                    self.session.handle_tls(result);
                }
                Action::SendBody { within } => {
                    let sent = match body {
                        Some(body) => send_body(stream, body, within, &self.timeouts).await,
                        None => Err("no content to send".to_owned()),
                    };
                    self.session.handle_sent(sent);
                }
                Action::SendChunk { before, within } => {
                    let sent = match body {
                        Some(body) => {
                            // The time for all content runs from its first chunk, the host's answers included.
                            let until = *content_until.get_or_insert_with(|| {
                                let all = self.timeouts.content(body.len());
                                all.map(|all| Instant::now() + all)
                            });
                            let sent = send_chunk(stream, before, body, &mut chunks, within);
                            match until {
                                None => sent.await,
                                Some(until) => timeout_at(until, sent)
                                    .await
                                    .unwrap_or_else(|_| Err("content taken too slowly".to_owned())),
                            }
                        }
                        None => Err("no content to send".to_owned()),
                    };
                    self.session.handle_chunk(sent);
                }
                Action::Idle => return Stop::Idle,
                Action::Close => {
                    if let Some(mut stream) = self.stream.take() {
                        let _ = timeout(QUIT_WITHIN, stream.shutdown()).await;
                    }
                    return Stop::Closed;
                }
            }
        }
    }

    async fn start_tls(&mut self, plan: Option<&TlsPlan>, within: Duration) -> Result<(), TlsFailure> {
        let (Some(stream), Some(plan)) = (self.stream.take(), plan) else {
            return Err(TlsFailure::Lost("no connection to secure".to_owned()));
        };
        let recalled = self.tls.recall(plan);
        let resuming = recalled.is_some();
        let handshake = match timeout(within, self.tls.handshake_for(stream, plan, recalled)).await {
            Ok(handshake) => handshake,
            Err(_) => Err(TlsFailure::Lost("timed out".to_owned())),
        };
        match handshake {
            Ok((stream, facts)) => {
                self.stream = Some(stream);
                let verified = facts.verify(&plan.require);
                self.resumption_failed = facts.resumed && verified.is_err();
                self.seen = TlsSeen::Established(facts);
                verified
            }
            Err(failure) => {
                self.resumption_failed = resuming;
                if resuming {
                    self.tls.forget(plan);
                }
                self.seen = TlsSeen::Failed(failure.clone());
                Err(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests;
