//! The attacks: what each attacker does on its connection, again and again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Where the daemon listens.
#[derive(Clone, Copy)]
pub struct Target {
    /// For nobody from here.
    pub open: SocketAddr,
    /// For everybody from here.
    pub trusted: SocketAddr,
    /// With STARTTLS and a password.
    pub starttls: SocketAddr,
    /// With TLS from the first octet and a password.
    pub tls: SocketAddr,
}

/// An attack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Nobody; to compare with.
    None,
    /// Connections on which nothing is said.
    Idle,
    /// One octet now and then, before the greeting is answered and within commands.
    Slow,
    /// The same within messages, by clients that may submit.
    SlowContent,
    /// Handshakes of which only the beginning comes.
    Handshake,
    /// Lines of 20 MB, as commands and as content.
    LongLines,
    /// 100,000 recipients in one transaction.
    Recipients,
    /// Commands without end, no reply waited for.
    Flood,
    /// Commands behind STARTTLS in the same segment.
    Injection,
    /// Commands whose replies are never read.
    Deaf,
}

/// By name, in the order they are tried.
pub const ATTACKS: &[(&str, Attack)] = &[
    ("none", Attack::None),
    ("idle", Attack::Idle),
    ("slow", Attack::Slow),
    ("slow-content", Attack::SlowContent),
    ("handshake", Attack::Handshake),
    ("long-lines", Attack::LongLines),
    ("recipients", Attack::Recipients),
    ("flood", Attack::Flood),
    ("injection", Attack::Injection),
    ("deaf", Attack::Deaf),
];

/// An attack under way; ends when dropped.
pub struct Tries {
    /// Connections made so far.
    pub count: Arc<AtomicU64>,
    _attackers: JoinSet<()>,
}

/// Begins an attack.
pub fn begin(attack: Attack, target: Target) -> Tries {
    let attackers = match attack {
        Attack::None => 0,
        Attack::Idle => 10_000,
        Attack::Slow | Attack::Handshake => 2000,
        Attack::SlowContent | Attack::Deaf => 200,
        Attack::Flood | Attack::Injection => 100,
        Attack::LongLines => 20,
        Attack::Recipients => 10,
    };
    let count = Arc::new(AtomicU64::new(0));
    let mut set = JoinSet::new();
    for number in 0..attackers {
        let count = Arc::clone(&count);
        set.spawn(async move {
            // Not all in the same instant.
            tokio::time::sleep(Duration::from_micros(50) * number).await;
            loop {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = strike(attack, number, target).await;
                tokio::time::sleep(come_back(attack)).await;
            }
        });
    }
    Tries { count, _attackers: set }
}

/// Who is thrown out comes again after this.
fn come_back(attack: Attack) -> Duration {
    match attack {
        Attack::Idle | Attack::Slow | Attack::Handshake => Duration::from_secs(3),
        _ => Duration::from_millis(100),
    }
}

/// From an address of the attackers' own: 40 of them share one, below the share of an address.
async fn connect(number: u32, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [_, _, high, low] = (number / 40).to_be_bytes();
    socket.bind((Ipv4Addr::new(127, 9, high, low + 1), 0).into())?;
    socket.connect(to).await
}

