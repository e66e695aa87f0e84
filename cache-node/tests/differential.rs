//! The same commands to a node and to a real Redis or Valkey: the replies must be the same bytes.
//!
//! The tables in `differential/` hold one command per line. A blank line begins a new block: new connections, empty databases. Every
//! block runs in RESP2 and again in RESP3. A mark before the command says where replies may differ:
//!
//! - `~` elements in any order; `~2` pairs in any order: what Redis does not order either;
//! - `=` numbers by value: Redis 7.0 prints doubles with `%.17g`, 7.2, which the node follows, with the shortest digits;
//! - `%` only the kind and the number of elements: random members, times, identities;
//! - `^` errors by their first word: the comment above gives the reason;
//! - `>` a command that Redis 7.0 does not have or answers otherwise than 7.2: sent to the node alone, the reply stands behind `=>`;
//! - `b:` the command goes over a second connection;
//! - `!` before all other marks: sent to the node and Redis alone, since Valkey 8 answers otherwise.
//!
//! Valkey answers what is marked `>` as 7.2 does: there the node is compared with it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use cache_node::{Config, Node};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use support::{Engine, RedisServer, Value, Wire, random::command as random_command, words};

const TABLES: [(&str, &str); 10] = [
    ("strings", include_str!("differential/strings.txt")),
    ("keys", include_str!("differential/keys.txt")),
    ("hashes", include_str!("differential/hashes.txt")),
    ("sets", include_str!("differential/sets.txt")),
    ("sorted_sets", include_str!("differential/sorted_sets.txt")),
    ("lists", include_str!("differential/lists.txt")),
    ("transactions", include_str!("differential/transactions.txt")),
    ("connection", include_str!("differential/connection.txt")),
    ("server", include_str!("differential/server.txt")),
    ("scripting", include_str!("differential/scripting.txt")),
];

/// Commands without a line in the tables, with the reason.
const NOT_COMPARED: [(&str, &str); 11] = [
    ("acl", "has tables of its own; tests/acl/main.rs"),
    ("replicaof", "changes the role; tests/replication.rs"),
    ("slaveof", "changes the role; tests/replication.rs"),
    ("psync", "makes the connection a replica's; tests/replication.rs"),
    ("sync", "makes the connection a replica's; tests/replication.rs"),
    ("replconf", "belongs to replicas; tests/replication.rs"),
    ("waitaof", "Redis 7.0 does not have it; tests/aof/waiting.rs"),
    ("save", "writes a file; tests/snapshots.rs"),
    ("bgsave", "writes a file; tests/snapshots.rs"),
    ("lastsave", "tells a time; tests/snapshots.rs"),
    ("shutdown", "ends the node; tests/snapshots.rs"),
];

/// The time within which what is left of a key's time, told in seconds, is all of it.
const SOON: Duration = Duration::from_millis(300);

/// A node and a real server, and two connections to each.
struct Pair {
    node: [Wire; 2],
    redis: [Wire; 2],
    /// The longest time between a request to the one and the answer of the other.
    apart_max: Duration,
    began: Instant,
}

impl Pair {
    fn connect(node: &Node, redis: &RedisServer, protocol: u8) -> Pair {
        let connect = |address| {
            let mut wire = Wire::connect(address);
            if protocol == 3 {
                wire.run("HELLO 3");
            }
            wire
        };
        let mut pair = Pair {
            node: [connect(node.addr()), connect(node.addr())],
            redis: [connect(redis.address), connect(redis.address)],
            apart_max: Duration::ZERO,
            began: Instant::now(),
        };
        pair.both(0, &["FLUSHALL"]);
        pair
    }

    fn both(&mut self, connection: usize, arguments: &[impl AsRef<[u8]>]) -> (Value, Value) {
        let asked = Instant::now();
        self.node[connection].send(arguments);
        self.redis[connection].send(arguments);
        let read = |wire: &mut Wire| wire.try_read().unwrap_or_else(|error| Value::Error(format!("no reply: {error}")));
        let replies = (read(&mut self.node[connection]), read(&mut self.redis[connection]));
        self.apart_max = self.apart_max.max(asked.elapsed());
        replies
    }

    /// How many seconds what is left of a key's time may differ: the two were given it at two moments, and asked at two others.
    fn seconds_apart_max(&self) -> i64 {
        1 + (2 * self.apart_max).as_secs() as i64
    }
}

/// One line of a table.
struct Line<'a> {
    is_for_valkey: bool,
    mark: &'a str,
    connection: usize,
    command: &'a str,
}

