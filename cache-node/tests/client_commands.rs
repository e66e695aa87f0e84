//! What clients rely on besides data: subscriptions and events, names and passwords, limits, expiry, the end of a node, the binary.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::HashSet,
    io::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cache_node::{Config, Node};
use support::{
    Value, Wire,
    content::info,
    process::Binary,
    server::{Kind, Server},
    wait_until,
    wire::encode,
};

async fn node_with(directives: &[(&str, &str)]) -> Node {
    let mut config = support::config();
    for (name, value) in directives {
        config.set(name, &[value]).unwrap();
    }
    Node::spawn(config).await.unwrap()
}

fn bulks(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| Value::bulk(text)).collect()
}

// Statistics.

#[test]
fn resetstat_and_histograms_are_those_of_a_real_redis() {
    for kind in [Kind::Node, Kind::Redis] {
        let server = Server::start(kind, &[]);
        let address = server.address();
        let mut wire = Wire::connect(address);
        // What both count, each once at least.
        assert_eq!(wire.run("SET key value"), Value::ok());
        wire.run("GET key");
        wire.run("GET none");
        wire.run("NOSUCH");
        wire.send(&["PSYNC", "?", "-1"]);
        wait_until("a full sync", || info(&mut Wire::connect(address), "sync_full") == "1");
        let mut wire = Wire::connect(address);
        let fields = ["total_connections_received", "sync_full", "keyspace_hits", "keyspace_misses", "total_error_replies"];
        assert!(fields.iter().all(|field| info(&mut wire, field) != "0"));
        assert_eq!(wire.run("CONFIG RESETSTAT"), Value::ok());
        for field in fields.iter().chain(&["rejected_connections", "sync_partial_ok", "expired_keys"]) {
            assert_eq!(info(&mut wire, field), "0", "{field} of {kind:?}");
        }
        (0..3).for_each(|_| drop(wire.run("SET key value")));
        let told = wire.run("LATENCY HISTOGRAM set getdel");
        let [name, histogram] = told.elements() else { panic!("{told:?}") };
        let [calls, count, title, buckets] = histogram.elements() else { panic!("{histogram:?}") };
        let texts = [name, calls, title].map(Value::text);
        assert_eq!((texts, count), (["set", "calls", "histogram_usec"].map(str::to_owned), &Value::Integer(3)));
        assert_eq!(buckets.elements().last(), Some(&Value::Integer(3)), "{told:?}");
        let percentiles = wire.run("INFO latencystats").text();
        let line = percentiles.lines().find(|line| line.starts_with("latency_percentiles_usec_set:p50=")).unwrap();
        assert!(line.contains(",p99=") && line.contains(",p99.9="), "{line}");
    }
}

/// Although the clock is not read for each of them.
#[test]
fn the_requests_of_a_pipeline_are_counted_and_logged_one_by_one() {
    const GETS: usize = 40;
    let pipeline: Vec<u8> = ["SET key value", "GET key", "LPUSH key element"]
        .iter()
        .zip([1, GETS, 3])
        .flat_map(|(line, count)| encode(&support::words(line)).repeat(count))
        .collect();
    for kind in [Kind::Node, Kind::Redis] {
        let server = Server::start(kind, &[]);
        let mut wire = server.wire();
        let run = |wire: &mut Wire| {
            wire.send_raw(&pipeline);
            let replies: Vec<Value> = (0..GETS + 4).map(|_| wire.read()).collect();
            assert!(replies[1..=GETS].iter().all(|reply| *reply == Value::bulk("value")), "{replies:?}");
            assert!(replies[GETS + 1..].iter().all(|reply| reply.is_error("WRONGTYPE")), "{replies:?}");
        };
        assert_eq!(wire.run("CONFIG RESETSTAT"), Value::ok());
        run(&mut wire);
        let told = wire.run("INFO commandstats").text();
        for (name, calls, failed) in [("set", 1, 0), ("get", GETS, 0), ("lpush", 3, 3)] {
            let line =
                told.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:calls={calls},usec="))).unwrap_or(&told);
            assert!(line.ends_with(&format!(",rejected_calls=0,failed_calls={failed}")), "{kind:?}: {line}");
        }
        assert_eq!(wire.run("CONFIG SET slowlog-log-slower-than 0"), Value::ok());
        run(&mut wire);
        let log = wire.run("SLOWLOG GET -1");
        let gets = log.elements().iter().filter(|request| request.elements()[3].elements()[0].text() == "GET");
        assert_eq!(gets.count(), GETS, "{kind:?}");
    }
}

