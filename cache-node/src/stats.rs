//! Counters. Each worker thread writes its own, so that counting costs no contention; INFO adds them up.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::{command::table::TABLE, usage};

/// Distinct error prefixes that are counted (Redis: 128): scripts may invent prefixes without end.
const ERROR_PREFIXES_MAX: usize = 128;
/// Where those are counted that find no room, as in Valkey.
const OVERFLOW: &str = "ERRORSTATS_OVERFLOW";
/// Prefixes of the node itself, for which there is room however many a script has invented.
const OWN_PREFIXES: [&str; 29] = [
    "ASK",
    "BUSY",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "ERR",
    "EXECABORT",
    "INPROG",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGOODSLAVE",
    "NOMASTERLINK",
    "NOPERM",
    "NOPROTO",
    "NOQUORUM",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOTBUSY",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
    OVERFLOW,
];

/// Classes of duration that are counted apart: one per power of two of [`LATENCY_UNIT_NS`], and one for everything longer (a second).
pub(crate) const LATENCY_CLASSES: usize = 24;

/// Durations below this are one class: what the shortest commands take.
const LATENCY_UNIT_NS: u64 = 256;

/// One command's counters on one thread.
#[derive(Debug, Default)]
struct CommandStats {
    /// Calls by their duration; their sum is the number of calls.
    latencies: [AtomicU64; LATENCY_CLASSES],
    nanoseconds: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

/// One command's counters, all threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandTotals {
    pub(crate) latencies: [u64; LATENCY_CLASSES],
    pub(crate) nanoseconds: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
}