fn line(text: &str) -> Line<'_> {
    let command = text.strip_prefix("! ").unwrap_or(text);
    let mut line = Line { is_for_valkey: command == text, mark: "", connection: 0, command };
    for mark in ["~2 ", "~ ", "= ", "% ", "^ ", "> "] {
        if let Some(command) = line.command.strip_prefix(mark) {
            line = Line { mark: mark.trim_end(), command, ..line };
            break;
        }
    }
    if let Some(command) = line.command.strip_prefix("b: ") {
        line = Line { connection: 1, command, ..line };
    }
    line
}

/// Makes equal what the mark allows to differ.
fn normalized(mut value: Value, mark: &str) -> Value {
    match mark {
        "~" => {
            if let Some(elements) = value.elements_mut() {
                // SCAN and its family: the cursor stays in front.
                if let [Value::Bulk(_), found @ (Value::Array(_) | Value::Set(_))] = &mut elements[..] {
                    found.elements_mut().unwrap().sort();
                } else {
                    elements.sort();
                }
            }
            value
        }
        "~2" => {
            if let Some(elements) = value.elements_mut() {
                let elements = match &mut elements[..] {
                    [Value::Bulk(_), Value::Array(found)] => found,
                    _ => elements,
                };
                let mut pairs: Vec<Vec<Value>> = elements.chunks(2).map(<[Value]>::to_vec).collect();
                pairs.sort();
                *elements = pairs.concat();
            }
            value
        }
        "=" => by_value(value),
        "%" => kind(&value),
        "^" => first_words(value),
        _ => value,
    }
}

fn first_words(mut value: Value) -> Value {
    if let Value::Error(text) = &value {
        return Value::Error(text.split(' ').next().unwrap().to_owned());
    }
    if let Some(elements) = value.elements_mut() {
        elements.iter_mut().for_each(|element| *element = first_words(element.clone()));
    }
    value
}

fn by_value(mut value: Value) -> Value {
    if let Some(elements) = value.elements_mut() {
        elements.iter_mut().for_each(|element| *element = by_value(element.clone()));
    }
    match &value {
        Value::Double(text) => Value::Double(text.parse::<f64>().unwrap().to_string()),
        Value::Bulk(bytes) => match std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<f64>().ok()) {
            Some(number) => Value::Double(number.to_string()),
            None => value,
        },
        _ => value,
    }
}

fn kind(value: &Value) -> Value {
    match value {
        Value::Bulk(_) => Value::bulk("…"),
        Value::Verbatim(_) => Value::Verbatim(Vec::new()),
        Value::Integer(_) => Value::Integer(1),
        Value::Double(_) => Value::Double("…".to_owned()),
        Value::Array(elements) => Value::Array(elements.iter().map(kind).collect()),
        Value::Set(elements) => Value::Set(elements.iter().map(kind).collect()),
        Value::Map(elements) => Value::Map(elements.iter().map(kind).collect()),
        other => other.clone(),
    }
}

#[tokio::test]
async fn every_command_answers_as_redis_does() {
    every_command_answers_as(Engine::Redis).await;
}

#[tokio::test]
async fn every_command_answers_as_valkey_does() {
    every_command_answers_as(Engine::Valkey).await;
}

async fn every_command_answers_as(engine: Engine) {
    let server = RedisServer::start_of(engine, &[]);
    let node = Node::spawn(Config::for_test()).await.unwrap();
    let mut differences = Vec::new();
    let mut compared = 0;
    for (table, text) in TABLES {
        for protocol in [2, 3] {
            let mut pair = Pair::connect(&node, &server, protocol);
            let mut previous = "";
            for (number, text) in text.lines().enumerate() {
                if text.is_empty() {
                    pair = Pair::connect(&node, &server, protocol);
                } else if !text.starts_with('#') {
                    let line = line(text);
                    let needs_reason = !line.is_for_valkey || ["^", ">"].contains(&line.mark);
                    let has_reason = previous.starts_with(['#', '^', '>', '!']);
                    assert!(has_reason || !needs_reason, "{table}:{}: a reason is missing", number + 1);
                    let is_sent = engine == Engine::Redis || line.is_for_valkey;
                    compared += usize::from(is_sent);
                    if is_sent && let Some(difference) = compare(&mut pair, &line, protocol, engine) {
                        let is_over = difference.contains("no reply");
                        differences.push(format!("{table}.txt:{} (RESP{protocol}) {text}\n{difference}", number + 1));
                        assert!(!is_over, "{}", differences.join("\n"));
                    }
                }
                previous = text;
            }
        }
    }
    assert!(differences.is_empty(), "{} of {compared} replies differ:\n{}", differences.len(), differences.join("\n"));
}

