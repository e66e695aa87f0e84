//! `demo-shop load-test`: shoppers with a ledger each, who find out whether a cart was lost.
//!
//! Other load tools tell how fast a shop is; this one tells whether it kept its word. Each shopper has cookies, chance and
//! a ledger of its own, acts on a plan, repeats a change whose outcome is unknown under the same key until it is known,
//! and compares every cart it reads with the ledger.

mod browser;
mod canary;
mod cart_page;
mod chart;
mod forms;
mod html;
mod jar;
mod journey;
mod ledger;
mod limits;
mod progress;
mod recorder;
mod report;
mod runner;
mod shopper;
mod table;
mod target;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::watch;

use crate::fleet::{Cache, REPLICAS_MAX, Signals};
use crate::load_test::limits::{DURATION_MAX, RUNS_MAX, SHOPPERS_MAX};
use crate::load_test::recorder::Failure;
use crate::load_test::report::{Report, Verdict};
use crate::load_test::runner::RunConfig;
use crate::load_test::target::Target;
use crate::shop::EncryptionArgs;

/// The exit code when a loss was found.
const EXIT_LOSS: u8 = 1;
/// The exit code when the test could not be done.
const EXIT_SETUP: u8 = 2;

/// What `demo-shop load-test` takes.
#[derive(Debug, Args)]
pub(crate) struct LoadTestArgs {
    /// Numbers of replicas to test one after another, each with a shop of its own
    #[arg(long, value_delimiter = ',', default_value = "1,2,3", value_name = "COUNTS", conflicts_with = "target",
        value_parser = clap::value_parser!(u8).range(1..=i64::from(REPLICAS_MAX)))]
    replicas: Vec<u8>,
    /// How many shoppers, all at the same time
    #[arg(long, default_value_t = 200, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SHOPPERS_MAX)))]
    shoppers: u32,
    /// How long each run takes: 500ms, 30s, 5m
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_duration)]
    duration: Duration,
    /// A shop that runs already, instead of one of our own: http://127.0.0.1:8080
    #[arg(long, value_name = "URL", conflicts_with_all = ["cache", "database"])]
    target: Option<String>,
    /// Kill a replica with SIGKILL every so often, one after another
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    kill_replica_every: Option<Duration>,
    /// Kill the primary cache node with SIGKILL every so often
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    kill_node_every: Option<Duration>,
    /// Stop the primary cache node with SIGSTOP every so often, so that it hangs; needs a cluster
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    freeze_node_every: Option<Duration>,
    /// Mean time between two actions of one shopper
    #[arg(long, default_value = "500ms", value_name = "TIME", value_parser = parse_duration)]
    think_time: Duration,
    /// The same seed makes the same shoppers [default: a new one, which the report tells]
    #[arg(long)]
    seed: Option<u64>,
    /// A Redis or Valkey for our own shop, instead of a cache node
    #[arg(long, value_name = "URL")]
    cache: Option<String>,
    /// A cluster of three cache nodes for our own shop, instead of one
    #[arg(long, conflicts_with_all = ["cache", "target"])]
    cluster: bool,
    /// A database for our own shop, instead of a file that is thrown away
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the test. The exit code is 0 when nothing was lost, 1 on any loss, 2 when the test could not be done.
pub(crate) async fn run(args: LoadTestArgs) -> anyhow::Result<ExitCode> {
    match test(args).await {
        Ok(Verdict::Passed) => Ok(ExitCode::SUCCESS),
        Ok(Verdict::Failed) => Ok(ExitCode::from(EXIT_LOSS)),
        Err(error) => {
            eprintln!("demo-shop: {error:#}");
            Ok(ExitCode::from(EXIT_SETUP))
        }
    }
}

async fn test(args: LoadTestArgs) -> anyhow::Result<Verdict> {
    if args.replicas.len() > RUNS_MAX {
        bail!("--replicas has {} numbers; at most {RUNS_MAX} runs make one test", args.replicas.len());
    }
    args.encryption.keys()?;
    for file in args.json.iter().chain(&args.html) {
        // Found now and not after minutes of testing.
        write(file, "")?;
    }
    let config = RunConfig {
        shoppers: args.shoppers,
        duration: args.duration,
        think: args.think_time,
        seed: args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        strikes: [
            (Failure::ReplicaKilled, args.kill_replica_every),
            (Failure::NodeKilled, args.kill_node_every),
            (Failure::NodeFrozen, args.freeze_node_every),
        ]
        .into_iter()
        .filter_map(|(failure, every)| Some((failure, every?)))
        .collect(),
    };
    let (ending, _) = watch::channel(false);
    let mut signals = Signals::new()?;
    let runs = async {
        let mut runs = Vec::new();
        if let Some(url) = &args.target {
            runs.push(runner::run(&config, &Target::running(url)?, None, &ending).await?);
            return anyhow::Ok(runs);
        }
        for replicas in &args.replicas {
            eprintln!("starting a shop on {replicas} replica{}", if *replicas == 1 { "" } else { "s" });
            let cache = Cache::of(args.cache.clone(), args.cluster);
            let target = Target::start(*replicas, cache, args.database.clone(), args.encryption.clone()).await?;
            let run = runner::run(&config, &target, Some(*replicas), &ending).await;
            target.stop().await;
            runs.push(run?);
            if *ending.borrow() {
                break;
            }
        }
        Ok(runs)
    };
    tokio::pin!(runs);
    let runs = tokio::select! {
        runs = &mut runs => runs?,
        () = signals.next() => {
            eprintln!("ending early: the carts are compared, then the report follows (once more to end at once)");
            ending.send_replace(true);
            tokio::select! {
                runs = &mut runs => runs?,
                () = signals.next() => bail!("ended at once by a second signal"),
            }
        }
    };
    let think_ms = u64::try_from(config.think.as_millis()).unwrap_or(u64::MAX);
    let report = Report::new(config.seed, think_ms, runs);
    print!("{}", table::table(&report));
    if let Some(file) = &args.json {
        write(file, &serde_json::to_string_pretty(&report).context("cannot write the report as JSON")?)?;
        println!("  JSON: {}", file.display());
    }
    if let Some(file) = &args.html {
        write(file, &html::page(&report))?;
        println!("  HTML: {}", file.display());
    }
    println!("  Seed: {}", report.seed);
    Ok(report.verdict)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// `500ms`, `30s`, `5m`; a bare number is refused, since nobody remembers what it would mean.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || format!("`{text}` is no time; write it as 500ms, 30s or 5m");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(wrong()),
    };
    if duration.is_zero() || duration > DURATION_MAX {
        return Err(format!("`{text}` is out of range; from 1ms to {}m", DURATION_MAX.as_secs() / 60));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::load_test::parse_duration;

    #[test]
    fn times_on_the_command_line() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["30", "s", "", "-1s", "1.5s", "0s", "99999999999m", "1h30"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
