//! `/metrics`, `/healthz` and `/readyz` of a node: their form, that INFO says the same, and that a bad reader keeps nobody waiting.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use support::{Value, Wire, http, process::Binary, wait_until, watched};

const PAGE: &str = include_str!("../watching/metrics.md");
const OPEN_METRICS: &str = "Accept: application/openmetrics-text; version=1.0.0";

/// Values by series, as `name{labels}` is written, with the labels in order.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let parts = lines.map(|line| line.rsplit_once(' ').unwrap());
    parts.map(|(name, value)| (in_order(name), value.parse().unwrap())).collect()
}

fn in_order(name: &str) -> String {
    let Some((name, labels)) = name.split_once('{') else { return name.to_owned() };
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let answer = http::get(address, "/metrics", &[OPEN_METRICS]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    series(&answer.body)
}

/// INFO's fields as numbers; words stand for 1 and 0.
fn info(wire: &mut Wire) -> BTreeMap<String, f64> {
    let Value::Bulk(text) = wire.run("INFO everything") else { panic!("INFO is a text") };
    let text = String::from_utf8(text).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter_map(|(name, value)| {
            let number = match value {
                "ok" | "up" | "master" => 1.0,
                "err" | "down" | "slave" => 0.0,
                other => other.parse().ok()?,
            };
            Some((name.to_owned(), number))
        })
        .collect()
}

/// The rows of the page with a name in INFO: series and fields.
fn agreed() -> Vec<(&'static str, Vec<&'static str>)> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split_once("` | `"));
    let rows = rows.filter(|(name, _)| name.starts_with("cache_node_") || name.starts_with("process_"));
    rows.filter_map(|(name, rest)| Some((name, rest.split_once('`')?.0.split(" + ").collect()))).collect()
}

/// What moves by itself, with how much: seconds that pass, memory that the process takes.
fn tolerance(name: &str, value: f64) -> f64 {
    match name {
        "cache_node_uptime_seconds" | "cache_node_replication_lag_seconds" | "cache_node_primary_link_down_seconds" => 1.0,
        "cache_node_rdb_last_save_duration_seconds" => 1.0,
        "process_resident_memory_bytes" | "cache_node_memory_fragmentation_ratio" => value / 4.0,
        "process_cpu_seconds_total" => 0.02,
        _ => 0.0,
    }
}

/// Looks in which something must agree once: what moves by itself may move back between two questions, on a busy machine more than once.
const LOOKS_MAX: usize = 20;

/// Holds what `/metrics` says against INFO before and after it; returns how many were compared.
fn assert_agreement(wire: &mut Wire, metrics: SocketAddr) -> usize {
    let (mut compared, mut differing) = disagreements(wire, metrics);
    for _ in 1..LOOKS_MAX {
        if differing.is_empty() {
            break;
        }
        let (count, again) = disagreements(wire, metrics);
        compared = compared.max(count);
        differing.retain(|name, _| again.contains_key(name));
    }
    assert!(differing.is_empty(), "{differing:?}");
    compared
}

/// How many were compared, and what is said of those that do not agree.
fn disagreements(wire: &mut Wire, metrics: SocketAddr) -> (usize, BTreeMap<&'static str, String>) {
    let before = info(wire);
    let said = scrape(metrics);
    let after = info(wire);
    let (mut compared, mut differing) = (0, BTreeMap::new());
    for (name, fields) in agreed() {
        let Some(value) = said.get(name) else {
            let is_there = fields.iter().all(|field| before.contains_key(*field));
            // INFO says -1 where there is nothing yet, and knows links only on replicas.
            assert!(!is_there || before[fields[0]] < 0.0, "{name} is missing, and INFO has {fields:?}");
            continue;
        };
        let sum = |info: &BTreeMap<String, f64>| -> Option<f64> { fields.iter().map(|field| info.get(*field)).sum() };
        if let (Some(low), Some(high)) = (sum(&before), sum(&after)) {
            let slack = tolerance(name, *value);
            let (low, high) = (low.min(high) - slack, high.max(low) + slack);
            if !(low..=high).contains(value) {
                differing.insert(name, format!("{value}, INFO's {fields:?} from {low} to {high}"));
            }
            compared += 1;
        }
    }
    (compared, differing)
}

