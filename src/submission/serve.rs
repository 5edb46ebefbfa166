//! Accepts connections within limits, and lets sessions end at shutdown.
//!
//! One loop accepts for all listeners, each connection is a task of its own. A listed proxy first says
//! whom it speaks for; then the address's share is looked at; then a place is waited for (`places`). At
//! most [`LOBBY`] connections are on that way, more wait in the system's backlog. At shutdown the sockets
//! are closed first, idle sessions are told 421, and a message in transfer may end within its limit.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::auth::Authenticator;
use super::chatter::Chatter;
use super::intake::Inbox;
use super::places::{Holder, Place, Places};
use super::proxy::{self, Speaker};
use super::quota::{Quotas, Whom};
use super::session::{self, Client, Shared};
use super::{ListenerOptions, ListenerTls, Options};
use crate::mail::Domain;
use crate::metrics::Metrics;
use crate::net::tcp::Stream;
use crate::net::tls::ServerTls;
use crate::net::world::Clock;

/// After an accept error that is ours (no descriptors, no memory): first and longest pause.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections accepted that have no place yet: proxies that have not said whom they speak for, and
/// clients for whom somebody else must leave first.
const LOBBY: usize = 256;
/// A stranger who was asked to leave and has not is cut off after this: time for its 421.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Beyond the drain time: for replies and closing.
const DRAIN_SLACK: Duration = Duration::from_secs(5);

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
    let hall = Arc::new(Hall {
        places: Places::new(options.borrow().connections),
        addresses: Addresses::default(),
        holder,
    });
    let lobby = Arc::new(Semaphore::new(LOBBY));
    let mut sessions = JoinSet::new();
    let mut pause = PAUSE_MIN;
    let mut turn: usize = 0;
    loop {
        while sessions.try_join_next().is_some() {}
        let waiting = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            waiting = lobby.clone().acquire_owned() => waiting,
        };
        let Ok(waiting) = waiting else { break };
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
        let client = hall.holder.client(listener, peer);
        sessions.spawn(Arc::clone(&hall).receive(client, stream, waiting));
    }
    drop(sockets);
    let within = options.borrow().drain_timeout;
    drain(sessions, within).await;
}

/// What all connections pass on their way to a session.
struct Hall {
    places: Places,
    addresses: Addresses,
    holder: Sessions,
}

impl Hall {
    async fn receive(self: Arc<Self>, client: Client, stream: TcpStream, waiting: OwnedSemaphorePermit) {
        let shutdown = self.holder.shared.shutdown.clone();
        let admitted = tokio::select! {
            biased;
            admitted = self.admit(client, stream) => admitted,
            // Nothing has been promised to those without a place.
            () = shutdown.cancelled() => None,
        };
        drop(waiting);
        let Some((client, stream, seat, place)) = admitted else { return };
        let open = self.holder.shared.metrics.connection(&client.listener.name);
        let local = stream.local_addr().ok();
        let holder = place.holder();
        // Replies are small and each is waited for.
        let _ = stream.set_nodelay(true);
        tokio::select! {
            () = session::hold(Box::new(stream), local, client) => {}
            () = overstays(&holder) => {}
        }
        drop((place, seat, open));
    }

    /// Whom the connection is from, whether its address may have one more, and its place.
    async fn admit(
        &self,
        mut client: Client,
        mut stream: TcpStream,
    ) -> Option<(Client, TcpStream, Seat, Place)> {
        let metrics = &self.holder.shared.metrics;
        if client.listener.is_proxy(client.peer.ip()) && !introduce(&mut client, &mut stream).await {
            metrics.turned_away(&client.listener.name, "proxy");
            return None;
        }
        let max = client.options.connections_per_address;
        let Some(seat) = self.addresses.enter(client.peer.ip(), max, client.in_trusted_network()) else {
            metrics.turned_away(&client.listener.name, "limit");
            turn_away(&client, &stream, "too many connections from your address");
            return None;
        };
        if client.listener.connections > 0 {
            let whom = Whom::Listener(client.listener.name.clone());
            let quotas = &self.holder.shared.quotas;
            client.seat = quotas.connection(whom, client.listener.connections, Instant::now());
            if client.seat.is_none() {
                metrics.turned_away(&client.listener.name, "listener");
                turn_away(&client, &stream, "too many connections, try again later");
                return None;
            }
        }
        let (place, asked) = self.places.enter(seat.key).await;
        if asked {
            metrics.turned_away(&client.listener.name, "evicted");
        }
        client.place = place.holder();
        client.place.entitle(client.trusted());
        Some((client, stream, seat, place))
    }
}

/// Ends a while after a stranger was asked to leave. Who may submit leaves at the end of its message.
async fn overstays(holder: &Holder) {
    holder.asked_to_leave().await;
    loop {
        sleep(LEAVE_WITHIN).await;
        if !holder.is_entitled() {
            return;
        }
    }
}

/// Lets a proxy say whom it speaks for; false if it does not.
async fn introduce(client: &mut Client, stream: &mut TcpStream) -> bool {
    let header = timeout(client.options.handshake_timeout, proxy::read(stream)).await;
    let error = match header {
        Ok(Ok(Speaker::Client(address))) => {
            client.peer = address;
            return true;
        }
        Ok(Ok(Speaker::Proxy)) => return true,
        Ok(Ok(Speaker::Unknown)) => {
            client.nameless = true;
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no PROXY header in time".to_owned(),
    };
    let listener = &client.listener.name;
    if client.shared.chatter.allows() {
        tracing::warn!(listener, proxy = %client.peer.ip(), error, "proxy does not say whom it speaks for");
    }
    false
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
        let (inbox, chatter) = (Arc::new(queue), Chatter::default());
        let quotas = Quotas::new(Instant::now());
        let shared = Shared { inbox, clock, prefetch, authenticator, chatter, quotas, metrics, shutdown };
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
        let shared = Arc::clone(&self.shared);
        let (facts, place) = (session::no_facts(), Holder::default());
        Client { shared, options, listener, peer, nameless: false, place, seat: None, tls, facts }
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
fn turn_away(client: &Client, stream: &TcpStream, why: &str) {
    let (listener, address) = (&client.listener.name, client.peer.ip());
    if client.shared.chatter.allows() {
        tracing::info!(listener, client = %address, why, "connection turned away");
    }
    if client.listener.tls != ListenerTls::Implicit {
        let _ = stream.try_write(format!("421 4.7.0 {why}\r\n").as_bytes());
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
}
