//! A whole submission session: operations of a client, well-behaved and not, against the session the
//! relay runs, on a stream in memory, with a queue in memory that may fail.
//!
//! The first octets say what the listener is; then one operation after the other. Whatever was said:
//! every reply is a reply, what was answered 250 is in the queue and nothing else is, what is in the
//! queue is what was sent, nobody relays who may not, and no receiver sees two messages in one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use argon2::PasswordHasher as _;
use argon2::password_hash::phc::PasswordHash;
use futures_util::future::BoxFuture;
use stsrelay::mail::{BodyType, Domain, TlsRequest, header};
use stsrelay::net::tcp::Stream;
use stsrelay::net::tls::ServerTls;
use stsrelay::net::world::Clock;
use stsrelay::queue::QueueId;
use stsrelay::smtp::body::{BareNewlines, LINE_BYTES_MAX, Normalizer, Stuffer};
use stsrelay::smtp::decoder::Decoder;
use stsrelay::store::{Body, Health, NewMessage, QueueError};
use stsrelay::submission::intake::{Inbox, InboxBody};
use stsrelay::submission::{ListenerAuth, ListenerOptions, ListenerTls, Options, Sessions, Users};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::address::kept;
use super::input::Input;
use super::receivers::{check_lines, check_one_message};

/// Operations of one session.
const OPERATIONS_MAX: usize = 48;
/// Octets of the pipe: more than all a session says at once.
const PIPE_BYTES: usize = 1 << 20;
const MESSAGE_BYTES_MAX: u64 = 20_000;
const RECIPIENTS_MAX: usize = 4;

pub fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(session(Input::new(data)));
}

async fn session(mut input: Input<'_>) {
    let ways = input.octet();
    let queue = Arc::new(Mutex::new(Kept { fails_from: fails_from(&mut input), ..Kept::default() }));
    let trusted = ways & 1 == 0;
    let mut listener = ListenerOptions::new("fuzzed", Vec::new());
    listener.tls = if ways & 2 == 2 { ListenerTls::StartTls } else { ListenerTls::None };
    listener.auth = if trusted { ListenerAuth::Optional } else { ListenerAuth::Required };
    listener.allow_plaintext_auth = ways & 4 == 4;
    if ways & 8 == 8 {
        listener.bare_newlines = BareNewlines::Normalise;
    }
    listener.trusted_networks = vec!["192.0.2.0/24".parse().expect("a network")];
    let mut options = Options::new(Domain::parse("relay.example.org").expect("a domain"));
    options.message_size = MESSAGE_BYTES_MAX;
    options.recipients = RECIPIENTS_MAX;
    options.users = Users::parse(&format!("alice:{}", cheap_hash())).expect("one user");
    let (_, options) = watch::channel(Arc::new(options));
    let (_, tls) = watch::channel((ways & 2 == 2).then(certificate));
    let sessions = Sessions::new(
        options,
        tls,
        Double(Arc::clone(&queue)),
        Arc::new(Noon),
        Arc::new(|_: &Domain| ()),
        CancellationToken::new(),
    );
    let (near, far) = duplex(PIPE_BYTES);
    let peer = SocketAddr::from(([192, 0, 2, 9], 4711));
    let held = tokio::spawn(async move { sessions.hold(&listener, Box::new(far), peer).await });

    let mut client = Client { stream: Some(Box::new(near)), queue, trusted, ..Client::default() };
    client.hear().await;
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() || client.stream.is_none() {
            break;
        }
        client.operate(&mut input).await;
    }
    drop(client.stream.take());
    held.await.expect("the session ends");
    client.check_queue();
}

/// The client's side, and what it knows must be so.
#[derive(Default)]
struct Client {
    stream: Option<Box<dyn Stream>>,
    queue: Arc<Mutex<Kept>>,
    /// Its address may relay.
    trusted: bool,
    encrypted: bool,
    authenticated: bool,
    /// Ids of what was answered 250.
    acknowledged: Vec<QueueId>,
    /// What the chunks of this message were, as long as nothing came between them.
    chunks: Option<Vec<u8>>,
    /// The text of the last reply's first line.
    last: String,
}

