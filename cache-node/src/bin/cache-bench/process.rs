//! What the kernel tells of a process: CPU time and resident memory.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};

/// CPU time of all live threads of a process so far, user and system, from `/proc/PID/task/TID/schedstat` (nanoseconds).
///
/// # Errors
/// When the process is gone, or the kernel keeps no scheduler statistics.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = Duration::ZERO;
    let mut threads = 0_u32;
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}: the server has ended"))? {
        // A thread that ends while the list is read takes its time along; servers keep their threads.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split_ascii_whitespace().next().context("an empty schedstat")?;
        sum += Duration::from_nanos(nanoseconds.parse().context("schedstat does not begin with a number")?);
        threads += 1;
    }
    if threads == 0 {
        bail!("{tasks} has no schedstat: this needs a Linux kernel with CONFIG_SCHED_INFO");
    }
    Ok(sum)
}

/// CPU time of the calling thread so far.
pub(crate) fn own_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("cannot read /proc/thread-self/schedstat")?;
    let nanoseconds = text.split_ascii_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// CPU time that all processes of this machine used so far, and what its host took from it. In steps of 10 ms.
///
/// # Errors
/// When `/proc/stat` is not as Linux writes it.
pub(crate) fn machine_cpu() -> Result<Duration> {
    /// The unit of `/proc/stat` on every architecture that Linux runs on today.
    const TICK: Duration = Duration::from_millis(10);
    /// user, nice, system, (idle, iowait,) irq, softirq, steal.
    const BUSY: [usize; 6] = [0, 1, 2, 5, 6, 7];
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat does not begin with 'cpu'")?;
    let ticks: Vec<u32> =
        line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().context("/proc/stat: no number")?;
    Ok(BUSY.iter().filter_map(|&field| ticks.get(field)).map(|&ticks| TICK * ticks).sum())
}

/// Resident bytes of a process, summed over its mappings: exact, where the counters of `statm` lag behind per thread.
///
/// # Errors
/// When the process is gone.
pub(crate) fn rss(pid: u32) -> Result<u64> {
    memory(pid, "smaps_rollup", "Rss:")
}

/// The same by the kernel's counters, which may lag behind by some pages per core: a look at them stops nobody.
///
/// # Errors
/// When the process is gone.
pub(crate) fn counted_rss(pid: u32) -> Result<u64> {
    memory(pid, "status", "VmRSS:")
}

/// The most bytes that were resident in a process since [`forget_peak`], as the kernel keeps count: a look at it stops nobody, where
/// [`rss`] walks through all mappings with their lock held.
///
/// # Errors
/// When the process is gone.
pub(crate) fn peak_rss(pid: u32) -> Result<u64> {
    memory(pid, "status", "VmHWM:")
}

/// Lets [`peak_rss`] begin again with what is resident now.
///
/// # Errors
/// When the process is gone, or the kernel refuses.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

fn memory(pid: u32, file: &str, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}: the server has ended"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no line {name}"))?;
    let kibibytes = line.trim().trim_end_matches("kB").trim_end();
    Ok(kibibytes.parse::<u64>().with_context(|| format!("{path}: '{kibibytes}' is no number"))? * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use std::{
        hint::black_box,
        time::{Duration, Instant},
    };

    use super::{cpu, forget_peak, machine_cpu, peak_rss, rss};

    #[test]
    fn work_and_memory_of_a_process_are_seen() {
        let pid = std::process::id();
        let (machine_before, rss_before) = (machine_cpu().unwrap(), rss(pid).unwrap());
        forget_peak(pid).unwrap();
        let peak_before = peak_rss(pid).unwrap();
        let memory = black_box(vec![1_u8; 128 << 20]);
        let start = Instant::now();
        let (mut worked, mut before) = (Duration::ZERO, cpu(pid).unwrap());
        // Until it was seen: on a busy machine 50 ms may give this process no time at all.
        while worked.as_millis() < 20 && start.elapsed().as_secs() < 20 {
            black_box(memory.iter().step_by(4096).map(|&byte| u64::from(byte)).sum::<u64>());
            let now = cpu(pid).unwrap();
            // The thread of a test beside this one may end, and takes its time along.
            worked += now.saturating_sub(before);
            before = now;
        }
        assert!(rss(pid).unwrap() >= rss_before + (100 << 20));
        assert!(worked.as_millis() >= 10, "work costs CPU");
        assert!((machine_cpu().unwrap() - machine_before).as_millis() >= 10, "this process is one of the machine's");
        drop(memory);
        assert!(peak_rss(pid).unwrap() >= peak_before + (100 << 20), "what was there, and is gone, counts");
    }
}
