//! What scripts must not be able to do: run past their time, take memory without end, or leave something to the scripts after them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::time::Instant;

use cache_node::{Config, Node};
use support::{PATIENCE, Value, Wire};

/// One thread, so that every script meets the same interpreter.
async fn node_with(directives: &[(&str, &str)]) -> (Node, Wire) {
    let mut config = Config::for_test();
    for (name, value) in [("io-threads", "1")].iter().chain(directives) {
        config.set(name, &[value]).unwrap();
    }
    let node = Node::spawn(config).await.unwrap();
    let wire = Wire::connect(node.addr());
    (node, wire)
}

fn eval(wire: &mut Wire, source: &str) -> Value {
    wire.call(&["EVAL", source, "0"])
}

fn fails_with(reply: &Value, text: &str) -> bool {
    matches!(reply, Value::Error(error) if error.contains(text))
}

#[tokio::test]
async fn a_script_ends_by_its_time_whatever_it_does() {
    let (_node, mut wire) = node_with(&[("lua-time-limit", "200")]).await;
    let scripts = [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
        "while true do redis.pcall('PING') end",
        "local t = {1} for i = 1, 40 do t = {t, t} end return #cjson.encode(t)",
        "local t = {1} for i = 1, 40 do t = {t, t} end return t",
        "local t = {1} for i = 1, 40 do t = {map = {[t] = t}} end return t",
    ];
    for script in scripts {
        let started = Instant::now();
        let reply = eval(&mut wire, script);
        assert!(fails_with(&reply, "ERR Script was ended"), "{script}: {reply:?}");
        assert!(started.elapsed() < PATIENCE / 2, "{script}: {:?}", started.elapsed());
    }
}

/// A thread that has compiled a script runs it without a look at its source: only as long as that is kept.
#[tokio::test]
async fn a_script_that_went_is_unknown_also_where_it_ran() {
    /// More than are kept.
    const OTHERS: usize = 1_000;
    let (_node, mut wire) = node_with(&[]).await;
    let mut load = |source: &str| match wire.call(&["SCRIPT", "LOAD", source]) {
        Value::Bulk(digest) => String::from_utf8(digest).unwrap(),
        other => panic!("{source}: {other:?}"),
    };
    let (first, second) = (load("return 1"), load("return 2"));
    for (digest, result) in [(&first, 1), (&second, 2), (&first, 1)] {
        assert_eq!(wire.call(&["EVALSHA", digest, "0"]), Value::Integer(result));
    }
    // The oldest goes, and the next one stays.
    for other in 0..OTHERS - 1 {
        wire.call(&["SCRIPT", "LOAD", &format!("return {}", other + 10)]);
    }
    for _ in 0..2 {
        assert!(fails_with(&wire.call(&["EVALSHA", &first, "0"]), "NOSCRIPT"));
        assert_eq!(wire.call(&["EVALSHA", &second.to_uppercase(), "0"]), Value::Integer(2));
        assert_eq!(wire.call(&["EVALSHA", &second, "0"]), Value::Integer(2));
    }
    wire.run("SCRIPT FLUSH");
    assert!(fails_with(&wire.call(&["EVALSHA", &second, "0"]), "NOSCRIPT"));
    assert_eq!(eval(&mut wire, "return 2"), Value::Integer(2));
    assert_eq!(wire.call(&["EVALSHA", &second, "0"]), Value::Integer(2));
}

#[tokio::test]
async fn a_script_that_used_up_its_memory_leaves_it_to_the_next() {
    let (_node, mut wire) = node_with(&[("lua-time-limit", "60000")]).await;
    for script in
        ["local t = {} for i = 1, 1e9 do t[i] = string.rep('x', 1000000) .. i end", "local t = {} while true do t = {t} end"]
    {
        let reply = eval(&mut wire, script);
        assert!(fails_with(&reply, "ERR not enough memory"), "{script}: {reply:?}");
        let next = "local t = {} for i = 1, 1000 do t[i] = string.rep('y', 1000) .. i end return #t";
        assert_eq!(eval(&mut wire, next), Value::Integer(1000), "after {script}");
    }
}

#[tokio::test]
async fn a_command_of_a_script_has_a_bound() {
    let (_node, mut wire) = node_with(&[("client-query-buffer-limit", "10mb"), ("lua-time-limit", "60000")]).await;
    let call = "local s = string.rep('x', 1000000) local t = {'MSET'} for i = 1, 20 do t[#t + 1] = i t[#t + 1] = s end return redis.call(unpack(t))";
    let reply = eval(&mut wire, call);
    assert!(fails_with(&reply, "ERR the arguments of one redis.call() exceed"), "{reply:?}");
    assert_eq!(wire.run("DBSIZE"), Value::Integer(0));
}

#[tokio::test]
async fn a_script_leaves_nothing_in_the_tables_of_the_next() {
    let (_node, mut wire) = node_with(&[]).await;
    let scripts = [
        "redis = 1",
        "tostring = nil",
        "KEYS = nil",
        "_G.pcall = 1",
        "table.insert(_G, 'x')",
        "table.insert(redis, 'x')",
        "table.sort(math)",
        "string.rep = nil",
        "cjson.encode = nil",
    ];
    for script in scripts {
        let reply = eval(&mut wire, script);
        assert!(fails_with(&reply, "Attempt to modify a readonly table"), "{script}: {reply:?}");
    }
    let next = "local t = {3, 1} table.insert(t, 2) table.sort(t) return {redis.call('PING'), tostring(#KEYS), table.concat(t), type(rawget(_G, 1)), type(redis[1])}";
    let reply = wire.call(&["EVAL", next, "1", "k"]);
    let expected = ["1", "123", "nil", "nil"].map(Value::bulk);
    assert_eq!((&reply.elements()[0], &reply.elements()[1..]), (&Value::Simple("PONG".to_owned()), &expected[..]));
}

#[tokio::test]
async fn a_database_that_a_script_selected_stays_selected_for_it() {
    let (_node, mut wire) = node_with(&[]).await;
    assert_eq!(
        eval(&mut wire, "redis.call('SELECT', 1) redis.call('PING') redis.call('SET', 'k', 'v') return 1"),
        Value::Integer(1)
    );
    assert_eq!(wire.run("EXISTS k"), Value::Integer(0));
    wire.run("SELECT 1");
    assert_eq!(wire.run("EXISTS k"), Value::Integer(1));
}

#[tokio::test]
async fn a_whole_double_is_a_double() {
    let (_node, mut wire) = node_with(&[]).await;
    assert_eq!(eval(&mut wire, "return {double = 3}"), Value::bulk("3"));
    wire.run("HELLO 3");
    assert_eq!(eval(&mut wire, "return {double = 3}"), Value::Double("3".to_owned()));
}
