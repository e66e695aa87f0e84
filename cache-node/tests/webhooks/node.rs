//! Events of one node: by webhooks, in its ring and on its channel, which say the same.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::{
    OLD_SECRET, SECRET, of_kind, secret_file,
    support::{
        Value, Wire,
        content::info,
        http,
        process::Binary,
        receiver::{Delivery, HANG, Receiver, Treat},
        wait_until,
        wire::encode,
        words,
    },
};

const NEW_SECRET: &str = "whsec_CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC";

/// A node with a port for its metrics and events.
struct Told {
    node: Binary,
    metrics: SocketAddr,
    folder: tempfile::TempDir,
}

impl Told {
    fn start(receivers: &[&Receiver], more: &[&str]) -> Told {
        let folder = tempfile::tempdir().unwrap();
        let secret = secret_file(&folder);
        let urls: Vec<String> = receivers.iter().map(|receiver| receiver.url()).collect();
        let mut arguments = vec!["--port", "0", "--metrics-port", "0", "--webhook-secret-file", &secret];
        for url in &urls {
            arguments.extend(["--webhook", url]);
        }
        arguments.extend(more);
        let node = Binary::start(&arguments);
        let port: u16 = info(&mut Wire::connect(node.address), "metrics_port").parse().unwrap();
        Told { node, metrics: SocketAddr::from(([127, 0, 0, 1], port)), folder }
    }

    fn wire(&self) -> Wire {
        Wire::connect(self.node.address)
    }

    fn events(&self) -> Vec<Json> {
        events(self.metrics, "")
    }

    fn count(&self, kind: &str) -> usize {
        self.events().iter().filter(|event| event["kind"] == kind).count()
    }

    fn wait_for(&self, kind: &str) {
        wait_until(kind, || self.count(kind) > 0);
    }

    fn figure(&self, series: &str) -> Option<f64> {
        let answer = http::get(self.metrics, "/metrics", &[]);
        let value = answer.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    fn figure_of(&self, name: &str, receiver: &Receiver) -> Option<f64> {
        self.figure(&format!("cache_node_webhook_{name}_total{{target=\"http://{}\"}}", receiver.address))
    }
}

fn events(metrics: SocketAddr, query: &str) -> Vec<Json> {
    let answer = http::get(metrics, &format!("/v1/events{query}"), &[]);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.body);
    let page: Json = serde_json::from_str(&answer.body).unwrap();
    page["events"].as_array().unwrap().clone()
}

fn ok(wire: &mut Wire, line: &str) {
    assert_eq!(wire.run(line), Value::ok(), "{line}");
}

