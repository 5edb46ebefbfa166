//! Outgoing TCP: source address, time limit, address guard.
//!
//! One connection per call, to one address; [`eyeballs`] goes through several. What follows a failure
//! is the caller's. Never resolves names. Called by `delivery`.

pub mod eyeballs;
mod sources;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use self::sources::Sources;
use super::guard::AddressGuard;
use crate::mail::Domain;

pub use sources::Source;

/// A byte stream, TCP or TLS or a test's pipe.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// An open connection.
pub struct Connection {
    /// The bytes.
    pub stream: Box<dyn Stream>,
    /// Our end, for reports (`sending-mta-ip`).
    pub local: Option<IpAddr>,
    /// Their end.
    pub remote: SocketAddr,
    /// Our name in EHLO, where the source address has one of its own.
    pub hostname: Option<Domain>,
}

/// The dialling door.
pub trait Dial: Send + Sync {
    /// Connects within the time, from a configured source address of the same family; `host` is the
    /// name of the host at the address, which sees the same source address each time.
    ///
    /// An address that is not globally routable is refused with
    /// [`io::ErrorKind::PermissionDenied`] and a sentence, unless allowed.
    fn dial(&self, to: SocketAddr, host: &str, within: Duration) -> BoxFuture<'_, io::Result<Connection>>;
}

/// How to dial.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Local addresses to connect from, with their names. A family without one here is left to the
    /// kernel.
    pub source_addresses: Vec<Source>,
}

/// The real door.
#[derive(Debug)]
pub struct TcpDialer {
    sources: Sources,
    guard: AddressGuard,
}

impl TcpDialer {
    /// A dialler that asks `guard` about every address.
    pub fn new(options: Options, guard: AddressGuard) -> Self {
        Self { sources: Sources::new(options.source_addresses), guard }
    }

    fn prepare(&self, to: SocketAddr, host: &str) -> io::Result<(tokio::net::TcpSocket, Option<Domain>)> {
        self.guard
            .check(to.ip())
            .map_err(|sentence| io::Error::new(io::ErrorKind::PermissionDenied, sentence))?;
        self.sources.socket(to.ip(), host)
    }
}

impl Dial for TcpDialer {
    fn dial(&self, to: SocketAddr, host: &str, within: Duration) -> BoxFuture<'_, io::Result<Connection>> {
        // An IPv4-mapped address is dialled as what it is, so that source and guard agree on it.
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let prepared = self.prepare(to, host);
        Box::pin(async move {
            let (socket, hostname) = prepared?;
            let stream = tokio::time::timeout(within, socket.connect(to)).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {to} within {within:?}"))
            })??;
            // SMTP is many small writes, each waited for.
            stream.set_nodelay(true)?;
            let local = stream.local_addr().ok().map(|address| address.ip());
            Ok(Connection { stream: Box::new(stream), local, remote: to, hostname })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    const SHORT: Duration = Duration::from_secs(10);
    const HOST: &str = "mx.example.org";

    fn loopback() -> AddressGuard {
        AddressGuard::new(vec!["127.0.0.0/8".parse().unwrap()])
    }

    #[tokio::test]
    async fn a_private_address_is_refused_before_any_packet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = TcpDialer::new(Options::default(), AddressGuard::default());
        let to = listener.local_addr().unwrap();
        let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", to.port()).parse().unwrap();
        for to in [to, mapped] {
            let error = dialer.dial(to, HOST, SHORT).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("loopback"), "{error}");
        }
    }

    fn sources(addresses: &[&str]) -> Options {
        let source = |ip: &&str| Source { address: ip.parse().unwrap(), hostname: None };
        Options { source_addresses: addresses.iter().map(source).collect() }
    }

    #[tokio::test]
    async fn a_host_sees_its_source_address_and_the_connection_knows_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = TcpDialer::new(sources(&["127.0.0.5", "fd00::5", "127.0.0.6"]), loopback());
        let mut seen = Vec::new();
        for host in ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example"] {
            for _ in 0..2 {
                let connection = dialer.dial(listener.local_addr().unwrap(), host, SHORT).await.unwrap();
                let (_, peer) = listener.accept().await.unwrap();
                assert_eq!(connection.local, Some(peer.ip()));
                seen.push(peer.ip().to_string());
            }
        }
        assert!(seen.chunks(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
        assert!(["127.0.0.5", "127.0.0.6"].iter().all(|ip| seen.iter().any(|one| one == ip)), "{seen:?}");
    }

    #[tokio::test]
    async fn a_source_address_that_is_not_ours_is_named_in_the_error() {
        let dialer = TcpDialer::new(sources(&["198.51.100.1"]), loopback());
        let error = dialer.dial("127.0.0.1:9".parse().unwrap(), HOST, SHORT).await.err().unwrap();
        assert!(error.to_string().contains("source address 198.51.100.1"), "{error}");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dialer = TcpDialer::new(Options::default(), loopback());
        let error = dialer.dial(free, HOST, SHORT).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_costs_the_time_given() {
        // A listener whose backlog is full answers no further SYN.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let to = listener.local_addr().unwrap();
        let dialer = TcpDialer::new(Options::default(), loopback());
        let mut held = Vec::new();
        let error = loop {
            match dialer.dial(to, HOST, Duration::from_millis(200)).await {
                Ok(connection) => held.push(connection),
                Err(error) => break error,
            }
            assert!(held.len() < 16, "the backlog never fills");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
