//! What the tests of a running node share: raw connections, replies as values, a real Redis or Valkey to compare with.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod cluster;
pub mod content;
pub mod http;
pub mod network;
pub mod port;
pub mod process;
pub mod prometheus;
pub mod random;
pub mod receiver;
pub mod redis_server;
pub mod sentinel;
pub mod server;
pub mod systemd;
pub mod value;
pub mod wire;
pub mod writers;

pub use cluster::Cluster;
pub use port::free_port;
pub use redis_server::{Engine, RedisServer};
pub use value::Value;
pub use wire::Wire;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use cache_node::{Config, Node};

/// How long a test waits for something that should happen at once: a busy machine may look away for some seconds, more than once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is_done` holds; fails with `what` after [`PATIENCE`].
pub fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the nodes of this test binary are to serve by io_uring: `io_uring.rs` runs the tests of other files so.
pub const BY_IO_URING: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"io_uring");

/// The configuration of a node under test.
pub fn config() -> Config {
    let mut config = Config::for_test();
    config.io_uring = BY_IO_URING;
    config
}

/// A node of this process with a port for its metrics, and where that is.
pub fn watched(directives: &[(&str, &str)]) -> (Node, SocketAddr) {
    let mut config = Config::for_test();
    config.metrics_port = Some(0);
    for (name, value) in directives {
        config.set(name, &[value]).unwrap();
    }
    let node = Node::start(config).unwrap();
    let address = node.metrics_addr().unwrap();
    (node, address)
}

/// Splits a line into arguments as redis-cli does: blanks separate, `"…"` knows `\n \r \t \\ \" \xHH`.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, tail) = if let Some(quoted) = rest.strip_prefix('"') { quoted_word(quoted) } else { bare_word(rest) };
        words.push(word);
        rest = tail.trim_start();
    }
    words
}

fn bare_word(text: &str) -> (Vec<u8>, &str) {
    let end = text.find(' ').unwrap_or(text.len());
    (text.as_bytes()[..end].to_vec(), &text[end..])
}

fn quoted_word(text: &str) -> (Vec<u8>, &str) {
    let mut word = Vec::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (word, &text[at + 1..]),
            '\\' => match characters.next().expect("an escape has a letter").1 {
                'n' => word.push(b'\n'),
                'r' => word.push(b'\r'),
                't' => word.push(b'\t'),
                'x' => {
                    let digits: String = characters.by_ref().take(2).map(|(_, digit)| digit).collect();
                    word.push(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"));
                }
                other => word.extend(other.to_string().bytes()),
            },
            other => word.extend(other.to_string().bytes()),
        }
    }
    panic!("a quote is not closed: {text}");
}
