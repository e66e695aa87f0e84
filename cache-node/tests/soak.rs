//! Memory under churn: for some seconds, and a short soak with the program that does the long one.
#![cfg(feature = "bench")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod support;

use std::{fs, process::Command};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value as Json;
use support::{Value, Wire, process::Binary, wait_until};

/// With sessions of many sizes that change with the time.
#[test]
fn maxmemory_bounds_what_is_resident() {
    const MEBIBYTES: usize = 32;
    const PIPELINE: usize = 50;
    let maxmemory = format!("{MEBIBYTES}mb");
    let node = Binary::start(&["--port", "0", "--save", "", "--maxmemory", &maxmemory, "--maxmemory-policy", "allkeys-lru"]);
    let before = node.resident_bytes();
    let mut wire = Wire::connect(node.address);
    let mut random = StdRng::seed_from_u64(1);
    let mut number = 0;
    for sizes in [1_000..4_096, 100..1_000, 1_000..4_096] {
        let mut written = 0;
        while written < MEBIBYTES << 20 {
            for _ in 0..PIPELINE {
                let bytes = random.random_range(sizes.clone());
                wire.send(&[b"SET".as_slice(), format!("session:{number}").as_bytes(), &vec![b'v'; bytes]]);
                number += 1;
                written += bytes;
            }
            for _ in 0..PIPELINE {
                assert_eq!(wire.read(), Value::Simple("OK".into()));
            }
        }
    }
    let grown_max = (MEBIBYTES << 20) * 5 / 4;
    wait_until("what is resident comes near maxmemory", || node.resident_bytes() - before < grown_max);
    // It is not by holding hardly any.
    wire.send(&["DBSIZE"]);
    let Value::Integer(keys) = wire.read() else { panic!("DBSIZE is a number") };
    assert!(keys > 10_000, "{keys} keys");
}

#[test]
#[ignore = "a minute of churn: `tests/run --long`"]
fn memory_does_not_grow_while_sessions_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cache-bench"))
        .args(["soak", "--duration", "60", "--rate", "3000", "--maxmemory", "8", "--output"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Json = serde_json::from_slice(&fs::read(folder.path().join("soak.json")).unwrap()).unwrap();
    let report = &results["reports"][0];
    let rss = &report["goals"][0];
    // Latencies are for a machine that does nothing else.
    assert!(rss["text"].as_str().unwrap().starts_with("RSS last/first third"), "{rss}");
    assert_eq!(rss["met"], true, "{rss}");
    let seconds = report["timelines"][0]["seconds"].as_array().unwrap();
    // Those below 0 are of the warm-up.
    let judged = seconds.iter().filter(|second| second.as_f64().is_some_and(|second| second >= 0.0)).count();
    assert!((12..=60).contains(&judged) && seconds.len() > judged, "one each second, or fewer on a busy machine: {judged}");
    assert!(fs::read_to_string(folder.path().join("soak.svg")).unwrap().contains("<polyline"));
}
