//! What became of events.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What became of the events of one target.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) delivered: AtomicU64,
    /// Given up after the last try.
    pub(super) failed: AtomicU64,
    /// Tries that did not succeed.
    pub(super) failed_tries: AtomicU64,
    /// Those for which there was no room while an earlier one was tried.
    pub(super) dropped: AtomicU64,
}

/// [`Tally`] at one moment.
#[derive(Clone, Debug)]
pub(crate) struct TargetCounts {
    /// Scheme, host and port, without a path that may be secret.
    pub(crate) target: String,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) failed_tries: u64,
    pub(crate) dropped: u64,
}

/// The counts of all targets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies(Arc<[(String, Arc<Tally>)]>);

impl Tallies {
    pub(super) fn new(tallies: Vec<(String, Arc<Tally>)>) -> Tallies {
        Tallies(tallies.into())
    }

    pub(crate) fn counts(&self) -> Vec<TargetCounts> {
        let counts = self.0.iter().map(|(target, tally)| TargetCounts {
            target: target.clone(),
            delivered: tally.delivered.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
            failed_tries: tally.failed_tries.load(Ordering::Relaxed),
            dropped: tally.dropped.load(Ordering::Relaxed),
        });
        counts.collect()
    }
}
