//! Which node to ask.

mod cluster;
mod packed;
mod sentinel;
mod slots;

use std::sync::Arc;

#[cfg(feature = "testing")]
pub(crate) use self::packed::arguments;
pub(crate) use self::{
    cluster::Cluster,
    packed::{Asking, split},
    sentinel::Sentinel,
    slots::Slot,
};
use crate::{
    StoreError,
    nodes::{Address, Node, NodeStatus},
};

/// Which node to ask.
#[derive(Debug)]
pub(crate) enum Topology {
    /// Always the same, or whatever its name leads to.
    Standalone(Arc<Node>),
    /// The primary that the Sentinels name.
    Sentinel(Sentinel),
    /// The primary of a key's slot.
    Cluster(Cluster),
}

impl Topology {
    /// The node for keys of this slot; the slot is asked for only where it matters.
    pub(crate) async fn node(&self, slot: Option<Slot>) -> Result<Arc<Node>, StoreError> {
        match self {
            Self::Standalone(node) => Ok(Arc::clone(node)),
            Self::Sentinel(sentinel) => sentinel.node().await,
            Self::Cluster(cluster) => cluster.node(slot).await,
        }
    }

    /// Returns when the node that is to be asked may answer again, or is another one.
    pub(crate) async fn recovered(&self, slot: Option<Slot>) {
        match self {
            Self::Standalone(node) => node.until_closed().await,
            Self::Sentinel(sentinel) => sentinel.recovered().await,
            Self::Cluster(cluster) => cluster.recovered(slot).await,
        }
    }

    /// Something was wrong with a node: another one may be in its place.
    pub(crate) fn refresh(&self) {
        match self {
            Self::Standalone(_) => {}
            Self::Sentinel(sentinel) => sentinel.refresh(),
            Self::Cluster(cluster) => cluster.refresh(),
        }
    }

    /// The node that another one has named; `moved`: for good.
    pub(crate) fn redirected(&self, slot: Slot, to: Address, moved: bool) -> Option<Arc<Node>> {
        match self {
            Self::Standalone(_) | Self::Sentinel(_) => None,
            Self::Cluster(cluster) => Some(cluster.redirected(slot, to, moved)),
        }
    }

    /// Whether one node has all keys, so that a script may use those of different slots.
    pub(crate) fn is_one_node(&self) -> bool {
        !matches!(self, Self::Cluster(_))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Standalone(_) => "standalone",
            Self::Sentinel(_) => "sentinel",
            Self::Cluster(_) => "cluster",
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeStatus> {
        match self {
            Self::Standalone(node) => vec![node.status()],
            Self::Sentinel(sentinel) => sentinel.nodes(),
            Self::Cluster(cluster) => cluster.nodes(),
        }
    }
}
