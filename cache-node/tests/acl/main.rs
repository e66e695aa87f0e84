//! Users and their rights: a node beside a real Valkey, which has the words of Redis 7.2, and beside a real Redis 7.0, which has other words for the same.
//!
//! The tables hold a command per line. A blank line begins a new block: new connections, empty databases, no user but the default one. `b:`
//! the command goes over a second connection. `^`: the words of an error differ, its first one does not. `%`: the reply is of the same kind.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod files;
mod links;
mod random;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;

use cache_node::Node;
use support::{Engine, RedisServer, Value, Wire, words};

const USERS: &str = include_str!("users.txt");
const LOGINS: &str = include_str!("logins.txt");
const CHECKS: &str = include_str!("checks.txt");
const LOG: &str = include_str!("log.txt");

/// Fields of ACL LOG that tell times and connections.
const UNEQUAL: [&str; 5] = ["age-seconds", "client-info", "entry-id", "timestamp-created", "timestamp-last-updated"];

pub fn node() -> Node {
    Node::start(support::config()).unwrap()
}

/// A new connection in a version of the protocol. The server has taken it: whose password is set before that is asked for it.
fn connect(address: SocketAddr, protocol: u8) -> Wire {
    let mut wire = Wire::connect(address);
    wire.run(if protocol == 3 { "HELLO 3" } else { "PING" });
    wire
}

/// Takes away what a block left.
fn clear(address: SocketAddr) {
    let mut wire = Wire::connect(address);
    for user in wire.run("ACL USERS").elements() {
        if let Value::Bulk(name) = user {
            wire.call(&[&b"ACL"[..], b"DELUSER", name]);
        }
    }
    for line in ["ACL SETUSER default reset on nopass +@all ~* &*", "FLUSHALL", "ACL LOG RESET", "CONFIG SET acllog-max-len 128"]
    {
        assert_eq!(wire.run(line), Value::ok(), "{line}");
    }
}

/// The reply, or that there is none.
fn reply(wire: &mut Wire, command: &str) -> Value {
    use std::io::Write as _;
    let sent = wire.stream.write_all(&support::wire::encode(&words(command)));
    sent.and_then(|()| wire.try_read()).unwrap_or_else(|_| Value::Error("closed".to_owned()))
}

/// Without what differs on any two servers.
fn comparable(mut value: Value) -> Value {
    let names: Vec<bool> = match &value {
        Value::Array(elements) | Value::Map(elements) => elements
            .iter()
            .map(|element| matches!(element, Value::Bulk(text) if UNEQUAL.iter().any(|name| text == name.as_bytes())))
            .collect(),
        _ => Vec::new(),
    };
    if let Some(elements) = value.elements_mut() {
        let follows = std::iter::once(&false).chain(&names);
        for (element, is_unequal) in elements.iter_mut().zip(follows) {
            *element = if *is_unequal { Value::Null } else { comparable(element.clone()) };
        }
    }
    value
}

fn first_word(value: Value) -> Value {
    match value {
        Value::Error(text) => Value::Error(text.split(' ').next().unwrap_or_default().to_owned()),
        other => other,
    }
}

/// Runs a table on a node and on a server. `has_own_words`: of each error the first word counts.
fn compare(table: &str, node: SocketAddr, server: SocketAddr, protocol: u8, has_own_words: bool) {
    for block in table.split("\n\n") {
        let mut wires = [node, server].map(|address| {
            clear(address);
            [connect(address, protocol), connect(address, protocol)]
        });
        for line in block.lines().filter(|line| !line.starts_with('#')) {
            let (mark, line) = match line.split_at(2) {
                (mark @ ("^ " | "% "), rest) => (&mark[..1], rest),
                _ => ("", line),
            };
            let (connection, command) = line.strip_prefix("b: ").map_or((0, line), |command| (1, command));
            let [ours, theirs] = wires.each_mut().map(|wires| comparable(reply(&mut wires[connection], command)));
            let (ours, theirs) = match mark {
                "%" => (ours.elements().len().to_string(), theirs.elements().len().to_string()),
                "^" => (format!("{:?}", first_word(ours)), format!("{:?}", first_word(theirs))),
                _ if has_own_words => (format!("{:?}", first_word(ours)), format!("{:?}", first_word(theirs))),
                _ => (format!("{ours:?}"), format!("{theirs:?}")),
            };
            assert_eq!(ours, theirs, "left the node, right the server, RESP{protocol}: {line}\nin\n{block}");
        }
    }
}

