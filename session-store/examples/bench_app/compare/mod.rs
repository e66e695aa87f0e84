//! The comparison: every mode in turns under the same load, CPU per request of the application and of its store.

mod alarm;
mod children;
mod cores;
mod equal_rate;
pub(crate) mod load;
mod open_loop;
mod plot;
mod report;
mod samples;
mod schedule;
mod turns;

use std::{fs, io::IsTerminal as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use self::{
    children::Store,
    cores::Cores,
    report::Report,
    turns::{Subject, Turns},
};
use crate::mode::Mode;

/// Sessions that the load is spread over.
const SESSIONS: usize = 1_000;
/// Rounds and seconds of a quick look: a minute for all of it.
const QUICK_ROUNDS: u32 = 2;
const QUICK_SECONDS: f64 = 0.8;
/// Connections of the goals, which are judged when this many are among those that are measured.
pub(crate) const GOAL_CONNECTIONS: u16 = 64;

const EXAMPLES: &str = "Examples:
  cargo run --release -p session-store --example bench_app -- compare
  cargo run --release -p session-store --example bench_app -- compare --quick
  cargo run --release -p session-store --example bench_app -- compare --modes plain,ours --routes read --connections 64
  cargo build --release -p cache-node && \\
    cargo run --release -p session-store --example bench_app -- compare --store-program target/release/cache-node

The store and the applications are started here, on free loopback ports, and ended afterwards. Trust ratios of CPU per request more
than throughput and latency: they hardly change when the machine is busy with other things as well.

At an equal rate requests come at random over all connections, the same ones to each mode, whether those before are answered or not.
Late are those that were not sent within 1 ms of being due, since no connection was free or this program had no turn; load is what it took
of a core itself.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Program of the store, a path or a name in PATH: redis-server, valkey-server or cache-node
    #[arg(long, value_name = "PROGRAM", default_value = "redis-server")]
    store_program: PathBuf,
    /// Seconds of each turn
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Times that each mode has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Connections of the load, one measurement for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, GOAL_CONNECTIONS, 256],
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: Vec<u16>,
    /// Modes to measure; `plain` is always among them, since ratios refer to it [default: all]
    #[arg(long, value_delimiter = ',', value_enum)]
    modes: Vec<Mode>,
    /// Routes to measure [default: all]
    #[arg(long, value_delimiter = ',', value_enum)]
    routes: Vec<Route>,
    /// Reads and changes at 64 connections are measured at an equal rate too, this many percent of what tower-sessions-redis
    /// served just before, if it is among the modes: what a visitor waits for at the same traffic; 0: not at all
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=95))]
    rate: u8,
    /// Two short rounds at 64 connections: two minutes, and rougher numbers
    #[arg(long)]
    quick: bool,
    /// Gives the applications all cores but the last, which the store and the load share: what one of them leaves in a core's
    /// caches is then not another's loss, and ratios hardly depend on what else the machine does
    #[arg(long)]
    pin: bool,
    /// Folder for results.json and results.svg
    #[arg(long, value_name = "FOLDER", default_value = "target/bench_app")]
    output: PathBuf,
}

/// What is asked of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Route {
    /// A request that asks the session for nothing
    Untouched,
    /// One key of the session is read
    Read,
    /// One key of the session is read and changed
    Write,
    /// One is added to a line of the cart
    CartAdd,
}

impl Route {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Read => "read one key",
            Self::Write => "read and change one key",
            Self::CartAdd => "add to the cart",
        }
    }

    /// Several requests for each session, so that its cart has several lines.
    fn path(self, turn: usize) -> String {
        match self {
            Self::Untouched => "/plain".to_owned(),
            Self::Read => "/read".to_owned(),
            Self::Write => "/write".to_owned(),
            Self::CartAdd => format!("/cart/add?sku={}", turn % 4),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("bench_app: built without optimization: nothing below says how fast anything is; use cargo run --release");
    }
    // Before anything is measured: minutes would be lost to a folder that cannot be made.
    let folder = &options.output;
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}: give another one with --output", folder.display()))?;
    let chosen = |mode: &Mode| options.modes.is_empty() || *mode == Mode::Plain || options.modes.contains(mode);
    let modes: Vec<Mode> = Mode::value_variants().iter().copied().filter(chosen).collect();
    let routes = if options.routes.is_empty() { Route::value_variants().to_vec() } else { options.routes.clone() };
    let connections = if options.quick { vec![GOAL_CONNECTIONS] } else { options.connections.clone() };
    let rounds = if options.quick { options.rounds.min(QUICK_ROUNDS) } else { options.rounds };
    let turn = Duration::from_secs_f64(if options.quick { options.seconds.min(QUICK_SECONDS) } else { options.seconds });
    let rate = f64::from(options.rate) / 100.0;
    let has_rate =
        |connections, route| options.rate > 0 && modes.contains(&equal_rate::MEASURE) && equal_rate::has_goal(connections, route);

    let cores = if options.pin { cores::pin()? } else { Cores::default() };
    let turns = Turns::new(Store::start(&options.store_program)?, turn, cores)?;
    let subjects = modes.iter().map(|&mode| turns.start(mode)).collect::<Result<Vec<Subject>>>()?;
    let loads: Vec<_> =
        connections.iter().flat_map(|&connections| routes.iter().map(move |&route| (connections, route))).collect();
    let turns_each: usize = loads.iter().map(|&(connections, route)| 1 + usize::from(has_rate(connections, route))).sum();
    let progress = progress((rounds as usize * turns_each * modes.len()) as u64);
    let mut report = Report::new(turns.store_name(), options.rate, modes.clone(), routes.clone(), connections.clone());
    for round in 0..rounds {
        for &(connections, route) in &loads {
            let show = |mode, how| {
                progress.set_message(format!("round {}: {}, {connections} connections, {mode}{how}", round + 1, route.name()));
            };
            for subject in &subjects {
                let mode = subject.app.mode;
                show(mode, "");
                report.samples.add((connections, route, mode), turns.closed(subject, connections, route)?);
                progress.inc(1);
            }
            let measure = report.samples.of((connections, route, equal_rate::MEASURE)).last();
            let Some(measure) = measure.filter(|_| has_rate(connections, route)) else { continue };
            let per_second = measure.requests_per_second * rate;
            for subject in &subjects {
                let mode = subject.app.mode;
                show(mode, " at an equal rate");
                let sample = turns.at_rate(subject, connections, route, per_second, round)?;
                report.at_equal_rate.add((connections, route, mode), sample);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    println!("{}", report.table());
    write(options, &report)
}

fn progress(turns: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:20} {pos}/{len} turns, {eta} left: {wide_msg}").expect("the fields exist");
    let bar = ProgressBar::new(turns).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn write(options: &Options, report: &Report) -> Result<()> {
    let folder = &options.output;
    for (name, text) in [("results.json", format!("{:#}\n", report.json())), ("results.svg", plot::render(report))] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 2 or 0.5".to_owned())?;
    if (0.1..=600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 600 seconds".to_owned()) }
}
