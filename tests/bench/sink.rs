//! Receiving MX hosts: TLS 1.3 after STARTTLS, take everything, count by number.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What arrived, at all hosts together.
pub struct Arrived {
    seen: Vec<AtomicU64>,
    /// Messages, duplicates included.
    pub messages: AtomicU64,
    /// TLS handshakes.
    pub handshakes: AtomicU64,
}

impl Arrived {
    /// Ready to count messages numbered below `messages`.
    pub fn new(messages: u64) -> Arc<Self> {
        let seen = (0..messages).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { seen, messages: AtomicU64::new(0), handshakes: AtomicU64::new(0) })
    }

    /// Numbers that never arrived, and arrivals beyond the first of each number.
    pub fn lost_and_doubled(&self) -> (u64, u64) {
        let counts = || self.seen.iter().map(|count| count.load(Ordering::Relaxed));
        (
            counts().filter(|count| *count == 0).count() as u64,
            counts().map(|count| count.saturating_sub(1)).sum(),
        )
    }

    fn note(&self, body: &[u8]) {
        let number = memchr::memmem::find(body, b"Subject: ")
            .and_then(|at| std::str::from_utf8(body.get(at + 9..)?.split(|b| *b == b'\r').next()?).ok())
            .and_then(|text| text.parse::<usize>().ok());
        if let Some(count) = number.and_then(|number| self.seen.get(number)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves one host until the runtime ends.
pub async fn serve(listener: TcpListener, tls: TlsAcceptor, arrived: Arc<Arrived>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, arrived) = (tls.clone(), arrived.clone());
        tokio::spawn(async move { session(stream, tls, arrived).await });
    }
}

/// Binds one listener per address, all on one port that is free on every one of them.
pub async fn bind(addresses: &[std::net::Ipv4Addr]) -> std::io::Result<(u16, Vec<TcpListener>)> {
    let mut last = std::io::Error::other("no addresses");
    for _ in 0..50 {
        let first = TcpListener::bind((addresses[0], 0)).await?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        for address in &addresses[1..] {
            match TcpListener::bind(SocketAddr::from((*address, port))).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        if listeners.len() == addresses.len() {
            return Ok((port, listeners));
        }
    }
    Err(last)
}

async fn session(mut stream: TcpStream, tls: TlsAcceptor, arrived: Arc<Arrived>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let mut buffer = Vec::new();
    loop {
        let line = until(&mut stream, &mut buffer, b"\r\n").await?;
        match line.to_ascii_uppercase().first() {
            Some(b'E') => stream.write_all(b"250-sink\r\n250 STARTTLS\r\n").await?,
            Some(b'S') => break stream.write_all(b"220 go\r\n").await?,
            Some(b'Q') => return stream.write_all(b"221 bye\r\n").await,
            _ => stream.write_all(b"530 STARTTLS first\r\n").await?,
        }
    }
    let mut stream = tls.accept(stream).await?;
    arrived.handshakes.fetch_add(1, Ordering::Relaxed);
    let mut buffer = Vec::with_capacity(32 * 1024);
    loop {
        let line = until(&mut stream, &mut buffer, b"\r\n").await?;
        let reply: &[u8] = match line.first().copied().unwrap_or(0).to_ascii_uppercase() {
            b'E' => {
                b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 0\r\n"
            }
            b'D' => {
                stream.write_all(b"354 go\r\n").await?;
                stream.flush().await?;
                let body = until(&mut stream, &mut buffer, b"\r\n.\r\n").await?;
                arrived.note(&body);
                b"250 2.0.0 ok\r\n"
            }
            b'Q' => {
                stream.write_all(b"221 bye\r\n").await?;
                return stream.shutdown().await;
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        stream.write_all(reply).await?;
        stream.flush().await?;
    }
}

async fn until<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    end: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut searched = 0usize;
    loop {
        if let Some(at) = memchr::memmem::find(&buffer[searched..], end) {
            let rest = buffer.split_off(searched + at + end.len());
            return Ok(std::mem::replace(buffer, rest));
        }
        searched = buffer.len().saturating_sub(end.len());
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
