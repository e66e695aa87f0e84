//! The options of `cluster start`.

use std::{path::PathBuf, time::Duration};

use crate::{
    cluster::{
        limits::{DOWN_AFTER_DEFAULT, REPLICAS_MAX},
        settings::{AskedPorts, Durability, Kept, Settings},
    },
    logging::LogFormat,
    webhook::{SecretFile, TARGETS_MAX, Target, WebhookSettings},
};

#[derive(Debug, clap::Args)]
pub(super) struct StartArguments {
    /// Folder of the nodes' data, their logs and the cluster's state.
    #[arg(long, value_name = "PATH", default_value = "cache-cluster")]
    dir: PathBuf,

    /// Replicas, from 0 to 5; when it is not given, as many as the cluster had, or 2.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(0..=i64::from(REPLICAS_MAX)))]
    replicas: Option<u8>,

    /// When a write is acknowledged; when it is not given, as the cluster had it, or async.
    #[arg(long, value_enum)]
    durability: Option<Durability>,

    /// The cluster's name among Sentinel clients; when it is not given, the one that it had, or mymaster.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,

    /// Port of the primary endpoint [default: 6379]; 0 takes a free one and keeps it, here and below.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Port of the reader endpoint [default: 6380].
    #[arg(long, value_name = "PORT")]
    reader_port: Option<u16>,

    /// Port of the Sentinel commands [default: 26379].
    #[arg(long, value_name = "PORT")]
    sentinel_port: Option<u16>,

    /// Port of /v1/nodes and the like [default: 9379].
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,

    /// Memory for keys and values of each node, such as 256mb; it stays, too.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    maxmemory: Option<String>,

    /// Milliseconds of silence after which an idle or stopped node is taken for hung. One that works may take 5 s.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = DOWN_AFTER_DEFAULT.as_millis() as u32, value_parser = clap::value_parser!(u32).range(200..=60_000))]
    down_after: u32,

    /// Tell events to this address (http or https): a JSON POST each, signed as Standard Webhooks has it. It can be given several times. The environment variable takes several with spaces between them, and hides a path that is secret from ps.
    #[arg(
        long,
        value_name = "URL",
        env = "CACHE_CLUSTER_WEBHOOK",
        hide_env_values = true,
        value_delimiter = ' ',
        value_parser = parse_target,
        requires = "webhook_secret_file"
    )]
    webhook: Vec<Target>,

    /// File with what webhooks are signed with: whsec_ and 24 to 64 bytes in base64. With several lines each signs, while one is replaced; it is read again for each request.
    #[arg(long, value_name = "PATH")]
    webhook_secret_file: Option<PathBuf>,

    /// How log lines are written, by the controller to standard error and by each node to node.log in its folder.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,

    /// End the cluster when standard input closes, as it does at the end of the process that started this one.
    #[arg(long)]
    with_parent: bool,

    /// The program started as a node; default: this one.
    #[arg(long, value_name = "PATH")]
    node_program: Option<PathBuf>,

    /// What stands before the directives on a node's command line.
    #[arg(long, value_name = "WORD", hide = true)]
    node_argument: Vec<String>,

    /// Further directives of redis.conf for every node, behind --. They take the place of those that the cluster had; without --, those stay.
    #[arg(last = true, value_name = "DIRECTIVES", allow_hyphen_values = true)]
    directives: Vec<String>,
}

impl StartArguments {
    /// What is to be started, and whether it ends with the process that started this one.
    pub(super) fn settings(self) -> Result<(Settings, bool), String> {
        let is_own_program = self.node_program.is_none();
        let program = match self.node_program {
            Some(program) => program,
            None => std::env::current_exe().map_err(|error| format!("cannot find this program's own file: {error}"))?,
        };
        if self.webhook.len() > TARGETS_MAX {
            return Err(format!("--webhook can be given {TARGETS_MAX} times"));
        }
        let webhooks = match &self.webhook_secret_file {
            Some(path) => {
                let expected = |error| format!("--webhook-secret-file {}: expected {error}", path.display());
                Some(WebhookSettings { targets: self.webhook, secrets: SecretFile::open(path).map_err(expected)? })
            }
            None => None,
        };
        let settings = Settings {
            kept: Kept {
                name: self.name,
                durability: self.durability,
                directives: (!self.directives.is_empty() || ends_with_separator()).then_some(self.directives),
            },
            folder: self.dir,
            replicas: self.replicas,
            ports: AskedPorts {
                primary: self.port,
                reader: self.reader_port,
                sentinel: self.sentinel_port,
                http: self.http_port,
            },
            maxmemory: self.maxmemory,
            down_after: Duration::from_millis(u64::from(self.down_after)),
            program,
            program_arguments: self.node_argument,
            is_own_program,
            webhooks,
            log_format: self.log_format,
        };
        settings.check()?;
        Ok((settings, self.with_parent))
    }
}

/// Whether nothing stands behind `--`, which is how directives are dropped. clap does not tell it from no `--` at all.
fn ends_with_separator() -> bool {
    std::env::args_os().next_back().is_some_and(|word| word == "--")
}

fn parse_name(text: &str) -> Result<String, &'static str> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_name.then(|| text.to_owned()).ok_or("expected letters, digits, '-', '_' and '.'")
}

fn parse_target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|expected| format!("expected {expected}"))
}

pub(super) fn parse_size(text: &str) -> Result<String, &'static str> {
    let outcome = crate::Config::default().set("maxmemory", &[text]);
    outcome.map(|()| text.to_owned()).map_err(|_| "expected a size such as 268435456, 256mb or 1gb")
}
