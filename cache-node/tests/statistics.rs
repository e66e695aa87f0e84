//! INFO counts what Redis counts: hits and misses of each command, and errors once, in scripts as outside of them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use support::{
    Wire,
    server::{Kind, Server},
};

/// `@` stands for a key of the command's type that is there, and then for one that is not.
const COMMANDS: [&str; 92] = [
    "GET @s",
    "GETEX @s",
    "GETDEL @s",
    "GETSET @s v",
    "SET @s v",
    "SET @s v GET",
    "SET @s v XX",
    "SETNX @s v",
    "APPEND @s x",
    "INCR @n",
    "INCRBYFLOAT @n 1.5",
    "STRLEN @s",
    "GETRANGE @s 0 1",
    "SETRANGE @s 1 x",
    "MGET @s s nokey",
    "EXISTS @s @s",
    "TOUCH @s",
    "TYPE @s",
    "TYPE @h",
    "TTL @s",
    "PTTL @s",
    "EXPIRETIME @s",
    "PEXPIRETIME @s",
    "EXPIRE @s 100",
    "PERSIST @s",
    "DEL @s",
    "RENAME @s other",
    "RENAMENX @s other",
    "COPY @s other",
    "COPY @s s REPLACE",
    "OBJECT ENCODING @s",
    "OBJECT IDLETIME @s",
    "OBJECT REFCOUNT @s",
    "OBJECT FREQ @s",
    "MEMORY USAGE @s",
    "HGET @h f",
    "HMGET @h f g",
    "HGETALL @h",
    "HLEN @h",
    "HSTRLEN @h f",
    "HEXISTS @h f",
    "HSET @h f v",
    "HSETNX @h f v",
    "HINCRBY @h q 1",
    "HDEL @h f",
    "HRANDFIELD @h",
    "HSCAN @h 0",
    "SADD @z x",
    "SREM @z a",
    "SCARD @z",
    "SISMEMBER @z a",
    "SMEMBERS @z",
    "SRANDMEMBER @z",
    "SPOP @z",
    "SMOVE @z other a",
    "SMOVE @z other q",
    "SINTER @z z",
    "SUNION @z z",
    "SDIFFSTORE other @z z",
    "ZADD @y 1 x",
    "ZINCRBY @y 1 a",
    "ZREM @y a",
    "ZSCORE @y a",
    "ZCARD @y",
    "ZCOUNT @y 0 9",
    "ZRANK @y a",
    "ZRANGE @y 0 -1",
    "ZREMRANGEBYRANK @y 0 0",
    "ZPOPMIN @y",
    "LPUSH @l x",
    "LPUSHX @l x",
    "LPOP @l",
    "LLEN @l",
    "LRANGE @l 0 -1",
    "LINDEX @l 0",
    "LPOS @l a",
    "LSET @l 0 q",
    "LINSERT @l BEFORE a q",
    "LREM @l 0 a",
    "LTRIM @l 0 0",
    "LMOVE @l other LEFT RIGHT",
    "LMOVE @l s LEFT RIGHT",
    "RPOPLPUSH @l @l",
    "WATCH @s",
    "HGET @s f",
    "STRLEN @l",
    "SMOVE @s z a",
    "LMOVE @s l LEFT LEFT",
    "INCRBYFLOAT @l 1",
    "SCAN 0",
    "KEYS *",
    "DBSIZE",
];

/// A line of INFO without its name.
fn field(wire: &mut Wire, name: &str) -> String {
    support::content::info(wire, name)
}

/// This node and Redis, each with a client.
fn both() -> [(Wire, Server); 2] {
    [Kind::Node, Kind::Redis].map(|kind| {
        let server = Server::start(kind, &[]);
        (server.wire(), server)
    })
}