#[test]
fn info_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (node, metrics) = watched(&[("maxmemory", "64mb"), ("dir", folder.path().to_str().unwrap()), ("appendonly", "yes")]);
    let mut wire = Wire::connect(node.addr());
    for line in
        ["SET a 1 EX 100", "SET b 2", "GET a", "GET a", "GET none", "HSET h f v", "LPUSH a x", "NOSUCH", "SELECT 3", "SET c 3"]
    {
        wire.run(line);
    }
    let mut subscriber = Wire::connect(node.addr());
    subscriber.run("SUBSCRIBE news");
    assert_eq!(wire.run("SAVE"), Value::Simple("OK".into()));
    let (replica, replica_metrics) = watched(&[("replicaof", &format!("127.0.0.1 {}", node.addr().port()))]);
    let mut replica_wire = Wire::connect(replica.addr());
    wait_until("the replica follows", || info(&mut replica_wire).get("master_link_status") == Some(&1.0));
    wait_until("the log has everything", || info(&mut wire).get("aof_buffer_length") == Some(&0.0));
    let compared = assert_agreement(&mut wire, metrics);
    assert!(compared >= 45, "only {compared} were compared");
    let compared = assert_agreement(&mut replica_wire, replica_metrics);
    assert!(compared >= 40, "only {compared} were compared on the replica");

    let said = scrape(metrics);
    assert_eq!((said["cache_node_keys{db=\"0\"}"], said["cache_node_keys{db=\"3\"}"]), (3.0, 1.0));
    assert_eq!(said["cache_node_keys_with_expiry{db=\"0\"}"], 1.0);
    assert_eq!(said["cache_node_commands_total{command=\"get\"}"], 3.0);
    assert_eq!(said["cache_node_commands_failed_total{command=\"lpush\"}"], 1.0);
    assert_eq!(said["cache_node_errors_total{error=\"WRONGTYPE\"}"], 1.0);
    assert_eq!(said["cache_node_command_duration_seconds_count{group=\"string\",type=\"get\"}"], 3.0);
    assert_eq!(said["cache_node_command_duration_seconds_bucket{group=\"hash\",le=\"+Inf\",type=\"set\"}"], 1.0);
    assert!(said["cache_node_command_duration_seconds_sum{group=\"string\",type=\"set\"}"] > 0.0);
    assert!((said["cache_node_keyspace_hit_ratio"] - 2.0 / 3.0).abs() < 1e-9);
    let ratio = said["cache_node_memory_used_bytes"] / said["cache_node_memory_max_bytes"];
    assert!((said["cache_node_memory_used_ratio"] - ratio).abs() < 1e-9);
    assert!(said["cache_node_engine_cpu_seconds_total"] <= said["process_cpu_seconds_total"] + 0.1);
    let label = format!("{{replica=\"127.0.0.1:{}\"}}", replica.addr().port());
    assert_eq!(said[&format!("cache_node_replica_online{label}")], 1.0);
    assert!(said.contains_key(&format!("cache_node_replica_lag_bytes{label}")));
    assert!((said["cache_node_is_primary"], scrape(replica_metrics)["cache_node_is_primary"]) == (1.0, 0.0));
}

#[test]
fn every_histogram_counts_up_to_its_sum() {
    let (node, metrics) = watched(&[]);
    let mut wire = Wire::connect(node.addr());
    for number in 0..500 {
        wire.run(&format!("SET k{number} v"));
    }
    let answer = http::get(metrics, "/metrics", &[OPEN_METRICS]);
    let label = "group=\"string\",type=\"set\"";
    let buckets: Vec<f64> = answer
        .body
        .lines()
        .filter(|line| line.starts_with("cache_node_command_duration_seconds_bucket") && line.contains(label))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!(buckets.len(), 24);
    assert!(buckets.is_sorted());
    assert_eq!(
        (buckets[23], series(&answer.body)[&format!("cache_node_command_duration_seconds_count{{{label}}}")]),
        (500.0, 500.0)
    );
}

#[test]
fn the_form_is_the_one_that_was_asked_for() {
    let (_node, metrics) = watched(&[]);
    let open = http::get(metrics, "/metrics", &[OPEN_METRICS]);
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.body.ends_with("# EOF\n"));
    assert!(open.body.contains("# TYPE cache_node_evicted_keys counter\n"));
    assert!(open.body.contains("# UNIT cache_node_memory_used_bytes bytes\n"));
    let plain = http::get(metrics, "/metrics", &["Accept: text/plain"]);
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(plain.body.contains("# TYPE cache_node_evicted_keys_total counter\n"), "{}", plain.body);
    assert!(!plain.body.contains("# EOF") && !plain.body.contains("# UNIT"));
    let names = |text: &str| -> BTreeSet<String> {
        // The two write numbers in other forms.
        series(text).into_keys().filter(|name| !name.contains("le=")).collect()
    };
    assert_eq!(names(&open.body), names(&plain.body));
    assert_eq!(series(&open.body).len(), series(&plain.body).len());
    assert_eq!(http::get(metrics, "/metrics", &[]).header("content-type"), plain.header("content-type"));

    let head = http::request(metrics, "HEAD", "/metrics", &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let refused = http::request(metrics, "POST", "/metrics", &["Content-Length: 0"]);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    let unknown = http::get(metrics, "/", &[]);
    assert!(unknown.status == 404 && unknown.body.contains("/metrics"));
}

