//! Which node to ask.

mod cluster;
mod packed;
mod replicas;
mod sentinel;
mod slots;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

#[cfg(feature = "testing")]
pub(crate) use self::packed::arguments;
pub(crate) use self::{
    cluster::{Cluster, health},
    packed::{Asking, split},
    replicas::Replicas,
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
    /// Always the same, or whatever its name leads to; and an address of its copies, if one was named.
    Standalone(Arc<Node>, Option<Replicas>),
    /// The primary that the Sentinels name.
    Sentinel(Sentinel),
    /// The primary of a key's slot.
    Cluster(Cluster),
}

impl Topology {
    /// The node for keys of this slot; the slot is asked for only where it matters.
    pub(crate) async fn node(&self, slot: Option<Slot>) -> Result<Arc<Node>, StoreError> {
        match self {
            Self::Standalone(node, _) => Ok(Arc::clone(node)),
            Self::Sentinel(sentinel) => sentinel.node().await,
            Self::Cluster(cluster) => cluster.node(slot).await,
        }
    }

    /// Whether this one node has all keys, as far as is known. Asked without a clone, whose count the cores would take from each other.
    pub(crate) fn is_all_at(&self, node: &Arc<Node>) -> bool {
        match self {
            Self::Standalone(here, _) => Arc::ptr_eq(here, node),
            Self::Sentinel(sentinel) => sentinel.is_primary(node),
            Self::Cluster(_) => false,
        }
    }

    /// Every node that has keys. Of a cluster with the epoch of the map that says so; `None` where there is one node.
    pub(crate) async fn primaries(&self) -> Result<(Vec<Arc<Node>>, Option<u64>), StoreError> {
        // Of a cluster that nobody has asked for anything yet, this brings the first map.
        let node = self.node(None).await?;
        match self {
            Self::Standalone(..) | Self::Sentinel(_) => Ok((vec![node], None)),
            Self::Cluster(cluster) => {
                let (nodes, epoch) = cluster.primaries();
                Ok((nodes, Some(epoch)))
            }
        }
    }

    /// Counts how often keys have another node than before, before the first request to it.
    pub(crate) fn switches(&self) -> Arc<AtomicU64> {
        match self {
            Self::Standalone(..) => Arc::default(),
            Self::Sentinel(sentinel) => sentinel.switches(),
            Self::Cluster(cluster) => cluster.switches(),
        }
    }

    /// Whether reads may go to replicas.
    pub(crate) fn has_replicas(&self) -> bool {
        match self {
            Self::Standalone(_, replicas) => replicas.is_some(),
            Self::Sentinel(sentinel) => sentinel.has_replicas(),
            Self::Cluster(cluster) => cluster.has_replicas(),
        }
    }

    /// A copy of the node for keys of this slot; `None` when there is none that answers.
    pub(crate) fn replica(&self, slot: Slot) -> Option<Arc<Node>> {
        match self {
            Self::Standalone(_, replicas) => replicas.as_ref()?.pick(),
            Self::Sentinel(sentinel) => sentinel.replica(),
            Self::Cluster(cluster) => cluster.replica(slot),
        }
    }

    /// Returns when the node that is to be asked may answer again, or is another one.
    pub(crate) async fn recovered(&self, slot: Option<Slot>) {
        match self {
            Self::Standalone(node, _) => node.until_closed().await,
            Self::Sentinel(sentinel) => sentinel.recovered().await,
            Self::Cluster(cluster) => cluster.recovered(slot).await,
        }
    }

    /// Something was wrong with a node: another one may be in its place.
    pub(crate) fn refresh(&self) {
        match self {
            Self::Standalone(..) => {}
            Self::Sentinel(sentinel) => sentinel.refresh(),
            Self::Cluster(cluster) => cluster.refresh(),
        }
    }

    /// The node that another one has named; `moved`: for good.
    pub(crate) fn redirected(&self, slot: Slot, to: Address, moved: bool) -> Option<Arc<Node>> {
        match self {
            Self::Standalone(..) | Self::Sentinel(_) => None,
            Self::Cluster(cluster) => Some(cluster.redirected(slot, to, moved)),
        }
    }

    /// Whether one node has all keys, so that a script may use those of different slots.
    pub(crate) fn is_one_node(&self) -> bool {
        !matches!(self, Self::Cluster(_))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Standalone(..) => "standalone",
            Self::Sentinel(_) => "sentinel",
            Self::Cluster(_) => "cluster",
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeStatus> {
        match self {
            Self::Standalone(node, _) => vec![node.status()],
            Self::Sentinel(sentinel) => sentinel.nodes(),
            Self::Cluster(cluster) => cluster.nodes(),
        }
    }

    /// The replicas that reads may go to.
    pub(crate) fn replicas(&self) -> Vec<NodeStatus> {
        match self {
            Self::Standalone(_, replicas) => replicas.as_ref().map(Replicas::status).unwrap_or_default(),
            Self::Sentinel(sentinel) => sentinel.replicas(),
            Self::Cluster(cluster) => cluster.replicas(),
        }
    }
}

/// What is looked for, as soon as it is there, within this time. `changed` tells of whatever may bring it.
async fn first<T>(changed: &Notify, within: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
    let found = async {
        loop {
            let told = changed.notified();
            if let Some(found) = look() {
                return found;
            }
            told.await;
        }
    };
    timeout(within, found).await.ok()
}

/// Returns when the node that is to be asked may answer again, whichever it is by then.
async fn recovered(changed: &Notify, node: impl Fn() -> Option<Arc<Node>>) {
    loop {
        let told = changed.notified();
        match node() {
            Some(node) => tokio::select! {
                () = node.until_closed() => return,
                () = told => {}
            },
            None => told.await,
        }
    }
}
