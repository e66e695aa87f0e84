//! The shop under test: a fleet of our own, or one that runs already.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::http::Uri;
use rustix::process::Signal;
use serde::Deserialize;
use tokio::time::Instant;

use crate::balancer::{FleetStatus, State};
use crate::fleet::{Cache, DataDir, Fleet, FleetConfig, Output, signal_process};
use crate::load_test::browser::{Ask, Browser};
use crate::load_test::recorder::{Failure, Recorder};
use crate::shop::EncryptionArgs;

/// The shop under test.
pub(crate) enum Target {
    Own {
        fleet: Fleet,
        /// Removed when the fleet has ended.
        _folder: tempfile::TempDir,
    },
    Running {
        origin: Arc<str>,
    },
}

impl Target {
    /// Starts a fleet with a data folder that is thrown away afterwards.
    pub(crate) async fn start(
        replicas: u8,
        cache: Cache,
        database: Option<String>,
        encryption: EncryptionArgs,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("demo-shop-load-test-").tempdir().context("cannot make a folder")?;
        let data = DataDir::open(folder.path())?;
        let listener = crate::balancer::listen(([127, 0, 0, 1], 0).into()).await?;
        let output = Output::Files(data.logs());
        // The report tells of deaths; lines about them would only break the progress bar.
        let config = FleetConfig { replicas, cache, database, encryption, output, announces: false };
        let fleet = Fleet::start(config, data, listener).await?;
        Ok(Self::Own { fleet, _folder: folder })
    }

    /// A shop that runs already, by its address.
    pub(crate) fn running(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("--target {url} is no URL; write http://127.0.0.1:8080"))?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) => Ok(Self::Running { origin: format!("http://{authority}").into() }),
            (Some("https"), _) => bail!("--target {url}: only http is spoken here; test behind the proxy that ends TLS"),
            _ => bail!("--target {url} is no URL; write http://127.0.0.1:8080"),
        }
    }

    pub(crate) fn origin(&self) -> Arc<str> {
        match self {
            Self::Own { fleet, .. } => format!("http://{}", fleet.address()).into(),
            Self::Running { origin } => Arc::clone(origin),
        }
    }

    pub(crate) fn killer(&self) -> Killer {
        match self {
            Self::Own { fleet, .. } => Killer::Own(fleet.watcher()),
            Self::Running { origin } => Killer::Running(Arc::clone(origin)),
        }
    }

    /// The SKUs of the shop, which also shows that it is there.
    pub(crate) async fn skus(&self) -> anyhow::Result<Vec<String>> {
        let body = fetch(&self.origin(), "/api/products").await?;
        let products: ProductsJson = serde_json::from_slice(&body).context("what answers /api/products is not this shop")?;
        Ok(products.products.into_iter().map(|product| product.sku).collect())
    }

    pub(crate) async fn stop(self) {
        if let Self::Own { fleet, _folder } = self {
            fleet.stop().await;
        }
    }
}

/// Who can make processes fail.
#[derive(Clone)]
pub(crate) enum Killer {
    Own(crate::fleet::Watcher),
    Running(Arc<str>),
}

impl Killer {
    /// The processes that such a failure can meet now, by name and pid: replicas that are up, or the primary among the nodes.
    ///
    /// # Errors
    /// When a running shop does not tell, or its processes are not on this machine, or nobody would notice the failure.
    pub(crate) async fn victims(&self, failure: Failure) -> anyhow::Result<Vec<(String, u32)>> {
        let status = self.status().await?;
        match failure {
            Failure::ReplicaKilled => self.replicas(status),
            Failure::NodeKilled | Failure::NodeFrozen => self.primary(status, failure),
        }
    }

    async fn status(&self) -> anyhow::Result<FleetStatus> {
        match self {
            Self::Own(watcher) => Ok(watcher.status()),
            Self::Running(origin) => {
                let body = fetch(origin, "/fleet.json").await.context("kills need the balancer's /fleet.json")?;
                serde_json::from_slice(&body).context("kills need the balancer's /fleet.json, and this is none")
            }
        }
    }

    fn primary(&self, status: FleetStatus, failure: Failure) -> anyhow::Result<Vec<(String, u32)>> {
        if status.nodes.is_empty() {
            bail!("this shop runs no cache node of its own that could fail: its store is somebody else's");
        }
        if failure == Failure::NodeFrozen && status.nodes.len() < 2 {
            bail!("a cache node that stands alone has nobody who would notice that it hangs: add --cluster");
        }
        let is_ours = matches!(self, Self::Own(_));
        let primary = status.nodes.into_iter().find(|node| node.role == "primary" && node.state == State::Up);
        let Some((name, pid)) = primary.and_then(|node| Some((node.name, node.pid?))) else {
            return Ok(Vec::new());
        };
        if !is_ours && !is_process_of_the_shop(pid, b"node") {
            bail!("this needs the cache nodes on this machine, and process {pid} ({name}) is none here");
        }
        Ok(vec![(name, pid)])
    }

    fn replicas(&self, status: FleetStatus) -> anyhow::Result<Vec<(String, u32)>> {
        let is_ours = matches!(self, Self::Own(_));
        let mut victims = Vec::new();
        for replica in status.replicas.into_iter().filter(|replica| replica.state == State::Up) {
            let Some(pid) = replica.pid else {
                bail!("kills need the pids of the replicas, which this balancer does not know: target a `demo-shop up`");
            };
            if !is_ours && !is_process_of_the_shop(pid, b"serve") {
                bail!("kills need the replicas on this machine, and process {pid} (replica {}) is none here", replica.name);
            }
            victims.push((replica.name, pid));
        }
        Ok(victims)
    }

    /// Makes the process fail. False when it was gone already.
    pub(crate) fn strike(pid: u32, failure: Failure) -> bool {
        let signal = match failure {
            Failure::ReplicaKilled | Failure::NodeKilled => Signal::KILL,
            Failure::NodeFrozen => Signal::STOP,
        };
        signal_process(pid, signal)
    }
}

/// Whether the process is this shop's, of that subcommand: a pid from another machine may belong to anything here.
fn is_process_of_the_shop(pid: u32, subcommand: &[u8]) -> bool {
    if !Path::new("/proc/self/cmdline").exists() {
        return false;
    }
    let Ok(command) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut arguments = command.split(|byte| *byte == 0);
    let program = arguments.next().unwrap_or_default();
    program.ends_with(b"demo-shop") && arguments.next() == Some(subcommand)
}

#[derive(Debug, Deserialize)]
struct ProductsJson {
    products: Vec<ProductJson>,
}

#[derive(Debug, Deserialize)]
struct ProductJson {
    sku: String,
}

async fn fetch(origin: &Arc<str>, path: &str) -> anyhow::Result<axum::body::Bytes> {
    let mut browser = Browser::new(Arc::clone(origin), Arc::new(Recorder::new()));
    let answer = browser
        .exchange(&Ask::get(path), Instant::now())
        .await
        .map_err(|_| anyhow::anyhow!("nothing answers at {origin}{path}"))?;
    if !answer.status.is_success() {
        bail!("{origin}{path} answers with status {}", answer.status.as_u16());
    }
    Ok(answer.body)
}
