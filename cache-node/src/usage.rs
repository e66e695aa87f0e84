//! What the kernel tells of this process and its machine, under /proc. `None` where there is no such file.

#![cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "INFO tells less"))]

use std::fs;

/// Bytes of a page on every system that the node runs on.
const PAGE_BYTES: usize = 4096;

/// USER_HZ is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of the process that is in RAM.
pub(crate) fn resident_bytes() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// Time that the process had a processor: in its own code, and in the kernel for it.
pub(crate) fn processor_seconds() -> Option<(f64, f64)> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// As [`processor_seconds`], of one thread, both together.
pub(crate) fn thread_seconds(thread: u32) -> Option<f64> {
    let (user, system) = parse_stat(&fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?)?;
    Some(user + system)
}

/// The kernel's number of the calling thread.
pub(crate) fn thread_id() -> Option<u32> {
    fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

/// What the machine, or the container, is called.
pub(crate) fn hostname() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// Memory of the process that was swapped out.
pub(crate) fn swapped_bytes() -> Option<usize> {
    kilobytes("/proc/self/status", "VmSwap:")
}

/// Memory of the machine that could still be taken without swapping.
pub(crate) fn machine_available_bytes() -> Option<usize> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

pub(crate) fn open_files() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Open files that the process may have.
pub(crate) fn open_files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn kilobytes(file: &str, field: &str) -> Option<usize> {
    let text = fs::read_to_string(file).ok()?;
    let value: usize = text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()?;
    Some(value * 1024)
}

fn parse_stat(stat: &str) -> Option<(f64, f64)> {
    // The name in parentheses may hold blanks: count from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{
        hostname, machine_available_bytes, open_files, open_files_max, parse_stat, processor_seconds, resident_bytes,
        swapped_bytes, thread_id, thread_seconds,
    };

    #[test]
    fn the_kernel_is_understood() {
        assert_eq!(parse_stat("7 (a) b) T 1 7 7 0 -1 0 0 0 0 0 150 25 0 0 20 0 1 0 4711 0 0"), Some((1.5, 0.25)));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20) && processor_seconds().is_some());
        let thread = thread_id().expect("Linux names the thread");
        assert!(thread_seconds(thread).is_some_and(|seconds| seconds >= 0.0));
        assert!(machine_available_bytes().is_some_and(|bytes| bytes > 1 << 20) && swapped_bytes().is_some());
        let open = open_files().expect("there is a folder of them");
        assert!(hostname().is_some_and(|name| !name.contains(char::is_whitespace)));
        assert!(open > 0 && open_files_max().is_none_or(|max| max >= open));
    }
}
