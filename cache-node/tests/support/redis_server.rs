//! A real Redis.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::PATIENCE;

/// A `redis-server`, by default with nothing on disk; dropping it ends it.
#[derive(Debug)]
pub struct RedisServer {
    pub process: Child,
    pub address: SocketAddr,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        RedisServer::start_with(&["--dir", "/tmp"])
    }

    /// With further directives; a folder is among them.
    pub fn start_with(directives: &[&str]) -> RedisServer {
        RedisServer::start_by(&[], &[&["--save", "", "--appendonly", "no"], directives].concat())
    }

    /// As [`RedisServer::start_with`], with what stands before all directives, such as a file, and no directive but those given.
    pub fn start_by(first: &[&str], directives: &[&str]) -> RedisServer {
        // A port that was free a moment ago may be taken now: another one then.
        for _ in 0..20 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if let Some(server) = RedisServer::start_on(port, first, directives) {
                return server;
            }
        }
        panic!("redis-server found no free port in 20 tries");
    }

    fn start_on(port: u16, first: &[&str], directives: &[&str]) -> Option<RedisServer> {
        let process = Command::new("redis-server")
            .args(first)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(directives)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start redis-server: {error}; run: apt-get install --no-install-recommends redis-server")
            });
        let mut server = RedisServer { process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let started = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            if server.process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(started.elapsed() < PATIENCE, "redis-server does not answer on {}", server.address);
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
