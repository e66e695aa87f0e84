//! The append-only log: what is acknowledged is there after any end, and a real Redis or Valkey reads the same files.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod damage;
mod disk;
mod encryption;
mod faults;
mod rewrite;
#[path = "../support/mod.rs"]
mod support;
mod waiting;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use support::{
    Engine, RedisServer, Value, Wire,
    content::{Content, assert_same, content},
    process::Binary,
    random,
    wire::encode,
};

/// Commands beside those of the other random sequences, which need the same reply everywhere: times that count from now, and chance.
const MORE_TEMPLATES: &str = "SET {string} {v} EX {t}\nSET {string} {v} PX {t}00\nPSETEX {string} {t}00 {v}\nEXPIRE {k} {t}\n\
                              PEXPIRE {k} {t}00\nGETEX {string} EX {t}\nSPOP {set}\nSPOP {set} 2\nSPOP {set} 100\nSET {k} {v} PX 1\n\
                              EVAL \"redis.call('SET',KEYS[1],ARGV[1]) redis.call('EXPIRE',KEYS[1],ARGV[2]) return redis.call('SPOP',KEYS[2])\" 2 {string} {set} {v} {t}\n\
                              EVAL \"redis.call('SET',KEYS[1],ARGV[1]) return redis.call('LPUSH',KEYS[2],ARGV[1])\" 2 {string} {string} {v}";

const DATABASES: usize = 2;

/// A folder that goes with its test.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A node that keeps a log in `dir`.
fn node(dir: &Path, more: &[&str]) -> Binary {
    let arguments = ["--port", "0", "--dir", text(dir), "--appendonly", "yes"];
    Binary::start(&[&arguments[..], more].concat())
}

/// A real server that has loaded the log in `dir`, and goes on with it.
fn loaded_by(engine: Engine, dir: &Path) -> RedisServer {
    let server = RedisServer::start_of(engine, &["--dir", text(dir), "--appendonly", "yes", "--save", ""]);
    let mut wire = Wire::connect(server.address);
    support::wait_until("the log is loaded", || !wire.run("PING").is_error("LOADING"));
    server
}

