//! An HTTPS server that is every policy host and every report endpoint of the world.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What the server says to a GET.
#[derive(Debug, Clone)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// Content-Type.
    pub content_type: String,
    /// Further header lines, each with CRLF.
    pub headers: String,
    /// Body.
    pub body: Vec<u8>,
    /// How long the host thinks before it answers.
    pub after: Duration,
}

impl Page {
    /// A policy file as it should be served.
    pub fn policy(text: &str) -> Self {
        Self {
            status: 200,
            content_type: "text/plain".to_owned(),
            headers: String::new(),
            body: text.as_bytes().to_vec(),
            after: Duration::ZERO,
        }
    }

    /// A bare status.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::policy("") }
    }
}

/// A POST as it arrived.
#[derive(Debug, Clone)]
pub struct Post {
    /// Host header.
    pub host: String,
    /// Path.
    pub path: String,
    /// Content-Type header.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
    /// The status it was answered with.
    pub answered: u16,
}

#[derive(Default)]
struct Site {
    pages: HashMap<String, Page>,
    gets: Vec<String>,
    posts: Vec<Post>,
    refuse_posts: u32,
}

/// The server.
pub struct Web {
    site: Arc<Mutex<Site>>,
    /// Where it listens.
    pub address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Web {
    /// Starts it with this certificate.
    pub async fn start(config: Arc<rustls::ServerConfig>) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), config).await
    }

    /// The same at an address of the caller's choice.
    pub async fn start_at(address: SocketAddr, config: Arc<rustls::ServerConfig>) -> Self {
        // A world that was just dropped may hold it for a moment.
        let mut bound = TcpListener::bind(address).await;
        for _ in 0..100 {
            if bound.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            bound = TcpListener::bind(address).await;
        }
        let listener = bound.expect("the address can be bound");
        let address = listener.local_addr().expect("bound");
        let site = Arc::new(Mutex::new(Site::default()));
        let mut tasks = JoinSet::new();
        let shared = site.clone();
        tasks.spawn(async move {
            let acceptor = TlsAcceptor::from(config);
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, site) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = exchange(stream, &site).await;
                    }
                });
            }
        });
        Self { site, address, tasks }
    }

    /// Sets the answer for GETs to a host, e.g. `mta-sts.example.test`.
    pub fn set(&self, host: &str, page: Page) {
        self.site.lock().expect("no panic").pages.insert(host.to_owned(), page);
    }

    /// Stops listening: connections are refused.
    pub async fn down(&mut self) {
        self.tasks.shutdown().await;
    }

    /// How many GETs reached a host.
    pub fn gets(&self, host: &str) -> usize {
        self.site.lock().expect("no panic").gets.iter().filter(|asked| *asked == host).count()
    }

    /// The next `times` POSTs are answered 503.
    pub fn refuse_posts(&self, times: u32) {
        self.site.lock().expect("no panic").refuse_posts = times;
    }

    /// All POSTs so far.
    pub fn posts(&self) -> Vec<Post> {
        self.site.lock().expect("no panic").posts.clone()
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    site: &Mutex<Site>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let head_end = loop {
        if let Some(at) = memchr::memmem::find(&request, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&request[..head_end]).into_owned();
    let header = |wanted: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let length: usize = header("content-length").parse().unwrap_or(0);
    while request.len() < head_end + length {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let host = header("host").split(':').next().unwrap_or_default().to_owned();
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let page = {
        let mut site = site.lock().expect("no panic");
        if method == "POST" {
            let answered = if site.refuse_posts > 0 { 503 } else { 200 };
            site.refuse_posts = site.refuse_posts.saturating_sub(1);
            let body = request[head_end..].to_vec();
            site.posts.push(Post { host, path, content_type: header("content-type"), body, answered });
            Page::status(answered)
        } else {
            site.gets.push(host.clone());
            match site.pages.get(&host) {
                Some(page) if path == "/.well-known/mta-sts.txt" => page.clone(),
                _ => Page::status(404),
            }
        }
    };
    tokio::time::sleep(page.after).await;
    let answer = format!(
        "HTTP/1.1 {} X\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: close\r\n\r\n",
        page.status,
        page.content_type,
        page.body.len(),
        page.headers
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(&page.body).await?;
    stream.shutdown().await
}
