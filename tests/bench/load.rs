//! The load: clients that submit numbered messages as fast as they are taken, and time every 250.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::place;

/// What to submit.
#[derive(Clone)]
pub struct Load {
    /// Where.
    pub to: SocketAddr,
    /// The number of the first message.
    pub first: u64,
    /// Messages in all.
    pub messages: u64,
    /// Connections.
    pub clients: usize,
    /// Octets of content.
    pub size: usize,
}

/// How it went.
pub struct Taken {
    /// From the first to the last 250.
    pub elapsed: Duration,
    /// Time from end of content to its 250, sorted.
    pub latencies: Vec<Duration>,
}

impl Taken {
    /// The latency that `share` (0.0 to 1.0) of the messages stay within.
    pub fn quantile(&self, share: f64) -> Duration {
        let index =
            ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).copied().unwrap_or_default()
    }

    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Content of about `size` octets with its number in the Subject, and its end.
fn content(number: u64, filling: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "From: <load@client.bench.test>\r\nTo: <u@bench.test>\r\nSubject: {number}\r\nMessage-ID: <{number}@client.bench.test>\r\n\r\n"
    )
    .into_bytes();
    text.extend_from_slice(filling);
    text.extend_from_slice(b".\r\n");
    text
}

/// Submits the load.
pub async fn submit(load: &Load) -> std::io::Result<Taken> {
    let next = Arc::new(AtomicU64::new(load.first));
    let begun = Instant::now();
    let clients: Vec<_> =
        (0..load.clients).map(|_| tokio::spawn(client(load.clone(), next.clone()))).collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.map_err(std::io::Error::other)??);
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    Ok(Taken { elapsed, latencies })
}

async fn client(load: Load, next: Arc<AtomicU64>) -> std::io::Result<Vec<Duration>> {
    let stream = TcpStream::connect(load.to).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    expect(&mut stream, b'2').await?;
    stream.get_mut().write_all(b"EHLO client.bench.test\r\n").await?;
    expect(&mut stream, b'2').await?;
    let filling =
        b"The quick brown fox jumps over the lazy dog and goes home to sleep.\r\n".repeat(load.size / 69);
    let mut latencies = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.first + load.messages {
            break;
        }
        let domain = place::domain(number % place::DOMAINS);
        let envelope =
            format!("MAIL FROM:<load@client.bench.test>\r\nRCPT TO:<u{number}@{domain}>\r\nDATA\r\n");
        stream.get_mut().write_all(envelope.as_bytes()).await?;
        expect(&mut stream, b'2').await?;
        expect(&mut stream, b'2').await?;
        expect(&mut stream, b'3').await?;
        let body = content(number, &filling);
        stream.get_mut().write_all(&body).await?;
        let sent = Instant::now();
        expect(&mut stream, b'2').await?;
        latencies.push(sent.elapsed());
    }
    stream.get_mut().write_all(b"QUIT\r\n").await?;
    Ok(latencies)
}

async fn expect(stream: &mut BufReader<TcpStream>, class: u8) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        stream.read_until(b'\n', &mut line).await?;
        if line.get(3) != Some(&b'-') {
            break;
        }
    }
    if line.first() == Some(&class) {
        return Ok(());
    }
    Err(std::io::Error::other(format!("unexpected reply: {}", String::from_utf8_lossy(&line))))
}
