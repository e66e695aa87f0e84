//! Ports of loopback for servers that must be told theirs, and for addresses where nobody listens.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// Below those that the kernel gives to outgoing connections (32768 and up), and below those that a cluster's controller takes (10000
/// and up): none of them takes the port between the choice and the server's bind, or while the server is started again.
const FIRST: u16 = 2_000;
const COUNT: u16 = 8_000;

/// A port of 127.0.0.1 that nothing listens on now and that this process has not handed out before.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs of one run begin at different places.
    let first = std::process::id().wrapping_mul(613);
    for _ in 0..COUNT {
        let turn = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + (turn % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {} on 127.0.0.1", FIRST + COUNT - 1);
}