#[test]
fn webhook_ring_and_channel_say_the_same() {
    let receiver = Receiver::start(&[Treat::Answer(500), Treat::Close, Treat::Answer(200)]);
    let mut told = Told::start(&[&receiver], &["--loglevel", "debug"]);
    let mut listener = told.wire();
    listener.run("SUBSCRIBE __node__:events");
    let mut broad = told.wire();
    broad.run("PSUBSCRIBE *");
    let mut narrow = told.wire();
    narrow.run("PSUBSCRIBE __node__:*");
    wait_until("three tries", || receiver.deliveries().len() >= 3);
    let tries = receiver.deliveries();
    assert!(tries[..3].iter().all(|delivery| delivery.kind() == "NodeStarted" && delivery.id == tries[0].id), "{tries:?}");
    for delivery in &tries {
        assert!(delivery.is_signed_by(SECRET) && delivery.is_signed_by(OLD_SECRET), "{delivery:?}");
        let other = Delivery { body: delivery.body.replace("NodeStarted", "NodeStopping"), ..delivery.clone() };
        assert!(!other.is_signed_by(SECRET), "a body that was changed is not signed");
    }
    let mut wire = told.wire();
    ok(&mut wire, "CONFIG SET masterauth hush timeout 100");
    // What is set to what it is was not changed.
    ok(&mut wire, "CONFIG SET timeout 100");
    ok(&mut wire, "CONFIG SET maxclients 999");
    wait_until("both at the receiver", || of_kind(&receiver, "CacheClusterParametersChanged").len() == 2);
    let ring = told.events();
    let kinds: Vec<&str> = ring.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["NodeStarted", "CacheClusterParametersChanged", "CacheClusterParametersChanged"]);
    assert!(ring[1]["text"].as_str().unwrap().ends_with("changed masterauth, timeout"), "{}", ring[1]);
    assert_eq!(events(told.metrics, "?after=2"), ring[2..]);
    assert_eq!(http::get(told.metrics, "/v1/events?after=x", &[]).status, 400);
    for event in &ring[1..] {
        let Value::Array(parts) = listener.read() else { panic!("a message is an array") };
        assert_eq!(parts[1], Value::bulk("__node__:events"));
        let Value::Bulk(message) = &parts[2] else { panic!("{parts:?}") };
        assert_eq!(&serde_json::from_slice::<Json>(message).unwrap(), event);
    }
    assert!(matches!(narrow.read(), Value::Array(parts) if parts[1] == Value::bulk("__node__:*")));
    // A client that listens to everything is sent what Redis would send.
    wire.run("PUBLISH of-a-client hello");
    let Value::Array(parts) = broad.read() else { panic!("a message is an array") };
    assert_eq!(parts[2], Value::bulk("of-a-client"));
    for event in &ring {
        let port = format!(":{}", told.node.address.port());
        assert!(event["node"].as_str().unwrap().ends_with(&port), "{event}");
        let mut delivered = receiver.deliveries().into_iter().map(|delivery| delivery.json());
        let delivered = delivered.rfind(|body| body["data"]["id"] == event["id"]).unwrap();
        assert_eq!((&delivered["type"], &delivered["data"]["text"]), (&event["kind"], &event["text"]));
        assert_eq!(delivered["data"]["node"], event["node"]);
        assert!(delivered["data"].get("cluster").is_none() && delivered["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    wait_until("it is counted", || told.figure_of("delivered", &receiver) == Some(3.0));
    assert_eq!(told.figure_of("failed_tries", &receiver), Some(2.0));
    assert_eq!((told.figure_of("failed", &receiver), told.figure_of("dropped", &receiver)), (Some(0.0), Some(0.0)));
    assert_eq!(told.figure("cache_node_events_total{kind=\"CacheClusterParametersChanged\"}"), Some(2.0));
    assert_eq!(told.figure("cache_node_events_dropped_total"), Some(0.0));
    // A secret is replaced without a restart; what is no secret changes nothing.
    let path = told.folder.path().join("webhook.secret");
    fs::write(&path, format!("{NEW_SECRET}\n{SECRET}\n")).unwrap();
    ok(&mut wire, "CONFIG SET maxclients 998");
    wait_until("one more", || receiver.deliveries().len() == 6);
    fs::write(&path, "nothing of use").unwrap();
    ok(&mut wire, "CONFIG SET maxclients 997");
    wait_until("one more", || receiver.deliveries().len() == 7);
    for delivery in &receiver.deliveries()[5..] {
        assert!(delivery.is_signed_by(NEW_SECRET) && delivery.is_signed_by(SECRET) && !delivery.is_signed_by(OLD_SECRET));
    }
    // The path is the receiver's secret.
    let Value::Array(shown) = wire.run("CONFIG GET webhook*") else { panic!("an array") };
    assert!(shown.contains(&Value::bulk(&format!("http://{}/...", receiver.address))), "{shown:?}");
    let mut said = vec![format!("{shown:?}"), http::get(told.metrics, "/metrics", &[]).body, format!("{ring:?}")];
    let error = wire.run("CONFIG SET webhook http://127.0.0.1:1/for=tests");
    assert!(matches!(&error, Value::Error(error) if error.contains("immutable")), "{error:?}");
    assert!(told.node.end_by("TERM").success());
    wait_until("the end is told", || of_kind(&receiver, "NodeStopping").len() == 1);
    said.push(told.node.errors());
    for said in said {
        assert!(!said.contains("for=tests") && !said.contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }
}

#[test]
fn what_happens_to_memory_clients_and_writes_is_told() {
    let told = Told::start(&[], &["--maxmemory", "4mb", "--maxclients", "4"]);
    let mut wire = told.wire();
    let value = "v".repeat(100_000);
    for number in 0..100 {
        wire.call(&words(&format!("SET key-{number} {value}")));
    }
    told.wait_for("MemoryHigh");
    told.wait_for("OutOfMemory");
    ok(&mut wire, "CONFIG SET maxmemory-policy allkeys-lru");
    for number in 0..10 {
        wire.call(&words(&format!("SET more-{number} {value}")));
    }
    told.wait_for("EvictionStarted");
    ok(&mut wire, "CONFIG SET maxmemory 100mb");
    told.wait_for("MemoryNormal");
    let others: Vec<Wire> = (0..4).map(|_| told.wire()).collect();
    told.wait_for("MaxClientsReached");
    drop(others);
    ok(&mut wire, "CONFIG SET min-replicas-to-write 1");
    told.wait_for("WritesRefused");
    let refused = told.events().into_iter().find(|event| event["kind"] == "WritesRefused").unwrap();
    assert!(refused["text"].as_str().unwrap().contains("Not enough good replicas"), "{refused}");
    ok(&mut wire, "CONFIG SET min-replicas-to-write 0");
    told.wait_for("WritesAccepted");
    for kind in ["MemoryHigh", "OutOfMemory", "EvictionStarted", "MaxClientsReached", "WritesRefused"] {
        assert_eq!(told.count(kind), 1, "{kind} is told once, not at each look");
    }
}

#[test]
fn snapshots_and_roles_are_told() {
    let told = Told::start(&[], &[]);
    let mut wire = told.wire();
    ok(&mut wire, &format!("CONFIG SET dir {}", told.folder.path().display()));
    ok(&mut wire, "SAVE");
    told.wait_for("SnapshotComplete");
    // Where a folder stands no file can.
    fs::create_dir_all(told.folder.path().join("taken.rdb/full")).unwrap();
    ok(&mut wire, "CONFIG SET dbfilename taken.rdb");
    for _ in 0..2 {
        assert!(matches!(wire.run("SAVE"), Value::Error(_)));
    }
    told.wait_for("SnapshotFailed");
    assert_eq!(told.count("SnapshotFailed"), 1, "told once while it goes on failing");
    ok(&mut wire, "CONFIG SET dbfilename dump.rdb");

    let replica = Told::start(&[], &["--replicaof", "127.0.0.1", &told.node.address.port().to_string()]);
    replica.wait_for("PrimaryLinkUp");
    told.wait_for("ReplicaConnected");
    let started = replica.events().into_iter().find(|event| event["kind"] == "NodeStarted").unwrap();
    assert!(started["text"].as_str().unwrap().contains("as a replica of 127.0.0.1:"), "{started}");
    ok(&mut wire, "FAILOVER");
    told.wait_for("FailoverComplete");
    told.wait_for("BecameReplica");
    replica.wait_for("BecamePrimary");
    told.wait_for("PrimaryLinkUp");
    replica.wait_for("ReplicaConnected");
    assert_eq!((told.count("FailoverStarted"), told.count("FailoverFailed")), (1, 0));
    assert_eq!(told.count("ReplicaLost"), 0, "it gave its role away, and lost nobody");
    let new_primary = replica.metrics;
    drop(told);
    wait_until("the replica is missed", || events(new_primary, "").iter().any(|event| event["kind"] == "ReplicaLost"));
    let mut wire = replica.wire();
    ok(&mut wire, "REPLICAOF 127.0.0.1 1");
    replica.wait_for("PrimaryLinkLost");
    let fenced = Told::start(&[], &["--replicaof", "127.0.0.1", "0"]);
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!((fenced.count("NodeStarted"), fenced.count("PrimaryLinkLost")), (1, 0), "it is to follow nobody");
    let lost = replica.events().into_iter().filter(|event| event["kind"] == "PrimaryLinkLost");
    let lost = lost.filter(|event| event["text"].as_str().unwrap().contains("127.0.0.1:1 is down"));
    assert_eq!(lost.count(), 1, "not at each try");
}

#[test]
fn what_happens_again_and_again_takes_no_alarms_place() {
    let receiver = Receiver::start(&[Treat::Answer(500); 2]);
    let mut told = Told::start(&[&receiver], &[]);
    wait_until("a try", || !receiver.deliveries().is_empty());
    let mut wire = told.wire();
    ok(&mut wire, &format!("CONFIG SET dir {}", told.folder.path().display()));
    // More than may wait for a receiver that is slow.
    let changes = (0..300).flat_map(|number| encode(&["CONFIG", "SET", "timeout", &(1_000 + number).to_string()]));
    wire.send_raw(&changes.collect::<Vec<u8>>());
    (0..300).for_each(|_| assert_eq!(wire.read(), Value::ok()));
    ok(&mut wire, "SAVE");
    wait_until("the next one is taken", || of_kind(&receiver, "SnapshotComplete").len() == 1);
    assert_eq!(told.count("CacheClusterParametersChanged"), 8, "the first are told");
    assert_eq!(
        told.figure("cache_node_events_total{kind=\"CacheClusterParametersChanged\"}"),
        Some(301.0),
        "and all are counted"
    );
    assert_eq!(told.figure_of("dropped", &receiver), Some(0.0));
    assert!(told.node.end_by("TERM").success());
    let last = of_kind(&receiver, "CacheClusterParametersChanged").pop().unwrap().json();
    assert!(last["data"]["text"].as_str().unwrap().starts_with("293 more, the latest: "), "{last}");
}

#[test]
fn a_receiver_that_hangs_keeps_neither_clients_nor_the_end_waiting() {
    let hung = Receiver::start(&[Treat::Hang; 64]);
    let quick = Receiver::start(&[]);
    let mut told = Told::start(&[&hung, &quick], &[]);
    wait_until("the start at both", || !hung.deliveries().is_empty() && of_kind(&quick, "NodeStarted").len() == 1);
    let mut wire = told.wire();
    let started = Instant::now();
    for number in 0..100 {
        ok(&mut wire, &format!("SET key-{number} v"));
        ok(&mut wire, &format!("CONFIG SET timeout {}", 1_000 + number));
    }
    assert!(started.elapsed() < HANG / 2, "two hundred tries of five seconds are more: {:?}", started.elapsed());
    let started = Instant::now();
    assert!(told.node.end_by("TERM").success());
    assert!(started.elapsed() < HANG / 2, "{:?}", started.elapsed());
    assert_eq!(of_kind(&quick, "NodeStopping").len(), 1);
}

#[test]
fn a_start_that_fails_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(&folder);
    let receiver = Receiver::start(&[]);
    fs::write(folder.path().join("dump.rdb"), b"no snapshot").unwrap();
    let dir = folder.path().to_str().unwrap();
    let (status, _, error) =
        Binary::run(&["--port", "0", "--dir", dir, "--webhook", &receiver.url(), "--webhook-secret-file", &secret]);
    assert!(!status.success(), "{error}");
    let told = of_kind(&receiver, "NodeStartFailed");
    assert!(told.len() == 1 && told[0].json()["data"]["text"].as_str().unwrap().contains("dump.rdb"), "{told:?}");
    assert!(of_kind(&receiver, "NodeStopping").is_empty(), "it never served");
}

#[test]
fn a_webhook_that_cannot_be_is_refused_at_the_start_and_a_good_one_outlives_a_rewrite() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(&folder);
    let bad = folder.path().join("bad.secret");
    fs::write(&bad, "hunter2").unwrap();
    let refused = |arguments: &[&str]| {
        let (status, _, error) = Binary::run(&[&["--port", "0"], arguments].concat());
        assert!(!status.success() && !error.contains("hunter2"), "{error}");
        error
    };
    assert!(refused(&["--webhook", "http://127.0.0.1:1/hunter2"]).contains("webhook-secret-file"));
    let error = refused(&["--webhook", "ftp://127.0.0.1/hunter2", "--webhook-secret-file", &secret]);
    assert!(error.contains("https://example.com/hooks/cache"), "{error}");
    let error = refused(&["--webhook", "http://127.0.0.1:1/", "--webhook-secret-file", bad.to_str().unwrap()]);
    assert!(error.contains("make one with"), "{error}");
    assert!(refused(&["--webhook-secret-file", "/nonexistent"]).contains("/nonexistent"));
    let nine: Vec<String> = (0..9).map(|number| format!("http://127.0.0.1:1/hunter2/{number}")).collect();
    assert!(refused(&nine.iter().flat_map(|url| ["--webhook", url]).collect::<Vec<_>>()).contains("8 addresses"));

    let receivers = [Receiver::start(&[]), Receiver::start(&[])];
    let file = folder.path().join("node.conf");
    let lines = receivers.each_ref().map(|receiver| format!("webhook {}\n", receiver.url()));
    fs::write(&file, format!("port 0\nwebhook-secret-file {secret}\n{}", lines.concat())).unwrap();
    // What the command line says as well is told once.
    let start = |file: &Path| Binary::start(&[file.to_str().unwrap(), "--webhook", &receivers[0].url()]);
    let node = start(&file);
    wait_until("both hear of the start", || receivers.iter().all(|receiver| of_kind(receiver, "NodeStarted").len() == 1));
    ok(&mut Wire::connect(node.address), "CONFIG SET timeout 17");
    ok(&mut Wire::connect(node.address), "CONFIG REWRITE");
    drop(node);
    assert!(fs::read_to_string(&file).unwrap().contains("for=tests"), "the file has all of the address");
    let _again = start(&file);
    wait_until("both hear of it again", || receivers.iter().all(|receiver| of_kind(receiver, "NodeStarted").len() == 2));
}
