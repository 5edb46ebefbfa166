//! Binds the listeners, or takes their sockets over from a service manager.
//!
//! Called by `daemon` before anything is served.

use std::io;
use std::net::SocketAddr;

use socket2::Socket as Socket2;
use tokio::net::TcpListener;

use super::{ListenerOptions, Options};

/// Connections the system keeps waiting per socket.
const BACKLOG: i32 = 1024;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;

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
        let (client, served) = tokio::join!(tokio::net::TcpStream::connect(address), bound[0].1[0].accept());
        assert!(client.is_ok() && served.is_ok());
        options.listeners[0].listen = vec!["127.0.0.1:0".parse().unwrap()];
        let error = bind(&options, vec![held]).unwrap_err();
        assert!(error.contains(&address.to_string()) && error.contains("no listener"), "{error}");
    }
}