#[test]
fn users_rights_refusals_and_the_log_are_those_of_valkey() {
    let (node, valkey) = (node(), RedisServer::start_of(Engine::Valkey, &[]));
    for table in [USERS, LOGINS, CHECKS, LOG] {
        for protocol in [2, 3] {
            compare(table, node.addr(), valkey.address, protocol, false);
        }
    }
}

/// Which shows users otherwise and has other words, but refuses the same.
#[test]
fn what_is_refused_is_what_redis_refuses() {
    let (node, redis) = (node(), RedisServer::start());
    let logins = LOGINS.replace("ACL LIST\n", "");
    // These tell the words in a reply that is no error.
    let checks: Vec<&str> =
        CHECKS.lines().filter(|line| !line.contains("redis.pcall") && !line.starts_with("ACL DRYRUN")).collect();
    for table in [logins, checks.join("\n")] {
        compare(&table, node.addr(), redis.address, 2, true);
    }
}

/// Of the commands that there are here.
#[test]
fn categories_are_those_of_redis_and_valkey() {
    let node = node();
    let mut ours = Wire::connect(node.addr());
    let texts = |value: Value| value.elements().iter().map(Value::text).collect::<Vec<_>>();
    let categories = texts(ours.run("ACL CAT"));
    let members = |wire: &mut Wire, category: &str| texts(wire.run(&format!("ACL CAT {category}")));
    let known: Vec<String> = categories.iter().flat_map(|category| members(&mut ours, category)).collect();
    for engine in Engine::ALL {
        let server = RedisServer::start_of(engine, &[]);
        let mut theirs = Wire::connect(server.address);
        assert_eq!(texts(theirs.run("ACL CAT")), categories);
        // Redis 7.0 does not know these, or has them in other categories than 7.2.
        let is_new = |name: &String| {
            engine == Engine::Redis && ["waitaof", "wait", "client|no-touch", "client|setinfo"].contains(&name.as_str())
        };
        for category in &categories {
            let sorted = |names: Vec<String>| {
                let mut names: Vec<String> = names.into_iter().filter(|name| known.contains(name) && !is_new(name)).collect();
                names.sort();
                names
            };
            assert_eq!(sorted(members(&mut ours, category)), sorted(members(&mut theirs, category)), "{category} of {engine:?}");
        }
        for name in texts(ours.run("COMMAND LIST")).iter().filter(|name| !is_new(name)) {
            let of = |wire: &mut Wire| wire.run(&format!("COMMAND INFO {name}")).elements()[0].elements()[6].clone();
            assert_eq!(of(&mut ours), of(&mut theirs), "{name} of {engine:?}");
        }
    }
    assert!(known.len() > 200, "{known:?}");
}

#[test]
fn refusals_are_counted_for_info() {
    let node = node();
    let mut wire = Wire::connect(node.addr());
    wire.run("ACL SETUSER bob on >one ~a* &x -@all +get +publish");
    for line in ["AUTH bob two", "AUTH bob one", "GET b", "GET c", "SET a 1", "PUBLISH y z"] {
        wire.run(line);
    }
    let mut wire = Wire::connect(node.addr());
    for (field, count) in [("auth", "1"), ("cmd", "1"), ("key", "2"), ("channel", "1")] {
        assert_eq!(support::content::info(&mut wire, &format!("acl_access_denied_{field}")), count, "{field}");
    }
}