/// Both real servers find `expected` in a copy of the log in `dir`.
fn assert_loaded_by_all(what: &str, dir: &Path, expected: &Content) {
    for engine in Engine::ALL {
        let other = folder();
        copy(dir, other.path());
        let server = loaded_by(engine, other.path());
        assert_same(&format!("{what}, {engine:?}"), expected, &content(&mut Wire::connect(server.address), DATABASES));
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join("appendonlydir")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Sends random commands over several connections to one server; replies do not matter.
fn fill(wires: &mut [Wire], seed: u64, count: usize) {
    let mut source = StdRng::seed_from_u64(seed);
    let templates: Vec<&str> = random::TEMPLATES.lines().chain(MORE_TEMPLATES.lines()).collect();
    for _ in 0..count {
        let template = templates.choose(&mut source).unwrap().trim_start_matches(['~', '2', '^', '=', '%']).trim_start();
        if template == "FLUSHDB" && source.random_ratio(9, 10) {
            continue;
        }
        let command = random::command(template, &mut source);
        let at = source.random_range(0..wires.len());
        wires[at].call(&command);
    }
    for wire in wires {
        wire.run("DISCARD");
        wire.run("SELECT 0");
    }
}

/// Keys whose time comes during the test are gone everywhere.
fn settled(wire: &mut Wire) -> Content {
    std::thread::sleep(Duration::from_millis(300));
    content(wire, DATABASES)
}

#[test]
fn what_the_log_holds_is_what_the_node_held_and_real_servers_agree() {
    for seed in 1..=6 {
        let dir = folder();
        let expected = {
            let mut node = node(dir.path(), &["--appendfsync", "always"]);
            let mut wires = [Wire::connect(node.address), Wire::connect(node.address)];
            fill(&mut wires, seed, 2_500);
            let expected = settled(&mut wires[0]);
            assert!(node.end_by("TERM").success());
            expected
        };
        assert!(expected.len() >= 8, "{expected:?}");
        assert_loaded_by_all(&format!("seed {seed}"), dir.path(), &expected);
        let again = node(dir.path(), &[]);
        assert_same(&format!("seed {seed}, the node"), &expected, &content(&mut Wire::connect(again.address), DATABASES));
    }
}

#[test]
fn a_log_that_a_real_server_wrote_is_loaded_and_goes_on() {
    for (engine, preamble) in Engine::ALL.iter().flat_map(|engine| ["no", "yes"].map(|preamble| (*engine, preamble))) {
        let dir = folder();
        let expected = {
            let directives = ["--dir", text(dir.path()), "--appendonly", "yes", "--aof-use-rdb-preamble", preamble];
            let server = RedisServer::start_of(engine, &directives);
            let mut wires = [Wire::connect(server.address), Wire::connect(server.address)];
            fill(&mut wires, 11, 1_500);
            assert!(!wires[0].run("BGREWRITEAOF").is_error("ERR"));
            support::wait_until("the rewrite", || {
                let info = wires[0].run("INFO persistence").text();
                info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrites:1")
            });
            fill(&mut wires, 12, 1_500);
            settled(&mut wires[0])
        };
        let expected_after = {
            let mut node = node(dir.path(), &[]);
            let mut wires = [Wire::connect(node.address)];
            assert_same(&format!("{engine:?}, preamble {preamble}"), &expected, &content(&mut wires[0], DATABASES));
            fill(&mut wires, 13, 500);
            let after = settled(&mut wires[0]);
            assert!(node.end_by("TERM").success());
            after
        };
        let server = loaded_by(engine, dir.path());
        assert_same("and back", &expected_after, &content(&mut Wire::connect(server.address), DATABASES));
    }
}

/// The increment that is written last.
fn last_increment(dir: &Path) -> PathBuf {
    let folder = dir.join("appendonlydir");
    let manifest = fs::read_to_string(folder.join("appendonly.aof.manifest")).unwrap();
    let line = manifest.lines().rfind(|line| line.ends_with("type i")).unwrap();
    folder.join(line.split(' ').nth(1).unwrap())
}

/// A folder with the log of a node that ran these lines.
fn logged(lines: &[&str]) -> tempfile::TempDir {
    let dir = folder();
    let mut node = node(dir.path(), &[]);
    let mut wire = Wire::connect(node.address);
    lines.iter().for_each(|line| drop(wire.run(line)));
    assert!(node.end_by("TERM").success());
    dir
}

/// Starts a node that is expected to refuse, and gives what it says.
fn refusal(dir: &Path, more: &[&str]) -> String {
    let arguments = ["--port", "0", "--dir", text(dir), "--appendonly", "yes"];
    let (status, _, errors) = Binary::run(&[&arguments[..], more].concat());
    assert!(!status.success(), "{errors}");
    errors
}

#[test]
fn the_single_file_of_an_older_redis_becomes_the_base() {
    let dir = folder();
    fs::write(dir.path().join("appendonly.aof"), [encode(&["SELECT", "1"]), encode(&["SET", "old", "v"])].concat()).unwrap();
    for _ in 0..2 {
        let mut node = node(dir.path(), &[]);
        let mut wire = Wire::connect(node.address);
        wire.run("SELECT 1");
        assert_eq!(wire.run("GET old"), Value::bulk("v"));
        assert!(node.end_by("TERM").success());
    }
    assert!(!dir.path().join("appendonly.aof").exists());
}

#[test]
fn one_log_has_one_node() {
    let dir = folder();
    let _node = node(dir.path(), &[]);
    assert!(refusal(dir.path(), &[]).contains("another node keeps its log in"));
}

/// Writes numbered values under one key until the node is gone; gives the last number that was acknowledged.
fn write_until_gone(address: std::net::SocketAddr, key: &str, from: u64) -> u64 {
    let mut wire = Wire::connect(address);
    let mut acknowledged = from;
    loop {
        // Some at once: a batch is acknowledged as a whole, and one value after the other.
        let batch: Vec<u8> = (1..=3).flat_map(|step| encode(&["SET", key, &(acknowledged + step).to_string()])).collect();
        if std::io::Write::write_all(&mut wire.stream, &batch).is_err() {
            return acknowledged;
        }
        for _ in 0..3 {
            match wire.try_read() {
                Ok(reply) => assert_eq!(reply, Value::ok()),
                Err(_) => return acknowledged,
            }
            acknowledged += 1;
        }
    }
}

/// Kills a node at random moments under load; after each start everything that was acknowledged must be there.
fn kill_and_look(fsync: &str, times: u32) {
    const WRITERS: usize = 4;
    let dir = folder();
    let mut source = StdRng::seed_from_u64(5);
    let mut acknowledged = [0_u64; WRITERS];
    let small = ["--appendfsync", fsync, "--auto-aof-rewrite-min-size", "200kb", "--auto-aof-rewrite-percentage", "50"];
    let mut total = 0;
    for round in 0..times {
        let mut node = node(dir.path(), &small);
        let mut wire = Wire::connect(node.address);
        for (writer, least) in acknowledged.iter_mut().enumerate() {
            let found: u64 = match wire.run(&format!("GET writer-{writer}")) {
                Value::Bulk(number) => String::from_utf8(number).unwrap().parse().unwrap(),
                other => {
                    assert_eq!((other, round), (Value::NullBulk, 0));
                    0
                }
            };
            assert!(found >= *least, "round {round}, writer {writer}: {least} was acknowledged, {found} is there");
            total += found - *least;
            *least = found;
        }
        let address = node.address;
        let before = wire.run("GET writer-0");
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let from = acknowledged[writer];
                std::thread::spawn(move || write_until_gone(address, &format!("writer-{writer}"), from))
            })
            .collect();
        support::wait_until("the writers write", || wire.run("GET writer-0") != before);
        std::thread::sleep(Duration::from_millis(source.random_range(20..300)));
        node.process.kill().unwrap();
        node.process.wait().unwrap();
        for (slot, writer) in acknowledged.iter_mut().zip(writers) {
            *slot = writer.join().unwrap();
        }
    }
    assert!(acknowledged.iter().sum::<u64>() > 0, "nothing was written: nothing was tried");
    println!("{fsync}: {times} times killed; {:?} acknowledged, {total} more found than told", acknowledged);
}

