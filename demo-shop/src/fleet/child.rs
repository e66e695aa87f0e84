//! One child process: its start up to the ready line, and its end.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::BufReader;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::fleet::limits::READY_TIMEOUT;
use crate::fleet::output::{Log, read_line};

/// How to start a process.
#[derive(Debug, Clone)]
pub(crate) struct ChildCommand {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Whether the process is killed when nobody holds it any more. One that has processes of its own ends them first, as the end of
    /// its standard input tells it to.
    pub(crate) is_killed_on_drop: bool,
}

/// A process that said it is ready. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct RunningChild {
    child: Child,
    /// The end of this pipe is the process's word that its supervisor is gone, so it is held as long as the process.
    _stdin: Option<ChildStdin>,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    /// What it said when it was ready.
    pub(crate) ready_line: String,
}

impl RunningChild {
    /// Starts the process and waits for its ready line, at most [`READY_TIMEOUT`].
    ///
    /// # Errors
    /// When it cannot be started, ends before it is ready, or is not ready in time; what it last said is in the error.
    pub(crate) async fn start(command: &ChildCommand, log: &Log) -> anyhow::Result<Self> {
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C in the terminal is for the supervisor, which ends the children in order.
            .process_group(0)
            .kill_on_drop(command.is_killed_on_drop)
            .spawn()
            .with_context(|| format!("cannot start {}", command.program.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the child's standard output is not piped")?;
        let stderr = child.stderr.take().context("the child's standard error is not piped")?;
        let errors = tokio::spawn(log.clone().copy(stderr));
        let mut stdout = BufReader::new(stdout);
        let ready = timeout(READY_TIMEOUT, wait_ready(&mut stdout, log)).await;
        let Ok(ready) = ready else {
            bail!("it was not ready within {READY_TIMEOUT:?}; see {}", log.place());
        };
        let Some((address, ready_line)) = ready? else {
            let status = child.wait().await.context("cannot wait for the child")?;
            // What it wrote before it ended may still be on its way.
            let _ = timeout(Duration::from_millis(200), errors).await;
            bail!("it ended at once ({status}): {}", last_words(log));
        };
        tokio::spawn(log.clone().copy(stdout));
        let pid = child.id().context("the child ended right after it was ready")?;
        Ok(Self { child, _stdin: stdin, pid, address, ready_line })
    }

    /// Resolves when the process has ended. Cancel safe.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Tells the process to end, waits up to `grace`, then kills it.
    pub(crate) async fn stop(mut self, grace: Duration) {
        if let Some(pid) = self.child.id() {
            signal(pid, Signal::TERM);
        }
        if timeout(grace, self.child.wait()).await.is_err() {
            tracing::debug!(pid = self.pid, "did not end within {grace:?} and is killed");
            let _ = self.child.kill().await;
        }
    }
}

/// Sends a signal. Returns false when there is no such process, or it is not ours.
pub(crate) fn signal(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Reads up to the ready line; `None` when the output ends before it.
async fn wait_ready(stdout: &mut BufReader<ChildStdout>, log: &Log) -> anyhow::Result<Option<(SocketAddr, String)>> {
    loop {
        let Some(line) = read_line(stdout).await.context("cannot read the child's output")? else {
            return Ok(None);
        };
        if let Some(address) = parse_ready(&line) {
            return Ok(Some((address, line)));
        }
        log.clone().copy(line.as_bytes()).await;
    }
}

/// The address in `… ready on 127.0.0.1:8081 (pid 7)`.
fn parse_ready(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(" ready on ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn last_words(log: &Log) -> String {
    match log.last_line() {
        line if line.is_empty() => format!("it said nothing; see {}", log.place()),
        line => line,
    }
}

#[cfg(test)]
mod tests {
    use crate::fleet::child::parse_ready;

    #[test]
    fn ready_lines() {
        let address = "127.0.0.1:6400".parse().ok();
        assert_eq!(parse_ready("cache-node ready on 127.0.0.1:6400 (pid 123)\n"), address);
        assert_eq!(parse_ready("replica A ready on 127.0.0.1:6400 (pid 1)"), address);
        assert_eq!(parse_ready("replica A ready on somewhere"), None);
        assert_eq!(parse_ready("starting"), None);
    }
}
