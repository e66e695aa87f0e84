//! Copies of a primary, for reads that may be a little behind.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::nodes::{Address, Node, NodeStatus};

#[derive(Debug, Default)]
pub(crate) struct Replicas {
    nodes: Vec<Arc<Node>>,
    /// They take turns.
    turn: AtomicUsize,
}

impl Replicas {
    /// One address that leads to whichever copy.
    pub(crate) fn endpoint(node: Arc<Node>) -> Self {
        Self { nodes: vec![node], turn: AtomicUsize::new(0) }
    }

    /// Those at these addresses. Nodes that are known stay, with their connections and what is known of them.
    pub(crate) fn at(addresses: &[Address], known: &[Arc<Node>], make: impl Fn(Address) -> Arc<Node>) -> Self {
        let known = |address: &Address| known.iter().find(|node| node.address() == address).cloned();
        let nodes = addresses.iter().map(|address| known(address).unwrap_or_else(|| make(address.clone()))).collect();
        Self { nodes, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    pub(crate) fn status(&self) -> Vec<NodeStatus> {
        self.nodes.iter().map(|node| node.status()).collect()
    }

    /// One that is not known to be away.
    pub(crate) fn pick(&self) -> Option<Arc<Node>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let turns = (0..self.nodes.len()).map(|next| &self.nodes[first.wrapping_add(next) % self.nodes.len()]);
        turns.into_iter().find(|node| node.is_closed()).cloned()
    }
}
