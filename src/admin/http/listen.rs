//! Takes HTTP connections, over TCP or a Unix socket.
//!
//! Bounded: connections, octets and time of a request's head, life of a connection. What is asked goes
//! to `router`. Called by the daemon.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::super::answer::AdminHandles;
use super::super::socket::{self, AdminSocket};
use super::guard::Peer;
use super::router::{Site, router};
use super::{HttpAddress, HttpOptions};

/// Connections at a time: some browsers and scrapers, each with a few.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request, the wait for it included.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// Octets of a request's head at most.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// A connection lives no longer: longer than the slowest answer takes, so that one whose other end
/// reads nothing does not stay.
const LIFE_MAX: Duration = Duration::from_secs(1000);
/// For what is under way at the end.
const DRAIN: Duration = Duration::from_secs(10);
/// After a failed accept (no descriptors left), before trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A bound listener.
pub enum HttpListener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket; its file is removed when this is dropped.
    Unix(AdminSocket),
}

/// Binds the address; within a runtime.
///
/// # Errors
/// What is in the way, as a sentence.
pub async fn bind_http(address: &HttpAddress) -> Result<HttpListener, String> {
    match address {
        HttpAddress::Tcp(address) => match TcpListener::bind(address).await {
            Ok(listener) => Ok(HttpListener::Tcp(listener)),
            Err(error) => Err(format!("cannot listen on {address}: {error}")),
        },
        HttpAddress::Unix(path) => socket::bind(path).map(HttpListener::Unix),
    }
}

enum Accepted {
    Tcp(TcpStream, Peer),
    Unix(UnixStream),
}

impl HttpListener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, Peer::Host(peer.ip().to_canonical())))
            }
            Self::Unix(socket) => Ok(Accepted::Unix(socket.listener.accept().await?.0)),
        }
    }
}

/// Answers until `shutdown`; then what is under way has a moment to end.
pub async fn serve_http(
    listener: HttpListener,
    handles: AdminHandles,
    options: HttpOptions,
    shutdown: CancellationToken,
) {
    let router = router(&Arc::new(Site::new(handles, options)));
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        // A connection beyond the limit waits in the system's queue.
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        match accepted {
            Ok(Accepted::Tcp(stream, peer)) => connections.spawn(async move {
                let _permit = permit;
                converse(stream, peer, router, &shutdown).await;
            }),
            Ok(Accepted::Unix(stream)) => connections.spawn(async move {
                let _permit = permit;
                converse(stream, Peer::Local, router, &shutdown).await;
            }),
            Err(error) => {
                warn!(%error, "the HTTP listener could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn converse<S>(stream: S, peer: Peer, router: Router, shutdown: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        TowerToHyperService::new(router.clone()).call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = sleep(LIFE_MAX) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    /// What a client is told that says this, and for how long it is listened to.
    async fn told(said: Vec<u8>) -> (String, Duration) {
        let (mut ours, theirs) = duplex(1 << 20);
        let (begun, shutdown) = (Instant::now(), CancellationToken::new());
        let router = Router::new().route("/", get(async || "here"));
        let serve = converse(theirs, Peer::Local, router, &shutdown);
        let client = async {
            let _ = ours.write_all(&said).await;
            let mut answer = String::new();
            let _ = ours.read_to_string(&mut answer).await;
            answer
        };
        let ((), answer) = tokio::join!(serve, client);
        (answer, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_no_end_is_not_waited_for() {
        let whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        for (said, answered) in [
            (Vec::new(), false),
            (b"GET / HT".to_vec(), false),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_vec(), false),
            // Answered, and then idle.
            (whole, true),
        ] {
            let (answer, after) = told(said).await;
            assert_eq!(answer.ends_with("here"), answered, "{answer}");
            assert!(after <= HEAD_WITHIN + Duration::from_secs(1), "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_without_end_is_refused() {
        let mut said = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ".to_vec();
        said.resize(HEAD_BYTES_MAX + 1024, b'x');
        let (answer, after) = told(said).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(after < HEAD_WITHIN, "{after:?}");
    }
}
