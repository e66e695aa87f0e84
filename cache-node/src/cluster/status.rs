//! The cluster as a page of text.

use std::fmt::Write as _;

use crate::cluster::{
    events::Event,
    view::{NodeState, Role, View},
};

/// What `cluster status` prints.
pub(super) fn page(view: &View, endpoints: &serde_json::Value) -> String {
    let mut page = String::new();
    let serving = match view.primary {
        Some(_) => "takes writes",
        None => "takes no writes: no node serves as the primary",
    };
    // Writing to a string does not fail.
    let _ = writeln!(page, "{} {serving} (durability {}, epoch {})\n", view.name, view.durability, view.epoch);
    for name in ["primary", "reader", "sentinel", "http"] {
        let url = endpoints[name]["url"].as_str().unwrap_or("?");
        let _ = writeln!(page, "  {name:<9} {url}");
    }
    let _ = writeln!(
        page,
        "\n  {:<8} {:<8} {:<9} {:<21} {:>8} {:>14} {:>9} {:>8}",
        "NODE", "ROLE", "STATE", "ADDRESS", "PID", "OFFSET", "LAG", "RESTARTS"
    );
    for node in &view.nodes {
        let role = match node.role {
            Role::Primary => "primary",
            Role::Replica => "replica",
        };
        let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let lag = if node.role == Role::Primary { "-".to_owned() } else { node.lag_bytes.to_string() };
        let (name, state, address) = (&node.name, state(node.state), node.address.to_string());
        let _ = writeln!(
            page,
            "  {name:<8} {role:<8} {state:<9} {address:<21} {pid:>8} {:>14} {lag:>9} {:>8}",
            node.offset, node.restarts
        );
    }
    page
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Down => "down",
        NodeState::Starting => "starting",
        NodeState::Syncing => "syncing",
        NodeState::Serving => "serving",
        NodeState::Silent => "silent",
    }
}

/// An event as a line: time of day (UTC), what, on whom, in words.
pub(super) fn event(event: &Event) -> String {
    let seconds = event.unix_ms / 1000 % 86_400;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}Z {:?}: {}", event.unix_ms % 1000, event.kind, event.text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::page;
    use crate::cluster::view::{NodeState, NodeView, Role, View};

    #[test]
    fn a_cluster_without_a_primary_says_so() {
        let node = NodeView {
            name: "node-1".to_owned(),
            role: Role::Primary,
            state: NodeState::Down,
            address: "127.0.0.1:7001".parse().unwrap(),
            metrics: None,
            pid: None,
            offset: 12,
            lag_bytes: 0,
            restarts: 3,
        };
        let view = View {
            name: "carts".to_owned(),
            id: "aa".to_owned(),
            epoch: 4,
            durability: "sync".to_owned(),
            primary: None,
            nodes: vec![node],
        };
        let text = page(&view, &serde_json::json!({ "reader": { "url": "redis://127.0.0.1:6380" } }));
        assert!(text.starts_with("carts takes no writes"), "{text}");
        assert!(text.contains("  reader    redis://127.0.0.1:6380\n"), "{text}");
        assert!(text.contains("  node-1   primary  down "), "{text}");
    }
}
