//! `demo-shop serve`: one stateless replica of the shop.

mod args;

pub(crate) use args::ServeArgs;

pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let shutdown = crate::process::shutdown_signal()?;
    if args.with_parent {
        crate::process::exit_with_parent();
    }
    shutdown.await;
    anyhow::bail!("`serve` is not built yet")
}
