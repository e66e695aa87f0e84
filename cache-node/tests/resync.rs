//! A node that is started again goes on with the stream where its data stands, as a replica and as a primary.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use support::{
    Value, Wire,
    content::{assert_same, content, info},
    free_port,
    process::Binary,
    server::{Kind, Server},
    wait_until,
};
use tempfile::TempDir;

const SNAPSHOT: &[&str] = &["--save", "3600", "1"];
const LOG: &[&str] = &["--appendonly", "yes"];

fn node(folder: &Path, port: u16, more: &[&str]) -> Binary {
    let arguments = ["--port", &port.to_string(), "--dir", folder.to_str().unwrap()];
    Binary::start(&[&arguments[..], more].concat())
}

fn number(address: SocketAddr, field: &str) -> u64 {
    info(&mut Wire::connect(address), field).parse().unwrap()
}

fn wait_for_link(address: SocketAddr) {
    wait_until("the link is up", || info(&mut Wire::connect(address), "master_link_status") == "up");
}

/// Writes to several databases, alone and in transactions.
fn write(address: SocketAddr, round: usize) {
    let mut wire = Wire::connect(address);
    for line in [
        &format!("SET string:{round} {round}"),
        "INCR counter",
        "SELECT 3",
        "MULTI",
        "INCR counter",
        &format!("RPUSH list {round}"),
        "EXEC",
        "PUBLISH channel message",
        &format!("HSET hash field:{round} {round}"),
    ] {
        assert!(!matches!(wire.run(line), Value::Error(_)), "{line}");
    }
}

fn assert_converged(primary: SocketAddr, replica: SocketAddr) {
    wait_until("the offsets are the same", || number(primary, "master_repl_offset") == number(replica, "master_repl_offset"));
    assert_same("replica", &content(&mut Wire::connect(primary), 16), &content(&mut Wire::connect(replica), 16));
}

/// The longest time after which what expires while a replica is away is let expire.
const EXPIRES_IN_MAX: Duration = Duration::from_secs(48);

fn replica_goes_on(primary: Kind, kept: &[&str]) {
    let primary = Server::start(primary, &[]);
    let folder = TempDir::new().unwrap();
    let replicaof = ["--replicaof", "127.0.0.1", &primary.address().port().to_string()];
    let arguments = [&replicaof[..], kept].concat();
    let mut replica = node(folder.path(), 0, &arguments);
    wait_for_link(replica.address);
    if kept == LOG {
        wait_until("the log has begun anew", || number(replica.address, "aof_rewrites") == 1);
    }
    let mut returns = 0;
    for round in 0..3 {
        // What expires while it is away: its primary says what becomes of it.
        let mut expires_in = if round == 0 { Duration::from_secs(3) } else { Duration::from_secs(1_000) };
        let written = loop {
            write(primary.address(), round);
            let written = Instant::now();
            for key in ["kept", "gone"] {
                primary.wire().run(&format!("SET {key} {round} PX {}", expires_in.as_millis()));
            }
            assert_converged(primary.address(), replica.address);
            assert!(replica.end_by("TERM").success(), "{}", replica.errors());
            if primary.wire().run("PERSIST kept") == Value::Integer(1) {
                break written;
            }
            // On a busy machine its time was over before: once more, with a longer one.
            assert!(expires_in < EXPIRES_IN_MAX, "{expires_in:?} were over before the replica had ended");
            expires_in *= 4;
            replica = node(folder.path(), 0, &arguments);
            wait_for_link(replica.address);
            returns += 1;
        };
        write(primary.address(), 100 + round);
        if round == 0 {
            thread::sleep((expires_in + Duration::from_millis(50)).saturating_sub(written.elapsed()));
        }
        replica = node(folder.path(), 0, &arguments);
        wait_for_link(replica.address);
        assert_converged(primary.address(), replica.address);
        assert_eq!(Wire::connect(replica.address).run("MGET kept gone").elements()[0], Value::bulk(&round.to_string()));
        assert_eq!(primary.number("sync_full"), 1, "round {round}: {}", replica.errors());
    }
    returns += 3;
    assert_eq!(primary.number("sync_partial_ok"), returns);
    // Killed: a log says itself where it stands, a snapshot is not taken then.
    write(primary.address(), 200);
    drop(replica);
    write(primary.address(), 201);
    let replica = node(folder.path(), 0, &arguments);
    wait_for_link(replica.address);
    assert_converged(primary.address(), replica.address);
    if kept == LOG {
        assert_eq!((primary.number("sync_full"), primary.number("sync_partial_ok")), (1, returns + 1), "{}", replica.errors());
    }
}

