//! The cluster as everybody else sees it: endpoints, Sentinel clients, `/v1/nodes`, `cluster status`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Primary,
    Replica,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NodeState {
    /// Its process does not run; it will be started.
    Down,
    /// Its process has not answered yet, or is reading its data.
    Starting,
    /// A replica that is receiving the primary's data.
    Syncing,
    /// It serves its role.
    Serving,
    /// It did not answer the last question.
    Silent,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) state: NodeState,
    pub(super) address: SocketAddr,
    /// Where its `/metrics`, `/healthz` and `/readyz` are.
    #[serde(default)]
    pub(super) metrics: Option<SocketAddr>,
    pub(super) pid: Option<u32>,
    /// Bytes of the replication history that it has applied, as it last said.
    pub(super) offset: u64,
    /// Bytes that the primary had and it had not.
    pub(super) lag_bytes: u64,
    /// How often its process was started anew by this controller.
    pub(super) restarts: u64,
}

/// The whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) id: String,
    /// Counts the changes of the primary.
    pub(super) epoch: u64,
    pub(super) durability: String,
    /// Where writes are acknowledged now; `None` while there is no such node.
    pub(super) primary: Option<SocketAddr>,
    pub(super) nodes: Vec<NodeView>,
}

impl View {
    pub(super) fn primary_node(&self) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.role == Role::Primary)
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.role == Role::Replica)
    }

    /// Replicas that have the data and follow.
    pub(super) fn readers(&self) -> impl Iterator<Item = &NodeView> {
        self.replicas().filter(|node| node.state == NodeState::Serving)
    }
}
