//! Commands to a running cluster: what they do, and what they say.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{
    Cluster, PATIENCE, Value, Wire,
    cluster::is_running,
    wait_until,
    writers::{Acknowledged, Writers},
};

/// For tests of other things than a node that hangs: on a busy machine none is taken for that.
const PATIENT: [&str; 2] = ["--down-after", "60000"];

/// A controller that waits for a replica that hangs does nothing else for longer than this.
const BLIND_MAX: Duration = Duration::from_secs(10);

/// Runs `cache-node cluster NAME …` in the cluster's folder.
fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    command(cluster, arguments).output().unwrap()
}

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cache-node"));
    command.args(["cluster", arguments[0], "--dir"]).arg(cluster.folder()).args(&arguments[1..]);
    command
}

fn succeed(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn fail(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(!output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_planned_failover_loses_nothing_even_without_waiting_for_replicas() {
    let cluster = Cluster::start(&PATIENT);
    cluster.wait_whole();
    let before = cluster.node("primary");
    let writers = Writers::start(cluster.primary, 4, 400, Acknowledged::ByOk);
    thread::sleep(Duration::from_millis(300));
    let said = succeed(&cluster, &["failover"]);
    thread::sleep(Duration::from_millis(300));
    let written = writers.end();
    let after = cluster.node("primary");
    assert_ne!(after.name, before.name);
    assert_eq!(said, format!("{} is the primary in place of {}\n", after.name, before.name));
    assert_eq!(written.lost(cluster.primary), Vec::<String>::new());
    cluster.wait_whole();

    let page = succeed(&cluster, &["status"]);
    assert!(page.starts_with("mymaster takes writes (durability async, epoch 1)"), "{page}");
    assert!(page.contains(&format!("redis://{}", cluster.primary)) && page.matches(" serving ").count() == 3, "{page}");
    let events = succeed(&cluster, &["events"]);
    assert!(events.contains("FailoverComplete"), "{events}");
}

#[test]
fn a_failover_without_a_replica_changes_nothing() {
    let cluster = Cluster::start(&["--replicas", "0"]);
    let before = cluster.node("primary");
    assert!(fail(&cluster, &["failover"]).contains("nothing was done"));
    assert_eq!(cluster.node("primary").pid, before.pid);
    assert!(fail(&cluster, &["rolling-restart"]).contains("cluster add-replica"));
    assert!(fail(&cluster, &["remove-replica"]).contains("no replica"));
    assert_eq!(cluster.connect().run("SET cart mugs"), Value::ok(), "writes go on");
}

#[test]
fn a_planned_failover_that_breaks_off_gives_the_writes_back() {
    // Longer than the test: nobody is taken for hung in it.
    let mut cluster = Cluster::start(&["--replicas", "1", "--down-after", "60000"]);
    cluster.wait_whole();
    let (primary, replica) = (cluster.node("primary"), cluster.node("replica"));
    // Who writes waits, and is answered when it is over.
    let is_held = |address| {
        let mut wire = Wire::connect(address);
        wire.send(&["SET", "cart", "mugs"]);
        wire.is_silent(Duration::from_millis(300))
    };
    let fail_over =
        |cluster: &Cluster| command(cluster, &["failover"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let takes_writes = |address| Wire::connect(address).run("SET cart mugs") == Value::ok();

    // A replica that says nothing keeps the failover waiting.
    replica.signal("STOP");
    let mut broken_off = fail_over(&cluster);
    wait_until("writes held back", || is_held(primary.address));
    primary.signal("STOP");
    assert!(!broken_off.wait().unwrap().success());
    primary.signal("CONT");
    wait_until("writes after the failover that broke off", || takes_writes(primary.address));

    let mut orphan = fail_over(&cluster);
    wait_until("writes held back again", || is_held(primary.address));
    cluster.kill_controller();
    assert!(!orphan.wait().unwrap().success());
    replica.signal("CONT");
    // Also where nobody takes the hold back: it ends by itself.
    wait_until("writes without a controller", || takes_writes(primary.address));
    cluster.start_controller();
    wait_until("writes under the next controller", || takes_writes(primary.address));
    assert_eq!(cluster.node("primary").pid, primary.pid, "nothing was done");
}

#[test]
fn a_minimum_of_replicas_that_the_operator_wants_outlives_a_failover_that_is_given_up() {
    let cluster = Cluster::start(&["--replicas", "0", "--", "--min-replicas-to-write", "1", "--min-replicas-max-lag", "10"]);
    let mut primary = Wire::connect(cluster.node("primary").address);
    assert!(fail(&cluster, &["failover"]).contains("nothing was done"));
    assert_eq!(primary.run("CONFIG GET min-replicas-to-write").elements()[1], Value::bulk("1"));
}

#[test]
fn a_sentinels_failover_waits_for_no_command_and_runs_in_none() {
    let cluster = Cluster::start(&["--replicas", "1", "--down-after", "60000"]);
    cluster.wait_whole();
    let primary = cluster.node("primary");
    // Nobody can copy from it, so that the command lasts.
    primary.signal("STOP");
    let addition = command(&cluster, &["add-replica"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the new replica", || cluster.nodes().len() == 3);
    let mut sentinel = Wire::connect(cluster.sentinel);
    let refused = sentinel.run("SENTINEL failover mymaster");
    assert!(refused.is_error("INPROG"), "{refused:?}");
    primary.signal("CONT");
    assert!(addition.wait_with_output().unwrap().status.success());
    cluster.wait_whole();
    assert_eq!(sentinel.run("SENTINEL failover mymaster"), Value::ok());
}

#[test]
fn replicas_come_and_go() {
    let cluster = Cluster::start(&[&["--replicas", "1"], &PATIENT[..]].concat());
    assert_eq!(cluster.connect().run("SET cart mugs"), Value::ok());
    assert!(succeed(&cluster, &["add-replica"]).contains("node-3 follows"));
    cluster.wait_whole();
    let added = cluster.nodes().into_iter().find(|node| node.name == "node-3").unwrap();
    assert_eq!(Wire::connect(added.address).run("GET cart"), Value::bulk("mugs"));
    let primary = cluster.node("primary").name;
    assert!(fail(&cluster, &["remove-replica", &primary]).contains("is the primary"));
    assert!(fail(&cluster, &["remove-replica", "node-9"]).contains("node-1, node-2, node-3"));
    succeed(&cluster, &["remove-replica", "node-2"]);
    let names: Vec<String> = cluster.nodes().into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["node-1", "node-3"]);
    assert!(!cluster.folder().join("node-2").exists());
}

#[test]
fn a_replica_that_hangs_is_removed_and_the_controller_sees_the_others_meanwhile() {
    let cluster = Cluster::start(&["--down-after", "60000"]);
    cluster.wait_whole();
    let hung = cluster.nodes().into_iter().find(|node| node.name == "node-3").unwrap();
    hung.signal("STOP");
    let removal = command(&cluster, &["remove-replica", "node-3"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the removal has begun", || cluster.recorded_pids().len() == 2);
    let faulted = Instant::now();
    cluster.node("primary").signal("KILL");
    wait_until("a failover", || cluster.count("FailoverComplete") == 1);
    assert!(faulted.elapsed() < BLIND_MAX, "the controller was blind for {:?}", faulted.elapsed());
    assert!(removal.wait_with_output().unwrap().status.success());
    assert!(!is_running(hung.pid.unwrap()) && !cluster.folder().join("node-3").exists());
}

#[test]
fn a_rolling_restart_under_writes_loses_none_of_them() {
    let cluster = Cluster::start(&PATIENT);
    cluster.wait_whole();
    let before = cluster.recorded_pids();
    let writers = Writers::start(cluster.primary, 4, 200, Acknowledged::ByWait);
    assert!(succeed(&cluster, &["rolling-restart"]).contains("every node was restarted"));
    let written = writers.end();
    assert_eq!(written.lost(cluster.primary), Vec::<String>::new());
    let after = cluster.recorded_pids();
    assert!(after.len() == 3 && !after.iter().any(|pid| before.contains(pid)), "{before:?} {after:?}");
}

#[test]
fn a_snapshot_is_taken_and_restored_and_a_broken_one_changes_nothing() {
    let cluster = Cluster::start(&["--replicas", "1"]);
    cluster.wait_whole();
    let mut wire = cluster.connect();
    assert_eq!(wire.run("SET cart mugs"), Value::ok());
    assert_eq!(wire.run("WAIT 1 20000"), Value::Integer(1));
    let said = succeed(&cluster, &["backup", "--keep", "2"]);
    let snapshot = said.trim_end().split(' ').next_back().unwrap().to_owned();
    for _ in 0..2 {
        succeed(&cluster, &["backup", "--keep", "2"]);
    }
    assert_eq!(std::fs::read_dir(cluster.folder().join("backups")).unwrap().count(), 2, "the oldest went");
    assert!(!std::path::Path::new(&snapshot).exists());
    let kept = std::fs::read_dir(cluster.folder().join("backups")).unwrap().next().unwrap().unwrap().path();

    assert_eq!(wire.run("SET cart changed"), Value::ok());
    assert_eq!(wire.run("SET later 1"), Value::ok());
    let text = cluster.folder().join("note.rdb");
    std::fs::write(&text, "no snapshot").unwrap();
    assert!(fail(&cluster, &["restore", text.to_str().unwrap()]).contains("not a snapshot"));
    let mut broken = std::fs::read(&kept).unwrap();
    let middle = broken.len() / 2;
    broken[middle..].fill(0xee);
    std::fs::write(&text, broken).unwrap();
    assert!(fail(&cluster, &["restore", text.to_str().unwrap()]).contains("nothing was changed"));
    assert_eq!(cluster.connect().run("GET cart"), Value::bulk("changed"));

    succeed(&cluster, &["restore", kept.to_str().unwrap()]);
    assert!(wire.is_closed(), "what a client had seen is no longer so");
    assert_eq!(cluster.connect().run("GET cart"), Value::bulk("mugs"));
    assert_eq!(cluster.connect().run("EXISTS later"), Value::Integer(0));
    cluster.wait_whole();
    assert_eq!(Wire::connect(cluster.node("replica").address).run("GET cart"), Value::bulk("mugs"));
    assert_eq!(cluster.connect().run("SET cart again"), Value::ok());
}

/// How often it is tried to kill the node that is copied from while it is copied from.
const RESTORES_MAX: usize = 5;

/// The processes that were started with this word among their arguments.
fn processes_with(word: &str) -> Vec<u32> {
    let found = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    });
    found.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect()
}

/// Restores, and kills the node that is copied from in the middle. On a busy machine it may be through before: then all is as in the snapshot.
fn is_broken_off(cluster: &Cluster, snapshot: &str) -> bool {
    cluster.wait_whole();
    let mut wire = cluster.connect();
    assert_eq!(wire.run("SET cart mugs"), Value::ok());
    assert_eq!(wire.run("WAIT 1 20000"), Value::Integer(1));
    let primary = cluster.node("primary").address;
    let mut command = command(cluster, &["restore", snapshot]);
    let restoring = thread::spawn(move || command.output().unwrap());
    // The primary may end its connections when it has the data.
    let mut node = Wire::connect(primary);
    wait_until("it copies", || {
        drop(node.stream.write_all(b"INFO replication\r\n"));
        let is_copying = node.try_read().is_ok_and(|reply| reply.text().contains("master_sync_in_progress:1"));
        if !is_copying && !restoring.is_finished() {
            node = Wire::connect(primary);
        }
        is_copying || restoring.is_finished()
    });
    let folder = cluster.folder().join("restore");
    for source in processes_with(folder.to_str().unwrap()) {
        support::cluster::signal("KILL", source);
    }
    !restoring.join().unwrap().status.success()
}

#[test]
fn a_restore_that_fails_while_the_data_is_copied_leaves_the_old_data() {
    for arguments in [&["--replicas", "1"][..], &["--replicas", "1", "--durability", "none"]] {
        let cluster = Cluster::start(arguments);
        cluster.wait_whole();
        let mut wire = cluster.connect();
        let value = "m".repeat(2_000);
        for _ in 0..60 {
            (0..500)
                .for_each(|_| wire.send(&["EVAL", "redis.call('SET', redis.call('INCR', KEYS[1]), ARGV[1])", "1", "n", &value]));
            (0..500).for_each(|_| drop(wire.read()));
        }
        let said = succeed(&cluster, &["backup"]);
        let snapshot = said.trim_end().split(' ').next_back().unwrap().to_owned();
        assert!((0..RESTORES_MAX).any(|_| is_broken_off(&cluster, &snapshot)), "it was copied before the other node was killed");
        cluster.wait_whole();
        wait_until("the old data", || {
            let mut wire = cluster.connect();
            wire.run("GET cart") == Value::bulk("mugs") && wire.run("DBSIZE") == Value::Integer(30_002)
        });
        assert_eq!(cluster.connect().run("SET cart again"), Value::ok());
        assert_eq!(cluster.connect().run("WAIT 1 20000"), Value::Integer(1));
    }
}

/// The process that a restore has started, once it runs: it works in the folder of the restore and is named by it, or by its address.
fn source_of(cluster: &Cluster) -> u32 {
    let folder = cluster.folder().join("restore");
    let is_source = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path == folder)
            && (line.contains(folder.to_str().unwrap()) || line.contains("127.0.0.1:"))
    };
    let mut found = None;
    wait_until("a node for the file", || {
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        found = pids.into_iter().find(is_source);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_controller_that_ends_while_it_restores_leaves_no_process_of_it() {
    const ARGUMENTS: [&str; 4] = ["--replicas", "1", "--down-after", "60000"];
    for mut cluster in [Cluster::start(&ARGUMENTS), Cluster::start_redis(&ARGUMENTS)] {
        cluster.wait_whole();
        assert_eq!(cluster.connect().run("SET cart mugs"), Value::ok());
        let said = succeed(&cluster, &["backup"]);
        let snapshot = said.trim_end().split(' ').next_back().unwrap().to_owned();
        for is_killed in [true, false] {
            // The restore waits for it.
            let replica = cluster.node("replica");
            replica.signal("STOP");
            let mut restoring = command(&cluster, &["restore", &snapshot]).stderr(Stdio::null()).spawn().unwrap();
            let source = source_of(&cluster);
            if is_killed {
                cluster.kill_controller();
                assert!(is_running(source), "nothing to be found");
                cluster.start_controller();
            } else {
                replica.signal("KILL");
                assert!(cluster.terminate().success());
            }
            assert!(!restoring.wait().unwrap().success());
            wait_until("the node for the file has ended", || !is_running(source));
            replica.signal("CONT");
            if is_killed {
                assert!(!cluster.folder().join("restore").exists());
                cluster.wait_whole();
                assert_eq!(cluster.connect().run("GET cart"), Value::bulk("mugs"));
            }
        }
    }
}

#[test]
fn an_encrypted_snapshot_is_restored_whole_whatever_the_limit_of_memory() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    std::fs::write(&key, "5a".repeat(32)).unwrap();
    let file = keys.path().join("node.conf");
    let directives = format!("encryption-key-file {}\nmaxmemory 1mb\nmaxmemory-policy allkeys-lru\n", key.display());
    std::fs::write(&file, directives).unwrap();
    let cluster = Cluster::start(&["--replicas", "0", "--", file.to_str().unwrap()]);
    let mut wire = cluster.connect();
    assert_eq!(wire.run("CONFIG SET maxmemory 0"), Value::ok());
    let value = "m".repeat(1024);
    for number in 0..4096 {
        wire.send(&["SET", &format!("cart:{number}"), &value]);
    }
    assert!((0..4096).all(|_| wire.read() == Value::ok()));
    let said = succeed(&cluster, &["backup"]);
    let snapshot = said.trim_end().split(' ').next_back().unwrap();
    assert!(std::fs::read(snapshot).unwrap().starts_with(b"CNSEAL"));
    assert_eq!(wire.run("FLUSHALL"), Value::ok());
    succeed(&cluster, &["restore", snapshot]);
    assert_eq!(cluster.connect().run("DBSIZE"), Value::Integer(4096));
}

#[test]
fn memory_is_scaled_on_every_node_and_stays_so() {
    let cluster = Cluster::start(&[&["--replicas", "1", "--maxmemory", "32mb"], &PATIENT[..]].concat());
    cluster.wait_whole();
    let sizes = || -> Vec<String> {
        let size = |address| Wire::connect(address).run("CONFIG GET maxmemory").elements()[1].text();
        cluster.nodes().iter().map(|node| size(node.address)).collect()
    };
    let (small, large) = ((32 << 20).to_string(), (64 << 20).to_string());
    assert_eq!(sizes(), [small.clone(), small]);
    succeed(&cluster, &["scale-memory", "64mb"]);
    assert_eq!(sizes(), [large.clone(), large.clone()]);
    assert!(fail(&cluster, &["scale-memory", "much"]).contains("256mb"));
    let replica = cluster.node("replica");
    replica.signal("KILL");
    wait_until("the replacement", || cluster.node("replica").pid != replica.pid);
    cluster.wait_whole();
    assert_eq!(sizes(), [large.clone(), large]);
}

#[test]
fn commands_need_the_folders_token_and_a_controller() {
    let mut cluster = Cluster::start(&["--replicas", "0"]);
    let post = |header: &str| {
        let mut stream = TcpStream::connect(cluster.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = "{\"command\":\"failover\"}";
        let request = format!(
            "POST /v1/commands HTTP/1.1\r\nHost: cluster\r\nConnection: close\r\n{header}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // In one piece: whoever is refused by the head may find nobody who takes the rest.
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(post("").starts_with("HTTP/1.1 401 "));
    assert!(post("Authorization: Bearer 00\r\n").starts_with("HTTP/1.1 401 "));
    let token = std::fs::read_to_string(cluster.folder().join("control.token")).unwrap();
    assert!(post(&format!("Authorization: Bearer {token}\r\n")).contains("nothing was done"));

    let start = format!("cache-node cluster --dir {}\n", cluster.folder().display());
    cluster.kill_controller();
    let said = fail(&cluster, &["status"]);
    assert!(said.contains("no controller answers") && said.contains("1 of its 1 nodes run on"), "{said}");
    assert!(said.ends_with(&start), "{said}");
    cluster.start_controller();
    assert!(cluster.terminate().success());
    let said = fail(&cluster, &["status"]);
    assert!(said.contains("none of its nodes runs") && said.ends_with(&start), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_cache-node"));
    let output = { output }.args(["cluster", "status", "--dir", "/nowhere/at/all"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no cluster in /nowhere/at/all"), "{output:?}");
}
