//! The append-only log: what is acknowledged is there after any end, and a real Redis reads the same files.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use support::{
    RedisServer, Value, Wire,
    content::{Content, assert_same, content},
    process::Binary,
    random,
    wire::encode,
};

/// Commands beside those of the other random sequences, which need the same reply everywhere: times that count from now, and chance.
const MORE_TEMPLATES: &str = "SET {string} {v} EX {t}\nSET {string} {v} PX {t}\nPSETEX {string} {t}00 {v}\nEXPIRE {k} {t}\n\
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

fn redis(dir: &Path) -> RedisServer {
    let redis = RedisServer::start_with(&["--dir", text(dir), "--appendonly", "yes", "--save", ""]);
    let mut wire = Wire::connect(redis.address);
    support::wait_until("redis-server loads", || !wire.run("PING").is_error("LOADING"));
    redis
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
fn what_the_log_holds_is_what_the_node_held_and_a_real_redis_agrees() {
    for seed in 1..=6 {
        let (dir, other) = (folder(), folder());
        let expected = {
            let mut node = node(dir.path(), &["--appendfsync", "always"]);
            let mut wires = [Wire::connect(node.address), Wire::connect(node.address)];
            fill(&mut wires, seed, 2_500);
            let expected = settled(&mut wires[0]);
            assert!(node.end_by("TERM").success());
            expected
        };
        assert!(expected.len() >= 8, "{expected:?}");
        copy(dir.path(), other.path());
        let again = node(dir.path(), &[]);
        assert_same(&format!("seed {seed}, the node"), &expected, &content(&mut Wire::connect(again.address), DATABASES));
        let redis = redis(other.path());
        assert_same(&format!("seed {seed}, redis-server"), &expected, &content(&mut Wire::connect(redis.address), DATABASES));
    }
}

#[test]
fn a_log_that_a_real_redis_wrote_is_loaded_and_goes_on() {
    for preamble in ["no", "yes"] {
        let dir = folder();
        let expected = {
            let redis =
                RedisServer::start_with(&["--dir", text(dir.path()), "--appendonly", "yes", "--aof-use-rdb-preamble", preamble]);
            let mut wires = [Wire::connect(redis.address), Wire::connect(redis.address)];
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
            assert_same(&format!("preamble {preamble}"), &expected, &content(&mut wires[0], DATABASES));
            fill(&mut wires, 13, 500);
            let after = settled(&mut wires[0]);
            assert!(node.end_by("TERM").success());
            after
        };
        let redis = redis(dir.path());
        assert_same("and back in redis-server", &expected_after, &content(&mut Wire::connect(redis.address), DATABASES));
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
fn an_end_that_was_cut_off_is_taken_away() {
    let whole = encode(&["SET", "c", "3"]);
    let transaction = [encode(&["MULTI"]), encode(&["SET", "c", "3"]), encode(&["SET", "d", "4"])].concat();
    let zeros = vec![0; 5_000];
    let tails: [&[u8]; 5] = [&whole[..1], &whole[..9], &whole[..whole.len() - 1], &transaction, &zeros];
    for tail in tails {
        let dir = logged(&["SET a 1", "SET b 2"]);
        let path = last_increment(dir.path());
        let length = fs::metadata(&path).unwrap().len();
        fs::write(&path, [fs::read(&path).unwrap(), tail.to_vec()].concat()).unwrap();
        let refused = refusal(dir.path(), &["--aof-load-truncated", "no"]);
        assert!(
            refused.contains("appendonly.aof.1.incr.aof ends within a request")
                && refused.contains(&format!("truncate -s {length}")),
            "{refused}"
        );
        let mut mended = node(dir.path(), &["--aof-load-truncated", "yes"]);
        let mut wire = Wire::connect(mended.address);
        assert_eq!(wire.run("DBSIZE"), Value::Integer(2));
        let said = format!("its last {} bytes were taken away, and it now ends at byte {length}", tail.len());
        support::wait_until("it says so", || mended.errors().contains(&said));
        wire.run("SET c 5");
        assert!(mended.end_by("TERM").success());
        let again = node(dir.path(), &["--aof-load-truncated", "no"]);
        assert_eq!(Wire::connect(again.address).run("MGET a b c"), Value::Array(["1", "2", "5"].map(Value::bulk).to_vec()));
    }
}

#[test]
fn a_damaged_middle_is_refused_with_its_place() {
    let dir = logged(&["SET a 1", "SET b 2", "SET c 3"]);
    let path = last_increment(dir.path());
    let good = fs::read(&path).unwrap();
    let second = good.windows(5).position(|window| window == b"\r\nb\r\n").unwrap();
    let start = good[..second].windows(3).rposition(|window| window == b"\n*3").unwrap() + 1;
    for (at, byte, what) in [
        (start, b'+', "a request begins with its number of arguments"),
        (start + 1, b'x', "invalid multibulk length"),
        (start + 4, b'x', "expected '$'"),
        // One digit more is a request that would be longer than the file: no end that was cut off.
        (start + 5, b'9', "whole ones stand behind it"),
        (start + 8, b'Q', "unknown command 'QET'"),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        if what.starts_with("whole") {
            bad.splice(at..at, *b"99");
        }
        fs::write(&path, &bad).unwrap();
        let refused = refusal(dir.path(), &[]);
        assert!(refused.contains(&format!("damaged at byte {start}")) && refused.contains(what), "{what}: {refused}");
        assert_eq!(fs::read(&path).unwrap(), bad, "nothing was changed");
    }
    fs::remove_file(&path).unwrap();
    assert!(refusal(dir.path(), &[]).contains("appendonly.aof.1.incr.aof"));
    fs::write(&path, &good).unwrap();
    let manifest = dir.path().join("appendonlydir/appendonly.aof.manifest");
    fs::write(&manifest, "file appendonly.aof.1.incr.aof seq x type i\n").unwrap();
    assert!(refusal(dir.path(), &[]).contains("appendonly.aof.manifest: line 1"));
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
fn kill_and_look(times: u32) {
    const WRITERS: usize = 4;
    let dir = folder();
    let mut source = StdRng::seed_from_u64(5);
    let mut acknowledged = [0_u64; WRITERS];
    let small = ["--appendfsync", "always", "--auto-aof-rewrite-min-size", "200kb", "--auto-aof-rewrite-percentage", "50"];
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
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let from = acknowledged[writer];
                std::thread::spawn(move || write_until_gone(address, &format!("writer-{writer}"), from))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(source.random_range(20..300)));
        node.process.kill().unwrap();
        node.process.wait().unwrap();
        let before: u64 = acknowledged.iter().sum();
        for (slot, writer) in acknowledged.iter_mut().zip(writers) {
            *slot = writer.join().unwrap();
        }
        assert!(round > 0 || acknowledged.iter().sum::<u64>() > before, "nothing was written: nothing was tried");
    }
    println!("{times} times killed; {:?} acknowledged, {total} more found than told", acknowledged);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed() {
    kill_and_look(10);
}

#[test]
#[ignore = "long: a hundred times"]
fn nothing_acknowledged_is_lost_when_the_node_is_killed_a_hundred_times() {
    kill_and_look(100);
}

/// A small file system of its own, which goes with its test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> SmallDisk {
        let dir = folder();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path()).output().unwrap();
        assert!(
            mounted.status.success(),
            "this test fills a file system of its own, and mounting one takes the rights of root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        SmallDisk(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        drop(unmounted);
    }
}

#[test]
fn a_full_disk_refuses_writes_keeps_what_is_there_and_lets_go() {
    const REFUSED: &str = "MISCONF Errors writing to the AOF file: No space left on device";
    for fsync in ["always", "everysec"] {
        let disk = SmallDisk::new("2m");
        let dir = disk.0.path();
        let mut node = node(dir, &["--appendfsync", fsync]);
        let mut wire = Wire::connect(node.address);
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![0; 1_000_000]).unwrap();
        let mut kept = Vec::new();
        let value = "v".repeat(10_000);
        let mut is_refused = false;
        for number in 0..400 {
            let key = format!("key-{number}");
            match wire.call(&["SET", &key, &value]) {
                Value::Error(error) => {
                    assert_eq!(error, REFUSED);
                    is_refused = true;
                    break;
                }
                reply => assert_eq!(reply, Value::ok()),
            }
            kept.push(key);
            if fsync == "everysec" {
                std::thread::sleep(Duration::from_millis(2));
            } else if number > 80 {
                // The one that met the full disk is not answered: whether it is kept is open until there is room.
                wire.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                wire.send(&["SET", "open", &value]);
                if wire.try_read().is_err() {
                    break;
                }
            }
        }
        let mut other = Wire::connect(node.address);
        support::wait_until("writes are refused", || matches!(other.run("SET other 1"), Value::Error(error) if error == REFUSED));
        assert_eq!(other.run("GET key-0"), Value::bulk(&value), "reads go on");
        assert!(other.run("EVAL \"return redis.call('SET','x','1')\" 0").is_error("MISCONF"));
        other.run("MULTI");
        assert!(other.run("SET x 1").is_error("MISCONF"));
        assert!(other.run("EXEC").is_error("EXECABORT"));
        assert!(other.run("INFO persistence").text().contains("aof_last_write_status:err"));
        assert!(is_refused || fsync == "always");
        fs::remove_file(&ballast).unwrap();
        support::wait_until("writes are taken again", || other.run("SET after 1") == Value::ok());
        assert!(other.run("INFO persistence").text().contains("aof_last_write_status:ok"));
        let expected = content(&mut other, 1);
        assert!(kept.iter().all(|key| expected.contains_key(&(0, key.clone()))));
        node.process.kill().unwrap();
        node.process.wait().unwrap();
        let again = self::node(dir, &["--aof-load-truncated", "no"]);
        let found = content(&mut Wire::connect(again.address), 1);
        if fsync == "always" {
            assert_same("after the disk was full", &expected, &found);
        } else {
            assert!(kept.iter().take(50).all(|key| found.contains_key(&(0, key.clone()))));
        }
    }
}

