//! The whole shop: `demo-shop up`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::port::free_port;
use crate::program;
use crate::server::{READY_MAX, Server, Signal, kill};
use crate::visitor::Visitor;
use crate::wait;

/// How long the supervisor may take to replace a killed replica.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// What a shop is started with.
#[derive(Debug, Clone)]
pub struct ShopOptions {
    /// How many replicas.
    pub replicas: usize,
    /// `redis://…` of a store of one's own; `None`: the embedded cache node.
    pub cache: Option<String>,
    /// `postgres://…` of a database of one's own; `None`: the embedded one.
    pub database: Option<String>,
}

impl Default for ShopOptions {
    fn default() -> Self {
        Self { replicas: 3, cache: None, database: None }
    }
}

/// A running `demo-shop up` with its data in a temporary folder.
#[derive(Debug)]
pub struct Shop {
    /// The guard of the supervisor.
    pub server: Server,
    url: String,
    _folder: TempDir,
}

impl Shop {
    /// Starts a shop and waits until every replica is up.
    ///
    /// # Errors
    /// When the binary is not built or the shop does not become ready.
    pub async fn start(options: &ShopOptions) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(program::built("demo-shop", "DEMO_SHOP_BIN")?);
        command
            .args(["up", "--listen", &address, "--replicas", &options.replicas.to_string(), "--data"])
            .arg(folder.path().join("data"));
        if let Some(cache) = &options.cache {
            command.args(["--cache", cache]);
        }
        if let Some(database) = &options.database {
            command.args(["--database", database]);
        }
        let mut server = Server::spawn("demo-shop up", command)?;
        server.line_with("shop ready on ").await?;
        let shop = Self { server, url: format!("http://{address}"), _folder: folder };
        wait::until("every replica to be up", READY_MAX, || async {
            let fleet = shop.fleet().await.ok()?;
            (fleet.up().count() == options.replicas).then_some(())
        })
        .await
        .with_context(|| shop.server.log())?;
        Ok(shop)
    }

    /// The balancer's address, `http://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the balancer says of the fleet.
    ///
    /// # Errors
    /// When it does not answer, or not in the agreed form.
    pub async fn fleet(&self) -> anyhow::Result<Fleet> {
        Fleet::at(&self.url).await
    }

    /// SIGKILL to the replica with this name; returns the id of the process that was killed.
    ///
    /// # Errors
    /// When there is no such replica.
    pub async fn kill_replica(&self, name: &str) -> anyhow::Result<u32> {
        let fleet = self.fleet().await?;
        let pid = fleet.replica(name)?.pid;
        let pid = pid.with_context(|| format!("replica {name} does not run"))?;
        kill(pid, Signal::KILL);
        Ok(pid)
    }

    /// Waits until the replica runs as a process other than `old_pid`.
    ///
    /// # Errors
    /// When it was not replaced within a minute.
    pub async fn replaced(&self, name: &str, old_pid: u32) -> anyhow::Result<Member> {
        wait::until(&format!("a new process for replica {name}"), RESTART_MAX, || async {
            let fleet = self.fleet().await.ok()?;
            let replica = fleet.replica(name).ok()?;
            (replica.state == "up" && replica.pid != Some(old_pid)).then(|| replica.clone())
        })
        .await
        .with_context(|| self.server.log())
    }
}

/// `GET /fleet.json`.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The shop's replicas.
    pub replicas: Vec<Member>,
    /// The cache nodes.
    pub nodes: Vec<Member>,
}

/// One process of the fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its process id; `None` while it does not run.
    pub pid: Option<u32>,
    /// `host:port`.
    pub address: String,
    /// `up`, or why not.
    pub state: String,
}

impl Fleet {
    /// What the balancer at `url` says.
    ///
    /// # Errors
    /// When it does not answer, or not in the agreed form.
    pub async fn at(url: &str) -> anyhow::Result<Self> {
        let answer = Visitor::new().get(&format!("{url}/fleet.json")).await?.success()?;
        Self::from_json(&answer.to_json()?)
    }

    /// The replicas that are up.
    pub fn up(&self) -> impl Iterator<Item = &Member> {
        self.replicas.iter().filter(|replica| replica.state == "up")
    }

    /// The replica with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn replica(&self, name: &str) -> anyhow::Result<&Member> {
        let found = self.replicas.iter().find(|replica| replica.name == name);
        found.with_context(|| format!("no replica {name} in the fleet"))
    }

    fn from_json(json: &Value) -> anyhow::Result<Self> {
        let members = |key: &str| {
            let Some(array) = json[key].as_array() else {
                bail!("fleet.json has no list {key:?}: {json}");
            };
            let members = array.iter().map(Member::from_json).collect::<Option<Vec<_>>>();
            members.with_context(|| format!("fleet.json: not the agreed form: {json}"))
        };
        Ok(Self { replicas: members("replicas")?, nodes: members("nodes")? })
    }
}

impl Member {
    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn from_json(json: &Value) -> Option<Self> {
        let text = |key: &str| Some(json[key].as_str()?.to_owned());
        Some(Self {
            name: text("name")?,
            pid: json["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()),
            address: text("address")?,
            state: text("state")?,
        })
    }
}
