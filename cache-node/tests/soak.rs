//! A short soak with the program that does the long one.
#![cfg(feature = "bench")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::{fs, process::Command};

use serde_json::Value;

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
    let results: Value = serde_json::from_slice(&fs::read(folder.path().join("soak.json")).unwrap()).unwrap();
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
