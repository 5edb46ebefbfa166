//! An MX host: one SMTP session, with real TLS, in the host's manner of the moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::internet::{Manner, Seen, SeenTls, Shown};
use crate::sim::Sim;
use crate::{bounds, held, verdict};

/// A greylisted recipient is let in after this time (ms).
const GREYLISTED: u64 = 300_000;
/// Later than the client waits for the reply to its final dot.
const LATE: Duration = Duration::from_secs(700);

/// What is known of a connection.
pub struct Peer {
    pub host: usize,
    /// What was shown in the handshake; none in clear.
    pub shown: Option<Arc<Shown>>,
    /// Domains this connection was used for.
    used: Vec<String>,
    pub life: bounds::Connection,
}

/// What is known of a transaction.
#[derive(Default)]
struct Transaction {
    from: Option<String>,
    recipients: Vec<String>,
}

/// Holds a session; how it ends is the client's business.
pub async fn serve(sim: Arc<Sim>, host: usize, stream: DuplexStream) {
    let life = bounds::Connection::opened(&sim, host);
    let peer = Peer { host, shown: None, used: Vec::new(), life };
    let mut session = Session { peer, sim };
    let _ = session.serve(stream).await;
    session.peer.life.closed(&session.sim, host);
}

struct Session {
    sim: Arc<Sim>,
    peer: Peer,
}

impl Session {
    fn manner(&self) -> Manner {
        self.sim.net().hosts[self.peer.host].manner
    }

    /// Writes down what was seen of TLS.
    fn saw(&self, tls: SeenTls) {
        let (wall, at) = (self.sim.time.wall() / 1000, self.sim.time.now());
        self.sim.net().hosts[self.peer.host].seen.push(Seen { wall, at, tls });
    }

    async fn serve(&mut self, mut stream: DuplexStream) -> std::io::Result<()> {
        let wall = self.sim.time.wall() / 1000;
        self.sim.net().hosts[self.peer.host].sessions.push(wall);
        self.sim.book().counts.sessions += 1;
        match self.manner() {
            Manner::Silent => {
                // Until the other side has had enough.
                let _ = stream.read_u8().await;
                return Ok(());
            }
            Manner::Busy => return self.say(&mut stream, "421 4.3.2 too busy").await,
            _ => self.say(&mut stream, "220 mx ESMTP").await?,
        }
        if !self.talk(&mut stream).await? {
            return Ok(());
        }
        self.say(&mut stream, "220 2.0.0 go").await?;
        if self.manner() == Manner::BrokenTls {
            let mut first = [0u8; 1];
            stream.read_exact(&mut first).await?;
            self.saw(SeenTls::Broken);
            return stream.write_all(b"this is not TLS at all\r\n").await;
        }
        let shown = {
            let net = self.sim.net();
            let host = &net.hosts[self.peer.host];
            Arc::clone(&host.certificates[host.certificate])
        };
        self.saw(if shown.valid { SeenTls::Valid } else { SeenTls::Invalid });
        let mut stream = TlsAcceptor::from(Arc::clone(&shown.config)).accept(stream).await?;
        self.sim.book().counts.handshakes += 1;
        self.peer.shown = Some(shown);
        self.talk(&mut stream).await.map(drop)
    }

    async fn say<S: AsyncWrite + Unpin>(&self, stream: &mut S, reply: &str) -> std::io::Result<()> {
        let wait = match self.manner() {
            Manner::Slow => Duration::from_millis(1000 + self.sim.roll(9000)),
            _ => Duration::from_millis(1 + self.sim.roll(30)),
        };
        sleep(wait).await;
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        stream.flush().await
    }

