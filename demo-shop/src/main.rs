//! `demo-shop`: a shop on stateless replicas, the proof that no cart is lost.

mod address;
mod balancer;
mod cli;
mod fleet;
mod load_test;
mod process;
mod shop;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Up(cli.up));
    // A cache node brings its own threads and its own logging, so it takes over before either is set up here.
    if let Command::Node(node) = command {
        return run_node(node);
    }
    log_to_stderr();
    process::raise_open_files();
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            // The chain on one line: a supervisor shows a child's last line, and the cause is at its end.
            eprintln!("demo-shop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(async {
        match command {
            Command::Up(args) => fleet::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Serve(args) => shop::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Balance(args) => balancer::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::LoadTest(args) => load_test::run(args).await,
            Command::Node(_) => unreachable!("a node runs before the runtime is built"),
        }
    })
}

fn run_node(node: cli::NodeArgs) -> ExitCode {
    if node.with_parent {
        process::terminate_with_parent();
    }
    // The node's command line begins with a program's name, as every process's does.
    cache_node::cli::run(std::iter::once("demo-shop node".into()).chain(node.directives))
}

/// Each error of the store would be a line for each request of an outage; the readiness check says it once.
const LOG_FILTER: &str = "info,sqlx=warn,tower_sessions_core=off";

/// Stdout is kept for the one ready line that scripts and supervisors wait for.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