impl Client {
    async fn operate(&mut self, input: &mut Input<'_>) {
        let operation = input.octet() % 20;
        if operation != 9 {
            self.chunks = None;
        }
        let _codes = match operation {
            0 | 1 => self.line(b"EHLO client.example").await,
            2 => self.line(&[b"EHLO ", input.short()].concat()).await,
            3 => self.line(b"MAIL FROM:<author@example.com>").await,
            4 => self.line(&[b"MAIL FROM:", input.short()].concat()).await,
            5 => {
                let codes = self.line(format!("RCPT TO:<u{}@example.net>", input.octet()).as_bytes()).await;
                // Taken only before the first chunk.
                self.chunks = (codes == [250] && self.last == "Ok").then(Vec::new);
                codes
            }
            6 => self.line(&[b"RCPT TO:", input.short()].concat()).await,
            7 => self.content(input.long(), true).await,
            8 => self.content(input.long(), false).await,
            9 => self.chunk(input).await,
            10 => self.line(b"RSET").await,
            11 => self.start_tls().await,
            12 => self.authenticate(input).await,
            13 => self.line(input.short()).await,
            14 => self.say(input.long()).await,
            15 => self.transaction(input.long(), input).await,
            16 => self.line(input.pick(&[b"NOOP".as_slice(), b"HELP", b"QUIT", b"VRFY x", b"DATA"])).await,
            17 => {
                // A group in one write, as RFC 2920 allows it.
                let group = [
                    b"RSET\r\nMAIL FROM:<a@example.com> SIZE=10\r\nRCPT TO:<b@example.net>\r\n".as_slice(),
                    input.short(),
                    b"\r\nDATA\r\n",
                ];
                self.say(&group.concat()).await
            }
            // Silence, until somebody loses patience or not.
            18 => {
                tokio::time::sleep(Duration::from_secs(u64::from(input.octet()))).await;
                self.hear().await
            }
            _ => self.transaction(input.short(), input).await,
        };
    }

    /// A command and all that is said to it.
    async fn line(&mut self, line: &[u8]) -> Vec<u16> {
        self.say(&[line, b"\r\n"].concat()).await
    }

    /// All in one write, and all that is said to it until nothing more is.
    async fn say(&mut self, octets: &[u8]) -> Vec<u16> {
        let Some(stream) = &mut self.stream else { return Vec::new() };
        // What the session does not read any more is lost, as on any connection.
        let _ = stream.write_all(octets).await;
        self.hear().await
    }

    async fn hear(&mut self) -> Vec<u16> {
        let mut heard = Vec::new();
        let Some(stream) = &mut self.stream else { return Vec::new() };
        let mut piece = vec![0; 16 << 10];
        loop {
            tokio::select! {
                biased;
                read = stream.read(&mut piece) => match read {
                    Ok(octets @ 1..) => heard.extend_from_slice(&piece[..octets]),
                    _ => {
                        self.stream = None;
                        break;
                    }
                },
                // Time passes only when nobody has anything to do.
                () = tokio::time::sleep(Duration::from_millis(1)) => break,
            }
        }
        self.read_replies(&heard)
    }

    fn read_replies(&mut self, mut heard: &[u8]) -> Vec<u16> {
        check_lines(heard);
        let mut decoder = Decoder::default();
        let mut codes = Vec::new();
        while !heard.is_empty() {
            let (used, reply) = decoder.feed(heard);
            heard = &heard[used..];
            let reply =
                reply.unwrap_or_else(|error| panic!("{error}: {:?}", heard.escape_ascii().to_string()));
            let reply = reply.expect("replies are whole");
            codes.push(reply.code);
            self.last.clone_from(&reply.lines[0]);
            if reply.code == 235 {
                self.authenticated = true;
            }
            if let Some(id) = reply.lines[0].strip_prefix("Ok: queued as ") {
                assert_eq!(reply.code, 250);
                self.acknowledged.push(id.parse().expect("an id"));
                self.check_latest();
            }
        }
        codes
    }

