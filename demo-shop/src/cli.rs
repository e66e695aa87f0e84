//! The command line: one subcommand for each kind of process.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use crate::balancer::BalanceArgs;
use crate::fleet::UpArgs;
use crate::load_test::LoadTestArgs;
use crate::shop::ServeArgs;

/// A shop on stateless replicas whose carts survive the death of any of them.
#[derive(Debug, Parser)]
#[command(
    name = "demo-shop",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a subcommand, `demo-shop` does what `demo-shop up` does and takes its options.\n\n\
        Examples:\n  \
        demo-shop                                     a whole shop on http://127.0.0.1:8080\n  \
        demo-shop --replicas 5 --listen 127.0.0.1:80  the same, wider\n  \
        demo-shop up --cache redis://127.0.0.1:6379   with a Redis or Valkey of your own\n  \
        demo-shop load-test --shoppers 200            proof that no cart is lost"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) up: UpArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything: a cache node, a database, replicas and a balancer
    #[command(after_help = "Examples:\n  \
        demo-shop up\n  \
        demo-shop up --replicas 5 --listen 0.0.0.0:8080\n  \
        demo-shop up --cluster\n  \
        openssl rand -hex 32 > encryption.key   # once: without it nobody reads those carts again\n  \
        DEMO_SHOP_ENCRYPTION_KEYS=$(cat encryption.key) demo-shop up\n  \
        demo-shop up --cache redis://cache.internal:6379 --database postgres://shop@db.internal/shop")]
    Up(UpArgs),
    /// Run one stateless replica of the shop
    #[command(after_help = "Examples:\n  \
        demo-shop serve --name A --listen 127.0.0.1:8081\n  \
        demo-shop serve --cache redis://cache.internal:6379 --database postgres://shop@db.internal/shop\n  \
        DEMO_SHOP_SESSION_KEY=$(cat session.key) demo-shop serve --secure-cookies\n  \
        DEMO_SHOP_ENCRYPTION_KEYS=$(cat encryption.key) demo-shop serve\n  \
        DEMO_SHOP_ENCRYPTION_KEYS=$NEW_KEY,$FORMER_KEY demo-shop serve\n\n\
        Prints one line on standard output when it is ready: replica NAME ready on ADDRESS (pid N)")]
    Serve(ServeArgs),
    /// Run the balancer alone, in front of replicas that are already there
    #[command(after_help = "Example:\n  \
        demo-shop balance --listen 127.0.0.1:8080 --replica A=127.0.0.1:8081 --replica B=127.0.0.1:8082")]
    Balance(BalanceArgs),
    /// Send shoppers through the shop and check that no cart was lost
    #[command(after_help = "Examples:\n  \
        demo-shop load-test --replicas 1,2,3 --shoppers 200 --duration 30s\n  \
        demo-shop load-test --kill-replica-every 10s\n  \
        demo-shop load-test --replicas 3 --cluster --kill-node-every 10s --freeze-node-every 20s --duration 5m\n  \
        demo-shop load-test --target http://127.0.0.1:8080\n\n\
        Exit code: 0 when every acknowledged change was found again, 1 on any loss, 2 when the test could not be done")]
    LoadTest(LoadTestArgs),
    /// Run a cache node: the supervisor starts it from the same binary
    #[command(hide = true)]
    Node(NodeArgs),
}

/// What `demo-shop node` takes before the node's own directives.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// End when standard input is closed
    #[arg(long)]
    pub(crate) with_parent: bool,
    /// redis.conf directives: --port 6400 --maxmemory 256mb …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "DIRECTIVE")]
    pub(crate) directives: Vec<OsString>,
}
