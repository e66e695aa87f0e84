//! CLIENT PAUSE and FAILOVER: requests that wait at their connections for a while.

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use crate::{
    keyspace::Now,
    node::{Gate, Hindrance},
};

/// Which requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PauseKind {
    /// Those that may write, or that go to replicas in another way.
    Writes,
    All,
}

/// Who has requests wait. While nobody does, it costs a look at the gate.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    reasons: Mutex<Reasons>,
    resumed: Notify,
}

#[derive(Debug, Default)]
struct Reasons {
    /// CLIENT PAUSE, and when that is over, Unix milliseconds.
    command: Option<(PauseKind, u64)>,
    is_failing_over: bool,
}

impl Pause {
    /// CLIENT PAUSE: of two the one that keeps more waiting holds, and the later end.
    pub(crate) fn begin(&self, gate: &Gate, kind: PauseKind, until_ms: u64) {
        self.change(gate, |reasons| {
            let (before, end) = reasons.command.unwrap_or((kind, until_ms));
            reasons.command = Some((before.max(kind), end.max(until_ms)));
        });
    }

    /// CLIENT UNPAUSE.
    pub(crate) fn end(&self, gate: &Gate) {
        self.change(gate, |reasons| reasons.command = None);
    }

    pub(crate) fn set_failing_over(&self, gate: &Gate, is_failing_over: bool) {
        self.change(gate, |reasons| reasons.is_failing_over = is_failing_over);
    }

    /// Ends what is over.
    pub(crate) fn tick(&self, gate: &Gate, now: Now) {
        let is_over = || self.reasons.lock().command.is_some_and(|(_, end)| end <= now.unix_ms);
        if gate.has(Hindrance::Paused) && is_over() {
            self.end(gate);
        }
    }

    /// Which requests wait now, if any.
    pub(crate) fn kind(&self) -> Option<PauseKind> {
        let reasons = self.reasons.lock();
        let command = reasons.command.map(|(kind, _)| kind);
        command.max(reasons.is_failing_over.then_some(PauseKind::Writes))
    }

    /// Completes when something changed after this call. Ask first, then look, then await: nothing is missed.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.resumed.notified()
    }

    fn change(&self, gate: &Gate, change: impl FnOnce(&mut Reasons)) {
        let mut reasons = self.reasons.lock();
        change(&mut reasons);
        gate.set(Hindrance::Paused, reasons.command.is_some() || reasons.is_failing_over);
        drop(reasons);
        self.resumed.notify_waiters();
    }
}
