//! What commands ask of the append-only log, and what it tells of itself.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::keyspace::Now;

/// Shared by the connections and the thread that keeps the log.
#[derive(Debug)]
pub(crate) struct LogState {
    /// A rewrite is asked for.
    is_rewrite_wanted: AtomicBool,
    /// The data is other than the log says: begin another log.
    is_renewal_wanted: AtomicBool,
    /// The node ends: write what there is, bring it to disk, and end.
    is_stopping: AtomicBool,
    /// Whether every write goes to a log that is whole.
    pub(crate) is_kept: AtomicBool,
    pub(crate) is_rewriting: AtomicBool,
    pub(crate) was_last_rewrite_good: AtomicBool,
    pub(crate) was_last_write_good: AtomicBool,
    pub(crate) rewrites: AtomicU64,
    pub(crate) failed_rewrites_in_a_row: AtomicU64,
    /// Seconds; -1: none yet.
    pub(crate) last_rewrite_seconds: AtomicI64,
    /// Unix time in milliseconds.
    pub(crate) rewrite_began_ms: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) base_bytes: AtomicU64,
    /// Times that it was brought to disk.
    pub(crate) syncs: AtomicU64,
    /// Times when bringing the log to disk took more than two seconds.
    pub(crate) delayed_syncs: AtomicU64,
}

impl Default for LogState {
    fn default() -> Self {
        LogState {
            is_rewrite_wanted: AtomicBool::new(false),
            is_renewal_wanted: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            is_kept: AtomicBool::new(false),
            is_rewriting: AtomicBool::new(false),
            was_last_rewrite_good: AtomicBool::new(true),
            was_last_write_good: AtomicBool::new(true),
            rewrites: AtomicU64::new(0),
            failed_rewrites_in_a_row: AtomicU64::new(0),
            last_rewrite_seconds: AtomicI64::new(-1),
            rewrite_began_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            base_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            delayed_syncs: AtomicU64::new(0),
        }
    }
}

impl LogState {
    /// Asks for a rewrite; [`LogState::takes_rewrite`] tells it once. Wake the log's thread behind it.
    pub(crate) fn want_rewrite(&self) {
        self.is_rewrite_wanted.store(true, Ordering::Release);
    }

    pub(crate) fn is_rewrite_wanted(&self) -> bool {
        self.is_rewrite_wanted.load(Ordering::Acquire)
    }

    pub(crate) fn takes_rewrite(&self) -> bool {
        self.is_rewrite_wanted.swap(false, Ordering::AcqRel)
    }

    /// Has the log begin anew from the data that is there now: it was replaced by that of another node, which is not in the stream. What
    /// is on disk stays until the new log is whole. Wake the log's thread behind it.
    pub(crate) fn want_renewal(&self) {
        self.is_renewal_wanted.store(true, Ordering::Release);
    }

    /// Whether what is on disk is other data still.
    pub(crate) fn is_renewal_wanted(&self) -> bool {
        self.is_renewal_wanted.load(Ordering::Acquire)
    }

    pub(crate) fn takes_renewal(&self) -> bool {
        self.is_renewal_wanted.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

/// How far loading has come.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    /// Unix time in seconds.
    pub(crate) began: AtomicU64,
    /// 0: it is not known before.
    pub(crate) total_bytes: AtomicU64,
    pub(crate) loaded_bytes: AtomicU64,
}

impl Loading {
    /// So many bytes are to be loaded.
    pub(crate) fn begin(&self, now: Now, total_bytes: u64) {
        self.began.store(now.unix_ms / 1000, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.loaded_bytes.store(0, Ordering::Relaxed);
    }

    pub(crate) fn loaded(&self, bytes: usize) {
        self.loaded_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
