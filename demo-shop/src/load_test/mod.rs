//! `demo-shop load-test`: shoppers with a ledger each.

use std::process::ExitCode;

use clap::Args;

/// What `demo-shop load-test` takes.
#[derive(Debug, Args)]
pub(crate) struct LoadTestArgs {}

pub(crate) async fn run(_args: LoadTestArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`load-test` is not built yet")
}
