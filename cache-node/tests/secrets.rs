//! What a node writes for people and for Prometheus: a form that can be read by programs, and no secret in it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    process::Stdio,
    thread,
};

use serde_json::Value as Json;
use support::{RedisServer, Value, Wire, http, process::Binary, wait_until};

/// Every secret of this test has it in its name.
const MARK: &str = "s3cr3t";

fn text(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Everything that a client of any kind says with a secret in it.
fn say_secrets(wire: &mut Wire) {
    for line in [
        "AUTH s3cr3t-wrong",
        "AUTH default s3cr3t-wrong",
        "AUTH s3cr3t-user s3cr3t-wrong",
        "HELLO 3 AUTH default s3cr3t-wrong",
        "HELLO 3 AUTH s3cr3t-half",
        "AUTH s3cr3t-one",
        "CONFIG SET masterauth s3cr3t-two",
        "CONFIG SET requirepass s3cr3t-three masterauth s3cr3t-four",
        "CONFIG SET requirepass s3cr3t-three nosuchdirective s3cr3t-five",
        "CONFIG SET masteruser s3cr3t-replicator",
        "ACL SETUSER s3cr3t-person on >s3cr3t-password ~* +@all",
        "SET session:s3cr3t-id s3cr3t-value EX 100",
        "HSET session:s3cr3t-id field",
        "NOSUCHCOMMAND s3cr3t-argument",
        "GET session:s3cr3t-id s3cr3t-extra",
        "EVAL \"return redis.call('SET', KEYS[1], ARGV[1])\" 1 s3cr3t-key s3cr3t-argument",
        "EVAL \"return redis.error_reply('ERR no s3cr3t-error')\" 0",
        "EVAL \"syntax s3cr3t-source\" 0",
        "MIGRATE 127.0.0.1 1 s3cr3t-key 0 100 AUTH2 s3cr3t-user s3cr3t-password",
        "REPLICAOF s3cr3t-host notaport",
    ] {
        wire.run(line);
    }
    wire.send_raw(b"*2\r\n$3\r\nGET\r\n$-9\r\ns3cr3t-torn\r\n");
}

#[test]
fn log_lines_are_json_and_hold_no_secret() {
    let primary = RedisServer::start_with(&["--dir", "/tmp", "--requirepass", "another"]);
    let port = primary.address.port().to_string();
    let mut node = Binary::start(&[
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--loglevel",
        "debug",
        "--log-format",
        "json",
        "--requirepass",
        "s3cr3t-one",
        "--masterauth",
        "s3cr3t-two",
        "--replicaof",
        "127.0.0.1",
        &port,
    ]);
    say_secrets(&mut Wire::connect(node.address));
    let mut wire = Wire::connect(node.address);
    assert_eq!(wire.run("AUTH s3cr3t-three"), Value::Simple("OK".into()));
    // The primary refuses its password, and that is logged.
    wait_until("the refusal is logged", || node.errors().contains("AUTH with masterauth"));
    let metrics: u16 = text(&wire.run("INFO server"))
        .lines()
        .find_map(|line| line.strip_prefix("metrics_port:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let figures = http::get(SocketAddr::from(([127, 0, 0, 1], metrics)), "/metrics", &[]).body;
    assert!(figures.contains("cache_node_auth_failures_total"));
    wire.run("SLOWLOG GET 128");
    for shown in [&figures, &text(&wire.run("INFO everything")), &text(&wire.run("CLIENT LIST"))] {
        assert!(!shown.contains(MARK), "{shown}");
    }
    assert!(node.end_by("TERM").success());
    wait_until("the end is logged", || node.errors().contains("SIGTERM: ending"));
    let log = node.errors();
    assert!(!log.contains(MARK), "{log}");
    for line in log.lines() {
        let line: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string(), "{line}");
    }
    let refusal = log.lines().find(|line| line.contains("AUTH with masterauth")).unwrap();
    let refusal: Json = serde_json::from_str(refusal).unwrap();
    assert_eq!((&refusal["level"], &refusal["message"]), (&"WARN".into(), &"the link to the primary is down".into()));
    assert!(refusal["error"].as_str().unwrap().contains("WRONGPASS"), "fields are fields: {refusal}");
}

#[test]
fn a_primary_that_repeats_what_it_was_sent_does_not_bring_the_password_into_the_log() {
    // Not a Redis at all: it answers every request with the request.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(length @ 1..) = std::io::Read::read(&mut stream, &mut chunk) {
                    let said = String::from_utf8_lossy(&chunk[..length]).replace("\r\n", " ");
                    let answer =
                        if said.contains("PING") { "+PONG\r\n".to_owned() } else { format!("-ERR unknown command: {said}\r\n") };
                    if std::io::Write::write_all(&mut stream, answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let node = Binary::start(&["--port", "0", "--masterauth", "s3cr3t-two", "--replicaof", "127.0.0.1", &port]);
    wait_until("the refusal is logged", || node.errors().contains("unknown command"));
    let log = node.errors();
    assert!(!log.contains(MARK) && log.contains("(hidden)"), "{log}");
}

#[test]
fn what_is_wrong_with_a_secret_is_told_without_it() {
    for arguments in [
        &["--requirepass", "s3cr3t-a", "--requirepass", "s3cr3t-b", "--port", "x"][..],
        &["--masterauth", "s3cr3t", "--port", "x"],
    ] {
        let (status, out, error) = Binary::run(arguments);
        assert!(!status.success() && !error.contains(MARK) && !out.contains(MARK), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.conf");
    std::fs::write(&file, "requirepass s3cr3t and more\n").unwrap();
    let (status, _, error) = Binary::run(&[file.to_str().unwrap()]);
    assert!(!status.success() && error.contains("line 1") && error.contains("requirepass") && !error.contains(MARK), "{error}");
    let (status, _, error) = Binary::run(&["--log-format", "xml"]);
    assert!(!status.success() && error.contains("text or json"), "{error}");
}

#[test]
fn the_level_can_be_changed_while_the_node_runs() {
    let node = Binary::start(&["--port", "0", "--loglevel", "warning"]);
    let mut wire = Wire::connect(node.address);
    let follow = |wire: &mut Wire, port: u16| {
        wire.run(&format!("REPLICAOF 127.0.0.1 {port}"));
        wire.run("REPLICAOF NO ONE");
    };
    follow(&mut wire, 1);
    assert_eq!(wire.run("CONFIG SET loglevel notice"), Value::Simple("OK".into()));
    follow(&mut wire, 2);
    wait_until("it is logged", || node.errors().contains("following a primary"));
    assert_eq!(node.errors().matches("following a primary").count(), 1, "{}", node.errors());
    assert!(node.errors().contains("port=2"));
}

#[test]
fn a_cluster_logs_in_the_same_form() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("cluster");
    let mut controller = Binary::command()
        .args(["cluster", "--replicas", "0", "--port", "0", "--reader-port", "0", "--sentinel-port", "0", "--http-port", "0"])
        .args(["--log-format", "json", "--with-parent", "--dir"])
        .arg(&place)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let log = place.join("node-1/node.log");
    let mut ready = String::new();
    BufReader::new(controller.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.contains("ready on"), "{ready}");
    drop(controller.stdin.take());
    let output = controller.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stderr).unwrap() + &std::fs::read_to_string(&log).unwrap();
    assert!(lines.contains("the replicas end, then the primary") && lines.contains("metrics at"), "{lines}");
    for line in lines.lines().filter(|line| !line.starts_with("cache-node ready")) {
        assert!(serde_json::from_str::<Json>(line).is_ok(), "{line}");
    }
}