/// The others of a pipeline, for which the clock is read with it or by themselves, are not blamed.
#[test]
fn the_slow_log_names_the_slow_request_of_a_pipeline() {
    const TEXT_BYTES: usize = 200_000_000;
    const OTHERS: usize = 15;
    // Redis has room behind a string and copies nothing to append to it; the node has none behind one that was written whole.
    let cases = [(Kind::Redis, "SET"), (Kind::Node, "SET"), (Kind::Node, "APPEND")];
    let servers = [Kind::Redis, Kind::Node].map(|kind| (kind, Server::start(kind, &[])));
    for (kind, command) in cases {
        let (_, server) = servers.iter().find(|(other, _)| *other == kind).unwrap();
        let mut wire = server.wire();
        for slower_than_us in [400, 1_000] {
            wire.run("DEL text");
            wire.run(&format!("SETRANGE text {TEXT_BYTES} x"));
            assert_eq!(wire.run(&format!("CONFIG SET slowlog-log-slower-than {slower_than_us}")), Value::ok());
            let mut pipeline = encode(&support::words(&format!("{command} text x")));
            pipeline.extend(encode(&support::words(&format!("{command} other x"))).repeat(OTHERS));
            wire.run("SLOWLOG RESET");
            wire.send_raw(&pipeline);
            (0..=OTHERS).for_each(|_| drop(wire.read()));
            let log = wire.run("SLOWLOG GET -1");
            let logged: Vec<(i64, String)> = log
                .elements()
                .iter()
                .map(|request| (request.elements()[2].integer(), request.elements()[3].elements()[1].text()))
                .collect();
            // On a busy machine one of the others may really have been held up, for less time than it takes to free or copy the text.
            let slowest = logged.iter().max();
            assert_eq!(
                slowest.map(|(_, key)| key.as_str()),
                Some("text"),
                "{kind:?}, {command}, {slower_than_us} us: {logged:?}"
            );
        }
    }
}

// Subscriptions.

#[tokio::test]
async fn messages_reach_channels_and_patterns() {
    let node = node_with(&[]).await;
    let mut subscriber = Wire::connect(node.addr());
    subscriber.run("SUBSCRIBE news");
    subscriber.run("PSUBSCRIBE n?ws");
    let mut publisher = Wire::connect(node.addr());
    assert_eq!(publisher.run("PUBLISH news hello"), Value::Integer(2));
    assert_eq!(publisher.run("PUBLISH nows hi"), Value::Integer(1));
    assert_eq!(publisher.run("PUBLISH other hi"), Value::Integer(0));
    assert_eq!(subscriber.read(), Value::Array(bulks(&["message", "news", "hello"])));
    assert_eq!(subscriber.read(), Value::Array(bulks(&["pmessage", "n?ws", "news", "hello"])));
    assert_eq!(subscriber.read(), Value::Array(bulks(&["pmessage", "n?ws", "nows", "hi"])));
    assert!(subscriber.is_silent(Duration::from_millis(50)));
    assert!(subscriber.run("GET a").is_error("ERR"), "a RESP2 subscriber may only subscribe");
    subscriber.run("UNSUBSCRIBE");
    subscriber.run("PUNSUBSCRIBE");
    assert_eq!(subscriber.run("GET a"), Value::NullBulk);
    // One that goes away is counted no more.
    subscriber.run("SUBSCRIBE news");
    drop(subscriber);
    wait_until("the subscription is gone", || publisher.run("PUBLISH news x") == Value::Integer(0));
}

