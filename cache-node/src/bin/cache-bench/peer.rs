//! The servers that are compared: how each is found, started and asked when it is ready.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    affinity::{self, Side},
    floor::FLOOR_ARGUMENT,
    reply::Protocol,
};

/// The hidden first argument with which this program is a cache node.
pub(crate) const NODE_ARGUMENT: &str = "node";
/// The hidden first argument with which this program becomes another server, whose program and arguments follow.
pub(crate) const SERVER_ARGUMENT: &str = "server";
/// The name of the node under test.
pub(crate) const CACHE_NODE: &str = "cache-node";
/// The name of the node with `io-uring yes`.
pub(crate) const IO_URING: &str = "cache-node io_uring";
/// The name of the server that stores nothing.
pub(crate) const FLOOR: &str = "floor";
/// A server that does not answer within this time after its start has failed.
const START_MAX: Duration = Duration::from_secs(10);
/// A server that has not ended within this time after it was asked to is killed.
const END_MAX: Duration = Duration::from_secs(5);
/// Connections that every server is told to accept.
const CLIENTS_MAX: usize = 16_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// This package's own, run by this program.
    CacheNode,
    /// redis-server, valkey-server and what takes the same options.
    Redis,
    Memcached,
    /// This program's own that stores nothing.
    Floor,
}

/// A server that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    kind: Kind,
    /// Empty for cache-node, which is this program itself.
    program: PathBuf,
    /// What cache-node is told beside the rest.
    directives: &'static [&'static str],
}

/// A server that runs, until it is dropped.
pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    pub(crate) protocol: Protocol,
    /// What it writes into; gone with the server.
    _directory: tempfile::TempDir,
}

impl Peer {
    /// This package's node.
    pub(crate) fn cache_node() -> Peer {
        Peer { name: CACHE_NODE.to_owned(), kind: Kind::CacheNode, program: PathBuf::new(), directives: &[] }
    }

    /// The same with `io-uring yes`. Where the machine refuses that, it warns and is the same.
    pub(crate) fn cache_node_by_io_uring() -> Peer {
        Peer { name: IO_URING.to_owned(), directives: &["--io-uring", "yes"], ..Peer::cache_node() }
    }

    /// A server that answers the string workload and stores nothing, with one thread.
    pub(crate) fn floor() -> Peer {
        Peer { name: FLOOR.to_owned(), kind: Kind::Floor, program: PathBuf::new(), directives: &[] }
    }

    /// Whether what has this name is of this program, and nothing to compare with.
    pub(crate) fn is_own(name: &str) -> bool {
        [CACHE_NODE, IO_URING, FLOOR].contains(&name)
    }

    /// The server at `path`; its file's name tells how it is started.
    pub(crate) fn at(path: &Path) -> Result<Peer> {
        if let Some(addr) = path.to_str().filter(|text| text.parse::<SocketAddr>().is_ok()) {
            bail!("--peer {addr}: give the path of a server's program; cache-bench never loads a server that it did not start");
        }
        let name =
            path.file_name().with_context(|| format!("--peer {}: no file", path.display()))?.to_string_lossy().into_owned();
        let program = if path.components().count() == 1 {
            find(&name).with_context(|| format!("--peer {name}: not found in PATH; give its path"))?
        } else {
            ensure!(path.is_file(), "--peer {}: no such file", path.display());
            path.to_owned()
        };
        let kind = if name.contains("memcached") {
            Kind::Memcached
        } else if ["redis", "valkey", "keydb"].iter().any(|known| name.contains(known)) {
            Kind::Redis
        } else {
            bail!("--peer {}: its name must contain redis, valkey, keydb or memcached, to tell how to start it", path.display());
        };
        Ok(Peer { name, kind, program, directives: &[] })
    }

    /// Those that are installed, the closest relative first.
    pub(crate) fn installed() -> Vec<Peer> {
        ["valkey-server", "redis-server", "memcached"].iter().filter_map(|name| Peer::at(Path::new(name)).ok()).collect()
    }

