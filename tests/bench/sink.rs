//! Receiving MX hosts: TLS 1.3 after STARTTLS, take everything by DATA or BDAT, count by number. Answers
//! what came in one piece in one piece. A host can be made to stall: it takes connections and says
//! nothing more.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::lines::Lines;

/// What arrived, at all hosts together.
pub struct Arrived {
    seen: Vec<AtomicU32>,
    /// Different numbers seen.
    distinct: AtomicU64,
    /// TLS handshakes.
    pub handshakes: AtomicU64,
}

impl Arrived {
    /// Ready to count messages numbered below `messages`.
    pub fn new(messages: u64) -> Arc<Self> {
        let seen = (0..messages).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { seen, distinct: AtomicU64::new(0), handshakes: AtomicU64::new(0) })
    }

    /// Different numbers that arrived.
    pub fn distinct(&self) -> u64 {
        self.distinct.load(Ordering::Relaxed)
    }

    /// Numbers below `sent` that never arrived, and arrivals beyond the first of each number.
    pub fn lost_and_doubled(&self, sent: u64) -> (u64, u64) {
        let counts = || self.seen.iter().take(sent as usize).map(|count| count.load(Ordering::Relaxed));
        (
            counts().filter(|count| *count == 0).count() as u64,
            counts().map(|count| u64::from(count.saturating_sub(1))).sum(),
        )
    }

    fn note(&self, body: &[u8]) {
        let number = memchr::memmem::find(body, b"Subject: ")
            .and_then(|at| std::str::from_utf8(body.get(at + 9..)?.split(|b| *b == b'\r').next()?).ok())
            .and_then(|text| text.parse::<usize>().ok());
        if let Some(count) = number.and_then(|number| self.seen.get(number))
            && count.fetch_add(1, Ordering::Relaxed) == 0
        {
            self.distinct.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One receiving host.
pub struct Host {
    address: SocketAddr,
    tls: TlsAcceptor,
    arrived: Arc<Arrived>,
    /// Whether it answers.
    stalled: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
}

impl Host {
    /// A host that is down.
    pub fn new(address: SocketAddr, tls: TlsAcceptor, arrived: Arc<Arrived>) -> Self {
        Self { address, tls, arrived, stalled: watch::channel(false).0, serving: None }
    }

    /// From now on it takes connections.
    pub async fn up(&mut self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        let (tls, arrived, stalled) = (self.tls.clone(), self.arrived.clone(), self.stalled.subscribe());
        self.serving = Some(tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        sessions.spawn(session(stream, tls.clone(), arrived.clone(), stalled.clone()));
                    }
                    Some(_) = sessions.join_next() => {}
                }
            }
        }));
        Ok(())
    }

    /// Whether it says nothing more, on open connections too.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

/// A port that is free on every one of these addresses.
pub fn common_port(addresses: &[Ipv4Addr]) -> std::io::Result<u16> {
    let mut last = std::io::Error::other("no addresses");
    for _ in 0..50 {
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let bound: Result<Vec<_>, _> =
            addresses.iter().map(|address| std::net::TcpListener::bind((*address, port))).collect();
        match bound {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn session(
    mut stream: TcpStream,
    tls: TlsAcceptor,
    arrived: Arc<Arrived>,
    mut stalled: watch::Receiver<bool>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    answers(&mut stalled).await;
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let mut lines = Lines::default();
    loop {
        let line = lines.until(&mut stream, b"\r\n").await?;
        let reply: &[u8] = match line.first().map(u8::to_ascii_uppercase) {
            Some(b'E') => b"250-sink\r\n250 STARTTLS\r\n",
            Some(b'S') => break stream.write_all(b"220 go\r\n").await?,
            Some(b'Q') => return stream.write_all(b"221 bye\r\n").await,
            _ => b"530 STARTTLS first\r\n",
        };
        stream.write_all(reply).await?;
    }
    let stream = tls.accept(stream).await?;
    arrived.handshakes.fetch_add(1, Ordering::Relaxed);
    secured(stream, &arrived, &mut stalled).await
}

async fn secured<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    arrived: &Arrived,
    stalled: &mut watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut lines = Lines::default();
    let mut replies: Vec<u8> = Vec::new();
    loop {
        let line = lines.until(&mut stream, b"\r\n").await?;
        let verb = line.first().copied().unwrap_or(0).to_ascii_uppercase();
        replies.extend_from_slice(match verb {
            b'E' => {
                b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250 SIZE 0\r\n"
            }
            b'B' => {
                // BDAT, its size, LAST.
                let size = std::str::from_utf8(line).ok().and_then(|line| line.split(' ').nth(1)?.parse().ok());
                let size = size.ok_or(std::io::ErrorKind::InvalidData)?;
                arrived.note(lines.exactly(&mut stream, size).await?);
                b"250 2.0.0 ok\r\n"
            }
            b'D' => b"354 go\r\n",
            b'Q' => b"221 bye\r\n",
            _ => b"250 2.0.0 ok\r\n",
        });
        if verb != b'D' && verb != b'Q' && lines.has_line() {
            continue;
        }
        say(&mut stream, &mut replies, stalled).await?;
        match verb {
            b'D' => {
                arrived.note(lines.until(&mut stream, b"\r\n.\r\n").await?);
                replies.extend_from_slice(b"250 2.0.0 ok\r\n");
                say(&mut stream, &mut replies, stalled).await?;
            }
            b'Q' => return stream.shutdown().await,
            _ => {}
        }
    }
}

async fn say<S: AsyncWrite + Unpin>(
    stream: &mut S,
    replies: &mut Vec<u8>,
    stalled: &mut watch::Receiver<bool>,
) -> std::io::Result<()> {
    answers(stalled).await;
    stream.write_all(replies).await?;
    stream.flush().await?;
    replies.clear();
    Ok(())
}

/// Returns as soon as the host answers.
async fn answers(stalled: &mut watch::Receiver<bool>) {
    // The sender lives as long as its host; without it there is nobody left to stall for.
    let _ = stalled.wait_for(|stalled| !stalled).await;
}
