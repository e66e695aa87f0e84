//! Events of a cluster.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    OLD_SECRET, SECRET, of_kind, secret_file,
    support::{
        self, Cluster, PATIENCE, Value, Wire, http,
        process::Binary,
        receiver::{Delivery, HANG, Receiver, Treat},
        wait_until,
    },
};

/// A primary alone that tells these receivers.
fn cluster(receivers: &[&Receiver]) -> (Cluster, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(&folder);
    let urls: Vec<String> = receivers.iter().map(|receiver| receiver.url()).collect();
    let mut arguments = vec!["--replicas", "0", "--down-after", "60000", "--webhook-secret-file", &secret];
    for url in &urls {
        arguments.extend(["--webhook", url]);
    }
    (Cluster::start(&arguments), folder)
}

fn backup(cluster: &Cluster) {
    let output = Binary::command().args(["cluster", "backup", "--dir"]).arg(cluster.folder()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn figure(cluster: &Cluster, name: &str, receiver: &Receiver) -> Option<f64> {
    let series = format!("{name}{{target=\"http://{}\"}} ", receiver.address);
    let answer = http::get(cluster.http, "/metrics", &[]);
    answer.body.lines().find_map(|line| line.strip_prefix(&series)).map(|value| value.parse().unwrap())
}

#[test]
fn an_event_is_tried_again_until_it_is_taken() {
    let receiver = Receiver::start(&[Treat::Answer(500), Treat::Close, Treat::Answer(200)]);
    let (mut cluster, _folder) = cluster(&[&receiver]);
    wait_until("three tries", || receiver.deliveries().len() >= 3);
    let tries = receiver.deliveries();
    assert!(tries.iter().all(|delivery| delivery.kind() == "CreateReplicationGroupComplete"));
    assert_eq!(tries.iter().map(|delivery| &delivery.id).collect::<BTreeSet<_>>().len(), 1, "one event has one id");
    let first = &tries[0];
    assert_eq!((first.path.as_str(), first.content_type.as_str()), ("/hooks/cache?for=tests", "application/json"));
    let body = first.json();
    assert_eq!((&body["data"]["cluster"], &body["data"]["node"]), (&"mymaster".into(), &"node-1".into()));
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z') && body["data"]["text"].as_str().unwrap().contains("primary"));
    for delivery in &tries {
        assert!(delivery.is_signed_by(SECRET) && delivery.is_signed_by(OLD_SECRET), "{delivery:?}");
        assert!(!delivery.is_signed_by("whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"));
        let other = Delivery { body: delivery.body.replace("node-1", "node-2"), ..delivery.clone() };
        assert!(!other.is_signed_by(SECRET), "a body that was changed is not signed");
        let sent = Duration::from_secs(delivery.timestamp.parse().unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(sent) < PATIENCE * 2);
    }
    assert_eq!(receiver.deliveries().len(), 3, "what was taken is not sent again");
    backup(&cluster);
    wait_until("the next event", || of_kind(&receiver, "SnapshotComplete").len() == 1);
    assert_ne!(of_kind(&receiver, "SnapshotComplete")[0].id, tries[0].id);
    wait_until("it is counted", || figure(&cluster, "cache_cluster_webhook_delivered_total", &receiver) == Some(2.0));
    assert_eq!(figure(&cluster, "cache_cluster_webhook_failed_tries_total", &receiver), Some(2.0));
    assert_eq!(figure(&cluster, "cache_cluster_webhook_failed_total", &receiver), Some(0.0));
    assert!(cluster.terminate().success());
}

#[test]
fn a_receiver_that_hangs_keeps_neither_others_nor_the_end_waiting() {
    let hung = Receiver::start(&[Treat::Hang; 64]);
    let quick = Receiver::start(&[]);
    let (mut cluster, _folder) = cluster(&[&hung, &quick]);
    wait_until("the first event at both", || !hung.deliveries().is_empty() && !quick.deliveries().is_empty());
    for _ in 0..3 {
        backup(&cluster);
    }
    wait_until("the others at the quick one", || of_kind(&quick, "SnapshotComplete").len() == 3);
    assert_eq!(cluster.connect().run("SET k v"), Value::Simple("OK".into()));
    wait_until("a try was given up", || figure(&cluster, "cache_cluster_webhook_failed_tries_total", &hung) >= Some(1.0));
    let started = Instant::now();
    assert!(cluster.terminate().success());
    // Ending the node takes its time as well.
    assert!(started.elapsed() < HANG / 2, "{:?}", started.elapsed());
    assert!(of_kind(&hung, "SnapshotComplete").is_empty(), "the first event was never taken");
}

#[test]
fn what_waits_when_the_cluster_ends_is_tried_once_more() {
    // The event of the start fails to the end; what comes behind it goes out then.
    let receiver = Receiver::refusing("CreateReplicationGroupComplete");
    let (mut cluster, _folder) = cluster(&[&receiver]);
    wait_until("three tries", || receiver.deliveries().len() >= 3);
    backup(&cluster);
    assert!(of_kind(&receiver, "SnapshotComplete").is_empty());
    assert!(cluster.terminate().success());
    assert_eq!(of_kind(&receiver, "SnapshotComplete").len(), 1);
}

#[test]
fn a_redirection_is_not_followed_and_410_ends_it() {
    let elsewhere = Receiver::start(&[Treat::Answer(302), Treat::Answer(410)]);
    let (cluster, _folder) = cluster(&[&elsewhere]);
    wait_until("two tries", || elsewhere.deliveries().len() == 2);
    backup(&cluster);
    std::thread::sleep(Duration::from_millis(1_500));
    wait_until("what it is not told is counted", || {
        figure(&cluster, "cache_cluster_webhook_failed_total", &elsewhere) == Some(2.0)
    });
    assert_eq!(elsewhere.deliveries().len(), 2, "nothing more is told");
}

#[test]
fn events_are_published_and_followed() {
    let receiver = Receiver::start(&[]);
    let (cluster, _folder) = cluster(&[&receiver]);
    let mut listener = Wire::connect(cluster.primary);
    listener.run("SUBSCRIBE __cluster__:events");
    let mut follower = Binary::command();
    let mut follower = follower
        .args(["cluster", "events", "--follow", "--dir"])
        .arg(cluster.folder())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    backup(&cluster);
    let published = loop {
        let Value::Array(parts) = listener.read() else { panic!("a message is an array") };
        let Value::Bulk(message) = &parts[2] else { panic!("{parts:?}") };
        let event: serde_json::Value = serde_json::from_slice(message).unwrap();
        if event["kind"] == "SnapshotComplete" {
            break event;
        }
    };
    let ring = cluster.get("/v1/events");
    assert!(ring["events"].as_array().unwrap().contains(&published), "the same in the ring");
    let mut out = follower.stdout.take().unwrap();
    let lines = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&lines);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = std::io::Read::read(&mut out, &mut chunk) {
            seen.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    });
    wait_until("the follower shows it", || lines.lock().unwrap().contains("SnapshotComplete"));
    backup(&cluster);
    wait_until("and the next one", || lines.lock().unwrap().matches("SnapshotComplete").count() == 2);
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[tokio::test]
async fn https_is_checked_against_the_authorities_of_the_machine() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{
            ServerConfig,
            crypto::ring,
            pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        },
    };

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(&folder);
    let (trusted, other) = (folder.path().join("trusted.pem"), folder.path().join("other.pem"));
    std::fs::write(&trusted, made.cert.pem()).unwrap();
    std::fs::write(&other, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
    let start = |authorities: &PathBuf, place: &str| {
        Binary::command()
            .args(["cluster", "--replicas", "0", "--port", "0", "--reader-port", "0", "--sentinel-port", "0", "--http-port", "0"])
            .args([
                "--webhook-secret-file",
                &secret,
                "--webhook",
                &format!("https://localhost:{port}/hook"),
                "--with-parent",
                "--dir",
            ])
            .arg(folder.path().join(place))
            .env("SSL_CERT_FILE", authorities)
            .env_remove("SSL_CERT_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let end = |mut controller: std::process::Child| {
        drop(controller.stdin.take());
        controller.wait().unwrap();
    };

    let controller = start(&trusted, "one");
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut request = vec![0; 16 * 1024];
    let length = stream.read(&mut request).await.unwrap();
    let mut whole = request[..length].to_vec();
    // Head and body may come apart.
    let delivery = loop {
        if let Some(delivery) = support::receiver::read(&whole[..]) {
            break delivery;
        }
        let length = stream.read(&mut request).await.unwrap();
        assert!(length > 0);
        whole.extend_from_slice(&request[..length]);
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert!(delivery.is_signed_by(SECRET) && delivery.path == "/hook");
    end(controller);

    let controller = start(&other, "two");
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let refused = acceptor.accept(stream).await;
    assert!(refused.is_err(), "a certificate of a stranger is not trusted");
    end(controller);
}

#[test]
fn a_webhook_that_cannot_be_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(&folder);
    let bad = folder.path().join("bad.secret");
    std::fs::write(&bad, "hunter2").unwrap();
    let place = folder.path().join("cluster");
    let run = |arguments: &[&str]| {
        let mut all = vec!["cluster", "--dir", place.to_str().unwrap()];
        all.extend(arguments);
        Binary::run(&all)
    };
    let (status, _, error) = run(&["--webhook", "http://127.0.0.1:1/"]);
    assert!(!status.success() && error.contains("--webhook-secret-file"), "{error}");
    // A node says it as a cluster does.
    let (_, _, of_node) = Binary::run(&["--webhook", "foo"]);
    assert!(of_node.contains("is not valid: expected an address such as"), "{of_node}");
    let (status, _, error) = run(&["--webhook", "ftp://127.0.0.1/", "--webhook-secret-file", &secret]);
    assert!(error.contains(": expected an address such as"), "{error}");
    assert!(!status.success() && error.contains("https://example.com/hooks/cache"), "{error}");
    let (status, _, error) = run(&["--webhook", "http://127.0.0.1:1/", "--webhook-secret-file", bad.to_str().unwrap()]);
    assert!(!status.success() && error.contains("make one with") && !error.contains("hunter2"), "{error}");
    let (status, _, error) = run(&["--webhook", "http://127.0.0.1:1/", "--webhook-secret-file", "/nonexistent"]);
    assert!(!status.success() && error.contains("/nonexistent"), "{error}");
    // Where ps shows nothing of it.
    let nine = ["http://127.0.0.1:1/"; 9].join(" ");
    let mut command = Binary::command();
    command.args(["cluster", "--dir", place.to_str().unwrap()]).env("CACHE_CLUSTER_WEBHOOK", nine);
    let run = |command: &mut std::process::Command| String::from_utf8(command.output().unwrap().stderr).unwrap();
    let error = run(&mut command);
    assert!(error.contains("--webhook-secret-file"), "{error}");
    let error = run(command.args(["--webhook-secret-file", &secret]));
    assert!(error.contains("8 times"), "{error}");
    assert!(!place.exists(), "nothing was started");
}
