//! What commands leave in the stream, and what comes of it elsewhere.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Config, Node,
    command::apply::{Applied, Applier},
    keyspace::Now,
    node::{Durability, Shared},
    server::now,
};

/// How long something may take that happens at once.
const PATIENCE: Duration = Duration::from_secs(60);

const BACKLOG_BYTES: usize = 1024 * 1024;

/// A node whose stream is kept, and a connection to it.
struct Fixture {
    node: Node,
    stream: TcpStream,
    offset: u64,
}

impl Fixture {
    fn new() -> Fixture {
        let node = Node::start(Config { io_threads: 1, ..Config::for_test() }).expect("a free port");
        let shared = node.shared();
        let keys = shared.keyspace.lock_all(0, now(), &**shared);
        shared.journal.open_backlog(BACKLOG_BYTES);
        drop(keys);
        let stream = TcpStream::connect(node.addr()).expect("it listens");
        Fixture { node, stream, offset: 0 }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.node.shared()
    }

    /// Has writes wait for a log, which nobody brings to disk.
    fn promises_disk(&self) -> Arc<Shared> {
        let shared = Arc::clone(self.shared());
        let keys = shared.keyspace.lock_all(0, now(), &*shared);
        let begins_at = shared.journal.open_log(None);
        shared.journal.barrier.follow_log(Some(begins_at));
        shared.journal.barrier.promise(Durability::Disk);
        drop(keys);
        shared
    }

    /// Sends lines as inline commands in one go and waits for all replies; gives what the stream grew by.
    fn stream_of(&mut self, lines: &[&str]) -> String {
        let text = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>() + "ECHO the-end\r\n";
        self.stream.write_all(text.as_bytes()).expect("the node reads");
        let mut replies = Vec::new();
        while !replies.ends_with(b"\r\nthe-end\r\n") {
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("the node answers");
            assert!(read > 0, "the node closed");
            replies.extend_from_slice(&chunk[..read]);
        }
        let shared = self.node.shared();
        let bytes = shared.journal.read_from(self.offset, usize::MAX).expect("within the backlog");
        self.offset += bytes.len() as u64;
        assert_eq!(shared.journal.offset(), self.offset);
        requests(&bytes)
    }
}

/// Requests as words, one request per line.
fn requests(bytes: &[u8]) -> String {
    let mut applier = Applier::default();
    let mut rest = bytes;
    let mut lines = Vec::new();
    while let Some(length) = applier.parse(rest).expect("requests") {
        let words: Vec<String> = applier.args(rest).iter().map(|word| word.escape_ascii().to_string()).collect();
        lines.push(words.join(" "));
        rest = &rest[length..];
    }
    assert!(rest.is_empty(), "a request is not whole");
    lines.join("\n")
}

