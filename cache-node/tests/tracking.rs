//! Client-side caching in broadcasting mode: the same pushes as from a real Redis, byte by byte.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{net::SocketAddr, time::Duration};

use cache_node::{Config, Node};
use support::{RedisServer, Value, Wire};

fn following(address: SocketAddr, tracking: &str) -> Wire {
    let mut wire = Wire::connect(address);
    wire.run("HELLO 3");
    assert_eq!(wire.run(tracking), Value::Simple("OK".into()));
    wire
}

/// One command at a time, since Redis gathers what happens within one turn of its loop.
fn pushes(address: SocketAddr) -> Vec<Value> {
    let mut writer = Wire::connect(address);
    writer.run("FLUSHALL");
    let mut follower = following(address, "CLIENT TRACKING ON BCAST PREFIX session: PREFIX cart:");
    let mut seen = Vec::new();
    for command in [
        "HSET session:1 a 1",
        "HSET session:1 b 2",
        "PEXPIRE session:1 100000",
        "SET cart:1 x",
        "DEL session:1 cart:1 nothing",
        "RENAME session:1 session:2",
        "PING",
    ] {
        writer.run(command);
        if !matches!(command, "PING" | "RENAME session:1 session:2" | "DEL session:1 cart:1 nothing") {
            seen.push(follower.read());
        }
    }
    // Redis names both in one push.
    let mut deleted: Vec<Value> = Vec::new();
    while deleted.len() < 2 {
        match follower.read() {
            Value::Push(parts) => match &parts[1] {
                Value::Array(keys) => deleted.extend(keys.iter().cloned()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    deleted.sort_by_key(|key| format!("{key:?}"));
    seen.extend(deleted);
    writer.run("SET other 1");
    assert!(follower.is_silent(Duration::from_millis(30)), "a key without the prefix is no news");
    writer.run("FLUSHALL");
    seen.push(follower.read());
    writer.run("SET session:9 1");
    seen.push(follower.read());
    // All keys beside some, and the same once more.
    for again in ["CLIENT TRACKING ON BCAST", "CLIENT TRACKING ON BCAST", "CLIENT TRACKING ON BCAST PREFIX other"] {
        seen.push(follower.run(again));
    }
    writer.run("SET other 3");
    seen.push(follower.read());
    writer.run("FLUSHDB");
    seen.push(follower.read());
    assert!(follower.is_silent(Duration::from_millis(30)), "a flush is told once");
    assert_eq!(follower.run("CLIENT TRACKING OFF"), Value::Simple("OK".into()));
    writer.run("SET session:9 2");
    assert!(follower.is_silent(Duration::from_millis(30)));
    seen
}

#[tokio::test]
async fn pushes_are_those_of_redis() {
    let node = Node::spawn(Config::for_test()).await.unwrap();
    let redis = RedisServer::start();
    let (ours, theirs) = (pushes(node.addr()), pushes(redis.address));
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 13);
}

#[tokio::test]
async fn expiry_and_scripts_are_told_and_who_left_is_forgotten() {
    let node = Node::spawn(Config::for_test()).await.unwrap();
    let mut all = following(node.addr(), "CLIENT TRACKING ON BCAST");
    let mut writer = Wire::connect(node.addr());
    writer.run("SET a 1 PX 30");
    let invalidated = Value::Push(vec![Value::bulk("invalidate"), Value::Array(vec![Value::bulk("a")])]);
    for _ in 0..2 {
        // The write's events, then the one of its end, which nobody asks for.
        while all.read() != invalidated {}
    }
    drop(all);
    let mut script = following(node.addr(), "CLIENT TRACKING ON BCAST PREFIX s");
    writer.run("EVAL \"redis.call('SET', KEYS[1], 1)\" 1 s1");
    assert_eq!(script.read(), Value::Push(vec![Value::bulk("invalidate"), Value::Array(vec![Value::bulk("s1")])]));
    assert!(script.run("RESET") == Value::Simple("RESET".into()));
    assert_eq!(writer.run("CLIENT GETREDIR"), Value::Integer(-1));
    // The one that left may still be on its way out.
    support::wait_until("nobody follows any more", || !writer.run("CLIENT LIST").text().contains("flags=t"));
}
