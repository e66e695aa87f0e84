//! A disk that does not do what it is told, or takes its time: strace answers fdatasync in its place.

use std::{
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    folder, node,
    support::{PATIENCE, Value, Wire, content::info, process::Binary, wait_until},
    text,
};

/// A node whose calls of fdatasync are tampered with: `fault` as strace has it behind `inject=fdatasync:`. Calls are counted per thread, and
/// it is the log's own thread that makes them.
fn node_with(fault: &str, dir: &Path, more: &[&str]) -> Binary {
    let mut command = Command::new("strace");
    // -D: the process that is started is the node.
    command.args(["-D", "-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &format!("inject=fdatasync:{fault}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.arg(Binary::command().get_program()).args(["--port", "0", "--dir", text(dir), "--appendonly", "yes"]).args(more);
    Binary::start_by(&mut command)
}

/// What fdatasync could not bring to disk the system may have dropped: it is written anew before anything is acknowledged.
#[test]
fn a_disk_that_fails_once_loses_nothing_that_was_acknowledged() {
    let dir = folder();
    let mut failing = node_with("error=EIO:when=4", dir.path(), &["--appendfsync", "always"]);
    let mut wire = Wire::connect(failing.address);
    for number in 0..20 {
        // The one in whose middle it failed waits for the rewrite; those behind it may be refused meanwhile.
        wait_until("it is acknowledged", || match wire.run(&format!("SET key-{number} {number}")) {
            Value::Error(error) => {
                assert_eq!(error, "MISCONF Errors writing to the AOF file: Input/output error");
                false
            }
            reply => reply == Value::ok(),
        });
    }
    assert_eq!(info(&mut wire, "aof_rewrites"), "1", "{}", failing.errors());
    assert_eq!(info(&mut wire, "aof_last_write_status"), "ok");
    for said in ["cannot write the log: Input/output error", "kind=LogSyncFailed", "kind=LogRecovered"] {
        wait_until(&format!("the log tells {said:?}"), || failing.errors().contains(said));
    }
    failing.process.kill().unwrap();
    failing.process.wait().unwrap();
    let again = node(dir.path(), &["--aof-load-truncated", "no"]);
    assert_eq!(Wire::connect(again.address).run("DBSIZE"), Value::Integer(20));
}

#[test]
fn a_disk_that_goes_on_failing_refuses_writes() {
    let dir = folder();
    let mut failing = node_with("error=EIO:when=4+", dir.path(), &["--appendfsync", "always"]);
    let mut wire = Wire::connect(failing.address);
    let mut acknowledged = 0;
    let mut other = Wire::connect(failing.address);
    wire.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    'writing: while acknowledged < 20 {
        wire.send(&["SET", &format!("key-{acknowledged}"), "1"]);
        loop {
            match wire.try_read() {
                Ok(reply) => break assert_eq!(reply, Value::ok()),
                // It is not answered: whether it will be there nobody knows.
                Err(_) if info(&mut other, "aof_last_write_status") == "err" => break 'writing,
                // A slow disk is none that fails.
                Err(error) => assert!(error.kind() == ErrorKind::WouldBlock, "{error}"),
            }
        }
        acknowledged += 1;
    }
    assert!((1..20).contains(&acknowledged), "{acknowledged}");
    let refused = Value::Error("MISCONF Errors writing to the AOF file: Input/output error".to_owned());
    wait_until("writes are refused", || other.run("SET other 1") == refused);
    assert_eq!(other.run("GET key-0"), Value::bulk("1"), "reads go on");
    wait_until("the rewrite failed as well", || info(&mut other, "aof_last_bgrewrite_status") == "err");
    assert_eq!(other.run("SET other 1"), refused);
    wait_until("it is an event", || failing.errors().contains("kind=LogRewriteFailed"));
    failing.process.kill().unwrap();
    failing.process.wait().unwrap();
    let again = node(dir.path(), &[]);
    let found = Wire::connect(again.address).run("DBSIZE").integer();
    assert!(found >= acknowledged, "{acknowledged} were acknowledged, {found} are there");
}

/// With `everysec` nobody waits for the disk, until it takes more than two seconds: no more than that is ever lost.
/// On a busy machine others may wait as well, or longer.
#[test]
fn a_disk_that_takes_longer_than_two_seconds_is_waited_for() {
    const TRIES_MAX: usize = 4;
    let mut seen = Vec::new();
    while seen.len() < TRIES_MAX {
        match waits_for_a_slow_disk() {
            Ok(()) => return,
            Err(other) => seen.push(other),
        }
    }
    panic!("{}", seen.join("\n"));
}

/// Writes while one call of fdatasync takes four seconds; what was seen, when it is not what was expected.
fn waits_for_a_slow_disk() -> Result<(), String> {
    let dir = folder();
    let slow = node_with("delay_enter=4000000:when=2", dir.path(), &["--appendfsync", "everysec"]);
    let mut wire = Wire::connect(slow.address);
    // When each write was answered, and how long it took.
    let started = Instant::now();
    let mut answers = Vec::new();
    while info(&mut wire, "aof_delayed_fsync") == "0" {
        assert!(started.elapsed() < PATIENCE, "no fdatasync was slow");
        let asked = Instant::now();
        assert_eq!(wire.run("INCR counter"), Value::Integer(answers.len() as i64 + 1));
        answers.push((asked, asked.elapsed()));
        thread::sleep(Duration::from_millis(10));
    }
    wait_until("it is an event", || slow.errors().contains("kind=LogSyncSlow"));
    let held: Vec<_> = answers.iter().filter(|(_, took)| *took > Duration::from_millis(500)).collect();
    let [(asked, took)] = held[..] else { return Err(format!("of {} writes {} waited: {held:?}", answers.len(), held.len())) };
    // The disk was busy for two seconds before, and those who wrote then were answered.
    let ends = *asked + *took;
    let quick = answers.iter().filter(|(at, _)| at < asked && ends - *at < Duration::from_secs(4)).count();
    let is_expected = quick >= 10 && *took < Duration::from_millis(3_500);
    let said =
        || format!("{quick} writes were answered while the disk was busy for less than two seconds, then one took {took:?}");
    is_expected.then_some(()).ok_or_else(said)
}
