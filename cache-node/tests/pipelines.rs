//! Many requests in one go, connections that break off, and what one connection's state does to the requests behind it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use cache_node::Node;
use support::{Value, Wire, wire::encode, words};

async fn node_with(directives: &[(&str, &str)]) -> Node {
    let mut config = support::config();
    for (name, value) in directives {
        config.set(name, &[value]).unwrap();
    }
    Node::spawn(config).await.unwrap()
}

/// A script that keeps the node busy for a moment.
const BUSY: &str = "local n = 0 for i = 1, 8000000 do n = n + i end return 1";

#[tokio::test]
async fn replies_to_a_broken_connection_reach_nobody_else() {
    // The script ends by itself, however busy the machine is.
    let node = node_with(&[("io-threads", "1"), ("lua-time-limit", "60000")]).await;
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

#[tokio::test]
async fn a_changed_configuration_holds_for_the_next_request() {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    let requests = ["CONFIG SET requirepass secret", "AUTH wrong", "AUTH secret", "RESET", "PING", "AUTH secret", "PING"];
    requests.iter().for_each(|request| wire.send(&words(request)));
    wire.stream.set_nodelay(true).unwrap();
    let mut again = Wire::connect(node.addr());
    let pipeline: Vec<u8> =
        ["AUTH secret", "CONFIG SET requirepass new", "AUTH new", "CONFIG SET requirepass secret", "AUTH secret"]
            .iter()
            .flat_map(|request| encode(&words(request)))
            .collect();
    let replies: Vec<Value> = requests.iter().map(|_| wire.read()).collect();
    assert!(replies[1].is_error("WRONGPASS") && replies[4].is_error("NOAUTH"), "{replies:?}");
    assert_eq!((&replies[2], &replies[5]), (&Value::ok(), &Value::ok()));
    again.send_raw(&pipeline);
    (0..5).for_each(|number| assert_eq!(again.read(), Value::ok(), "{number}"));
}

/// What is published while a batch runs comes before the confirmation that ends the subscription, and never after it.
#[tokio::test]
async fn no_message_comes_after_the_end_of_a_subscription() {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    let requests =
        ["MULTI", "SUBSCRIBE news", "PUBLISH news hello", "UNSUBSCRIBE news", "EXEC", "SUBSCRIBE news", "RESET", "PING"];
    let pipeline: Vec<u8> = requests.iter().flat_map(|request| encode(&words(request))).collect();
    wire.send_raw(&pipeline);
    let mut replies = vec![wire.read()];
    while replies.last() != Some(&Value::Simple("PONG".to_owned())) {
        replies.push(wire.read());
    }
    let place = |text: &str| replies.iter().position(|reply| format!("{reply:?}").contains(text));
    assert!(place("hello").is_some_and(|message| Some(message) < place("unsubscribe")), "{replies:?}");
    // And from another thread, while a batch runs that ends with the subscription.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = Wire::connect(node.addr());
            while !is_over.load(Ordering::Relaxed) {
                publisher.run("PUBLISH news hello");
            }
        });
        let batch = [encode(&["PING"]).repeat(500), encode(&["UNSUBSCRIBE", "news"]), encode(&["PING"])].concat();
        let late = (0..50).filter(|_| {
            wire.send(&["SUBSCRIBE", "news"]);
            wire.send_raw(&batch);
            while wire.read().elements()[0] != Value::bulk("unsubscribe") {}
            let next = wire.read();
            let is_late = next != Value::Simple("PONG".to_owned());
            while is_late && wire.read() != Value::Simple("PONG".to_owned()) {}
            is_late
        });
        let late = late.count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(late, 0);
    });
    assert!(wire.is_silent(Duration::from_millis(100)));
}

#[tokio::test]
async fn connections_that_come_together_keep_to_maxclients() {
    const CLIENTS_MAX: usize = 10;
    let node = node_with(&[("maxclients", "10")]).await;
    let address = node.addr();
    let connecting: Vec<_> = (0..80).map(|_| thread::spawn(move || Wire::connect(address))).collect();
    let mut wires: Vec<Wire> = connecting.into_iter().map(|thread| thread.join().unwrap()).collect();
    let served = wires.iter_mut().filter_map(|wire| {
        // One that was refused is closed, perhaps before it could write.
        std::io::Write::write_all(&mut wire.stream, b"PING\r\n").ok()?;
        (wire.try_read().ok()? == Value::Simple("PONG".to_owned())).then_some(())
    });
    assert_eq!(served.count(), CLIENTS_MAX);
    drop(wires);
    // Their places come back.
    support::wait_until("a place for another", || {
        let mut wire = Wire::connect(address);
        std::io::Write::write_all(&mut wire.stream, b"PING\r\n").is_ok()
            && wire.try_read().is_ok_and(|reply| reply == Value::Simple("PONG".to_owned()))
    });
}

