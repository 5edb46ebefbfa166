//! What is served over HTTP: metrics and health, the JSON API, the status page.
//!
//! ```text
//! GET /metrics    OpenMetrics text                                     } health
//! GET /healthz    200 while the process can do its work without a restart, otherwise 503 and why
//! GET /readyz     200 while it takes mail, otherwise 503 and why       }
//! GET /           the status page, and what it leads to                } page
//! ```
//!
//! `listen` takes connections (TCP, or a Unix socket), `router` is the table of what there is, `guard`
//! lets in whoever may ask, `problem` is how a refusal looks. Everything goes through
//! [`AdminHandles`](super::AdminHandles), as the command line does. Called by the daemon.

mod api;
mod guard;
mod health;
mod listen;
mod problem;
mod router;
mod wrongs;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(in crate::admin) use guard::{Access, Peer, access, token_access};
pub use listen::{HttpListener, bind_http, serve_http};
pub(in crate::admin) use wrongs::Wrongs;

use crate::mail::Domain;

/// Who may ask, and what is ours.
#[derive(Clone)]
pub struct HttpOptions {
    /// `admin.http`
    pub address: HttpAddress,
    /// `admin.token_file`: asked for as `Authorization: Bearer TOKEN`, where there is one.
    pub token: Option<String>,
    /// `admin.read_token_file`: reads everything, changes nothing.
    pub read_token: Option<String>,
    /// `server.hostname`
    pub hostname: Domain,
}

/// Where HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HttpAddress {
    /// `127.0.0.1:8025`
    Tcp(SocketAddr),
    /// `unix:/run/stsrelay/http.sock`: whoever may open the file may do everything.
    Unix(PathBuf),
}

impl HttpAddress {
    /// Whether only this host reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err(format!("{text:?}: a path that begins with / comes after unix:")),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!("{text:?} is no address with a port such as 127.0.0.1:8025, and not unix:/PATH")
            }),
        }
    }
}

impl TryFrom<String> for HttpAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HttpAddress> for String {
    fn from(address: HttpAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_told() {
        for (text, local) in [
            ("127.0.0.1:8025", Some(true)),
            ("[::1]:8025", Some(true)),
            ("0.0.0.0:8025", Some(false)),
            ("192.0.2.1:80", Some(false)),
            ("unix:/run/stsrelay/http.sock", Some(true)),
            ("unix:run/http.sock", None),
            ("unix:", None),
            ("/run/http.sock", None),
            ("localhost:8025", None),
            ("8025", None),
        ] {
            let read = text.parse::<HttpAddress>();
            assert_eq!(read.as_ref().ok().map(HttpAddress::is_local), local, "{text}");
            if let Ok(address) = read {
                assert_eq!(address.to_string(), text);
            }
        }
    }
}