async fn strike(attack: Attack, number: u32, target: Target) -> io::Result<()> {
    match attack {
        Attack::None => Ok(()),
        Attack::Idle => {
            let mut stream = connect(number, target.open).await?;
            until_closed(&mut stream).await
        }
        Attack::Slow => {
            let listeners = [target.open, target.starttls];
            let stream = connect(number, listeners[number as usize % 2]).await?;
            trickle(stream, b"EHLO client.example\r\nNOOP\r\nNOOP\r\n", Duration::from_secs(1)).await
        }
        Attack::SlowContent => {
            let mut stream = connect(number, target.trusted).await?;
            let begin = b"EHLO x\r\n".as_slice();
            stream.write_all(begin).await?;
            hear(&mut stream).await?;
            stream.write_all(b"MAIL FROM:<a@home.test>\r\nRCPT TO:<b@away.test>\r\nDATA\r\n").await?;
            hear(&mut stream).await?;
            trickle(stream, b"Subject: slow\r\n\r\nslow\r\n", Duration::from_secs(1)).await
        }
        Attack::Handshake => {
            let mut stream = connect(number, target.tls).await?;
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await?;
            until_closed(&mut stream).await
        }
        Attack::LongLines => {
            let content = number.is_multiple_of(2);
            let mut stream = connect(number, target.trusted).await?;
            stream.write_all(b"EHLO x\r\n").await?;
            hear(&mut stream).await?;
            if content {
                stream.write_all(b"MAIL FROM:<a@home.test>\r\nRCPT TO:<b@away.test>\r\nDATA\r\n").await?;
                hear(&mut stream).await?;
            }
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..20 {
                stream.write_all(&piece).await?;
            }
            stream.write_all(b"\r\n.\r\n").await?;
            hear(&mut stream).await
        }
        Attack::Recipients => {
            let mut stream = connect(number, target.trusted).await?;
            stream.write_all(b"EHLO x\r\n").await?;
            hear(&mut stream).await?;
            stream.write_all(b"MAIL FROM:<a@home.test>\r\n").await?;
            let (mut replies, mut commands) = stream.into_split();
            let listening = tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while replies.read(&mut buffer).await.is_ok_and(|octets| octets > 0) {}
            });
            for batch in 0..1000 {
                let lines: String =
                    (0..100).map(|n| format!("RCPT TO:<u{batch}x{n}@away.test>\r\n")).collect();
                commands.write_all(lines.as_bytes()).await?;
            }
            commands.write_all(b"QUIT\r\n").await?;
            let _ = listening.await;
            Ok(())
        }
        Attack::Flood => {
            let listeners = [target.open, target.trusted];
            let mut stream = connect(number, listeners[number as usize % 2]).await?;
            stream.write_all(b"EHLO x\r\n").await?;
            hear(&mut stream).await?;
            let (mut replies, mut commands) = stream.into_split();
            let listening = tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while replies.read(&mut buffer).await.is_ok_and(|octets| octets > 0) {}
            });
            let lines = b"MAIL FROM:<a@home.test>\r\nRSET\r\nNOOP\r\nVRFY x\r\n".repeat(1000);
            while !listening.is_finished() {
                commands.write_all(&lines).await?;
            }
            Ok(())
        }
        Attack::Injection => {
            let mut stream = connect(number, target.starttls).await?;
            hear(&mut stream).await?;
            stream.write_all(b"EHLO x\r\n").await?;
            hear(&mut stream).await?;
            stream.write_all(b"STARTTLS\r\nMAIL FROM:<evil@home.test>\r\nRCPT TO:<b@away.test>\r\n").await?;
            until_closed(&mut stream).await
        }
        Attack::Deaf => {
            let listeners = [target.open, target.trusted];
            let mut stream = connect(number, listeners[number as usize % 2]).await?;
            let lines = b"EHLO x\r\n".to_vec();
            stream.write_all(&lines).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let lines = b"RSET\r\nMAIL FROM:<a@home.test>\r\nRCPT TO:<b@away.test>\r\nDATA x\r\n".repeat(500);
            loop {
                stream.write_all(&lines).await?;
            }
        }
    }
}

/// One octet at a time, for ever.
async fn trickle(mut stream: TcpStream, octets: &[u8], every: Duration) -> io::Result<()> {
    let mut buffer = vec![0; 1024];
    for octet in octets.iter().cycle() {
        stream.write_all(&[*octet]).await?;
        tokio::select! {
            read = stream.read(&mut buffer) => if read? == 0 { return Ok(()) },
            () = tokio::time::sleep(every) => {}
        }
    }
    Ok(())
}

async fn until_closed(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 256];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Some reply, whatever it is.
async fn hear(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    match stream.read(&mut buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
