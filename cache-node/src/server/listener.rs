//! Listening sockets.
//!
//! One acceptor hands connections to the worker threads in turn. A listener per thread with SO_REUSEPORT was the plan; it lets the
//! kernel's hash put five of six connections on one thread, and lets a second node bind the same port unnoticed and take half of
//! the clients.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Where to listen, and which options say so.
pub(super) struct Place<'a> {
    pub(super) addresses: &'a [IpAddr],
    pub(super) port: u16,
    pub(super) backlog: u32,
    pub(super) address_option: &'static str,
    pub(super) port_option: &'static str,
}

/// Binds every address. With port 0 the first one chooses and the others follow.
pub(super) fn bind_all(place: &Place<'_>) -> io::Result<Vec<TcpListener>> {
    let mut port = place.port;
    let mut listeners = Vec::with_capacity(place.addresses.len());
    for ip in place.addresses {
        let address = SocketAddr::new(*ip, port);
        let listener = bind(address, place.backlog).map_err(|error| explain(place, address, &error))?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{}: no address to listen on", place.address_option)));
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old node's connections to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn explain(place: &Place<'_>, address: SocketAddr, error: &io::Error) -> io::Error {
    let (address_option, port_option) = (place.address_option, place.port_option);
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another process listens there; choose another with {port_option}, or {port_option} 0 for a free one")
        }
        io::ErrorKind::PermissionDenied => format!("ports below 1024 need privileges; choose another with {port_option}"),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine does not have that address; choose another with {address_option}")
        }
        _ => format!("check {address_option} and {port_option}"),
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}: {advice}"))
}
