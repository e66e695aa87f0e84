//! A real Redis, or a real Valkey.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{PATIENCE, free_port};

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Engine {
    /// Redis 7.0
    Redis,
    /// Valkey 8
    Valkey,
}

impl Engine {
    pub const ALL: [Engine; 2] = [Engine::Redis, Engine::Valkey];

    /// One of its programs: `server`, `sentinel`, `check-rdb`.
    pub fn program(self, what: &str) -> String {
        match self {
            Engine::Redis => format!("redis-{what}"),
            Engine::Valkey => format!("valkey-{what}"),
        }
    }
}

/// A `redis-server` or `valkey-server`, by default with nothing on disk; dropping it ends it.
#[derive(Debug)]
pub struct RedisServer {
    pub process: Child,
    pub address: SocketAddr,
    /// Where it runs, when it is told of no other folder: one that nobody shares.
    _folder: TempDir,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// With further directives.
    pub fn start_with(directives: &[&str]) -> RedisServer {
        RedisServer::start_of(Engine::Redis, directives)
    }

    /// As [`RedisServer::start_with`], of either engine.
    pub fn start_of(engine: Engine, directives: &[&str]) -> RedisServer {
        RedisServer::start_by(engine, &[], &[&["--save", "", "--appendonly", "no"], directives].concat())
    }

    /// As [`RedisServer::start_of`], with what stands before all directives, such as a file, and no directive but those given.
    pub fn start_by(engine: Engine, first: &[&str], directives: &[&str]) -> RedisServer {
        let program = engine.program("server");
        // A port that was free a moment ago may be taken now: another one then.
        for _ in 0..20 {
            if let Some(server) = RedisServer::start_on(&program, free_port(), first, directives) {
                return server;
            }
        }
        panic!("{program} found no free port in 20 tries");
    }

    fn start_on(program: &str, port: u16, first: &[&str], directives: &[&str]) -> Option<RedisServer> {
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new(program)
            .args(first)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(folder.path())
            .args(directives)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {program}: {error}; run: apt-get install --no-install-recommends {program}")
            });
        let mut server = RedisServer { process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _folder: folder };
        let started = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            if server.process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(started.elapsed() < PATIENCE, "{program} does not answer on {}", server.address);
            thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        drop(ended);
    }
}
