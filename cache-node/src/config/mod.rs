//! Configuration: the directives of redis.conf, with Redis's names and defaults.

mod acl_file;
mod aof;
mod directive;
mod file;
mod rewrite;
mod size;
mod webhook;

pub(crate) use acl_file::{SaveError, load_users, save_users};
pub(crate) use aof::{AofConfig, AppendFsync, DurabilityMode};
pub(crate) use directive::{DIRECTIVES, Directive, find};
pub(crate) use file::parse_file;
pub(crate) use rewrite::rewrite_file;
pub(crate) use webhook::WebhookConfig;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use crate::{
    acl::UserLine,
    keyspace::{Classes, EvictionPolicy},
    logging::LogFormat,
    persistence::{EncryptionKey, SaveRule, Schedule},
    replication::PrimaryAddress,
};

/// Directives whose values are in no error and no log line.
const SECRETS: [&str; 3] = ["requirepass", "masterauth", "webhook"];

/// A directive or its value is wrong. The text names the directive, what was wrong and what is taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// How a node listens, whom it lets in and how much it may hold.
///
/// [`Config::default`] has redis.conf's defaults. Fields that are not public here are reached by their directive's name with
/// [`Config::set`], as on the command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// `bind`: addresses to listen on. Default: 127.0.0.1.
    pub bind: Vec<IpAddr>,
    /// `port`: TCP port; 0 takes a free one, which [`crate::Node::addr`] tells. Default 6379.
    pub port: u16,
    /// `protected-mode`: refuse other hosts while no password is set. Default yes.
    pub protected_mode: bool,
    /// `requirepass`: the password that clients give with AUTH or HELLO. Default none.
    pub requirepass: Option<String>,
    /// Lines of `user`, in the order in which they stand.
    pub(crate) users: Vec<UserLine>,
    pub(crate) aclfile: Option<PathBuf>,
    /// `acl-pubsub-default`: whether new users may use all channels.
    pub(crate) acl_pubsub_default_all: bool,
    /// `acl-changes`: whether a change of users or passwords is one of all nodes that may have this role.
    pub(crate) takes_acl_changes: bool,
    /// `role-changes`: whether REPLICAOF and FAILOVER come from anybody, and not from a cluster's controller alone.
    pub(crate) takes_role_changes: bool,
    pub(crate) acllog_max_len: usize,
    /// `maxclients`: connections at once; one more is refused with an error. Default 10,000.
    pub maxclients: usize,
    /// `maxmemory`: bytes that keys and values may take; 0 for no limit. Default 0.
    pub maxmemory: usize,
    /// `io-threads`: threads that serve connections, each with a runtime of its own. Default: one per core, 8 at the most.
    pub io_threads: usize,
    /// `io-uring`: make the system calls of connections in batches by `io_uring(7)`. Where the machine does not allow it, the log says so
    /// and they are made one by one; `multiplexing_api` of INFO tells which. Default no.
    pub io_uring: bool,
    /// `dir`: the folder of snapshots and the log; what is in it is loaded at the start. Default: none is, and what is kept on disk goes
    /// where the process was started.
    pub dir: Option<PathBuf>,
    /// `appendonly`: keep a log of all writes under [`Config::dir`], and load it at the start. Default no. When a write is on disk is
    /// said by `appendfsync` and `durability`, which [`Config::set`] reaches.
    pub appendonly: bool,
    /// `metrics-port`: port of `/metrics`, `/healthz`, `/readyz` and `/v1/events` on the addresses of `metrics-bind`; 0 takes a free one, which
    /// [`crate::Node::metrics_addr`] tells. `None`, the default: there is none.
    pub metrics_port: Option<u16>,
    pub(crate) metrics_bind: Vec<IpAddr>,
    pub(crate) webhook: WebhookConfig,
    /// Percent of `maxmemory` above which that is an event; 0: never.
    pub(crate) event_memory_percent: u8,
    pub(crate) aof: AofConfig,
    /// `None`: files are not encrypted.
    pub(crate) encryption: Option<EncryptionKey>,
    pub(crate) maxmemory_policy: EvictionPolicy,
    pub(crate) maxmemory_samples: usize,
    pub(crate) databases: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) tcp_backlog: u32,
    pub(crate) tcp_keepalive: Option<Duration>,
    pub(crate) notify_keyspace_events: Classes,
    pub(crate) lua_time_limit: Duration,
    pub(crate) proto_max_bulk_len: usize,
    pub(crate) client_query_buffer_limit: usize,
    pub(crate) pubsub_buffer_limit: BufferLimit,
    pub(crate) replica_buffer_limit: BufferLimit,
    pub(crate) loglevel: String,
    /// `u64::MAX`: nothing is kept.
    pub(crate) slowlog_slower_than_ns: u64,
    pub(crate) slowlog_max_len: usize,
    pub(crate) slowlog_redacts_arguments: bool,
    pub(crate) log_format: LogFormat,
    /// What it was read from: where CONFIG REWRITE writes.
    pub(crate) file: Option<PathBuf>,
    pub(crate) dbfilename: String,
    pub(crate) save: Vec<SaveRule>,
    pub(crate) rdbcompression: bool,
    pub(crate) rdbchecksum: bool,
    pub(crate) stop_writes_on_bgsave_error: bool,
    pub(crate) snapshot_schedule: Schedule,
    pub(crate) snapshot_retention: usize,
    pub(crate) replicaof: Option<PrimaryAddress>,
    pub(crate) masterauth: Option<String>,
    pub(crate) masteruser: Option<String>,
    pub(crate) replica_serve_stale_data: bool,
    pub(crate) replica_priority: u32,
    pub(crate) replica_announce_ip: Option<String>,
    pub(crate) replica_announce_port: Option<u16>,
    pub(crate) repl_diskless_sync: bool,
    pub(crate) repl_backlog_size: usize,
    pub(crate) repl_timeout: Duration,
    pub(crate) repl_ping_replica_period: Duration,
    pub(crate) min_replicas_to_write: usize,
    pub(crate) min_replicas_max_lag: u64,
    pub(crate) sync_needs_all_replicas: bool,
    pub(crate) sync_grace: Duration,
}

