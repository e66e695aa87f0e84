//! A node in the fields that a Sentinel tells of it.

use std::time::Duration;

use crate::{
    cluster::view::{NodeState, NodeView, View},
    protocol::Reply,
};

type Fields = Vec<(&'static str, String)>;

/// The fields of the primary.
pub(super) fn primary_fields(view: &View, down_after: Duration) -> Fields {
    let node = view.primary_node();
    let flags = if view.primary.is_some() { "master" } else { "s_down,o_down,master" };
    let mut fields = vec![("name", view.name.clone())];
    fields.extend(common_fields(node, flags, "master", down_after));
    fields.extend([
        ("config-epoch", view.epoch.to_string()),
        ("num-slaves", view.replicas().count().to_string()),
        ("num-other-sentinels", "0".to_owned()),
        ("quorum", "1".to_owned()),
        ("failover-timeout", "180000".to_owned()),
        ("parallel-syncs", view.replicas().count().to_string()),
    ]);
    fields
}

/// The fields of a replica.
pub(super) fn replica_fields(view: &View, node: &NodeView, down_after: Duration) -> Fields {
    let flags = match node.state {
        NodeState::Serving | NodeState::Syncing => "slave",
        NodeState::Silent => "s_down,slave",
        NodeState::Down | NodeState::Starting => "s_down,slave,disconnected",
    };
    let is_linked = node.state == NodeState::Serving;
    let primary = view.primary_node().map(|node| node.address);
    let mut fields = vec![("name", node.address.to_string())];
    fields.extend(common_fields(Some(node), flags, "slave", down_after));
    fields.extend([
        ("master-link-down-time", "0".to_owned()),
        ("master-link-status", if is_linked { "ok" } else { "err" }.to_owned()),
        ("master-host", primary.map_or_else(String::new, |address| address.ip().to_string())),
        ("master-port", primary.map_or_else(String::new, |address| address.port().to_string())),
        ("slave-priority", "100".to_owned()),
        ("slave-repl-offset", node.offset.to_string()),
        ("replica-announced", "1".to_owned()),
    ]);
    fields
}

fn common_fields(node: Option<&NodeView>, flags: &str, role: &str, down_after: Duration) -> Fields {
    let address = node.map(|node| node.address);
    let zero = || "0".to_owned();
    vec![
        ("ip", address.map_or_else(String::new, |address| address.ip().to_string())),
        ("port", address.map_or_else(String::new, |address| address.port().to_string())),
        ("runid", String::new()),
        ("flags", flags.to_owned()),
        ("link-pending-commands", zero()),
        ("link-refcount", "1".to_owned()),
        ("last-ping-sent", zero()),
        ("last-ok-ping-reply", zero()),
        ("last-ping-reply", zero()),
        ("down-after-milliseconds", down_after.as_millis().to_string()),
        ("info-refresh", zero()),
        ("role-reported", role.to_owned()),
        ("role-reported-time", zero()),
    ]
}

/// A map, which is a flat array in RESP2.
pub(super) fn write_instance(fields: &Fields, reply: &mut Reply) {
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}
