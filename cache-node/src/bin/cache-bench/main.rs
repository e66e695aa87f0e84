//! `cache-bench`: cache-node and other servers under the same loads, in turns.

mod affinity;
mod content;
mod control;
mod floor;
mod instructions;
mod load;
mod options;
mod peer;
mod plot;
mod process;
mod progress;
mod reply;
mod report;
mod request;
mod rounds;
mod soak;
mod statistic;
mod table;
mod throughput;
mod timeline;
mod workload;

use std::{
    env, fs,
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use serde_json::{Value as Json, json};

use crate::{
    floor::FLOOR_ARGUMENT,
    instructions::CASE_ARGUMENT,
    options::{Cli, Command, Options},
    peer::{NODE_ARGUMENT, Peer, SERVER_ARGUMENT},
    progress::Progress,
    report::Report,
    soak::SoakOptions,
    statistic::spread,
    throughput::OTHERS,
    workload::Workload,
};

/// What every workload is given.
pub(crate) struct Bench {
    pub(crate) options: Options,
    /// The node under test first, then the peer that ratios refer to, then the others.
    pub(crate) peers: Vec<Peer>,
    pub(crate) progress: Progress,
}

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    let first = env::args_os().nth(1).unwrap_or_default();
    let done = if first == NODE_ARGUMENT {
        peer::end_with_parent().map(|()| cache_node::cli::run([program].into_iter().chain(arguments.skip(1))))
    } else if first == SERVER_ARGUMENT {
        peer::become_server(arguments.skip(1))
    } else if first == FLOOR_ARGUMENT {
        peer::end_with_parent().and_then(|()| floor::run(&env::args().nth(2).unwrap_or_default()))
    } else if first == CASE_ARGUMENT {
        let [name, operations] = [2, 3].map(|place| env::args().nth(place).unwrap_or_default());
        instructions::run_case(&name, &operations).map(|()| ExitCode::SUCCESS)
    } else {
        let Cli { command, options } = Cli::parse();
        let done = match command {
            None => run(options),
            Some(Command::Instructions { write }) => instructions::run(write.as_deref()),
            Some(Command::Soak(options)) => run_soak(&options),
        };
        done.map(|()| ExitCode::SUCCESS)
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cache-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    make_folder(&options.output)?;
    let peers = peers(&options)?;
    let mut workloads = options.workloads();
    warn_of_debug_build();
    if options.pin {
        ensure!(
            !options.asks_for(Workload::Threads),
            "--workload threads tells what happens when the load shares its cores: leave --pin out"
        );
        eprintln!("cache-bench: --pin leaves out the workload threads");
        workloads.retain(|&workload| workload != Workload::Threads);
        affinity::pin(options.threads)?;
    }
    let progress = Progress::new(workloads.len() as u64, "workloads");
    let bench = Bench { options, peers, progress };
    let mut reports = Vec::new();
    for workload in workloads {
        let found = workload.run(&bench).with_context(|| format!("workload {}", workload.name()))?;
        let tables: Vec<String> = found.iter().map(table::render).collect();
        bench.progress.done(&tables.join("\n"));
        reports.extend(found);
    }
    bench.progress.finish();
    warn_of_noise(&reports);
    write_results(&bench, &reports)
}

/// cache-node, then what was asked for or else what is installed.
fn peers(options: &Options) -> Result<Vec<Peer>> {
    let mut peers = vec![Peer::cache_node()];
    if options.alone {
        return Ok(peers);
    }
    if options.peers.is_empty() {
        peers.extend(Peer::installed());
        if peers.len() == 1 {
            eprintln!(
                "cache-bench: no server to compare with in PATH (apt install redis-server memcached), so cache-node runs alone"
            );
        }
    } else {
        for path in &options.peers {
            peers.push(Peer::at(path)?);
        }
    }
    Ok(peers)
}

/// Says so when other processes ran beside the measurement.
fn warn_of_noise(reports: &[Report]) {
    const QUIET_CORES: f64 = 0.2;
    let others: Vec<f64> = reports.iter().filter_map(|report| Some((report, report.measure(OTHERS)?))).flat_map(others).collect();
    if let Some(cores) = spread(&others).map(|spread| spread.median).filter(|&cores| cores > QUIET_CORES) {
        eprintln!("cache-bench: other processes kept {cores:.1} cores busy: trust CPU per operation, not throughput and latency");
    }
}

fn others((report, measure): (&Report, usize)) -> impl Iterator<Item = f64> {
    report.rows.iter().flat_map(move |row| row.values[measure].iter().copied())
}

fn run_soak(options: &SoakOptions) -> Result<()> {
    warn_of_debug_build();
    make_folder(&options.output)?;
    let reports = [soak::run(options)?];
    let results = json!({
        "unix_time": unix_seconds(),
        "cores": cores(),
        "threads": options.threads,
        "connections": options.connections,
        "duration_seconds": options.duration,
        "operations_per_second": options.rate,
        "maxmemory_mib": options.maxmemory,
        "seed": options.seed,
        "reports": reports.each_ref().map(Report::to_json),
    });
    write(&options.output, "soak", &results, &reports)
}

fn write_results(bench: &Bench, reports: &[Report]) -> Result<()> {
    let results = json!({
        "unix_time": unix_seconds(),
        "cores": cores(),
        "threads": bench.options.threads,
        "connections": bench.options.connections,
        "rounds": bench.options.rounds(),
        "turn_seconds": bench.options.turn().as_secs_f64(),
        "quick": bench.options.quick,
        "seed": bench.options.seed,
        "reports": reports.iter().map(Report::to_json).collect::<Vec<_>>(),
    });
    write(&bench.options.output, "results", &results, reports)
}

/// Makes the folder of the results. Before anything is measured: minutes would be lost to a folder that cannot be made.
fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}: give another one with --output", folder.display()))
}

/// Writes `name.json` and `name.svg`.
fn write(folder: &Path, name: &str, results: &Json, reports: &[Report]) -> Result<()> {
    for (ending, text) in [("json", format!("{results:#}\n")), ("svg", plot::render(reports))] {
        let path = folder.join(name).with_extension(ending);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        eprintln!("cache-bench: built without optimization: nothing below says how fast cache-node is; use cargo run --release");
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
