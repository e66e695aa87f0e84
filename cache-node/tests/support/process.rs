//! The `cache-node` binary as a process of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{BY_IO_URING, PATIENCE};

/// A running `cache-node`; dropping it kills it.
#[derive(Debug)]
pub struct Binary {
    pub process: Child,
    pub ready_line: String,
    pub address: SocketAddr,
    errors: Arc<Mutex<String>>,
}

impl Binary {
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cache-node"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts one and waits for its ready line.
    pub fn start(arguments: &[&str]) -> Binary {
        let backend: &[&str] = if BY_IO_URING { &["--io-uring", "yes"] } else { &[] };
        Binary::start_by(Binary::command().args(arguments).args(backend))
    }

    /// As [`Binary::start`], by a command whose standard output and error are pipes.
    pub fn start_by(command: &mut Command) -> Binary {
        let mut process = command.spawn().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()));
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready_line = line.trim_end().to_owned();
        let address = ready_line.split(' ').nth(3).and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in the ready line {ready_line:?}"));
        let errors = Arc::new(Mutex::new(String::new()));
        let (stderr, collected) = (process.stderr.take().unwrap(), Arc::clone(&errors));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                collected.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Binary { process, ready_line, address, errors }
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> usize {
        const PAGE_BYTES: usize = 4096;
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE_BYTES
    }

    /// Open files and sockets.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Runs one that is expected to end by itself; gives its status, standard output and standard error.
    pub fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
        let mut process = Binary::command().args(arguments).spawn().unwrap();
        let status = ended(&mut process);
        let (mut out, mut error) = (String::new(), String::new());
        process.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        process.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        (status, out, error)
    }

    /// Sends a signal by its name (`TERM`, `INT`) and waits for the end.
    pub fn end_by(&mut self, signal: &str) -> ExitStatus {
        let sent = Command::new("kill").args(["-s", signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
        ended(&mut self.process)
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        drop(killed);
    }
}

fn ended(process: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > PATIENCE {
            let killed = process.kill();
            drop(killed);
            panic!("the process did not end within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
