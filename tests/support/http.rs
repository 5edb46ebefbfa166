//! A plain HTTP/1.1 client: one request a connection, over TCP or a Unix socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Whom to ask, and as whom.
#[derive(Clone)]
pub struct Http {
    at: At,
    token: Option<String>,
}

#[derive(Clone)]
enum At {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The code.
    pub status: u16,
    head: String,
    /// Without the head.
    pub body: String,
}

impl Answer {
    /// A header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Http {
    /// Over TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { at: At::Tcp(address), token: None }
    }

    /// Over a Unix socket.
    pub fn unix(path: PathBuf) -> Self {
        Self { at: At::Unix(path), token: None }
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { at: self.at.clone(), token: Some(token.to_owned()) }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    /// POST of an object.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "Content-Type: application/json\r\n", &body.to_string()).await
    }

    /// Any request; further fields each end in CR LF. A Host field among them goes instead of ours.
    pub async fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> Answer {
        let host = match &self.at {
            _ if fields.to_ascii_lowercase().contains("host:") => String::new(),
            At::Tcp(address) => format!("Host: {address}\r\n"),
            At::Unix(_) => "Host: localhost\r\n".to_owned(),
        };
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let text = format!(
            "{method} {path} HTTP/1.1\r\n{host}{}{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            token.unwrap_or_default(),
            body.len()
        );
        match &self.at {
            At::Tcp(address) => {
                exchange(TcpStream::connect(address).await.expect("HTTP is served"), &text).await
            }
            At::Unix(path) => exchange(UnixStream::connect(path).await.expect("HTTP is served"), &text).await,
        }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    // What is refused early may not be read to its end.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