fn compare(pair: &mut Pair, line: &Line<'_>, protocol: u8, engine: Engine) -> Option<String> {
    let arguments = if line.mark == ">" {
        let (command, expected) = line.command.split_once(" => ").expect("a line for the node alone has its reply behind =>");
        if engine == Engine::Redis {
            // Two forms where the protocols differ.
            let expected = match expected.split_once(" | ") {
                Some((resp2, _)) if protocol == 2 => resp2,
                Some((_, resp3)) => resp3,
                None => expected,
            };
            let given = format!("{:?}", pair.node[line.connection].run(command));
            return (given != expected).then(|| format!("  node  {given}\n  7.2   {expected}"));
        }
        words(command)
    } else {
        words(line.command)
    };
    let (node, server) = pair.both(line.connection, &arguments);
    if let (Value::Integer(ours), Value::Integer(theirs)) = (&node, &server)
        && arguments[0].eq_ignore_ascii_case(b"TTL")
        && ours.min(theirs) >= &0
        && pair.began.elapsed() > SOON
        && (ours - theirs).abs() <= pair.seconds_apart_max()
    {
        // A busy machine: half a second may have passed for the one and not for the other.
        return None;
    }
    let (node, server) = (normalized(node, line.mark), normalized(server, line.mark));
    (node != server).then(|| format!("  node   {node:?}\n  {engine:?} {server:?}"))
}

/// A command that is not in the tables is a command that nobody compared.
#[tokio::test]
async fn every_command_is_in_the_tables() {
    let node = Node::spawn(Config::for_test()).await.unwrap();
    let mut wire = Wire::connect(node.addr());
    let listed = wire.run("COMMAND LIST");
    let compared: Vec<String> = TABLES
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter(|text| !text.is_empty() && !text.starts_with('#'))
        .map(|text| String::from_utf8_lossy(&words(line(text).command)[0]).to_ascii_lowercase())
        .collect();
    let missing: Vec<String> = listed
        .elements()
        .iter()
        .map(Value::text)
        // Subcommands are compared by tests/listing.rs.
        .filter(|name| !name.contains('|') && !compared.contains(name) && !NOT_COMPARED.iter().any(|(known, _)| known == name))
        .collect();
    assert!(missing.is_empty(), "commands without a line in tests/differential/: {missing:?}");
}

/// Everything that the tables do to keys is told on the same channels in the same order.
#[tokio::test]
async fn writes_tell_the_same_events() {
    let redis = RedisServer::start();
    let node = Node::spawn(Config::for_test()).await.unwrap();
    let mut listeners = [Wire::connect(node.addr()), Wire::connect(redis.address)];
    for listener in &mut listeners {
        listener.run("CONFIG SET notify-keyspace-events KEA");
        listener.run("PSUBSCRIBE __key*");
        listener.run("SUBSCRIBE end-of-block");
    }
    let mut differences = Vec::new();
    for (table, text) in TABLES.iter().filter(|(table, _)| !["connection", "server"].contains(table)) {
        let mut pair = Pair::connect(&node, &redis, 2);
        let mut commands = Vec::new();
        for text in text.lines().chain([""]) {
            if !text.is_empty() {
                let line = line(text);
                // What only one of the two has, and what is left to chance, leads to other events.
                if !text.starts_with('#') && !["%", ">"].contains(&line.mark) {
                    pair.both(line.connection, &words(line.command));
                    commands.push(text);
                }
                continue;
            }
            let mut ends = [Wire::connect(node.addr()), Wire::connect(redis.address)];
            ends.iter_mut().for_each(|end| assert_eq!(end.run("PUBLISH end-of-block x"), Value::Integer(1)));
            let [given, expected] = listeners.each_mut().map(events_of_block);
            if let Some(at) = (0..given.len().max(expected.len())).find(|at| given.get(*at) != expected.get(*at)) {
                let [given, expected] = [given.get(at..), expected.get(at..)]
                    .map(|rest| rest.unwrap_or_default().iter().take(8).cloned().collect::<Vec<_>>());
                differences.push(format!("{table}.txt, from {:?}:\n  node  {given:?}\n  redis {expected:?}", commands.first()));
            }
            commands.clear();
            pair = Pair::connect(&node, &redis, 2);
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Channels and messages up to the one that ends the block.
fn events_of_block(listener: &mut Wire) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let message = listener.read();
        let [kind, .., channel, body] = message.elements() else { panic!("{message:?} is no message") };
        if kind.text() == "message" {
            return events;
        }
        events.push(format!("{} {}", channel.text(), body.text()));
    }
}

/// Fixed, so that a failure comes again; each gives one sequence, the odd ones in RESP3.
const SEEDS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

const COMMANDS_PER_SEED: usize = 2_500;

/// What a connection has queued since MULTI: the marks of the commands.
type Queue = Option<Vec<&'static str>>;

fn difference(mark: &str, command: &str, node: Value, redis: Value, seconds_apart_max: i64) -> Option<String> {
    if let (Value::Integer(node), Value::Integer(redis)) = (&node, &redis)
        && command == "TTL"
        && (node - redis).abs() <= seconds_apart_max
    {
        // The two were asked at the two sides of a full second, or one of them late.
        return None;
    }
    let (node, redis) = (normalized(node, mark), normalized(redis, mark));
    (node != redis).then(|| format!("  node  {node:?}\n  redis {redis:?}"))
}

#[tokio::test]
async fn random_sequences_answer_and_end_as_in_redis() {
    let redis = RedisServer::start();
    let node = Node::spawn(Config::for_test()).await.unwrap();
    let templates: Vec<&str> = support::random::TEMPLATES.lines().collect();
    for seed in SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pair = Pair::connect(&node, &redis, 2 + (seed % 2) as u8);
        let mut queues: [Queue; 2] = [None, None];
        let mut history = Vec::new();
        let mut errors = 0;
        for step in 0..COMMANDS_PER_SEED {
            let Line { mark, command, .. } = line(templates.choose(&mut random).unwrap());
            let connection = usize::from(random.random_ratio(1, 4));
            let arguments = random_command(command, &mut random);
            let shown: Vec<String> = arguments.iter().map(|argument| argument.escape_ascii().to_string()).collect();
            history.push(format!("{connection}: {}", shown.join(" ")));
            let (node, redis) = pair.both(connection, &arguments);
            errors += usize::from(matches!(node, Value::Error(_)));
            let found = compare_queued(&mut queues[connection], mark, &shown[0], (node, redis), pair.seconds_apart_max());
            if let Some(found) = found {
                let recent = history[history.len().saturating_sub(30)..].join("\n  ");
                panic!("seed {seed}, command {step}:\n  {recent}\n{found}");
            }
        }
        assert!(
            errors < COMMANDS_PER_SEED / 2,
            "seed {seed}: {errors} errors: a sequence that hardly does anything compares little"
        );
        // Whatever is still queued goes away, then both databases must hold the same.
        for connection in [0, 1] {
            pair.both(connection, &["DISCARD"]);
            pair.both(connection, &["UNWATCH"]);
        }
        for db in ["0", "1"] {
            compare_database(&mut pair, db, seed);
        }
    }
}

