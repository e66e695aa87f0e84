//! `demo-shop up`: starts and supervises the processes of a whole shop.

use clap::Args;

/// What `demo-shop up` takes.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// How many replicas of the shop to run
    #[arg(long, default_value_t = 3)]
    pub(crate) replicas: u8,
}

pub(crate) async fn run(_args: UpArgs) -> anyhow::Result<()> {
    anyhow::bail!("`up` is not built yet")
}