    /// Whether it speaks RESP, without which most workloads have no meaning.
    pub(crate) fn speaks_resp(&self) -> bool {
        self.kind != Kind::Memcached
    }

    /// Starts it on a free loopback port, with `threads` threads that serve connections and nothing written to disk.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub(crate) fn start(&self, threads: usize, is_pinned: bool) -> Result<Server> {
        let directory = tempfile::tempdir().context("cannot make a directory for the server")?;
        let port = free_port()?;
        let mut command = Command::new(env::current_exe().context("cannot find this program's own file")?);
        command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        match self.kind {
            Kind::CacheNode => {
                command.args([NODE_ARGUMENT, "--port", &port.to_string(), "--loglevel", "warning"]);
                command.args(["--io-threads", &threads.to_string(), "--maxclients", &CLIENTS_MAX.to_string()]);
                command.args(self.directives);
            }
            Kind::Redis => {
                command.arg(SERVER_ARGUMENT).arg(&self.program);
                command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                command.args(["--io-threads", &threads.to_string(), "--maxclients", &CLIENTS_MAX.to_string()]);
                command.args(["--loglevel", "warning"]);
            }
            Kind::Floor => drop(command.args([FLOOR_ARGUMENT, &port.to_string()])),
            Kind::Memcached => {
                command.arg(SERVER_ARGUMENT).arg(&self.program);
                // Enough memory that it never evicts in these workloads. It refuses to run as root without being told so.
                command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-m", "8192", "-u", "root"]);
                command.args(["-t", &threads.to_string(), "-c", &CLIENTS_MAX.to_string()]);
            }
        }
        let child = affinity::with(if is_pinned { Side::Server } else { Side::Any }, || command.spawn())?
            .with_context(|| format!("cannot start {}", self.name))?;
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let protocol = if self.speaks_resp() { Protocol::Resp } else { Protocol::Memcached };
        let mut server = Server { child, addr, protocol, _directory: directory };
        server.wait_ready().with_context(|| format!("{} did not start", self.name))?;
        Ok(server)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Server {
    /// Where it listens: always on loopback.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_ready(&mut self) -> Result<()> {
        if let Some(stdout) = self.child.stdout.take() {
            // Read to its end, so that a server that logs never waits for this program.
            thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).for_each(drop));
        }
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            match self.ping() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn ping(&self) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let (request, answer) = match self.protocol {
            Protocol::Resp => ("PING\r\n", "+PONG"),
            Protocol::Memcached => ("version\r\n", "VERSI"),
        };
        stream.write_all(request.as_bytes())?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        ensure!(reply == *answer.as_bytes(), "it answered '{}' instead of {answer}", reply.escape_ascii());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let asked = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + END_MAX;
        while asked.is_ok() && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // It ended meanwhile, or ends now: either way nothing is left of it.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}

/// Lets the kernel end this process when the one that started it is gone, however that came.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn end_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask to end with the parent")
}

/// Runs another program in place of this one; it too ends with the parent. Returns only when that fails.
///
/// # Errors
/// When there is no such program.
pub(crate) fn become_server(mut arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    end_with_parent()?;
    let program = arguments.next().context("a program is missing")?;
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", Path::new(&program).display()))
}

fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A port that was free a moment ago: these servers cannot all be asked for the port that the kernel gave them.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use std::path::Path;

    use super::Peer;

    #[test]
    fn only_programs_are_peers_never_addresses_of_running_servers() {
        for address in ["127.0.0.1:6379", "192.0.2.1:6379", "[::1]:6379"] {
            let error = Peer::at(Path::new(address)).unwrap_err().to_string();
            assert!(error.contains("path of a server's program"), "{error}");
        }
        assert!(Peer::at(Path::new("/no/such/redis-server")).unwrap_err().to_string().contains("no such file"));
        assert!(Peer::at(Path::new("/bin/sh")).unwrap_err().to_string().contains("its name must contain"));
    }
}
