//! Outgoing TCP: source address, time limit, address guard.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

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