    /// Talks until STARTTLS is to be done (`true`) or the session is over.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> std::io::Result<bool> {
        let mut buffer = Vec::new();
        let mut transaction = Transaction::default();
        loop {
            let line = until(stream, &mut buffer, b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let upper = line.to_ascii_uppercase();
            let manner = self.manner();
            let reply = match upper.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" if self.peer.shown.is_some() || manner == Manner::NoStartTls => {
                    let within = self.peer.shown.is_some();
                    if !within {
                        self.saw(SeenTls::Clear);
                    }
                    let more = within && self.sim.net().hosts[self.peer.host].requiretls;
                    let more = if more { "250-REQUIRETLS\r\n" } else { "" };
                    format!(
                        "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n{more}250 DSN"
                    )
                }
                "EHLO" => "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-STARTTLS\r\n250 DSN".to_owned(),
                "STARTTLS" if manner == Manner::NoStartTls => "502 5.5.1 no".to_owned(),
                "STARTTLS" => return Ok(true),
                "MAIL" if manner == Manner::DropsAtMail => return Ok(false),
                "MAIL" => {
                    let path = path(&line);
                    self.peer.life.begun(&self.sim);
                    held::mail(&self.sim, &self.peer, &path, upper.ends_with(" REQUIRETLS"));
                    transaction = Transaction { from: Some(path), recipients: Vec::new() };
                    "250 2.1.0 ok".to_owned()
                }
                "RCPT" => {
                    let (from, path) = (transaction.from.clone().unwrap_or_default(), path(&line));
                    held::rcpt(&self.sim, &self.peer, &from, &path);
                    if transaction.recipients.is_empty() {
                        self.peer.life.used(&self.sim, self.peer.host, &path);
                    } else if manner == Manner::Leaves {
                        self.say(stream, "421 4.3.2 enough for today").await?;
                        return Ok(false);
                    }
                    self.recipient(manner, path, &mut transaction.recipients)
                }
                "DATA" if transaction.recipients.is_empty() => "554 5.5.1 nobody".to_owned(),
                "DATA" => {
                    self.say(stream, "354 go").await?;
                    buffer.splice(0..0, *b"\r\n");
                    let mut content = until(stream, &mut buffer, b"\r\n.\r\n").await?;
                    content.drain(..2);
                    let Transaction { from, recipients } = std::mem::take(&mut transaction);
                    match self.take(&from.unwrap_or_default(), recipients, &content).await {
                        Some(reply) => reply,
                        None => return Ok(false),
                    }
                }
                "RSET" | "NOOP" => "250 2.0.0 ok".to_owned(),
                "QUIT" => {
                    self.say(stream, "221 2.0.0 bye").await?;
                    return Ok(false);
                }
                _ => "500 5.5.2 what".to_owned(),
            };
            self.say(stream, &reply).await?;
            self.peer.life.answered(&self.sim);
        }
    }

    fn recipient(&mut self, manner: Manner, path: String, recipients: &mut Vec<String>) -> String {
        let domain = path.rsplit('@').next().unwrap_or_default().to_owned();
        if !self.peer.used.contains(&domain) {
            self.peer.used.push(domain.clone());
            let wall = self.sim.time.wall() / 1000;
            if let Some(zone) = self.sim.net().zones.iter_mut().find(|zone| zone.name.as_str() == domain) {
                zone.uses.push(wall);
            }
        }
        let now = self.sim.time.now();
        let mut net = self.sim.net();
        let host = &mut net.hosts[self.peer.host];
        let known = host.greylist.iter().find(|(known, _)| *known == path).map(|(_, since)| *since);
        match manner {
            Manner::Greylisting if known.is_none_or(|since| now < since + GREYLISTED) => {
                if known.is_none() {
                    host.greylist.push((path, now));
                }
                "450 4.7.1 come back later".to_owned()
            }
            Manner::Deferring => "450 4.2.1 not now".to_owned(),
            Manner::Refusing => "550 5.1.1 unknown user".to_owned(),
            Manner::Choosy if is_odd(&path) => "450 4.2.2 over quota".to_owned(),
            Manner::Picky if is_odd(&path) => "550 5.1.1 unknown user".to_owned(),
            Manner::OneRecipient if !recipients.is_empty() => "452 4.5.3 too many recipients".to_owned(),
            _ => {
                recipients.push(path);
                "250 2.1.5 ok".to_owned()
            }
        }
    }

    /// Takes a message; what is said, or nothing before the connection drops.
    async fn take(&mut self, from: &str, recipients: Vec<String>, content: &[u8]) -> Option<String> {
        let manner = self.manner();
        match manner {
            Manner::Full => return Some("552 5.2.2 mailbox full".to_owned()),
            Manner::Failing => return Some("451 4.3.0 local trouble".to_owned()),
            _ => {}
        }
        let heard = !matches!(manner, Manner::DropsAfterDot | Manner::LateReply);
        if !self.sim.is_dead() {
            verdict::arrived(&self.sim, &self.peer, from, &recipients, content, heard);
        }
        match manner {
            Manner::DropsAfterDot => return None,
            Manner::LateReply => sleep(LATE).await,
            _ => {}
        }
        Some("250 2.0.0 taken".to_owned())
    }
}

/// Every other of a message's recipients: `u0.7@`, `u1.7@`, ...
fn is_odd(path: &str) -> bool {
    path.as_bytes().get(1).is_some_and(|digit| digit % 2 == 1)
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(path, _)| path.to_owned()).unwrap_or_default()
}

async fn until<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    end: &[u8],
) -> std::io::Result<Vec<u8>> {
    loop {
        if let Some(at) = memchr::memmem::find(buffer, end) {
            let rest = buffer.split_off(at + end.len());
            return Ok(std::mem::replace(buffer, rest));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