/// One that reads nothing is closed when more than the soft limit has waited for it for the time that goes with it.
#[test]
fn a_subscriber_over_the_soft_limit_is_closed_in_its_time() {
    for kind in [Kind::Node, Kind::Redis] {
        let server = Server::start(kind, &[]);
        let mut publisher = server.wire();
        assert_eq!(publisher.call(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 200mb 100kb 1"]), Value::ok());
        let mut subscriber = server.wire();
        subscriber.run("SUBSCRIBE news");
        let (message, began) = ("x".repeat(64 * 1024), Instant::now());
        // More than the system's buffers hold.
        (0..300).for_each(|_| drop(publisher.call(&["PUBLISH", "news", &message])));
        wait_until("it is closed", || {
            thread::sleep(Duration::from_millis(50));
            publisher.run("PUBLISH news more") == Value::Integer(0)
        });
        assert!(began.elapsed() >= Duration::from_secs(1), "{kind:?}");
    }
}

#[tokio::test]
async fn messages_are_pushes_in_resp3_and_commands_go_on() {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    wire.run("HELLO 3");
    assert_eq!(wire.run("SUBSCRIBE news"), Value::Push(vec![Value::bulk("subscribe"), Value::bulk("news"), Value::Integer(1)]));
    assert_eq!(wire.run("SET a 1"), Value::ok());
    wire.send(&["PUBLISH", "news", "to myself"]);
    let mut given = [wire.read(), wire.read()];
    given.sort();
    assert_eq!(given, [Value::Integer(1), Value::Push(bulks(&["message", "news", "to myself"]))]);
    assert_eq!(wire.run("GET a"), Value::bulk("1"));
}

#[tokio::test]
async fn a_message_reaches_a_thousand_subscribers_once_and_in_order() {
    let node = node_with(&[]).await;
    let mut subscribers: Vec<Wire> = (0..1_000).map(|_| Wire::connect(node.addr())).collect();
    subscribers.iter_mut().for_each(|wire| drop(wire.run("SUBSCRIBE all")));
    let mut publisher = Wire::connect(node.addr());
    for number in 0..20 {
        assert_eq!(publisher.run(&format!("PUBLISH all {number}")), Value::Integer(1_000));
    }
    for wire in &mut subscribers {
        for number in 0..20 {
            assert_eq!(wire.read(), Value::Array(bulks(&["message", "all", &number.to_string()])));
        }
    }
}

#[tokio::test]
async fn a_client_library_hears_that_a_session_has_expired() {
    use redis::AsyncCommands as _;
    // What Spring Session sets and subscribes to.
    let node = node_with(&[]).await;
    let client = redis::Client::open(format!("redis://{}/?protocol=resp3", node.addr())).unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let config = redis::AsyncConnectionConfig::new().set_push_sender(sender);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let () = redis::cmd("CONFIG").arg("SET").arg("notify-keyspace-events").arg("Egx").query_async(&mut connection).await.unwrap();
    connection.psubscribe("__keyevent@0__:*").await.unwrap();
    let () = connection.set("session:2", "x").await.unwrap();
    let () = connection.del("session:2").await.unwrap();
    let () = connection.hset("session:1", "user", "ada").await.unwrap();
    let () = connection.pexpire("session:1", 80).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let push = tokio::time::timeout(support::PATIENCE, receiver.recv()).await.expect("in time").unwrap();
        if push.kind == redis::PushKind::PMessage {
            let texts: Vec<String> = push.data.iter().map(|part| redis::from_redis_value_ref(part).unwrap()).collect();
            heard.push(format!("{} {}", texts[1], texts[2]));
        }
    }
    assert_eq!(heard, ["__keyevent@0__:del session:2", "__keyevent@0__:expire session:1", "__keyevent@0__:expired session:1"]);
}

// Time.

#[tokio::test]
async fn keys_expire_although_nobody_reads_them() {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    for number in 0..10_000 {
        wire.send(&["SET", &format!("key-{number}"), "v"]);
    }
    (0..10_000).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    wire.run("SET stays v");
    let used = |wire: &mut Wire| -> usize { field(&wire.run("INFO memory").text(), "used_memory").parse().unwrap() };
    let full = used(&mut wire);
    for number in 0..10_000 {
        wire.send(&["PEXPIRE", &format!("key-{number}"), "100"]);
    }
    (0..10_000).for_each(|_| assert_eq!(wire.read(), Value::Integer(1)));
    wait_until("only the key without a time is left", || wire.run("DBSIZE") == Value::Integer(1));
    assert!(used(&mut wire) * 2 < full, "their memory is counted out");
    assert_eq!(field(&wire.run("INFO stats").text(), "expired_keys"), "10000");
}

#[tokio::test]
async fn a_key_is_gone_at_its_millisecond() {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    for _ in 0..20 {
        // Before it is sent: on a busy machine its reply may come when the key is gone.
        let started = Instant::now();
        wire.run("SET k v PX 30");
        while wire.run("GET k") == Value::bulk("v") {}
        let lived = started.elapsed();
        // A millisecond of rounding below, a busy machine above.
        assert!(lived > Duration::from_millis(28) && lived < support::PATIENCE, "{lived:?}");
        assert_eq!(wire.run("TTL k"), Value::Integer(-2));
    }
}

// Names, passwords, the state of a connection.

#[tokio::test]
async fn clients_are_listed_named_and_killed() {
    let node = node_with(&[]).await;
    let mut admin = Wire::connect(node.addr());
    let mut worker = Wire::connect(node.addr());
    let mut listener = Wire::connect(node.addr());
    assert_eq!(worker.run("CLIENT SETNAME worker"), Value::ok());
    worker.run("CLIENT SETINFO LIB-NAME tester");
    worker.run("SELECT 3");
    listener.run("SUBSCRIBE a b");
    listener.read();
    let list = admin.run("CLIENT LIST").text();
    assert_eq!(list.lines().count(), 3, "{list}");
    let line = list.lines().find(|line| line.contains(" name=worker ")).unwrap();
    let id = worker.run("CLIENT ID").integer();
    for part in [&format!("id={id} "), " db=3 ", " cmd=select ", " lib-name=tester ", " resp=2 ", " flags=N "] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(list.lines().any(|line| line.contains(" flags=P ") && line.contains(" sub=2 ")), "{list}");
    assert_eq!(admin.run("CLIENT LIST TYPE pubsub").text().lines().count(), 1);
    assert_eq!(admin.run(&format!("CLIENT LIST ID {id}")).text().lines().count(), 1);
    assert_eq!(admin.run(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
    assert!(worker.is_closed());
    assert_eq!(admin.run("CLIENT KILL TYPE pubsub"), Value::Integer(1));
    assert!(listener.is_closed());
    let mut other = Wire::connect(node.addr());
    let address = other.stream.local_addr().unwrap();
    other.run("PING");
    assert_eq!(admin.run(&format!("CLIENT KILL {address}")), Value::ok());
    assert!(other.is_closed());
    assert_eq!(admin.run("CLIENT KILL TYPE normal"), Value::Integer(0), "the sender is spared");
    assert_eq!(admin.run("CLIENT KILL TYPE normal SKIPME no"), Value::Integer(1), "and answered before it ends");
    assert!(admin.is_closed());
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let node = node_with(&[("requirepass", "right horse")]).await;
    let mut wire = Wire::connect(node.addr());
    let refused = Value::Error("NOAUTH Authentication required.".to_owned());
    for command in ["GET a", "PING", "CLIENT ID", "MULTI", "SUBSCRIBE a", "CONFIG GET requirepass", "EVAL \"return 1\" 0"] {
        assert_eq!(wire.run(command), refused, "{command}");
    }
    assert!(wire.run("HELLO 3").is_error("NOAUTH"));
    assert!(wire.run("AUTH wrong").is_error("WRONGPASS"));
    assert!(wire.run("AUTH somebody \"right horse\"").is_error("WRONGPASS"));
    assert!(wire.run("HELLO 3 AUTH default wrong").is_error("WRONGPASS"));
    assert_eq!(wire.run("GET a"), refused, "a wrong password changes nothing");
    assert_eq!(wire.run("AUTH \"right horse\""), Value::ok());
    assert_eq!(wire.run("GET a"), Value::NullBulk);
    let mut other = Wire::connect(node.addr());
    let hello = other.run("HELLO 3 AUTH default \"right horse\" SETNAME other");
    assert!(matches!(hello, Value::Map(_)), "{hello:?}");
    assert_eq!(other.run("CLIENT GETNAME"), Value::bulk("other"));
    other.run("RESET");
    assert_eq!(other.run("GET a"), refused, "RESET ends the login");
    // A new password is for those who come; who is in stays.
    assert_eq!(wire.run("CONFIG SET requirepass new"), Value::ok());
    assert_eq!(wire.run("PING"), Value::Simple("PONG".to_owned()));
    assert!(other.run("AUTH \"right horse\"").is_error("WRONGPASS"));
    assert_eq!(other.run("AUTH default new"), Value::ok());
    assert_eq!(wire.run("CONFIG SET requirepass \"\""), Value::ok());
    assert_eq!(Wire::connect(node.addr()).run("PING"), Value::Simple("PONG".to_owned()));
}

/// The rule itself is tested without a network beside the server's `refusal`.
#[tokio::test]
#[ignore = "needs an address of this machine beside loopback"]
async fn other_hosts_are_refused_while_no_password_is_set() {
    let outside = outside_address().expect("an address of this machine beside loopback: connect it to a network");
    let node = node_with(&[("bind", "*")]).await;
    let address = SocketAddr::new(outside, node.addr().port());
    let mut local = Wire::connect(SocketAddr::from(([127, 0, 0, 1], node.addr().port())));
    assert_eq!(local.run("PING"), Value::Simple("PONG".to_owned()));
    let mut stranger = Wire::connect(address);
    assert!(stranger.read().is_error("DENIED"));
    assert!(stranger.is_closed());
    assert_eq!(local.run("CONFIG SET protected-mode no"), Value::ok());
    assert_eq!(Wire::connect(address).run("PING"), Value::Simple("PONG".to_owned()));
    assert_eq!(local.run("CONFIG SET protected-mode yes requirepass secret"), Value::ok());
    assert!(Wire::connect(address).run("PING").is_error("NOAUTH"), "with a password other hosts may come");
}

/// An address of this machine beside loopback: the one from which it would reach others. Nothing is sent.
fn outside_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().unwrap().ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn reset_and_quit() {
    let node = node_with(&[]).await;
    let mut wire = Wire::connect(node.addr());
    wire.run("HELLO 3");
    wire.run("SELECT 5");
    wire.run("CLIENT SETNAME me");
    wire.run("WATCH w");
    wire.run("SUBSCRIBE a");
    wire.run("MULTI");
    assert_eq!(wire.run("RESET"), Value::Simple("RESET".to_owned()));
    assert_eq!(wire.run("CLIENT GETNAME"), Value::NullBulk);
    assert!(wire.run("EXEC").is_error("ERR"));
    let line = wire.run("CLIENT INFO").text();
    assert!(line.contains(" db=0 ") && line.contains(" sub=0 ") && line.contains(" resp=2 "), "{line}");
    wire.send_raw(&[encode(&["SET", "a", "1"]), encode(&["QUIT"]), encode(&["SET", "a", "2"])].concat());
    assert_eq!([wire.read(), wire.read()], [Value::ok(), Value::ok()]);
    assert!(wire.is_closed());
    assert_eq!(Wire::connect(node.addr()).run("GET a"), Value::bulk("1"), "nothing behind QUIT is run");
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_subscriber_stays() {
    let node = node_with(&[("timeout", "1")]).await;
    let mut subscriber = Wire::connect(node.addr());
    subscriber.run("SUBSCRIBE a");
    let started = Instant::now();
    let mut idle = Wire::connect(node.addr());
    assert!(idle.is_closed());
    assert!(started.elapsed() > Duration::from_millis(900));
    assert_eq!(Wire::connect(node.addr()).run("PUBLISH a x"), Value::Integer(1));
    assert_eq!(subscriber.read().elements()[2], Value::bulk("x"));
}

// Memory.

/// Writes 3,000 keys of 1 KB, each second one with a time to live, under a limit of 1 MB; gives the errors and what is left.
fn fill(address: SocketAddr, policy: &str) -> (usize, usize, usize, Wire) {
    let mut wire = Wire::connect(address);
    wire.run(&format!("CONFIG SET maxmemory 1mb maxmemory-policy {policy}"));
    let value = "v".repeat(1_000);
    let mut errors = 0;
    for number in 0..3_000 {
        let mut request = vec!["SET".to_owned(), format!("key-{number}"), value.clone()];
        if number % 2 == 0 {
            request.extend(["EX".to_owned(), (1_000 + number).to_string()]);
        }
        match wire.call(&request) {
            Value::Error(text) => {
                assert_eq!(text, "OOM command not allowed when used memory > 'maxmemory'.");
                errors += 1;
            }
            reply => assert_eq!(reply, Value::ok()),
        }
    }
    let used: usize = field(&wire.run("INFO memory").text(), "used_memory").parse().unwrap();
    assert!(used < 1_100_000, "{policy}: {used} bytes");
    let keys: Vec<String> = wire.run("KEYS *").elements().iter().map(Value::text).collect();
    let lasting = keys.iter().filter(|key| key.trim_start_matches("key-").parse::<usize>().unwrap() % 2 == 1).count();
    (errors, lasting, keys.len() - lasting, wire)
}

#[tokio::test]
async fn every_policy_keeps_to_maxmemory() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        let node = node_with(&[]).await;
        let (errors, lasting, volatile, mut wire) = fill(node.addr(), policy);
        assert!(errors == 0 && lasting + volatile > 500, "{policy}: {errors} errors, {lasting} + {volatile} keys");
        assert_ne!(field(&wire.run("INFO stats").text(), "evicted_keys"), "0");
    }
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let node = node_with(&[]).await;
        let (errors, lasting, volatile, _) = fill(node.addr(), policy);
        // Keys without a time are never evicted, so that they fill the memory, and then nothing more fits.
        assert!(
            errors > 0 && lasting > 700 && volatile < 200,
            "{policy}: {errors} errors, {lasting} lasting, {volatile} volatile"
        );
    }
    let node = node_with(&[]).await;
    let (errors, lasting, volatile, mut wire) = fill(node.addr(), "noeviction");
    assert!(errors > 1_500 && lasting.abs_diff(volatile) <= 1, "{errors} errors, {lasting} + {volatile} keys");
    // Whoever reads or removes goes on, whoever adds is refused, in transactions and scripts too.
    assert_eq!(wire.run("GET key-0").text().len(), 1_000);
    assert!(wire.run("LPUSH l x").is_error("OOM"));
    assert!(wire.run("HSET h f v").is_error("OOM"));
    wire.run("MULTI");
    assert!(wire.run("SET a b").is_error("OOM"));
    assert!(wire.run("EXEC").is_error("EXECABORT"));
    assert!(wire.run("EVAL \"return redis.call('SET','a','b')\" 0").is_error("OOM"));
    assert_eq!(wire.run("EXPIRE key-0 10"), Value::Integer(1));
    assert_eq!(wire.run("DEL key-0 key-1 key-2 key-3 key-4 key-5 key-6 key-7 key-8 key-9"), Value::Integer(10));
    assert_eq!(wire.run("LPUSH l x"), Value::Integer(1));
}

#[tokio::test]
async fn keys_in_use_stay() {
    const HOT: i64 = 50;
    for policy in ["allkeys-lru", "allkeys-lfu"] {
        let node = node_with(&[("maxmemory", "1mb"), ("maxmemory-policy", policy)]).await;
        let mut wire = Wire::connect(node.addr());
        let value = "v".repeat(1_000);
        let add = |wire: &mut Wire, name: &str, count: usize| {
            (0..count).for_each(|number| assert_eq!(wire.call(&["SET", &format!("{name}-{number}"), &value]), Value::ok()));
        };
        let hot: Vec<String> = (0..HOT).map(|number| format!("hot-{number}")).collect();
        add(&mut wire, "hot", hot.len());
        add(&mut wire, "old", 850);
        // The clock of LRU ticks once in a second.
        thread::sleep(Duration::from_millis(2_100));
        for _ in 0..20 {
            hot.iter().for_each(|key| drop(wire.call(&["GET", key])));
        }
        add(&mut wire, "new", 350);
        let request: Vec<&str> = std::iter::once("EXISTS").chain(hot.iter().map(String::as_str)).collect();
        let left = wire.call(&request).integer();
        // Both policies choose among samples, and seldom none of them is old; chance alone would leave about 34.
        assert!(left >= HOT * 9 / 10, "{policy}: {left} of {HOT} keys in use are left");
    }
}

// SCAN.

#[tokio::test]
async fn scan_misses_no_key_that_stays_while_others_come_and_go() {
    const STAYING: usize = 3_000;
    let node = node_with(&[]).await;
    let address = node.addr();
    let mut wire = Wire::connect(address);
    for number in 0..STAYING {
        wire.run(&format!("SET stays-{number} v"));
    }
    let (is_over, rounds_done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let churn = thread::spawn({
        let (is_over, rounds_done) = (Arc::clone(&is_over), Arc::clone(&rounds_done));
        move || {
            let mut wire = Wire::connect(address);
            while !is_over.load(Ordering::Relaxed) {
                let rounds = rounds_done.load(Ordering::Relaxed);
                (0..500).for_each(|number| wire.send(&["SET", &format!("goes-{rounds}-{number}"), "v"]));
                (0..500).for_each(|_| drop(wire.read()));
                (0..500).for_each(|number| wire.send(&["DEL", &format!("goes-{rounds}-{number}")]));
                (0..500).for_each(|_| drop(wire.read()));
                rounds_done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    wait_until("others come and go", || rounds_done.load(Ordering::Relaxed) > 0);
    for _ in 0..5 {
        let mut seen = HashSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let reply = wire.run(&format!("SCAN {cursor} MATCH stays-* COUNT 50"));
            let [next, found] = reply.elements() else { panic!("{reply:?}") };
            seen.extend(found.elements().iter().map(Value::text));
            cursor = next.text();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), STAYING);
    }
    is_over.store(true, Ordering::Relaxed);
    churn.join().unwrap();
}

// Many threads on the same keys.

#[tokio::test]
async fn transactions_and_counters_lose_nothing_between_threads() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 200;
    let node = node_with(&[]).await;
    let address = node.addr();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            thread::spawn(move || {
                let mut wire = Wire::connect(address);
                for _ in 0..ROUNDS {
                    wire.run("INCR counter");
                    wire.run("HINCRBY cart mug 1");
                    wire.run("EVAL \"redis.call('INCR',KEYS[1]) return redis.call('INCR',KEYS[2])\" 2 left right");
                    // Optimistic: again until nobody came between.
                    loop {
                        wire.run("WATCH watched");
                        let number: usize = match wire.run("GET watched") {
                            Value::Bulk(text) => String::from_utf8(text).unwrap().parse().unwrap(),
                            _ => 0,
                        };
                        wire.run("MULTI");
                        wire.run(&format!("SET watched {}", number + 1));
                        if wire.run("EXEC") != Value::NullArray {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut wire = Wire::connect(address);
    let total = Value::bulk(&(THREADS * ROUNDS).to_string());
    assert_eq!(wire.run("MGET counter left right watched"), Value::Array(vec![total.clone(); 4]));
    assert_eq!(wire.run("HGET cart mug"), total);
}

// The end of a node.

#[tokio::test]
async fn a_node_that_ends_answers_in_whole_replies_and_soon() {
    // Nobody else is given this one when it is free again.
    let port = support::free_port().to_string();
    let node = node_with(&[("port", &port)]).await;
    let address = node.addr();
    let mut idle = Wire::connect(address);
    idle.run("PING");
    let mut half = Wire::connect(address);
    half.send_raw(b"*2\r\n$3\r\nGET\r\n");
    let mut busy = Wire::connect(address);
    let requests: Vec<u8> = (0..5_000).flat_map(|number| encode(&["SET", &format!("key-{number}"), "v"])).collect();
    busy.send_raw(&requests);
    assert_eq!(busy.read(), Value::ok());
    let started = Instant::now();
    node.shutdown().await.unwrap();
    assert!(started.elapsed() < support::PATIENCE / 2, "{:?}", started.elapsed());
    let mut answered = 1;
    // An end within a reply would fail to parse: `is_closed` would then not see a clean end.
    while let Ok(reply) = busy.try_read() {
        assert_eq!(reply, Value::ok());
        answered += 1;
    }
    assert!(answered >= 1);
    assert!(busy.has_no_torn_reply(), "{answered} replies and a piece of one");
    assert!(idle.is_closed() && half.is_closed());
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn dropping_a_node_ends_it() {
    let port = support::free_port().to_string();
    let node = node_with(&[("port", &port)]).await;
    let address = node.addr();
    let mut wire = Wire::connect(address);
    assert_eq!(wire.run("PING"), Value::Simple("PONG".to_owned()));
    drop(node);
    assert!(wire.is_closed());
    // The thread that accepts may not be the one that served this connection.
    wait_until("nobody listens any more", || std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn a_port_has_one_node() {
    let node = node_with(&[]).await;
    let mut config = Config::for_test();
    config.port = node.addr().port();
    let error = Node::spawn(config).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(text.contains(&node.addr().to_string()) && text.contains("--port"), "{text}");
}

// The binary.

#[test]
fn the_binary_says_when_it_is_ready_and_ends_by_a_signal() {
    for signal in ["TERM", "INT"] {
        let mut node = Binary::start(&["--port", "0", "--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru"]);
        let expected = format!("cache-node ready on {} (pid {})", node.address, node.process.id());
        assert_eq!(node.ready_line, expected);
        let mut wire = Wire::connect(node.address);
        assert_eq!(wire.run("SET a 1"), Value::ok());
        assert_eq!(wire.run("CONFIG GET maxmemory").elements()[1], Value::bulk("67108864"));
        let status = node.end_by(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {}", node.errors());
        assert!(wire.is_closed());
    }
}

#[test]
fn help_lists_the_directives() {
    let (status, out, error) = Binary::run(&["--help"]);
    assert!(status.success() && error.is_empty(), "{error}");
    for word in ["--port", "--maxmemory-policy", "--requirepass", "--notify-keyspace-events", "Examples:"] {
        assert!(out.contains(word), "{word} in {out}");
    }
    let (status, out, _) = Binary::run(&["--version"]);
    assert!(status.success() && out.starts_with("cache-node "), "{out}");
}

#[test]
fn directives_come_from_a_file_and_the_command_line_wins() {
    let mut file = ConfigFile::new("ready.conf");
    file.write("# a comment\nport 0\n\nmaxmemory 10mb\nMAXMEMORY-POLICY allkeys-lru\nrequirepass \"a b\"\nsave \"\"\n");
    let node = Binary::start(&[file.path(), "--maxmemory", "20mb"]);
    let mut wire = Wire::connect(node.address);
    assert!(wire.run("PING").is_error("NOAUTH"));
    assert_eq!(wire.run("AUTH \"a b\""), Value::ok());
    assert_eq!(wire.run("CONFIG GET maxmemory").elements()[1], Value::bulk("20971520"));
    assert_eq!(wire.run("CONFIG GET maxmemory-policy").elements()[1], Value::bulk("allkeys-lru"));
}

#[test]
fn what_is_wrong_in_the_configuration_is_named() {
    let mut file = ConfigFile::new("wrong.conf");
    file.write("port 0\nmaxmemory lots\n");
    let mut unknown = ConfigFile::new("unknown.conf");
    unknown.write("port 0\n\nnosuchdirective 1\n");
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--maxmemory", "lots"], &["maxmemory", "'lots'", "256mb"]),
        (&["--port", "70000"], &["port", "70000", "0 to 65535"]),
        (&["--maxmemory-policy", "lru"], &["maxmemory-policy", "'lru'", "allkeys-lru"]),
        (&["--nosuchdirective", "1"], &["--nosuchdirective"]),
        (&[file.path()], &["wrong.conf", "2", "maxmemory"]),
        (&[unknown.path()], &["unknown.conf", "3", "nosuchdirective"]),
        (&["/nowhere/node.conf"], &["/nowhere/node.conf"]),
    ];
    for (arguments, expected) in cases {
        let (status, out, error) = Binary::run(arguments);
        assert_eq!(status.code(), Some(2), "{arguments:?}: {error}");
        assert!(out.is_empty() && !error.contains("panicked"), "{out}{error}");
        expected.iter().for_each(|word| assert!(error.contains(word), "{word} in {error}"));
    }
}

#[test]
fn a_taken_port_is_an_error_of_the_binary() {
    let node = Binary::start(&["--port", "0"]);
    let (status, out, error) = Binary::run(&["--port", &node.address.port().to_string()]);
    assert_eq!(status.code(), Some(1));
    assert!(out.is_empty() && error.contains("another process listens there"), "{error}");
}

/// A configuration file that goes away with the test.
struct ConfigFile {
    path: String,
}

impl ConfigFile {
    fn new(name: &str) -> ConfigFile {
        let path = std::env::temp_dir().join(format!("cache-node-test-{}-{name}", std::process::id()));
        ConfigFile { path: path.to_str().unwrap().to_owned() }
    }

    fn write(&mut self, text: &str) {
        std::fs::File::create(&self.path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let removed = std::fs::remove_file(&self.path);
        drop(removed);
    }
}

/// A field of INFO.
fn field(info: &str, name: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).to_owned()
}