#[test]
fn an_end_by_a_signal_brings_everything_to_disk_or_says_that_it_could_not() {
    let disk = SmallDisk::new("1m");
    let mut full = node(disk.0.path(), &["--appendfsync", "no"]);
    let mut wire = Wire::connect(full.address);
    assert_eq!(wire.run("SET before 1"), Value::ok());
    support::wait_until("the first write is in the file", || fs::metadata(last_increment(disk.0.path())).unwrap().len() > 0);
    fs::write(disk.0.path().join("ballast"), vec![0; 2_000_000]).unwrap_err();
    let value = "v".repeat(100_000);
    wire.call(&["SET", "large", &value]);
    let status = full.end_by("TERM");
    assert_eq!(status.code(), Some(1), "{}", full.errors());
    support::wait_until("it says so", || full.errors().contains("could not be brought to disk: No space left on device"));
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    let again = node(disk.0.path(), &["--aof-load-truncated", "no"]);
    assert_eq!(Wire::connect(again.address).run("GET before"), Value::bulk("1"));
}

#[test]
fn a_node_that_loads_says_so() {
    let dir = folder();
    let folder = dir.path().join("appendonlydir");
    fs::create_dir(&folder).unwrap();
    let mut bytes = encode(&["SELECT", "0"]);
    for number in 0..150_000 {
        bytes.extend(encode(&["SET", &format!("key-{number}"), "v"]));
    }
    fs::write(folder.join("appendonly.aof.1.incr.aof"), bytes).unwrap();
    fs::write(folder.join("appendonly.aof.manifest"), "file appendonly.aof.1.incr.aof seq 1 type i\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let directory = dir.path().to_owned();
    let starting = std::thread::spawn(move || {
        Binary::start(&["--port", &port.to_string(), "--dir", text(&directory), "--appendonly", "yes"])
    });
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    support::wait_until("it listens", || std::net::TcpStream::connect(address).is_ok());
    let mut wire = Wire::connect(address);
    let told = wire.run("GET key-0");
    assert_eq!(
        told,
        Value::Error("LOADING Redis is loading the dataset in memory".to_owned()),
        "it listens before it has its data"
    );
    let info = wire.run("INFO persistence").text();
    assert!(info.contains("loading:1") && info.contains("loading_loaded_perc:"), "{info}");
    let node = starting.join().unwrap();
    assert_eq!(Wire::connect(node.address).run("DBSIZE"), Value::Integer(150_000));
    assert!(wire.run("INFO persistence").text().contains("loading:0"));
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

#[test]
fn a_rewrite_under_load_loses_nothing_and_a_real_redis_reads_it() {
    for preamble in ["yes", "no"] {
        let (dir, other) = (folder(), folder());
        let mut node = node(dir.path(), &["--aof-use-rdb-preamble", preamble]);
        let mut wires = [Wire::connect(node.address), Wire::connect(node.address)];
        for round in 0..3 {
            fill(&mut wires, 20 + round, 700);
            assert_eq!(wires[0].run("BGREWRITEAOF"), Value::Simple("Background append only file rewriting started".to_owned()));
            fill(&mut wires, 30 + round, 300);
            rewritten(&mut wires[0], round + 1);
        }
        let expected = settled(&mut wires[0]);
        assert!(node.end_by("TERM").success());
        let files: Vec<String> = fs::read_dir(dir.path().join("appendonlydir"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let base = if preamble == "yes" { "appendonly.aof.4.base.rdb" } else { "appendonly.aof.4.base.aof" };
        assert!(files.len() == 3 && files.iter().any(|name| name == base), "{files:?}");
        copy(dir.path(), other.path());
        let redis = redis(other.path());
        assert_same("redis-server", &expected, &content(&mut Wire::connect(redis.address), DATABASES));
        let again = self::node(dir.path(), &[]);
        assert_same("the node", &expected, &content(&mut Wire::connect(again.address), DATABASES));
    }
}

/// Waits for the end of a rewrite.
fn rewritten(wire: &mut Wire, count: u64) {
    support::wait_until("the rewrite", || {
        let info = wire.run("INFO persistence").text();
        info.contains("aof_rewrite_in_progress:0") && info.contains(&format!("aof_rewrites:{count}\r"))
    });
    assert!(wire.run("INFO persistence").text().contains("aof_last_bgrewrite_status:ok"));
}

#[test]
fn a_log_is_rewritten_when_it_has_grown() {
    let dir = folder();
    let node = node(dir.path(), &["--auto-aof-rewrite-min-size", "100kb", "--auto-aof-rewrite-percentage", "100"]);
    let mut wire = Wire::connect(node.address);
    let value = "v".repeat(10_000);
    let mut written = 0;
    support::wait_until("it is much smaller than what was written", || {
        assert_eq!(wire.call(&["SET", "one", &value]), Value::ok());
        written += value.len() as u64;
        let info = wire.run("INFO persistence").text();
        let size = info.lines().find_map(|line| line.strip_prefix("aof_current_size:")).unwrap();
        !info.contains("aof_rewrites:0") && size.parse::<u64>().unwrap() * 3 < written
    });
}

#[test]
fn a_log_begins_and_ends_while_the_node_runs() {
    let dir = folder();
    let mut node = Binary::start(&["--port", "0", "--dir", text(dir.path()), "--appendfsync", "always"]);
    let mut wires = [Wire::connect(node.address), Wire::connect(node.address)];
    fill(&mut wires, 41, 800);
    assert_eq!(wires[0].run("CONFIG SET appendonly yes"), Value::ok());
    fill(&mut wires, 42, 300);
    rewritten(&mut wires[0], 1);
    fill(&mut wires, 43, 300);
    let expected = settled(&mut wires[0]);
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    let mut node = self::node(dir.path(), &[]);
    let mut wires = [Wire::connect(node.address)];
    assert_same("begun at run time", &expected, &content(&mut wires[0], DATABASES));
    assert_eq!(wires[0].run("CONFIG SET appendonly no"), Value::ok());
    support::wait_until("it ended", || !wires[0].run("INFO persistence").text().contains("aof_current_size"));
    wires[0].run("FLUSHALL");
    wires[0].run("SET later 1");
    assert_eq!(wires[0].run("CONFIG SET appendonly yes"), Value::ok());
    rewritten(&mut wires[0], 1);
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    let again = self::node(dir.path(), &[]);
    assert_eq!(Wire::connect(again.address).run("KEYS *"), Value::Array(vec![Value::bulk("later")]));
}

#[test]
fn a_snapshot_becomes_the_base_of_the_first_log() {
    let dir = folder();
    let mut node = Binary::start(&["--port", "0", "--dir", text(dir.path())]);
    let mut wires = [Wire::connect(node.address)];
    fill(&mut wires, 51, 800);
    let expected = settled(&mut wires[0]);
    assert_eq!(wires[0].run("SAVE"), Value::ok());
    assert!(node.end_by("TERM").success());
    for _ in 0..2 {
        let mut node = self::node(dir.path(), &[]);
        assert_same("with the log", &expected, &content(&mut Wire::connect(node.address), DATABASES));
        node.process.kill().unwrap();
        node.process.wait().unwrap();
        // The log alone has everything now.
        drop(fs::remove_file(dir.path().join("dump.rdb")));
    }
}

#[test]
fn a_batch_of_many_writes_is_brought_to_disk_once() {
    const BATCHES: u64 = 40;
    let dir = folder();
    let node = node(dir.path(), &["--appendfsync", "always"]);
    let mut wire = Wire::connect(node.address);
    let batch: Vec<u8> = (0..64).flat_map(|number| encode(&["SET", &format!("key-{number}"), "value"])).collect();
    for _ in 0..BATCHES {
        wire.send_raw(&batch);
        (0..64).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    }
    let info = wire.run("INFO persistence").text();
    let syncs: u64 = info.lines().find_map(|line| line.strip_prefix("aof_fsyncs:")).unwrap().parse().unwrap();
    // The kernel may hand a batch over in two parts.
    assert!((BATCHES..=2 * BATCHES).contains(&syncs), "{} writes were brought to disk in {syncs} goes", 64 * BATCHES);
}

/// Hundredths of a second that the thread that keeps the log has used, and the times that it was woken.
fn work_of_the_log(node: &Binary) -> (u64, u64) {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.process.id())).unwrap().map(|task| task.unwrap().path());
    let is_log = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "cache-node-log");
    let task = tasks.into_iter().find(is_log).expect("a thread keeps the log");
    let stat = fs::read_to_string(task.join("stat")).unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    let ticks = behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    let status = fs::read_to_string(task.join("status")).unwrap();
    let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    (ticks, switches.trim().parse().unwrap())
}

#[test]
fn a_log_that_is_brought_to_disk_by_nobody_costs_nothing() {
    for directives in [&["--appendfsync", "no"][..], &["--durability", "none"], &["--durability", "sync", "--appendfsync", "no"]]
    {
        let (dir, other) = (folder(), folder());
        let node = node(dir.path(), directives);
        let mut wire = Wire::connect(node.address);
        // With durability sync it is the replica that makes the disk unneeded.
        let replica = directives[1] == "sync";
        let port = node.address.port().to_string();
        let replica = replica
            .then(|| Binary::start(&["--port", "0", "--dir", text(other.path()), "--replicaof", &format!("127.0.0.1 {port}")]));
        if replica.is_some() {
            support::wait_until("the replica is there", || wire.run("INFO replication").text().contains("state=online"));
        }
        assert_eq!(wire.run("SET k v"), Value::ok());
        // What had to be done at once is done, and the second after which it may be brought to disk is over.
        std::thread::sleep(Duration::from_millis(1_200));
        let before = work_of_the_log(&node);
        std::thread::sleep(Duration::from_millis(1_000));
        let after = work_of_the_log(&node);
        let (ticks, switches) = (after.0 - before.0, after.1 - before.1);
        assert!(ticks < 10 && switches < 100, "{directives:?}: {ticks} hundredths of a second, woken {switches} times");
    }
}

#[test]
fn many_quick_rewrites_count_every_write_once() {
    let dir = folder();
    let mut node = node(dir.path(), &["--appendfsync", "no"]);
    let address = node.address;
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let counters: Vec<_> = (0..3)
        .map(|number| {
            let is_over = std::sync::Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut wire = Wire::connect(address);
                let mut count = 0;
                // Twice would be once too often: that is how a write shows that is in a base and behind it as well.
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    count += 1;
                    assert_eq!(wire.run(&format!("INCR counter-{number}")), Value::Integer(count));
                }
                count
            })
        })
        .collect();
    let mut wire = Wire::connect(address);
    for round in 1..=30 {
        assert!(!wire.run("BGREWRITEAOF").is_error("ERR"));
        rewritten(&mut wire, round);
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let counts: Vec<i64> = counters.into_iter().map(|counter| counter.join().unwrap()).collect();
    assert!(node.end_by("TERM").success());
    let again = self::node(dir.path(), &[]);
    let mut wire = Wire::connect(again.address);
    for (number, count) in counts.iter().enumerate() {
        assert_eq!(wire.run(&format!("GET counter-{number}")), Value::bulk(&count.to_string()));
    }
}

