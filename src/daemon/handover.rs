//! Listening sockets that outlive the process: those a socket unit holds, and those of our own that the service
//! manager keeps for the next process over a restart (`FDSTORE=1`, sd_notify(3)), so that clients wait meanwhile
//! instead of being refused.
//!
//! A socket of a unit must have a listener, or nothing is served on it without anybody knowing: `submission::bind`
//! refuses it. One that was kept and has no listener any more is closed. Called by the composition root, at the
//! start.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;

use sd_notify::NotifyState;
use socket2::SockRef;
use tracing::warn;

use crate::submission::ListenerOptions;

/// What the names of kept sockets begin with; systemd names those of a socket unit after the unit.
const KEPT: &str = "kept-listener-";
/// Where systemd tells the names, with colons between them.
const NAMES: &str = "LISTEN_FDNAMES";

/// The sockets this process was started with.
#[derive(Default)]
pub(super) struct Passed {
    /// By a socket unit, or by whoever sets `LISTEN_FDS`.
    pub(super) held: Vec<TcpListener>,
    /// By the process before, through the service manager.
    kept: Vec<(String, TcpListener)>,
}

/// Takes the sockets of this process's environment.
pub(super) fn passed() -> Passed {
    let mut given = listenfd::ListenFd::from_env();
    let sockets: Vec<_> = (0..given.len()).map(|n| given.take_tcp_listener(n).ok().flatten()).collect();
    sort(sockets, &std::env::var(NAMES).unwrap_or_default())
}

fn sort(sockets: Vec<Option<TcpListener>>, names: &str) -> Passed {
    let mut passed = Passed::default();
    let mut names = names.split(':');
    for socket in sockets {
        // A name belongs to a descriptor, whether or not that is one for us.
        let name = names.next().unwrap_or_default();
        match socket {
            Some(socket) if name.starts_with(KEPT) => passed.kept.push((name.to_owned(), socket)),
            Some(socket) => passed.held.push(socket),
            None => {}
        }
    }
    passed
}

impl Passed {
    /// All sockets to serve on, and the addresses of those that are the service manager's own. Kept ones that
    /// `listeners` do not have are closed, here and there.
    pub(super) fn wanted(self, listeners: &[ListenerOptions]) -> (Vec<TcpListener>, Vec<SocketAddr>) {
        let addresses: Vec<SocketAddr> = listeners.iter().flat_map(|l| l.listen.iter().copied()).collect();
        let mut sockets = self.held;
        let units: Vec<SocketAddr> = sockets.iter().filter_map(|s| s.local_addr().ok()).collect();
        for (name, socket) in self.kept {
            if is_wanted(&socket, &addresses, &units) {
                sockets.push(socket);
                continue;
            }
            // The service manager has it too, for a moment: without this it would still take connections that
            // nobody serves, and its address could not be bound in another way.
            let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Both);
            super::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]);
        }
        (sockets, units)
    }
}

fn is_wanted(socket: &TcpListener, addresses: &[SocketAddr], units: &[SocketAddr]) -> bool {
    let Ok(address) = socket.local_addr() else { return false };
    // As `submission::bind` would make it today: next to an IPv4 listener on the port for IPv6 alone.
    let only_v6 = addresses.iter().any(|other| other.is_ipv4() && other.port() == address.port());
    let fits = address.is_ipv4() || SockRef::from(socket).only_v6().is_ok_and(|is| is == only_v6);
    fits && addresses.contains(&address) && !units.contains(&address)
}

/// Has the service manager keep the sockets that are not a unit's. Where it keeps none
/// (`FileDescriptorStoreMax=` is not set) nothing is lost but the wait of clients.
pub(super) fn keep<'a>(sockets: impl Iterator<Item = &'a tokio::net::TcpListener>, units: &[SocketAddr]) {
    for socket in sockets {
        let Ok(address) = socket.local_addr() else { continue };
        if units.contains(&address) {
            continue;
        }
        let name = name(address);
        let state = [NotifyState::FdStore, NotifyState::FdName(&name)];
        if let Err(error) = sd_notify::notify_with_fds(&state, &[socket.as_fd()]) {
            warn!(%address, %error, "the service manager does not keep the listening socket over a restart");
        }
    }
}

/// A name for the service manager; it may have no colon.
fn name(address: SocketAddr) -> String {
    format!("{KEPT}{}", address.to_string().replace(':', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(listen: Vec<SocketAddr>) -> ListenerOptions {
        ListenerOptions::new("smarthost", listen)
    }

    fn socket() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn names_tell_whose_a_socket_is_and_none_has_a_colon() {
        let (held, held_at) = socket();
        let (kept, kept_at) = socket();
        let names = format!("stsrelay.socket:connection:{}", name(kept_at));
        assert_eq!(names.matches(':').count(), 2, "{names}");
        let passed = sort(vec![Some(held), None, Some(kept)], &names);
        assert_eq!(passed.held[0].local_addr().unwrap(), held_at);
        assert_eq!(passed.kept[0].1.local_addr().unwrap(), kept_at);
        assert!(!name("[::1]:25".parse().unwrap()).contains(':'));
        // Without names all are a unit's, as listenfd's own tools pass them.
        let (nameless, _) = socket();
        assert_eq!(sort(vec![Some(nameless)], "").held.len(), 1);
    }

    #[test]
    fn a_kept_socket_without_a_listener_is_closed_for_everybody_and_its_port_is_free() {
        let (wanted, wanted_at) = socket();
        let (gone, gone_at) = socket();
        // What the service manager still has.
        let theirs = gone.try_clone().unwrap();
        let kept = vec![(name(wanted_at), wanted), (name(gone_at), gone)];
        let (sockets, units) = Passed { held: Vec::new(), kept }.wanted(&[listener(vec![wanted_at])]);
        assert_eq!(sockets.iter().map(|s| s.local_addr().unwrap()).collect::<Vec<_>>(), [wanted_at]);
        assert!(units.is_empty());
        assert!(std::net::TcpStream::connect(gone_at).is_err(), "nobody would serve it");
        TcpListener::bind(gone_at).expect("to be bound again");
        drop(theirs);
    }

    #[test]
    fn a_kept_socket_that_would_be_bound_in_another_way_is_not_taken() {
        let Ok(dual) = TcpListener::bind("[::]:0") else { return };
        let address = dual.local_addr().unwrap();
        let v4 = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert!(is_wanted(&dual, &[address], &[]));
        assert!(!is_wanted(&dual, &[address, v4], &[]), "it takes IPv4 too, and so will another");
        assert!(!is_wanted(&dual, &[address], &[address]), "a unit has it");
    }
}
