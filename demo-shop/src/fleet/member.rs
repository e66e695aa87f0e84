//! A named process of the fleet and its lives: what dies is started again, under the same name and port.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::balancer::{NodeBoard, NodeStatus, Replica, State};
use crate::fleet::backoff::Backoff;
use crate::fleet::child::{ChildCommand, RunningChild};
use crate::fleet::cluster;
use crate::fleet::limits::{CLUSTER_STOP_TIMEOUT, NODE_STOP_TIMEOUT, PORT_TRIES_MAX, REPLICA_STOP_TIMEOUT};
use crate::fleet::output::{Log, Output};
use crate::shop::EncryptionArgs;

/// What a process is, and who is told of its lives.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// A replica of the shop, with what its command line needs.
    Replica { replica: Arc<Replica>, cache: String, database: String, session_key: String, encryption: EncryptionArgs },
    /// The cache node of that name, and the folder of its log.
    Node { name: String, board: Arc<NodeBoard>, folder: String },
    /// The controller of a cluster of cache nodes, with the cluster's folder.
    Cluster { folder: String, looker: cluster::Looker },
}

impl Role {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Replica { replica, .. } => replica.name(),
            Self::Node { name, .. } => name,
            Self::Cluster { .. } => "cluster",
        }
    }

    /// The name with what it is, for people.
    fn title(&self) -> String {
        match self {
            Self::Replica { replica, .. } => format!("replica {}", replica.name()),
            Self::Node { name, .. } => format!("cache node {name}"),
            Self::Cluster { .. } => "controller of the cache nodes".to_owned(),
        }
    }

    fn stop_timeout(&self) -> Duration {
        match self {
            Self::Replica { .. } => REPLICA_STOP_TIMEOUT,
            Self::Node { .. } => NODE_STOP_TIMEOUT,
            Self::Cluster { .. } => CLUSTER_STOP_TIMEOUT,
        }
    }

    /// The replicas are told the node's address once, so the node must come back where it was; a replica's address is
    /// known to the balancer alone and may change.
    fn may_move(&self) -> bool {
        matches!(self, Self::Replica { .. })
    }

    fn command(&self, program: PathBuf, listen: SocketAddr) -> ChildCommand {
        let mut environment = Vec::new();
        let arguments: Vec<String> = match self {
            Self::Replica { replica, cache, database, session_key, encryption } => {
                // In the environment and not among the arguments, which every user of the machine can list.
                environment.push((crate::fleet::data::SESSION_KEY_VARIABLE, session_key.clone()));
                environment.extend(encryption.variables());
                let listen = listen.to_string();
                [
                    "serve",
                    "--with-parent",
                    "--listen",
                    &listen,
                    "--name",
                    replica.name(),
                    "--trusted-proxies",
                    "1",
                    "--cache",
                    cache,
                    "--database",
                    database,
                ]
                .map(str::to_owned)
                .into()
            }
            Self::Node { folder, .. } => {
                let (ip, port) = (listen.ip().to_string(), listen.port().to_string());
                // What a visitor was told is kept: it is on disk before the answer goes out.
                let kept = ["--dir", folder, "--appendonly", "yes", "--durability", "sync"];
                let node = ["node", "--with-parent", "--bind", &ip, "--port", &port];
                node.into_iter().chain(kept).map(str::to_owned).collect()
            }
            Self::Cluster { folder, .. } => cluster::arguments(folder, listen),
        };
        let is_killed_on_drop = !matches!(self, Self::Cluster { .. });
        ChildCommand { program, arguments: arguments.into_iter().map(OsString::from).collect(), environment, is_killed_on_drop }
    }

    fn note_ready(&self, child: &RunningChild) {
        match self {
            Self::Replica { replica, .. } => replica.set_ready(child.address, child.pid),
            Self::Node { name, board, .. } => {
                board.set(node_status(name, child.address, Some(child.pid), State::Up));
            }
            Self::Cluster { looker, .. } => looker.look_at(&child.ready_line),
        }
    }

    fn note_gone(&self, address: SocketAddr) {
        match self {
            Self::Replica { replica, .. } => replica.set_gone(),
            Self::Node { name, board, .. } => board.set(node_status(name, address, None, State::Down)),
            // Its nodes go on without it.
            Self::Cluster { .. } => {}
        }
    }
}

