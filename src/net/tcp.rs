//! Outgoing TCP: source address, time limit, address guard.
//!
//! One connection per call, to one address: the order of addresses and what follows a failure are
//! the caller's. Never resolves names. Called by `delivery`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;

use super::guard::AddressGuard;

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
}

/// The dialling door.
pub trait Dial: Send + Sync {
    /// Connects within the time, from a configured source address of the same family.
    ///
    /// An address that is not globally routable is refused with
    /// [`io::ErrorKind::PermissionDenied`] and a sentence, unless allowed.
    fn dial(&self, to: SocketAddr, within: Duration) -> BoxFuture<'_, io::Result<Connection>>;
}

/// How to dial.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Local addresses to connect from, taken in turn within a family. A family without one here is
    /// left to the kernel.
    pub source_addresses: Vec<IpAddr>,
}

/// The real door.
#[derive(Debug)]
pub struct TcpDialer {
    sources_v4: Vec<IpAddr>,
    sources_v6: Vec<IpAddr>,
    turn: AtomicUsize,
    guard: AddressGuard,
}

impl TcpDialer {
    /// A dialler that asks `guard` about every address.
    pub fn new(options: Options, guard: AddressGuard) -> Self {
        let (sources_v4, sources_v6) = options.source_addresses.into_iter().partition(IpAddr::is_ipv4);
        Self { sources_v4, sources_v6, turn: AtomicUsize::new(0), guard }
    }

    /// The next source address for this family, round robin.
    fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let sources = if to.is_ipv4() { &self.sources_v4 } else { &self.sources_v6 };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        sources.get(turn.checked_rem(sources.len())?).copied()
    }

    async fn connect(&self, to: SocketAddr, within: Duration) -> io::Result<Connection> {
        // An IPv4-mapped address is dialled as what it is, so that source and guard agree on it.
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.guard
            .check(to.ip())
            .map_err(|sentence| io::Error::new(io::ErrorKind::PermissionDenied, sentence))?;
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source(to.ip()) {
            socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
                let text = format!("cannot connect from source address {source}: {error}");
                io::Error::new(error.kind(), text)
            })?;
        }
        let stream = tokio::time::timeout(within, socket.connect(to)).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {to} within {within:?}"))
        })??;
        // SMTP is many small writes, each waited for.
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok().map(|address| address.ip());
        Ok(Connection { stream: Box::new(stream), local, remote: to })
    }
}

impl Dial for TcpDialer {
    fn dial(&self, to: SocketAddr, within: Duration) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(self.connect(to, within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const SHORT: Duration = Duration::from_secs(10);

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
            let error = dialer.dial(to, SHORT).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("loopback"), "{error}");
        }
    }

    #[tokio::test]
    async fn source_addresses_of_the_family_are_used_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source_addresses = ["127.0.0.5", "fd00::5", "127.0.0.6"].map(|ip| ip.parse().unwrap()).to_vec();
        let dialer = TcpDialer::new(Options { source_addresses }, loopback());
        let mut seen = Vec::new();
        for _ in 0..4 {
            let connection = dialer.dial(listener.local_addr().unwrap(), SHORT).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(connection.local, Some(peer.ip()));
            seen.push(peer.ip().to_string());
        }
        assert_eq!(seen, ["127.0.0.5", "127.0.0.6", "127.0.0.5", "127.0.0.6"]);
    }

    #[tokio::test]
    async fn a_source_address_that_is_not_ours_is_named_in_the_error() {
        let source_addresses = vec!["198.51.100.1".parse().unwrap()];
        let dialer = TcpDialer::new(Options { source_addresses }, loopback());
        let error = dialer.dial("127.0.0.1:9".parse().unwrap(), SHORT).await.err().unwrap();
        assert!(error.to_string().contains("source address 198.51.100.1"), "{error}");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dialer = TcpDialer::new(Options::default(), loopback());
        let error = dialer.dial(free, SHORT).await.err().unwrap();
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
            match dialer.dial(to, Duration::from_millis(200)).await {
                Ok(connection) => held.push(connection),
                Err(error) => break error,
            }
            assert!(held.len() < 16, "the backlog never fills");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