    /// DATA, and content: dots stuffed, or octets as they are.
    async fn content(&mut self, content: &[u8], well: bool) -> Vec<u16> {
        let before = self.acknowledged.len();
        if self.line(b"DATA").await != [354] {
            return Vec::new();
        }
        let mut wire = Vec::new();
        let plain = well.then(|| whole_lines(content));
        match &plain {
            Some(plain) => {
                for line in plain.split_inclusive(|b| *b == b'\n') {
                    wire.extend(line.starts_with(b".").then_some(b'.'));
                    wire.extend_from_slice(line);
                }
                wire.extend_from_slice(b".\r\n");
            }
            None => wire = [content, b"\r\n.\r\n"].concat(),
        }
        let codes = self.say(&wire).await;
        if let Some(plain) = plain
            && self.acknowledged.len() > before
        {
            assert_eq!((codes.len(), self.acknowledged.len()), (1, before + 1), "one message, one reply");
            self.check_content(&plain);
        }
        codes
    }

    async fn chunk(&mut self, input: &mut Input<'_>) -> Vec<u16> {
        let (last, content) = (input.flag(), input.short());
        self.line(b"NOOP").await;
        if self.last != "Ok" {
            // It was no command there.
            self.chunks = None;
            return Vec::new();
        }
        let command = format!("BDAT {}{}\r\n", content.len(), if last { " LAST" } else { "" });
        let before = self.acknowledged.len();
        let codes = self.say(&[command.as_bytes(), content].concat()).await;
        if let Some(chunks) = &mut self.chunks {
            chunks.extend_from_slice(content);
        }
        if self.acknowledged.len() > before {
            assert!(last && codes == [250]);
            if let Some(chunks) = self.chunks.take() {
                self.check_content(&whole_lines(&chunks));
            }
        }
        if last || codes != [250] {
            self.chunks = None;
        }
        codes
    }

    /// A whole message, each step as it should be; by BDAT now and then.
    async fn transaction(&mut self, content: &[u8], input: &mut Input<'_>) -> Vec<u16> {
        let greeted = self.line(b"EHLO client.example").await;
        if greeted != [250] || self.last != "relay.example.org" {
            // Something begun before took it for its own.
            return Vec::new();
        }
        let before = self.acknowledged.len();
        let may = self.trusted || self.authenticated;
        let mail = self.line(b"MAIL FROM:<author@example.com> BODY=8BITMIME").await;
        assert_eq!(mail == [250], may, "{mail:?}");
        let rcpt = self.line(b"RCPT TO:<someone@example.net>").await;
        assert_eq!(rcpt == [250], may, "{rcpt:?}");
        let by_chunks = input.flag();
        if by_chunks {
            self.chunks = Some(Vec::new());
            let (first, rest) = content.split_at(content.len() / 2);
            for (piece, last) in [(first, ""), (rest, " LAST")] {
                let command = format!("BDAT {}{last}\r\n", piece.len());
                self.say(&[command.as_bytes(), piece].concat()).await;
            }
            self.chunks = None;
        } else {
            self.content(content, true).await;
        }
        let plain = whole_lines(content);
        let sound = is_sound(&plain);
        if self.acknowledged.len() > before {
            assert!(may && sound);
            self.check_content(&plain);
        } else {
            let queue = self.queue.lock().expect("no panic before");
            assert!(self.stream.is_none() || !may || !sound || queue.refused(), "refused for no reason");
        }
        Vec::new()
    }

    async fn start_tls(&mut self) -> Vec<u16> {
        let codes = self.line(b"STARTTLS").await;
        if codes != [220] {
            return codes;
        }
        let Some(stream) = self.stream.take() else { return codes };
        let name = "relay.example.org".try_into().expect("a name");
        self.stream = match connector().connect(name, stream).await {
            Ok(stream) => Some(Box::new(stream)),
            Err(error) => panic!("the handshake fails: {error}"),
        };
        // RFC 3207 §4.2: nothing said before counts any more.
        self.encrypted = true;
        self.authenticated = false;
        Vec::new()
    }

