//! A client that checks what every reply must be, and a queue that remembers and fails on demand.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::mail::{Domain, EnhancedStatus};
use crate::net::tcp::Stream;
use crate::net::tls::ServerTls;
use crate::net::world::Clock;
use crate::queue::QueueId;
use crate::store::{Body, Health, NewMessage, QueueError};
use crate::submission::auth::Authenticator;
use crate::submission::intake::{Inbox, InboxBody};
use crate::submission::places::Holder;
use crate::submission::quota::Quotas;
use crate::submission::session::{Client, Shared, hold, no_facts};
use crate::submission::{ListenerAuth, ListenerOptions, ListenerTls, Options, Users};

/// The hour of every test.
pub(super) struct Noon;

impl Clock for Noon {
    fn now(&self) -> jiff::Timestamp {
        "2026-11-02T12:00:00Z".parse().unwrap()
    }
}

/// A queue in memory.
#[derive(Default)]
pub(super) struct FakeQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sequence: u64,
    health: Option<Health>,
    /// Fails the next writes or commits.
    full: bool,
    broken: bool,
    messages: Vec<(NewMessage, Vec<u8>)>,
    largest_write: usize,
}

impl FakeQueue {
    pub(super) fn set_health(&self, health: Health) {
        self.state.lock().unwrap().health = Some(health);
    }
    pub(super) fn fill(&self) {
        self.state.lock().unwrap().full = true;
    }
    pub(super) fn smash(&self) {
        self.state.lock().unwrap().broken = true;
    }
    pub(super) fn count(&self) -> usize {
        self.state.lock().unwrap().messages.len()
    }
    pub(super) fn largest_write(&self) -> usize {
        self.state.lock().unwrap().largest_write
    }
    /// The last message and its content.
    pub(super) fn last(&self) -> (NewMessage, String) {
        let state = self.state.lock().unwrap();
        let (message, content) = state.messages.last().expect("a message was queued");
        (message.clone(), String::from_utf8_lossy(content).into_owned())
    }
    /// The last message's content after our Received field.
    pub(super) fn last_content(&self) -> String {
        let (_, content) = self.last();
        let end = content.find("+0000\r\n").expect("a Received field") + 7;
        content[end..].to_owned()
    }
    fn trouble(&self) -> Result<(), QueueError> {
        let state = self.state.lock().unwrap();
        match (state.full, state.broken) {
            (true, _) => Err(QueueError::Full("secret path".into())),
            (_, true) => Err(QueueError::Storage("secret path".into())),
            _ => Ok(()),
        }
    }
}

/// Shared with the test.
pub(super) struct Handle(Arc<FakeQueue>);

impl Inbox for Handle {
    fn health(&self) -> Health {
        self.0.state.lock().unwrap().health.clone().unwrap_or(Health::Fine)
    }
    fn allocate_id(&self) -> QueueId {
        let mut state = self.0.state.lock().unwrap();
        state.sequence += 1;
        QueueId { node: 1, sequence: state.sequence }
    }
    fn body_writer(&self) -> Box<dyn InboxBody> {
        Box::new(FakeBody { queue: self.0.clone(), content: Vec::new() })
    }
    fn enqueue(&self, message: NewMessage) -> BoxFuture<'_, Result<QueueId, QueueError>> {
        Box::pin(async move {
            self.0.trouble()?;
            let Body::Memory(content) = &message.body else { panic!("only memory here") };
            let (id, content) = (message.id, content.to_vec());
            self.0.state.lock().unwrap().messages.push((message, content));
            Ok(id)
        })
    }
}

struct FakeBody {
    queue: Arc<FakeQueue>,
    content: Vec<u8>,
}

impl InboxBody for FakeBody {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            self.queue.trouble()?;
            tokio::task::yield_now().await;
            let mut state = self.queue.state.lock().unwrap();
            state.largest_write = state.largest_write.max(bytes.len());
            self.content.extend_from_slice(bytes);
            Ok(())
        })
    }
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Body, QueueError>> {
        Box::pin(async move { Ok(Body::Memory(self.content.into())) })
    }
}

