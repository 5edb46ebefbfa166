//! Binds the listeners, accepts connections within limits, and lets sessions end at shutdown.
//!
//! A connection is accepted only when there is a permit for it; more wait in the system's backlog.
//! One loop accepts for all listeners, each session is a task of its own. At shutdown the sockets are
//! closed first, idle sessions are told 421, and a message in transfer may end within its limit.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use socket2::Socket as Socket2;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::auth::Authenticator;
use super::intake::Inbox;
use super::session::{self, Client, Shared};
use super::{ListenerOptions, ListenerTls, Options};
use crate::mail::Domain;
use crate::metrics::Metrics;
use crate::net::tcp::Stream;
use crate::net::tls::ServerTls;
use crate::net::world::Clock;

/// Connections the system keeps waiting per socket.
const BACKLOG: i32 = 1024;
/// After an accept error that is ours (no descriptors, no memory): first and longest pause.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Beyond the drain time: for replies and closing.
const DRAIN_SLACK: Duration = Duration::from_secs(5);

/// Binds every listener's addresses; within a runtime. Called before anything is served, so that a
/// wrong address stops the start. An address that one of the `inherited` sockets has is not bound again:
/// a service manager holds it open over restarts, and may have ports that we may not.
///
/// # Errors
/// One line: the listener, the address, the reason; or an inherited socket that no listener names.
pub fn bind(
    options: &Options,
    mut inherited: Vec<std::net::TcpListener>,
) -> Result<Vec<(ListenerOptions, Vec<TcpListener>)>, String> {
    // [::] alone takes IPv4 too; next to 0.0.0.0 on the same port it must not.
    let addresses = options.listeners.iter().flat_map(|listener| &listener.listen);
    let v4_ports: Vec<u16> = addresses.filter(|address| address.is_ipv4()).map(SocketAddr::port).collect();
    let mut bound = Vec::with_capacity(options.listeners.len());
    for listener in &options.listeners {
        let mut sockets = Vec::with_capacity(listener.listen.len());
        for &address in &listener.listen {
            let only_v6 = address.is_ipv6() && v4_ports.contains(&address.port());
            let theirs = inherited.iter().position(|socket| socket.local_addr().ok() == Some(address));
            let socket = match theirs {
                Some(at) => adopt(inherited.swap_remove(at)),
                None => bind_one(address, only_v6),
            };
            let socket = socket.map_err(|error| {
                format!("listener {:?}: cannot listen on {address}: {error}", listener.name)
            })?;
            sockets.push(socket);
        }
        bound.push((listener.clone(), sockets));
    }
    match inherited.first().map(std::net::TcpListener::local_addr) {
        None => Ok(bound),
        Some(Ok(address)) => Err(format!(
            "the service manager passed a socket on {address}, and no listener has that address in `listen`"
        )),
        Some(Err(error)) => Err(format!("the service manager passed a socket that cannot be used: {error}")),
    }
}

fn adopt(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

fn bind_one(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket2::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until the sessions' `shutdown`, then until they have ended or `drain_timeout` is over.
pub async fn serve(listeners: Vec<(ListenerOptions, Vec<TcpListener>)>, holder: Sessions) {
    let (options, shutdown) = (holder.options.clone(), holder.shared.shutdown.clone());
    let sockets: Vec<Socket> = listeners
        .into_iter()
        .flat_map(|(listener, sockets)| {
            let listener = Arc::new(listener);
            sockets.into_iter().map(move |socket| Socket { listener: listener.clone(), socket })
        })
        .collect();
    let permits = Arc::new(Semaphore::new(options.borrow().connections.max(1)));
    let addresses = Addresses::default();
    let mut sessions = JoinSet::new();
    let mut pause = PAUSE_MIN;
    let mut turn: usize = 0;
    loop {
        while sessions.try_join_next().is_some() {}
        let permit = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        turn = turn.wrapping_add(1);
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&sockets, turn) => accepted,
        };
        let (listener, stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_peers(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection, pausing");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        };
        pause = PAUSE_MIN;
        let client = holder.client(listener, peer);
        let exempt = client.listener.trusts(peer.ip());
        let Some(seat) = addresses.enter(peer.ip(), client.options.connections_per_address, exempt) else {
            holder.shared.metrics.turned_away(&client.listener.name, "limit");
            turn_away(&client, &stream);
            continue;
        };
        let open = holder.shared.metrics.connection(&client.listener.name);
        sessions.spawn(async move {
            let local = stream.local_addr().ok();
            // Replies are small and each is waited for.
            let _ = stream.set_nodelay(true);
            session::hold(Box::new(stream), local, client).await;
            drop((permit, seat, open));
        });
    }
    drop(sockets);
    let within = options.borrow().drain_timeout;
    drain(sessions, within).await;
}

async fn drain(mut sessions: JoinSet<()>, within: Duration) {
    let all = async { while sessions.join_next().await.is_some() {} };
    if timeout(within + DRAIN_SLACK, all).await.is_err() {
        tracing::warn!(sessions = sessions.len(), "sessions cut off at shutdown");
        sessions.shutdown().await;
    }
}

/// Holds sessions over streams that somebody else has accepted: [`serve`], or a simulation.
pub struct Sessions {
    shared: Arc<Shared>,
    options: watch::Receiver<Arc<Options>>,
    tls: watch::Receiver<Option<Arc<ServerTls>>>,
}

impl Sessions {
    /// `options` and `tls` are looked at for each new connection; `prefetch` is told of the domain of
    /// every recipient accepted and must return at once; nothing new is begun after `shutdown`.
    pub fn new<Q: Inbox>(
        options: watch::Receiver<Arc<Options>>,
        tls: watch::Receiver<Option<Arc<ServerTls>>>,
        queue: Q,
        clock: Arc<dyn Clock>,
        prefetch: Arc<dyn Fn(&Domain) + Send + Sync>,
        shutdown: CancellationToken,
    ) -> Self {
        let authenticator = Authenticator::default();
        let metrics = Metrics::default();
        let shared = Shared { inbox: Arc::new(queue), clock, prefetch, authenticator, metrics, shutdown };
        Self { shared: Arc::new(shared), options, tls }
    }

    /// Counts there what is submitted.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        // Nobody else has it yet.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.metrics = metrics;
        }
        self
    }

    /// Holds one session from greeting to end, as a connection of `peer` to `listener`.
    pub async fn hold(&self, listener: &ListenerOptions, stream: Box<dyn Stream>, peer: SocketAddr) {
        session::hold(stream, None, self.client(listener, peer)).await;
    }

    /// What is fixed for a new connection.
    fn client(&self, listener: &ListenerOptions, peer: SocketAddr) -> Client {
        let options = Arc::clone(&self.options.borrow());
        // A reload may have changed the listener; one that is gone from the configuration stays as it was.
        let current = options.listeners.iter().find(|now| now.name == listener.name);
        let listener = current.unwrap_or(listener).clone();
        let tls = match listener.tls {
            ListenerTls::None => None,
            ListenerTls::StartTls | ListenerTls::Implicit => self.tls.borrow().clone(),
        };
        Client { shared: Arc::clone(&self.shared), options, listener, peer, tls, facts: session::no_facts() }
    }
}

