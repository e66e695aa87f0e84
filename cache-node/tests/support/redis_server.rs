//! A real Redis.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::PATIENCE;

/// A `redis-server` with nothing on disk; dropping it ends it.
#[derive(Debug)]
pub struct RedisServer {
    process: Child,
    pub address: SocketAddr,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        // A port that was free a moment ago may be taken now: another one then.
        for _ in 0..20 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if let Some(server) = RedisServer::start_on(port) {
                return server;
            }
        }
        panic!("redis-server found no free port in 20 tries");
    }

    fn start_on(port: u16) -> Option<RedisServer> {
        let mut process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start redis-server: {error}; run: apt-get install --no-install-recommends redis-server")
            });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if TcpStream::connect(address).is_ok() {
                return Some(RedisServer { process, address });
            }
            if process.try_wait().unwrap().is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not answer on {address}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        drop(ended);
    }
}