#[test]
fn a_node_is_ready_when_it_does_what_it_is_there_for() {
    let (node, metrics) = watched(&[]);
    assert_eq!((http::get(metrics, "/healthz", &[]).status, http::get(metrics, "/readyz", &[]).status), (200, 200));
    // A replica of nobody.
    let (replica, replica_metrics) = watched(&[("replicaof", "127.0.0.1 1")]);
    let answer = http::get(replica_metrics, "/readyz", &[]);
    assert!(answer.status == 503 && answer.body.contains("the link to the primary is not up"), "{answer:?}");
    assert_eq!(http::get(replica_metrics, "/healthz", &[]).status, 200);
    assert_eq!(scrape(replica_metrics)["cache_node_ready"], 0.0);
    Wire::connect(replica.addr()).run(&format!("REPLICAOF 127.0.0.1 {}", node.addr().port()));
    wait_until("the replica is ready", || http::get(replica_metrics, "/readyz", &[]).status == 200);
    // A primary that may not write.
    Wire::connect(node.addr()).run("CONFIG SET min-replicas-to-write 3");
    let answer = http::get(metrics, "/readyz", &[]);
    assert!(answer.status == 503 && answer.body.contains("NOREPLICAS"), "{answer:?}");
    assert_eq!(scrape(metrics)["cache_node_writes_accepted"], 0.0);
}

#[test]
fn slow_and_hung_readers_keep_nobody_waiting() {
    let (node, metrics) = watched(&[]);
    // More than are let in; some send nothing, some half a request, some do not read what they asked for.
    let mut held = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(metrics).unwrap();
        let sent = match number % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"GET /metrics HT"),
            _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        drop(sent);
        held.push(stream);
    }
    let mut wire = Wire::connect(node.addr());
    let started = Instant::now();
    for number in 0..1_000 {
        assert_eq!(wire.run(&format!("SET k{number} v")), Value::Simple("OK".into()));
    }
    assert!(started.elapsed() < support::PATIENCE / 2, "{:?}", started.elapsed());
    // Those beyond the bound were closed at once.
    let last = held.last_mut().unwrap();
    last.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut rest = Vec::new();
    drop(last.read_to_end(&mut rest));
    drop(held);
    wait_until("there is room again", || {
        let mut stream = TcpStream::connect(metrics).unwrap();
        let asked = write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut answer = String::new();
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.contains("200 OK")
    });
}

/// Within this a node answers whose data nobody keeps, on a busy machine too.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Whether the node answers what needs the data.
fn answers(node: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(node).unwrap();
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).unwrap();
    stream.write_all(b"EXISTS key\r\n").unwrap();
    stream.read(&mut [0; 16]).is_ok()
}

#[test]
fn health_is_told_while_a_script_keeps_the_data() {
    let (node, metrics) = watched(&[("lua-time-limit", "6000")]);
    let mut wire = Wire::connect(node.addr());
    wire.send(&["EVAL", "while true do end", "0"]);
    wait_until("the script has the data", || !answers(node.addr()));
    let waiting = std::thread::spawn(move || http::get(metrics, "/metrics", &[]));
    for _ in 0..20 {
        assert_eq!(http::get(metrics, "/healthz", &[]).status, 200);
        assert_eq!(http::get(metrics, "/readyz", &[]).status, 200);
    }
    assert!(matches!(wire.read(), Value::Error(_)), "the script was ended");
    let answer = waiting.join().unwrap();
    assert!(answer.status == 200 && answer.body.contains("cache_node_commands_total{command=\"eval\"} 1"), "{answer:?}");
}

#[test]
fn a_request_that_is_none_ends_its_connection_alone() {
    let (_node, metrics) = watched(&[]);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024));
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"*1\r\n$4\r\nPING\r\n", b"\0\0\0\0\r\n\r\n", long.as_bytes()] {
        let mut stream = TcpStream::connect(metrics).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        // It may be closed before all of it was sent.
        drop(stream.write_all(bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(read.is_err() || !answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    }
    assert_eq!(http::get(metrics, "/healthz", &[]).status, 200);
}

#[test]
fn the_program_says_where_they_are() {
    let mut node = Binary::start(&["--port", "0", "--metrics-port", "0"]);
    let mut wire = Wire::connect(node.address);
    let port = info(&mut wire)["metrics_port"];
    let metrics = SocketAddr::from(([127, 0, 0, 1], port as u16));
    assert_eq!(http::get(metrics, "/healthz", &[]).status, 200);
    wait_until("it is logged", || node.errors().contains(&format!("http://{metrics}/metrics")));
    assert_eq!(format!("{:?}", wire.run("CONFIG GET metrics-*")).matches("metrics-").count(), 2);
    assert!(node.end_by("TERM").success());

    let without = Binary::start(&["--port", "0"]);
    assert!(!info(&mut Wire::connect(without.address)).contains_key("metrics_port"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, _, error) = Binary::run(&["--port", "0", "--metrics-port", &port]);
    assert!(!status.success() && error.contains("choose another with --metrics-port"), "{error}");
    let (status, _, error) = Binary::run(&["--metrics-port", "x"]);
    assert!(!status.success() && error.contains("a number from 0 to 65535, or no"), "{error}");
}
