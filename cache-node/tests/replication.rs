//! Replication between nodes and real Redis and Valkey servers in both directions: under load, over broken links, through chains and promotions.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use support::{
    Value, Wire,
    content::{Content, assert_same, content, info},
    process::Binary,
    server::{Kind, Server},
    wait_until,
};
use tempfile::TempDir;

/// A client that writes everything that changes keys, until it is told to stop.
struct Writer {
    is_over: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(address: SocketAddr, seed: u64) -> Writer {
        let is_over = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (is_over, written) = (Arc::clone(&is_over), Arc::clone(&written));
            move || {
                let mut random = StdRng::seed_from_u64(seed);
                let mut wire = Wire::connect(address);
                while !is_over.load(Ordering::Relaxed) {
                    write_something(&mut wire, &mut random);
                    written.fetch_add(1, Ordering::Relaxed);
                    // Two thousand a second are enough, and leave the machine to those that follow.
                    thread::sleep(Duration::from_micros(400));
                }
            }
        });
        Writer { is_over, written, thread }
    }

    fn wait_for_more(&self, count: u64) {
        let target = self.written.load(Ordering::Relaxed) + count;
        wait_until("the writer writes", || self.written.load(Ordering::Relaxed) >= target || self.thread.is_finished());
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn write_something(wire: &mut Wire, random: &mut StdRng) {
    let key = random.random_range(0..300);
    let text = "v".repeat(random.random_range(0..200));
    let number = random.random_range(-1_000..1_000);
    let commands: Vec<String> = match random.random_range(0..22) {
        0 => vec![format!("SET string:{key} x{text}")],
        1 => vec![format!("SET string:{key} x{text} EX 100000")],
        2 => vec![format!("SET passing:{key} x{text} PX {}", random.random_range(1..300))],
        3 => vec![format!("INCRBY counter:{key} {number}")],
        4 => vec![format!("INCRBYFLOAT float:{key} 0.25")],
        5 => vec![format!("HSET hash:{key} f{number} x{text} g x")],
        6 => vec![format!("HINCRBY hash:counts:{key} f {number}")],
        7 => vec![format!("HDEL hash:{key} f{number} g")],
        8 => vec![format!("SADD set:{key} {number} m{number}")],
        9 => vec![format!("SPOP set:{key} 2")],
        10 => vec![format!("ZADD zset:{key} {number}.5 m{number}")],
        11 => vec![format!("ZPOPMIN zset:{key}")],
        12 => vec![format!("RPUSH list:{key} x{text} {number}")],
        13 => vec![format!("LPOP list:{key}")],
        14 => vec![format!("LTRIM list:{key} -50 -1")],
        15 => vec![format!("PEXPIRE hash:{key} {}", random.random_range(50..100_000))],
        16 => vec![format!("DEL string:{key} set:{key}")],
        17 => vec![format!("RENAME string:{key} string:{}", key + 1)],
        18 => vec![
            "MULTI".to_owned(),
            format!("SET pair:a:{key} {number}"),
            format!("SELECT {}", key % 4),
            format!("SET pair:b:{key} {number}"),
            "SELECT 0".to_owned(),
            "EXEC".to_owned(),
        ],
        19 => vec![format!(
            "EVAL \"redis.call('HSET', KEYS[1], 'n', ARGV[1]) redis.call('PEXPIRE', KEYS[1], 90000) return redis.call('INCR', KEYS[2])\" 2 script:{key} script:count:{key} {number}"
        )],
        20 => vec![format!("SELECT {}", key % 3), format!("APPEND log:{key} {number}"), "SELECT 0".to_owned()],
        _ => vec![format!("GETDEL string:{key}")],
    };
    commands.iter().for_each(|command| {
        wire.run(command);
    });
}

/// Waits until the replica has all that the primary wrote, and compares everything.
fn assert_converged(primary: &Server, replica: &Server) {
    // Keys that are about to go would differ by the moment of the look.
    thread::sleep(Duration::from_millis(400));
    // What has expired is removed when it is met, and told so.
    drop(content(&mut primary.wire(), 16));
    wait_until("the offsets are the same", || primary.number("master_repl_offset") == replica.number("master_repl_offset"));
    assert_same("replica", &steady(primary), &steady(replica));
}

/// Without keys whose time comes while it is looked.
fn steady(server: &Server) -> Content {
    let mut content = content(&mut server.wire(), 16);
    content.retain(|(_, key), _| !key.starts_with("passing:") && !key.starts_with("hash:"));
    assert!(!content.is_empty());
    content
}

fn replicates_under_load(primary: Kind, replica: Kind, directives: [&[&str]; 2]) {
    // While the link is down the writers do not stop.
    let primary = Server::start(primary, &[&["--repl-backlog-size", "64mb"], directives[0]].concat());
    let replica = Server::start(replica, directives[1]);
    let mut random = StdRng::seed_from_u64(1);
    let mut wire = primary.wire();
    for _ in 0..2_000 {
        write_something(&mut wire, &mut random);
    }
    replica.wire().run("SET own value");
    let writers: Vec<Writer> = (0..2).map(|seed| Writer::start(primary.address(), seed)).collect();
    replica.follow(&primary);
    replica.wait_for_link();
    writers[0].wait_for_more(500);
    // The link breaks, and the stream goes on where it was.
    for round in 0..3 {
        let before = primary.number("sync_partial_ok");
        let killed = primary.wire().run("CLIENT KILL TYPE replica");
        assert_eq!(killed, Value::Integer(1), "round {round}");
        wait_until("the replica went on", || primary.number("sync_partial_ok") > before);
        replica.wait_for_link();
        writers[1].wait_for_more(300);
    }
    writers.into_iter().for_each(Writer::stop);
    assert_eq!(primary.number("sync_full"), 1);
    assert_converged(&primary, &replica);
    assert!(replica.wire().run("SET own value").is_error("READONLY"));
    let line = primary.info("slave0");
    assert!(line.starts_with(&format!("ip=127.0.0.1,port={},state=online,offset=", replica.address().port())), "{line}");
}

#[test]
fn a_node_replicates_from_redis() {
    replicates_under_load(Kind::Redis, Kind::Node, [&["--repl-diskless-sync", "yes"], &[]]);
}

#[test]
fn a_node_replicates_from_redis_by_a_file() {
    replicates_under_load(Kind::Redis, Kind::Node, [&["--repl-diskless-sync", "no"], &[]]);
}

#[test]
fn redis_replicates_from_a_node() {
    replicates_under_load(Kind::Node, Kind::Redis, [&[], &[]]);
}

#[test]
fn redis_replicates_from_a_node_by_a_file() {
    replicates_under_load(Kind::Node, Kind::Redis, [&["--repl-diskless-sync", "no"], &["--repl-diskless-load", "disabled"]]);
}

/// Where both sides can, Valkey sends a snapshot and the stream over two connections: a node takes one, and so does a Valkey from a node.
const TWO_CHANNELS: &[&str] = &["--dual-channel-replication-enabled", "yes"];

#[test]
fn a_node_replicates_from_valkey() {
    replicates_under_load(Kind::Valkey, Kind::Node, [TWO_CHANNELS, &[]]);
}

#[test]
fn valkey_replicates_from_a_node() {
    replicates_under_load(Kind::Node, Kind::Valkey, [&[], TWO_CHANNELS]);
}

#[test]
fn a_node_replicates_from_a_node() {
    replicates_under_load(Kind::Node, Kind::Node, [&[], &[]]);
    replicates_under_load(Kind::Node, Kind::Node, [&["--repl-diskless-sync", "no"], &[]]);
}

/// From one server into a node, and out of it into the other one.
#[test]
fn chains_hand_the_stream_on_and_a_promotion_keeps_it() {
    hands_the_stream_on(Kind::Redis, Kind::Valkey);
    hands_the_stream_on(Kind::Valkey, Kind::Redis);
}

/// `first` → node → `last` and node; then the node in the middle is promoted.
fn hands_the_stream_on(first: Kind, last: Kind) {
    // A ping that the middle has no time to hear would be in the stream of the first one alone.
    let first = Server::start(first, &["--repl-ping-replica-period", "3600"]);
    let middle = Server::start(Kind::Node, &[]);
    let lasts = [Server::start(last, &[]), Server::start(Kind::Node, &[])];
    let writer = Writer::start(first.address(), 5);
    middle.follow(&first);
    middle.wait_for_link();
    for last in &lasts {
        last.follow(&middle);
        last.wait_for_link();
    }
    writer.wait_for_more(500);
    writer.stop();
    for last in &lasts {
        assert_converged(&first, last);
        assert_eq!(last.info("master_replid"), first.info("master_replid"));
    }
    // Written to the one in the middle from here on.
    let full = middle.number("sync_full");
    assert_eq!(full, 2);
    assert_eq!(middle.wire().run("REPLICAOF NO ONE"), Value::ok());
    assert_eq!(middle.info("role"), "master");
    assert_eq!(middle.info("master_replid2"), first.info("master_replid"));
    let writer = Writer::start(middle.address(), 6);
    for last in &lasts {
        last.wait_for_link();
    }
    writer.wait_for_more(300);
    // The old primary comes back as a replica, without a snapshot: it wrote nothing more.
    first.follow(&middle);
    first.wait_for_link();
    writer.wait_for_more(300);
    writer.stop();
    for replica in lasts.iter().chain([&first]) {
        assert_converged(&middle, replica);
    }
    assert_eq!(middle.number("sync_full"), full, "everyone went on with the stream");
    assert!(middle.number("sync_partial_ok") >= 3);
}

/// A former primary that wrote what nobody has begins anew, with a snapshot.
#[test]
fn what_a_deposed_primary_wrote_alone_is_replaced() {
    let [one, other] = [Server::start(Kind::Node, &[]), Server::start(Kind::Node, &[])];
    other.follow(&one);
    other.wait_for_link();
    let mut wire = one.wire();
    assert_eq!(wire.run("SET shared 1"), Value::ok());
    assert_eq!(wire.run("WAIT 1 20000"), Value::Integer(1));
    assert_eq!(other.wire().run("REPLICAOF NO ONE"), Value::ok());
    assert_eq!(wire.run("SET alone 1"), Value::ok());
    assert_eq!(other.wire().run("SET new 1"), Value::ok());
    one.follow(&other);
    one.wait_for_link();
    assert_converged(&other, &one);
    assert_eq!(one.wire().run("EXISTS alone new shared"), Value::Integer(2));
}

#[test]
fn wait_counts_who_has_it() {
    let primary = Server::start(Kind::Node, &[]);
    let replicas = [Server::start(Kind::Node, &[]), Server::start(Kind::Redis, &[])];
    let mut wire = primary.wire();
    assert_eq!(wire.run("WAIT 0 0"), Value::Integer(0));
    let started = Instant::now();
    assert_eq!(wire.run("WAIT 1 100"), Value::Integer(0));
    assert!(started.elapsed() >= Duration::from_millis(95));
    for replica in &replicas {
        replica.follow(&primary);
        replica.wait_for_link();
    }
    for round in 0..20 {
        assert_eq!(wire.run(&format!("SET key {round}")), Value::ok());
        assert_eq!(wire.run("WAIT 2 20000"), Value::Integer(2));
        for replica in &replicas {
            assert_eq!(replica.wire().run("GET key"), Value::bulk(&round.to_string()));
        }
    }
    // What comes behind it in the pipeline waits, and is answered in order.
    wire.send_raw(b"SET key pipelined\r\nWAIT 2 20000\r\nGET key\r\n");
    assert_eq!([wire.read(), wire.read(), wire.read()], [Value::ok(), Value::Integer(2), Value::bulk("pipelined")]);
    wire.send_raw(b"MULTI\r\nSET key queued\r\nWAIT 5 0\r\nEXEC\r\n");
    (0..3).for_each(|_| drop(wire.read()));
    assert_eq!(wire.read().elements().len(), 2, "EXEC waits for nobody");
    assert!(wire.run("WAITAOF 1 0 0").is_error("ERR"));
    assert!(replicas[0].wire().run("WAIT 1 0").is_error("ERR"));
    // One that does not answer.
    wire.run("SET key last");
    assert_eq!(wire.run("WAIT 2 20000"), Value::Integer(2));
    let before = Instant::now();
    assert_eq!(wire.run("WAIT 3 200"), Value::Integer(2));
    assert!(before.elapsed() >= Duration::from_millis(190));
    // A client that goes away while it waits has no place any more.
    let mut waiting = primary.wire();
    waiting.send(&["WAIT", "5", "0"]);
    let name = format!(" addr={} ", waiting.stream.local_addr().unwrap());
    wait_until("it waits", || {
        wire.run("CLIENT LIST").text().lines().any(|line| line.contains(&name) && line.contains(" cmd=wait "))
    });
    drop(waiting);
    wait_until("it is seen to be gone", || !wire.run("CLIENT LIST").text().contains(&name));
}

/// What replicas have of another stream says nothing of what was written before.
#[test]
fn a_wait_ends_with_the_role() {
    let told = [Kind::Node, Kind::Redis].map(|kind| {
        let (primary, other) = (Server::start(kind, &[]), Server::start(kind, &[]));
        let mut waiting = primary.wire();
        waiting.send_raw(b"SET key waits\r\nWAIT 1 0\r\nGET key\r\n");
        assert_eq!(waiting.read(), Value::ok());
        primary.follow(&other);
        let told = waiting.read();
        assert!(waiting.try_read().is_err(), "the connection ends: {kind:?}");
        told
    });
    assert!(told[0].is_error("UNBLOCKED"), "{told:?}");
    assert_eq!(told[0], told[1]);
}

/// A replica that takes nothing must not take the primary's memory: what waits for it has a limit, at once or after a while.
#[test]
fn a_replica_that_takes_the_stream_too_slowly_is_closed() {
    const VALUES: usize = 400;
    for (limit, is_closed) in [("replica 8mb 0 0", true), ("replica 0 1mb 1", true), ("replica 0 0 0", false)] {
        let words: Vec<&str> = limit.split(' ').collect();
        let directives = [&["--repl-backlog-size", "16kb", "--client-output-buffer-limit"][..], &words].concat();
        let primary = Server::start(Kind::Node, &directives);
        let replica = Server::start(Kind::Node, &[]);
        replica.follow(&primary);
        replica.wait_for_link();
        let signal = |name: &str| support::cluster::signal(name, replica.process_id());
        signal("STOP");
        let mut wire = primary.wire();
        let text = "x".repeat(100_000);
        let mut kept = 0;
        for number in 0..VALUES {
            assert_eq!(wire.call(&["SET", &format!("key-{number}"), &text]), Value::ok());
            if number % 20 == 0 {
                kept = kept.max(info(&mut wire, "repl_backlog_histlen").parse::<usize>().unwrap());
            }
        }
        if is_closed {
            wait_until("it is closed", || primary.info("connected_slaves") == "0");
            wire.run("SET one more");
            assert!(primary.number("repl_backlog_histlen") <= 16 * 1024, "{limit}");
        } else {
            assert_eq!(primary.info("connected_slaves"), "1");
            assert!(kept > 2 * VALUES * text.len() / 3 - 16_000_000, "{kept} are kept, and the system has the rest");
        }
        assert!(limit != "replica 8mb 0 0" || kept <= 9 << 20, "{kept}");
        signal("CONT");
        // It may not know yet that its link is gone.
        wait_until("it has everything", || replica.wire().run("STRLEN key-399") == Value::Integer(100_000));
        assert_converged(&primary, &replica);
        assert_eq!(primary.number("sync_full"), if is_closed { 2 } else { 1 }, "{limit}");
    }
}

#[test]
fn a_message_reaches_the_subscribers_of_all_replicas() {
    for kind in [Kind::Node, Kind::Redis] {
        let primary = Server::start(kind, &[]);
        let middle = Server::start(Kind::Node, &[]);
        let lasts = [Server::start(Kind::Node, &[]), Server::start(Kind::Redis, &[])];
        middle.follow(&primary);
        middle.wait_for_link();
        for last in &lasts {
            last.follow(&middle);
            last.wait_for_link();
        }
        let mut subscribers: Vec<Wire> = [&primary, &middle].into_iter().chain(&lasts).map(Server::wire).collect();
        for wire in &mut subscribers {
            assert_eq!(wire.run("SUBSCRIBE news").elements()[2], Value::Integer(1));
        }
        let mut wire = primary.wire();
        let offset = primary.number("master_repl_offset");
        assert_eq!(wire.run("PUBLISH news one"), Value::Integer(1));
        assert!(primary.number("master_repl_offset") >= offset + 35, "it is in the stream");
        for line in ["MULTI", "SET key 1", "PUBLISH news two", "EXEC", "EVAL \"return redis.call('PUBLISH','news','three')\" 0"] {
            assert!(!matches!(wire.run(line), Value::Error(_)), "{line}");
        }
        for wire in &mut subscribers {
            for message in ["one", "two", "three"] {
                assert_eq!(wire.read(), Value::Array(["message", "news", message].map(Value::bulk).to_vec()));
            }
        }
        // What is published at a replica stays there, and so at those behind it.
        assert_eq!(middle.wire().run("PUBLISH news here"), Value::Integer(1));
        assert_eq!(subscribers[1].read().elements()[2], Value::bulk("here"));
        assert_eq!(wire.run("SET key 2"), Value::ok());
        for last in &lasts {
            wait_until("it is replicated", || last.wire().run("GET key") == Value::bulk("2"));
        }
        assert!(subscribers.iter_mut().all(|wire| wire.is_silent(Duration::from_millis(20))));
    }
}

#[test]
fn writes_need_as_many_replicas_as_they_are_told() {
    let primary = Server::start(Kind::Node, &["--min-replicas-to-write", "1", "--min-replicas-max-lag", "3"]);
    let mut wire = primary.wire();
    assert!(wire.run("SET key value").is_error("NOREPLICAS"));
    assert!(wire.run("EVAL \"return redis.call('SET', 'key', 'value')\" 0").text().contains("NOREPLICAS"));
    assert_eq!(wire.run("GET key"), Value::NullBulk);
    let replica = Server::start(Kind::Node, &[]);
    replica.follow(&primary);
    replica.wait_for_link();
    wait_until("writes are taken", || wire.run("SET key value") == Value::ok());
    wait_until("the replica counts", || primary.info("min_slaves_good_slaves") == "1");
    drop(replica);
    wait_until("writes are refused", || wire.run("SET key value").is_error("NOREPLICAS"));
}

#[test]
fn a_replica_without_its_primary_says_so() {
    let primary = Server::start(Kind::Node, &["--requirepass", "secret"]);
    let mut wire = primary.wire();
    wire.run("AUTH secret");
    wire.run("SET key value");
    let address = primary.address();
    let replicaof = format!("127.0.0.1 {}", address.port());
    let replica = Server::start(
        Kind::Node,
        &[
            "--replicaof",
            "127.0.0.1",
            &address.port().to_string(),
            "--masterauth",
            "wrong",
            "--replica-serve-stale-data",
            "no",
            "--replica-announce-ip",
            "shop-7",
            "--replica-announce-port",
            "7777",
            "--replica-priority",
            "10",
        ],
    );
    let mut reader = replica.wire();
    assert_eq!(reader.run("CONFIG GET replicaof").elements()[1], Value::bulk(&replicaof));
    thread::sleep(Duration::from_millis(300));
    assert!(reader.run("GET key").is_error("MASTERDOWN"));
    assert!(reader.run("EVAL \"return redis.call('GET','key')\" 0").is_error("MASTERDOWN"));
    assert_eq!(replica.info("master_link_status"), "down");
    reader.run("CONFIG SET masterauth secret");
    replica.wait_for_link();
    wait_until("it is read", || reader.run("GET key") == Value::bulk("value"));
    // A script that reads has nothing to wait for here: no replica of this one, and no disk.
    assert_eq!(wire.run("SET another value"), Value::ok());
    wait_until("the stream has come", || reader.run("EXISTS another") == Value::Integer(1));
    assert_eq!(reader.run("CONFIG SET durability sync"), Value::ok());
    assert_eq!(reader.run("EVAL \"return redis.call('GET','key')\" 0"), Value::bulk("value"));
    assert_eq!(reader.run("CONFIG SET durability async"), Value::ok());
    assert!(info(&mut wire, "slave0").starts_with("ip=shop-7,port=7777,state=online"));
    assert_eq!(replica.info("slave_priority"), "10");
    let role = wire.run("ROLE");
    assert_eq!(role.elements()[0], Value::bulk("master"));
    assert_eq!(role.elements()[2].elements()[0].elements()[..2], [Value::bulk("shop-7"), Value::bulk("7777")]);
    assert_eq!(reader.run("ROLE").elements()[3], Value::bulk("connected"));
    drop(primary);
    wait_until("the link is down", || replica.info("master_link_status") == "down");
    wait_until("it says so", || reader.run("GET key").is_error("MASTERDOWN"));
    reader.run("CONFIG SET replica-serve-stale-data yes");
    wait_until("it answers with what it has", || reader.run("GET key") == Value::bulk("value"));
    assert_eq!(reader.run("REPLICAOF NO ONE"), Value::ok());
    assert_eq!(reader.run("SET key mine"), Value::ok());
    assert!(reader.run("REPLICAOF host port").is_error("ERR"));
}

/// A replica keeps what has expired until its primary says so, and does not show it.
#[test]
fn keys_go_on_a_replica_when_they_go_on_its_primary() {
    let [primary, replica] = [Server::start(Kind::Node, &[]), Server::start(Kind::Node, &[])];
    replica.follow(&primary);
    replica.wait_for_link();
    let mut wire = primary.wire();
    for number in 0..200 {
        wire.run(&format!("SET key-{number} v"));
    }
    assert_eq!(wire.run("WAIT 1 20000"), Value::Integer(1));
    let mut reader = replica.wire();
    assert_eq!(reader.run("DBSIZE"), Value::Integer(200));
    for number in 0..200 {
        assert_eq!(wire.run(&format!("PEXPIRE key-{number} 300")), Value::Integer(1));
    }
    assert_eq!(wire.run("WAIT 1 20000"), Value::Integer(1));
    thread::sleep(Duration::from_millis(320));
    assert_eq!(reader.run("GET key-7"), Value::NullBulk);
    wait_until("they are gone", || reader.run("DBSIZE") == Value::Integer(0));
    assert_eq!(replica.info("expired_keys"), "0", "the primary said so");
}

#[test]
fn a_snapshot_that_is_sent_from_a_file_is_encrypted_there() {
    const VALUES: usize = 8;
    let keys = TempDir::new().unwrap();
    let key = keys.path().join("key");
    std::fs::write(&key, "11".repeat(32)).unwrap();
    let directives = ["--repl-diskless-sync", "no", "--rdbcompression", "no", "--encryption-key-file", key.to_str().unwrap()];
    let primary = Server::start(Kind::Node, &directives);
    let mut wire = primary.wire();
    let text = "plain text ".repeat(100_000);
    (0..VALUES).for_each(|number| assert_eq!(wire.call(&["SET", &format!("key-{number}"), &text]), Value::ok()));
    // One that takes nothing but the beginning: the file stays open, without a name.
    let mut slow = primary.wire();
    slow.send(&["PSYNC", "?", "-1"]);
    assert!(matches!(slow.read(), Value::Simple(reply) if reply.starts_with("FULLRESYNC")));
    let Server::Node(Binary { process, .. }, _) = &primary else { panic!("a node") };
    let mut written = Vec::new();
    wait_until("the file is written", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().map(|entry| entry.unwrap().path());
        let nameless =
            |path: &std::path::PathBuf| std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("temp-"));
        written = files.filter(nameless).filter_map(|path| std::fs::read(path).ok()).next().unwrap_or_default();
        written.len() >= text.len()
    });
    assert!(written.starts_with(b"CNSEAL") && !written.windows(10).any(|window| window == b"plain text"));
    drop(slow);
    // Encryption takes its time in a build for tests.
    assert_eq!(wire.run("FLUSHALL"), Value::ok());
    assert_eq!(wire.call(&["SET", "key", &text]), Value::ok());
    for kind in [Kind::Node, Kind::Redis] {
        let replica = Server::start(kind, &[]);
        replica.follow(&primary);
        replica.wait_for_link();
        assert_converged(&primary, &replica);
    }
}