/// Compares one reply, inside of MULTI too: EXEC's elements by the marks of what was queued.
fn compare_queued(
    queue: &mut Queue,
    mark: &'static str,
    command: &str,
    (node, redis): (Value, Value),
    seconds_apart_max: i64,
) -> Option<String> {
    let is_ok = node == Value::ok();
    match command {
        "MULTI" if is_ok => *queue = Some(Vec::new()),
        "DISCARD" => *queue = None,
        "EXEC" => {
            let marks = queue.take().unwrap_or_default();
            if let (Value::Array(nodes), Value::Array(others)) = (&node, &redis)
                && nodes.len() == others.len()
            {
                let elements = nodes.iter().zip(others).zip(&marks);
                let differences = elements
                    .filter_map(|((node, other), mark)| difference(mark, "TTL", node.clone(), other.clone(), seconds_apart_max));
                return { differences }.next();
            }
        }
        _ if node == Value::Simple("QUEUED".to_owned()) => queue.iter_mut().for_each(|marks| marks.push(mark)),
        _ => {}
    }
    difference(mark, command, node, redis, seconds_apart_max)
}

fn compare_database(pair: &mut Pair, db: &str, seed: u64) {
    pair.both(0, &["SELECT", db]);
    let (node, redis) = pair.both(0, &["KEYS", "*"]);
    let (node, redis) = (normalized(node, "~"), normalized(redis, "~"));
    assert_eq!(node, redis, "seed {seed}: keys of database {db}");
    for key in node.elements().iter().map(Value::text) {
        let (kind, other) = pair.both(0, &["TYPE", &key]);
        assert_eq!(kind, other, "seed {seed}: type of {key}");
        let (mark, read) = match kind.text().as_str() {
            "string" => ("", "GET {}"),
            "hash" => ("~2", "HGETALL {}"),
            "set" => ("~", "SMEMBERS {}"),
            "zset" => ("", "ZRANGE {} 0 -1 WITHSCORES"),
            _ => ("", "LRANGE {} 0 -1"),
        };
        let (node, redis) = pair.both(0, &words(&read.replace("{}", &key)));
        assert_eq!(normalized(node, mark), normalized(redis, mark), "seed {seed}: {key} in database {db}");
        let (node, redis) = pair.both(0, &["TTL", &key]);
        let apart_max = pair.seconds_apart_max();
        assert!((node.integer() - redis.integer()).abs() <= apart_max, "seed {seed}: TTL of {key}: {node:?}, {redis:?}");
    }
}
