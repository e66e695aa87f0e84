//! Counters. Each worker thread writes its own, so that counting costs no contention; INFO adds them up.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use crate::command::table::TABLE;

/// Distinct error prefixes that are counted (Redis: 128): scripts may invent prefixes without end.
const ERROR_PREFIXES_MAX: usize = 128;

/// One command's counters.
#[derive(Debug, Default)]
pub(crate) struct CommandStats {
    pub(crate) calls: AtomicU64,
    pub(crate) nanoseconds: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// Counters of one worker thread.
#[derive(Debug)]
pub(crate) struct WorkerStats {
    pub(crate) commands: Box<[CommandStats]>,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl WorkerStats {
    pub(crate) fn new() -> WorkerStats {
        WorkerStats {
            commands: TABLE.iter().map(|_| CommandStats::default()).collect(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    pub(crate) fn called(&self, index: usize, took: Duration, has_failed: bool) {
        let stats = &self.commands[index];
        add(&stats.calls, 1);
        add(&stats.nanoseconds, took.as_nanos() as u64);
        if has_failed {
            add(&stats.failed, 1);
        }
    }

    pub(crate) fn rejected(&self, index: usize) {
        add(&self.commands[index].rejected, 1);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.bytes_in, bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    /// CONFIG RESETSTAT. A count that runs at the same moment on its own thread may survive.
    pub(crate) fn reset(&self) {
        for stats in &self.commands {
            for counter in [&stats.calls, &stats.nanoseconds, &stats.rejected, &stats.failed] {
                counter.store(0, Ordering::Relaxed);
            }
        }
        self.bytes_in.store(0, Ordering::Relaxed);
        self.bytes_out.store(0, Ordering::Relaxed);
    }
}

/// Only the owning thread adds, so a load and a store do, without the cost of a locked instruction.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Error replies by prefix, as INFO errorstats shows them.
#[derive(Debug, Default)]
pub(crate) struct ErrorStats(Mutex<BTreeMap<String, u64>>);

impl ErrorStats {
    pub(crate) fn count(&self, prefix: &str) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(prefix) {
            *count += 1;
        } else if counts.len() < ERROR_PREFIXES_MAX {
            counts.insert(prefix.to_owned(), 1);
        }
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }

    pub(crate) fn reset(&self) {
        self.0.lock().clear();
    }
}