/// One bound socket.
struct Socket {
    listener: Arc<ListenerOptions>,
    socket: TcpListener,
}

/// The next connection on any socket; `turn` makes each the first to be asked in its turn.
async fn accept(
    sockets: &[Socket],
    turn: usize,
) -> io::Result<(&Arc<ListenerOptions>, TcpStream, SocketAddr)> {
    std::future::poll_fn(|cx| {
        for n in 0..sockets.len() {
            let Socket { listener, socket } = &sockets[(turn + n) % sockets.len()];
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(stream, peer)| (listener, stream, peer)));
            }
        }
        Poll::Pending
    })
    .await
}

/// Errors of a connection that was gone before we took it.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Says 421 without waiting; on a TLS listener the connection is just closed.
fn turn_away(client: &Client, stream: &TcpStream) {
    let (listener, address) = (&client.listener.name, client.peer.ip());
    tracing::info!(listener, client = %address, "too many connections from this address");
    if client.listener.tls != ListenerTls::Implicit {
        let _ = stream.try_write(b"421 4.7.0 too many connections from your address\r\n");
    }
}

/// What stands for a client in limits: its IPv4 address, or its IPv6 /64, of which it has all.
pub(super) fn peer_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// Connections per address; as many entries as connections.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection counted under its address, until dropped.
struct Seat {
    addresses: Addresses,
    key: IpAddr,
}

impl Addresses {
    /// Counts a connection; `None` when there are too many and the address is not exempt.
    fn enter(&self, ip: IpAddr, max: usize, exempt: bool) -> Option<Seat> {
        let key = peer_key(ip);
        let mut counts = self.lock();
        let count = counts.get(&key).copied().unwrap_or(0);
        if count >= max && !exempt {
            return None;
        }
        counts.insert(key, count + 1);
        Some(Seat { addresses: self.clone(), key })
    }

    /// Valid after a panic elsewhere: it holds plain numbers.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock();
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_per_address_and_given_back() {
        let addresses = Addresses::default();
        let ip = IpAddr::from([192, 0, 2, 1]);
        let first = addresses.enter(ip, 2, false).unwrap();
        let _second = addresses.enter("::ffff:192.0.2.1".parse().unwrap(), 2, false).unwrap();
        assert!(addresses.enter(ip, 2, false).is_none());
        assert!(addresses.enter(ip, 2, true).is_some());
        assert!(addresses.enter(IpAddr::from([192, 0, 2, 2]), 2, false).is_some());
        drop(first);
        let third = addresses.enter(ip, 2, false);
        assert!(third.is_some());
        drop((third, _second));
        assert!(addresses.lock().is_empty());
    }

    #[test]
    fn an_ipv6_client_has_one_key_for_its_64() {
        let key = |text: &str| peer_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::2"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[tokio::test]
    async fn both_families_may_share_a_port() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut options = Options::new(Domain::parse("relay.example.org").unwrap());
        let any = [format!("0.0.0.0:{port}"), format!("[::]:{port}")].map(|text| text.parse().unwrap());
        options.listeners = vec![ListenerOptions::new("both", any.to_vec())];
        assert_eq!(bind(&options, Vec::new()).unwrap()[0].1.len(), 2);
    }

    #[tokio::test]
    async fn an_occupied_port_is_named_with_its_listener() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let mut options = Options::new(Domain::parse("relay.example.org").unwrap());
        options.listeners = vec![ListenerOptions::new("smarthost", vec![address])];
        let error = bind(&options, Vec::new()).unwrap_err();
        assert!(error.contains("\"smarthost\"") && error.contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn inherited_sockets_are_served_and_unknown_ones_refused() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let mut options = Options::new(Domain::parse("relay.example.org").unwrap());
        options.listeners = vec![ListenerOptions::new("submission", vec![address])];
        let again = held.try_clone().unwrap();
        let bound = bind(&options, vec![again]).unwrap();
        let (client, served) = tokio::join!(TcpStream::connect(address), bound[0].1[0].accept());
        assert!(client.is_ok() && served.is_ok());
        options.listeners[0].listen = vec!["127.0.0.1:0".parse().unwrap()];
        let error = bind(&options, vec![held]).unwrap_err();
        assert!(error.contains(&address.to_string()) && error.contains("no listener"), "{error}");
    }
}
