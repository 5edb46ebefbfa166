//! The floor: a program that does only what nobody can avoid. It reads SMTP, appends, group-fdatasyncs,
//! answers, and pushes the message over a connection that is open and verified before the load begins.
//! No queue, no policy, no DNS, no tallies, no retry: what it is given while it dies is lost.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::lines::Lines;
use crate::place;

/// Open connections to each host.
const CONNECTIONS: usize = 4;
/// Messages waiting for one connection.
const WAITING: usize = 100_000;

struct Message {
    envelope: Vec<u8>,
    body: Vec<u8>,
}

type Append = (Arc<Message>, oneshot::Sender<()>);
/// Of each host, its connections.
type Pushers = Arc<Vec<Vec<mpsc::Sender<Arc<Message>>>>>;

/// Serves until killed; prints its port on standard output. Pushes to the hosts on `smtp_port`; with 0
/// it only accepts.
pub async fn serve(file: PathBuf, roots: &Path, smtp_port: u16) -> std::io::Result<()> {
    let mut pushers = Vec::new();
    let tls = connector(roots)?;
    for host in 0..place::HOSTS {
        let mut connections = Vec::new();
        for _ in 0..if smtp_port == 0 { 0 } else { CONNECTIONS } {
            let stream = open(&tls, host, smtp_port).await?;
            let (sender, queue) = mpsc::channel(WAITING);
            tokio::spawn(push(stream, queue));
            connections.push(sender);
        }
        pushers.push(connections);
    }
    let pushers = Arc::new(pushers);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let (appends, queue) = std::sync::mpsc::sync_channel::<Append>(4096);
    std::thread::spawn(move || committer(File::create(file), queue));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (appends, pushers) = (appends.clone(), pushers.clone());
        tokio::spawn(async move { session(stream, appends, pushers).await });
    }
}

fn connector(roots: &Path) -> std::io::Result<TlsConnector> {
    let mut store = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_file(roots).map_err(std::io::Error::other)?;
    store.add(root).map_err(std::io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn open(tls: &TlsConnector, host: u8, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(SocketAddr::from((place::address(host), port))).await?;
    stream.set_nodelay(true)?;
    let mut lines = Lines::default();
    lines.until(&mut stream, b"\r\n").await?;
    stream.write_all(b"EHLO floor.bench.test\r\n").await?;
    lines.until(&mut stream, b"250 STARTTLS\r\n").await?;
    stream.write_all(b"STARTTLS\r\n").await?;
    lines.until(&mut stream, b"\r\n").await?;
    let name = ServerName::try_from(place::mx(host)).map_err(std::io::Error::other)?;
    let mut stream = tls.connect(name, stream).await?;
    stream.write_all(b"EHLO floor.bench.test\r\n").await?;
    stream.flush().await?;
    Lines::default().until(&mut stream, b"250 SIZE 0\r\n").await?;
    Ok(stream)
}

async fn push(
    mut stream: TlsStream<TcpStream>,
    mut queue: mpsc::Receiver<Arc<Message>>,
) -> std::io::Result<()> {
    let mut lines = Lines::default();
    while let Some(message) = queue.recv().await {
        stream.write_all(&message.envelope).await?;
        stream.flush().await?;
        for _ in 0..3 {
            lines.until(&mut stream, b"\r\n").await?;
        }
        stream.write_all(&message.body).await?;
        stream.flush().await?;
        lines.until(&mut stream, b"\r\n").await?;
    }
    Ok(())
}

/// One write and one fdatasync for whatever waits.
fn committer(file: std::io::Result<File>, queue: std::sync::mpsc::Receiver<Append>) {
    let mut file = file.expect("the floor's file can be created");
    let mut buffer = Vec::new();
    while let Ok((first, done)) = queue.recv() {
        let mut waiting = vec![done];
        buffer.clear();
        let mut add = |message: &Message| {
            buffer.extend_from_slice(&message.envelope);
            buffer.extend_from_slice(&message.body);
        };
        add(&first);
        while waiting.len() < 256 {
            let Ok((message, done)) = queue.try_recv() else { break };
            add(&message);
            waiting.push(done);
        }
        file.write_all(&buffer).and_then(|()| file.sync_data()).expect("the floor can write");
        for done in waiting {
            let _ = done.send(());
        }
    }
}

async fn session(
    mut stream: TcpStream,
    appends: std::sync::mpsc::SyncSender<Append>,
    pushers: Pushers,
) -> std::io::Result<()> {
    stream.write_all(b"220 floor\r\n").await?;
    let mut lines = Lines::default();
    let mut replies: Vec<u8> = Vec::new();
    let mut envelope: Vec<u8> = Vec::new();
    let mut turn = 0usize;
    loop {
        let line = lines.until(&mut stream, b"\r\n").await?;
        let verb = line.first().copied().unwrap_or(0).to_ascii_uppercase();
        if verb == b'M' {
            envelope.clear();
        }
        if matches!(verb, b'M' | b'R' | b'D') {
            envelope.extend_from_slice(line);
        }
        replies.extend_from_slice(match verb {
            b'E' => b"250-floor\r\n250 PIPELINING\r\n",
            b'D' => b"354 go\r\n",
            b'Q' => return Ok(()),
            _ => b"250 ok\r\n",
        });
        if verb != b'D' && lines.has_line() {
            continue;
        }
        stream.write_all(&replies).await?;
        replies.clear();
        if verb != b'D' {
            continue;
        }
        let body = lines.until(&mut stream, b"\r\n.\r\n").await?.to_vec();
        let message = Arc::new(Message { envelope: std::mem::take(&mut envelope), body });
        let (done, written) = oneshot::channel();
        appends.send((message.clone(), done)).map_err(std::io::Error::other)?;
        written.await.map_err(std::io::Error::other)?;
        stream.write_all(b"250 ok\r\n").await?;
        let connections = &pushers[place::host_of(&message.envelope)];
        if let Some(connection) = connections.get(turn % CONNECTIONS) {
            connection.send(message).await.map_err(std::io::Error::other)?;
        }
        turn += 1;
    }
}