#[test]
fn a_replica_goes_on_from_its_snapshot() {
    replica_goes_on(Kind::Node, SNAPSHOT);
    replica_goes_on(Kind::Valkey, SNAPSHOT);
}

#[test]
fn a_replica_goes_on_from_its_log() {
    replica_goes_on(Kind::Node, LOG);
    replica_goes_on(Kind::Redis, LOG);
}

/// Ends of a primary of which two are to bring everything to its replicas.
const ENDS_MAX: usize = 5;

fn primary_goes_on(kept: &[&str]) {
    let folder = TempDir::new().unwrap();
    let port = free_port();
    let mut primary = node(folder.path(), port, kept);
    let replicas = [Kind::Node, Kind::Redis, Kind::Valkey].map(|kind| Server::start(kind, &[]));
    for replica in &replicas {
        assert_eq!(replica.wire().run(&format!("REPLICAOF 127.0.0.1 {port}")), Value::ok());
        replica.wait_for_link();
    }
    let (mut rounds, mut tries) = (0, 0);
    while rounds < 2 {
        let round = tries;
        tries += 1;
        assert!(tries <= ENDS_MAX, "of {ENDS_MAX} ends only {rounds} brought everything to the replicas");
        write(primary.address, round);
        let mut wire = Wire::connect(primary.address);
        assert_eq!(wire.run("SET passing 1 PX 200"), Value::ok());
        assert_eq!(wire.run("WAIT 3 20000"), Value::Integer(3));
        let before = info(&mut wire, "master_replid");
        // Written last, and not waited for.
        let text = "x".repeat(200_000);
        (0..5).for_each(|number| wire.send(&["SET", &format!("last:{number}"), &text]));
        wire.send(&["SET", "the last", &round.to_string()]);
        (0..6).for_each(|_| assert_eq!(wire.read(), Value::ok()));
        assert!(primary.end_by("TERM").success(), "{}", primary.errors());
        // It waits a second for its replicas to have everything, which on a busy machine may not be enough.
        let last = Value::bulk(&round.to_string());
        let is_everywhere = replicas.iter().all(|replica| replica.wire().call(&["GET", "the last"]) == last);
        thread::sleep(Duration::from_millis(250));
        primary = node(folder.path(), port, kept);
        for replica in &replicas {
            replica.wait_for_link();
        }
        if is_everywhere {
            assert_eq!(info(&mut Wire::connect(primary.address), "master_replid2"), before);
        }
        write(primary.address, 100 + round);
        for replica in &replicas {
            assert_converged(primary.address, replica.address());
            // It expired while nobody was there to say so.
            assert_eq!(replica.wire().run("EXISTS passing"), Value::Integer(0));
        }
        if !is_everywhere {
            continue;
        }
        rounds += 1;
        assert_eq!(
            (number(primary.address, "sync_full"), number(primary.address, "sync_partial_ok")),
            (0, 3),
            "{}",
            primary.errors()
        );
    }
}

#[test]
fn the_replicas_of_a_primary_that_was_killed_go_on_from_its_log() {
    let folder = TempDir::new().unwrap();
    let port = free_port();
    let arguments = [LOG, &["--repl-ping-replica-period", "3600"]].concat();
    let primary = node(folder.path(), port, &arguments);
    let replica = Server::start(Kind::Node, &[]);
    assert_eq!(replica.wire().run(&format!("REPLICAOF 127.0.0.1 {port}")), Value::ok());
    replica.wait_for_link();
    write(primary.address, 1);
    assert_converged(primary.address, replica.address());
    drop(primary);
    let primary = node(folder.path(), port, &arguments);
    replica.wait_for_link();
    write(primary.address, 2);
    assert_converged(primary.address, replica.address());
    let syncs = (number(primary.address, "sync_full"), number(primary.address, "sync_partial_ok"));
    assert_eq!(syncs, (0, 1), "{}", primary.errors());
}

