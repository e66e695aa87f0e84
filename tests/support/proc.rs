//! What the kernel tells of a process, from `/proc`.

use std::fs;
use std::path::Path;

/// Whether the process exists and has not ended; one that nobody has waited for yet counts as ended.
pub fn is_alive(pid: u32) -> bool {
    status_field(pid, "State:").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Whether no thread of the process runs: each of them stopped or ended.
pub fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    // One that is gone by now has no state.
    let mut states = tasks.flatten().filter_map(|task| field(&task.path(), "State:"));
    states.all(|state| state.starts_with(['T', 'Z', 'X']))
}

/// Resident memory in bytes; `None` when the process is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    kibibytes(pid, "VmRSS:")
}

/// The highest resident memory so far, in bytes; `None` when the process is gone.
pub fn resident_bytes_max(pid: u32) -> Option<u64> {
    kibibytes(pid, "VmHWM:")
}

/// Children, their children and so on. Walks all of `/proc`.
pub fn descendants(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let parents: Vec<(u32, u32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|child| Some((child, status_field(child, "PPid:")?.parse().ok()?)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.remove(0);
    found
}

/// The command line, for messages; empty when the process is gone.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

fn kibibytes(pid: u32, field: &str) -> Option<u64> {
    let value = status_field(pid, field)?;
    let number: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

fn status_field(pid: u32, name: &str) -> Option<String> {
    field(Path::new(&format!("/proc/{pid}")), name)
}

/// Of a process or a thread, by its folder.
fn field(folder: &Path, name: &str) -> Option<String> {
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
