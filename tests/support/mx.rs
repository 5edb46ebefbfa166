//! Receiving MX hosts that behave as a test says, and keep a log of what reached them.

mod session;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What a host does about STARTTLS.
#[derive(Clone)]
pub enum StartTls {
    /// Not offered, as after stripping.
    Absent,
    /// Offered and done with this certificate.
    With(Arc<ServerConfig>),
    /// Done with this certificate before a word is said.
    Implicit(Arc<ServerConfig>),
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
    /// The answer to a chunk by BDAT that is not the last.
    pub chunk: String,
    /// Whether content is read at all after 354.
    pub reads_content: bool,
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
            chunk: "250 2.0.0 octets received".to_owned(),
            reads_content: true,
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
    /// Came by BDAT.
    pub chunked: bool,
    /// Content with dot-stuffing taken off.
    pub content: Vec<u8>,
    /// Inside TLS.
    pub tls: bool,
    /// Where the configuration is that was shown in the handshake.
    pub shown: Option<usize>,
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
    /// Where they came from.
    pub peers: Vec<IpAddr>,
    /// Completed TLS handshakes.
    pub handshakes: usize,
    /// Those of them that resumed a session.
    pub resumed: usize,
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

    /// How many messages reached it so far.
    pub fn arrived(&self) -> usize {
        self.log.lock().expect("no panic").arrivals.len()
    }

    /// Becomes a black hole: nobody is refused, and nobody is answered. Until dropped, what is given
    /// back keeps it so.
    pub async fn swallow(&self) -> BlackHole {
        self.down();
        let address = SocketAddr::new(self.ip, self.port);
        let socket = super::eventually("the port to be free again", || async move {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let socket = socket.expect("sockets can be made");
            socket.set_reuseaddr(true).expect("it can be set");
            socket.bind(address).ok()?;
            Some(socket)
        })
        .await;
        // A listener whose backlog is full answers no further SYN.
        let listener = socket.listen(1).expect("a bound socket listens");
        let mut held = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            held.push(stream);
            assert!(held.len() < 16, "the backlog never fills");
        }
        BlackHole { _listener: listener, _held: held }
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
            while let Ok((stream, peer)) = listener.accept().await {
                {
                    let mut log = log.lock().expect("no panic");
                    log.connections += 1;
                    log.peers.push(peer.ip());
                }
                let (behaviour, log) = (behaviour.clone(), log.clone());
                sessions.spawn(async move {
                    let _ = session::serve(stream, behaviour, log).await;
                });
            }
        });
    }
}

/// See [`Mx::swallow`].
pub struct BlackHole {
    _listener: TcpListener,
    _held: Vec<TcpStream>,
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
        Self::start_with(count, false).await
    }

    /// The same, and with `six` one more host at the IPv6 loopback address, the last one.
    pub async fn start_with(count: u8, six: bool) -> Self {
        // Addresses of this farm alone, so that a host that is down finds its port free again.
        static FARMS: AtomicU8 = AtomicU8::new(0);
        let [.., process] = std::process::id().to_be_bytes();
        let farm = FARMS.fetch_add(1, Ordering::Relaxed);
        let ip = |index: u8| Ipv4Addr::new(127, 2 + process % 60, farm, index + 1);
        let (port, listeners) = 'search: loop {
            let first = TcpListener::bind((ip(0), 0)).await.expect("loopback can be bound");
            let port = first.local_addr().expect("bound").port();
            let mut listeners = vec![first];
            let four = (1..count).map(|index| IpAddr::from(ip(index)));
            for ip in four.chain(six.then_some(Ipv6Addr::LOCALHOST.into())) {
                match TcpListener::bind((ip, port)).await {
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
