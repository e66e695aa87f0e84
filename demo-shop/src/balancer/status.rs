//! `GET /fleet.json`: what runs, for people, tests and the load test.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::balancer::replicas::ReplicaSet;

/// The answer of `/fleet.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FleetStatus {
    pub(crate) replicas: Vec<ReplicaStatus>,
    pub(crate) nodes: Vec<NodeStatus>,
}

impl FleetStatus {
    pub(crate) fn of(replicas: &ReplicaSet, board: &NodeBoard) -> Self {
        Self { replicas: replicas.iter().map(|replica| replica.status()).collect(), nodes: board.nodes() }
    }
}

/// One replica of the shop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReplicaStatus {
    pub(crate) name: String,
    /// Null when it is unknown: the process is gone, or the balancer did not start it.
    pub(crate) pid: Option<u32>,
    pub(crate) address: String,
    pub(crate) state: State,
    /// Requests sent to it since the balancer began, tries that failed included.
    pub(crate) requests: u64,
}

/// One cache node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) pid: Option<u32>,
    pub(crate) address: String,
    pub(crate) state: State,
}

/// How a process is, by its supervisor and by the last probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Starting,
    Up,
    /// It runs, or was never told to have ended, and answers no probe.
    #[serde(rename = "not answering")]
    Silent,
    Down,
}

/// The cache nodes as their supervisor last saw them; empty when there is none.
#[derive(Debug, Default)]
pub(crate) struct NodeBoard(RwLock<Vec<NodeStatus>>);

impl NodeBoard {
    pub(crate) fn nodes(&self) -> Vec<NodeStatus> {
        self.0.read().clone()
    }

    /// Replaces what is known of all nodes.
    pub(crate) fn replace(&self, nodes: Vec<NodeStatus>) {
        *self.0.write() = nodes;
    }

    /// Notes whether the node of that name answers; of one that does not run that is no news.
    pub(crate) fn note_answer(&self, name: &str, answers: bool) {
        let mut nodes = self.0.write();
        let node = nodes.iter_mut().find(|node| node.name == name && matches!(node.state, State::Up | State::Silent));
        if let Some(node) = node {
            node.state = if answers { State::Up } else { State::Silent };
        }
    }

    /// Replaces what is known of the node of that name.
    pub(crate) fn set(&self, status: NodeStatus) {
        let mut nodes = self.0.write();
        match nodes.iter_mut().find(|node| node.name == status.name) {
            Some(node) => *node = status,
            None => nodes.push(status),
        }
    }
}
