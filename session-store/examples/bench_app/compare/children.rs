//! The processes that are measured: a store, and an application for each mode.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::cores::Cores;
use crate::mode::Mode;

/// A process that is up within this time or not at all.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Ended when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) struct Store {
    process: Process,
    port: u16,
    pub(super) name: String,
}

impl Store {
    pub(super) fn start(program: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start {}; name the store's program with --store-program", program.display()))?;
        let mut process = Process(child);
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = process.0.try_wait()? {
                bail!("{} ended with {status}", program.display());
            }
            if began.elapsed() > START_TIME_MAX {
                bail!("{} does not listen on port {port} after {START_TIME_MAX:?}", program.display());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let name = program.file_name().map_or_else(OsString::new, ToOwned::to_owned).to_string_lossy().into_owned();
        Ok(Self { process, port, name })
    }

    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu(self.process.0.id())
    }
}

pub(super) struct App {
    process: Process,
    pub(super) mode: Mode,
    pub(super) addr: SocketAddr,
}

impl App {
    /// This very program, serving.
    pub(super) fn start(mode: Mode, store: &Store, cores: Cores) -> Result<Self> {
        let mut program = Command::new(std::env::current_exe()?);
        program
            .args(["--listen", "127.0.0.1:0", "--mode", &mode.to_string()])
            .args(["--store", &format!("redis://127.0.0.1:{}", store.port)])
            .stdout(Stdio::piped());
        let mut child = cores.start(&mut program)?;
        let output = child.stdout.take().context("standard output is piped")?;
        let process = Process(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let addr = line.trim().rsplit_once("http://").and_then(|(_, addr)| addr.parse().ok());
        let addr = addr.with_context(|| format!("mode {mode} did not start"))?;
        Ok(Self { process, mode, addr })
    }

    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu(self.process.0.id())
    }
}

/// CPU time of all live threads of a process so far, user and system.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}: the process ended, or this is not Linux"))? {
        // A thread may end while the list is read.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split_ascii_whitespace().next().context("an empty schedstat")?;
        sum += Duration::from_nanos(nanoseconds.parse().context("schedstat does not begin with a number")?);
    }
    Ok(sum)
}