/// What a test changes before a session begins.
pub(super) struct Setting {
    pub options: Options,
    pub listener: ListenerOptions,
    pub peer: &'static str,
    pub nameless: bool,
    /// Shared by all sessions of a test.
    pub quotas: Quotas,
    /// With what the client comes.
    pub identity: Option<&'static rcgen::CertifiedKey<rcgen::KeyPair>>,
    pub tls: Option<Arc<ServerTls>>,
    pub queue: Arc<FakeQueue>,
    pub shutdown: CancellationToken,
    pub prefetched: Arc<Mutex<Vec<Domain>>>,
}

impl Setting {
    /// A smarthost that trusts 192.0.2.0/24, spoken to from there.
    pub(super) fn trusted() -> Self {
        let mut listener = ListenerOptions::new("test", Vec::new());
        listener.trusted_networks = vec!["192.0.2.0/24".parse().unwrap()];
        let options = Options::new(Domain::parse("relay.example.org").unwrap());
        Self {
            options,
            listener,
            peer: "192.0.2.9:4711",
            nameless: false,
            quotas: Quotas::new(tokio::time::Instant::now()),
            identity: None,
            tls: None,
            queue: Arc::default(),
            shutdown: CancellationToken::new(),
            prefetched: Arc::default(),
        }
    }

    /// A submission listener with STARTTLS, spoken to by a stranger; alice's password is `secret`.
    pub(super) fn submission() -> Self {
        let mut setting = Self::trusted();
        setting.listener.tls = ListenerTls::StartTls;
        setting.listener.auth = ListenerAuth::Required;
        setting.peer = "198.51.100.7:4711";
        setting.tls = Some(certificate());
        let hash = crate::submission::users::tests::cheap_hash("secret");
        setting.options.users = Users::parse(&format!("alice:{hash}")).unwrap();
        setting
    }

    /// Begins the session; the greeting is still to be read.
    pub(super) fn connect(&self) -> Talk {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        self.run(Box::new(theirs));
        Talk { io: Box::new(ours), read: Vec::new(), binding: None, identity: self.identity }
    }

    /// Begins the session on any stream.
    pub(super) fn run(&self, stream: Box<dyn Stream>) -> tokio::task::JoinHandle<()> {
        let prefetched = self.prefetched.clone();
        let shared = Shared {
            inbox: Arc::new(Handle(self.queue.clone())),
            clock: Arc::new(Noon),
            prefetch: Arc::new(move |domain: &Domain| prefetched.lock().unwrap().push(domain.clone())),
            authenticator: Authenticator::default(),
            chatter: Default::default(),
            quotas: self.quotas.clone(),
            metrics: crate::metrics::Metrics::new(),
            shutdown: self.shutdown.clone(),
        };
        let client = Client {
            shared: Arc::new(shared),
            options: Arc::new(self.options.clone()),
            listener: self.listener.clone(),
            peer: self.peer.parse().unwrap(),
            nameless: self.nameless,
            place: Holder::default(),
            seat: None,
            tls: self.tls.clone(),
            facts: no_facts(),
        };
        tokio::spawn(hold(stream, None, client))
    }

    /// Begins the session and says EHLO.
    pub(super) async fn greeted(&self) -> Talk {
        let mut talk = self.connect();
        talk.expect("220").await;
        talk.ask("EHLO client.example", "250").await;
        talk
    }
}

/// A certificate for `relay.example.org` that [`Talk::starttls`] trusts.
fn certificate() -> Arc<ServerTls> {
    static LOADED: OnceLock<Arc<ServerTls>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
            std::fs::write(&chain, issued().cert.pem()).unwrap();
            std::fs::write(&key, issued().signing_key.serialize_pem()).unwrap();
            Arc::new(ServerTls::load(&chain, &key).unwrap())
        })
        .clone()
}

