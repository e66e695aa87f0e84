//! A child process that ends with its guard.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::{proc, wait};

/// Lines kept of what a process printed: enough for a start and a back trace.
const LOG_LINES_MAX: usize = 400;
/// How long a server may take until it is ready; generous, for a machine that also compiles.
pub const READY_MAX: Duration = Duration::from_secs(60);
/// How long a dropped server may take to end by itself before it is killed.
const END_MAX: Duration = Duration::from_secs(5);
/// How long the threads of a process may take to stop.
const STOPPED_MAX: Duration = Duration::from_secs(10);

/// A running process; dropped, it gets SIGTERM and, if that does not help, SIGKILL.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    end_signal: Signal,
}

impl Server {
    /// Starts `command` with both outputs captured and nothing to read on its input.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        keep_lines(child.stdout.take(), &log);
        keep_lines(child.stderr.take(), &log);
        Ok(Self { name: name.to_owned(), child, log, end_signal: Signal::TERM })
    }

    /// What the guard sends first, instead of SIGTERM.
    pub fn end_with(&mut self, signal: Signal) {
        self.end_signal = signal;
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `text` and returns it.
    ///
    /// # Errors
    /// When the process ends first, or after [`READY_MAX`]; the error carries what the process printed.
    pub async fn line_with(&mut self, text: &str) -> anyhow::Result<String> {
        let started = Instant::now();
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            if let Some(status) = self.exit_status() {
                bail!("{} ended ({status}) before it said {text:?}:\n{}", self.name, self.log());
            }
            if started.elapsed() > READY_MAX {
                bail!("{} did not say {text:?} in {READY_MAX:?}:\n{}", self.name, self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a TCP connection to `address` succeeds.
    ///
    /// # Errors
    /// When the process ends first, or after [`READY_MAX`].
    pub async fn listens_on(&mut self, address: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if let Some(status) = self.exit_status() {
                bail!("{} ended ({status}) before it listened:\n{}", self.name, self.log());
            }
            if started.elapsed() > READY_MAX {
                bail!("{} does not listen on {address}:\n{}", self.name, self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Sends a signal; a process that is gone already is fine.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// How the process ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let name = self.name.clone();
        wait::until(&format!("the end of {name}"), limit, || {
            let status = self.exit_status();
            async move { status }
        })
        .await
    }

    /// The last lines that the process printed on either output.
    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    fn lines(&self) -> Vec<String> {
        let log = self.log.lock().expect("no holder of the log panics");
        log.iter().cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- the last lines of {} (pid {})\n{}", self.name, self.pid(), self.log());
        }
        self.signal(self.end_signal);
        let started = Instant::now();
        while self.exit_status().is_none() {
            if started.elapsed() > END_MAX {
                eprintln!("{} did not end within {END_MAX:?} and is killed", self.name);
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends a signal to any process that the test knows the id of; one that is gone already is fine. One that is stopped does
/// nothing more when this returns.
///
/// # Panics
/// When a process that was told to stop goes on for `STOPPED_MAX`.
pub fn kill(pid: u32, signal: Signal) {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let sent = kill_process(process, signal);
    if signal == Signal::STOP && sent.is_ok() {
        // Its threads stop one by one, and on a busy machine some serve a little longer.
        let deadline = Instant::now() + STOPPED_MAX;
        while !proc::is_stopped(pid) {
            assert!(Instant::now() < deadline, "the process {pid} does not stop");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn keep_lines(output: Option<impl Read + Send + 'static>, log: &Arc<Mutex<VecDeque<String>>>) {
    let Some(output) = output else { return };
    let log = Arc::clone(log);
    // A thread that ends with the pipe: the process must never block on an output nobody reads.
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("no holder of the log panics");
            if log.len() == LOG_LINES_MAX {
                log.pop_front();
            }
            log.push_back(line);
        }
    });
}
