//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::{
    soak::{EXAMPLES as SOAK_EXAMPLES, SoakOptions},
    workload::Workload,
};

const EXAMPLES: &str = "Examples:
  cargo run --release -p cache-node --bin cache-bench
  cargo run --release -p cache-node --bin cache-bench -- --quick --workload string
  cargo run --release -p cache-node --bin cache-bench -- --peer ~/valkey/src/valkey-server --peer memcached
  cargo run --release -p cache-node --bin cache-bench -- --workload string --keys 100000 --keys 1000000 --threads 2
  cargo run --release -p cache-node --bin cache-bench -- instructions
  cargo run --release -p cache-node --bin cache-bench -- soak --peer valkey-server

Each server is started here, on a free loopback port, and ended afterwards. The servers take turns (A B A B ...), so that what slows the
machine for a while slows them all. CPU per operation says more than throughput on a machine that is also busy with other things.";

/// Compares cache-node with other servers on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "cache-bench", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What else it does than to compare.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Count the instructions that an operation takes, under valgrind, and fail when they have become more
    Instructions {
        /// Write the counts to this file instead of comparing with those that were committed
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// Keep a server under churn for ten minutes and tell whether its memory and its latencies grow
    ///
    /// Sessions of all sizes, hashes and carts begin, are overwritten, read and ended, expire and are evicted at maxmemory, over
    /// connections that come and go. Each second RSS, used_memory, p99 and p99.9 are taken; the verdict compares the last third with the
    /// first, soak.svg shows both over time.
    #[command(after_help = SOAK_EXAMPLES)]
    Soak(SoakOptions),
}

/// What is compared, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Program of a server to compare with, repeatable; the first is what ratios refer to. A name is looked up in PATH.
    /// [default: those of valkey-server, redis-server and memcached that are in PATH]
    #[arg(long = "peer", value_name = "PATH")]
    pub(crate) peers: Vec<PathBuf>,
    /// Measure cache-node alone
    #[arg(long, conflicts_with = "peers")]
    pub(crate) alone: bool,
    /// Workload to run, repeatable [default: all]
    #[arg(long = "workload", value_name = "NAME", value_enum)]
    workloads: Vec<Workload>,
    /// Times that each server has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds of each turn
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) duration: f64,
    /// Keys that the load is spread over; `string` takes several, the others the first [default: 100000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1_000..=20_000_000))]
    keys: Vec<u32>,
    /// Connections of the load
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) connections: u16,
    /// Threads with which each server serves connections (`io-threads` of cache-node, Redis and Valkey, `-t` of memcached)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// Fewer rounds, shorter turns, fewer keys: minutes become seconds, and the numbers rougher
    #[arg(long)]
    pub(crate) quick: bool,
    /// Keep the load on one core and the servers on the others
    #[arg(long)]
    pub(crate) pin: bool,
    /// Seed of keys, values and their order
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Folder for results.json and results.svg
    #[arg(long, value_name = "FOLDER", default_value = "target/cache-bench")]
    pub(crate) output: PathBuf,
}

impl Options {
    /// The workloads to run, each once, in the order of the table.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let all = Workload::value_variants().iter().copied();
        all.filter(|workload| self.workloads.is_empty() || self.workloads.contains(workload)).collect()
    }

    /// Whether a workload was asked for by its name.
    pub(crate) fn asks_for(&self, workload: Workload) -> bool {
        self.workloads.contains(&workload)
    }

    /// The numbers of keys to run with.
    pub(crate) fn keys(&self) -> Vec<u32> {
        if self.keys.is_empty() { vec![100_000] } else { self.keys.clone() }
    }

    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { self.rounds.min(3) } else { self.rounds }
    }

    /// Rounds of the workloads that take tens of seconds each.
    pub(crate) fn long_rounds(&self) -> u32 {
        self.rounds().min(if self.quick { 1 } else { 3 })
    }

    /// One server's turn.
    pub(crate) fn turn(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { self.duration.min(0.7) } else { self.duration })
    }

    /// Before each turn, uncounted.
    pub(crate) fn warm_up(&self) -> Duration {
        self.turn() / 5
    }

    /// A million where a workload is defined by it, less in a hurry.
    pub(crate) fn million(&self) -> u32 {
        if self.quick { 200_000 } else { 1_000_000 }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 2 or 0.5".to_owned())?;
    if (0.1..=600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 600 seconds".to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Workload};

    #[test]
    fn options_hold_together() {
        Cli::command().debug_assert();
        let options =
            Cli::try_parse_from(["cache-bench", "--quick", "--workload", "script", "--workload", "string"]).unwrap().options;
        assert_eq!(options.workloads(), [Workload::String, Workload::Script]);
        assert_eq!((options.keys(), options.rounds()), (vec![100_000], 3));
        for wrong in [["--rounds", "0"], ["--duration", "0"], ["--duration", "NaN"], ["--keys", "1"], ["--workload", "none"]] {
            assert!(Cli::try_parse_from(["cache-bench", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
    }
}