/// It waits two seconds for its clients to take them, which on a busy machine may be over before this one has begun to.
#[tokio::test]
async fn a_node_that_ends_sends_the_replies_that_it_has_begun() {
    for _ in 0..ENDS_MAX {
        if sends_what_it_has_begun().await {
            return;
        }
    }
    panic!("of {ENDS_MAX} nodes that ended none sent all replies that it had begun");
}

const ENDS_MAX: usize = 3;

async fn sends_what_it_has_begun() -> bool {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    let value = vec![b'v'; 4_000_000];
    assert_eq!(wire.call(&[b"SET", b"large".as_slice(), &value]), Value::ok());
    (0..4).for_each(|_| wire.send(&["GET", "large"]));
    let first = wire.read();
    assert_eq!(first, Value::Bulk(value.clone()));
    let ending = tokio::spawn(node.shutdown());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let is_whole = (1..4).all(|_| wire.try_read().ok() == Some(Value::Bulk(value.clone())));
    assert!(wire.is_closed());
    ending.await.unwrap().unwrap();
    is_whole
}

#[tokio::test]
async fn scripts_write_on_where_eviction_makes_room() {
    let node = node_with(&[("maxmemory", "3mb"), ("maxmemory-policy", "allkeys-lru")]).await;
    let mut wire = Wire::connect(node.addr());
    let write = |number: u32| {
        encode(&["EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", &number.to_string(), &"v".repeat(1000)])
    };
    for number in 0..6_000 {
        if number % 2 == 0 {
            wire.send_raw(&write(number));
            assert_eq!(wire.read(), Value::ok(), "{number}");
        } else {
            wire.send_raw(&[encode(&["MULTI"]), write(number), encode(&["EXEC"])].concat());
            (0..2).for_each(|_| drop(wire.read()));
            assert_eq!(wire.read(), Value::Array(vec![Value::ok()]), "{number}");
        }
    }
    wire.run("CONFIG SET maxmemory-policy noeviction");
    wire.run("CONFIG SET maxmemory 1mb");
    wire.send_raw(&write(1));
    assert!(wire.read().is_error("OOM"));
}

const AT_ONCE_MAX: Duration = Duration::from_millis(500);
const FLUSHES_MAX: usize = 5;

#[tokio::test]
async fn a_database_among_others_is_emptied_at_once() {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    wire.call(&["EVAL", "redis.call('SELECT', 1) redis.call('SET', 'stays', 'v') redis.call('SADD', 'set', 'a')", "0"]);
    let mut took = Vec::new();
    // A busy machine may do other things meanwhile, yet not each time.
    while took.len() < FLUSHES_MAX && took.last().is_none_or(|took| *took >= AT_ONCE_MAX) {
        for start in (0..200_000).step_by(10_000) {
            let pairs: Vec<String> =
                (start..start + 10_000).flat_map(|number| [format!("key-{number}"), "v".to_owned()]).collect();
            wire.call(&[vec!["MSET".to_owned()], pairs].concat());
        }
        wire.run("SADD set a b c");
        let started = std::time::Instant::now();
        assert_eq!(wire.run("FLUSHDB"), Value::ok());
        took.push(started.elapsed());
        assert_eq!(wire.run("DBSIZE"), Value::Integer(0));
    }
    assert!(took.last() < Some(&AT_ONCE_MAX), "{took:?}");
    wire.run("SELECT 1");
    assert_eq!((wire.run("GET stays"), wire.run("SMEMBERS set").elements().len()), (Value::bulk("v"), 1));
}

/// Each reply is sent at the end of a turn of its own, until the client's socket takes no more in the middle of one.
#[tokio::test]
async fn replies_to_a_client_that_reads_late_are_whole_and_in_order() {
    const REPLY_BYTES: usize = 4_000;
    /// More than the sockets of both sides hold.
    const REQUESTS: usize = 3_000;
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    let value = |number: usize| format!("{number:04}").repeat(REPLY_BYTES / 4);
    for number in 0..REQUESTS {
        assert_eq!(wire.call(&["SET", &number.to_string(), &value(number)]), Value::ok());
    }
    for last in ["PING", "QUIT"] {
        for number in 0..REQUESTS {
            wire.send(&["GET", &number.to_string()]);
            // The node is to be asked again when it has answered.
            thread::sleep(Duration::from_micros(100));
        }
        wire.send(&[last]);
        for number in 0..REQUESTS {
            assert!(wire.read() == Value::Bulk(value(number).into_bytes()), "{last}: reply {number}");
        }
        let end = if last == "QUIT" { Value::ok() } else { Value::Simple("PONG".to_owned()) };
        assert_eq!(wire.read(), end);
    }
    assert!(wire.is_closed());
}