/// `client-output-buffer-limit` of one class; 0 bytes for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BufferLimit {
    /// With more bytes waiting for it the client is closed.
    pub(crate) hard: usize,
    /// The same when there are more for so long.
    pub(crate) soft: usize,
    pub(crate) soft_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const THREADS_MAX: usize = 8;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Config {
            bind: vec![IpAddr::from([127, 0, 0, 1])],
            port: 6379,
            protected_mode: true,
            requirepass: None,
            users: Vec::new(),
            aclfile: None,
            acl_pubsub_default_all: false,
            takes_acl_changes: true,
            takes_role_changes: true,
            acllog_max_len: 128,
            maxclients: 10_000,
            maxmemory: 0,
            io_threads: cores.min(THREADS_MAX),
            io_uring: false,
            dir: None,
            appendonly: false,
            metrics_port: None,
            metrics_bind: vec![IpAddr::from([127, 0, 0, 1])],
            webhook: WebhookConfig::default(),
            event_memory_percent: 80,
            aof: AofConfig::default(),
            encryption: None,
            maxmemory_policy: EvictionPolicy::NoEviction,
            maxmemory_samples: 5,
            databases: 16,
            timeout: None,
            tcp_backlog: 511,
            tcp_keepalive: Some(Duration::from_secs(300)),
            notify_keyspace_events: Classes::default(),
            lua_time_limit: Duration::from_secs(5),
            proto_max_bulk_len: 512 * 1024 * 1024,
            client_query_buffer_limit: 1024 * 1024 * 1024,
            pubsub_buffer_limit: BufferLimit { hard: 32 << 20, soft: 8 << 20, soft_time: Duration::from_secs(60) },
            replica_buffer_limit: BufferLimit { hard: 256 << 20, soft: 64 << 20, soft_time: Duration::from_secs(60) },
            loglevel: "notice".to_owned(),
            slowlog_slower_than_ns: 10_000_000,
            slowlog_max_len: 128,
            slowlog_redacts_arguments: true,
            log_format: LogFormat::default(),
            file: None,
            dbfilename: "dump.rdb".to_owned(),
            save: Vec::new(),
            rdbcompression: true,
            rdbchecksum: true,
            stop_writes_on_bgsave_error: true,
            snapshot_schedule: Schedule::Never,
            snapshot_retention: 0,
            replicaof: None,
            masterauth: None,
            masteruser: None,
            replica_serve_stale_data: true,
            replica_priority: 100,
            replica_announce_ip: None,
            replica_announce_port: None,
            repl_diskless_sync: true,
            repl_backlog_size: 1024 * 1024,
            repl_timeout: Duration::from_secs(60),
            repl_ping_replica_period: Duration::from_secs(10),
            min_replicas_to_write: 0,
            min_replicas_max_lag: 10,
            sync_needs_all_replicas: false,
            sync_grace: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// A node for a test: loopback, a free port, two threads.
    ///
    /// ```
    /// assert_eq!(cache_node::Config::for_test().port, 0);
    /// ```
    pub fn for_test() -> Config {
        Config { port: 0, io_threads: 2, ..Config::default() }
    }

    /// Sets a directive by its name in redis.conf. `user`, a name and rules as ACL SETUSER takes them, adds one to those that there are.
    ///
    /// ```
    /// let mut config = cache_node::Config::for_test();
    /// config.set("maxmemory-policy", &["volatile-lru"]).unwrap();
    /// let error = config.set("maxmemory-policy", &["lru"]).unwrap_err();
    /// assert!(error.to_string().contains("volatile-lru, "));
    /// ```
    ///
    /// # Errors
    /// When there is no such directive, or the value is none of those that it takes.
    pub fn set(&mut self, directive: &str, values: &[&str]) -> Result<(), ConfigError> {
        if directive.eq_ignore_ascii_case("user") {
            return self.add_user(values).map_err(|expected| ConfigError(format!("user: expected {expected}")));
        }
        let known =
            find(directive).ok_or_else(|| ConfigError(format!("unknown directive '{directive}'; see cache-node --help")))?;
        (known.set)(self, values).map_err(|expected| {
            // It may be printed and logged.
            let given = if SECRETS.contains(&known.name) { "(hidden)".to_owned() } else { values.join(" ") };
            ConfigError(format!("{}: '{given}' is not valid: expected {expected}", known.name))
        })
    }

    /// As [`Config::set`], for a line of a file or an option of the command line: rules of `save` and addresses of `webhook` add up there,
    /// until one is "".
    pub(crate) fn read(&mut self, directive: &str, values: &[&str]) -> Result<(), ConfigError> {
        let before = (self.save.clone(), self.webhook.clone());
        self.set(directive, values)?;
        match find(directive).map(|known| known.name) {
            Some("save") if !self.save.is_empty() => drop(self.save.splice(..0, before.0)),
            Some("webhook") => {
                self.webhook.add_to(&before.1).map_err(|expected| ConfigError(format!("webhook: expected {expected}")))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn add_user(&mut self, words: &[&str]) -> Result<(), String> {
        let line = UserLine::parse(words)?;
        if self.users.iter().any(|known| known.name == line.name) {
            return Err(format!("one line for each user, and '{}' has two", line.name));
        }
        self.users.push(line);
        Ok(())
    }

    /// Puts lines of `user` in front of those that there are, but for those of the same names.
    pub(crate) fn keep_other_users(&mut self, mut lines: Vec<UserLine>) {
        lines.retain(|line| self.users.iter().all(|known| known.name != line.name));
        self.users.splice(..0, lines);
    }

    /// The folder of everything on disk.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new("."))
    }

    /// Whether the node is to find its data again when it starts.
    pub(crate) fn has_persistence(&self) -> bool {
        self.dir.is_some() || self.appendonly || !self.save.is_empty() || self.snapshot_schedule != Schedule::Never
    }

    /// The value of a directive as CONFIG GET prints it.
    ///
    /// ```
    /// assert_eq!(cache_node::Config::default().get("port").as_deref(), Some("6379"));
    /// ```
    pub fn get(&self, directive: &str) -> Option<String> {
        find(directive).map(|known| known.shown(self))
    }
}
