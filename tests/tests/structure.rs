//! The project's own structure: who may depend on whom, and which modules may do I/O.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// The workspace's own crates that `package` is built from; its dev-dependencies do not count.
fn own_dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|p| p["name"] == package);
    let dependencies =
        found.unwrap_or_else(|| panic!("no crate {package} in the workspace"))["dependencies"]
            .clone();
    dependencies
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| dependency["kind"] != "dev" && !dependency["path"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_library_and_the_node_know_nothing_of_each_other() {
    assert_eq!(
        own_dependencies("session-store"),
        BTreeSet::new(),
        "session-store speaks to a node over the wire alone"
    );
    assert_eq!(
        own_dependencies("cache-node"),
        BTreeSet::new(),
        "cache-node serves any client, not this library"
    );
}

#[test]
fn the_shop_is_built_from_the_library_and_the_node() {
    let expected = ["cache-node", "session-store"].map(str::to_owned);
    assert_eq!(own_dependencies("demo-shop"), BTreeSet::from(expected));
}
