//! The bytes of one connection for samotop: clear text first, TLS from the moment it is asked for.
//!
//! `encrypt` starts the handshake; reads, writes and flushes wait for it. What the handshake agreed on
//! is told through [`TlsFacts`]. After an error nothing is read or written any more.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use rustls::{ProtocolVersion, ServerConnection};
use samotop_core::common::io::{Read, Write};
use samotop_core::io::tls::{MayBeTls, TlsUpgrade};
use tokio::io::ReadBuf;

use crate::net::tcp::Stream;
use crate::net::tls::{ServerFacts, ServerTls};
use crate::net::world::Clock;
use crate::submission::certificates::{Certificates, Shown};
use crate::submission::scram::Binding;

type Accepted = (Box<dyn Stream>, TlsSession);

/// The handshake, and what is known of the session then.
async fn accept(
    tls: Arc<ServerTls>,
    asking: Option<Asking>,
    stream: Box<dyn Stream>,
) -> io::Result<Accepted> {
    let acceptor = if asking.is_some() { tls.asking_acceptor() } else { tls.acceptor() };
    let stream = acceptor.accept(stream).await?;
    let connection = stream.get_ref().1;
    let session = TlsSession {
        facts: ServerFacts::of(connection),
        binding: binding(connection),
        certificate: asking.and_then(|asking| asking.judge(connection)),
    };
    Ok((Box::new(stream), session))
}

/// What judges a certificate that a client is asked for.
pub(super) struct Asking {
    pub(super) certificates: Arc<Certificates>,
    pub(super) clock: Arc<dyn Clock>,
    /// For the log.
    pub(super) listener: String,
    pub(super) client: IpAddr,
}

impl Asking {
    /// Also of a resumed session: by the lists and the hour of now.
    fn judge(&self, connection: &ServerConnection) -> Option<Shown> {
        let shown = self.certificates.judge(connection.peer_certificates()?, self.clock.now())?;
        let Self { listener, client, .. } = self;
        match &shown.user {
            Ok(user) => {
                tracing::debug!(listener, %client, user, sha256 = %shown.sha256, "client certificate shown")
            }
            Err(why) => {
                tracing::info!(listener, %client, why, sha256 = %shown.sha256, "client certificate does not count");
            }
        }
        Some(shown)
    }
}

/// A TLS session with a client.
#[derive(Debug)]
pub(in crate::submission) struct TlsSession {
    /// What it negotiated.
    pub(super) facts: ServerFacts,
    /// What SCRAM binds a login to, where the session has that.
    pub(super) binding: Option<Binding>,
    /// The client's certificate, if one was asked for and shown.
    pub(super) certificate: Option<Shown>,
}

impl Deref for TlsSession {
    type Target = ServerFacts;
    fn deref(&self) -> &ServerFacts {
        &self.facts
    }
}

/// RFC 9266 §2. Only for TLS 1.3: in TLS 1.2 it is worth something with an extended master secret
/// alone (§3), and rustls does not tell whether there is one.
fn binding(session: &ServerConnection) -> Option<Binding> {
    (session.protocol_version() == Some(ProtocolVersion::TLSv1_3)).then_some(())?;
    session.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()
}

/// Where the facts of the TLS session will be once there is one.
pub(super) type TlsFacts = Arc<OnceLock<TlsSession>>;

/// One connection.
pub(super) struct Wire {
    state: State,
    tls: Option<Arc<ServerTls>>,
    asking: Option<Asking>,
    facts: TlsFacts,
}

enum State {
    Clear(Box<dyn Stream>),
    /// The lock is never taken: it makes the future `Sync`, which samotop asks for.
    Handshake(Mutex<BoxFuture<'static, io::Result<Accepted>>>),
    Encrypted(Box<dyn Stream>),
    /// After an error.
    Broken,
}

impl Wire {
    /// A connection in clear text that can be encrypted if `tls` is given.
    pub(super) fn new(
        stream: Box<dyn Stream>,
        tls: Option<Arc<ServerTls>>,
        asking: Option<Asking>,
        facts: TlsFacts,
    ) -> Self {
        Self { state: State::Clear(stream), tls, asking, facts }
    }

    /// The stream, after the handshake if there is one to be waited for.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Stream>>> {
        if let State::Handshake(handshake) = &mut self.state {
            let handshake = handshake.get_mut().unwrap_or_else(PoisonError::into_inner);
            match ready!(handshake.as_mut().poll(cx)) {
                Ok((stream, facts)) => {
                    // Set once: a wire is encrypted once.
                    let _ = self.facts.set(facts);
                    self.state = State::Encrypted(stream);
                }
                Err(error) => {
                    self.state = State::Broken;
                    return Poll::Ready(Err(error));
                }
            }
        }
        match &mut self.state {
            State::Clear(stream) | State::Encrypted(stream) => Poll::Ready(Ok(Pin::new(&mut **stream))),
            State::Handshake(_) | State::Broken => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn settle<T>(&mut self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(outcome, Poll::Ready(Err(_))) {
            self.state = State::Broken;
        }
        outcome
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.poll_stream(cx))?;
        let mut buffer = ReadBuf::new(buffer);
        let outcome = stream.poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len());
        self.settle(outcome)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = ready!(self.poll_stream(cx))?.poll_write(cx, bytes);
        self.settle(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = ready!(self.poll_stream(cx))?.poll_flush(cx);
        self.settle(outcome)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = ready!(self.poll_stream(cx))?.poll_shutdown(cx);
        self.settle(outcome)
    }
}

impl MayBeTls for Wire {
    /// Never: TLS comes with the listener, not from a samotop provider.
    fn enable_encryption(&mut self, _upgrade: Box<dyn TlsUpgrade>, _name: String) {}

    fn encrypt(mut self: Pin<&mut Self>) {
        let state = std::mem::replace(&mut self.state, State::Broken);
        if let (State::Clear(stream), Some(tls)) = (state, self.tls.take()) {
            self.state = State::Handshake(Mutex::new(Box::pin(accept(tls, self.asking.take(), stream))));
        }
    }

    fn can_encrypt(&self) -> bool {
        matches!(self.state, State::Clear(_)) && self.tls.is_some()
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.state, State::Encrypted(_))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Clear(_) => "Wire(clear)",
            State::Handshake(_) => "Wire(handshake)",
            State::Encrypted(_) => "Wire(encrypted)",
            State::Broken => "Wire(broken)",
        })
    }
}
