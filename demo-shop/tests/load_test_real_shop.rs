//! The load test against the real shop: on an honest store nothing is lost, whatever is killed; a store that drops one
//! update in a hundred is found.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking, and nobody reads its docs")]

mod fleet_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fleet_support::redis;

/// A store that acknowledges everything and forgets one change of a cart in so many; 0 forgets nothing.
///
/// It is a real Redis behind a proxy which sends the forgotten ones to a cart that nobody reads, so that every
/// acknowledgement is the store's own.
async fn forgetful_store(store: SocketAddr, forget_every: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let changes = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(store).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let changes = Arc::clone(&changes);
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while from_client.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                    while let Some((mut request, length)) = parse(&bytes) {
                        bytes.drain(..length);
                        misdirect(&mut request, &changes, forget_every);
                        if to_server.write_all(&encode(&request)).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// One request, an array of bulk strings, and how many bytes it took; `None` while it is incomplete.
fn parse(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    fn number(bytes: &[u8], at: &mut usize, kind: u8) -> Option<usize> {
        let line_end = bytes.get(*at..)?.windows(2).position(|pair| pair == b"\r\n")? + *at;
        assert_eq!(bytes[*at], kind, "a client sends arrays of bulk strings");
        let number = std::str::from_utf8(&bytes[*at + 1..line_end]).unwrap().parse().unwrap();
        *at = line_end + 2;
        Some(number)
    }
    let mut at = 0;
    let mut parts = Vec::new();
    for _ in 0..number(bytes, &mut at, b'*')? {
        let length = number(bytes, &mut at, b'$')?;
        parts.push(bytes.get(at..at + length)?.to_vec());
        at += length + 2;
    }
    (bytes.len() >= at).then_some((parts, at))
}

fn encode(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The script of a cart's change has the cart and its tokens as the first keys and the operation as the first argument.
fn misdirect(request: &mut [Vec<u8>], changes: &AtomicU64, forget_every: u64) {
    let is_script = request.first().is_some_and(|name| name == b"EVALSHA" || name == b"EVAL");
    let keys = request.get(2).and_then(|keys| std::str::from_utf8(keys).ok()?.parse::<usize>().ok()).unwrap_or(0);
    let operation = request.get(3 + keys).map(Vec::as_slice);
    if is_script && keys >= 2 && matches!(operation, Some(b"add" | b"set" | b"remove")) {
        let count = changes.fetch_add(1, Ordering::SeqCst) + 1;
        if forget_every > 0 && count.is_multiple_of(forget_every) {
            for key in &mut request[3..5] {
                *key.last_mut().unwrap() = b'~';
            }
        }
    }
}

/// Runs the load test with these arguments; its exit code, its report and what it printed.
async fn load_test(arguments: &[&str]) -> (i32, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("report.json"), folder.path().join("report.html"));
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo-shop"))
        .arg("load-test")
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(std::fs::read_to_string(&html).unwrap().contains("<svg"));
    (output.status.code().unwrap(), report, text)
}

const SMALL: [&str; 6] = ["--shoppers", "30", "--duration", "8s", "--think-time", "60ms"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_replicas_are_killed() {
    let arguments = [&SMALL[..], &["--replicas", "1,3", "--kill-replica-every", "2s"]].concat();
    let (code, report, text) = load_test(&arguments).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("PASSED"), "{text}");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["replicas"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for run in runs {
        let kills = run["kills"].as_array().unwrap();
        assert!(kills.len() >= 2, "{run}");
        assert!(kills.iter().all(|kill| kill["first_success_ms"].is_number()), "{kills:?}");
        assert!(run["operations"]["acknowledged"].as_u64().unwrap() > 100, "{run}");
        assert!(run["operations"]["carts_compared"].as_u64().unwrap() > 60, "{run}");
    }
    let wide = &runs[1];
    assert_eq!(wide["shares"].as_array().unwrap().len(), 3);
    assert!(wide["instances_per_shopper"]["min"].as_u64().unwrap() >= 2, "nothing is sticky: {wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_primary_of_a_cluster_is_killed_and_frozen() {
    let often = ["--cluster", "--kill-node-every", "6s", "--freeze-node-every", "6s"];
    let arguments = [&["--replicas", "2", "--shoppers", "30", "--duration", "15s", "--think-time", "60ms"], &often[..]].concat();
    let (code, report, text) = load_test(&arguments).await;
    assert_eq!(code, 0, "{text}");
    let run = &report["runs"][0];
    let kills = run["kills"].as_array().unwrap();
    for failure in ["node_killed", "node_frozen"] {
        let gaps: Vec<_> = kills.iter().filter(|kill| kill["failure"] == failure).map(|kill| &kill["gap_ms"]).collect();
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.is_number()), "{failure}: {kills:?}");
    }
    assert!(run["operations"]["acknowledged"].as_u64().unwrap() > 100, "{run}");
    assert!(run["operations"]["carts_compared"].as_u64().unwrap() > 60, "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_drops_one_update_in_a_hundred_is_found() {
    let redis = redis().await;
    for (forget_every, expected) in [(0, 0), (100, 1)] {
        let store = forgetful_store(redis.address, forget_every).await;
        let cache = format!("redis://{store}");
        let arguments = [&SMALL[..], &["--replicas", "2", "--cache", &cache]].concat();
        let (code, report, text) = load_test(&arguments).await;
        assert_eq!(code, expected, "{text}");
        let lost = report["runs"][0]["losses"]["lost_updates"].as_u64().unwrap();
        assert_eq!(lost > 0, expected == 1, "{text}");
        assert_eq!(text.contains("FAILED"), expected == 1, "{text}");
    }
}
