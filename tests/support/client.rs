//! A submitting client.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use stsrelay::net::tcp::Stream;

use super::PATIENCE;

/// An SMTP connection as a client.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

impl Client {
    /// Connects and reads the greeting.
    pub async fn connect(to: SocketAddr) -> Self {
        let (mut client, greeting) = Self::dial(to).await;
        assert!(greeting.starts_with("220"), "{greeting}");
        let hello = client.say("EHLO client.world.test").await;
        assert!(hello.starts_with("250"), "{hello}");
        client
    }

    /// Connects; gives the greeting whatever it is.
    pub async fn dial(to: SocketAddr) -> (Self, String) {
        let stream = dial(to).await;
        let mut client = Self { stream: BufReader::new(Box::new(stream)) };
        let greeting = client.reply().await;
        (client, greeting)
    }

    /// Connects to an implicit-TLS listener.
    pub async fn connect_tls(to: SocketAddr, root: CertificateDer<'static>, name: &'static str) -> Self {
        let stream = dial(to).await;
        let mut client = Self { stream: BufReader::new(secure(Box::new(stream), root, name).await) };
        let greeting = client.reply().await;
        assert!(greeting.starts_with("220"), "{greeting}");
        client.say("EHLO client.world.test").await;
        client
    }

    /// Connects, if that can be, and is greeted.
    pub async fn try_connect(to: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(to).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Self { stream: BufReader::new(Box::new(stream)) }.greeted().await
    }

    /// The same with TLS from the first octet.
    pub async fn try_connect_tls(
        to: SocketAddr,
        root: CertificateDer<'static>,
        name: &'static str,
    ) -> Option<Self> {
        let stream = TcpStream::connect(to).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let stream = try_secure(Box::new(stream), root, name).await?;
        Self { stream: BufReader::new(stream) }.greeted().await
    }

    async fn greeted(mut self) -> Option<Self> {
        if !self.reply().await.starts_with("220") {
            return None;
        }
        self.say("EHLO client.world.test").await.starts_with("250").then_some(self)
    }

    /// The same with a client certificate; gives the EHLO reply too.
    pub async fn connect_tls_as(
        to: SocketAddr,
        root: CertificateDer<'static>,
        name: &'static str,
        leaf: &super::pki::Leaf,
    ) -> (Self, String) {
        let identity = (CertificateDer::from(leaf.certificate_der()), leaf.key_der());
        let stream = dial(to).await;
        let stream = try_secure_as(Box::new(stream), root, name, Some(identity)).await;
        let mut client = Self { stream: BufReader::new(stream.expect("the handshake succeeds")) };
        let greeting = client.reply().await;
        assert!(greeting.starts_with("220"), "{greeting}");
        let hello = client.say("EHLO client.world.test").await;
        (client, hello)
    }

    /// The handshake; what came before it is forgotten here too.
    pub async fn handshake(self, root: CertificateDer<'static>, name: &'static str) -> Self {
        let stream = secure(self.stream.into_inner(), root, name).await;
        Self { stream: BufReader::new(stream) }
    }

    /// Whether STARTTLS and the handshake succeed.
    pub async fn try_starttls(mut self, root: CertificateDer<'static>, name: &'static str) -> bool {
        self.say("STARTTLS").await.starts_with("220")
            && try_secure(self.stream.into_inner(), root, name).await.is_some()
    }

    /// STARTTLS and the handshake, without EHLO.
    pub async fn upgrade(mut self, root: CertificateDer<'static>, name: &'static str) -> Self {
        let reply = self.say("STARTTLS").await;
        assert!(reply.starts_with("220"), "{reply}");
        self.handshake(root, name).await
    }

    /// STARTTLS and EHLO again; gives the EHLO reply.
    pub async fn starttls(self, root: CertificateDer<'static>, name: &'static str) -> (Self, String) {
        let mut client = self.upgrade(root, name).await;
        let hello = client.say("EHLO client.world.test").await;
        (client, hello)
    }

