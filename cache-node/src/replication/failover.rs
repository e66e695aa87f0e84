//! FAILOVER: a primary hands its role to one of its replicas, and loses nothing. Writes wait until a replica has everything; then this
//! node follows that one, which becomes the primary by the very request that asks for its stream.

use std::time::{Duration, Instant};

use crate::{
    config::DurabilityMode,
    keyspace::{Keys, Now},
    node::{EventKind, Shared},
    replication::{HandedOver, PrimaryAddress, Replica, ReplicaState, Replication},
    server::now,
};

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct FailoverRequest {
    /// `None`: whichever replica has everything first.
    pub(crate) target: Option<PrimaryAddress>,
    /// Whether the target takes over when the time is up, although it lacks something.
    pub(crate) is_forced: bool,
    /// `None`: for ever.
    pub(crate) timeout: Option<Duration>,
}

/// How far a failover is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FailoverState {
    #[default]
    None,
    /// Writes wait, and a replica is still to get everything.
    WaitingForSync,
    /// This node is a replica, and asks the one that is to be the primary.
    InProgress,
}

impl FailoverState {
    /// As INFO names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FailoverState::None => "no-failover",
            FailoverState::WaitingForSync => "waiting-for-sync",
            FailoverState::InProgress => "failover-in-progress",
        }
    }
}

/// A failover that may be under way.
#[derive(Debug, Default)]
pub(super) struct Failover {
    state: FailoverState,
    target: Option<PrimaryAddress>,
    is_forced: bool,
    ends_at: Option<Instant>,
}

impl Replication {
    /// How far the failover is.
    pub(crate) fn failover_state(&self) -> FailoverState {
        self.failover.lock().state
    }

    /// Begins a failover. With every shard locked.
    ///
    /// # Errors
    /// Why it cannot begin, in Redis's words.
    pub(crate) fn begin_failover(&self, shared: &Shared, _: &mut Keys<'_>, request: FailoverRequest) -> Result<(), &'static str> {
        let mut failover = self.failover.lock();
        if failover.state != FailoverState::None {
            return Err("ERR FAILOVER already in progress.");
        }
        if self.primary().is_some() {
            return Err("ERR FAILOVER is not valid when server is a replica.");
        }
        if self.replicas.is_empty() {
            return Err("ERR FAILOVER requires connected replicas.");
        }
        let FailoverRequest { target, is_forced, timeout } = request;
        if is_forced && (target.is_none() || timeout.is_none()) {
            return Err("ERR FAILOVER with force option requires both a timeout and target HOST and IP.");
        }
        if let Some(target) = &target {
            let found = self.replicas.all().into_iter().find(|replica| replica.place() == *target);
            let found = found.ok_or("ERR FAILOVER target HOST and PORT is not a replica.")?;
            if found.state() != ReplicaState::Online {
                return Err("ERR FAILOVER target replica is not online.");
            }
        }
        let to = target.as_ref().map_or_else(|| "any replica".to_owned(), |target| format!("{}:{}", target.host, target.port));
        let text = format!("FAILOVER to {to} requested: writes wait until it has everything");
        shared.tell(EventKind::FailoverStarted, text);
        let ends_at = timeout.map(|timeout| Instant::now() + timeout);
        *failover = Failover { state: FailoverState::WaitingForSync, target, is_forced, ends_at };
        // What expires is hidden meanwhile: the stream is to come to an end.
        shared.keyspace.follow(true);
        shared.pause.set_failing_over(&shared.gate, true);
        Ok(())
    }

    /// Goes on with a failover that waits, if it can. With nothing locked.
    pub(super) fn continue_failover(&self, shared: &Shared) {
        let (target, is_forced, is_over) = {
            let failover = self.failover.lock();
            if failover.state != FailoverState::WaitingForSync {
                return;
            }
            let is_over = failover.ends_at.is_some_and(|at| Instant::now() >= at);
            (failover.target.clone(), failover.is_forced, is_over)
        };
        // Where a write is to be on every replica, those that were not answered yet are to be so before the role goes.
        let everyone_has_it = || {
            let config = shared.config();
            let is_needed = config.sync_needs_all_replicas && config.aof.durability == DurabilityMode::Sync;
            !is_needed || self.replicas.safe_on_all(now()) == Some(shared.journal.offset())
        };
        let can_succeed = |replica: &Replica| {
            replica.state() == ReplicaState::Online
                && replica.confirmed() == shared.journal.offset()
                && target.as_ref().is_none_or(|target| replica.place() == *target)
                && everyone_has_it()
        };
        let is_somebody_ready = || self.replicas.all().iter().any(|replica| can_succeed(replica));
        if !is_over && !is_somebody_ready() {
            return;
        }
        let now = now();
        let mut keys = shared.keyspace.lock_all(0, now, shared);
        if self.failover_state() != FailoverState::WaitingForSync {
            // Another thread was faster, and the role is given away already.
            return;
        }
        // Nothing is written any more: looked at once more.
        let ready = self.replicas.all().into_iter().find(|replica| can_succeed(replica));
        let handed_over = ready.as_ref().map(|_| HandedOver { epoch: self.epoch(), offset: shared.journal.offset() });
        let successor = match ready {
            Some(replica) => Some(target.unwrap_or_else(|| replica.place())),
            None if is_over && is_forced => target,
            None => None,
        };
        match successor {
            Some(successor) => {
                self.failover.lock().state = FailoverState::InProgress;
                tracing::info!(host = %successor.host, port = successor.port, "failing over");
                if let Some(over) = handed_over {
                    shared.journal.barrier.hand_over(over.offset);
                }
                *self.handed_over.lock() = handed_over;
                self.take_role(shared, &mut keys, Some(successor), now);
            }
            None if is_over => self.end_failover(shared, &mut keys, Some("no replica caught up before the timeout"), now),
            None => {}
        }
    }

    /// FAILOVER ABORT. `keys` have every shard locked. `false`: there was none.
    pub(crate) fn abort_failover(&self, shared: &Shared, keys: &mut Keys<'_>, now: Now) -> bool {
        let is_there = self.failover_state() != FailoverState::None;
        if is_there {
            self.end_failover(shared, keys, Some("it was aborted"), now);
        }
        is_there
    }

    /// The one that was to be the primary took the request for its stream, or refused it.
    pub(super) fn successor_answered(&self, shared: &Shared, is_taken: bool) {
        if self.failover_state() != FailoverState::InProgress {
            return;
        }
        let now = now();
        let mut keys = shared.keyspace.lock_all(0, now, shared);
        self.end_failover(shared, &mut keys, (!is_taken).then_some("the replica refused"), now);
    }

    /// Lets writes go on. `error`: it failed, and this node is the primary again if it was not any more.
    fn end_failover(&self, shared: &Shared, keys: &mut Keys<'_>, error: Option<&str>, now: Now) {
        let ended = std::mem::take(&mut *self.failover.lock());
        if ended.state == FailoverState::None {
            return;
        }
        match error {
            Some(error) => shared.tell(EventKind::FailoverFailed, format!("the failover ends: {error}")),
            None => shared.tell(EventKind::FailoverComplete, "the failover is complete: this node is a replica"),
        }
        if error.is_some() && ended.state == FailoverState::InProgress {
            self.take_role(shared, keys, None, now);
        }
        shared.keyspace.follow(self.primary().is_some());
        shared.pause.set_failing_over(&shared.gate, false);
    }
}
