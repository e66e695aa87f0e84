//! A node, a Redis or a Valkey, each with a folder of its own.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::{Engine, RedisServer, Value, Wire, content::info, process::Binary, wait_until};

/// A server of any kind.
#[derive(Debug)]
pub enum Server {
    Node(Binary, #[allow(dead_code, reason = "kept until the server has ended")] TempDir),
    Redis(RedisServer, #[allow(dead_code, reason = "kept until the server has ended")] TempDir),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Node,
    Redis,
    Valkey,
}

impl Server {
    pub fn start(kind: Kind, more: &[&str]) -> Server {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().to_str().unwrap().to_owned();
        match kind {
            Kind::Node => {
                let directives = [&["--port", "0", "--dir", &dir], more].concat();
                Server::Node(Binary::start(&directives), folder)
            }
            Kind::Redis | Kind::Valkey => {
                let engine = if kind == Kind::Redis { Engine::Redis } else { Engine::Valkey };
                let directives = [&["--dir", &dir, "--repl-diskless-sync-delay", "0"], more].concat();
                Server::Redis(RedisServer::start_of(engine, &directives), folder)
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Server::Node(node, _) => node.address,
            Server::Redis(redis, _) => redis.address,
        }
    }

    pub fn process_id(&self) -> u32 {
        match self {
            Server::Node(node, _) => node.process.id(),
            Server::Redis(redis, _) => redis.process.id(),
        }
    }

    pub fn wire(&self) -> Wire {
        Wire::connect(self.address())
    }

    pub fn info(&self, field: &str) -> String {
        info(&mut self.wire(), field)
    }

    pub fn number(&self, field: &str) -> u64 {
        self.info(field).parse().unwrap()
    }

    pub fn follow(&self, primary: &Server) {
        assert_eq!(self.wire().run(&format!("REPLICAOF 127.0.0.1 {}", primary.address().port())), Value::ok());
    }

    pub fn wait_for_link(&self) {
        wait_until("the link is up", || self.info("master_link_status") == "up");
    }
}