/// Batches of what needs nothing but keys are run with one lock: who may not do everything is asked about each.
#[test]
fn each_request_of_a_pipeline_is_looked_at() {
    const REQUESTS: usize = 200;
    let node = node();
    let mut admin = Wire::connect(node.addr());
    admin.run("ACL SETUSER bob on nopass ~a* -@all +get +set");
    let mut wire = Wire::connect(node.addr());
    wire.run("AUTH bob x");
    let keys = ["a1", "a2", "b1", "a3"];
    let request = |at: usize| support::wire::encode(&words(&format!("SET {} {at}", keys[at % keys.len()])));
    wire.send_raw(&(0..REQUESTS).flat_map(request).collect::<Vec<u8>>());
    for at in 0..REQUESTS {
        let reply = wire.read();
        assert_eq!(reply.is_error("NOPERM"), keys[at % keys.len()] == "b1", "{at}: {reply:?}");
    }
    assert_eq!(admin.run("EXISTS b1"), Value::Integer(0));
    // What an earlier request of the same pipeline takes away is gone for the next one.
    let lines = ["ACL SETUSER default -get", "GET a1", "ACL SETUSER default +@all", "GET a1"];
    admin.send_raw(&lines.iter().flat_map(|line| support::wire::encode(&words(line))).collect::<Vec<u8>>());
    let replies: Vec<bool> = lines.iter().map(|_| admin.read().is_error("NOPERM")).collect();
    assert_eq!(replies, [false, true, false, false]);
    // Whose user is gone runs nothing more, although the default user may do everything.
    admin.run("ACL SETUSER bob +acl");
    let lines = ["SET a1 of-bob", "ACL DELUSER bob", "SET a1 of-nobody", "PING"];
    wire.send_raw(&lines.iter().flat_map(|line| support::wire::encode(&words(line))).collect::<Vec<u8>>());
    assert_eq!([wire.read(), wire.read()], [Value::ok(), Value::Integer(1)]);
    assert!(wire.is_closed());
    assert_eq!(admin.run("GET a1"), Value::bulk("of-bob"));
}

/// Of a pipeline that has arrived, what is under way when the answer comes is the last that runs.
#[test]
fn what_is_taken_away_is_gone_for_the_next_script_of_a_pipeline() {
    // On a busy machine a pipeline may be done before the change is.
    const SCRIPTS: [usize; 4] = [40, 160, 640, 2_560];
    let node = node();
    for change in ["ACL SETUSER bob -eval", "ACL SETUSER bob reset", "ACL DELUSER bob", "CLIENT KILL USER bob"] {
        assert!(SCRIPTS.iter().any(|scripts| is_stopped_by(change, &node, *scripts)), "{change} never came in time");
    }
}

/// Whether the change came before the last one of so many scripts.
fn is_stopped_by(change: &str, node: &Node, scripts: usize) -> bool {
    const SCRIPT: &str = "for i = 1, 400000 do local a = i * 2 end return redis.call('INCR', 'x')";
    let ends_connection = ["ACL DELUSER bob", "CLIENT KILL USER bob"].contains(&change);
    // The two threads take connections in turn: what one of these sends does not wait for the other's.
    let [mut bob, mut admin] = [(); 2].map(|()| Wire::connect(node.addr()));
    for line in ["DEL x", "ACL SETUSER bob reset on nopass ~x +@all"] {
        admin.run(line);
    }
    assert_eq!(bob.run("AUTH bob x"), Value::ok());
    bob.send_raw(&support::wire::encode(&["EVAL", SCRIPT, "1", "x"]).repeat(scripts));
    while admin.run("EXISTS x") == Value::Integer(0) {}
    let answer = admin.run(change);
    assert!(answer == Value::ok() || answer == Value::Integer(1), "{change}: {answer:?}");
    let at_most: usize = admin.run("GET x").text().parse::<usize>().unwrap() + 1;
    if at_most >= scripts {
        return false;
    }
    let replies: Vec<Value> = (0..scripts).map_while(|_| bob.try_read().ok()).collect();
    let run: usize = admin.run("GET x").text().parse().unwrap();
    assert!(run <= at_most, "{change}: {run} ran, {at_most} might");
    let refused = replies.iter().filter(|reply| reply.is_error("NOPERM")).count();
    assert!(ends_connection || refused == scripts - run, "{change}: {refused} refused, {run} ran");
    true
}

#[test]
fn a_change_reaches_the_connections_of_every_thread() {
    const CONNECTIONS: usize = 8;
    let node = node();
    let mut admin = Wire::connect(node.addr());
    admin.run("ACL SETUSER bob on nopass ~* +@all");
    let mut wires: Vec<Wire> = (0..CONNECTIONS).map(|_| Wire::connect(node.addr())).collect();
    for wire in &mut wires {
        assert_eq!(wire.run("AUTH bob x"), Value::ok());
    }
    admin.run("ACL SETUSER bob -get");
    assert!(wires.iter_mut().all(|wire| wire.run("GET a").is_error("NOPERM")));
    let line = wires[0].run("CLIENT INFO").text();
    assert!(line.contains(" user=bob "), "{line}");
    let list = admin.run("CLIENT LIST").text();
    assert_eq!(list.matches(" user=bob ").count(), CONNECTIONS, "{list}");
    assert_eq!(admin.run("CLIENT KILL USER bob"), Value::Integer(CONNECTIONS as i64));
    assert!(wires.iter_mut().all(Wire::is_closed));
}
