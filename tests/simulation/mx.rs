//! An MX host: one SMTP session, with real TLS, in the host's manner of the moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::internet::{Manner, Shown};
use crate::sim::Sim;
use crate::verdict;

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
}

/// Holds a session; how it ends is the client's business.
pub async fn serve(sim: Arc<Sim>, host: usize, stream: DuplexStream) {
    let _ = Session { peer: Peer { host, shown: None, used: Vec::new() }, sim }.serve(stream).await;
}

struct Session {
    sim: Arc<Sim>,
    peer: Peer,
}

impl Session {
    fn manner(&self) -> Manner {
        self.sim.net().hosts[self.peer.host].manner
    }

    async fn serve(mut self, mut stream: DuplexStream) -> std::io::Result<()> {
        let wall = self.sim.time.wall() / 1000;
        self.sim.net().hosts[self.peer.host].sessions.push(wall);
        self.sim.book().counts.sessions += 1;
        match self.manner() {
            Manner::Silent => {
                sleep(Duration::from_secs(3600)).await;
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
            return stream.write_all(b"this is not TLS at all\r\n").await;
        }
        let shown = {
            let net = self.sim.net();
            let host = &net.hosts[self.peer.host];
            Arc::clone(&host.certificates[host.certificate])
        };
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
        let (mut from, mut recipients) = (None::<String>, Vec::new());
        loop {
            let line = until(stream, &mut buffer, b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let upper = line.to_ascii_uppercase();
            let manner = self.manner();
            let reply = match upper.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" if self.peer.shown.is_some() || manner == Manner::NoStartTls => {
                    "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 DSN"
                        .to_owned()
                }
                "EHLO" => "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-STARTTLS\r\n250 DSN".to_owned(),
                "STARTTLS" if manner == Manner::NoStartTls => "502 5.5.1 no".to_owned(),
                "STARTTLS" => return Ok(true),
                "MAIL" if manner == Manner::DropsAtMail => return Ok(false),
                "MAIL" => {
                    let path = path(&line);
                    verdict::mail_from(&self.sim, &self.peer, &path);
                    from = Some(path);
                    recipients.clear();
                    "250 2.1.0 ok".to_owned()
                }
                "RCPT" => self.recipient(manner, path(&line), &mut recipients),
                "DATA" if recipients.is_empty() => "554 5.5.1 nobody".to_owned(),
                "DATA" => {
                    self.say(stream, "354 go").await?;
                    buffer.splice(0..0, *b"\r\n");
                    let mut content = until(stream, &mut buffer, b"\r\n.\r\n").await?;
                    content.drain(..2);
                    let from = from.take().unwrap_or_default();
                    match self.take(&from, std::mem::take(&mut recipients), &content).await {
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
