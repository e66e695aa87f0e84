//! What the controller is asked to do, one thing at a time.

use std::{net::SocketAddr, time::Instant};

use tokio::sync::oneshot;

use crate::cluster::{
    controller::{Controller, Floor, ending},
    events::EventKind,
    limits::{CALL_MAX, REPLICAS_MAX, RESTART_STOP_MAX},
    link::Link,
};

/// How an order ended: what was done, or why not.
pub(in crate::cluster) type Outcome = Result<String, String>;

/// One thing to do. Each is quick; what takes long is made of several and waits in between.
#[derive(Debug)]
pub(in crate::cluster) struct Order {
    pub(in crate::cluster) task: Task,
    pub(in crate::cluster) reply: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
pub(in crate::cluster) enum Task {
    /// Give the primary's role to a replica.
    FailOver,
    /// Start one more replica. Answered with its name.
    AddReplica,
    /// End a replica for good; the last one when none is named.
    RemoveReplica(Option<String>),
    /// End a replica in order and start it again.
    RestartReplica(String),
    /// Change `maxmemory` of every node.
    SetMaxmemory(String),
    /// Replace all data by that of the node at this address.
    CopyFrom(SocketAddr),
    /// Go on with what there is: the node that is copied from has gone away.
    EndCopy,
}

impl Controller {
    pub(super) async fn obey(&mut self, order: Order) {
        let outcome = match order.task {
            Task::FailOver => self.hand_over().await,
            Task::AddReplica => self.add_replica(),
            Task::RemoveReplica(name) => self.remove_replica(name).await,
            Task::RestartReplica(name) => self.restart_replica(&name).await,
            Task::SetMaxmemory(size) => self.set_maxmemory(size).await,
            Task::CopyFrom(source) => self.copy_from(source).await,
            Task::EndCopy => {
                // At its next report the primary is made one again.
                self.source = None;
                Ok("the copy has ended".to_owned())
            }
        };
        // Before the answer: whoever has it must not see what was before.
        self.publish();
        // Whoever asked may have gone away.
        let told = order.reply.send(outcome);
        drop(told);
    }

    fn add_replica(&mut self) -> Outcome {
        let replicas = self.members.len() as u8;
        if replicas > REPLICAS_MAX {
            return Err(format!("the cluster has {REPLICAS_MAX} replicas, which is the most"));
        }
        let told = |error| format!("cannot add a replica: {error}");
        self.grow_to(replicas).map_err(told)?;
        self.store().map_err(told)?;
        let name = self.members.last().map_or_else(String::new, |member| member.name.clone());
        self.events.add(EventKind::ReplicationGroupIncreaseReplicaCountStarted, Some(&name), format!("{name} is added"));
        Ok(name)
    }

    async fn remove_replica(&mut self, name: Option<String>) -> Outcome {
        let index = match &name {
            Some(name) => self.replica(name)?,
            None => (0..self.members.len())
                .rev()
                .find(|index| self.members[*index].name != self.state.primary)
                .ok_or("the cluster has no replica")?,
        };
        let mut member = self.members.remove(index);
        self.floor = Floor::UnknownSince(Instant::now());
        // Not recorded any more before it ends: the other way round it would come back.
        let stored = self.store();
        if let Err(error) = stored {
            self.members.insert(index, member);
            return Err(format!("cannot record it: {error}"));
        }
        // At once: its data goes too, and one that hangs must not keep the controller from the others.
        member.fence().await;
        if let Err(error) = std::fs::remove_dir_all(&member.folder) {
            tracing::warn!(%error, "cannot remove {}", member.folder.display());
        }
        let text = format!("{} was removed", member.name);
        self.events.add(EventKind::RemoveCacheNodeComplete, Some(&member.name), text.clone());
        Ok(text)
    }

    async fn restart_replica(&mut self, name: &str) -> Outcome {
        let index = self.replica(name)?;
        self.floor = Floor::UnknownSince(Instant::now());
        let member = &mut self.members[index];
        member.forget();
        member.restart_at = None;
        if let Some(process) = member.process.take() {
            ending::end(process, RESTART_STOP_MAX).await;
        }
        self.start_member(index).await;
        self.store_or_tell();
        self.events.add(EventKind::CacheNodesRebooted, Some(name), format!("{name} was restarted"));
        Ok(format!("{name} was restarted"))
    }

    async fn set_maxmemory(&mut self, size: String) -> Outcome {
        for member in self.members.iter().filter(|member| member.report.is_some()) {
            let told = |error| format!("{} does not take maxmemory {size}: {error}", member.name);
            let mut link = Link::open(member.address()).await.map_err(told)?;
            link.call(&["CONFIG", "SET", "maxmemory", &size], CALL_MAX).await.map_err(told)?;
        }
        let text = format!("maxmemory of every node is {size}");
        self.state.maxmemory = Some(size);
        self.store().map_err(|error| format!("{text}, but it cannot be recorded: {error}"))?;
        self.events.add(EventKind::CacheClusterScalingComplete, None, text.clone());
        Ok(text)
    }

    /// The primary follows the source until it has a full copy; then it is the primary again.
    async fn copy_from(&mut self, source: SocketAddr) -> Outcome {
        let index = self.primary().ok_or("the cluster has no primary")?;
        let told = |error| format!("the primary cannot copy: {error}");
        let mut link = Link::open(self.members[index].address()).await.map_err(told)?;
        let (host, port) = (source.ip().to_string(), source.port().to_string());
        link.replicaof(&host, &port).await.map_err(told)?;
        self.source = Some((source, Instant::now()));
        if let Some(report) = &mut self.members[index].report {
            report.is_primary = false;
        }
        Ok("copying".to_owned())
    }

    fn replica(&self, name: &str) -> Result<usize, String> {
        let index = self.members.iter().position(|member| member.name == name);
        match index {
            Some(_) if name == self.state.primary => {
                Err(format!("{name} is the primary; give its role away first: cluster failover"))
            }
            Some(index) => Ok(index),
            None => {
                let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
                Err(format!("there is no {name}; the nodes are {}", names.join(", ")))
            }
        }
    }
}