/// A primary whose snapshot ends in its middle, or never: what was here before is gone then, in memory and after a restart.
#[test]
fn a_promotion_in_the_middle_of_a_sync_brings_no_old_data_back() {
    for is_closed in [false, true] {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().to_str().unwrap();
        let arguments = ["--port", "0", "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", "3600", "1"];
        let mut node = Binary::start(&arguments);
        let mut wire = Wire::connect(node.address);
        assert_eq!(wire.run("SET old 1"), Value::ok());
        assert_eq!(wire.run("SAVE"), Value::ok());
        let primary = half_a_primary(is_closed);
        assert_eq!(wire.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port())), Value::ok());
        let is_loading = |wire: &mut Wire| wire.run("INFO persistence").text().contains("loading:1");
        wait_until("the snapshot begins", || is_loading(&mut wire) || wire.run("DBSIZE") == Value::Integer(0));
        if is_closed {
            wait_until("the link is down", || !is_loading(&mut wire));
        }
        // What is on disk stays while there is nothing better.
        assert!(node.end_by("TERM").success(), "{}", node.errors());
        let again = Binary::start(&arguments);
        let mut wire = Wire::connect(again.address);
        assert_eq!(wire.run("GET old"), Value::bulk("1"));
        assert_eq!(wire.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port())), Value::ok());
        wait_until("the snapshot begins", || is_loading(&mut wire) || wire.run("DBSIZE") == Value::Integer(0));
        assert_eq!(wire.run("REPLICAOF NO ONE"), Value::ok());
        assert_eq!(wire.run("DBSIZE"), Value::Integer(0), "half of a snapshot is no data");
        assert_eq!(wire.run("SET new 1"), Value::ok());
        drop(again);
        let again = Binary::start(&arguments);
        assert_eq!(
            Wire::connect(again.address).run("MGET old half new"),
            Value::Array(vec![Value::NullBulk, Value::NullBulk, Value::bulk("1"),])
        );
    }
}

