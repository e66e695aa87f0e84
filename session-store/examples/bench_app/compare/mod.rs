//! The comparison: every mode in turns under the same load, CPU per request of the application and of its store.

mod children;
pub(crate) mod load;
mod plot;
mod report;

use std::{fs, io::IsTerminal as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use self::{
    children::{App, Store},
    load::{Load, Turn},
    report::{Report, Sample},
};
use crate::mode::Mode;

/// Sessions that the load is spread over.
const SESSIONS: usize = 1_000;
/// Connections of the goals, which are judged when this many are among those that are measured.
pub(crate) const GOAL_CONNECTIONS: u16 = 64;

const EXAMPLES: &str = "Examples:
  cargo run --release -p session-store --example bench_app -- compare
  cargo run --release -p session-store --example bench_app -- compare --quick
  cargo run --release -p session-store --example bench_app -- compare --modes plain,ours --routes read --connections 64
  cargo build --release -p cache-node && \\
    cargo run --release -p session-store --example bench_app -- compare --store-program target/release/cache-node

The store and the applications are started here, on free loopback ports, and ended afterwards. Trust ratios of CPU per request more
than throughput and latency: they hardly change when the machine is busy with other things as well.";

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
    /// Two short rounds at 64 connections: a minute, and rougher numbers
    #[arg(long)]
    quick: bool,
    /// Folder for results.json and results.svg
    #[arg(long, value_name = "FOLDER", default_value = "target/bench_app")]
    output: PathBuf,
}

/// What is asked of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
    let chosen = |mode: &Mode| options.modes.is_empty() || *mode == Mode::Plain || options.modes.contains(mode);
    let modes: Vec<Mode> = Mode::value_variants().iter().copied().filter(chosen).collect();
    let routes = if options.routes.is_empty() { Route::value_variants().to_vec() } else { options.routes.clone() };
    let connections = if options.quick { vec![GOAL_CONNECTIONS] } else { options.connections.clone() };
    let rounds = if options.quick { options.rounds.min(2) } else { options.rounds };
    let turn = Duration::from_secs_f64(if options.quick { options.seconds.min(1.0) } else { options.seconds });

    let store = Store::start(&options.store_program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut apps = Vec::new();
    for &mode in &modes {
        let app = App::start(mode, &store)?;
        let cookies = runtime.block_on(load::seed(app.addr, SESSIONS, mode == Mode::Plain)).with_context(|| format!("{mode}"))?;
        apps.push((app, cookies));
    }

    let turns = rounds as usize * connections.len() * routes.len() * modes.len();
    let progress = progress(turns as u64);
    let mut report = Report::new(store.name.clone(), modes, routes.clone(), connections.clone());
    for round in 0..rounds {
        for &connections in &connections {
            for &route in &routes {
                for (app, cookies) in &apps {
                    progress.set_message(format!(
                        "round {}: {}, {connections} connections, {}",
                        round + 1,
                        route.name(),
                        app.mode
                    ));
                    let load = Load::new(app.addr, cookies, |session| route.path(session), connections);
                    runtime.block_on(load.run(turn / 5))?;
                    let before = (app.cpu()?, store.cpu()?);
                    let Turn { requests, failed, elapsed, latency } = runtime.block_on(load.run(turn))?;
                    let (app_cpu, store_cpu) = (app.cpu()? - before.0, store.cpu()? - before.1);
                    ensure!(failed == 0, "{failed} of {requests} requests for {} failed in mode {}", route.path(0), app.mode);
                    ensure!(requests > 0, "no request for {} was answered in mode {}", route.path(0), app.mode);
                    let per_request = |cpu: Duration| cpu.as_secs_f64() * 1e6 / requests as f64;
                    report.add(
                        (connections, route, app.mode),
                        Sample {
                            app_us: per_request(app_cpu),
                            store_us: per_request(store_cpu),
                            requests_per_second: requests as f64 / elapsed.as_secs_f64(),
                            p50_us: latency.value_at_quantile(0.5) as f64,
                            p99_us: latency.value_at_quantile(0.99) as f64,
                        },
                    );
                    progress.inc(1);
                }
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
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
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
