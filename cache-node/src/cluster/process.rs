//! A node's process: started or found again, held by a descriptor that no other process can take the place of.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cluster::limits::NODE_LOG_BYTES_MAX;

/// Which process it was: a pid alone may be another's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: u32,
    /// Clock ticks from the machine's start to the process's.
    pub(super) start_ticks: u64,
}

impl ProcessId {
    /// Whether it still runs.
    pub(super) fn is_running(self) -> bool {
        stat(self.pid).is_ok_and(|stat| stat.is_of(self))
    }
}

/// A node's process. Dropping it leaves the process alone: nodes outlive their controller.
#[derive(Clone, Debug)]
pub(super) struct NodeProcess {
    pub(super) id: ProcessId,
    /// Signals go through it, so they never meet a process that took over the pid.
    handle: Arc<OwnedFd>,
    has_ended: watch::Receiver<bool>,
}

impl NodeProcess {
    /// Starts a process whose output goes to `node.log` in `folder`, in a group of its own: Ctrl-C is for the controller.
    pub(super) fn start(program: &Path, arguments: &[String], folder: &Path) -> io::Result<NodeProcess> {
        let log = open_log(folder)?;
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            // The service is the whole cluster; a node that is ready does not make it so.
            .env_remove("NOTIFY_SOCKET")
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start {}: {error}", program.display())))?;
        // Until it is collected the pid stays this child's, even when it has ended already.
        let opened = open(child.id()).and_then(|handle| Ok((handle, stat(child.id())?.start_ticks)));
        match opened {
            Ok((handle, start_ticks)) => {
                let id = ProcessId { pid: child.id(), start_ticks };
                NodeProcess::watched(id, handle, Some(child))
            }
            Err(error) => {
                // It cannot be watched, so it may not run.
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// A thread waits for the end: the kernel tells it to whoever polls the descriptor, a child's or not.
    fn watched(id: ProcessId, handle: OwnedFd, mut child: Option<Child>) -> io::Result<NodeProcess> {
        let handle = Arc::new(handle);
        let (ended, has_ended) = watch::channel(false);
        let polled = Arc::clone(&handle);
        thread::Builder::new().name(format!("end of {}", id.pid)).spawn(move || {
            while poll(&mut [PollFd::new(&*polled, PollFlags::IN)], None) != Ok(1) {}
            if let Some(child) = &mut child {
                let collected = child.wait();
                drop(collected);
            }
            ended.send_replace(true);
        })?;
        Ok(NodeProcess { id, handle, has_ended })
    }

    /// The process that an earlier controller started; `None` when it is certain that it has ended.
    pub(super) fn find(id: ProcessId) -> io::Result<Option<NodeProcess>> {
        let handle = match open(id.pid) {
            Ok(handle) => handle,
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Looked at after the descriptor was opened: what it says is true of the process that the descriptor holds.
        let stat = match stat(id.pid) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !stat.is_of(id) {
            return Ok(None);
        }
        NodeProcess::watched(id, handle, None).map(Some)
    }

    /// Sends a signal; to a process that has ended it is nothing.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&*self.handle, signal) {
            tracing::debug!(pid = self.id.pid, %error, "a signal to a process that has ended");
        }
    }

    /// Completes when the process has ended, and with it everything that it could still have acknowledged.
    pub(super) async fn ended(&self) {
        let mut has_ended = self.has_ended.clone();
        if has_ended.wait_for(|has_ended| *has_ended).await.is_err() {
            unreachable!("the waiting thread tells the end before it goes");
        }
    }

    /// Kills the process, one that is stopped too, and waits for its end.
    pub(super) async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// What the process does at the moment; `None` once it has ended.
    pub(super) fn activity(&self) -> Option<Activity> {
        let stat = stat(self.id.pid).ok()?;
        let is_runnable = fs::read_dir(format!("/proc/{}/task", self.id.pid))
            .is_ok_and(|tasks| tasks.flatten().any(|task| thread_state(&task.path().join("stat")) == Some('R')));
        Some(Activity { processor_ticks: stat.processor_ticks, is_runnable })
    }
}

/// How much a process has worked, and whether it would now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Activity {
    /// Ticks of processor time since its start.
    pub(super) processor_ticks: u64,
    /// Whether a thread of it runs or waits for a processor.
    pub(super) is_runnable: bool,
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

struct Stat {
    state: char,
    processor_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    /// Whether it is that of this process, and it has not ended.
    fn is_of(&self, id: ProcessId) -> bool {
        self.start_ticks == id.start_ticks && self.state != 'Z'
    }
}

/// Fields of /proc/PID/stat (proc(5)).
fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as expected")))
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may hold blanks and parentheses itself.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let state = fields.first()?.chars().next()?;
    Some(Stat { state, processor_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
}

fn thread_state(path: &Path) -> Option<char> {
    fs::read_to_string(path).ok()?.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Ends processes of the node in `folder` that nobody has recorded: their controller died in between. Without `port` it may be any.
pub(super) async fn kill_strays(folder: &Path, port: Option<u16>) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let strays: Vec<u32> = pids.filter(|pid| is_node_of(*pid, folder, port)).collect();
    for pid in strays {
        let id = stat(pid).map(|stat| ProcessId { pid, start_ticks: stat.start_ticks });
        let Ok(Some(process)) = id.and_then(NodeProcess::find) else { continue };
        tracing::warn!(pid, folder = %folder.display(), "an unrecorded process is in the node's folder and is ended");
        process.kill().await;
    }
}

/// A node works in its folder and is named by it, or by its port. Somebody's shell that stands there is not.
fn is_node_of(pid: u32, folder: &Path, port: Option<u16>) -> bool {
    if !fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder) {
        return false;
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).into_owned();
    let mut words = command.split(['\0', ' ']);
    // redis-server rewrites its own command line to its name and address.
    let is_address = |word: &str| {
        let named = word.strip_prefix("127.0.0.1:").and_then(|named| named.parse().ok());
        named.is_some() && (port.is_none() || named == port)
    };
    words.any(|word| Path::new(word) == folder || is_address(word))
}

fn open_log(folder: &Path) -> io::Result<File> {
    let path = folder.join("node.log");
    if path.metadata().is_ok_and(|log| log.len() > NODE_LOG_BYTES_MAX) {
        fs::rename(&path, folder.join("node.log.1"))?;
    }
    OpenOptions::new().create(true).append(true).open(&path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::path::Path;

    use rustix::process::Signal;

    use super::{NodeProcess, ProcessId, parse_stat};

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let line = "7 (a) b) T 1 7 7 0 -1 0 0 0 0 0 3 4 0 0 20 0 1 0 4711 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.processor_ticks, stat.start_ticks), ('T', 7, 4711));
    }

    #[tokio::test]
    async fn a_stopped_process_ends_and_its_pid_is_no_longer_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let process = NodeProcess::start(Path::new("sleep"), &["1000".to_owned()], folder.path()).unwrap();
        assert!(NodeProcess::find(process.id).unwrap().is_some());
        let other = ProcessId { start_ticks: process.id.start_ticks + 1, ..process.id };
        assert!(NodeProcess::find(other).unwrap().is_none(), "another process of the same pid is not the node");
        process.signal(Signal::STOP);
        process.kill().await;
        assert!(NodeProcess::find(process.id).unwrap().is_none());
        process.signal(Signal::KILL);
    }
}
