//! The `cache-node` binary.

use std::process::Command;

use anyhow::Context;

use crate::program;
use crate::server::Server;

/// A running `cache-node`.
#[derive(Debug)]
pub struct CacheNode {
    /// The guard of the process.
    pub server: Server,
    address: String,
}

impl CacheNode {
    /// Starts one on a free port, with more `directives` of redis.conf (`["--maxmemory", "64mb"]`).
    ///
    /// # Errors
    /// When the binary is not built or does not become ready.
    pub async fn start(directives: &[&str]) -> anyhow::Result<Self> {
        Self::start_on(0, directives).await
    }

    /// As [`CacheNode::start`], on a port of the caller's choice.
    ///
    /// # Errors
    /// When the binary is not built or does not become ready.
    pub async fn start_on(port: u16, directives: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program::built("cache-node", "CACHE_NODE_BIN")?);
        command.args(["--port", &port.to_string()]).args(directives);
        let mut server = Server::spawn("cache-node", command)?;
        let line = server.line_with("ready on ").await?;
        let address =
            address_after("ready on ", &line).with_context(|| format!("no address in cache-node's ready line: {line}"))?;
        Ok(Self { server, address })
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

/// The `host:port` that follows `text` in a ready line.
pub(crate) fn address_after(text: &str, line: &str) -> Option<String> {
    let (_, rest) = line.split_once(text)?;
    let address = rest.split_whitespace().next()?;
    address.contains(':').then(|| address.to_owned())
}
