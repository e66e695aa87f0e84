//! What every process of the shop needs of the system: open files, and an end by a signal or together with the process
//! that started it.

use std::io::Read;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Raises the limit of open files as far as the system allows: many shells start programs with 1,024, and a connection
/// through the balancer takes two.
pub(crate) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What is refused leaves the limit as it was, which `open_files_max` then tells.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many files this process may have open at a time.
pub(crate) fn open_files_max() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// Call it before the ready line is printed: until then a signal has its default effect.
pub(crate) fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Ends this process at once when its standard input reaches its end: the parent holds the other end of that pipe, so a
/// parent that was killed leaves nothing behind.
pub(crate) fn exit_with_parent() {
    at_end_of_parent(|| std::process::exit(0));
}

/// As [`exit_with_parent`], in order: as by SIGTERM, which this process hears itself. For what has bytes to bring to disk.
pub(crate) fn terminate_with_parent() {
    at_end_of_parent(|| {
        if let Err(error) = kill_process(getpid(), Signal::TERM) {
            eprintln!("demo-shop: cannot end in order: {error}");
            std::process::exit(1);
        }
    });
}

fn at_end_of_parent(end: impl FnOnce() + Send + 'static) {
    // A thread and not a task: a blocking read must not hold up the runtime's shutdown.
    std::thread::spawn(|| {
        let mut byte = [0_u8; 64];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        end();
    });
}
