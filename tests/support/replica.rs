//! One replica of the shop, without the supervisor.

use std::process::Command;

use anyhow::Context;

use crate::cache_node::address_after;
use crate::program;
use crate::server::Server;

/// The secret that replicas of one shop share, so that each finds the others' sessions.
const SESSION_KEY: &str = "an end-to-end test's own session key";

/// A running `demo-shop serve --test-hooks`.
#[derive(Debug)]
pub struct Replica {
    /// The guard of the process.
    pub server: Server,
    name: String,
    address: String,
}

impl Replica {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When the binary is not built or does not become ready.
    pub async fn start(name: &str, cache: &str, database: &str) -> anyhow::Result<Self> {
        Self::start_at("127.0.0.1:0", name, cache, database).await
    }

    /// Starts one on `listen`, an address that an earlier replica has left.
    ///
    /// # Errors
    /// When the binary is not built or does not become ready.
    pub async fn start_at(listen: &str, name: &str, cache: &str, database: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(program::built("demo-shop", "DEMO_SHOP_BIN")?);
        command
            .args(["serve", "--listen", listen, "--test-hooks", "--name", name])
            .args(["--cache", cache, "--database", database])
            .env("DEMO_SHOP_SESSION_KEY", SESSION_KEY);
        let mut server = Server::spawn(&format!("replica {name}"), command)?;
        let line = server.line_with("ready on ").await?;
        let address =
            address_after("ready on ", &line).with_context(|| format!("no address in the replica's ready line: {line}"))?;
        Ok(Self { server, name: name.to_owned(), address })
    }

    /// The name it was started with, which it shows in `x-served-by`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