fn node_status(name: &str, address: SocketAddr, pid: Option<u32>, state: State) -> NodeStatus {
    NodeStatus { name: name.to_owned(), role: "primary".to_owned(), pid, address: address.to_string(), state }
}

/// A process under supervision. Dropping it kills the process, or lets a cluster's controller end its nodes by itself;
/// [`Member::stop`] ends it in order.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    stop: watch::Sender<bool>,
    lives: JoinHandle<()>,
}

impl Member {
    /// Starts the process on a free loopback port and keeps it alive from then on.
    ///
    /// # Errors
    /// When the first start fails: that is a fault of the set-up, which a second start would not heal.
    pub(crate) async fn start(role: Role, output: &Output, announces: bool) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let log = Log::new(output, role.name());
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = RunningChild::start(&role.command(program.clone(), listen), &log)
            .await
            .with_context(|| format!("cannot start {}", role.title()))?;
        let address = child.address;
        role.note_ready(&child);
        let (stop, stopping) = watch::channel(false);
        let lives = tokio::spawn(Lives { role, program, log, address, stopping, announces }.run(child));
        Ok(Self { address, stop, lives })
    }

    /// Ends the process: SIGTERM, a bounded wait, SIGKILL.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.lives).await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // The task owns the child, which is killed when the task's values are dropped; a controller sees its pipe close.
        self.lives.abort();
    }
}

struct Lives {
    role: Role,
    program: PathBuf,
    log: Log,
    address: SocketAddr,
    stopping: watch::Receiver<bool>,
    announces: bool,
}

impl Lives {
    /// Tells the operator, or, when somebody else does, whoever debugs this.
    fn announce(&self, news: &str) {
        if self.announces {
            tracing::info!("{news}");
        } else {
            tracing::debug!("{news}");
        }
    }

    async fn run(mut self, mut child: RunningChild) {
        let mut backoff = Backoff::default();
        let title = self.role.title();
        loop {
            let born = Instant::now();
            let stopping = self.stopping.clone();
            tokio::select! {
                () = stopped(stopping) => {
                    child.stop(self.role.stop_timeout()).await;
                    self.role.note_gone(self.address);
                    return;
                }
                ended = child.ended() => {
                    self.role.note_gone(self.address);
                    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    self.announce(&format!("{title} (pid {}) died: {how}; starting it again", child.pid));
                }
            }
            let died = Instant::now();
            backoff.note_uptime(died - born);
            let stopping = self.stopping.clone();
            child = tokio::select! {
                () = stopped(stopping) => return,
                child = self.start_again(&mut backoff) => child,
            };
            let waited = died.elapsed().as_millis();
            self.announce(&format!("{title} is back (pid {}) after {waited} ms", child.pid));
        }
    }

    /// Tries until it succeeds, with a bounded wait between the tries: a supervisor that gives up helps nobody.
    async fn start_again(&mut self, backoff: &mut Backoff) -> RunningChild {
        let mut failures = 0_u32;
        loop {
            tokio::time::sleep(backoff.next_delay()).await;
            let mut listen = self.address;
            if failures >= PORT_TRIES_MAX && self.role.may_move() {
                listen.set_port(0);
            }
            match RunningChild::start(&self.role.command(self.program.clone(), listen), &self.log).await {
                Ok(child) => {
                    self.address = child.address;
                    self.role.note_ready(&child);
                    return child;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!("{} does not start: {error:#}", self.role.title());
                }
            }
        }
    }
}

/// Resolves when the member was told to stop, or is gone.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
