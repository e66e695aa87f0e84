//! Commands to a running cluster that are more than one order to its controller.

mod backup;
mod progress;
mod replicas;
mod restore;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub(super) use crate::cluster::operation::{
    progress::{Line, Progress},
    restore::end_former,
};
use crate::cluster::{
    controller::{Order, Outcome, Task},
    events::Events,
    limits::PROGRESS_PERIOD,
    settings::Settings,
    view::View,
};

/// A command, as it is sent to the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub(super) enum Operation {
    Failover,
    AddReplica,
    RemoveReplica { name: Option<String> },
    RollingRestart,
    Backup { keep: Option<usize> },
    Restore { file: PathBuf },
    ScaleMemory { size: String },
}

/// What operations work with. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) events: Arc<Events>,
    pub(super) settings: Arc<Settings>,
    /// The cluster's folder, absolute.
    pub(super) folder: PathBuf,
    /// Held by the one operation that runs.
    pub(super) turn: Arc<Mutex<()>>,
}

impl Desk {
    /// Runs one operation to its end.
    pub(super) async fn run(self, operation: Operation, progress: &Progress) -> Outcome {
        let Ok(_turn) = self.turn.try_lock() else {
            return Err("another command is running; try again when it has ended".to_owned());
        };
        match operation {
            Operation::Failover => self.order(Task::FailOver).await,
            Operation::AddReplica => self.add_replica(progress).await,
            Operation::RemoveReplica { name } => self.order(Task::RemoveReplica(name)).await,
            Operation::RollingRestart => self.rolling_restart(progress).await,
            Operation::Backup { keep } => self.backup(keep, progress).await,
            Operation::Restore { file } => self.restore(&file, progress).await,
            Operation::ScaleMemory { size } => self.order(Task::SetMaxmemory(size)).await,
        }
    }

    /// Gives the primary's role to a replica. `None` while another operation runs.
    pub(super) async fn fail_over(&self) -> Option<Outcome> {
        let _turn = self.turn.try_lock().ok()?;
        Some(self.order(Task::FailOver).await)
    }

    async fn order(&self, task: Task) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let ending = || "the controller is ending".to_owned();
        self.orders.send(Order { task, reply }).await.map_err(|_| ending())?;
        outcome.await.map_err(|_| ending())?
    }

    pub(super) fn seen(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Waits until the cluster is as wanted, and tells how it is meanwhile.
    async fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut is_done: impl FnMut(&View) -> bool,
        mut tell: impl FnMut(&View),
    ) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.seen();
            if is_done(&seen) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("{what}: not within {limit:?}; see cluster status and the nodes' logs"));
            }
            tell(&seen);
            tokio::time::sleep(PROGRESS_PERIOD).await;
        }
    }
}
