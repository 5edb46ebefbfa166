//! One SMTP session of a host, from greeting to end.

use std::sync::{Arc, Mutex};

use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Arrival, Behaviour, Log, StartTls};

/// Holds a session; an error is the client's going away.
pub(super) async fn serve(
    stream: TcpStream,
    behaviour: Arc<Mutex<Behaviour>>,
    log: Arc<Mutex<Log>>,
) -> std::io::Result<()> {
    Session { behaviour, log, tls: false, shown: None }.serve(stream).await
}

struct Session {
    behaviour: Arc<Mutex<Behaviour>>,
    log: Arc<Mutex<Log>>,
    tls: bool,
    shown: Option<usize>,
}

impl Session {
    fn behaviour(&self) -> Behaviour {
        self.behaviour.lock().expect("no panic").clone()
    }

    async fn serve(mut self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let behaviour = self.behaviour();
        if behaviour.drop_at.as_deref() == Some("connect") {
            return Ok(());
        }
        if let StartTls::Implicit(config) = behaviour.starttls {
            let mut stream = self.shake(config, stream).await?;
            stream.write_all(format!("{}\r\n", behaviour.greeting).as_bytes()).await?;
            self.talk(&mut stream).await?;
            return Ok(());
        }
        let greeting = format!("{}\r\n", behaviour.greeting);
        stream.write_all(greeting.as_bytes()).await?;
        if !self.talk(&mut stream).await? {
            return Ok(());
        }
        let config = match self.behaviour().starttls {
            StartTls::With(config) => {
                stream.write_all(b"220 2.0.0 go\r\n").await?;
                config
            }
            StartTls::Injected(config) => {
                stream.write_all(b"220 2.0.0 go\r\n250 injected\r\n").await?;
                config
            }
            StartTls::Garbage => {
                stream.write_all(b"220 2.0.0 go\r\n").await?;
                // Only once the client has begun, so that it is no injection.
                let mut first = [0u8; 1];
                stream.read_exact(&mut first).await?;
                return stream.write_all(b"this is not TLS at all\r\n").await;
            }
            StartTls::Absent | StartTls::Refused | StartTls::Implicit(_) => return Ok(()),
        };
        let mut stream = self.shake(config, stream).await?;
        self.talk(&mut stream).await?;
        Ok(())
    }

