//! The balancer's process in front of upstreams that die at exact moments: what is sent again, and what is not.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking, and nobody reads its docs")]

mod fleet_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fleet_support::{
    Http, PATIENCE, Process, Reply, ask, get, http, mortal_upstream, ok, post, raw_upstream, start, start_with_files,
};

/// An upstream that answers every request with its name and counts the unsafe ones.
async fn healthy(name: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let posts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&posts);
    let address = raw_upstream(Arc::new(move |request| {
        counter.fetch_add(usize::from(request.starts_with("POST ")), Ordering::SeqCst);
        Reply::Bytes(ok(name))
    }))
    .await;
    (address, posts)
}

async fn upstream(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> SocketAddr {
    raw_upstream(Arc::new(script)).await
}

/// An address that refuses connections.
async fn refusing() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], end_to_end::port::free_port()))
}

/// The balancer before these replicas, once `up` of them are up.
async fn balancer(replicas: &[(&str, SocketAddr)], up: usize) -> (Process, Http) {
    let replicas: Vec<String> = replicas.iter().map(|(name, address)| format!("{name}={address}")).collect();
    let mut arguments = vec!["balance", "--listen", "127.0.0.1:0"];
    for replica in &replicas {
        arguments.extend(["--replica", replica]);
    }
    let process = start(&arguments).await;
    let client = http();
    let all_up = async {
        loop {
            let fleet = get(&client, process.address, "/fleet.json").await.unwrap().json();
            if fleet["replicas"].as_array().unwrap().iter().filter(|one| one["state"] == "up").count() == up {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_up).await.expect("the replicas come up");
    (process, client)
}

#[tokio::test]
async fn requests_go_round_and_are_counted() {
    let (a, _) = healthy("A").await;
    let (b, _) = healthy("B").await;
    let (process, client) = balancer(&[("A", a), ("B", b)], 2).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(get(&client, process.address, "/").await.unwrap().text());
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[..2], seen[2..]);
    let fleet = get(&client, process.address, "/fleet.json").await.unwrap().json();
    assert_eq!(fleet["replicas"][0]["name"], "A");
    assert_eq!(fleet["replicas"][0]["address"], a.to_string());
    assert_eq!(fleet["replicas"][0]["requests"], 2);
    assert_eq!(fleet["replicas"][0]["pid"], serde_json::Value::Null);
    assert_eq!(fleet["nodes"], serde_json::json!([]));
}

#[tokio::test]
async fn a_safe_request_survives_a_broken_connection_and_an_unsafe_one_is_not_repeated() {
    let broken = upstream(|_| Reply::BytesThenClose(String::new())).await;
    let (b, posts) = healthy("B").await;
    let (process, client) = balancer(&[("A", broken), ("B", b)], 2).await;
    for _ in 0..20 {
        let answer = get(&client, process.address, "/").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "B"));
    }
    let mut failed = 0;
    for _ in 0..20 {
        let answer = post(&client, process.address, "/api/cart/lines", "{}").await.unwrap();
        if answer.status == StatusCode::BAD_GATEWAY {
            failed += 1;
            assert_eq!(answer.json()["error"]["code"], "connection_broken");
            assert_eq!(answer.headers["x-served-by"], "balancer");
        }
    }
    assert_eq!(failed, 10, "every second one went to the broken replica");
    assert_eq!(posts.load(Ordering::SeqCst), 10, "and none of those was sent a second time");
}

#[tokio::test]
async fn an_unsafe_request_that_was_never_sent_goes_to_another_replica() {
    // A probe may notice the closed port before the first request does; then nothing was shown, and another A dies.
    for _ in 0..10 {
        let (b, posts) = healthy("B").await;
        let (a, accepting) = mortal_upstream(Arc::new(|_| Reply::Bytes(ok("A")))).await;
        let (process, client) = balancer(&[("A", a), ("B", b)], 2).await;
        accepting.abort();
        assert!(accepting.await.unwrap_err().is_cancelled());
        for _ in 0..4 {
            let answer = post(&client, process.address, "/cart/add", "sku=1").await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "B"));
        }
        assert_eq!(posts.load(Ordering::SeqCst), 4);
        let fleet = get(&client, process.address, "/fleet.json").await.unwrap().json();
        assert_eq!(fleet["replicas"][0]["state"], "down");
        if fleet["replicas"][0]["requests"] == 1 {
            return;
        }
    }
    panic!("no request ever met the closed port");
}

