//! One SMTP session, on samotop-core's session layer; this file and its folder are all that names it.
//!
//! samotop gives the context with its typed store, the session's state and output, the interpreter and
//! the service traits. Ours are the driver (all time limits and buffers), the parsers (strict, bounded),
//! the actions (what a command does) and the wire (TLS whose facts we can see).
//!
//! ```text
//! Driver     reads; one CRLF line, or what there is of a body, per interpretation
//!  Lines        -> Commands  (commands: greeting to DATA)      mode None
//!  AuthLines    -> Login     (base64 lines of an exchange)     mode "AUTH"
//!  Pieces       -> Content   (DATA and BDAT)                   mode "DATA", "BDAT"
//! ```
//!
//! Never: a body sink that fails ends body mode before the body's true end; an octet received in clear
//! outlives STARTTLS; an io is touched after its error; a samotop feature is switched on.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use samotop_core::common::S1Fut;
use samotop_core::io::tls::MayBeTls;
use samotop_core::io::{ConnectionInfo, IoService};
use samotop_core::mail::{
    AcceptsDispatch, AcceptsGuard, AcceptsInterpretter, AcceptsSessionService, Builder, MailSetup,
};
use samotop_core::smtp::{DriverControl, Interpretter, SessionService, SmtpContext, SmtpSession};
use tokio_util::sync::CancellationToken;

use self::content::{Content, Piece, Pieces, Transfer};
use self::driver::Driver;
use self::gate::Gate;
use self::lines::{AuthLine, AuthLines, Line, Lines};
use self::wire::{TlsFacts, Wire};
use super::auth::Authenticator;
use super::chatter::Chatter;
use super::intake::Inbox;
use super::places::Holder;
use super::quota::{Connection, Quotas, Reservation};
use super::sasl::{Exchange, Mechanism, Terms};
use super::users::book::Book;
use super::{ClientCertificates, ListenerAuth, ListenerOptions, ListenerTls, Options};
use crate::mail::{Domain, Envelope, Reply};
use crate::metrics::Metrics;
use crate::net::tcp::Stream;
use crate::net::tls::ServerTls;
use crate::net::world::Clock;
use crate::smtp::command::{AUTH_LINE_BYTES_MAX, COMMAND_LINE_BYTES_MAX};

mod commands;
mod content;
mod driver;
mod gate;
mod lines;
mod login;
mod rights;
mod sink;
mod wire;

/// What all sessions share.
pub(super) struct Shared {
    pub inbox: Arc<dyn Inbox>,
    pub clock: Arc<dyn Clock>,
    /// Told of every accepted recipient's domain, so that its policy is known before the first try.
    pub prefetch: Arc<dyn Fn(&Domain) + Send + Sync>,
    pub authenticator: Authenticator,
    pub chatter: Chatter,
    pub quotas: Quotas,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
}

/// What is fixed for one connection.
pub(super) struct Client {
    pub shared: Arc<Shared>,
    pub options: Arc<Options>,
    pub listener: ListenerOptions,
    pub peer: SocketAddr,
    /// A proxy could not tell the client's address, and `peer` is its own.
    pub nameless: bool,
    /// Its place among the connections.
    pub place: Holder,
    /// Its place among those of the listener, where they are limited.
    pub seat: Option<Connection>,
    /// Whether STARTTLS or implicit TLS can be had.
    pub tls: Option<Arc<ServerTls>>,
    /// The TLS session, once there is one.
    pub facts: TlsFacts,
}

impl Client {
    pub(super) fn trusted(&self) -> bool {
        self.listener.auth != ListenerAuth::Required && self.in_trusted_network()
    }

    pub(super) fn in_trusted_network(&self) -> bool {
        !self.nameless && self.listener.trusts(self.peer.ip())
    }

    /// RFC 3207 §4: nothing can be done here before TLS, by anyone.
    fn needs_tls(&self) -> bool {
        let required = self.listener.auth == ListenerAuth::Required
            || self.listener.client_certificates == ClientCertificates::Required;
        required && self.offers_starttls() && !self.offers_auth()
    }

    fn encrypted(&self) -> bool {
        self.facts.get().is_some()
    }

    fn offers_starttls(&self) -> bool {
        self.listener.tls == ListenerTls::StartTls && self.tls.is_some() && !self.encrypted()
    }

    /// RFC 4954 §9: a password in clear only where the operator said so.
    fn offers_auth(&self) -> bool {
        self.listener.auth != ListenerAuth::None && (self.encrypted() || self.listener.allow_plaintext_auth)
    }

    /// The mechanisms that EHLO names, if there are any.
    fn auth_offer(&self) -> Option<String> {
        let book = self.options.users.book();
        let offers = self.offers_auth() && !self.lacks_certificate();
        offers.then(|| self.terms(&book).names()).filter(|names| !names.is_empty())
    }

    /// What an AUTH exchange stands on now.
    fn terms<'a>(&'a self, book: &'a Book) -> Terms<'a> {
        Terms {
            chosen: &self.options.mechanisms,
            book,
            binding: self.facts.get().and_then(|session| session.binding),
            certified: self.certified(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} on {})", self.peer, self.listener.name)
    }
}