#[test]
fn what_is_streamed_does_the_same_at_any_time_and_place() {
    let mut fixture = Fixture::new();
    let now_ms = now().unix_ms;
    let at = |line: &str, name: &str| {
        let at: u64 = line.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        assert!(at > now_ms + 90_000 && at < now_ms + 1_000_000, "{name}: {line}");
    };
    assert_eq!(fixture.stream_of(&["SET k v"]), "SELECT 0\nSET k v");
    for (command, expected) in [
        ("SET k v EX 100", "SET k v PXAT "),
        ("SETEX k 100 v", "SET k v PXAT "),
        ("PSETEX k 100000 v", "SET k v PXAT "),
        ("EXPIRE k 200", "PEXPIREAT k "),
        ("GETEX k PX 100000", "PEXPIREAT k "),
    ] {
        let line = fixture.stream_of(&[command]);
        assert!(line.starts_with(expected), "{command}: {line}");
        at(&line, command);
    }
    for (commands, expected) in [
        // Nothing changed, nothing streamed.
        ("GET k", ""),
        ("DEL absent", ""),
        ("SET k v NX", ""),
        ("HDEL absent f", ""),
        ("SADD k x", ""),
        ("MULTI;GET k;EXEC", ""),
        ("EVAL \"return redis.call('GET','k')\" 0", ""),
        // Options that held are not asked again.
        ("SET k w XX GET", "SET k w"),
        ("SET k w KEEPTTL", "SET k w KEEPTTL"),
        ("GETSET k x", "SET k x"),
        ("GETEX k PERSIST", ""),
        ("EXPIRE k -1", "DEL k"),
        ("SET k 1.5", "SET k 1.5"),
        ("INCRBYFLOAT k 0.25", "SET k 1.75 KEEPTTL"),
        ("HINCRBYFLOAT h f 0.5", "HSET h f 0.5"),
        ("GETDEL k", "DEL k"),
        ("SADD s a", "SADD s a"),
        ("SPOP s", "DEL s"),
        // A transaction is one, with what changed something in it; one request alone needs none.
        ("MULTI;SET a 1;GET a;DEL absent;INCR a;EXEC", "MULTI\nSET a 1\nINCR a\nEXEC"),
        ("MULTI;SET a 1;GET a;EXEC", "SET a 1"),
        ("EVAL \"redis.call('SET','a','2') redis.call('INCR','a') return 1\" 0", "MULTI\nSET a 2\nINCR a\nEXEC"),
        ("EVAL \"redis.call('SET','a','3') error('x')\" 0", "SET a 3"),
        // The database is said when it changes.
        ("SELECT 1;SET b 1;SELECT 0;SET b 1", "SELECT 1\nSET b 1\nSELECT 0\nSET b 1"),
        ("MULTI;SET a 1;SELECT 2;SET a 2;EXEC;SELECT 0", "MULTI\nSET a 1\nSELECT 2\nSET a 2\nEXEC"),
        ("SET a 1;SET b 2", "SELECT 0\nSET a 1\nSET b 2"),
        ("COPY a c DB 1", "COPY a c DB 1"),
        ("RENAME a d", "RENAME a d"),
        ("FLUSHDB", "FLUSHDB"),
        ("FLUSHALL", "FLUSHALL"),
        // What changed nothing leaves nothing, also for the command behind it.
        (r#"RESTORE absent 1 "\x00\x01v\n\x00\x91\b\xce\xb2\x198\x8a\xce" ABSTTL;SET a 1"#, "SET a 1"),
        (r#"RESTORE a 1 "\x00\x01v\n\x00\x91\b\xce\xb2\x198\x8a\xce" ABSTTL REPLACE;SET a 1"#, "DEL a\nSET a 1"),
        // A key whose time has passed goes by name before what was done to it, in the order of the commands.
        ("SET k v PXAT 1;GET k;SETNX k w", "SET k v PXAT 1\nDEL k\nSETNX k w"),
        ("SET k v PXAT 1;EXISTS k", "SET k v PXAT 1\nDEL k"),
    ] {
        let commands: Vec<&str> = commands.split(';').collect();
        assert_eq!(fixture.stream_of(&commands), expected, "{commands:?}");
    }
}

#[test]
fn removals_by_the_node_itself_are_streamed() {
    let mut fixture = Fixture::new();
    let mut stream = fixture.stream_of(&["SET passing v PXAT 1", "SET lasting v"]);
    let started = Instant::now();
    while !stream.ends_with("DEL passing") && started.elapsed() < PATIENCE {
        // The node's own sweep.
        thread::sleep(Duration::from_millis(10));
        stream = format!("{stream}\n{}", fixture.stream_of(&[])).trim_end().to_owned();
    }
    assert_eq!(stream, "SELECT 0\nSET passing v PXAT 1\nSET lasting v\nDEL passing");
    assert_eq!(
        fixture.stream_of(&["CONFIG SET maxmemory-policy allkeys-random", "CONFIG SET maxmemory 1", "SET lasting v"]),
        "DEL lasting"
    );
}

#[test]
fn what_follows_a_stream_removes_nothing_by_itself() {
    let mut fixture = Fixture::new();
    fixture.stream_of(&["SET lasting v", "SET passing v PX 1", "CONFIG SET maxmemory-policy allkeys-random"]);
    let shared = Arc::clone(fixture.shared());
    let keys = shared.keyspace.lock_all(0, now(), &*shared);
    shared.keyspace.follow(true);
    drop(keys);
    // Scripts and transactions make room before they run, for what they may write.
    let evicting = ["CONFIG SET maxmemory 1", "EVAL \"return 1\" 0", "MULTI", "EVAL \"return 1\" 0", "EXEC"];
    let stream = fixture.stream_of(&evicting);
    thread::sleep(Duration::from_millis(200));
    assert!(matches!(&*(stream + &fixture.stream_of(&[])), "" | "DEL passing"), "at most what went before it followed");
    let keys = shared.keyspace.lock_all(0, now(), &*shared);
    assert!(keys.len() >= 1);
    shared.keyspace.follow(false);
    drop(keys);
    assert!(fixture.stream_of(&["SET lasting w"]).contains("DEL lasting"), "it makes room again when it follows no more");
}

#[test]
fn an_applied_stream_leads_to_the_same_keys_and_expires_nothing_by_itself() {
    let mut fixture = Fixture::new();
    fixture.stream_of(&[
        "SET short v PX 50000",
        "EXPIRE short 100 XX",
        "MULTI",
        "RPUSH list a b",
        "LPOP list",
        "EXEC",
        "SELECT 3",
        "ZADD z 1 a",
        "SELECT 0",
        "SET gone v EX 100",
    ]);
    let bytes = fixture.shared().journal.read_from(0, usize::MAX).expect("within the backlog");
    let other = Fixture::new();
    let shared = other.shared();
    shared.keyspace.follow(true);
    let far = Now { unix_ms: now().unix_ms + 3_600_000 };
    let mut applier = Applier::default();
    let mut rest = &bytes[..];
    while let Some(length) = applier.parse(rest).expect("requests") {
        assert_eq!(applier.apply(shared, rest, far), Ok(Applied::Yes));
        rest = &rest[length..];
    }
    assert!(!applier.is_in_transaction());
    assert_eq!(applier.db(), 0);
    assert_eq!(shared.journal.offset(), 0, "what is applied is not recorded anew");
    let names = |db, now| {
        let mut keys = shared.keyspace.lock_all(db, now, &**shared);
        let mut names = Vec::new();
        keys.for_each(|key| names.push(String::from_utf8_lossy(key).into_owned()));
        names.sort();
        (names, keys.len(), keys.get(b"gone").is_some())
    };
    // An hour later they are not seen, and not removed either: that is for the stream to say.
    assert_eq!(names(0, far), (vec!["list".to_owned()], 3, false));
    assert_eq!(names(3, far).0, ["z"]);
    let mut end = Vec::new();
    crate::protocol::encode_request(&mut end, [&b"DEL"[..], b"gone", b"short"].into_iter());
    applier.parse(&end).expect("a request");
    applier.apply(shared, &end, far).expect("a known command");
    assert_eq!(names(0, far).1, 1);
}

/// Waits until the first write is in the stream.
fn wait_for_a_write(shared: &Shared) {
    let started = Instant::now();
    while shared.journal.offset() == 0 {
        assert!(started.elapsed() < PATIENCE, "nothing is written");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn replies_of_a_batch_that_wrote_wait_until_it_is_safe_and_others_do_not() {
    let mut fixture = Fixture::new();
    let shared = fixture.promises_disk();
    let mut reader = TcpStream::connect(fixture.node.addr()).expect("it listens");
    fixture.stream.write_all(b"SET k v\r\nGET k\r\n").expect("the node reads");
    wait_for_a_write(&shared);
    fixture.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time above zero");
    let mut reply = [0; 64];
    fixture.stream.read(&mut reply).expect_err("nothing is on disk yet");
    reader.write_all(b"GET k\r\n").expect("the node reads");
    assert_eq!(reader.read(&mut reply).map(|read| reply[..read].to_vec()).expect("a reader waits for nobody"), b"$1\r\nv\r\n");
    shared.journal.barrier.synced(shared.journal.offset());
    fixture.stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    let mut replies = [0; 12];
    fixture.stream.read_exact(&mut replies).expect("now it is");
    assert_eq!(&replies, b"+OK\r\n$1\r\nv\r\n");
}

#[test]
fn a_write_that_finds_its_change_made_waits_for_the_one_that_made_it() {
    let mut fixture = Fixture::new();
    let shared = fixture.promises_disk();
    fixture.stream.write_all(b"SADD s a\r\n").expect("the node reads");
    wait_for_a_write(&shared);
    fixture.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time above zero");
    let mut reply = [0; 64];
    fixture.stream.read(&mut reply).expect_err("nothing is on disk yet");
    // The client gave up waiting and asks again: "it is there already" acknowledges the first write as well.
    let again: [&[u8]; 4] = [
        b"SADD s a\r\n",
        b"EVAL \"return redis.call('sismember', 's', 'a') - 1\" 0\r\n",
        b"EVAL \"return redis.call('sadd', 's', 'a')\" 0\r\n",
        b"MULTI\r\nSADD s a\r\nEXEC\r\n",
    ];
    let mut waiting = Vec::new();
    for request in again {
        let mut client = TcpStream::connect(fixture.node.addr()).expect("it listens");
        client.set_read_timeout(Some(Duration::from_millis(100))).expect("a time above zero");
        client.write_all(request).expect("the node reads");
        client.read(&mut reply).expect_err("the first one is not on disk yet");
        waiting.push(client);
    }
    shared.journal.barrier.synced(shared.journal.offset());
    for mut client in waiting {
        client.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        let read = client.read(&mut reply).expect("now it is");
        assert!(reply[..read].ends_with(b":0\r\n") || reply[..read].starts_with(b"+OK"), "{}", reply[..read].escape_ascii());
    }
}

#[test]
fn nobody_pays_for_a_stream_that_nobody_wants() {
    let node = Node::start(Config::for_test()).expect("a free port");
    let shared = node.shared();
    let mut keys = shared.keyspace.lock_all(0, now(), &**shared);
    keys.set_string(b"k", b"v", None);
    assert!(!keys.is_recorded());
    assert_eq!((keys.commit(), shared.journal.offset()), (None, 0));
}
