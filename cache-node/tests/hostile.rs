//! Clients that break the protocol, lie about lengths, send nothing, read nothing or come by the thousand. While they do, a healthy
//! client keeps getting right answers, the node's memory stays below a bound, and no thread of it panics.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use support::{
    Value, Wire,
    content::info,
    process::Binary,
    server::{Kind, Server},
    wait_until,
    wire::encode,
};

const MB: usize = 1024 * 1024;

/// Longest that the healthy client may wait for one answer while others misbehave: a debug build on a busy machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// A node with a healthy client; [`Siege::lifted`] looks at both at the end.
struct Siege {
    node: Binary,
    healthy: Option<JoinHandle<(u64, Duration)>>,
    is_over: Arc<AtomicBool>,
    resident_before: usize,
}

impl Siege {
    fn laid(arguments: &[&str]) -> Siege {
        let node = Binary::start(&[&["--port", "0"], arguments].concat());
        let is_over = Arc::new(AtomicBool::new(false));
        let (started, has_started) = mpsc::channel();
        let healthy = thread::spawn({
            let (address, is_over) = (node.address, Arc::clone(&is_over));
            move || live(address, &is_over, &started)
        });
        // Its connections come before the hostile ones.
        has_started.recv().expect("the healthy client got an answer");
        let resident_before = node.resident_bytes();
        Siege { node, healthy: Some(healthy), is_over, resident_before }
    }

    fn address(&self) -> SocketAddr {
        self.node.address
    }

    fn grown_bytes(&self) -> usize {
        self.node.resident_bytes().saturating_sub(self.resident_before)
    }

    fn assert_grown_less_than(&self, bytes_max: usize) {
        let grown = self.grown_bytes();
        assert!(grown < bytes_max, "the node grew by {} MB, more than {} MB", grown / MB, bytes_max / MB);
    }

