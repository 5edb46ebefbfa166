//! The addresses we connect from: which one serves which host, and what happens when one is gone.
//!
//! One host always sees the same address of a family while that address works: receivers judge a
//! sender by its address, and greylisting asks that a retry comes from where the first try came from.
//! Hosts are spread over the addresses by rendezvous hashing, so that adding or removing one moves
//! only the hosts it serves. An address that cannot be bound is told in the log and passed over;
//! never is one used that is not on the list, since SPF and the reverse record are made for those.
//! Called by [`super::TcpDialer`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::Instant;
use tracing::warn;

use crate::mail::Domain;

/// How often an address that cannot be bound is told again: a standing fault, not one line per mail.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// A local address to connect from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// Our name in EHLO on connections from it; without one, the server's name.
    pub hostname: Option<Domain>,
}

/// The addresses of both families.
#[derive(Debug, Default)]
pub(super) struct Sources {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    told: Mutex<Option<Instant>>,
}

impl Sources {
    pub(super) fn new(sources: Vec<Source>) -> Self {
        Self { entries: sources.into_iter().map(|source| Entry { source, told: Mutex::new(None) }).collect() }
    }

    /// A socket for a connection to `host` at `to`, bound where that is configured, and the name that
    /// goes with the address.
    ///
    /// # Errors
    /// None of the family's addresses can be bound; the last one is named.
    pub(super) fn socket(&self, to: IpAddr, host: &str) -> io::Result<(TcpSocket, Option<Domain>)> {
        let mut trouble = None;
        for entry in self.ranked(to, host) {
            let source = &entry.source;
            let socket = new_socket(to)?;
            match socket.bind(SocketAddr::new(source.address, 0)) {
                Ok(()) => return Ok((socket, source.hostname.clone())),
                Err(error) => {
                    entry.tell(&error);
                    let text = format!("cannot connect from source address {}: {error}", source.address);
                    trouble = Some(io::Error::new(error.kind(), text));
                }
            }
        }
        match trouble {
            Some(error) => Err(error),
            // A family without an address of its own is left to the system.
            None => Ok((new_socket(to)?, None)),
        }
    }

    /// The addresses of the family, the one for this host first.
    fn ranked(&self, to: IpAddr, host: &str) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> =
            self.entries.iter().filter(|entry| entry.source.address.is_ipv4() == to.is_ipv4()).collect();
        entries.sort_by_cached_key(|entry| std::cmp::Reverse(weight(host, entry.source.address)));
        entries
    }
}

impl Entry {
    fn tell(&self, error: &io::Error) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            warn!(
                address = %self.source.address,
                %error,
                "delivery.source_addresses: cannot be bound; the others are used meanwhile"
            );
        }
    }
}

fn new_socket(to: IpAddr) -> io::Result<TcpSocket> {
    if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

fn weight(host: &str, source: IpAddr) -> u64 {
    // Fixed keys: the same choice after a restart.
    let mut hasher = DefaultHasher::new();
    (host, source).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ip: &str, hostname: Option<&str>) -> Source {
        Source { address: ip.parse().unwrap(), hostname: hostname.map(|name| Domain::parse(name).unwrap()) }
    }

    fn chosen(sources: &Sources, to: &str, host: &str) -> Option<(IpAddr, Option<Domain>)> {
        let (socket, name) = sources.socket(to.parse().unwrap(), host).unwrap();
        let ip = socket.local_addr().unwrap().ip();
        (!ip.is_unspecified()).then_some((ip, name))
    }

    #[tokio::test]
    async fn a_host_keeps_its_address_and_hosts_are_spread() {
        let all = ["127.0.0.5", "127.0.0.6", "127.0.0.7"];
        let sources = Sources::new(all.map(|ip| source(ip, None)).to_vec());
        let fewer = Sources::new(all[..2].iter().map(|ip| source(ip, None)).collect());
        let mut served = [0; 3];
        for number in 0..60 {
            let host = format!("mx{number}.example.org");
            let (ip, _) = chosen(&sources, "192.0.2.1", &host).unwrap();
            assert_eq!(chosen(&sources, "192.0.2.99", &host).unwrap().0, ip, "whatever its address");
            let index = all.iter().position(|one| one.parse() == Ok(ip)).unwrap();
            served[index] += 1;
            if index < 2 {
                assert_eq!(chosen(&fewer, "192.0.2.1", &host).unwrap().0, ip, "nobody else moves");
            }
        }
        assert!(served.iter().all(|count| *count >= 8), "{served:?}");
    }

    #[tokio::test]
    async fn only_addresses_of_the_family_serve_and_each_has_its_name() {
        let sources = Sources::new(vec![source("127.0.0.5", Some("out5.example.org"))]);
        let name = Domain::parse("out5.example.org").unwrap();
        assert_eq!(
            chosen(&sources, "192.0.2.1", "mx.example.net"),
            Some(("127.0.0.5".parse().unwrap(), Some(name)))
        );
        assert_eq!(chosen(&sources, "2001:db8::1", "mx.example.net"), None, "left to the system");
    }

    #[tokio::test]
    async fn what_cannot_be_bound_is_passed_over_and_nothing_off_the_list_is_used() {
        let gone = source("198.51.100.1", None);
        let sources = Sources::new(vec![gone.clone(), source("127.0.0.6", None)]);
        for number in 0..20 {
            let (ip, _) = chosen(&sources, "192.0.2.1", &format!("mx{number}.example.org")).unwrap();
            assert_eq!(ip.to_string(), "127.0.0.6");
        }
        let error = Sources::new(vec![gone]).socket("192.0.2.1".parse().unwrap(), "mx").unwrap_err();
        assert!(error.to_string().contains("source address 198.51.100.1"), "{error}");
    }
}
