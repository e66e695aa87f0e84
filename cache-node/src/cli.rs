//! The command line: redis.conf's directives as options, or a file with them.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::ValueRange, error::ErrorKind};
use sd_notify::NotifyState;

use crate::{
    Config, ConfigError, Node,
    config::{DIRECTIVES, parse_file},
    logging,
    protocol::split_quoted_line,
};

const EXAMPLES: &str = "Examples:
  cache-node
  cache-node --port 6400 --maxmemory 256mb --maxmemory-policy volatile-lru
  cache-node ./node.conf --port 0
  cache-node --dir /var/lib/cache-node --save 300 100 --snapshot-schedule 04:30 --snapshot-retention 7
  cache-node --metrics-port 9121            then: curl http://127.0.0.1:9121/metrics
  cache-node --webhook https://example.com/hooks/cache --webhook-secret-file webhook.secret
  cache-node --bind 0.0.0.0 --requirepass \"$PASSWORD\"
  cache-node --user \"app on >$PASSWORD ~app:* -@all +@read -@dangerous\" --user \"default off\"
  cache-node cluster start --replicas 2

Every option is a directive of redis.conf; in a file it stands without the dashes, one per line. Options win over the file.
The node prints one line when it is ready. On SIGTERM and SIGINT it answers what it has received and ends. Its data is kept when 'dir' or
'save' is given: it is loaded from the snapshot there, and saved by the rules of 'save', the last time at the end.";

/// Runs a node as the `cache-node` binary does, until SIGTERM or SIGINT. `arguments` begin with the program's name.
///
/// Prints one line on standard output when it serves: `cache-node ready on 127.0.0.1:6379 (pid 4711)`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nobody is left to tell when standard error is closed.
            let printed = error.print();
            drop(printed);
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    #[cfg(feature = "cluster")]
    if let Some(("cluster", matches)) = matches.subcommand() {
        return crate::cluster::run(matches);
    }
    match config(&matches) {
        Ok(config) => serve(config),
        Err(error) => {
            eprintln!("cache-node: {error}");
            ExitCode::from(2)
        }
    }
}

fn command() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .help("A configuration file in the form of redis.conf")
        .value_parser(clap::value_parser!(PathBuf));
    let defaults = Config::default();
    let options = DIRECTIVES.iter().map(|directive| {
        let default = (directive.get)(&defaults);
        let help =
            if default.is_empty() { directive.help.to_owned() } else { format!("{} [default: {default}]", directive.help) };
        let takes_several = directive.value.contains("...") || directive.value.contains(' ');
        let value_name = directive.value.trim_end_matches("...");
        Arg::new(directive.name)
            .long(directive.name)
            .value_name(value_name)
            .help(help)
            .action(ArgAction::Append)
            .num_args(if takes_several { ValueRange::new(1..) } else { ValueRange::SINGLE })
            .allow_hyphen_values(false)
    });
    let user = Arg::new("user")
        .long("user")
        .value_name("NAME RULES...")
        .help("A user in one argument, its rules as ACL SETUSER takes them; can be given several times")
        .action(ArgAction::Append);
    let command = Command::new("cache-node");
    #[cfg(feature = "cluster")]
    let command =
        command.subcommand(crate::cluster::command()).args_conflicts_with_subcommands(true).disable_help_subcommand(true);
    command
        .version(env!("CARGO_PKG_VERSION"))
        .about("An in-memory cache node that speaks the Redis protocol")
        .after_help(EXAMPLES)
        .arg(file)
        .args(options)
        .arg(user)
}

fn config(matches: &ArgMatches) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    if let Some(path) = matches.get_one::<PathBuf>("file") {
        let text = read(path)?;
        parse_file(&mut config, &path.display().to_string(), &text)?;
        config.file = std::fs::canonicalize(path).ok();
    }
    let users_of_file = std::mem::take(&mut config.users);
    for user in matches.get_many::<String>("user").into_iter().flatten() {
        let words = split_quoted_line(user).ok_or_else(|| ConfigError("user: unbalanced quotes".to_owned()))?;
        config.read("user", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    // CONFIG REWRITE writes those of the options into the file, and the same options must start the node again.
    config.keep_other_users(users_of_file);
    for directive in DIRECTIVES {
        let Some(occurrences) = matches.get_occurrences::<String>(directive.name) else { continue };
        for values in occurrences {
            let values: Vec<&str> = values.map(String::as_str).collect();
            config.read(directive.name, &values)?;
        }
    }
    Ok(config)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("cannot read the configuration file {}: {error}", path.display())))
}

fn serve(config: Config) -> ExitCode {
    logging::start(&config.loglevel, config.log_format);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(async {
        // The handlers first: a signal that comes right after the ready line must already be heard.
        let ended = match signal() {
            Ok(ended) => ended,
            Err(error) => return fail(&error),
        };
        let node = match Node::spawn(config).await {
            Ok(node) => node,
            Err(error) => return fail(&error),
        };
        let mut out = io::stdout();
        // A closed standard output is no reason not to serve.
        let told = writeln!(out, "cache-node ready on {} (pid {})", node.addr(), std::process::id()).and_then(|()| out.flush());
        drop(told);
        notify(&[NotifyState::Ready, NotifyState::Status(&format!("serves on {}", node.addr()))]);
        let name = tokio::select! {
            name = ended => name,
            () = node.asked_to_end() => "SHUTDOWN",
        };
        tracing::info!("{name}: ending");
        notify(&[NotifyState::Stopping]);
        match node.shutdown().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        }
    })
}

/// Tells systemd how the process is, where the unit is of `Type=notify` and so gives a NOTIFY_SOCKET.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Completes at SIGTERM or SIGINT with the signal's name.
pub(crate) fn signal() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

fn fail(error: &io::Error) -> ExitCode {
    eprintln!("cache-node: {error}");
    ExitCode::FAILURE
}
