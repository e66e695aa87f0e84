//! A running fleet: cache node, replicas and the balancer in front of them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use futures_util::future::{join_all, try_join_all};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::balancer::{FleetStatus, NodeBoard, Replica, ReplicaSet};
use crate::fleet::cluster::Looker;
use crate::fleet::data::DataDir;
use crate::fleet::member::{Member, Role};
use crate::fleet::node_probe;
use crate::fleet::output::Output;
use crate::shop::EncryptionArgs;

/// What a fleet is made of.
#[derive(Debug)]
pub(crate) struct FleetConfig {
    /// From 1 to [`crate::fleet::limits::REPLICAS_MAX`].
    pub(crate) replicas: u8,
    pub(crate) cache: Cache,
    /// The database; `None` takes a SQLite file in the data folder.
    pub(crate) database: Option<String>,
    /// Passed on to each replica.
    pub(crate) encryption: EncryptionArgs,
    pub(crate) output: Output,
    /// Whether deaths and returns of processes are told in the log.
    pub(crate) announces: bool,
}

/// The store of sessions and carts.
#[derive(Debug, Clone)]
pub(crate) enum Cache {
    /// A cache node of the fleet's own.
    Node,
    /// A cluster of cache nodes of the fleet's own.
    Cluster,
    /// Somebody else's, by its URL.
    Given(String),
}

impl Cache {
    /// From what the command line takes; it takes not both.
    pub(crate) fn of(url: Option<String>, is_cluster: bool) -> Self {
        match url {
            Some(url) => Self::Given(url),
            None if is_cluster => Self::Cluster,
            None => Self::Node,
        }
    }
}

/// A fleet that serves. Dropping it kills its processes, but for a cluster's controller, which ends its nodes and then itself;
/// [`Fleet::stop`] ends them in order.
#[derive(Debug)]
pub(crate) struct Fleet {
    address: SocketAddr,
    replicas: Arc<ReplicaSet>,
    board: Arc<NodeBoard>,
    ending: watch::Sender<bool>,
    balancer: JoinHandle<()>,
    replica_members: Vec<Member>,
    node: Option<Member>,
    node_probe: Option<AbortHandle>,
    _data: DataDir,
}

impl Fleet {
    /// Starts everything behind `listener`, in the order of dependence. Returns when every replica is ready.
    ///
    /// The balancer is a task of the supervisor and not a process: `/fleet.json` tells pids and states that only the
    /// supervisor knows, and a replica that died is taken out of the rotation before any probe could notice. A shop that
    /// wants the balancer apart runs `demo-shop balance`.
    ///
    /// # Errors
    /// When a process does not start; those that did are ended.
    pub(crate) async fn start(config: FleetConfig, data: DataDir, listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("cannot read the listener's address")?;
        let board = Arc::new(NodeBoard::default());
        let session_key = data.session_key()?;
        let mut node_probe = None;
        let (cache, node) = match config.cache {
            Cache::Given(url) => (url, None),
            own => {
                let role = match own {
                    Cache::Cluster => {
                        Role::Cluster { folder: data.node_folder("cluster")?, looker: Looker::start(Arc::clone(&board)) }
                    }
                    _ => {
                        let name = "node-1".to_owned();
                        let folder = data.node_folder(&name)?;
                        Role::Node { name, board: Arc::clone(&board), folder }
                    }
                };
                let name = role.name().to_owned();
                let is_alone = matches!(role, Role::Node { .. });
                let node = Member::start(role, &config.output, config.announces).await?;
                if is_alone {
                    // The node never moves: the replicas know its address.
                    let probe = node_probe::watch(Arc::clone(&board), name, node.address);
                    node_probe = Some(tokio::spawn(probe).abort_handle());
                }
                (format!("redis://{}", node.address), Some(node))
            }
        };
        let database = config.database.map_or_else(|| data.database_url(), Ok)?;
        let handles: Vec<Arc<Replica>> =
            replica_names(config.replicas).map(|name| Arc::new(Replica::supervised(&name))).collect();
        let start = |replica: &Arc<Replica>| {
            let role = Role::Replica {
                replica: Arc::clone(replica),
                cache: cache.clone(),
                database: database.clone(),
                session_key: session_key.clone(),
                encryption: config.encryption.clone(),
            };
            let output = config.output.clone();
            async move { Member::start(role, &output, config.announces).await }
        };
        // The first one alone: it brings a new database up to date, and the others then find it ready.
        let (first, others) = handles.split_first().context("a fleet needs at least one replica: --replicas 1")?;
        let mut replica_members = vec![start(first).await?];
        replica_members.extend(try_join_all(others.iter().map(start)).await?);

        let replicas = Arc::new(ReplicaSet::new(handles));
        let (ending, mut ended) = watch::channel(false);
        let shutdown = async move {
            let _ = ended.wait_for(|ending| *ending).await;
        };
        let serve = crate::balancer::serve(listener, Arc::clone(&replicas), Arc::clone(&board), shutdown);
        let balancer = tokio::spawn(serve);
        Ok(Self { address, replicas, board, ending, balancer, replica_members, node, node_probe, _data: data })
    }

    /// Where the balancer listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Somebody who can look at the fleet from another task.
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher { replicas: Arc::clone(&self.replicas), board: Arc::clone(&self.board) }
    }

    /// Ends everything against the order of dependence: no new requests, then the replicas, the node last.
    pub(crate) async fn stop(mut self) {
        self.ending.send_replace(true);
        let _ = (&mut self.balancer).await;
        join_all(self.replica_members.drain(..).map(Member::stop)).await;
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
    }
}

/// Sees what `/fleet.json` tells, without asking over the network. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    replicas: Arc<ReplicaSet>,
    board: Arc<NodeBoard>,
}

impl Watcher {
    pub(crate) fn status(&self) -> FleetStatus {
        FleetStatus::of(&self.replicas, &self.board)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.balancer.abort();
        if let Some(probe) = &self.node_probe {
            probe.abort();
        }
    }
}

/// A, B, C …
fn replica_names(count: u8) -> impl Iterator<Item = String> {
    ('A'..='Z').take(usize::from(count)).map(String::from)
}