#[tokio::test]
async fn an_idle_connection_that_the_replica_closed_costs_no_unsafe_request() {
    // Each answer promises to keep the connection and is followed by its end, as when a process dies between requests.
    let posts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&posts);
    let a = upstream(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Reply::BytesThenClose(ok("A"))
    })
    .await;
    let (process, client) = balancer(&[("A", a)], 1).await;
    for _ in 0..20 {
        let answer = post(&client, process.address, "/cart/add", "sku=1").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "A"));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(posts.load(Ordering::SeqCst), 20, "each was carried out once");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let cut = upstream(|_| Reply::BytesThenClose("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned())).await;
    let (b, _) = healthy("B").await;
    let (process, client) = balancer(&[("A", cut), ("B", b)], 2).await;
    for _ in 0..10 {
        assert_eq!(get(&client, process.address, "/").await.unwrap().text(), "B");
    }
}

#[tokio::test]
async fn a_503_is_tried_elsewhere_unless_it_was_said_on_purpose() {
    let dying = upstream(|_| Reply::Bytes("HTTP/1.1 503 Gone\r\ncontent-length: 0\r\n\r\n".to_owned())).await;
    let (b, posts) = healthy("B").await;
    let (process, client) = balancer(&[("A", dying), ("B", b)], 2).await;
    for _ in 0..4 {
        assert_eq!(get(&client, process.address, "/").await.unwrap().text(), "B");
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(post(&client, process.address, "/", "").await.unwrap().status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "an unsafe one passes as it is");
    assert_eq!(posts.load(Ordering::SeqCst), 1);

    let deliberate =
        upstream(|_| Reply::Bytes("HTTP/1.1 503 Later\r\nretry-after: 3\r\ncontent-length: 4\r\n\r\nwait".to_owned())).await;
    let (process, client) = balancer(&[("A", deliberate), ("B", b)], 2).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(get(&client, process.address, "/").await.unwrap().text());
    }
    answers.sort();
    assert_eq!(answers, ["B", "wait"]);
}

#[tokio::test]
async fn without_replicas_there_is_a_page_that_looks_again() {
    let (process, client) = balancer(&[("A", refusing().await)], 0).await;
    let page = get(&client, process.address, "/cart").await.unwrap();
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.headers.contains_key("retry-after"));
    assert!(page.text().contains("http-equiv=\"refresh\""));
    let json = get(&client, process.address, "/api/cart").await.unwrap();
    assert_eq!(json.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json.json()["error"]["code"], "no_replica");
}

#[tokio::test]
async fn headers_of_the_way_are_written_and_those_of_the_client_dropped() {
    let echo = upstream(|request| Reply::Bytes(ok(request))).await;
    let (process, client) = balancer(&[("A", echo)], 1).await;
    let request = Request::get(format!("http://{}/", process.address))
        .header("x-forwarded-for", "10.9.8.7")
        .header("connection", "x-private")
        .header("x-private", "secret")
        .header("te", "trailers")
        .body(Body::empty())
        .unwrap();
    let seen = ask(&client, request).await.unwrap().text().to_lowercase();
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("host: {}\r\n", process.address)), "{seen}");
    assert!(seen.contains("x-forwarded-proto: http\r\n"), "{seen}");
    for absent in ["10.9.8.7", "secret", "trailers", "x-private"] {
        assert!(!seen.contains(absent), "{absent} in {seen}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_larger_ones_are_streamed() {
    let length = upstream(|request| Reply::Bytes(ok(&request.split_once("\r\n\r\n").unwrap().1.len().to_string()))).await;
    let (process, client) = balancer(&[("A", length)], 1).await;
    let large = "x".repeat(500_000);
    assert_eq!(post(&client, process.address, "/", &large).await.unwrap().text(), "500000");
    let too_large = "x".repeat(1024 * 1024 + 1);
    let answer = post(&client, process.address, "/", &too_large).await;
    // The balancer may answer before the body was sent; a client that goes on writing then sees the connection end.
    assert!(answer.map_or(true, |answer| answer.status == StatusCode::PAYLOAD_TOO_LARGE));
}

#[tokio::test]
async fn idle_connections_leave_files_for_the_replicas() {
    let (a, _) = healthy("A").await;
    let process = start_with_files(256, &["balance", "--listen", "127.0.0.1:0", "--replica", &format!("A={a}")]).await;
    let client = http();
    let deadline = Instant::now() + PATIENCE;
    while get(&client, process.address, "/").await.unwrap().status != StatusCode::OK {
        assert!(Instant::now() < deadline, "the replica comes up");
    }
    let mut idle = Vec::new();
    for _ in 0..300 {
        let connecting = tokio::net::TcpStream::connect(process.address);
        // The kernel keeps what the balancer does not accept, as far as its queue goes.
        idle.extend(tokio::time::timeout(Duration::from_millis(200), connecting).await.into_iter().flatten());
    }
    assert!(idle.len() > 200, "{}", idle.len());
    // Two probes later: they need a file as well.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for _ in 0..5 {
        assert_eq!(get(&client, process.address, "/").await.unwrap().text(), "A");
    }
}

#[tokio::test]
async fn what_a_client_writes_wrongly_is_its_own_fault() {
    let (a, posts) = healthy("A").await;
    let (process, client) = balancer(&[("A", a)], 1).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\ncontent-length: 1\r\n\r\nx", "400"),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", "400"),
    ] {
        let answer = raw(process.address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    assert_eq!(posts.load(Ordering::SeqCst), 0);
    // Two lengths of one body: the second request that one reader would see in it must never reach a replica.
    let smuggled = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
                    POST /smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    raw(process.address, smuggled).await;
    assert!(posts.load(Ordering::SeqCst) <= 1);
    assert_eq!(get(&client, process.address, "/fleet.json").await.unwrap().json()["replicas"][0]["state"], "up");
}

/// Sends these bytes; the first answer's head, or what came before the connection ended.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading =
        async { while !answer.ends_with(b"\r\n\r\n") && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
    // What follows the head is not looked for, so that a connection which stays open ends the wait as well.
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_silent_replica_is_taken_out_of_the_rotation() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    // The kernel accepts for it, as it does for a stopped process; nobody ever reads.
    let (b, _) = healthy("B").await;
    let (process, client) = balancer(&[("A", silent), ("B", b)], 1).await;
    for _ in 0..5 {
        assert_eq!(get(&client, process.address, "/").await.unwrap().text(), "B");
    }
    drop(listener);
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for arguments in [vec!["balance", "--replica", "A=127.0.0.1:1", "--listen", &address], vec!["up", "--listen", &address]] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo-shop")).args(arguments).output().await.unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    }
}
