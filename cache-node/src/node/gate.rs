//! What keeps commands from running for a while, whoever sends them.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

/// A reason to refuse commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// The data is being loaded: what needs it waits until it is whole.
    Loading = 1 << 0,
    /// The log cannot be written: what would not be kept is not taken.
    LogFailed = 1 << 1,
    /// `durability sync` without a log and without a replica: nothing could be acknowledged.
    NowhereSafe = 1 << 2,
    /// The last snapshot by rule failed, and `stop-writes-on-bgsave-error` is set.
    SnapshotFailed = 1 << 3,
    /// This node is a replica.
    ReadOnly = 1 << 4,
    /// This node is a replica without its primary, and `replica-serve-stale-data` is no.
    Stale = 1 << 5,
    /// `min-replicas-to-write` are not there.
    TooFewReplicas = 1 << 6,
    /// CLIENT PAUSE, or FAILOVER is under way: some requests wait.
    Paused = 1 << 7,
}

/// The reasons in force. Costs one atomic load per batch while there are none.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    hindrances: AtomicU8,
    log_error: Mutex<String>,
}

impl Gate {
    pub(crate) fn is_open(&self) -> bool {
        self.hindrances.load(Ordering::Acquire) == 0
    }

    pub(crate) fn has(&self, hindrance: Hindrance) -> bool {
        self.hindrances.load(Ordering::Acquire) & hindrance as u8 != 0
    }

    pub(crate) fn set(&self, hindrance: Hindrance, is_there: bool) {
        if is_there {
            self.hindrances.fetch_or(hindrance as u8, Ordering::AcqRel);
        } else {
            self.hindrances.fetch_and(!(hindrance as u8), Ordering::AcqRel);
        }
    }

    /// The log cannot be written, for this reason; or it can again.
    pub(crate) fn set_log_error(&self, error: Option<String>) {
        self.set(Hindrance::LogFailed, error.is_some());
        *self.log_error.lock() = error.unwrap_or_default();
    }

    /// What a write is told while it may not run.
    pub(crate) fn refusal_of_write(&self) -> Option<String> {
        if self.has(Hindrance::ReadOnly) {
            Some("READONLY You can't write against a read only replica.".to_owned())
        } else if self.has(Hindrance::TooFewReplicas) {
            Some("NOREPLICAS Not enough good replicas to write.".to_owned())
        } else if self.has(Hindrance::LogFailed) {
            Some(format!("MISCONF Errors writing to the AOF file: {}", self.log_error.lock()))
        } else if self.has(Hindrance::NowhereSafe) {
            Some(
                "NOREPLICAS Not enough good replicas to write: durability is sync, no replica is connected and there is no \
                 append-only log. Start one of them, or set durability to async."
                    .to_owned(),
            )
        } else if self.has(Hindrance::SnapshotFailed) {
            Some(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may \
                 modify the data set are disabled, because this instance is configured to report errors during writes if RDB \
                 snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB \
                 error."
                    .to_owned(),
            )
        } else {
            None
        }
    }
}