impl CommandTotals {
    pub(crate) fn calls(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// The microseconds that `percent` of the calls took at the most, as far as the classes tell; `None` without calls.
    pub(crate) fn percentile_us(&self, percent: f64) -> Option<f64> {
        let wanted = (self.calls() as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut count = 0;
        let class = self.latencies.iter().position(|calls| {
            count += calls;
            count >= wanted
        })?;
        // The last class has no bound.
        let bound = latency_bound_ns(class).unwrap_or(LATENCY_UNIT_NS << class);
        Some(bound as f64 / 1000.0)
    }

    pub(crate) fn add(&mut self, other: &CommandTotals) {
        for (sum, count) in self.latencies.iter_mut().zip(&other.latencies) {
            *sum += count;
        }
        self.nanoseconds += other.nanoseconds;
        self.rejected += other.rejected;
        self.failed += other.failed;
    }
}

/// The upper bound of a class of durations, in nanoseconds; `None`: it has none.
pub(crate) fn latency_bound_ns(class: usize) -> Option<u64> {
    (class + 1 < LATENCY_CLASSES).then(|| LATENCY_UNIT_NS << class)
}

/// The class of a duration: below [`latency_bound_ns`] of it, and not below that of the one before.
fn latency_class(nanoseconds: u64) -> usize {
    let units = nanoseconds / LATENCY_UNIT_NS;
    ((u64::BITS - units.leading_zeros()) as usize).min(LATENCY_CLASSES - 1)
}

/// Counters of one worker thread.
#[derive(Debug)]
pub(crate) struct WorkerStats {
    commands: Box<[CommandStats]>,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// The kernel's number of the thread; 0 until it runs.
    thread: AtomicU32,
}

impl WorkerStats {
    pub(crate) fn new() -> WorkerStats {
        WorkerStats {
            commands: TABLE.iter().map(|_| CommandStats::default()).collect(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            thread: AtomicU32::new(0),
        }
    }

    /// The thread begins.
    pub(crate) fn begin(&self) {
        self.thread.store(usage::thread_id().unwrap_or_default(), Ordering::Relaxed);
    }

    /// Seconds that the thread had a processor.
    #[cfg(feature = "metrics")]
    pub(crate) fn processor_seconds(&self) -> Option<f64> {
        usage::thread_seconds(self.thread.load(Ordering::Relaxed))
    }

    /// One call.
    pub(crate) fn called(&self, index: usize, nanoseconds: u64) {
        self.called_often(index, 1, nanoseconds);
    }

    /// `calls` calls, each of which took so long.
    pub(crate) fn called_often(&self, index: usize, calls: u64, nanoseconds_each: u64) {
        if calls == 0 {
            return;
        }
        let stats = &self.commands[index];
        add(&stats.latencies[latency_class(nanoseconds_each)], calls);
        add(&stats.nanoseconds, calls * nanoseconds_each);
    }

    /// A call, counted before or later, was answered by so many errors.
    pub(crate) fn failed(&self, index: usize, errors: u64) {
        add(&self.commands[index].failed, errors);
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

    /// The counters of the command at a place of the table.
    pub(crate) fn command(&self, index: usize) -> CommandTotals {
        let stats = &self.commands[index];
        CommandTotals {
            latencies: std::array::from_fn(|class| stats.latencies[class].load(Ordering::Relaxed)),
            nanoseconds: stats.nanoseconds.load(Ordering::Relaxed),
            rejected: stats.rejected.load(Ordering::Relaxed),
            failed: stats.failed.load(Ordering::Relaxed),
        }
    }

    /// CONFIG RESETSTAT. A count that runs at the same moment on its own thread may survive.
    pub(crate) fn reset(&self) {
        for stats in &self.commands {
            for counter in stats.latencies.iter().chain([&stats.nanoseconds, &stats.rejected, &stats.failed]) {
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

/// A command's counters over all threads.
pub(crate) fn command_totals(workers: &[WorkerStats], index: usize) -> CommandTotals {
    workers.iter().map(|worker| worker.command(index)).fold(CommandTotals::default(), |mut sum, totals| {
        sum.add(&totals);
        sum
    })
}

/// Commands that ran, over all threads.
pub(crate) fn calls(workers: &[WorkerStats]) -> u64 {
    (0..TABLE.len()).map(|index| command_totals(workers, index).calls()).sum()
}

/// Bytes received and sent, over all threads.
pub(crate) fn bytes(workers: &[WorkerStats]) -> (u64, u64) {
    let sum = |bytes: fn(&WorkerStats) -> &AtomicU64| workers.iter().map(|worker| bytes(worker).load(Ordering::Relaxed)).sum();
    (sum(|worker| &worker.bytes_in), sum(|worker| &worker.bytes_out))
}

/// Error replies by prefix, as INFO errorstats shows them.
#[derive(Debug, Default)]
pub(crate) struct ErrorStats(Mutex<BTreeMap<String, u64>>);

impl ErrorStats {
    pub(crate) fn count(&self, prefix: &str) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(prefix) {
            *count += 1;
            return;
        }
        let has_room = counts.len() < ERROR_PREFIXES_MAX || OWN_PREFIXES.contains(&prefix);
        let prefix = if has_room { prefix } else { OVERFLOW };
        *counts.entry(prefix.to_owned()).or_default() += 1;
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }

    pub(crate) fn reset(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ERROR_PREFIXES_MAX, ErrorStats, LATENCY_CLASSES, OWN_PREFIXES, WorkerStats, calls, command_totals, latency_bound_ns,
        latency_class,
    };

    #[test]
    fn invented_prefixes_have_a_bound_and_hide_no_error_of_the_nodes_own() {
        let errors = ErrorStats::default();
        for invented in 0..1_000 {
            errors.count(&format!("ORDER-{invented}"));
        }
        errors.count("WRONGTYPE");
        let counts = errors.snapshot();
        assert_eq!((counts["WRONGTYPE"], counts.values().sum::<u64>()), (1, 1_001));
        assert!(counts.len() <= ERROR_PREFIXES_MAX + OWN_PREFIXES.len(), "{}", counts.len());
    }

    #[test]
    fn a_class_ends_at_its_bound() {
        for class in 0..LATENCY_CLASSES - 1 {
            let bound = latency_bound_ns(class).expect("all but the last have one");
            assert_eq!((latency_class(bound - 1), latency_class(bound)), (class, class + 1));
        }
        assert_eq!(latency_bound_ns(LATENCY_CLASSES - 1), None);
        assert_eq!((latency_class(0), latency_class(u64::MAX)), (0, LATENCY_CLASSES - 1));
        assert!(latency_bound_ns(LATENCY_CLASSES - 2) > Some(1_000_000_000), "a second can be told from more");
    }

    #[test]
    fn threads_add_up_and_are_reset() {
        let workers = [WorkerStats::new(), WorkerStats::new()];
        workers[0].called_often(3, 2, 100);
        workers[1].called(3, 9_000_000_000);
        workers[1].failed(3, 1);
        workers[1].rejected(3);
        let totals = command_totals(&workers, 3);
        assert_eq!((totals.calls(), totals.failed, totals.rejected, totals.nanoseconds), (3, 1, 1, 9_000_000_200));
        assert_eq!((totals.latencies[0], totals.latencies[LATENCY_CLASSES - 1], calls(&workers)), (2, 1, 3));
        workers.iter().for_each(WorkerStats::reset);
        assert_eq!((command_totals(&workers, 3), calls(&workers)), (Default::default(), 0));
    }
}
