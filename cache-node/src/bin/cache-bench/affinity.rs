//! Which cores a thread may run on: the load on one, the servers on the others.

use std::{num::NonZero, sync::LazyLock};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Counted before this program limits itself to one of them.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZero::get));

/// Who is to run where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Left to the kernel.
    Any,
    /// The last core.
    Client,
    /// All cores but the last.
    Server,
}

/// Cores that [`Side::Server`] has.
fn server_cores() -> usize {
    *CORES - 1
}

/// Gives the load, which is the calling thread, a core of its own.
///
/// # Errors
/// When servers of so many threads have not as many cores.
pub(crate) fn pin(threads: u16) -> Result<()> {
    let cores = server_cores();
    // The threads of Redis and Valkey wait for each other by spinning: on one core they take it from each other.
    ensure!(usize::from(threads) <= cores, "--pin leaves {cores} core(s) to the servers: take --threads {cores} or no --pin");
    keep(Side::Client)
}

/// Keeps the calling thread, and what it starts from now on, on its side.
///
/// # Errors
/// When there is only one core.
fn keep(side: Side) -> Result<()> {
    let cores: Vec<usize> = (0..*CORES).collect();
    let Some((last, others)) = cores.split_last() else { return Ok(()) };
    ensure!(!others.is_empty(), "--pin: this machine has only one core");
    let mut set = CpuSet::new();
    match side {
        Side::Any => return Ok(()),
        Side::Client => set.set(*last),
        Side::Server => others.iter().for_each(|core| set.set(*core)),
    }
    sched_setaffinity(None, &set).context("--pin: the kernel refuses it")
}

/// Whether [`keep`] gave the calling thread fewer cores than there are: nothing that is measured runs there.
pub(crate) fn is_kept() -> bool {
    sched_getaffinity(None).is_ok_and(|set| (set.count() as usize) < *CORES)
}

/// Does something on a side, such as starting a process that inherits it.
///
/// # Errors
/// As [`keep`].
pub(crate) fn with<T>(side: Side, action: impl FnOnce() -> T) -> Result<T> {
    if side == Side::Any {
        return Ok(action());
    }
    let before = sched_getaffinity(None).context("--pin: the kernel refuses it")?;
    keep(side)?;
    let done = action();
    sched_setaffinity(None, &before).context("--pin: the kernel refuses it")?;
    Ok(done)
}
