//! Listening sockets.
//!
//! One acceptor hands connections to the worker threads in turn. A listener per thread with SO_REUSEPORT was the plan; it lets the
//! kernel's hash put five of six connections on one thread, and lets a second node bind the same port unnoticed and take half of
//! the clients.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

/// Binds every address of the configuration. With port 0 the first one chooses and the others follow.
pub(super) fn bind_all(config: &Config) -> io::Result<Vec<TcpListener>> {
    let mut port = config.port;
    let mut listeners = Vec::with_capacity(config.bind.len());
    for ip in &config.bind {
        let address = SocketAddr::new(*ip, port);
        let listener = bind(address, config.tcp_backlog).map_err(|error| explain(address, &error))?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "bind: no address to listen on"));
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

fn explain(address: SocketAddr, error: &io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; choose another with --port, or --port 0 for a free one",
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose another with --port",
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address; choose another with --bind",
        _ => "check --bind and --port",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}: {advice}"))
}
