//! The orderly end: replicas first, the primary last, so that what it saves is everything.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::{task::JoinSet, time::timeout};

use crate::cluster::{
    controller::Controller,
    limits::{STOP_MAX, STOP_PERIOD},
    process::NodeProcess,
};

impl Controller {
    /// Ends every node; each has [`STOP_MAX`] to save its data.
    pub(super) async fn end(&mut self) {
        let mut ending = JoinSet::new();
        for member in &mut self.members {
            member.forget();
            if member.name != self.state.primary
                && let Some(process) = member.process.take()
            {
                ending.spawn(end(process, STOP_MAX));
            }
        }
        while ending.join_next().await.is_some() {}
        self.publish();
        if let Some(process) = self.primary().and_then(|index| self.members[index].process.take()) {
            end(process, STOP_MAX).await;
        }
        self.publish();
        self.store_or_tell();
    }
}

/// Ends a node in order, or else at once, after `limit`.
pub(super) async fn end(process: NodeProcess, limit: Duration) {
    let started = Instant::now();
    while started.elapsed() < limit {
        // Asked again, since Redis refuses to end while it writes its first log.
        process.signal(Signal::TERM);
        if timeout(STOP_PERIOD, process.ended()).await.is_ok() {
            return;
        }
    }
    tracing::warn!(pid = process.id.pid, "it did not end within {limit:?} and is killed");
    process.kill().await;
}
