//! The crate's few `unsafe` blocks under valgrind, which sees every access to memory that is not theirs.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::process::{Command, Stdio};

use support::{Value, Wire, process::Binary, words};

/// What valgrind ends with when it found something.
const FOUND: i32 = 99;

/// Ways to leave a script by a jump; the differential test's scripts leave on the usual ones.
const LEAPS: [&str; 5] = [
    "return redis.call('LRANGE', KEYS[1], 0, -1, 'too', 'many')",
    "redis.call('SET', KEYS[1], 'text') return redis.call('HGETALL', KEYS[1])",
    "local f = coroutine.wrap(function() redis.call('HGETALL', KEYS[1]) end) f()",
    "return redis.call('MSET', unpack(ARGV))",
    "while true do redis.pcall('PING') end",
];

/// Results that take many calls or many levels.
const RESULTS: [&str; 2] = [
    "for i = 1, 300 do redis.pcall('HGETALL', KEYS[1]) pcall(redis.call, 'HGETALL', KEYS[1]) end return {1, {2, {3, {err = 'ERR deep'}}}}",
    "local t = {} for i = 1, 500 do t = {t} end return t",
];

#[test]
#[ignore = "a node under valgrind: `tests/run --long`"]
fn scripts_touch_no_memory_that_is_not_theirs() {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--leak-check=no", &format!("--error-exitcode={FOUND}"), env!("CARGO_BIN_EXE_cache-node")]);
    command.args(["--port", "0", "--io-threads", "1", "--lua-time-limit", "2000"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut node = Binary::start_by(&mut command);
    let mut wire = Wire::connect(node.address);
    let mut scripts = 0;
    for protocol in ["HELLO 2", "HELLO 3"] {
        wire.run(protocol);
        for line in include_str!("differential/scripting.txt").lines() {
            let line = line.trim_start_matches(['~', '2', '=', '%', '^', ' ']).trim_start_matches("b: ");
            // What another protocol or server answers is the differential test's business.
            if line.starts_with("EVAL") {
                wire.call(&words(line));
                scripts += 1;
            }
        }
        for script in LEAPS.iter().chain(&RESULTS) {
            let reply = wire.call(&["EVAL", script, "1", "key", "a", "1", "b", "2", "c"]);
            assert_eq!(matches!(reply, Value::Error(_)), LEAPS.contains(script), "{script}: {reply:?}");
            scripts += 1;
        }
    }
    assert!(scripts > 200, "{scripts}");
    assert_eq!(wire.run("PING"), Value::Simple("PONG".to_owned()));
    let status = node.end_by("TERM");
    assert_eq!(status.code(), Some(0), "{}", node.errors());
}