/// The stream goes on in the database that it has selected, and the next file of the log begins with that.
#[test]
fn a_rewritten_log_of_a_replica_goes_on_in_the_database_of_the_stream() {
    let primary = Server::start(Kind::Node, &[]);
    let folder = TempDir::new().unwrap();
    let replicaof = ["--replicaof", "127.0.0.1", &primary.address().port().to_string()];
    let arguments = [&replicaof[..], LOG].concat();
    let mut replica = node(folder.path(), 0, &arguments);
    wait_for_link(replica.address);
    wait_until("the log has begun anew", || number(replica.address, "aof_rewrites") == 1);
    let mut wire = primary.wire();
    assert_eq!(wire.run("SELECT 3"), Value::ok());
    assert_eq!(wire.run("SET before 1"), Value::ok());
    assert_converged(primary.address(), replica.address);
    Wire::connect(replica.address).run("BGREWRITEAOF");
    wait_until("it is rewritten", || number(replica.address, "aof_rewrites") == 2);
    assert_eq!(wire.run("SET behind 1"), Value::ok());
    assert_converged(primary.address(), replica.address);
    assert!(replica.end_by("TERM").success());
    let replica = node(folder.path(), 0, &arguments);
    wait_for_link(replica.address);
    assert_eq!(wire.run("SET last 1"), Value::ok());
    assert_converged(primary.address(), replica.address);
    assert_eq!(primary.number("sync_full"), 1);
    drop(replica);
    // To a real Redis where it stands is a comment.
    let manifest = folder.path().join("appendonlydir/appendonly.aof.manifest");
    let checked = Command::new("redis-check-aof").arg(&manifest).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let redis = Server::start(Kind::Redis, &[&["--dir", folder.path().to_str().unwrap()], LOG].concat());
    wait_until("it loads", || !redis.wire().run("PING").is_error("LOADING"));
    assert_same("redis-server", &content(&mut primary.wire(), 16), &content(&mut redis.wire(), 16));
}

/// Whatever it was doing, with and without a snapshot on its way: what it says of its log is true.
#[test]
fn a_replica_that_is_killed_at_any_moment_has_what_its_primary_has() {
    const ROUNDS: u64 = 8;
    let primary = Server::start(Kind::Node, &["--repl-backlog-size", "1mb"]);
    let folder = TempDir::new().unwrap();
    let replicaof = ["--replicaof", "127.0.0.1", &primary.address().port().to_string()];
    let small = ["--auto-aof-rewrite-min-size", "100kb", "--auto-aof-rewrite-percentage", "20"];
    let arguments = [&replicaof[..], LOG, &small].concat();
    let mut replica = node(folder.path(), 0, &arguments);
    for round in 0..ROUNDS {
        let is_forgotten = round % 3 == 2;
        let address = primary.address();
        let writer = thread::spawn(move || (0..60).for_each(|step| write(address, (round * 1_000 + step) as usize)));
        thread::sleep(Duration::from_millis(round * 37 % 150));
        drop(replica);
        writer.join().unwrap();
        if is_forgotten {
            let mut wire = primary.wire();
            let text = "x".repeat(100_000);
            (0..30).for_each(|number| drop(wire.call(&["SET", &format!("large:{}", number % 4), &text])));
        }
        replica = node(folder.path(), 0, &arguments);
        if !is_forgotten {
            wait_for_link(replica.address);
            assert_converged(primary.address(), replica.address);
        }
    }
    wait_for_link(replica.address);
    assert_converged(primary.address(), replica.address);
    assert!(primary.number("sync_partial_ok") > 0, "{}", replica.errors());
}

#[test]
fn the_replicas_of_a_primary_go_on_from_its_snapshot() {
    primary_goes_on(SNAPSHOT);
}

