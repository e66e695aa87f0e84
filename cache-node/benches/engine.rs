//! Time of the steps between a request's bytes and its reply's: `cargo bench -p cache-node`.
//!
//! For the machine that is at hand, against what was measured on it before (`--save-baseline`, `--baseline`). What must not get worse is
//! guarded by instruction counts: `cache-bench instructions`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on is to panic")]

use std::{fmt::Write as _, hint::black_box};

use cache_node::{
    Config,
    bench::{Encoder, Engine, LimitedKeyspace, Parser},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Bytes of a string session.
const VALUE_BYTES: usize = 600;
/// Requests of a pipeline.
const DEPTHS: [usize; 2] = [1, 16];
/// What a keyspace may take, and keys that come by turns: four times as many as fit.
const MAXMEMORY_BYTES: usize = 4 << 20;
const KEYS: usize = 24_000;
const POLICIES: [&str; 2] = ["allkeys-lru", "volatile-ttl"];
/// Fields of a hash session, and bytes of each value.
const FIELDS: usize = 10;
const FIELD_BYTES: usize = 60;

fn key(number: usize) -> String {
    format!("session:::{number:022}")
}

/// `depth` requests: GETs, and of sixteen one SET.
fn requests(depth: usize) -> Vec<u8> {
    let mut text = String::new();
    for number in 0..depth {
        let (key, value) = (key(number), "v".repeat(VALUE_BYTES));
        if number == 1 {
            write!(text, "*5\r\n$3\r\nSET\r\n$32\r\n{key}\r\n${VALUE_BYTES}\r\n{value}\r\n$2\r\nEX\r\n$4\r\n1800\r\n").unwrap();
        } else {
            write!(text, "*2\r\n$3\r\nGET\r\n$32\r\n{key}\r\n").unwrap();
        }
    }
    text.into_bytes()
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for depth in DEPTHS {
        let bytes = requests(depth);
        let mut parser = Parser::new(&Config::default());
        assert_eq!(parser.count(&bytes), depth);
        group.throughput(Throughput::Elements(depth as u64));
        group.bench_function(BenchmarkId::from_parameter(depth), |bencher| bencher.iter(|| parser.count(black_box(&bytes))));
    }
    group.finish();
}

fn keyspace(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let value = [b'v'; VALUE_BYTES];
    let mut group = criterion.benchmark_group("keyspace");
    for policy in POLICIES {
        let keyspace = LimitedKeyspace::new(policy, MAXMEMORY_BYTES).unwrap();
        let set = |number: usize| keyspace.set(keys[number % KEYS].as_bytes(), &value, 1_800_000 + number as u64 % 1_000);
        assert!((0..KEYS).all(set));
        assert!(keyspace.len() < KEYS / 2, "it is full, and what is set anew takes another's place");
        let mut number = 0;
        group.bench_function(BenchmarkId::new("set-evicting", policy), |bencher| {
            bencher.iter(|| {
                number += 1;
                set(number)
            });
        });
        let present: Vec<&String> = keys.iter().filter(|key| keyspace.get(key.as_bytes()).is_some()).collect();
        group.bench_function(BenchmarkId::new("get", policy), |bencher| {
            bencher.iter(|| {
                number += 1;
                keyspace.get(present[number % present.len()].as_bytes())
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let value = [b'v'; VALUE_BYTES];
    let names: Vec<String> = (0..FIELDS).map(|field| format!("field:{field}")).collect();
    let pairs: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), &value[..FIELD_BYTES])).collect();
    let mut group = criterion.benchmark_group("encode");
    for (protocol, is_resp3) in [("resp2", false), ("resp3", true)] {
        let mut encoder = Encoder::new(is_resp3);
        assert!(encoder.bulk(&value).starts_with(b"$600\r\n"));
        assert!(encoder.hash(&pairs).starts_with(if is_resp3 { b"%10\r\n" } else { b"*20\r\n" }));
        group
            .bench_function(BenchmarkId::new("bulk", protocol), |bencher| bencher.iter(|| encoder.bulk(black_box(&value)).len()));
        group
            .bench_function(BenchmarkId::new("hash", protocol), |bencher| bencher.iter(|| encoder.hash(black_box(&pairs)).len()));
    }
    group.finish();
}

/// All of it: bytes in, bytes out, with access checks and statistics.
fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request-to-reply");
    for depth in DEPTHS {
        let mut engine = Engine::new(Config::default());
        let fill: String = (0..DEPTHS[1])
            .map(|number| {
                format!("*3\r\n$3\r\nSET\r\n$32\r\n{}\r\n${VALUE_BYTES}\r\n{}\r\n", key(number), "v".repeat(VALUE_BYTES))
            })
            .collect();
        engine.run(fill.as_bytes(), |replies| assert_eq!(replies, b"+OK\r\n".repeat(DEPTHS[1])));
        let bytes = requests(depth);
        group.throughput(Throughput::Elements(depth as u64));
        group.bench_function(BenchmarkId::from_parameter(depth), |bencher| {
            bencher.iter(|| engine.run(black_box(&bytes), <[u8]>::len));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // Half a minute for all of them.
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = parse, keyspace, encode, whole
}
criterion_main!(benches);
