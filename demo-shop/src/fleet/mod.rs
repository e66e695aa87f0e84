//! `demo-shop up`: starts and supervises the processes of a whole shop.
//!
//! The binary starts itself: a cache node, the replicas, and in its own process the balancer. Every child holds the read
//! end of a pipe whose other end the supervisor keeps, and ends when that closes, so that nothing outlives a killed
//! supervisor.

mod backoff;
mod child;
mod cluster;
mod data;
mod greeting;
mod limits;
mod lost_keys;
mod member;
mod node_probe;
mod output;
mod running;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use session_store::CacheStore;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use child::signal as signal_process;
pub(crate) use data::DataDir;
pub(crate) use limits::REPLICAS_MAX;
pub(crate) use output::Output;
pub(crate) use running::{Cache, Fleet, FleetConfig, Watcher};

use crate::shop::EncryptionArgs;

/// What `demo-shop up` takes.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// How many replicas of the shop to run
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=i64::from(REPLICAS_MAX)))]
    replicas: u8,
    /// Where the shop listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS", value_parser = crate::address::parse)]
    listen: SocketAddr,
    /// A Redis or Valkey of your own, instead of a cache node: redis://…
    #[arg(long, value_name = "URL")]
    cache: Option<String>,
    /// A cluster of three cache nodes instead of one: the death of any of them loses nothing
    #[arg(long, conflicts_with = "cache")]
    cluster: bool,
    /// A database of your own, instead of a file in the data folder: sqlite:FILE or postgres://…
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The folder for database, secret and logs [default: demo-shop in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// Show the output of every process here, instead of in files in the data folder
    #[arg(long)]
    verbose: bool,
}

/// Runs a whole shop until SIGTERM or SIGINT; a second one ends it at once.
pub(crate) async fn run(args: UpArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    args.encryption.keys()?;
    // Before anything is started: a port that is taken is the most likely fault, and then nothing has to be undone.
    let listener = crate::balancer::listen(args.listen).await?;
    let data = DataDir::open(&args.data.unwrap_or_else(data::default_path))?;
    let data_path = data.path().to_owned();
    let warnings = match &args.cache {
        Some(url) => store_problem(url).await?,
        None => lost_keys::warning(&data, &args.encryption)?,
    };
    let output = if args.verbose { Output::Terminal } else { Output::Files(data.logs()) };
    let cache = Cache::of(args.cache, args.cluster);
    let config = FleetConfig {
        replicas: args.replicas,
        cache,
        database: args.database,
        encryption: args.encryption,
        output,
        announces: true,
    };
    let fleet = tokio::select! {
        fleet = Fleet::start(config, data, listener) => fleet?,
        // What was started so far is dropped with the future, and so killed; a cluster's controller ends by its pipe.
        () = signals.next() => return Ok(()),
    };
    let program = std::env::args().next().unwrap_or_else(|| "demo-shop".to_owned());
    let status = fleet.watcher().status();
    let greeting = greeting::greeting(fleet.address(), &status, &data_path, &program, warnings.as_slice());
    // A reader that went away must not end the shop, so a failed write is no error.
    let _ = std::io::stdout().write_all(greeting.as_bytes()).and_then(|()| std::io::stdout().flush());
    signals.next().await;
    tracing::info!("ending: no new requests, then the replicas, then the cache node (once more to end at once)");
    tokio::select! {
        () = fleet.stop() => {}
        () = signals.next() => anyhow::bail!("ended at once by a second signal"),
    }
    Ok(())
}

/// What is wrong with a store that somebody else runs. The shop starts without it, since it may come later.
///
/// # Errors
/// When the URL is none of a store.
async fn store_problem(url: &str) -> anyhow::Result<Option<String>> {
    let store = CacheStore::builder(url).connect_lazy().context("--cache")?;
    Ok(store.ping().await.err().map(|error| {
        format!(
            "the store of sessions and carts does not answer: {error}.\n  \
             Pages are shown without carts until it does. When it comes back nothing has to be restarted; a wrong\n  \
             address or password in --cache has to be corrected, and the shop started again."
        )
    }))
}

/// SIGTERM and SIGINT, as often as they come.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    /// Resolves at the next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