    async fn authenticate(&mut self, input: &mut Input<'_>) -> Vec<u16> {
        match input.octet() % 4 {
            // alice, secret
            0 => self.line(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==").await,
            1 => self.line(b"AUTH PLAIN AGFsaWNlAHdyb25n").await,
            2 => {
                self.line(b"AUTH LOGIN").await;
                self.line(b"YWxpY2U=").await;
                self.line(b"c2VjcmV0").await
            }
            _ => {
                self.line(&[b"AUTH ", input.short()].concat()).await;
                self.line(input.short()).await
            }
        }
    }

    /// The message acknowledged last is there, and is what any receiver takes for one message.
    fn check_latest(&self) {
        let queue = self.queue.lock().expect("no panic before");
        let (message, content) = queue.messages.last().expect("what is acknowledged is there (I1)");
        assert_eq!(Some(&message.id), self.acknowledged.last());
        assert!(self.trusted || self.authenticated, "a stranger relays");
        assert!(message.envelope.tls != TlsRequest::Required || self.encrypted);
        assert!((1..=RECIPIENTS_MAX).contains(&message.envelope.recipients.len()));
        assert_eq!(kept(&message.envelope), message.envelope, "the journal keeps it");
        assert!(
            content.is_ascii()
                || message.envelope.body == BodyType::EightBitMime
                || message.envelope.smtputf8
        );
        check_lines(content);
        assert!(content.ends_with(b"\r\n"));
        let long = content.split(|b| *b == b'\n').map(<[u8]>::len).max().unwrap_or_default();
        assert!(long <= LINE_BYTES_MAX + 1, "a line of {long}");
        let (mut stuffer, mut wire) = (Stuffer::default(), Vec::new());
        stuffer.feed(content, &mut wire);
        stuffer.finish(&mut wire);
        check_one_message(&wire);
        // Ours comes first, once, and is one field.
        assert!(content.starts_with(b"Received: from "));
        let (section, _) = header::split(content);
        let first = header::fields(section).next().expect("a field").1;
        assert!(first.ends_with(b"+0000") && first.len() < 1500, "{}", first.escape_ascii());
    }

    /// Behind what was added stands what was sent, to the octet.
    fn check_content(&self, plain: &[u8]) {
        let queue = self.queue.lock().expect("no panic before");
        let (_, content) = queue.messages.last().expect("it is there");
        assert!(content.ends_with(plain), "{} from {}", content.escape_ascii(), plain.escape_ascii());
        let added = std::str::from_utf8(&content[..content.len() - plain.len()]).expect("ours is text");
        let names: Vec<&str> = added
            .split_terminator("\r\n")
            .filter(|line| !line.starts_with('\t') && !line.is_empty())
            .map(|line| line.split_once(':').expect("a field").0)
            .collect();
        assert!(
            ["Received", "Received,Date", "Received,Message-ID", "Received,Date,Message-ID"]
                .contains(&names.join(",").as_str()),
            "{added:?}"
        );
    }

    /// All is there that was acknowledged, and nothing more.
    fn check_queue(&self) {
        let queue = self.queue.lock().expect("no panic before");
        let ids: Vec<QueueId> = queue.messages.iter().map(|(message, _)| message.id).collect();
        let told = self.acknowledged.len();
        assert_eq!(ids[..told], self.acknowledged[..]);
        // The reply to the last one may be lost with the connection.
        assert!(ids.len() <= told + 1, "{} messages, {told} replies", ids.len());
    }
}

/// What a message is whose strays are mended.
fn whole_lines(content: &[u8]) -> Vec<u8> {
    let (mut lines, mut out) = (Normalizer::default(), Vec::new());
    lines.feed(content, &mut out);
    lines.finish(&mut out);
    out
}

/// Whether a message must be taken.
fn is_sound(plain: &[u8]) -> bool {
    let long = plain.split(|b| *b == b'\n').any(|line| line.len() > LINE_BYTES_MAX + 1);
    let (section, _) = header::split(plain);
    !plain.contains(&0)
        && !long
        && plain.len() as u64 <= MESSAGE_BYTES_MAX
        && header::count(section, "Received") <= 100
}

/// Everything the queue took.
#[derive(Default)]
struct Kept {
    sequence: u64,
    messages: Vec<(NewMessage, Vec<u8>)>,
    /// Fails from so many messages on.
    fails_from: Option<(usize, QueueError)>,
    failed: bool,
}

impl Kept {
    fn refused(&self) -> bool {
        self.failed
    }

