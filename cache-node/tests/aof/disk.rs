//! A disk that is full, and how much work the log makes for it.

use std::{fs, io, path::PathBuf, process::Command, time::Duration};

use crate::{
    folder, last_increment, node,
    support::{
        self, Value, Wire,
        content::{assert_same, content, info},
        process::Binary,
        wire::encode,
    },
    text,
};

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
        let (mut wire, mut other) = (Wire::connect(node.address), Wire::connect(node.address));
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![0; 1_000_000]).unwrap();
        let mut kept = Vec::new();
        let value = "v".repeat(10_000);
        wire.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        for number in 0..400 {
            let key = format!("key-{number}");
            wire.send(&["SET", &key, &value]);
            let reply = loop {
                match wire.try_read() {
                    Ok(reply) => break Some(reply),
                    // The one that met the full disk is not answered: whether it is kept is open until there is room.
                    Err(_) if info(&mut other, "aof_last_write_status") == "err" => break None,
                    // A slow disk is not a full one.
                    Err(error) => assert!(error.kind() == io::ErrorKind::WouldBlock, "{error}"),
                }
            };
            match reply {
                Some(Value::Error(error)) => {
                    assert_eq!(error, REFUSED);
                    break;
                }
                Some(reply) => assert_eq!(reply, Value::ok()),
                None => break,
            }
            kept.push(key);
        }
        assert!((80..400).contains(&kept.len()), "the disk was full behind {}", kept.len());
        support::wait_until("writes are refused", || matches!(other.run("SET other 1"), Value::Error(error) if error == REFUSED));
        assert_eq!(other.run("GET key-0"), Value::bulk(&value), "reads go on");
        assert!(other.run("EVAL \"return redis.call('SET','x','1')\" 0").is_error("MISCONF"));
        other.run("MULTI");
        assert!(other.run("SET x 1").is_error("MISCONF"));
        assert!(other.run("EXEC").is_error("EXECABORT"));
        assert!(other.run("INFO persistence").text().contains("aof_last_write_status:err"));
        fs::remove_file(&ballast).unwrap();
        support::wait_until("writes are taken again", || other.run("SET after 1") == Value::ok());
        assert!(other.run("INFO persistence").text().contains("aof_last_write_status:ok"));
        support::wait_until("both are events", || {
            ["LogWriteFailed", "LogRecovered"].iter().all(|kind| node.errors().contains(&format!("kind={kind}")))
        });
        let expected = content(&mut other, 1);
        assert!(kept.iter().all(|key| expected.contains_key(&(0, key.clone()))));
        node.process.kill().unwrap();
        node.process.wait().unwrap();
        let again = self::node(dir, &["--aof-load-truncated", "no"]);
        let found = content(&mut Wire::connect(again.address), 1);
        assert_same("after the disk was full", &expected, &found);
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
    // Not answered: it is in no file.
    wire.send(&["SET", "large", &value]);
    support::wait_until("the write fails", || full.errors().contains("cannot write the log"));
    let status = full.end_by("TERM");
    assert_eq!(status.code(), Some(1), "{}", full.errors());
    support::wait_until("it says so", || full.errors().contains("could not be brought to disk: No space left on device"));
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    let again = node(disk.0.path(), &["--aof-load-truncated", "no"]);
    assert_eq!(Wire::connect(again.address).run("GET before"), Value::bulk("1"));
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