#[test]
fn with_a_key_nothing_is_readable_without_it() {
    let (dir, keys) = (folder(), folder());
    let [key, other] = ["11", "22"].map(|byte| {
        let path = keys.path().join(byte);
        fs::write(&path, byte.repeat(32)).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let with_key = ["--encryption-key-file", &key, "--appendfsync", "always"];
    let mut expected = Content::new();
    for round in 0..3 {
        let mut node = node(dir.path(), &with_key);
        let mut wires = [Wire::connect(node.address)];
        assert_same(&format!("round {round}"), &expected, &content(&mut wires[0], DATABASES));
        fill(&mut wires, 60 + round, 400);
        assert_eq!(wires[0].run("SET secret \"the plain text of a customer\""), Value::ok());
        if round == 1 {
            assert_eq!(wires[0].run("SAVE"), Value::ok());
            assert!(!wires[0].run("BGREWRITEAOF").is_error("ERR"));
            rewritten(&mut wires[0], 1);
            fill(&mut wires, 70, 200);
            assert_eq!(wires[0].run("SET secret \"the plain text of a customer\""), Value::ok());
        }
        expected = settled(&mut wires[0]);
        node.process.kill().unwrap();
        node.process.wait().unwrap();
    }
    let log = dir.path().join("appendonlydir");
    let files: Vec<PathBuf> = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in files.iter().chain([&dir.path().join("dump.rdb")]) {
        let bytes = fs::read(file).unwrap();
        assert!(!bytes.windows(10).any(|window| window == b"plain text"), "{}", file.display());
    }
    assert!(refusal(dir.path(), &[]).contains("it is encrypted: start with its key as encryption-key-file"));
    assert!(refusal(dir.path(), &["--encryption-key-file", &other]).contains("encrypted with another key"));
    // The last increment: cut, it is mended; changed, it is refused.
    let last = last_increment(dir.path());
    let whole = fs::read(&last).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&last, &changed).unwrap();
    assert!(refusal(dir.path(), &with_key).contains("was changed"));
    fs::write(&last, &whole[..whole.len() - 5]).unwrap();
    let mended = node(dir.path(), &with_key);
    support::wait_until("it says so", || mended.errors().contains("were taken away"));
    drop(mended);
    // The snapshot alone.
    fs::remove_dir_all(&log).unwrap();
    let node = Binary::start(&["--port", "0", "--dir", text(dir.path()), "--encryption-key-file", &key]);
    assert_eq!(Wire::connect(node.address).run("GET secret"), Value::bulk("the plain text of a customer"));
    drop(node);
    let (status, _, errors) = Binary::run(&["--port", "0", "--dir", text(dir.path())]);
    assert!(!status.success() && errors.contains("it is encrypted"), "{errors}");
}

/// Where the frames of an encrypted file end.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (24, Vec::new());
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        at += 8 + 24 + length as usize + 16;
        ends.push(at);
    }
    ends
}

