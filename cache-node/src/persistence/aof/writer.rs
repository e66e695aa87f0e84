//! The log as those see it whose replies wait for it.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{node::Shared, persistence::aof::keeper::Keeper};

/// How long a thread that serves connections waits for its turn to write the log. Whoever has it takes microseconds, or begins another
/// file: then the log's own thread writes what is left behind that.
const TURN_TIME_MAX: Duration = Duration::from_millis(1);

/// Writes to the log from other threads than its own: a reply that waits until its write is in the file need not wait for a thread to wake.
#[derive(Debug, Default)]
pub(crate) struct LogWriter {
    /// Held by the log's thread alone: it ends the log, and with it what is held here.
    keeper: OnceLock<Weak<Mutex<Keeper>>>,
}

impl LogWriter {
    pub(super) fn writes_by(&self, keeper: &Arc<Mutex<Keeper>>) {
        // There is one log's thread in the life of a node.
        let _first = self.keeper.get_or_init(|| Arc::downgrade(keeper));
    }

    /// Writes what waits for the log to its file, and tells the barrier. Where more is to be done than that, or it fails, the log's thread
    /// is called, and whoever waits waits for that.
    pub(crate) fn write_waiting(&self, shared: &Shared) {
        let barrier = &shared.journal.barrier;
        if !barrier.has_log() || barrier.written_offset() >= shared.journal.offset() {
            return;
        }
        let Some(keeper) = self.keeper.get().and_then(Weak::upgrade) else { return };
        let is_written = keeper.try_lock_for(TURN_TIME_MAX).is_some_and(|mut keeper| keeper.write_waiting());
        if !is_written {
            shared.journal.call_log();
        }
    }
}