/// Holds a session from greeting to end.
pub(super) async fn hold(stream: Box<dyn Stream>, local: Option<SocketAddr>, client: Client) {
    let wire = Wire::new(stream, client.tls.clone(), client.asking(), client.facts.clone());
    let client = Arc::new(client);
    let local = local.map(|local| local.to_string()).unwrap_or_default();
    let connection = ConnectionInfo::new(local, client.peer.to_string());
    let service =
        (Builder + Setup { client: client.clone() }).build_with_driver(Driver { client: client.clone() });
    let (listener, peer, chatter) = (&client.listener.name, client.peer, &client.shared.chatter);
    tracing::debug!(listener, client = %peer.ip(), port = peer.port(), "client connected");
    match service.handle(Ok(Box::new(wire)), connection).await {
        Ok(()) => tracing::debug!(listener, client = %peer.ip(), "client left"),
        Err(error) if chatter.allows() => {
            tracing::info!(listener, client = %peer.ip(), %error, "connection broke");
        }
        Err(_) => {}
    }
}

/// Our parts, for samotop's builder.
#[derive(Debug)]
struct Setup {
    client: Arc<Client>,
}

impl<T> MailSetup<T> for Setup
where
    T: AcceptsSessionService + AcceptsGuard + AcceptsDispatch + AcceptsInterpretter,
{
    fn setup(self, config: &mut T) {
        let client = self.client;
        config.add_last_interpretter(
            Interpretter::default()
                .parse::<Line>()
                .with(Lines)
                .and_apply(commands::Commands(client.clone()))
                .parse::<Piece>()
                .with(Pieces)
                .and_apply(Content(client.clone()))
                .parse::<AuthLine>()
                .with(AuthLines)
                .and_apply(login::Login(client.clone())),
        );
        config.add_last_guard(Gate(client.clone()));
        config.add_last_dispatch(Gate(client.clone()));
        config.add_last_session_service(Greeter(client));
    }
}

/// Puts our data into the context and greets.
#[derive(Debug)]
struct Greeter(Arc<Client>);

impl SessionService for Greeter {
    fn prepare_session<'a, 'i, 's, 'f>(
        &'a self,
        _io: &'i mut Box<dyn MayBeTls>,
        state: &'s mut SmtpContext,
    ) -> S1Fut<'f, ()>
    where
        'a: 'f,
        'i: 'f,
        's: 'f,
    {
        state.set(Dialogue::default());
        state.session.service_name = self.0.options.hostname.to_string();
        let greeting = format!("220 {} ESMTP\r\n", state.session.service_name);
        state.session.say(DriverControl::Response(greeting.into_bytes()));
        Box::pin(std::future::ready(()))
    }
}

/// What samotop's session has no field for: AUTH, DSN parameters, the transfer; in the context's store.
#[derive(Debug, Default)]
struct Dialogue {
    /// EHLO, not HELO.
    esmtp: bool,
    /// Who authenticated.
    login: Option<String>,
    /// A user's place among its connections.
    connection: Option<Connection>,
    /// What the transaction may use of a quota.
    reservation: Option<Reservation>,
    /// An AUTH exchange that waits for the client.
    exchange: Option<Exchange>,
    /// The mechanism of the last one.
    mechanism: Option<Mechanism>,
    /// The transaction, from MAIL to its content.
    draft: Option<Draft>,
    /// The transaction, from its content on.
    transfer: Option<Transfer>,
    /// Commands that were none since the last message.
    errors: u32,
    /// Commands that led nowhere since the last message.
    junk: u32,
    /// Refusals in this session, for the log.
    refusals: u32,
}

/// A transaction before its content begins.
#[derive(Debug)]
struct Draft {
    envelope: Envelope,
    /// Recipients that were refused.
    refused: usize,
}

/// Access to the [`Dialogue`].
fn dialogue(state: &mut SmtpContext) -> &mut Dialogue {
    state.get_or_insert(Dialogue::default)
}

/// Ends the transaction, if there is one.
fn reset(state: &mut SmtpContext) {
    state.session.reset();
    let dialogue = dialogue(state);
    dialogue.draft = None;
    dialogue.transfer = None;
    dialogue.exchange = None;
    dialogue.reservation = None;
}

/// What the next octets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Command,
    Auth,
    Content,
}

const AUTH_MODE: &str = "AUTH";
const BDAT_MODE: &str = "BDAT";

fn mode(session: &SmtpSession) -> Mode {
    match session.mode {
        None => Mode::Command,
        Some(AUTH_MODE) => Mode::Auth,
        Some(_) => Mode::Content,
    }
}

/// Octets the line at the start of the input may have, CRLF included.
fn line_limit(session: &SmtpSession) -> usize {
    let auth = || session.input.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
    if mode(session) == Mode::Auth || auth() { AUTH_LINE_BYTES_MAX } else { COMMAND_LINE_BYTES_MAX }
}

/// Replies with enhanced codes (RFC 2034 §4: in every one but greeting, EHLO and 3yz).
trait Say {
    /// One line.
    fn say_line(&mut self, code: u16, status: &str, text: &str);
    /// One line, and the connection ends.
    fn say_last(&mut self, code: u16, status: &str, text: &str);
    /// A reply of ours.
    fn say_our(&mut self, reply: &Reply);
}

impl Say for SmtpSession {
    fn say_line(&mut self, code: u16, status: &str, text: &str) {
        self.say(DriverControl::Response(format!("{code} {status} {text}\r\n").into_bytes()));
    }

    fn say_last(&mut self, code: u16, status: &str, text: &str) {
        self.say_line(code, status, text);
        self.shutdown();
    }

    fn say_our(&mut self, reply: &Reply) {
        self.say(DriverControl::Response(format!("{reply}\r\n").into_bytes()));
    }
}

/// Where the facts of a TLS session will be.
pub(super) fn no_facts() -> TlsFacts {
    Arc::new(OnceLock::new())
}

#[cfg(test)]
mod tests;
