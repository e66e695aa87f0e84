//! Ports of loopback for servers that must be told theirs, and for addresses where nobody listens.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// A port below those that the system gives to connections, which would take it before the server does, or while it is started again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id().wrapping_mul(613).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 12_000 + (turn % 18_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
