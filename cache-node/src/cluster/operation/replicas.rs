//! One replica more, and a restart of every node without a time without a primary.

use crate::cluster::{
    controller::{Outcome, Task},
    events::EventKind,
    limits::SYNC_MAX,
    operation::{Desk, Progress},
    view::{NodeState, Role, View},
};

impl Desk {
    pub(super) async fn add_replica(&self, progress: &Progress) -> Outcome {
        let name = self.order(Task::AddReplica).await?;
        let tell = |view: &View| {
            let goal = view.primary_node().map_or(0, |node| node.offset);
            let offset = node_offset(view, &name);
            progress.tell(offset.min(goal), goal, format!("{name} copies the data"));
        };
        self.wait(&format!("{name} follows the primary"), SYNC_MAX, |view| serves(view, &name), tell).await?;
        let text = format!("{name} follows the primary");
        self.events.add(EventKind::ReplicationGroupIncreaseReplicaCountFinished, Some(&name), text.clone());
        Ok(text)
    }

    /// The replicas one after the other, then the primary, whose role goes to a replica first.
    pub(super) async fn rolling_restart(&self, progress: &Progress) -> Outcome {
        let seen = self.seen();
        let primary = seen.primary_node().map(|node| node.name.clone()).ok_or("the cluster has no primary")?;
        let replicas: Vec<String> = seen.replicas().map(|node| node.name.clone()).collect();
        if let Some(node) = seen.nodes.iter().find(|node| node.state != NodeState::Serving) {
            return Err(format!("{} does not serve ({:?}); a restart of the others would make it worse", node.name, node.state));
        }
        if replicas.is_empty() {
            return Err("the cluster has no replica that could serve meanwhile; add one: cluster add-replica".to_owned());
        }
        let total = replicas.len() as u64 + 1;
        for (done, name) in replicas.iter().enumerate() {
            progress.tell(done as u64, total, format!("{name} restarts"));
            self.order(Task::RestartReplica(name.clone())).await?;
            self.wait(&format!("{name} is back"), SYNC_MAX, |view| serves(view, name), |_| {}).await?;
        }
        progress.tell(total - 1, total, format!("{primary} gives its role away and restarts"));
        self.order(Task::FailOver).await?;
        self.wait(&format!("{primary} is back"), SYNC_MAX, |view| serves(view, &primary), |_| {}).await?;
        let now = self.seen().primary_node().map_or_else(String::new, |node| node.name.clone());
        Ok(format!("every node was restarted; {now} is the primary"))
    }
}

/// Whether the node has its data and does what it is there for.
fn serves(view: &View, name: &str) -> bool {
    let node = view.nodes.iter().find(|node| node.name == name);
    node.is_some_and(|node| node.state == NodeState::Serving && (node.role == Role::Replica || view.primary.is_some()))
}

fn node_offset(view: &View, name: &str) -> u64 {
    view.nodes.iter().find(|node| node.name == name).map_or(0, |node| node.offset)
}