fn issued() -> &'static rcgen::CertifiedKey<rcgen::KeyPair> {
    static ISSUED: OnceLock<rcgen::CertifiedKey<rcgen::KeyPair>> = OnceLock::new();
    ISSUED.get_or_init(|| rcgen::generate_simple_self_signed(["relay.example.org".to_owned()]).unwrap())
}

/// The client's side.
pub(super) struct Talk {
    pub io: Box<dyn Stream>,
    read: Vec<u8>,
    /// What SCRAM binds a login to.
    pub binding: Option<[u8; 32]>,
    identity: Option<&'static rcgen::CertifiedKey<rcgen::KeyPair>>,
}

impl Talk {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
    }

    /// A line, and a reply that must start so.
    pub(super) async fn ask(&mut self, line: &str, reply: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.expect(reply).await
    }

    /// A reply that must start so. Its form is checked: one code on all lines, and an enhanced code
    /// of the same class wherever one has to be.
    pub(super) async fn expect(&mut self, start: &str) -> String {
        let reply = self.reply().await;
        assert!(reply.starts_with(start), "wanted {start}, got {reply:?}");
        reply
    }

    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let line = self.line().await;
            let (code, rest) = line.split_at(3);
            assert!(reply.is_empty() || reply.starts_with(code), "{reply:?} then {line:?}");
            reply.push_str(&line);
            if rest.starts_with(' ') {
                break;
            }
            assert!(rest.starts_with('-'), "{line:?}");
        }
        let exempt = reply.starts_with('3')
            || reply.starts_with("220 relay.example.org ")
            || reply.starts_with("250-relay.example.org\r")
            || reply.starts_with("250 relay.example.org\r");
        for line in reply.lines().filter(|_| !exempt) {
            let code = line[4..].split(' ').next().unwrap();
            let status: EnhancedStatus = code.parse().unwrap_or_else(|()| panic!("no code: {line:?}"));
            assert_eq!(status.class, line.as_bytes()[0] - b'0', "{line:?}");
        }
        reply
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = memchr::memmem::find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return String::from_utf8(line).unwrap();
            }
            assert!(self.fill().await > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// One read; how many octets it brought.
    pub(super) async fn fill(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let octets = self.io.read(&mut buffer).await.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..octets]);
        octets
    }

    /// Lines that are here already.
    pub(super) fn pending_lines(&self) -> usize {
        memchr::memmem::find_iter(&self.read, b"\r\n").count()
    }

    /// Nothing more comes but the end.
    pub(super) async fn closed(&mut self) {
        let octets = self.fill().await;
        assert_eq!((octets, self.read.len()), (0, 0), "{:?}", String::from_utf8_lossy(&self.read));
    }

    /// MAIL, RCPT and DATA.
    pub(super) async fn begin(&mut self) {
        self.ask("MAIL FROM:<a@example.com>", "250 2.1.0").await;
        self.ask("RCPT TO:<b@example.net>", "250 2.1.5").await;
        self.ask("DATA", "354").await;
    }

    /// A whole message; the reply must start so.
    pub(super) async fn message(&mut self, content: impl AsRef<[u8]>, reply: &str) -> String {
        self.begin().await;
        self.send(content).await;
        self.send("\r\n.\r\n").await;
        self.expect(reply).await
    }

    /// STARTTLS with its handshake.
    pub(super) async fn starttls(mut self) -> Self {
        self.ask("STARTTLS", "220 2.0.0").await;
        self.handshake().await
    }

    pub(super) async fn handshake(self) -> Self {
        self.handshake_by(&[&rustls::version::TLS13, &rustls::version::TLS12]).await
    }

    /// A handshake with only these versions.
    pub(super) async fn handshake_by(self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(issued().cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match self.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![identity.cert.der().clone()], key).unwrap()
            }
        };
        let name = "relay.example.org".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, self.io).await.unwrap();
        let session = stream.get_ref().1;
        let binding = session.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok();
        Self { io: Box::new(stream), read: Vec::new(), binding, identity: self.identity }
    }
}

/// A time long enough for anything that is not waiting for it.
pub(super) const AGES: Duration = Duration::from_secs(100_000);