/// With any of them: what the process was told to write is the system's, whoever brings it to disk.
#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed() {
    for fsync in ["always", "everysec", "no"] {
        kill_and_look(fsync, 10);
    }
}

#[test]
#[ignore = "long: a hundred times"]
fn nothing_acknowledged_is_lost_when_the_node_is_killed_a_hundred_times() {
    for fsync in ["always", "everysec"] {
        kill_and_look(fsync, 100);
    }
}

/// On a busy machine it may have loaded before it is asked.
#[test]
fn a_node_that_loads_says_so() {
    const LOADS_MAX: usize = 10;
    let dir = folder();
    let folder = dir.path().join("appendonlydir");
    fs::create_dir(&folder).unwrap();
    let mut bytes = encode(&["SELECT", "0"]);
    for number in 0..150_000 {
        bytes.extend(encode(&["SET", &format!("key-{number}"), "v"]));
    }
    fs::write(folder.join("appendonly.aof.1.incr.aof"), bytes).unwrap();
    fs::write(folder.join("appendonly.aof.manifest"), "file appendonly.aof.1.incr.aof seq 1 type i\n").unwrap();
    assert!((0..LOADS_MAX).any(|_| says_that_it_loads(dir.path())), "it listens before it has its data, and says so");
}

/// Starts a node on this log of 150,000 keys; whether it was asked while it loaded, and said so.
fn says_that_it_loads(dir: &Path) -> bool {
    let port = support::free_port();
    let directory = dir.to_owned();
    let starting = std::thread::spawn(move || {
        Binary::start(&["--port", &port.to_string(), "--dir", text(&directory), "--appendonly", "yes"])
    });
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    support::wait_until("it listens", || std::net::TcpStream::connect(address).is_ok());
    let mut wire = Wire::connect(address);
    let is_refused = wire.run("GET key-0") == Value::Error("LOADING Redis is loading the dataset in memory".to_owned());
    let info = wire.run("INFO persistence").text();
    let is_told = info.contains("loading:1") && info.contains("loading_loaded_perc:");
    let node = starting.join().unwrap();
    assert_eq!(Wire::connect(node.address).run("DBSIZE"), Value::Integer(150_000));
    assert!(wire.run("INFO persistence").text().contains("loading:0"));
    is_refused && is_told
}

#[test]
fn sync_durability_without_a_safe_place_refuses_writes() {
    let mut node = Binary::start(&["--port", "0", "--durability", "sync"]);
    let mut wire = Wire::connect(node.address);
    assert!(wire.run("SET k v").is_error("NOREPLICAS"));
    assert_eq!(wire.run("GET k"), Value::NullBulk);
    assert_eq!(wire.run("CONFIG SET durability async"), Value::ok());
    assert_eq!(wire.run("SET k v"), Value::ok());
    assert!(node.end_by("TERM").success());
    let dir = folder();
    let node = self::node(dir.path(), &["--durability", "sync"]);
    assert_eq!(Wire::connect(node.address).run("SET k v"), Value::ok());
}

/// Waits for the end of a rewrite.
fn rewritten(wire: &mut Wire, count: u64) {
    support::wait_until("the rewrite", || {
        let info = wire.run("INFO persistence").text();
        info.contains("aof_rewrite_in_progress:0") && info.contains(&format!("aof_rewrites:{count}\r"))
    });
    assert!(wire.run("INFO persistence").text().contains("aof_last_bgrewrite_status:ok"));
}
