//! Programs that were written for Redis and know nothing of `cache-node`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::process::Command;

use end_to_end::cache_node::CacheNode;
use end_to_end::program;

/// Runs a program of Redis's own tools against the node and returns what it printed.
fn run(node: &CacheNode, name: &str, arguments: &[&str]) -> String {
    let (host, port) = node.address().split_once(':').unwrap();
    let output = Command::new(program::installed(name, "redis-tools").unwrap())
        .args(["-h", host, "-p", port])
        .args(arguments)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{name} {arguments:?}: {stdout} {stderr}");
    stdout
}

#[tokio::test]
async fn redis_cli_finds_a_redis() {
    let node = CacheNode::start(&[]).await.unwrap();
    let cli = |arguments: &[&str]| run(&node, "redis-cli", arguments);
    for protocol in ["-2", "-3"] {
        assert_eq!(cli(&[protocol, "PING"]), "PONG");
        assert_eq!(cli(&[protocol, "SET", "greeting", "hello", "EX", "100"]), "OK");
        assert_eq!(cli(&[protocol, "GET", "greeting"]), "hello");
        assert_eq!(cli(&[protocol, "TYPE", "greeting"]), "string");
        assert_eq!(cli(&[protocol, "HSET", "cart", "mug", "2", "lamp", "1"]), if protocol == "-2" { "2" } else { "0" });
        assert_eq!(cli(&[protocol, "HGET", "cart", "mug"]), "2");
        assert!(cli(&[protocol, "INFO", "server"]).contains("redis_version:7.2.4"));
    }
    assert_eq!(cli(&["EVAL", "return redis.call('HINCRBY', KEYS[1], ARGV[1], 3)", "1", "cart", "mug"]), "5");
    assert!(cli(&["LPUSH", "cart", "x"]).starts_with("WRONGTYPE"));
    assert!(cli(&["NOSUCHCOMMAND"]).starts_with("ERR unknown command"));
    assert_eq!(cli(&["--scan", "--pattern", "c*"]), "cart");
    assert!(cli(&["DBSIZE"]).ends_with('2'));
}

#[tokio::test]
async fn redis_cli_loads_data_through_its_pipe_mode() {
    use std::io::Write;
    use std::process::Stdio;

    let node = CacheNode::start(&[]).await.unwrap();
    let (host, port) = node.address().split_once(':').unwrap();
    let mut child = Command::new(program::installed("redis-cli", "redis-tools").unwrap())
        .args(["-h", host, "-p", port, "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for number in 0..20_000 {
        writeln!(stdin, "SET key:{number} {number}\r").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("errors: 0, replies: 20000"), "{stdout}");
    assert_eq!(run(&node, "redis-cli", &["DBSIZE"]), "20000");
}

#[tokio::test]
async fn redis_benchmark_runs_its_tests() {
    let node = CacheNode::start(&[]).await.unwrap();
    let tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,zadd,lrange_100,mset";
    for pipeline in ["1", "16"] {
        let report =
            run(&node, "redis-benchmark", &["-t", tests, "-n", "5000", "-c", "20", "-P", pipeline, "-r", "500", "--csv"]);
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "LPUSH", "RPUSH", "LPOP", "RPOP", "SADD", "HSET"] {
            let line = report.lines().find(|line| line.starts_with(&format!("\"{test}\"")));
            let line = line.unwrap_or_else(|| panic!("no line of {test} in:\n{report}"));
            let rate: f64 = line.split('"').nth(3).unwrap().parse().unwrap();
            assert!(rate > 0.0, "{line}");
        }
        assert!(report.contains("MSET (10 keys)") && report.contains("ZADD"), "{report}");
    }
}

#[tokio::test]
async fn redis_py_finds_a_redis() {
    // Debian's own Python: another one on the PATH has other packages.
    let python = "/usr/bin/python3";
    let node = CacheNode::start(&[]).await.unwrap();
    let (host, port) = node.address().split_once(':').unwrap();
    let script = program::workspace_root().join("tests/tests/clients.py");
    let output = Command::new(python).arg(script).args([host, port]).output();
    let output =
        output.unwrap_or_else(|error| panic!("{python}: {error}; run: apt-get install --no-install-recommends python3-redis"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && output.stdout == b"ok\n",
        "{stderr}\n(without redis-py: apt-get install --no-install-recommends python3-redis)"
    );
}