#[test]
fn the_replicas_of_a_primary_go_on_from_its_log() {
    primary_goes_on(LOG);
}

/// A primary that is started again as a replica of the one that was promoted meanwhile.
#[test]
fn a_former_primary_goes_on_as_a_replica() {
    for kept in [SNAPSHOT, LOG] {
        let folder = TempDir::new().unwrap();
        let mut old = node(folder.path(), 0, kept);
        let new = Server::start(Kind::Node, &[]);
        assert_eq!(new.wire().run(&format!("REPLICAOF 127.0.0.1 {}", old.address.port())), Value::ok());
        new.wait_for_link();
        write(old.address, 1);
        assert_converged(old.address, new.address());
        assert!(old.end_by("TERM").success(), "{}", old.errors());
        assert_eq!(new.wire().run("REPLICAOF NO ONE"), Value::ok());
        write(new.address(), 2);
        let replicaof = ["--replicaof", "127.0.0.1", &new.address().port().to_string()];
        let old = node(folder.path(), 0, &[&replicaof[..], kept].concat());
        wait_for_link(old.address);
        assert_converged(new.address(), old.address);
        assert_eq!((new.number("sync_full"), new.number("sync_partial_ok")), (0, 1), "{}", old.errors());
    }
}

/// What a log says of where it stands holds for its very end.
#[test]
fn a_log_that_went_on_without_its_stream_is_not_gone_on_with() {
    let primary = Server::start(Kind::Node, &[]);
    let folder = TempDir::new().unwrap();
    let replicaof = ["--replicaof", "127.0.0.1", &primary.address().port().to_string()];
    let arguments = [&replicaof[..], LOG].concat();
    let mut replica = node(folder.path(), 0, &arguments);
    wait_for_link(replica.address);
    wait_until("the log has begun anew", || number(replica.address, "aof_rewrites") == 1);
    write(primary.address(), 1);
    assert_converged(primary.address(), replica.address);
    assert!(replica.end_by("TERM").success(), "{}", replica.errors());
    let log = folder.path().join("appendonlydir");
    let increments = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let increment = increments.filter(|path| path.to_str().unwrap().ends_with(".incr.aof")).max().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(increment).unwrap();
    file.write_all(&support::wire::encode(&["SET", "alone", "1"])).unwrap();
    let replica = node(folder.path(), 0, &arguments);
    wait_for_link(replica.address);
    assert_converged(primary.address(), replica.address);
    assert_eq!(primary.number("sync_full"), 2);
    assert_eq!(Wire::connect(replica.address).run("EXISTS alone"), Value::Integer(0));
}

/// A replica that begins with a copy of a snapshot is spared another one, whichever server wrote it and whichever reads it.
#[test]
fn a_copied_snapshot_is_gone_on_with_by_either_server() {
    for (wrote, reads) in [
        (Kind::Node, Kind::Redis),
        (Kind::Node, Kind::Valkey),
        (Kind::Redis, Kind::Node),
        (Kind::Valkey, Kind::Node),
        (Kind::Node, Kind::Node),
    ] {
        let kept = TempDir::new().unwrap();
        let primary = Server::start(wrote, &["--dir", kept.path().to_str().unwrap()]);
        // The stream begins with the first one who follows it.
        let first = Server::start(Kind::Node, &[]);
        first.follow(&primary);
        first.wait_for_link();
        write(primary.address(), 1);
        // The snapshot that was sent may be just ending.
        wait_until("it is saved", || primary.wire().run("SAVE") == Value::ok());
        write(primary.address(), 2);
        let folder = TempDir::new().unwrap();
        fs::copy(kept.path().join("dump.rdb"), folder.path().join("dump.rdb")).unwrap();
        let port = primary.address().port().to_string();
        let replica = Server::start(reads, &["--dir", folder.path().to_str().unwrap(), "--replicaof", "127.0.0.1", &port]);
        replica.wait_for_link();
        write(primary.address(), 3);
        assert_converged(primary.address(), replica.address());
        assert_eq!((primary.number("sync_full"), primary.number("sync_partial_ok")), (1, 1), "{wrote:?} {reads:?}");
    }
}