#[test]
fn an_encrypted_log_that_was_cut_within_a_large_batch_ends_before_it() {
    let (dir, keys) = (folder(), folder());
    let key = keys.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    let with_key = ["--encryption-key-file", text(&key), "--appendfsync", "always"];
    let mut first = node(dir.path(), &with_key);
    let mut wire = Wire::connect(first.address);
    assert_eq!(wire.run("SET before 1"), Value::ok());
    let path = last_increment(dir.path());
    let before = fs::metadata(&path).unwrap().len();
    assert_eq!(wire.call(&["SET", "large", &"v".repeat(900_000)]), Value::ok());
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    let bytes = fs::read(&path).unwrap();
    let ends: Vec<usize> = frame_ends(&bytes).into_iter().filter(|end| *end as u64 > before).collect();
    assert!(ends.len() > 2, "one batch in several frames: {ends:?}");
    // At the end of a frame and within the next one.
    for cut in ends[..ends.len() - 1].iter().flat_map(|end| [*end, *end + 1_000]) {
        fs::write(&path, &bytes[..cut]).unwrap();
        let (refused, _, errors) = Binary::run(
            &[&["--port", "0", "--dir", text(dir.path()), "--appendonly", "yes", "--aof-load-truncated", "no"], &with_key[..]]
                .concat(),
        );
        assert!(!refused.success() && errors.contains(&format!("truncate -s {before})")), "{errors}");
        let mut node = node(dir.path(), &with_key);
        assert_eq!(Wire::connect(node.address).run("MGET before large"), Value::Array(vec![Value::bulk("1"), Value::NullBulk]));
        support::wait_until("it says so", || node.errors().contains(&format!("it now ends at byte {before}")));
        assert!(node.end_by("TERM").success());
        // The next increment is not the one that is cut in the next round.
        let manifest = dir.path().join("appendonlydir/appendonly.aof.manifest");
        let named = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, named.lines().take(2).map(|line| line.to_owned() + "\n").collect::<String>()).unwrap();
    }
    fs::write(&path, &bytes).unwrap();
    let node = node(dir.path(), &with_key);
    assert_eq!(Wire::connect(node.address).run("STRLEN large"), Value::Integer(900_000));
}

#[test]
fn a_log_that_was_not_encrypted_is_from_the_next_start_on() {
    let (dir, keys) = (folder(), folder());
    let key = keys.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    let with_key = ["--encryption-key-file", text(&key)];
    let mut plain = node(dir.path(), &[]);
    assert_eq!(Wire::connect(plain.address).run("SET before plain"), Value::ok());
    assert!(plain.end_by("TERM").success());
    let mut sealed = node(dir.path(), &with_key);
    let mut wire = Wire::connect(sealed.address);
    assert_eq!(wire.run("SET after hidden"), Value::ok());
    assert!(!wire.run("BGREWRITEAOF").is_error("ERR"));
    rewritten(&mut wire, 1);
    assert!(sealed.end_by("TERM").success());
    for entry in fs::read_dir(dir.path().join("appendonlydir")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"plain") && !bytes.windows(6).any(|window| window == b"hidden"));
    }
    let again = node(dir.path(), &with_key);
    assert_eq!(
        Wire::connect(again.address).run("MGET before after"),
        Value::Array(["plain", "hidden"].map(Value::bulk).to_vec())
    );
}
