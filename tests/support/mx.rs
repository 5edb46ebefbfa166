//! Receiving MX hosts that behave as a test says, and keep a log of what reached them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What a host does about STARTTLS.
#[derive(Clone)]
pub enum StartTls {
    /// Not offered, as after stripping.
    Absent,
    /// Offered and done with this certificate.
    With(Arc<ServerConfig>),
    /// Offered and refused with 454.
    Refused,
    /// Offered; plaintext follows the 220 in the same segment.
    Injected(Arc<ServerConfig>),
    /// Offered; garbage instead of a handshake.
    Garbage,
}

/// How a host behaves; may be changed at any time, and counts from the next command.
#[derive(Clone)]
pub struct Behaviour {
    /// First line.
    pub greeting: String,
    /// STARTTLS.
    pub starttls: StartTls,
    /// EHLO keywords beside STARTTLS.
    pub extensions: Vec<String>,
    /// `(start of a command line, reply)`, e.g. `("RCPT TO:<no@", "550 5.1.1 no")`.
    pub replies: Vec<(String, String)>,
    /// The reply to the final dot.
    pub dot: String,
    /// How long that reply takes.
    pub dot_after: Duration,
    /// Recipients per transaction; further ones are answered with 452.
    pub rcpts_max: usize,
    /// Messages per connection; a further MAIL is answered with 421 and the connection closed.
    pub messages_max: usize,
    /// Close instead of answering a line that starts so; `.` stands for the final dot, `connect` for
    /// the connection itself.
    pub drop_at: Option<String>,
}

impl Behaviour {
    /// A sane host with this certificate.
    pub fn with(config: Arc<ServerConfig>) -> Self {
        Self { starttls: StartTls::With(config), ..Self::clear() }
    }

    /// A host without TLS.
    pub fn clear() -> Self {
        let extensions = ["PIPELINING", "SIZE 10485760", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"];
        Self {
            greeting: "220 mx ESMTP".to_owned(),
            starttls: StartTls::Absent,
            extensions: extensions.map(str::to_owned).to_vec(),
            replies: Vec::new(),
            dot: "250 2.0.0 taken".to_owned(),
            dot_after: Duration::ZERO,
            rcpts_max: usize::MAX,
            messages_max: usize::MAX,
            drop_at: None,
        }
    }

    /// The same host with another answer to a command.
    pub fn answering(mut self, command: &str, reply: &str) -> Self {
        self.replies.push((command.to_owned(), reply.to_owned()));
        self
    }
}

/// A message as it arrived, whatever the answer was.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The MAIL line.
    pub mail: String,
    /// The accepted RCPT lines.
    pub rcpts: Vec<String>,
    /// Content with dot-stuffing taken off.
    pub content: Vec<u8>,
    /// Inside TLS.
    pub tls: bool,
    /// Answered 250.
    pub accepted: bool,
}

impl Arrival {
    /// Content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// What reached a host.
#[derive(Debug, Default, Clone)]
pub struct Log {
    /// TCP connections.
    pub connections: usize,
    /// Completed TLS handshakes.
    pub handshakes: usize,
    /// Every command line, in clear or not.
    pub commands: Vec<String>,
    /// Messages.
    pub arrivals: Vec<Arrival>,
}

/// One host.
pub struct Mx {
    /// Its address; the port is the farm's.
    pub ip: IpAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    log: Arc<Mutex<Log>>,
    listening: Mutex<JoinSet<()>>,
    port: u16,
}

impl Mx {
    /// Changes the host from the next command on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("no panic") = behaviour;
    }

    /// Changes something about how the host behaves.
    pub fn adjust(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().expect("no panic"));
    }

    /// What reached it so far.
    pub fn log(&self) -> Log {
        self.log.lock().expect("no panic").clone()
    }

    /// Messages it accepted.
    pub fn accepted(&self) -> Vec<Arrival> {
        self.log().arrivals.into_iter().filter(|arrival| arrival.accepted).collect()
    }

    /// Whether any envelope reached it.
    pub fn saw_mail(&self) -> bool {
        self.log().commands.iter().any(|line| line.to_ascii_uppercase().starts_with("MAIL"))
    }

    /// Cuts the sessions there are and stops listening: connections are refused.
    pub fn down(&self) {
        self.listening.lock().expect("no panic").abort_all();
    }

    /// Listens again.
    pub async fn up(&self) {
        let address = SocketAddr::new(self.ip, self.port);
        let listener = super::eventually("the port to be free again", || async move {
            TcpListener::bind(address).await.ok()
        })
        .await;
        self.listen(listener);
    }

    fn listen(&self, listener: TcpListener) {
        let (behaviour, log) = (self.behaviour.clone(), self.log.clone());
        self.listening.lock().expect("no panic").spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                log.lock().expect("no panic").connections += 1;
                let (behaviour, log) = (behaviour.clone(), log.clone());
                sessions.spawn(async move {
                    let _ = Session { behaviour, log, tls: false }.serve(stream).await;
                });
            }
        });
    }
}

/// Hosts on several loopback addresses and one port.
pub struct Farm {
    /// For `delivery.smtp_port`.
    pub port: u16,
    /// The hosts.
    pub hosts: Vec<Mx>,
}

impl Farm {
    /// Starts `count` hosts without TLS.
    pub async fn start(count: u8) -> Self {
        let ip = |index: u8| Ipv4Addr::new(127, 0, 3, index + 1);
        let (port, listeners) = 'search: loop {
            let first = TcpListener::bind((ip(0), 0)).await.expect("loopback can be bound");
            let port = first.local_addr().expect("bound").port();
            let mut listeners = vec![first];
            for index in 1..count {
                match TcpListener::bind((ip(index), port)).await {
                    Ok(listener) => listeners.push(listener),
                    Err(_) => continue 'search,
                }
            }
            break (port, listeners);
        };
        let hosts = listeners
            .into_iter()
            .map(|listener| {
                let mx = Mx {
                    ip: listener.local_addr().expect("bound").ip(),
                    behaviour: Arc::new(Mutex::new(Behaviour::clear())),
                    log: Arc::default(),
                    listening: Mutex::new(JoinSet::new()),
                    port,
                };
                mx.listen(listener);
                mx
            })
            .collect();
        Self { port, hosts }
    }
}

struct Session {
    behaviour: Arc<Mutex<Behaviour>>,
    log: Arc<Mutex<Log>>,
    tls: bool,
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
            StartTls::Absent | StartTls::Refused => return Ok(()),
        };
        let mut stream = TlsAcceptor::from(config).accept(stream).await?;
        self.log.lock().expect("no panic").handshakes += 1;
        self.tls = true;
        self.talk(&mut stream).await?;
        Ok(())
    }

    /// Talks until STARTTLS is to be done (`true`) or the session is over.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> std::io::Result<bool> {
        let mut buffer = Vec::new();
        let (mut mail, mut rcpts) = (String::new(), Vec::new());
        let mut messages = 0;
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
                        mail: std::mem::take(&mut mail),
                        rcpts: std::mem::take(&mut rcpts),
                        content: unstuff(&content),
                        tls: self.tls,
                        accepted,
                    });
                    if !dot {
                        return Ok(false);
                    }
                    tokio::time::sleep(behaviour.dot_after).await;
                    behaviour.dot
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