fn hits_and_misses(wire: &mut Wire, command: &str) -> [i64; 2] {
    let fields = ["keyspace_hits", "keyspace_misses"];
    let count = |wire: &mut Wire| fields.map(|name| field(wire, name).parse::<i64>().unwrap());
    for line in ["FLUSHALL", "SET s abc", "SET n 1", "RPUSH l a b a", "HSET h f 1 g 2", "SADD z a b", "ZADD y 1 a 2 b", "UNWATCH"]
    {
        wire.run(line);
    }
    let before = count(wire);
    wire.run(command);
    let after = count(wire);
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn hits_and_misses_are_those_of_redis() {
    let mut wires = both();
    for command in COMMANDS {
        for command in [command.replace('@', ""), command.replace('@', "no")] {
            let [ours, theirs] = wires.each_mut().map(|(wire, _)| hits_and_misses(wire, &command));
            assert_eq!(ours, theirs, "{command}");
        }
    }
}

const SCRIPTS: [&str; 31] = [
    "return redis.call('incr',KEYS[1])",
    "return redis.pcall('incr',KEYS[1])",
    "redis.pcall('incr',KEYS[1]) return 1",
    "local e=redis.pcall('incr',KEYS[1]) return {e,e}",
    "local e=redis.pcall('incr',KEYS[1]) return {e.err}",
    "local e=redis.pcall('incr',KEYS[1]) error(e)",
    "local e=redis.pcall('incr',KEYS[1]) error(e.err)",
    "local e=redis.pcall('incr',KEYS[1]) return redis.error_reply(e.err)",
    "local e=redis.pcall('incr',KEYS[1]) return e.ignore_error_stats_update",
    "return redis.error_reply('MY own')",
    "return {1,{redis.error_reply('MY own'),redis.error_reply('MINE too')}}",
    "return {err='noprefix'}",
    "return {err='A\\r\\nrole:slave x'}",
    "error({err='A\\nrole:slave x'})",
    "return redis.error_reply('A=B:c#d e')",
    "return {err=string.rep('P', 30) .. ' x'}",
    "return {err=string.rep('P', 31) .. ' x'}",
    "error('boom')",
    "error({err='TAB le'})",
    "local _,e=pcall(redis.call,'incr',KEYS[1]) return e",
    "local _,e=pcall(redis.call,'incr',KEYS[1]) error(e)",
    "return redis.call('nosuch')",
    "redis.pcall('nosuch') return 1",
    "redis.pcall('get') return 1",
    "redis.pcall() return 1",
    "redis.pcall('get',{}) return 1",
    "redis.pcall('subscribe','x') return 1",
    "return redis.call('get','l')",
    "return nosuchvariable",
    "no script at all",
    "return redis.call('lpush','l')",
];

/// The errors by their first words, and the commands that failed or were refused: of INFO, in the order of their names.
fn errors(wire: &mut Wire) -> Vec<String> {
    let text = wire.run("INFO everything").text();
    let is_error = |line: &&str| {
        line.starts_with("errorstat_")
            // Nothing but the node itself says which role it has.
            || line.starts_with("role:")
            || line.starts_with("cmdstat_") && !(line.contains("rejected_calls=0") && line.contains("failed_calls=0"))
    };
    let mut lines: Vec<String> = text.lines().filter(is_error).map(without_times).collect();
    lines.push(field(wire, "total_error_replies"));
    lines.sort();
    lines
}

fn without_times(line: &str) -> String {
    line.split(',').filter(|part| !part.contains("usec")).collect::<Vec<_>>().join(",")
}

#[test]
fn errors_of_scripts_are_counted_as_redis_counts_them() {
    let mut wires = both();
    for script in SCRIPTS {
        for way in ["EVAL", "EVAL_RO", "EXEC"] {
            let counted = wires.each_mut().map(|(wire, _)| {
                for line in ["FLUSHALL", "SET s abc", "RPUSH l a", "CONFIG RESETSTAT"] {
                    wire.run(line);
                }
                if way == "EXEC" {
                    wire.run("MULTI");
                    wire.call(&["EVAL", script, "1", "s"]);
                    wire.run("EXEC");
                } else {
                    wire.call(&[way, script, "1", "s"]);
                }
                errors(wire)
            });
            assert_eq!(counted[0], counted[1], "{way}: {script}");
        }
    }
}
