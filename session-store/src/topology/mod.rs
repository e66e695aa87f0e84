//! Which node to ask.

use std::sync::Arc;

use crate::{
    StoreError,
    nodes::{Node, NodeStatus},
};

/// Which node to ask.
#[derive(Debug)]
pub(crate) enum Topology {
    /// Always the same, or whatever its name leads to.
    Standalone(Arc<Node>),
}

impl Topology {
    pub(crate) async fn node(&self) -> Result<Arc<Node>, StoreError> {
        match self {
            Self::Standalone(node) => Ok(Arc::clone(node)),
        }
    }

    /// Returns when the node that is to be asked may answer again.
    pub(crate) async fn recovered(&self) {
        match self {
            Self::Standalone(node) => node.until_closed().await,
        }
    }

    /// Whether one node has all keys, so that a script may use those of different slots.
    pub(crate) fn is_one_node(&self) -> bool {
        match self {
            Self::Standalone(_) => true,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Standalone(_) => "standalone",
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeStatus> {
        match self {
            Self::Standalone(node) => vec![node.status()],
        }
    }
}
