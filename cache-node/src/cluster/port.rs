//! Ports for nodes.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

/// A port of loopback that is free now, below those that the kernel gives to outgoing connections, so that it is likely to stay so
/// while its node is away.
pub(super) fn free_port() -> io::Result<u16> {
    const TRIES_MAX: usize = 1_000;
    (0..TRIES_MAX)
        .map(|_| rand::random_range(10_000..32_000))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port between 10000 and 32000 on 127.0.0.1"))
}
