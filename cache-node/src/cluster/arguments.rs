//! The command line of `cache-node cluster`.

use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _, Parser, Subcommand};

use crate::cluster::{
    caller,
    operation::Operation,
    start,
    start_arguments::{StartArguments, parse_size},
};

const EXAMPLES: &str = "Examples:
  cache-node cluster --replicas 2 --durability sync --dir ./cart-cluster
  cache-node cluster start --port 0 --reader-port 0 --sentinel-port 0 --http-port 0
  cache-node cluster start --maxmemory 512mb -- --maxmemory-policy volatile-lru
  cache-node cluster start --webhook https://example.com/hooks/cache --webhook-secret-file webhook.secret
  cache-node cluster status --watch --dir ./cart-cluster
  redis-cli -p 26379 SENTINEL GET-MASTER-ADDR-BY-NAME mymaster
  curl http://127.0.0.1:9379/v1/nodes
  curl http://127.0.0.1:9379/metrics

The nodes are processes of their own: they go on when the controller dies, and the next start in the same folder takes them over.
SIGTERM and Ctrl-C end the replicas first and the primary last, with their data saved.";

const REACH: &str = "The controller is found through its folder (--dir), or at --address with the token of its folder in CACHE_CLUSTER_TOKEN_FILE.";

/// The subcommand, for the command line of `cache-node`.
pub(crate) fn command() -> Command {
    ClusterArguments::augment_args(Command::new("cluster"))
        .about("A primary and its replicas on this machine: watched, replaced when they die, at fixed addresses")
        .after_help(EXAMPLES)
        .args_conflicts_with_subcommands(true)
}

/// Runs what the command line says.
pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let arguments = match ClusterArguments::from_arg_matches(matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let outcome = match arguments.command.unwrap_or(ClusterCommand::Start(Box::new(arguments.start))) {
        ClusterCommand::Start(arguments) => match arguments.settings() {
            Ok((settings, is_with_parent)) => return start::start(settings, is_with_parent),
            Err(text) => Err((text, ExitCode::from(2))),
        },
        command => ask(command).map_err(|text| (text, ExitCode::FAILURE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((text, code)) => {
            eprintln!("cache-node cluster: {text}");
            code
        }
    }
}

/// Runs a command against the controller.
fn ask(command: ClusterCommand) -> Result<(), String> {
    let (reach, operation) = match command {
        ClusterCommand::Start(_) => unreachable!("it is no command to a controller"),
        ClusterCommand::Status { reach, watch } => return caller::status(&reach, watch && std::io::stdout().is_terminal()),
        ClusterCommand::Events { reach, follow } => return caller::events(&reach, follow),
        ClusterCommand::Failover { reach } => (reach, Operation::Failover),
        ClusterCommand::AddReplica { reach } => (reach, Operation::AddReplica),
        ClusterCommand::RemoveReplica { reach, name } => (reach, Operation::RemoveReplica { name }),
        ClusterCommand::RollingRestart { reach } => (reach, Operation::RollingRestart),
        ClusterCommand::Backup { reach, keep } => (reach, Operation::Backup { keep: Some(usize::from(keep)) }),
        ClusterCommand::Restore { reach, file } => {
            // The controller has another working folder.
            let file = file.canonicalize().map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            (reach, Operation::Restore { file })
        }
        ClusterCommand::ScaleMemory { reach, size } => (reach, Operation::ScaleMemory { size }),
    };
    caller::command(&reach, &operation)
}

#[derive(Debug, Parser)]
struct ClusterArguments {
    #[command(subcommand)]
    command: Option<ClusterCommand>,
    #[command(flatten)]
    start: StartArguments,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Starts the cluster, or takes over the one whose controller died.
    #[command(after_help = EXAMPLES)]
    Start(Box<StartArguments>),

    /// Shows the nodes and the endpoints.
    #[command(after_help = REACH)]
    Status {
        #[command(flatten)]
        reach: Reach,
        /// Show it again each second, until Ctrl-C.
        #[arg(long)]
        watch: bool,
    },

    /// Shows what has happened, oldest first.
    #[command(after_help = REACH)]
    Events {
        #[command(flatten)]
        reach: Reach,
        /// Go on with what happens from now on, until Ctrl-C.
        #[arg(long)]
        follow: bool,
    },

    /// Gives the primary's role to a replica that has everything. Nothing is lost, in any durability mode.
    #[command(after_help = REACH)]
    Failover {
        #[command(flatten)]
        reach: Reach,
    },

    /// Starts one more replica and waits until it has the data.
    #[command(after_help = REACH)]
    AddReplica {
        #[command(flatten)]
        reach: Reach,
    },

    /// Ends a replica for good and removes its folder.
    #[command(after_help = REACH)]
    RemoveReplica {
        #[command(flatten)]
        reach: Reach,
        /// Which one, such as node-3; without a name, the last.
        name: Option<String>,
    },

    /// Restarts every node, one at a time, the primary last and after it gave its role away.
    #[command(after_help = REACH)]
    RollingRestart {
        #[command(flatten)]
        reach: Reach,
    },

    /// Takes a snapshot of the data into the folder backups of the cluster's folder.
    #[command(after_help = REACH)]
    Backup {
        #[command(flatten)]
        reach: Reach,
        /// Snapshots that stay; older ones are removed.
        #[arg(long, value_name = "COUNT", default_value_t = crate::cluster::limits::SNAPSHOTS_KEPT as u16, value_parser = clap::value_parser!(u16).range(1..))]
        keep: u16,
    },

    /// Replaces all data by that of a snapshot in Redis's format. A file that cannot be loaded changes nothing.
    #[command(after_help = REACH)]
    Restore {
        #[command(flatten)]
        reach: Reach,
        /// The snapshot, such as cache-cluster/backups/snapshot-1732528800000.rdb.
        file: PathBuf,
    },

    /// Changes maxmemory of every node, now and at later starts.
    #[command(after_help = REACH)]
    ScaleMemory {
        #[command(flatten)]
        reach: Reach,
        /// Memory for keys and values of each node, such as 512mb; 0 for no limit.
        #[arg(value_parser = parse_size)]
        size: String,
    },
}

/// Where the controller is.
#[derive(Debug, clap::Args)]
pub(super) struct Reach {
    /// The cluster's folder.
    #[arg(long, value_name = "PATH", default_value = "cache-cluster")]
    pub(super) dir: PathBuf,

    /// The controller's HTTP address, in place of the folder.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) address: Option<SocketAddr>,

    /// The file with the controller's token, where the folder is not at hand.
    #[arg(long, value_name = "PATH", env = "CACHE_CLUSTER_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,
}
