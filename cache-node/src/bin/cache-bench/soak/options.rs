//! The command line of a soak.

use std::{path::PathBuf, time::Duration};

use clap::{Args, value_parser};

pub(crate) const EXAMPLES: &str = "Examples:
  cargo run --release -p cache-node --bin cache-bench -- soak
  cargo run --release -p cache-node --bin cache-bench -- soak --duration 60 --peer valkey-server
  cargo run --release -p cache-node --bin cache-bench -- soak --duration 28800 --maxmemory 1024 --rate 20000

On a machine that does other work the latencies are those of the machine: look at the load's own p99 beside them.";

/// Samples that are kept of each server at the most: in a long soak they are further apart than a second.
const SAMPLES_MAX: f64 = 3_600.0;
/// A sample is taken at this interval at the least, so that its p99 is one.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How long a soak is, and of what.
#[derive(Args, Clone, Debug)]
pub(crate) struct SoakOptions {
    /// Seconds that are judged; the warm-up before takes a twelfth of this or several
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = value_parser!(u32).range(12..=604_800))]
    pub(crate) duration: u32,
    /// Program of a server that is soaked as well, after cache-node, repeatable: valkey-server or redis-server, a name in PATH or a path
    #[arg(long = "peer", value_name = "PATH")]
    pub(crate) peers: Vec<PathBuf>,
    /// Operations a second, at fixed times
    #[arg(long, value_name = "OPS", default_value_t = 10_000, value_parser = value_parser!(u32).range(100..=1_000_000))]
    pub(crate) rate: u32,
    /// `maxmemory` of the servers, which is full before the soak begins, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = value_parser!(u32).range(4..=65_536))]
    pub(crate) maxmemory: u32,
    /// Connections of the load
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u16).range(1..=1_000))]
    pub(crate) connections: u16,
    /// Threads with which each server serves connections
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// Keep the load on one core and the servers on the others
    #[arg(long)]
    pub(crate) pin: bool,
    /// Seed of keys, values and their order
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Folder for soak.json and soak.svg
    #[arg(long, value_name = "FOLDER", default_value = "target/cache-bench")]
    pub(crate) output: PathBuf,
}

impl SoakOptions {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.duration.into())
    }

    /// From one sample to the next.
    pub(crate) fn interval(&self) -> Duration {
        self.duration().div_f64(SAMPLES_MAX).max(INTERVAL_MIN)
    }
}
