//! Snapshots: between a node and a real Redis or Valkey in both directions, at one point in time while clients write, and past every accident.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    Engine, RedisServer, Value, Wire,
    content::{Content, assert_same, info},
    free_port,
    process::Binary,
    wait_until,
};
use tempfile::TempDir;

/// One key of every type in every form that Redis keeps it in, databases and times to live included.
const CONTENT: &str = "
SET plain hello
SET empty \"\"
SET number 12345
SET negative -70000
SET large 9223372036854775807
SET binary \"\\x00\\xff\\r\\n\"
SETRANGE long 30000 x
APPEND repeated aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
SET expiring soon PXAT 4102444800123
HSET hash name Ann count 17 negative -5 empty \"\" big 123456789012
HSET hash:long field vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv
PEXPIREAT hash 4102444800000
SADD set a b c
SADD set:integers 1 2 3 -4
SADD set:large 1 70000 5000000000
RPUSH list a b 3 -4 100000 \"\" c
ZADD zset 1 a 2.5 b -inf c inf d 0.1 e 1e300 f
SELECT 3
SET elsewhere yes
SELECT 15
SADD last one
";

fn fill(address: SocketAddr) {
    let mut wire = Wire::connect(address);
    for line in CONTENT.lines().filter(|line| !line.is_empty()) {
        let reply = wire.run(line);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    wire.run("SELECT 1");
    for number in 0..700 {
        wire.run(&format!("HSET hash:table field-{number} value-{number}"));
        wire.run(&format!("SADD set:table member-{number}"));
        wire.run(&format!("SADD set:intset {}", number * 3));
        wire.run(&format!("ZADD zset:skiplist {number}.25 member-{number}"));
        wire.run(&format!("RPUSH list:quicklist element-{number}-{}", "x".repeat(number % 90)));
        wire.run(&format!("SET string:{number} {number}"));
    }
    wire.run(&format!("RPUSH list:plain before {} behind", "y".repeat(20_000)));
}

fn content(address: SocketAddr) -> Content {
    support::content::content(&mut Wire::connect(address), 16)
}

fn node(folder: &Path, more: &[&str]) -> Binary {
    Binary::start(&[&["--port", "0", "--dir", folder.to_str().unwrap()], more].concat())
}

/// Waits until so many snapshots are written, and none is on its way.
fn wait_until_saved(wire: &mut Wire, count: usize) {
    wait_until("the snapshot is written", || {
        info(wire, "rdb_saves") == count.to_string() && info(wire, "rdb_bgsave_in_progress") == "0"
    });
}

#[test]
fn what_redis_or_valkey_saved_is_loaded_in_every_form_that_it_writes() {
    // The second and third keep everything large and nothing compressed; the fourth tells what was used when.
    const FORMS: [&[&str]; 5] = [
        &[],
        &["--hash-max-listpack-entries", "0", "--set-max-intset-entries", "0", "--zset-max-listpack-entries", "0"],
        &["--rdbcompression", "no", "--list-max-listpack-size", "3", "--list-compress-depth", "1"],
        &["--maxmemory-policy", "allkeys-lfu", "--rdbchecksum", "no"],
        &["--maxmemory-policy", "allkeys-lru", "--maxmemory", "1gb"],
    ];
    // Small sets are packed as well there, unless they may not.
    let of_valkey: &[&str] = &["--set-max-listpack-entries", "0"];
    let forms = Engine::ALL.iter().flat_map(|engine| FORMS.map(|form| (*engine, form)));
    for (engine, form) in forms.chain([(Engine::Valkey, of_valkey)]) {
        let folder = TempDir::new().unwrap();
        let server = RedisServer::start_of(engine, &[&["--dir", folder.path().to_str().unwrap()], form].concat());
        fill(server.address);
        let mut wire = Wire::connect(server.address);
        // Libraries stand in the file too, and a node passes them over.
        let library = "#!lua name=library\n redis.register_function('f', function() return 1 end)";
        assert_eq!(wire.call(&["FUNCTION", "LOAD", library]), Value::bulk("library"));
        assert_eq!(wire.run("SAVE"), Value::ok());
        let expected = content(server.address);
        drop(server);
        assert_same(&format!("{engine:?} {form:?}"), &expected, &content(node(folder.path(), &[]).address));
    }
}

/// Before the keys of each slot of a cluster stands how many they are.
#[test]
fn what_a_node_of_a_valkey_cluster_saved_is_loaded() {
    const SLOT_INFO: &[u8] = b"slot-info";
    let folder = TempDir::new().unwrap();
    let bus_port = free_port().to_string();
    let directives = ["--dir", folder.path().to_str().unwrap(), "--cluster-enabled", "yes", "--cluster-port", &bus_port];
    let valkey = RedisServer::start_of(Engine::Valkey, &directives);
    let mut wire = Wire::connect(valkey.address);
    assert_eq!(wire.run("CLUSTER ADDSLOTSRANGE 0 16383"), Value::ok());
    wait_until("the cluster is whole", || wire.run("CLUSTER INFO").text().contains("cluster_state:ok"));
    for number in 0..500 {
        assert_eq!(wire.run(&format!("SET string:{number} {number} EX 100000")), Value::ok());
        assert_eq!(wire.run(&format!("HSET hash:{number} field {number}")), Value::Integer(1));
    }
    let expected = support::content::content(&mut wire, 1);
    assert_eq!(wire.run("SAVE"), Value::ok());
    drop(valkey);
    let file = fs::read(folder.path().join("dump.rdb")).unwrap();
    let slots = file.windows(SLOT_INFO.len()).filter(|bytes| *bytes == SLOT_INFO).count();
    assert!(slots > 700, "{slots} slots are told");
    assert_same("loaded", &expected, &content(node(folder.path(), &[]).address));
}

#[test]
fn what_a_node_saved_is_loaded_by_redis_and_valkey_and_by_itself() {
    for more in [&[][..], &["--rdbcompression", "no", "--rdbchecksum", "no"], &["--maxmemory-policy", "allkeys-lfu"]] {
        let folder = TempDir::new().unwrap();
        let saving = node(folder.path(), more);
        fill(saving.address);
        assert_eq!(Wire::connect(saving.address).run("SAVE"), Value::ok());
        let expected = content(saving.address);
        drop(saving);
        let file = folder.path().join("dump.rdb");
        for engine in Engine::ALL {
            let checked = Command::new(engine.program("check-rdb")).arg(&file).output().unwrap();
            let words = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(checked.status.success() && words.contains("RDB looks OK"), "{engine:?}: {words}");
            let server = RedisServer::start_of(engine, &["--dir", folder.path().to_str().unwrap()]);
            assert_same(&format!("{engine:?}"), &expected, &content(server.address));
        }
        assert_same("the node", &expected, &content(node(folder.path(), &[]).address));
    }
}

/// DUMP and RESTORE speak the same format.
#[test]
fn values_move_between_redis_or_valkey_and_a_node() {
    for engine in Engine::ALL {
        let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let server = RedisServer::start_of(engine, &["--dir", other.path().to_str().unwrap()]);
        let node = node(folder.path(), &[]);
        fill(server.address);
        let (mut from, mut to) = (Wire::connect(server.address), Wire::connect(node.address));
        for round in 0..2 {
            for key in ["plain", "number", "hash", "set", "set:integers", "list", "zset", "binary", "long"] {
                let Value::Bulk(dump) = from.run(&format!("DUMP {key}")) else { panic!("{key} is there") };
                let name = format!("{key}-{round}");
                assert_eq!(to.call(&[b"RESTORE", name.as_bytes(), b"0", &dump]), Value::ok(), "{name}");
                assert!(to.call(&[b"RESTORE", name.as_bytes(), b"0", &dump]).is_error("BUSYKEY"));
                let Value::Bulk(dump) = to.run(&format!("DUMP {name}")) else { panic!("{name} is there") };
                assert_eq!(from.call(&[b"RESTORE", key.as_bytes(), b"5000000", &dump, b"REPLACE"]), Value::ok(), "{name}");
                assert!(from.run(&format!("PTTL {key}")).integer() > 0);
            }
        }
        assert_eq!(to.run("ZRANGE zset-1 0 -1 WITHSCORES").elements().len(), 12);
        assert!(to.run("RESTORE other 0 nonsense").is_error("ERR"));
        assert!(to.run("RESTORE other -1 nonsense").is_error("ERR"));
    }
}

/// Pairs of counters change together; a snapshot that is no single point in time has pairs that differ.
#[test]
fn a_snapshot_is_one_point_in_time_while_clients_write() {
    const PAIRS: usize = 20_000;
    let folder = TempDir::new().unwrap();
    let saving = node(folder.path(), &[]);
    let mut wire = Wire::connect(saving.address);
    for pair in 0..PAIRS {
        wire.send(&["MSET", &format!("left-{pair}"), "0", &format!("right-{pair}"), "0"]);
    }
    (0..PAIRS).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    let (is_over, transactions) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..2_usize)
        .map(|writer| {
            let (is_over, transactions, address) = (Arc::clone(&is_over), Arc::clone(&transactions), saving.address);
            thread::spawn(move || {
                let mut wire = Wire::connect(address);
                let mut pair = writer;
                while !is_over.load(Ordering::Relaxed) {
                    pair = (pair * 31 + 7) % PAIRS;
                    for command in ["MULTI", &format!("INCR left-{pair}"), &format!("INCR right-{pair}"), "EXEC"] {
                        wire.run(command);
                    }
                    transactions.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (mut saves, mut refused) = (0, 0);
    for _ in 0..3 {
        let before = transactions.load(Ordering::Relaxed);
        wait_until("the writers write", || transactions.load(Ordering::Relaxed) > before);
        // In one go: the second one comes while the first one runs, unless the machine has other things to do between the two.
        wire.send_raw(b"BGSAVE\r\nBGSAVE\r\n");
        assert_eq!(wire.read().text(), "Background saving started");
        let is_second_refused = wire.read().is_error("ERR");
        refused += usize::from(is_second_refused);
        saves += if is_second_refused { 1 } else { 2 };
        wait_until_saved(&mut wire, saves);
        let copy = TempDir::new().unwrap();
        fs::copy(folder.path().join("dump.rdb"), copy.path().join("dump.rdb")).unwrap();
        let loaded = node(copy.path(), &[]);
        let mut loaded = Wire::connect(loaded.address);
        assert_eq!(loaded.run("DBSIZE").integer() as usize, 2 * PAIRS);
        let values = |wire: &mut Wire, side: &str| {
            let keys: Vec<String> = (0..PAIRS).map(|pair| format!("{side}-{pair}")).collect();
            wire.call(&[vec!["MGET".to_owned()], keys].concat())
        };
        let (left, right) = (values(&mut loaded, "left"), values(&mut loaded, "right"));
        let differing = left.elements().iter().zip(right.elements()).filter(|(left, right)| left != right).count();
        assert_eq!(differing, 0, "pairs that differ");
        let zero = Value::bulk("0");
        assert!(left.elements().iter().any(|value| *value != zero), "the writers wrote");
    }
    assert!(refused > 0, "one at a time");
    is_over.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_flush_in_the_middle_of_a_snapshot_takes_nothing_out_of_it() {
    const KEYS: usize = 60_000;
    let folder = TempDir::new().unwrap();
    let saving = node(folder.path(), &[]);
    let mut wire = Wire::connect(saving.address);
    for number in 0..KEYS {
        wire.send(&["SET", &format!("key-{number}"), "value"]);
    }
    (0..KEYS).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    // In one pipeline, so that the flush comes while the thread has only begun.
    wire.send_raw(b"BGSAVE\r\nBGSAVE SCHEDULE\r\n");
    wire.read();
    wire.read();
    wait_until("the snapshot has begun", || {
        info(&mut wire, "rdb_bgsave_in_progress") == "1" || info(&mut wire, "rdb_saves") != "0"
    });
    wait_until_saved(&mut wire, 2);
    assert_eq!(wire.run("BGSAVE").text(), "Background saving started");
    assert_eq!(wire.run("FLUSHALL"), Value::ok());
    wire.run("SET after flush");
    wait_until_saved(&mut wire, 3);
    // The flush came before the snapshot or in its middle: all keys or none, and never a part.
    let copy = TempDir::new().unwrap();
    fs::copy(folder.path().join("dump.rdb"), copy.path().join("dump.rdb")).unwrap();
    let loaded = Wire::connect(node(copy.path(), &[]).address).run("DBSIZE").integer() as usize;
    assert!([KEYS, 0, 1].contains(&loaded), "{loaded} keys");
    assert_eq!(wire.run("SAVE"), Value::ok());
    drop(saving);
    assert_eq!(
        content(node(folder.path(), &[]).address),
        Content::from([((0, "after".to_owned()), "string \"flush\" until :-1".to_owned())])
    );
}

#[test]
fn a_damaged_file_stops_the_start_and_says_why() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("dump.rdb");
    let saving = node(folder.path(), &[]);
    fill(saving.address);
    assert_eq!(Wire::connect(saving.address).run("SAVE"), Value::ok());
    drop(saving);
    let whole = fs::read(&file).unwrap();
    let arguments = ["--port", "0", "--dir", folder.path().to_str().unwrap()];
    for (damage, expected) in
        [("cut", "it ends too early, at byte"), ("flipped", "its checksum is wrong"), ("none", "not an RDB file")]
    {
        let mut bytes = whole.clone();
        match damage {
            "cut" => bytes.truncate(whole.len() / 2),
            "flipped" => {
                let at = whole.windows(5).position(|text| text == b"hello").unwrap();
                bytes[at] = b'j';
            }
            _ => bytes = b"appendonly".to_vec(),
        }
        fs::write(&file, bytes).unwrap();
        let (status, _, error) = Binary::run(&arguments);
        assert!(!status.success() && error.contains(expected) && error.contains("dump.rdb"), "{damage}: {error}");
    }
    let (status, _, error) = Binary::run(&["--port", "0", "--dir", "/nowhere"]);
    assert!(!status.success() && error.contains("a folder that exists"), "{error}");
}

#[test]
fn info_tells_how_far_a_snapshot_is_loaded() {
    const KEYS: usize = 100_000;
    const LOADS_MAX: usize = 10;
    let folder = TempDir::new().unwrap();
    let saving = node(folder.path(), &[]);
    let mut wire = Wire::connect(saving.address);
    for number in 0..KEYS {
        wire.send(&["SET", &format!("key-{number}"), "a value of some length"]);
    }
    (0..KEYS).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    assert_eq!(wire.run("SAVE"), Value::ok());
    assert_eq!(info(&mut wire, "current_save_keys_total"), "0", "none runs");
    drop(saving);
    let bytes = fs::metadata(folder.path().join("dump.rdb")).unwrap().len();
    // On a busy machine it may be loaded between two questions.
    let is_told = (0..LOADS_MAX).any(|_| {
        let told = told_while_it_loads(folder.path(), KEYS);
        told.iter().any(|(percent, total)| *percent > 0.0 && *percent < 100.0 && *total == bytes.to_string())
    });
    assert!(is_told, "in {LOADS_MAX} loads nobody was told how far it is");
}

/// What INFO says of percent and bytes, asked until all is loaded.
fn told_while_it_loads(folder: &Path, keys: usize) -> Vec<(f64, String)> {
    let port = free_port();
    let directory = folder.to_owned();
    let starting = thread::spawn(move || Binary::start(&["--port", &port.to_string(), "--dir", directory.to_str().unwrap()]));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("it listens", || TcpStream::connect(address).is_ok());
    let mut wire = Wire::connect(address);
    let mut told = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "it is still loading");
        let text = wire.run("INFO persistence").text();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        if let (Some(percent), Some(total)) = (field("loading_loaded_perc:"), field("loading_total_bytes:")) {
            told.push((percent.parse().unwrap(), total));
        }
        if text.contains("loading:0") {
            break;
        }
    }
    assert_eq!(Wire::connect(starting.join().unwrap().address).run("DBSIZE"), Value::Integer(keys as i64));
    told
}

#[test]
fn what_a_killed_process_left_half_written_is_removed_and_the_old_snapshot_stays() {
    let folder = TempDir::new().unwrap();
    let half = folder.path().join("temp-4194304999-0.rdb");
    let others = folder.path().join("temp-notes.rdb");
    let saving = node(folder.path(), &[]);
    let mut wire = Wire::connect(saving.address);
    wire.run("SET kept yes");
    assert_eq!(wire.run("SAVE"), Value::ok());
    drop(saving);
    fs::write(&others, b"mine").unwrap();
    // Without a log, with the first one, and with one that is there.
    for more in [&[][..], &["--appendonly", "yes"], &["--appendonly", "yes"]] {
        fs::write(&half, b"REDIS0010").unwrap();
        let again = node(folder.path(), more);
        assert_eq!(Wire::connect(again.address).run("GET kept"), Value::bulk("yes"));
        assert!(!half.exists() && others.exists(), "{more:?}");
    }
}

#[test]
fn rules_save_and_a_failure_is_told() {
    let folder = TempDir::new().unwrap();
    let sub = folder.path().join("data");
    fs::create_dir(&sub).unwrap();
    let mut saving = node(&sub, &["--save", "1", "3", "--snapshot-retention", "2"]);
    let mut wire = Wire::connect(saving.address);
    wire.run("SET a 1");
    wire.run("SET b 2");
    assert_eq!(info(&mut wire, "rdb_changes_since_last_save"), "2");
    wire.run("SET c 3");
    wait_until_saved(&mut wire, 1);
    assert!(sub.join("dump.rdb").exists());
    assert_eq!(info(&mut wire, "rdb_changes_since_last_save"), "0");
    assert_eq!(info(&mut wire, "rdb_last_bgsave_status"), "ok");
    for _ in 0..3 {
        // Names have seconds.
        thread::sleep(Duration::from_millis(1_050));
        assert_eq!(wire.run("SAVE"), Value::ok());
    }
    let kept = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("dump-") && name.ends_with(".rdb")).count()
    };
    assert_eq!(kept(&sub), 2);
    // A folder that went away.
    let moved = folder.path().join("moved");
    fs::rename(&sub, &moved).unwrap();
    let failed = wire.run("SAVE");
    assert!(failed.is_error("ERR") && failed.text().contains("cannot write the snapshot"), "{failed:?}");
    assert_eq!(info(&mut wire, "rdb_last_bgsave_status"), "err");
    assert!(wire.run("SET d 4").is_error("MISCONF"));
    assert_eq!(wire.run("GET a"), Value::bulk("1"));
    wire.run("CONFIG SET stop-writes-on-bgsave-error no");
    assert_eq!(wire.run("SET d 4"), Value::ok());
    wire.run("CONFIG SET stop-writes-on-bgsave-error yes");
    assert!(wire.run("SET d 5").is_error("MISCONF"));
    fs::rename(&moved, &sub).unwrap();
    assert_eq!(wire.run("SAVE"), Value::ok());
    assert_eq!(info(&mut wire, "rdb_last_bgsave_status"), "ok");
    assert_eq!(wire.run("SET e 5"), Value::ok());
    // SIGTERM with rules: what is not saved yet is.
    wire.run("SET f 6");
    assert!(saving.end_by("TERM").success());
    assert_eq!(content(node(&sub, &[]).address).len(), 6);
}

/// As in Redis: the lines of a file and the options behind it add up, and CONFIG SET puts others in the place of all.
#[test]
fn rules_add_up_and_config_set_replaces_them() {
    for (file, options, expected) in [
        ("save 900 1\nsave 300 10\n", &["--save", "60", "1", "--save", "30 5"][..], "900 1 300 10 60 1 30 5"),
        ("save 900 1\nsave \"\"\n", &[], ""),
        ("save 900 1\nsave \"\"\nsave 5 5\n", &[], "5 5"),
        ("save 900 1\n", &["--save", "", "--save", "7", "7"], "7 7"),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("node.conf");
        fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let redis = RedisServer::start_by(Engine::Redis, &[path], options);
        let node = Binary::start(&[&[path, "--port", "0", "--dir", folder.path().to_str().unwrap()], options].concat());
        for address in [redis.address, node.address] {
            let mut wire = Wire::connect(address);
            assert_eq!(wire.run("CONFIG GET save").elements()[1], Value::bulk(expected), "{file} {options:?}");
            assert_eq!(wire.run("CONFIG SET save \"10 1\""), Value::ok());
            assert_eq!(wire.run("CONFIG GET save").elements()[1], Value::bulk("10 1"));
        }
    }
}

#[test]
fn shutdown_saves_or_not_as_it_is_told() {
    for (command, rules, expected) in
        [("SHUTDOWN", "", 0), ("SHUTDOWN", "3600 1", 1), ("SHUTDOWN SAVE", "", 1), ("SHUTDOWN NOSAVE", "3600 1", 0)]
    {
        let folder = TempDir::new().unwrap();
        let mut ending = node(folder.path(), &["--save", rules]);
        let mut wire = Wire::connect(ending.address);
        assert!(wire.run("SHUTDOWN ABORT").is_error("ERR"));
        assert!(wire.run("SHUTDOWN WHAT").is_error("ERR"));
        wire.run("SET key value");
        wire.send_raw(format!("{command}\r\n").as_bytes());
        assert!(wire.is_closed());
        let status = ending.process.wait().unwrap();
        assert!(status.success(), "{command}: {status}");
        assert_eq!(content(node(folder.path(), &[]).address).len(), expected, "{command} with save '{rules}'");
    }
}

/// INFO looks at the snapshots' state with everything locked, and the rules count changes: in the wrong order they wait for each other.
/// One thread serves the connections: whoever waits on it for a replica waits for ever.
#[test]
fn what_saves_while_a_replica_is_sent_a_snapshot_does_not_wait_for_it() {
    const VALUES: usize = 50;
    let folder = TempDir::new().unwrap();
    let mut saving = node(folder.path(), &["--io-threads", "1", "--save", "3600", "1", "--rdbcompression", "no"]);
    let mut wire = Wire::connect(saving.address);
    let value = "v".repeat(1_000_000);
    (0..VALUES).for_each(|number| assert_eq!(wire.call(&["SET", &format!("key-{number}"), &value]), Value::ok()));
    // A replica that takes its snapshot slowly: not at all.
    let mut replica = Wire::connect(saving.address);
    assert_eq!(replica.run("REPLCONF capa eof capa psync2"), Value::ok());
    replica.send(&["PSYNC", "?", "-1"]);
    assert!(matches!(replica.read(), Value::Simple(reply) if reply.starts_with("FULLRESYNC")));
    let number = |wire: &mut Wire, field: &str| info(wire, field).parse::<usize>().unwrap();
    wait_until("keys are written", || number(&mut wire, "current_save_keys_processed") > 0);
    assert!(number(&mut wire, "current_save_keys_processed") < VALUES);
    assert_eq!(number(&mut wire, "current_save_keys_total"), VALUES);
    assert!(info(&mut wire, "current_fork_perc").parse::<f64>().unwrap() > 0.0);
    assert_eq!(wire.run("SAVE"), Value::Error("ERR Background save already in progress".to_owned()));
    assert_eq!(wire.run("SHUTDOWN"), Value::Error("ERR Errors trying to SHUTDOWN. Check logs.".to_owned()));
    wait_until("it says why", || saving.errors().contains("SHUTDOWN is refused"));
    assert_eq!(wire.run("BGSAVE"), Value::Simple("Background saving started".to_owned()));
    assert_eq!(wire.run("PING"), Value::Simple("PONG".to_owned()));
    // The end saves all the same.
    assert!(saving.end_by("TERM").success(), "{}", saving.errors());
    let again = node(folder.path(), &[]);
    assert_eq!(Wire::connect(again.address).run("DBSIZE"), Value::Integer(VALUES as i64));
}

#[test]
fn info_and_the_rules_do_not_wait_for_each_other() {
    let folder = TempDir::new().unwrap();
    let saving = node(folder.path(), &["--save", "3600", "1000000"]);
    let mut wire = Wire::connect(saving.address);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        for _ in 0..50 {
            wire.send(&["INFO", "persistence"]);
        }
        (0..50).for_each(|_| drop(wire.read()));
    }
}
