//! Mail in, over real sockets and the real queue: listeners, limits, TLS, restart.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stsrelay::mail::Domain;
use stsrelay::net::tls::ServerTls;
use stsrelay::net::world::SystemClock;
use stsrelay::store::{Filter, Queue, QueueOptions};
use stsrelay::submission::{
    ListenerAuth, ListenerOptions, ListenerTls, Options, Sessions, Users, bind, hash_password, serve,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> jiff::Timestamp {
    use stsrelay::net::world::Clock;
    SystemClock.now()
}

fn open(data_dir: &Path) -> Queue {
    let (queue, repaired) =
        Queue::open(&QueueOptions { data_dir: data_dir.to_owned(), node: 1 }, now()).unwrap();
    assert_eq!(repaired, Vec::<String>::new());
    queue
}

fn options() -> Options {
    let mut options = Options::new(Domain::parse("relay.example.org").unwrap());
    let mut smarthost = ListenerOptions::new("smarthost", vec!["127.0.0.1:0".parse().unwrap()]);
    smarthost.trusted_networks = vec!["127.0.0.0/8".parse().unwrap()];
    options.listeners = vec![smarthost];
    options
}

/// A relay's first story.
struct Relay {
    addresses: Vec<SocketAddr>,
    options: watch::Sender<Arc<Options>>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Relay {
    fn start(options: Options, tls: Option<ServerTls>, queue: Queue) -> Self {
        let bound = bind(&options, Vec::new()).unwrap();
        let addresses = bound
            .iter()
            .flat_map(|(_, sockets)| sockets)
            .map(|socket| socket.local_addr().unwrap())
            .collect();
        let (options, watched) = watch::channel(Arc::new(options));
        let (_, tls) = watch::channel(tls.map(Arc::new));
        let shutdown = CancellationToken::new();
        let prefetch = Arc::new(|_: &Domain| ());
        let clock = Arc::new(SystemClock);
        let sessions = Sessions::new(watched, tls, queue, clock, prefetch, shutdown.clone());
        let serving = tokio::spawn(serve(bound, sessions));
        Self { addresses, options, shutdown, serving }
    }

    async fn client(&self) -> Client<TcpStream> {
        Client(BufReader::new(TcpStream::connect(self.addresses[0]).await.unwrap()))
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.expect("it drains").unwrap();
    }
}

struct Client<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The last line of a reply; empty at the end of the connection.
    async fn reply(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("a reply");
            if read.unwrap_or(0) == 0 || line.as_bytes().get(3) == Some(&b' ') {
                return line;
            }
        }
    }

    async fn expect(&mut self, start: &str) -> String {
        let reply = self.reply().await;
        assert!(reply.starts_with(start), "wanted {start}, got {reply:?}");
        reply
    }

    async fn ask(&mut self, line: &str, reply: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.expect(reply).await
    }

    async fn greet(&mut self) {
        self.expect("220 ").await;
        self.ask("EHLO client.example", "250 ").await;
    }

    /// Submits a message; its queue id.
    async fn submit(&mut self, content: &str) -> String {
        self.ask("MAIL FROM:<a@example.com>", "250 2.1.0").await;
        self.ask("RCPT TO:<b@example.net>", "250 2.1.5").await;
        self.ask("RCPT TO:<c@example.org>", "250 2.1.5").await;
        self.ask("DATA", "354 ").await;
        let reply = self.ask(&format!("{content}\r\n."), "250 2.0.0 Ok: queued as ").await;
        reply.trim_end().rsplit(' ').next().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_250_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let relay = Relay::start(options(), None, queue.clone());
    let mut client = relay.client().await;
    client.greet().await;
    let small = client.submit("Subject: small\r\n\r\nhello").await;
    let line = format!("{}\r\n", "x".repeat(998));
    let large = client.submit(&format!("Subject: large\r\n\r\n{}", line.repeat(3000))).await;
    client.ask("QUIT", "221 ").await;
    relay.stop().await;
    queue.close().await;
    drop(queue);

    let queue = open(dir.path());
    let page = queue.list(&Filter::default(), None, 100).await.unwrap();
    let items: Vec<_> = page
        .entries
        .iter()
        .map(|entry| format!("{} {}", entry.item.id.queue_id, entry.item.destination))
        .collect();
    let both = |id: &str| ["example.net", "example.org"].map(|domain| format!("{id} {domain}"));
    assert_eq!(items, [both(&small), both(&large)].concat());
    for (id, lines) in [(small, 1), (large, 3001)] {
        let body = queue.body(id.parse().unwrap()).await.unwrap();
        let mut reader = body.reader().await.unwrap();
        let mut content = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            content.extend_from_slice(&piece);
        }
        let text = String::from_utf8(content).unwrap();
        assert!(text.starts_with("Received: from client.example ([127.0.0.1])\r\n"), "{text}");
        assert!(text.contains(&format!(" with ESMTP id {id};\r\n")), "{}", &text[..300]);
        let body = text.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body.matches("\r\n").count(), lines);
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_listener_takes_mail_over_both_kinds_of_tls() {
    let dir = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(["relay.example.org".to_owned()]).unwrap();
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    std::fs::write(&chain, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));

    let mut options = options();
    options.users = Users::parse(&format!("alice:{}", hash_password("secret"))).unwrap();
    for (name, tls) in [("submission", ListenerTls::StartTls), ("submissions", ListenerTls::Implicit)] {
        let mut listener = ListenerOptions::new(name, vec!["127.0.0.1:0".parse().unwrap()]);
        listener.tls = tls;
        listener.auth = ListenerAuth::Required;
        options.listeners.push(listener);
    }
    let queue = open(dir.path());
    let relay = Relay::start(options, Some(ServerTls::load(&chain, &key).unwrap()), queue.clone());
    for (address, implicit) in [(relay.addresses[1], false), (relay.addresses[2], true)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if !implicit {
            let mut clear = Client(BufReader::new(stream));
            clear.greet().await;
            clear.ask("MAIL FROM:<a@example.com>", "530 5.7.0").await;
            clear.ask("STARTTLS", "220 2.0.0").await;
            stream = clear.0.into_inner();
        }
        let name = "relay.example.org".try_into().unwrap();
        let mut client = Client(BufReader::new(connector.connect(name, stream).await.unwrap()));
        if implicit {
            client.expect("220 ").await;
        }
        client.ask("EHLO client.example", "250 ").await;
        client.ask("MAIL FROM:<a@example.com>", "530 5.7.0").await;
        client.ask("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235 2.7.0").await;
        client.submit("Subject: x\r\n\r\ny").await;
        client.ask("QUIT", "221 ").await;
    }
    assert_eq!(queue.stats().active, 4);
    relay.stop().await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited_in_all_and_per_address() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let mut options = options();
    options.connections = 3;
    options.connections_per_address = 1;
    options.listeners[0].trusted_networks.clear();
    let relay = Relay::start(options, None, queue.clone());
    let mut first = relay.client().await;
    first.greet().await;
    relay.client().await.expect("421 4.7.0").await;
    first.ask("QUIT", "221 ").await;

    // A reload that trusts the address lifts its limit for new connections.
    let mut reloaded = Options::clone(&relay.options.borrow());
    reloaded.listeners[0].trusted_networks = vec!["127.0.0.1/32".parse().unwrap()];
    relay.options.send(Arc::new(reloaded)).unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = relay.client().await;
        client.greet().await;
        client.ask("MAIL FROM:<a@example.com>", "250 2.1.0").await;
        held.push(client);
    }
    // One more waits in the backlog until somebody leaves.
    let mut waiting = relay.client().await;
    held.pop().unwrap().ask("QUIT", "221 ").await;
    waiting.greet().await;
    relay.stop().await;
    assert!(waiting.reply().await.starts_with("421 4.3.2"));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_all_get_their_250() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let relay = Relay::start(options(), None, queue.clone());
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let address = relay.addresses[0];
            tokio::spawn(async move {
                let mut client = Client(BufReader::new(TcpStream::connect(address).await.unwrap()));
                client.greet().await;
                let mut ids = Vec::new();
                for _ in 0..10 {
                    ids.push(client.submit("Subject: x\r\n\r\ny").await);
                }
                ids
            })
        })
        .collect();
    let mut ids = Vec::new();
    for client in clients {
        ids.extend(client.await.unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    assert_eq!(queue.stats().active, 400);
    relay.stop().await;
    queue.close().await;
}

/// A connection that a proxy has made, with its header.
async fn proxied(relay: &Relay, header: &[u8]) -> Client<TcpStream> {
    let mut client = relay.client().await;
    client.0.get_mut().write_all(header).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_proxy_says_whom_it_speaks_for_and_nobody_else_may() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let mut options = options();
    options.connections_per_address = 2;
    options.handshake_timeout = Duration::from_secs(1);
    options.listeners[0].trusted_networks = vec!["198.51.100.0/24".parse().unwrap()];
    options.listeners[0].proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
    let relay = Relay::start(options, None, queue.clone());

    // The named client's rights count, and its address is told.
    let mut client = proxied(&relay, b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 25\r\n").await;
    client.greet().await;
    let id = client.submit("Subject: x\r\n\r\ny").await;
    let body = queue.body(id.parse().unwrap()).await.unwrap();
    let first = body.reader().await.unwrap().next().await.unwrap().unwrap();
    assert!(first.starts_with(b"Received: from client.example ([198.51.100.7])\r\n"));
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28".to_vec();
    v2.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v2.extend([0; 16]);
    v2.extend([0x12, 0x67, 0, 25, 4, 0, 1, 0]);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = proxied(&relay, &v2).await;
        client.greet().await;
        client.ask("MAIL FROM:<a@example.com>", "554 5.7.1").await;
        held.push(client);
    }
    // So does its share of connections, not the proxy's.
    proxied(&relay, &v2).await.expect("421 4.7.0").await;
    proxied(&relay, b"PROXY TCP4 198.51.100.8 192.0.2.1 4711 25\r\n").await.greet().await;
    // The proxy itself, and somebody it cannot name, are in no trusted network here.
    for header in [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], b"PROXY UNKNOWN\r\n"] {
        let mut client = proxied(&relay, header).await;
        client.greet().await;
        client.ask("MAIL FROM:<a@example.com>", "554 5.7.1").await;
        client.ask("QUIT", "221 ").await;
    }
    // Without a header, with a bad one, or with silence, there is nothing but the end.
    for first in [&b"EHLO client.example\r\n"[..], b"PROXY TCP4 1.2.3.4 junk\r\n", b""] {
        assert_eq!(proxied(&relay, first).await.reply().await, "", "{first:?}");
    }
    // From elsewhere the word is no command, and no address is believed.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut direct = Client(BufReader::new(socket.connect(relay.addresses[0]).await.unwrap()));
    direct.expect("220 ").await;
    direct.ask("PROXY TCP4 198.51.100.7 192.0.2.1 4711 25", "500 5.5.1").await;
    direct.ask("EHLO client.example", "250 ").await;
    direct.ask("MAIL FROM:<a@example.com>", "554 5.7.1").await;
    relay.stop().await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_only_wait_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let mut options = options();
    options.connections = 4;
    options.listeners[0].trusted_networks = vec!["127.0.0.9/32".parse().unwrap()];
    let relay = Relay::start(options, None, queue.clone());
    let to = relay.addresses[0];
    let connect = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        Client(BufReader::new(socket.connect(to).await.unwrap()))
    };
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut client = connect("127.0.0.2").await;
        client.greet().await;
        idle.push(client);
    }
    // Each trusted client gets a place at once; the oldest stranger is told to go.
    let mut trusted = Vec::new();
    for stranger in &mut idle {
        let mut client = connect("127.0.0.9").await;
        client.greet().await;
        client.ask("MAIL FROM:<a@example.com>", "250 2.1.0").await;
        trusted.push(client);
        stranger.expect("421 4.3.2").await;
        assert_eq!(stranger.reply().await, "");
    }
    // They keep it; one more stranger waits until one of them leaves.
    let mut late = connect("127.0.0.3").await;
    for client in &mut trusted {
        client.ask("NOOP", "250 ").await;
    }
    trusted.pop().unwrap().ask("QUIT", "221 ").await;
    late.greet().await;
    relay.stop().await;
    queue.close().await;
}

#[test]
fn no_samotop_feature_is_on_and_its_old_runtime_is_not_in_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    for name in ["async-std", "smol-timeout", "samotop", "openssl", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name} is in the tree");
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("samotop-core ")).unwrap();
    assert_eq!(line, r#"samotop-core = { version = "=0.13.1", default-features = false }"#);
}