    /// Sends octets as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.expect("the daemon reads");
        self.stream.get_mut().flush().await.expect("the daemon reads");
    }

    /// One whole reply, lines joined by newline; empty when the connection is closed.
    pub async fn reply(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("a reply in time");
            let line = line.trim_end().to_owned();
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line);
            if !more || !matches!(read, Ok(1..)) {
                return lines.join("\n");
            }
        }
    }

    /// A command and its reply.
    pub async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// A whole transaction; gives the reply to the final dot, or the first refusal. `from` and `to`
    /// are addresses, or whole arguments such as `<a@b.test> NOTIFY=NEVER`.
    pub async fn submit(&mut self, from: &str, to: &[&str], content: &str) -> String {
        let path = |text: &str| if text.starts_with('<') { text.to_owned() } else { format!("<{text}>") };
        let mail = self.say(&format!("MAIL FROM:{}", path(from))).await;
        if !mail.starts_with('2') {
            return mail;
        }
        for to in to {
            let rcpt = self.say(&format!("RCPT TO:{}", path(to))).await;
            if !rcpt.starts_with('2') {
                return rcpt;
            }
        }
        let data = self.say("DATA").await;
        if !data.starts_with('3') {
            return data;
        }
        assert!(content.ends_with("\r\n"), "test messages end with a line end");
        let stuffed = format!("\r\n{content}").replace("\r\n.", "\r\n..");
        self.send(&stuffed.as_bytes()[2..]).await;
        self.say(".").await
    }
}

/// A small message.
pub fn message(subject: &str) -> String {
    format!("From: <a@home.test>\r\nSubject: {subject}\r\n\r\nThe words of {subject}.\r\n")
}

/// The queue id in `250 2.0.0 Ok: queued as ID`.
pub fn queue_id(reply: &str) -> String {
    assert!(reply.starts_with("250"), "not accepted: {reply}");
    reply.rsplit(' ').next().expect("a last word").to_owned()
}

async fn dial(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).await.expect("the listener accepts");
    stream.set_nodelay(true).expect("it is TCP");
    stream
}

async fn secure(
    stream: Box<dyn Stream>,
    root: CertificateDer<'static>,
    name: &'static str,
) -> Box<dyn Stream> {
    try_secure(stream, root, name).await.expect("the handshake succeeds")
}

async fn try_secure(
    stream: Box<dyn Stream>,
    root: CertificateDer<'static>,
    name: &'static str,
) -> Option<Box<dyn Stream>> {
    try_secure_as(stream, root, name, None).await
}

async fn try_secure_as(
    stream: Box<dyn Stream>,
    root: CertificateDer<'static>,
    name: &'static str,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Option<Box<dyn Stream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("the test root is a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has safe versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            config.with_client_auth_cert(vec![certificate], key).expect("the key fits")
        }
    };
    let name = ServerName::try_from(name).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    Some(Box::new(stream))
}

/// A client that expects the daemon to die at any instant.
pub struct Rough {
    stream: BufReader<TcpStream>,
}

impl Rough {
    /// Over an open connection; the greeting is still to be read.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// One whole reply's last line; `None` when the connection is gone.
    pub async fn read_reply(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            match timeout(PATIENCE, self.stream.read_line(&mut line)).await {
                Ok(Ok(1..)) if line.ends_with('\n') => {}
                _ => return None,
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(line);
            }
        }
    }

    /// A command and the last line of its reply.
    pub async fn say(&mut self, line: &str) -> Option<String> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
        self.read_reply().await
    }

    /// A whole transaction; gives the reply to the final dot.
    pub async fn submit(&mut self, from: &str, to: &str, content: &str) -> Option<String> {
        self.say(&format!("MAIL FROM:<{from}>")).await?;
        self.say(&format!("RCPT TO:<{to}>")).await?;
        self.say("DATA").await?;
        self.say(&format!("{content}.")).await
    }
}
