//! The project's own structure: who may depend on whom, and which modules may do I/O.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The workspace's own crates that `package` is built from; its dev-dependencies do not count.
fn own_dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|p| p["name"] == package);
    let dependencies = found.unwrap_or_else(|| panic!("no crate {package} in the workspace"))["dependencies"].clone();
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
    assert_eq!(own_dependencies("session-store"), BTreeSet::new(), "session-store speaks to a node over the wire alone");
    assert_eq!(own_dependencies("cache-node"), BTreeSet::new(), "cache-node serves any client, not this library");
}

#[test]
fn the_shop_is_built_from_the_library_and_the_node() {
    let expected = ["cache-node", "session-store"].map(str::to_owned);
    assert_eq!(own_dependencies("demo-shop"), BTreeSet::from(expected));
}

/// Words that only a module with I/O of that kind needs.
const SOCKETS: [&str; 5] = ["std::net::Tcp", "std::net::Udp", "tokio::net", "std::os::unix::net", "socket2"];
const FILES: [&str; 4] = ["std::fs", "tokio::fs", "File::open", "OpenOptions"];
const CLOCKS: [&str; 2] = ["Instant::now", "SystemTime::now"];
const ASYNC: [&str; 3] = ["async fn", "async move", ".await"];

/// The Rust files of a crate's source, without their comments and without the tests at their end.
fn source(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                let lines: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                files.push((path, lines.join("\n")));
            }
        }
    }
    files
}

fn assert_free_of(what: &str, words: &[&str], files: &[(PathBuf, String)]) {
    assert!(!files.is_empty(), "no source to look at");
    let found: Vec<_> = files
        .iter()
        .flat_map(|(path, text)| words.iter().map(move |word| (path, text, word)))
        .filter(|(_, text, word)| text.contains(**word))
        .map(|(path, _, word)| format!("{}: {word}", path.display()))
        .collect();
    assert!(found.is_empty(), "{what} where there may be none:\n{}", found.join("\n"));
}

#[test]
fn the_nodes_core_does_no_input_or_output() {
    let node = workspace_root().join("cache-node/src");
    for module in ["keyspace", "protocol", "command"] {
        let files = source(&node.join(module));
        assert_free_of("sockets", &SOCKETS, &files);
        assert_free_of("files", &FILES, &files);
        assert_free_of("async code", &ASYNC, &files);
    }
    for module in ["keyspace", "protocol"] {
        assert_free_of("a clock", &CLOCKS, &source(&node.join(module)));
    }
}

#[test]
fn only_the_nodes_edges_touch_sockets_and_files() {
    let node = workspace_root().join("cache-node/src");
    let outside = |rooms: &[&str]| {
        let mut files = source(&node);
        // Programs beside the node, such as its load generator, are clients of it.
        files.retain(|(path, _)| !path.starts_with(node.join("bin")));
        files.retain(|(path, _)| {
            let inside = path.strip_prefix(&node).unwrap();
            !rooms.iter().any(|room| inside.starts_with(room) || inside == Path::new(&format!("{room}.rs")))
        });
        files
    };
    // `cluster` is no part of a node: it starts nodes as processes and speaks to them over the wire.
    // `webhook` sends events by HTTP, signed with what is in a file.
    assert_free_of("sockets", &SOCKETS, &outside(&["server", "replication", "metrics", "webhook", "cluster"]));
    // `cli` reads the configuration file, `usage` what the kernel tells of the process under /proc.
    assert_free_of("files", &FILES, &outside(&["persistence", "config", "cli", "usage", "webhook", "cluster"]));
}

#[test]
fn a_node_and_the_controller_of_a_cluster_meet_on_the_wire_and_in_neutral_rooms() {
    let node = workspace_root().join("cache-node/src");
    let uses = |room: &str| [format!("crate::{room}::"), format!("    {room}::")];
    let mut files = source(&node);
    // `cli` runs what the command line says.
    files.retain(|(path, _)| ![node.join("cluster"), node.join("bin")].iter().any(|room| path.starts_with(room)));
    files.retain(|(path, _)| *path != node.join("cli.rs"));
    let words = uses("cluster");
    assert_free_of("the cluster", &words.each_ref().map(String::as_str), &files);
    let inside = ["node", "command", "replication", "script"].map(uses).concat();
    let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
    assert_free_of("a node's inside", &inside, &source(&node.join("cluster")));
    // What both use knows neither.
    for room in ["events", "webhook"] {
        let files = source(&node.join(room));
        assert_free_of("a node's inside", &inside, &files);
        assert_free_of("the cluster", &words.each_ref().map(String::as_str), &files);
    }
}