    async fn shake(
        &mut self,
        config: Arc<ServerConfig>,
        stream: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.shown = Some(Arc::as_ptr(&config) as usize);
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let mut log = self.log.lock().expect("no panic");
        log.handshakes += 1;
        log.resumed += usize::from(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed));
        self.tls = true;
        Ok(stream)
    }

    /// Talks until STARTTLS is to be done (`true`) or the session is over.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> std::io::Result<bool> {
        let mut buffer = Vec::new();
        let (mut mail, mut rcpts) = (String::new(), Vec::new());
        let mut messages = 0;
        let mut chunks = Vec::new();
        loop {
            let line = until(stream, &mut buffer, b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.log.lock().expect("no panic").commands.push(line.clone());
            let upper = line.to_ascii_uppercase();
            let behaviour = self.behaviour();
            if behaviour.drop_at.as_ref().is_some_and(|start| upper.starts_with(&start.to_ascii_uppercase()))
            {
                return Ok(false);
            }
            let scripted = behaviour
                .replies
                .iter()
                .find(|(start, _)| upper.starts_with(&start.to_ascii_uppercase()))
                .map(|(_, reply)| reply.clone());
            let reply = match scripted {
                Some(reply) => reply,
                None if upper.starts_with("EHLO") => self.hello(&behaviour),
                None if upper.starts_with("STARTTLS") => match behaviour.starttls {
                    StartTls::Refused => "454 4.7.0 not now".to_owned(),
                    StartTls::Absent => "502 5.5.1 unknown".to_owned(),
                    _ => return Ok(true),
                },
                None if upper.starts_with("MAIL") && messages >= behaviour.messages_max => {
                    write(stream, "421 4.7.0 too many messages on this connection").await?;
                    return Ok(false);
                }
                None if upper.starts_with("MAIL") => {
                    rcpts.clear();
                    chunks.clear();
                    mail = line;
                    "250 2.1.0 ok".to_owned()
                }
                None if (upper.starts_with("RCPT") || upper.starts_with("DATA")) && mail.is_empty() => {
                    "503 5.5.1 MAIL first".to_owned()
                }
                None if upper.starts_with("RCPT") && rcpts.len() >= behaviour.rcpts_max => {
                    "452 4.5.3 too many recipients".to_owned()
                }
                None if upper.starts_with("RCPT") => {
                    rcpts.push(line);
                    "250 2.1.5 ok".to_owned()
                }
                None if upper.starts_with("DATA") && rcpts.is_empty() => "554 5.5.1 nobody".to_owned(),
                None if upper.starts_with("DATA") => {
                    write(stream, "354 go").await?;
                    if !behaviour.reads_content {
                        std::future::pending::<()>().await;
                    }
                    // The line end before the final dot may be the one of DATA itself.
                    buffer.splice(0..0, *b"\r\n");
                    let mut content = until(stream, &mut buffer, b"\r\n.\r\n").await?;
                    content.truncate(content.len() - 3);
                    content.drain(..content.len().min(2));
                    messages += 1;
                    let behaviour = self.behaviour();
                    let dot = behaviour.drop_at.as_deref() != Some(".");
                    let accepted = dot && behaviour.dot.starts_with('2');
                    self.log.lock().expect("no panic").arrivals.push(Arrival {
                        chunked: false,
                        mail: std::mem::take(&mut mail),
                        rcpts: std::mem::take(&mut rcpts),
                        content: unstuff(&content),
                        tls: self.tls,
                        shown: self.shown,
                        accepted,
                    });
                    if !dot {
                        return Ok(false);
                    }
                    tokio::time::sleep(behaviour.dot_after).await;
                    behaviour.dot
                }
                None if upper.starts_with("BDAT") => {
                    let mut words = upper.split(' ').skip(1);
                    let octets: usize = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
                    while buffer.len() < octets {
                        let mut piece = [0u8; 16384];
                        let read = stream.read(&mut piece).await?;
                        if read == 0 {
                            return Ok(false);
                        }
                        buffer.extend_from_slice(&piece[..read]);
                    }
                    let rest = buffer.split_off(octets);
                    chunks.extend(std::mem::replace(&mut buffer, rest));
                    if rcpts.is_empty() {
                        "503 5.5.1 nobody".to_owned()
                    } else if words.next() != Some("LAST") {
                        behaviour.chunk
                    } else {
                        messages += 1;
                        self.log.lock().expect("no panic").arrivals.push(Arrival {
                            chunked: true,
                            mail: std::mem::take(&mut mail),
                            rcpts: std::mem::take(&mut rcpts),
                            content: std::mem::take(&mut chunks),
                            tls: self.tls,
                            shown: self.shown,
                            accepted: behaviour.dot.starts_with('2'),
                        });
                        behaviour.dot
                    }
                }
                None if upper.starts_with("RSET") || upper.starts_with("NOOP") => "250 2.0.0 ok".to_owned(),
                None if upper.starts_with("QUIT") => {
                    write(stream, "221 2.0.0 bye").await?;
                    return Ok(false);
                }
                None => "500 5.5.2 what".to_owned(),
            };
            write(stream, &reply).await?;
        }
    }

    fn hello(&self, behaviour: &Behaviour) -> String {
        let mut lines = vec!["mx.world.test at your service".to_owned()];
        lines.extend(behaviour.extensions.clone());
        if !self.tls && !matches!(behaviour.starttls, StartTls::Absent) {
            lines.push("STARTTLS".to_owned());
        }
        let last = lines.len() - 1;
        let lines: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("250{}{line}", if at == last { " " } else { "-" }))
            .collect();
        lines.join("\r\n")
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, reply: &str) -> std::io::Result<()> {
    stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    stream.flush().await
}

fn unstuff(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|b| *b == b'\n') {
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    out
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