    /// Ends the healthy client and checks what it saw, then ends the node and checks that nothing in it panicked.
    fn lifted(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (answers, slowest) = self.healthy.take().unwrap().join().expect("the healthy client got only right answers");
        assert!(answers > 0, "the healthy client got no answer");
        assert!(slowest < ANSWER_TIME_MAX, "the healthy client waited {slowest:?}");
        let status = self.node.end_by("TERM");
        assert!(status.success(), "{status}");
        let errors = self.node.errors();
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

/// Writes and reads back until told to stop; gives the number of answers and the longest wait.
fn live(address: SocketAddr, is_over: &AtomicBool, started: &mpsc::Sender<()>) -> (u64, Duration) {
    let mut wires = [Wire::connect(address), Wire::connect(address)];
    wires.iter_mut().for_each(|wire| assert_eq!(wire.run("PING"), Value::Simple("PONG".to_owned())));
    started.send(()).unwrap();
    let (mut answers, mut slowest) = (0, Duration::ZERO);
    // Once at least: the others may be over before this one has begun.
    loop {
        for (index, wire) in wires.iter_mut().enumerate() {
            let started = Instant::now();
            let (key, value) = (format!("healthy-{index}"), answers.to_string());
            assert_eq!(wire.call(&["SET", &key, &value]), Value::ok());
            assert_eq!(wire.call(&["GET", &key]), Value::bulk(&value));
            slowest = slowest.max(started.elapsed());
            answers += 1;
        }
        if is_over.load(Ordering::Relaxed) {
            return (answers, slowest);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_not_the_protocol_gets_an_error_and_a_close() {
    let siege = Siege::laid(&[]);
    let long = |first: u8| [&[first], &[b'1'; 64 * 1024][..]].concat();
    let cases: [(&[u8], &str); 14] = [
        (b"*1\r\n$-2\r\n", "invalid bulk length"),
        (b"*1\r\n$9223372036854775808\r\n", "invalid bulk length"),
        (b"*1\r\n$18446744073709551616\r\n", "invalid bulk length"),
        (b"*1\r\n$629145600\r\n", "invalid bulk length"),
        (b"*1\r\n$abc\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*9223372036854775808\r\n", "invalid multibulk length"),
        (b"*abc\r\n", "invalid multibulk length"),
        (b"*1\r\n*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*2\r\n$3\r\nGET\r\n:1\r\n", "expected '$', got ':'"),
        (&long(b'a'), "too big inline request"),
        (&long(b'*'), "too big mbulk count string"),
        (b"SET \"a\r\n", "unbalanced quotes"),
    ];
    for (bytes, expected) in cases {
        let mut wire = Wire::connect(siege.address());
        wire.send_raw(bytes);
        let text = wire.read().text();
        assert!(
            text.starts_with("ERR Protocol error: ") && text.contains(expected),
            "{:?}: {text}",
            bytes.escape_ascii().to_string()
        );
        assert!(wire.is_closed(), "{text}: the connection stays open");
    }
    siege.assert_grown_less_than(32 * MB);
    siege.lifted();
}

/// What nothing was remembered of yet looked like a request of nothing but zeros, with the command of the last one that was too short to
/// be remembered.
#[test]
fn zeros_behind_a_short_request_are_none() {
    let siege = Siege::laid(&["--io-threads", "1"]);
    for short in [&["SET", "k", "v"][..], &["APPEND", "k", "v"], &["GET", "k"], &["RPUSH", "l", "v"]] {
        let mut wire = Wire::connect(siege.address());
        assert!(!matches!(wire.call(short), Value::Error(_)), "{short:?}");
        for count in [32, 64, 4_096] {
            wire.send_raw(&vec![0; count]);
        }
        // They are a line with nothing on it.
        wire.send_raw(b"\r\nPING\r\n");
        assert_eq!(wire.read(), Value::Simple("PONG".to_owned()), "{short:?}");
    }
    siege.lifted();
}

#[test]
fn random_bytes_harm_nobody() {
    const CONNECTIONS: u64 = 2_000;
    let siege = Siege::laid(&[]);
    let mut random = StdRng::seed_from_u64(42);
    for _ in 0..CONNECTIONS {
        let length = random.random_range(1..2_000);
        // Every other one is made of what the parser looks at.
        let bytes: Vec<u8> = if random.random() {
            (0..length).map(|_| random.random()).collect()
        } else {
            (0..length).map(|_| b"*$0123456789\r\n-+:\"' abGETSETPING\0"[random.random_range(0..33)]).collect()
        };
        let mut stream = TcpStream::connect(siege.address()).unwrap();
        // The node may close while this is still being sent.
        let sent = stream.write_all(&bytes);
        drop(sent);
        if random.random_ratio(1, 4) {
            stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            let read = stream.read(&mut [0; 1024]);
            drop(read);
        }
    }
    siege.assert_grown_less_than(64 * MB);
    siege.lifted();
}

#[test]
fn half_a_request_and_a_close_leave_nothing_behind() {
    let siege = Siege::laid(&[]);
    let request = encode(&["SET", "half", "0123456789"]);
    for end in 1..request.len() {
        let mut stream = TcpStream::connect(siege.address()).unwrap();
        stream.write_all(&request[..end]).unwrap();
    }
    let mut wire = Wire::connect(siege.address());
    // Only the last one lacks nothing but its line break, and even that is no request.
    assert_eq!(wire.run("EXISTS half"), Value::Integer(0));
    wait_until("the half connections are gone", || wire.run("CLIENT LIST").text().lines().count() == 3);
    siege.lifted();
}

#[test]
fn a_client_that_reads_nothing_holds_little() {
    let siege = Siege::laid(&[]);
    let mut wire = Wire::connect(siege.address());
    assert_eq!(wire.call(&[&b"SET"[..], b"big", &vec![b'x'; MB]]), Value::ok());
    let loaded = siege.grown_bytes();
    let deaf: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(siege.address()).unwrap()).collect();
    // 10 GB of replies are asked for by each.
    let request = encode(&["GET", "big"]).repeat(10_000);
    for mut stream in &deaf {
        stream.set_nonblocking(true).unwrap();
        let mut rest = &request[..];
        let started = Instant::now();
        while !rest.is_empty() && started.elapsed() < Duration::from_millis(300) {
            match stream.write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("{error}"),
            }
        }
    }
    thread::sleep(Duration::from_millis(500));
    // Per connection: one value more than the batch's bound, and the socket's own buffers are the kernel's.
    siege.assert_grown_less_than(loaded + 8 * 8 * MB);
    drop(deaf);
    wait_until("the deaf connections are gone", || wire.run("CLIENT LIST").text().lines().count() == 3);
    siege.lifted();
}

#[test]
fn a_reply_has_a_limit() {
    let siege = Siege::laid(&[]);
    let mut wire = Wire::connect(siege.address());
    assert_eq!(wire.call(&[&b"SET"[..], b"big", &vec![b'x'; 8 * MB]]), Value::ok());
    // 2 GB, asked for with 2 KB.
    let mut request = vec!["MGET"];
    request.extend(std::iter::repeat_n("big", 250));
    let reply = wire.call(&request);
    assert!(reply.is_error("ERR") && reply.text().contains("limit of a reply"), "{reply:?}");
    assert_eq!(wire.run("STRLEN big"), Value::Integer(8 * MB as i64));
    // What was built up to the limit is given back.
    wait_until("memory is given back", || siege.grown_bytes() < 200 * MB);
    siege.lifted();
}

#[test]
fn an_announced_value_that_never_comes_costs_nothing() {
    let siege = Siege::laid(&[]);
    let waiting: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(siege.address()).unwrap();
            stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$104857600\r\nonly this").unwrap();
            stream
        })
        .collect();
    // Arguments by the million that never come, too.
    let more: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(siege.address()).unwrap();
            stream.write_all(b"*1048576\r\n$1\r\na\r\n").unwrap();
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    siege.assert_grown_less_than(48 * MB);
    drop((waiting, more));
    siege.lifted();
}

#[test]
fn a_large_value_comes_in_pieces() {
    let siege = Siege::laid(&[]);
    let mut wire = Wire::connect(siege.address());
    let value: Vec<u8> = (0..100 * MB).map(|index| (index / 1_000) as u8).collect();
    for piece in encode(&[&b"SET"[..], b"large", &value]).chunks(700_001) {
        wire.send_raw(piece);
    }
    assert_eq!(wire.read(), Value::ok());
    assert_eq!(wire.run("STRLEN large"), Value::Integer(value.len() as i64));
    assert_eq!(wire.run("GETRANGE large 52428800 52428899"), Value::Bulk(value[52_428_800..52_428_900].to_vec()));
    siege.lifted();
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_is_served() {
    let siege = Siege::laid(&[]);
    let mut wire = Wire::connect(siege.address());
    let bytes = [encode(&["SET", "slow", "value\r\n"]), b"GET slow\r\n".to_vec(), encode(&["DEL", "slow"])].concat();
    for byte in bytes {
        wire.send_raw(&[byte]);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!([wire.read(), wire.read(), wire.read()], [Value::ok(), Value::bulk("value\r\n"), Value::Integer(1)]);
    siege.lifted();
}

#[test]
fn thousands_of_connections_come_and_go() {
    let siege = Siege::laid(&[]);
    let files = siege.node.open_files();
    for _ in 0..10 {
        let mut round: Vec<Wire> = (0..300).map(|_| Wire::connect(siege.address())).collect();
        round.iter_mut().for_each(|wire| wire.send(&["PING"]));
        assert!(round.iter_mut().all(|wire| wire.read() == Value::Simple("PONG".to_owned())));
    }
    for _ in 0..2_000 {
        drop(TcpStream::connect(siege.address()).unwrap());
    }
    wait_until("the connections are closed", || siege.node.open_files() <= files + 2);
    siege.assert_grown_less_than(48 * MB);
    siege.lifted();
}

#[test]
fn one_connection_too_many_is_told_so() {
    // The healthy client has two.
    let siege = Siege::laid(&["--maxclients", "10"]);
    let mut inside: Vec<Wire> = (0..8).map(|_| Wire::connect(siege.address())).collect();
    inside.iter_mut().for_each(|wire| assert_eq!(wire.run("PING"), Value::Simple("PONG".to_owned())));
    for _ in 0..20 {
        let mut outside = Wire::connect(siege.address());
        assert_eq!(outside.read(), Value::Error("ERR max number of clients reached".to_owned()));
        assert!(outside.is_closed());
    }
    drop(inside.pop());
    wait_until("a place is free again", || {
        let mut wire = Wire::connect(siege.address());
        let sent = wire.stream.write_all(b"PING\r\n");
        sent.is_ok() && wire.try_read().is_ok_and(|reply| reply == Value::Simple("PONG".to_owned()))
    });
    siege.lifted();
}

#[test]
fn a_transaction_without_end_is_refused() {
    let siege = Siege::laid(&[]);
    let mut wire = Wire::connect(siege.address());
    let value = vec![b'x'; 16 * MB];
    // Three times: what the first one took serves the next ones, whether the allocator gives it back to the system or not.
    for _ in 0..3 {
        assert_eq!(wire.run("MULTI"), Value::ok());
        let replies: Vec<Value> = (0..20).map(|_| wire.call(&[&b"SET"[..], b"k", &value])).collect();
        assert!(replies[0] == Value::Simple("QUEUED".to_owned()) && replies[19].is_error("ERR"), "{:?}", replies[19]);
        siege.assert_grown_less_than(400 * MB);
        assert!(wire.run("EXEC").is_error("EXECABORT"));
        assert_eq!(wire.run("EXISTS k"), Value::Integer(0));
    }
    siege.lifted();
}

#[test]
fn a_subscriber_that_reads_nothing_is_closed() {
    let siege = Siege::laid(&["--client-output-buffer-limit", "pubsub 4mb 0 0"]);
    let mut deaf = Wire::connect(siege.address());
    deaf.run("SUBSCRIBE news");
    let mut publisher = Wire::connect(siege.address());
    let message = "x".repeat(256 * 1024);
    let started = Instant::now();
    while publisher.call(&["PUBLISH", "news", &message]) == Value::Integer(1) {
        assert!(started.elapsed() < support::PATIENCE, "a subscriber that takes nothing is still there");
    }
    siege.assert_grown_less_than(64 * MB);
    siege.lifted();
}

#[test]
fn a_script_without_end_is_ended() {
    let siege = Siege::laid(&["--lua-time-limit", "200"]);
    let mut wire = Wire::connect(siege.address());
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do string.rep('x', 100000) end",
        "local t, n = {}, 0 while true do n = n + 1 t[n] = string.rep('x', 100000) .. n end",
    ] {
        let reply = wire.call(&["EVAL", script, "0"]);
        assert!(reply.is_error("ERR"), "{script}: {reply:?}");
    }
    assert_eq!(wire.run("PING"), Value::Simple("PONG".to_owned()));
    siege.lifted();
}

/// What it sent behind its WAIT, and nobody reads before that is over, must not hide that it is gone.
#[test]
fn a_client_that_closes_while_it_waits_gives_its_place_back() {
    for kind in [Kind::Node, Kind::Redis] {
        let server = Server::start(kind, &[]);
        let mut watching = server.wire();
        for behind in ["", "PING\r\n", &"PING\r\n".repeat(1_000)] {
            let mut waiting = server.wire();
            waiting.send_raw(b"WAIT 1 0\r\n");
            assert!(waiting.is_silent(Duration::from_millis(100)));
            waiting.send_raw(behind.as_bytes());
            drop(waiting);
            let length = behind.len();
            let is_free = || info(&mut watching, "connected_clients") == "1";
            wait_until(&format!("{kind:?} lets go of a client with {length} bytes behind WAIT"), is_free);
        }
    }
}
