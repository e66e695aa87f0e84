//! `demo-shop balance`: round robin over the replicas that answer.

use clap::Args;

/// What `demo-shop balance` takes.
#[derive(Debug, Args)]
pub(crate) struct BalanceArgs {}

pub(crate) async fn run(_args: BalanceArgs) -> anyhow::Result<()> {
    anyhow::bail!("`balance` is not built yet")
}
