//! WAIT and WAITAOF: until what a client wrote is on replicas and on disk.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{node::Shared, protocol::Reply};

/// How often the disk is looked at: what replicas confirm is told at once.
const LOOK: Duration = Duration::from_millis(5);

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitFor {
    Replicas(usize),
    Disk { is_local: bool, replicas: usize },
}

/// A client that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) what: WaitFor,
    /// The stream's offset behind its last write.
    pub(crate) offset: u64,
    /// The epoch of the role in which it waits: in another one this offset is somewhere else, and what replicas confirm is no answer.
    pub(crate) epoch: u64,
    /// `None`: for ever.
    pub(crate) timeout: Option<Duration>,
}

impl Wait {
    /// How many replicas have it; for WAITAOF whether this node has it on disk, and how many replicas have.
    pub(crate) fn counts(&self, shared: &Shared) -> (bool, usize) {
        let replicas = &shared.replication.replicas;
        match self.what {
            WaitFor::Replicas(_) => (false, replicas.count_at(self.offset)),
            WaitFor::Disk { .. } => (
                shared.journal.barrier.has_log() && shared.journal.barrier.synced_offset() >= self.offset,
                replicas.count_synced_at(self.offset),
            ),
        }
    }

    /// Writes what WAIT and WAITAOF answer.
    pub(crate) fn answer(&self, shared: &Shared, reply: &mut Reply) {
        let (is_local, replicas) = self.counts(shared);
        if let WaitFor::Disk { .. } = self.what {
            reply.array(2);
            reply.integer(i64::from(is_local));
        }
        reply.count(replicas);
    }

    pub(crate) fn is_over(&self, shared: &Shared) -> bool {
        let (is_local, count) = self.counts(shared);
        match self.what {
            WaitFor::Replicas(wanted) => count >= wanted,
            WaitFor::Disk { is_local: wants_local, replicas } => (is_local || !wants_local) && count >= replicas,
        }
    }
}

/// The role is another one than when it began to wait.
#[derive(Debug)]
pub(crate) struct Deposed;

impl Deposed {
    /// What the client is told, in Redis's words, before its connection ends.
    pub(crate) const TEXT: &str = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
}

/// Completes when what is waited for is there, or the time is over.
pub(crate) async fn wait(shared: &Shared, wait: Wait) -> Result<(), Deposed> {
    let deadline = wait.timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let acknowledged = shared.replication.acknowledged.notified();
        let is_over = wait.is_over(shared);
        // Behind what was counted, which must be of that role.
        if shared.replication.epoch() != wait.epoch {
            return Err(Deposed);
        }
        if is_over || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(());
        }
        shared.replication.ask_to_confirm(shared);
        let next = Instant::now() + LOOK;
        let next = match wait.what {
            WaitFor::Disk { .. } => Some(next),
            WaitFor::Replicas(_) => None,
        };
        let wake_up = [deadline, next].into_iter().flatten().min();
        match wake_up {
            Some(at) => drop(timeout_at(at, acknowledged).await),
            None => acknowledged.await,
        }
    }
}
