//! Bytes that no client should send to a cache node: whoever sends them is told or cut off, nobody else notices.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use end_to_end::cache_node::CacheNode;
use end_to_end::proc;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What the node may hold after everything below; a bulk of 600 MB that was reserved or kept would be well past it.
const RESIDENT_MAX_BYTES: u64 = 160 * 1024 * 1024;
/// The healthy client waits for a reply no longer than this, on a machine that also compiles.
const REPLY_MAX: Duration = Duration::from_secs(2);
/// A sender of nonsense that is neither answered nor cut off is not waited for any longer.
const NONSENSE_MAX: Duration = Duration::from_secs(3);

/// Writes and reads all the time, and counts in `rounds`; panics at the first wrong or late reply.
async fn healthy_client(url: String, rounds: watch::Sender<u64>) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for round in 1_u64.. {
        let started = Instant::now();
        let (value,): (u64,) = redis::pipe()
            .cmd("SET")
            .arg("healthy")
            .arg(round)
            .ignore()
            .cmd("GET")
            .arg("healthy")
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(value, round);
        assert!(started.elapsed() < REPLY_MAX, "a reply took {:?}", started.elapsed());
        if rounds.send(round).is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for a round that began after the call, so that whoever sent nonsense before it has been seen to harm nobody.
async fn is_served(rounds: &mut watch::Receiver<u64>, what: &str) {
    let next = *rounds.borrow_and_update() + 2;
    let round = tokio::time::timeout(2 * REPLY_MAX, rounds.wait_for(|round| *round >= next)).await;
    assert!(matches!(round, Ok(Ok(_))), "the healthy client waits, or was refused, after {what}");
}

/// Sends bytes and reads until the node closes, or answers, or stays silent.
async fn send(address: &str, bytes: &[u8]) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The node may close while it is still being written to.
    let _ = tokio::time::timeout(NONSENSE_MAX, stream.write_all(bytes)).await;
    let mut reply = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(NONSENSE_MAX, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => {
                return Outcome { reply, closed: true };
            }
            Ok(Ok(n)) => reply.extend_from_slice(&buffer[..n]),
            Err(_) => {
                return Outcome { reply, closed: false };
            }
        }
    }
}

#[derive(Debug)]
struct Outcome {
    reply: Vec<u8>,
    closed: bool,
}

impl Outcome {
    fn assert_refused(&self, what: &str) {
        let error = self.reply.starts_with(b"-ERR");
        let reply = String::from_utf8_lossy(&self.reply);
        assert!(self.closed, "{what}: the connection is still open, reply {reply:?}");
        assert!(error || self.reply.is_empty(), "{what}: neither an error nor a plain close: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bytes_harm_nobody_else() {
    let mut node = CacheNode::start(&[]).await.unwrap();
    let (sender, mut rounds) = watch::channel(0);
    let healthy = tokio::spawn(healthy_client(node.url(), sender));
    is_served(&mut rounds, "the start").await;
    let address = node.address().to_owned();

    let refused: [(&str, &[u8]); 7] = [
        ("a bulk length of -2", b"*1\r\n$-2\r\n"),
        ("a bulk length of 2^63", b"*1\r\n$9223372036854775808\r\n"),
        ("an array length of 2^63", b"*9223372036854775808\r\n"),
        ("a bulk of 600 MB", b"*2\r\n$3\r\nGET\r\n$629145600\r\n"),
        ("a length that is no number", b"*1\r\n$abc\r\n"),
        ("an array in a command", b"*1\r\n*1\r\n$4\r\nPING\r\n"),
        ("an integer in a command", b"*1\r\n:1\r\n"),
    ];
    for (what, bytes) in refused {
        send(&address, bytes).await.assert_refused(what);
        is_served(&mut rounds, what).await;
    }

    let nested = b"*1\r\n".repeat(500_000);
    send(&address, &nested).await.assert_refused("half a million nested arrays");
    is_served(&mut rounds, "half a million nested arrays").await;
    let line = vec![b'a'; 8 * 1024 * 1024];
    send(&address, &line).await.assert_refused("an inline command of 8 MB without an end");
    is_served(&mut rounds, "an inline command of 8 MB").await;

    // Many that announce the largest bulk that is allowed, send a little and stay: nothing may be reserved for them.
    let mut waiting = Vec::new();
    let mut longest_array = TcpStream::connect(&address).await.unwrap();
    longest_array.write_all(b"*2000000000\r\n$4\r\nPING\r\n").await.unwrap();
    waiting.push(longest_array);
    for _ in 0..50 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc").await.unwrap();
        waiting.push(stream);
    }
    is_served(&mut rounds, "fifty bulks that are announced and do not come").await;

    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..200 {
        let length = random.random_range(1..4096);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        if random.random() {
            bytes.splice(0..0, *b"*3\r\n$3\r\nSET\r\n");
        }
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        // Nonsense may be the beginning of a request, so a silent node is right too; hang up on it.
        let _ = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut [0; 1024])).await;
    }

    let resident = proc::resident_bytes_max(node.server.pid()).unwrap();
    assert!(resident < RESIDENT_MAX_BYTES, "the node held {resident} bytes");
    is_served(&mut rounds, "random bytes").await;
    drop(rounds);
    healthy.await.unwrap();
    assert!(node.server.exit_status().is_none());
    drop(waiting);
}