    fn trouble(&mut self) -> Result<(), QueueError> {
        match &self.fails_from {
            Some((from, error)) if self.messages.len() >= *from => {
                self.failed = true;
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }
}

fn fails_from(input: &mut Input<'_>) -> Option<(usize, QueueError)> {
    let octet = input.octet();
    let error = match octet & 3 {
        2 => QueueError::Full("no space".into()),
        3 => QueueError::Storage("broken".into()),
        _ => return None,
    };
    Some((usize::from(octet >> 6), error))
}

struct Double(Arc<Mutex<Kept>>);

impl Inbox for Double {
    fn health(&self) -> Health {
        Health::Fine
    }
    fn allocate_id(&self) -> QueueId {
        let mut kept = self.0.lock().expect("no panic before");
        kept.sequence += 1;
        QueueId { node: 1, sequence: kept.sequence }
    }
    fn body_writer(&self) -> Box<dyn InboxBody> {
        Box::new(DoubleBody(Vec::new()))
    }
    fn enqueue(&self, message: NewMessage) -> BoxFuture<'_, Result<QueueId, QueueError>> {
        Box::pin(async move {
            // As a journal's sync does.
            tokio::task::yield_now().await;
            let mut kept = self.0.lock().expect("no panic before");
            kept.trouble()?;
            let Body::Memory(content) = &message.body else { panic!("only memory here") };
            let (id, content) = (message.id, content.to_vec());
            kept.messages.push((message, content));
            Ok(id)
        })
    }
}

struct DoubleBody(Vec<u8>);

impl InboxBody for DoubleBody {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), QueueError>> {
        self.0.extend_from_slice(bytes);
        Box::pin(std::future::ready(Ok(())))
    }
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Body, QueueError>> {
        Box::pin(std::future::ready(Ok(Body::Memory(self.0.into()))))
    }
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_793_620_800).expect("a noon")
    }
}

/// Of "secret", with the least work there is: the real hash takes most of a second.
fn cheap_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let parameters = argon2::Params::new(64, 1, 1, None).expect("parameters");
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
        let hash: PasswordHash =
            argon2.hash_password_with_salt(b"secret", b"saltsaltsaltsalt").expect("a hash");
        hash.to_string()
    })
}

fn issued() -> &'static rcgen::CertifiedKey<rcgen::KeyPair> {
    static ISSUED: OnceLock<rcgen::CertifiedKey<rcgen::KeyPair>> = OnceLock::new();
    ISSUED.get_or_init(|| {
        rcgen::generate_simple_self_signed(["relay.example.org".to_owned()]).expect("a certificate")
    })
}

fn certificate() -> Arc<ServerTls> {
    static LOADED: OnceLock<Arc<ServerTls>> = OnceLock::new();
    let load = || {
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&chain, issued().cert.pem()).expect("a file");
        std::fs::write(&key, issued().signing_key.serialize_pem()).expect("a file");
        Arc::new(ServerTls::load(&chain, &key).expect("a chain and its key"))
    };
    LOADED.get_or_init(load).clone()
}

fn connector() -> tokio_rustls::TlsConnector {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(issued().cert.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    });
    Arc::clone(config).into()
}
