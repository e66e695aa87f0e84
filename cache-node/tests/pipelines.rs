//! Many requests in one go, connections that break off, and what one connection's state does to the requests behind it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{thread, time::Duration};

use cache_node::{Config, Node};
use support::{Value, Wire};

async fn node_with(directives: &[(&str, &str)]) -> Node {
    let mut config = Config::for_test();
    for (name, value) in directives {
        config.set(name, &[value]).unwrap();
    }
    Node::spawn(config).await.unwrap()
}

/// A script that keeps the node busy for a moment.
const BUSY: &str = "local n = 0 for i = 1, 8000000 do n = n + i end return 1";

#[tokio::test]
async fn replies_to_a_broken_connection_reach_nobody_else() {
    let node = node_with(&[("io-threads", "1")]).await;
    let mut other = Wire::connect(node.addr());
    other.run("SET secret of-another-client");
    let mut broken = Wire::connect(node.addr());
    broken.run("PING");
    // While the only thread is busy, requests arrive and their connection is reset: the answer cannot be sent.
    other.send(&["EVAL", BUSY, "0"]);
    thread::sleep(Duration::from_millis(100));
    broken.send(&["GET", "secret"]);
    socket2::SockRef::from(&broken.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(broken);
    assert_eq!(other.read(), Value::Integer(1));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(other.run("PING"), Value::Simple("PONG".to_owned()));
}
