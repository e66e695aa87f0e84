//! The orderly end: replicas first, the primary last, so that what it saves is everything.

use std::time::Instant;

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
                ending.spawn(end(process));
            }
        }
        while ending.join_next().await.is_some() {}
        self.publish();
        if let Some(process) = self.primary().and_then(|index| self.members[index].process.take()) {
            end(process).await;
        }
        self.publish();
        self.store_or_tell();
    }
}

/// Ends a node in order, or else at once.
pub(super) async fn end(process: NodeProcess) {
    let started = Instant::now();
    while started.elapsed() < STOP_MAX {
        // Asked again, since Redis refuses to end while it writes its first log.
        process.signal(Signal::TERM);
        if timeout(STOP_PERIOD, process.ended()).await.is_ok() {
            return;
        }
    }
    tracing::warn!(pid = process.id.pid, "it did not end within {STOP_MAX:?} and is killed");
    process.kill().await;
}
