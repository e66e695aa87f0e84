//! A real Redis, or a real Valkey.

use std::process::Command;

use tempfile::TempDir;

use crate::port::free_port;
use crate::program;
use crate::server::Server;

/// A `redis-server` or `valkey-server` with an empty keyspace and nothing on disk.
#[derive(Debug)]
pub struct RedisServer {
    /// The guard of the process.
    pub server: Server,
    address: String,
    _folder: TempDir,
}

impl RedisServer {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When redis-server is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`RedisServer::start`], with more `directives` of redis.conf.
    ///
    /// # Errors
    /// When redis-server is not installed or does not start.
    pub async fn start_with(directives: &[&str]) -> anyhow::Result<Self> {
        Self::run("redis-server", directives).await
    }

    /// A Valkey on a free port.
    ///
    /// # Errors
    /// When valkey-server is not installed or does not start.
    pub async fn start_valkey() -> anyhow::Result<Self> {
        Self::run("valkey-server", &[]).await
    }

    async fn run(program: &str, directives: &[&str]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let port = free_port();
        let mut command = Command::new(program::installed(program, program)?);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(directives);
        let mut server = Server::spawn(program, command)?;
        server.line_with("Ready to accept connections").await?;
        Ok(Self { server, address: format!("127.0.0.1:{port}"), _folder: folder })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `redis://host:port`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}
