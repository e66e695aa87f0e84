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
        "SET session:1 s3cr3t-value EX 100",
        "HSET session:1 field",
        "NOSUCHCOMMAND s3cr3t-argument",
        "GET session:1 s3cr3t-extra",
        "EVAL \"return redis.call('SET', KEYS[1], ARGV[1])\" 1 key s3cr3t-argument",
        "EVAL \"return redis.error_reply('ERR no s3cr3t-error')\" 0",
        "EVAL \"syntax s3cr3t-source\" 0",
        "MIGRATE 127.0.0.1 1 key 0 100 AUTH2 s3cr3t-user s3cr3t-password",
        "REPLICAOF s3cr3t-host notaport",
    ] {
        wire.run(line);
    }
    wire.send_raw(b"*2\r\n$3\r\nGET\r\n$-9\r\ns3cr3t-torn\r\n");
}

#[test]
fn log_lines_are_json_and_hold_no_secret() {
    let primary = RedisServer::start_with(&["--requirepass", "another"]);
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
        "--slowlog-log-slower-than",
        "0",
        "--slowlog-max-len",
        "1000",
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
    let slow = format!("{:?}", wire.run("SLOWLOG GET -1"));
    assert!(slow.contains("(redacted)"));
    for shown in [&figures, &text(&wire.run("INFO everything")), &text(&wire.run("CLIENT LIST")), &slow] {
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
    assert_eq!((&refusal["level"], &refusal["kind"]), (&"WARN".into(), &"PrimaryLinkLost".into()), "fields are fields");
    let message = refusal["message"].as_str().unwrap();
    assert!(message.starts_with("the link to the primary 127.0.0.1:") && message.contains("WRONGPASS"), "{refusal}");
}

/// The arguments of the latest slow requests, the newest first.
fn slow_requests(wire: &mut Wire) -> Vec<Vec<String>> {
    let Value::Array(requests) = wire.run("SLOWLOG GET -1") else { panic!("SLOWLOG GET answers an array") };
    let arguments = requests.iter().map(|request| {
        let Value::Array(parts) = request else { panic!("{request:?}") };
        assert!(matches!(parts[..2], [Value::Integer(_), Value::Integer(1_700_000_000..)]), "{parts:?}");
        let Value::Array(arguments) = &parts[3] else { panic!("{parts:?}") };
        arguments.iter().map(text).collect()
    });
    arguments.collect()
}

#[test]
fn the_slow_log_shows_commands_and_keys_and_on_demand_values_but_never_passwords() {
    let node = Binary::start(&["--port", "0", "--slowlog-log-slower-than", "0", "--slowlog-max-len", "4"]);
    let mut wire = Wire::connect(node.address);
    wire.run("CLIENT SETNAME shop");
    wire.run("SET session:1 value EX 100");
    wire.run("MSET a 1 b 2");
    assert_eq!(
        slow_requests(&mut wire)[..2],
        [words("MSET a (redacted) b (redacted)"), words("SET session:1 (redacted) (redacted) (redacted)")]
    );
    let Value::Array(requests) = wire.run("SLOWLOG GET 1") else { panic!("an array") };
    let Value::Array(parts) = &requests[0] else { panic!("{requests:?}") };
    assert!(parts.len() == 6 && text(&parts[4]).starts_with("127.0.0.1:") && text(&parts[5]) == "shop", "{parts:?}");
    // Pipelined, in a transaction, in a script: what the client sent is there.
    wire.run("SLOWLOG RESET");
    wire.send_raw(b"SET p 1\r\nMULTI\r\nSET t 1\r\nEXEC\r\n");
    (0..4).for_each(|_| drop(wire.read()));
    wire.run("EVAL \"return redis.call('SET', KEYS[1], 1)\" 1 inside");
    let slow: Vec<String> = slow_requests(&mut wire).iter().map(|arguments| arguments.join(" ")).collect();
    assert_eq!(slow[..3], ["EVAL (redacted) (redacted) inside", "SET t (redacted)", "MULTI"]);
    assert_eq!(wire.run("SLOWLOG LEN"), Value::Integer(4));

    wire.run("CONFIG SET slowlog-redact-arguments no");
    wire.run(&format!("SET k {}", "v".repeat(200)));
    wire.run(&format!("DEL {}", "k ".repeat(40).trim_end()));
    wire.run("CONFIG SET requirepass s3cr3t");
    wire.run("AUTH s3cr3t");
    let slow = slow_requests(&mut wire);
    assert_eq!(slow[0], words("AUTH (redacted)"));
    assert_eq!(slow[1], words("CONFIG SET (redacted) (redacted)"));
    assert!(slow[2].len() == 32 && slow[2][31] == "... (10 more arguments)", "{:?}", slow[2]);
    assert_eq!(slow[3][2], "v".repeat(128) + "... (72 more bytes)");

    wire.run("CONFIG SET slowlog-log-slower-than -1");
    wire.run("SLOWLOG RESET");
    wire.run("SET k v");
    assert_eq!(wire.run("SLOWLOG GET"), Value::Array(vec![]));
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
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
    assert!(node.errors().contains("127.0.0.1:2"));
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