/// A primary that sends one key of a snapshot and then nothing more, or closes.
fn half_a_primary(closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            // Nothing is asked for but by arrays, whose words stand on lines of their own.
            while requests.read_line(&mut line).is_ok_and(|count| count > 0) {
                let answer = match line.trim_end() {
                    "PING" => "+PONG\r\n".to_owned(),
                    "listening-port" | "eof" => "+OK\r\n".to_owned(),
                    "PSYNC" => {
                        format!("+FULLRESYNC {} 0\r\n$EOF:{}\r\nREDIS0010\u{0}\u{4}half\u{1}1", "a".repeat(40), "e".repeat(40))
                    }
                    _ => String::new(),
                };
                stream.write_all(answer.as_bytes()).unwrap();
                if line.starts_with("PSYNC") {
                    break;
                }
                line.clear();
            }
            if !closes {
                held.push(stream);
            }
        }
    });
    address
}

/// A real primary has commands that a node does not have, also within transactions: the replica's log must be one that can be loaded.
#[test]
fn what_a_transaction_publishes_is_in_no_ones_way() {
    what_a_primary_publishes_is_in_no_ones_way(Kind::Redis);
    what_a_primary_publishes_is_in_no_ones_way(Kind::Valkey);
}

fn what_a_primary_publishes_is_in_no_ones_way(primary: Kind) {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().to_str().unwrap();
    let arguments = ["--port", "0", "--dir", dir, "--appendonly", "yes"];
    let primary = Server::start(primary, &[]);
    let mut node = Binary::start(&arguments);
    let port = primary.address().port();
    assert_eq!(Wire::connect(node.address).run(&format!("REPLICAOF 127.0.0.1 {port}")), Value::ok());
    wait_until("the link is up", || info(&mut Wire::connect(node.address), "master_link_status") == "up");
    wait_until("the log has begun anew", || info(&mut Wire::connect(node.address), "aof_rewrites") == "1");
    let mut wire = primary.wire();
    for line in [
        "SET before 1",
        "SPUBLISH channel alone",
        "MULTI",
        "SET a 1",
        "SPUBLISH channel message",
        "PUBLISH channel message",
        "FUNCTION FLUSH",
        "INCR counter",
        "EXEC",
        "INCR counter",
    ] {
        let reply = wire.run(line);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    let is_there = |wire: &mut Wire| wire.run("MGET before a counter") == Value::Array(["1", "1", "2"].map(Value::bulk).to_vec());
    wait_until("the replica has it", || is_there(&mut Wire::connect(node.address)));
    let offset = |address| info(&mut Wire::connect(address), "master_repl_offset");
    wait_until("the offsets are the same", || offset(node.address) == offset(primary.address()));
    assert!(node.end_by("TERM").success(), "{}", node.errors());
    let again = Binary::start(&arguments);
    assert!(is_there(&mut Wire::connect(again.address)));
}

/// Much more than the backlog's size is written while a snapshot is on its way.
#[test]
fn what_is_written_during_a_sync_arrives() {
    let primary = Server::start(Kind::Node, &["--repl-backlog-size", "16kb"]);
    let mut wire = primary.wire();
    let text = "x".repeat(1_000);
    for number in 0..20_000 {
        wire.send(&["SET", &format!("key-{number}"), &text]);
    }
    (0..20_000).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    let replica = Server::start(Kind::Node, &[]);
    replica.follow(&primary);
    for number in 0..20_000 {
        wire.send(&["SET", &format!("key-{number}"), &format!("{number}-{text}")]);
    }
    (0..20_000).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    replica.wait_for_link();
    assert_converged(&primary, &replica);
    assert_eq!(primary.number("sync_full"), 1);
    // A single value larger than the backlog.
    wire.send(&["SET", "large", &"y".repeat(3_000_000)]);
    assert_eq!(wire.read(), Value::ok());
    assert_eq!(wire.run("WAIT 1 20000"), Value::Integer(1));
    assert_eq!(primary.number("sync_full"), 1);
    // With the next write the stream is cut to its size again.
    wire.run("SET small value");
    assert_eq!(wire.run("WAIT 1 20000"), Value::Integer(1));
    assert!(primary.number("repl_backlog_histlen") <= 16 * 1024);
}
