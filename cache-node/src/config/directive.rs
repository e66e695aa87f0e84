//! The table of directives: command line, file, CONFIG GET, CONFIG SET and `--help` all read it.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{AppendFsync, BufferLimit, Config, DurabilityMode, size},
    keyspace::{Classes, EvictionPolicy},
    logging::LogFormat,
    persistence::{EncryptionKey, SaveRule, Schedule},
    replication::PrimaryAddress,
};

/// What a setter expected, for the error.
type Expected = String;

/// One directive.
#[derive(Debug)]
pub(crate) struct Directive {
    pub(crate) name: &'static str,
    /// How its value is written, for `--help`.
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
    /// Whether CONFIG SET takes it while the node runs.
    pub(crate) is_live: bool,
    pub(crate) get: fn(&Config) -> String,
    pub(crate) set: fn(&mut Config, &[&str]) -> Result<(), Expected>,
}

impl Directive {
    /// Its value as it is told to clients: without what only a receiver of webhooks is to know.
    pub(crate) fn shown(&self, config: &Config) -> String {
        if self.name == "webhook" { config.webhook.shown() } else { (self.get)(config) }
    }
}

/// A directive by its name in any case, or by its older name.
pub(crate) fn find(name: &str) -> Option<&'static Directive> {
    let name = name.to_ascii_lowercase();
    let name = match name.as_str() {
        "busy-reply-threshold" => "lua-time-limit",
        "slaveof" => "replicaof",
        "slave-read-only" => "replica-read-only",
        "slave-serve-stale-data" => "replica-serve-stale-data",
        "slave-priority" => "replica-priority",
        "slave-announce-ip" => "replica-announce-ip",
        "slave-announce-port" => "replica-announce-port",
        "repl-ping-slave-period" => "repl-ping-replica-period",
        "min-slaves-to-write" => "min-replicas-to-write",
        "min-slaves-max-lag" => "min-replicas-max-lag",
        name => name,
    };
    DIRECTIVES.iter().find(|directive| directive.name == name)
}

const LIVE: bool = true;
const AT_START: bool = false;

macro_rules! directives {
    ($($name:literal $value:literal $live:ident $help:literal, $get:expr, $set:expr;)*) => {
        &[$(Directive { name: $name, value: $value, help: $help, is_live: $live, get: $get, set: $set }),*]
    };
}

/// Every directive, in the order in which `--help` shows them.
pub(crate) static DIRECTIVES: &[Directive] = directives! {
    "bind" "ADDRESS..." AT_START "Addresses to listen on; '*' for all of IPv4", |config| join(&config.bind), |config, values| {
        config.bind = addresses(values)?;
        Ok(())
    };
    "port" "PORT" AT_START "TCP port; 0 takes a free one", |config| config.port.to_string(), |config, values| {
        config.port = number(values, 0, 65_535)? as u16;
        Ok(())
    };
    "protected-mode" "yes|no" LIVE "Refuse other hosts while the default user needs no password", |config| yes_no(config.protected_mode), |config, values| {
        config.protected_mode = boolean(values)?;
        Ok(())
    };
    "requirepass" "PASSWORD" LIVE "Password of the default user, which clients must give", |config| config.requirepass.clone().unwrap_or_default(), |config, values| {
        let password = one(values, "a password, or \"\" for none")?;
        config.requirepass = (!password.is_empty()).then(|| password.to_owned());
        Ok(())
    };
    "aclfile" "FILE" AT_START "File of users, a line each as ACL LIST prints them, in the place of lines 'user NAME RULES...' of the configuration; relative to 'dir'. requirepass does not count with it",
    |config| config.aclfile.as_ref().map(|path| path.display().to_string()).unwrap_or_default(), |config, values| {
        config.aclfile = text(values)?.map(PathBuf::from);
        Ok(())
    };
    "acl-pubsub-default" "resetchannels|allchannels" LIVE "Channels of a user of whom nothing is said about channels: none, or all", |config| if config.acl_pubsub_default_all { "allchannels" } else { "resetchannels" }.to_owned(), |config, values| {
        config.acl_pubsub_default_all = match one(values, "resetchannels or allchannels")? {
            "allchannels" => true,
            "resetchannels" => false,
            _ => return Err("resetchannels or allchannels".to_owned()),
        };
        Ok(())
    };
    "acl-changes" "yes|no" AT_START "Take ACL SETUSER, DELUSER and LOAD, and CONFIG SET of requirepass, masterauth and masteruser; no: where a change of this node alone would be lost with its role, as in a cluster of 'cluster start'", |config| yes_no(config.takes_acl_changes), |config, values| {
        config.takes_acl_changes = boolean(values)?;
        Ok(())
    };
    "acllog-max-len" "COUNT" LIVE "Refused requests and logins that ACL LOG keeps", |config| config.acllog_max_len.to_string(), |config, values| {
        config.acllog_max_len = number(values, 0, 1_000_000)? as usize;
        Ok(())
    };
    "maxclients" "COUNT" LIVE "Connections at once", |config| config.maxclients.to_string(), |config, values| {
        config.maxclients = number(values, 1, 1_000_000)? as usize;
        Ok(())
    };
    "timeout" "SECONDS" LIVE "Close a connection idle for so long; 0 for never", |config| seconds(config.timeout), |config, values| {
        config.timeout = duration(number(values, 0, i64::from(i32::MAX))?);
        Ok(())
    };
    "tcp-backlog" "COUNT" AT_START "Connections waiting to be accepted", |config| config.tcp_backlog.to_string(), |config, values| {
        config.tcp_backlog = number(values, 1, 65_535)? as u32;
        Ok(())
    };
    "tcp-keepalive" "SECONDS" LIVE "Interval of TCP keepalive probes; 0 for none", |config| seconds(config.tcp_keepalive), |config, values| {
        config.tcp_keepalive = duration(number(values, 0, i64::from(i32::MAX))?);
        Ok(())
    };
    "databases" "COUNT" AT_START "Databases that SELECT can choose", |config| config.databases.to_string(), |config, values| {
        config.databases = number(values, 1, 1024)? as usize;
        Ok(())
    };
    "io-threads" "COUNT" AT_START "Threads that serve connections", |config| config.io_threads.to_string(), |config, values| {
        config.io_threads = number(values, 1, 128)? as usize;
        Ok(())
    };
    "io-uring" "yes|no" AT_START "Make the system calls of connections in batches by io_uring: less CPU for clients that send one request at a time. Takes Linux 6.1; where it is refused, the log says so and the node does without",
    |config| yes_no(config.io_uring), |config, values| {
        config.io_uring = boolean(values)?;
        Ok(())
    };
    "metrics-port" "PORT|no" AT_START "Port of /metrics (OpenMetrics), /healthz, /readyz and /v1/events; 0 takes a free one",
    |config| config.metrics_port.map_or("no".to_owned(), |port| port.to_string()), |config, values| {
        config.metrics_port = match one(values, "a port, or no")? {
            "no" | "" => None,
            _ if !cfg!(feature = "metrics") => return Err("no: this program was built without its feature 'metrics'".to_owned()),
            port => Some(port.parse().map_err(|_| "a number from 0 to 65535, or no")?),
        };
        Ok(())
    };
    "metrics-bind" "ADDRESS..." AT_START "Addresses of that port; whoever reaches it reads figures and events without a password", |config| join(&config.metrics_bind), |config, values| {
        config.metrics_bind = addresses(values)?;
        Ok(())
    };
    "webhook" "URL" AT_START "Tell events to this address (http or https): a JSON POST each, signed as Standard Webhooks has it. It can be given several times",
    |config| config.webhook.addresses(), |config, values| config.webhook.set_addresses(values);
    "webhook-secret-file" "FILE" AT_START "What webhooks are signed with: whsec_ and 24 to 64 bytes in base64. With several lines each signs, while one is replaced; it is read again for each request",
    |config| config.webhook.secret_file().map(|path| path.display().to_string()).unwrap_or_default(), |config, values| {
        config.webhook.set_secret_file(one(values, "a file")?)
    };
    "event-memory-percent" "PERCENT" LIVE "Memory above so much of maxmemory is an event; 0 for never", |config| config.event_memory_percent.to_string(), |config, values| {
        config.event_memory_percent = number(values, 0, 100)? as u8;
        Ok(())
    };
    "maxmemory" "SIZE" LIVE "Memory for keys and values, such as 256mb; 0 for no limit", |config| config.maxmemory.to_string(), |config, values| {
        config.maxmemory = bytes(values).ok().filter(|bytes| *bytes <= MAXMEMORY_MAX)
            .ok_or("a size such as 256mb or 1gb, 192gb at the most: what else there is room for, several nodes hold")?;
        Ok(())
    };
    "maxmemory-policy" "POLICY" LIVE "What goes when maxmemory is reached, after what has expired; for sessions volatile-lru, which takes those longest unused: volatile-lru, volatile-lfu, volatile-ttl, volatile-random, allkeys-lru, allkeys-lfu, allkeys-random, noeviction",
    |config| config.maxmemory_policy.name().to_owned(), |config, values| {
        config.maxmemory_policy = one(values, "a policy").ok().and_then(EvictionPolicy::parse)
            .ok_or_else(|| EvictionPolicy::NAMES.map(|(name, _)| name).join(", "))?;
        Ok(())
    };
    "maxmemory-samples" "COUNT" LIVE "Keys looked at per eviction; more is closer to the policy and slower", |config| config.maxmemory_samples.to_string(), |config, values| {
        config.maxmemory_samples = number(values, 1, 64)? as usize;
        Ok(())
    };
    "notify-keyspace-events" "LETTERS" LIVE "Events published on __keyspace@N__ and __keyevent@N__ channels, such as Egx; \"\" for none",
    |config| config.notify_keyspace_events.to_string(), |config, values| {
        config.notify_keyspace_events = one(values, "letters").ok().and_then(Classes::parse).ok_or("letters of g$lshzxetdKEmnA")?;
        Ok(())
    };
    "lua-time-limit" "MILLISECONDS" LIVE "A script is ended after so long; 0 for never", |config| config.lua_time_limit.as_millis().to_string(), |config, values| {
        config.lua_time_limit = Duration::from_millis(number(values, 0, i64::from(i32::MAX))? as u64);
        Ok(())
    };
    "proto-max-bulk-len" "SIZE" LIVE "Longest argument of a request", |config| config.proto_max_bulk_len.to_string(), |config, values| {
        let size = bytes(values)?;
        if !(1024 * 1024..=MAX_BULK_BYTES).contains(&size) {
            return Err("a size from 1mb to 512mb".to_owned());
        }
        config.proto_max_bulk_len = size;
        Ok(())
    };
    "client-query-buffer-limit" "SIZE" LIVE "Bytes of unfinished requests that one connection may send", |config| config.client_query_buffer_limit.to_string(), |config, values| {
        let size = bytes(values)?;
        if !(1024 * 1024..=MAX_QUERY_BYTES).contains(&size) {
            return Err("a size from 1mb to 2gb".to_owned());
        }
        config.client_query_buffer_limit = size;
        Ok(())
    };
    "client-output-buffer-limit" "CLASS HARD SOFT SECONDS" LIVE "Bytes that may wait for a slow client before it is closed: 'replica HARD SOFT SECONDS', and the same for 'pubsub'; 0 for no limit, but for the hard one of pubsub",
    |config| {
        let told = |limit: BufferLimit| format!("{} {} {}", limit.hard, limit.soft, limit.soft_time.as_secs());
        format!("normal 0 0 0 slave {} pubsub {}", told(config.replica_buffer_limit), told(config.pubsub_buffer_limit))
    }, |config, values| {
        let words: Vec<&str> = values.iter().flat_map(|value| value.split_whitespace()).collect();
        for class in words.chunks(4) {
            match class {
                ["normal", ..] if class.len() == 4 => {}
                [class @ ("slave" | "replica" | "pubsub"), hard, soft, time] => {
                    let expected = "two sizes and seconds, such as replica 256mb 64mb 60";
                    let (hard, soft) = size::parse(hard).zip(size::parse(soft)).ok_or(expected)?;
                    let soft_time = Duration::from_secs(time.parse::<u32>().map_err(|_| expected)?.into());
                    let limit = BufferLimit { hard, soft, soft_time };
                    if *class != "pubsub" {
                        config.replica_buffer_limit = limit;
                    } else if hard > 0 {
                        config.pubsub_buffer_limit = limit;
                    } else {
                        return Err("pubsub with a hard limit above 0, such as 32mb".to_owned());
                    }
                }
                _ => return Err("CLASS HARD SOFT SECONDS with a class of normal, replica, pubsub".to_owned()),
            }
        }
        Ok(())
    };
    "loglevel" "LEVEL" LIVE "debug, verbose, notice or warning", |config| config.loglevel.clone(), |config, values| {
        const LEVELS: [&str; 5] = ["debug", "verbose", "notice", "warning", "nothing"];
        let level = one(values, "a level")?.to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) {
            return Err(LEVELS.join(", "));
        }
        config.loglevel = level;
        Ok(())
    };
    "slowlog-log-slower-than" "MICROSECONDS" LIVE "SLOWLOG keeps requests that took so long; 0 for all, -1 for none", |config| match config.slowlog_slower_than_ns {
        u64::MAX => "-1".to_owned(),
        nanoseconds => (nanoseconds / 1_000).to_string(),
    }, |config, values| {
        let microseconds = number(values, -1, i64::from(i32::MAX))?;
        config.slowlog_slower_than_ns = u64::try_from(microseconds).map_or(u64::MAX, |microseconds| microseconds * 1_000);
        Ok(())
    };
    "slowlog-max-len" "COUNT" LIVE "Requests that SLOWLOG keeps", |config| config.slowlog_max_len.to_string(), |config, values| {
        config.slowlog_max_len = number(values, 0, 10_000)? as usize;
        Ok(())
    };
    "slowlog-redact-arguments" "yes|no" LIVE "Show of a slow request only commands and keys; no: values as well, but never passwords", |config| yes_no(config.slowlog_redacts_arguments), |config, values| {
        config.slowlog_redacts_arguments = boolean(values)?;
        Ok(())
    };
    "log-format" "text|json" AT_START "How log lines are written to standard error; json: an object per line", |config| config.log_format.name().to_owned(), |config, values| {
        config.log_format = one(values, "a word").ok().and_then(LogFormat::parse).ok_or("text or json")?;
        Ok(())
    };
    "dir" "FOLDER" LIVE "Folder of snapshots and the log; with it the node finds its data again when it starts", |config| config.folder().display().to_string(), |config, values| {
        let folder = PathBuf::from(one(values, "a folder")?);
        if !folder.is_dir() {
            return Err("a folder that exists".to_owned());
        }
        config.dir = Some(folder);
        Ok(())
    };
    "dbfilename" "NAME" LIVE "Name of the snapshot's file in that folder", |config| config.dbfilename.clone(), |config, values| {
        let name = one(values, "a file's name")?;
        if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
            return Err("a file's name without a folder, such as dump.rdb".to_owned());
        }
        config.dbfilename = name.to_owned();
        Ok(())
    };
    "save" "SECONDS CHANGES..." LIVE "Take a snapshot after so many seconds if there were so many changes; given several times they add up; \"\" for never",
    |config| config.save.iter().map(|rule| format!("{} {}", rule.seconds, rule.changes)).collect::<Vec<_>>().join(" "), |config, values| {
        let words: Vec<&str> = values.iter().flat_map(|value| value.split_whitespace()).collect();
        config.save = SaveRule::parse_all(&words).ok_or("pairs of seconds and changes, such as 3600 1 300 100, or \"\"")?;
        Ok(())
    };
    "rdbcompression" "yes|no" LIVE "Compress strings in snapshots", |config| yes_no(config.rdbcompression), |config, values| {
        config.rdbcompression = boolean(values)?;
        Ok(())
    };
    "rdbchecksum" "yes|no" LIVE "End snapshots with a checksum", |config| yes_no(config.rdbchecksum), |config, values| {
        config.rdbchecksum = boolean(values)?;
        Ok(())
    };
    "stop-writes-on-bgsave-error" "yes|no" LIVE "Refuse writes while the last snapshot by rule failed", |config| yes_no(config.stop_writes_on_bgsave_error), |config, values| {
        config.stop_writes_on_bgsave_error = boolean(values)?;
        Ok(())
    };
    "snapshot-schedule" "WHEN" LIVE "Take a snapshot every 30m, 6h or 1d, or each day at 04:30 (UTC); \"\" for never", |config| config.snapshot_schedule.to_string(), |config, values| {
        config.snapshot_schedule = one(values, "").ok().and_then(Schedule::parse).ok_or("an interval such as 6h, a time of day such as 04:30, or \"\"")?;
        Ok(())
    };
    "snapshot-retention" "COUNT" LIVE "Keep the last snapshots under names with their time as well; 0 for none", |config| config.snapshot_retention.to_string(), |config, values| {
        config.snapshot_retention = number(values, 0, 10_000)? as usize;
        Ok(())
    };
    "encryption-key-file" "FILE" AT_START "Encrypt snapshots and the log with the key in this file (32 bytes or 64 hexadecimal digits); \"\" for not",
    |config| config.encryption.as_ref().map(|key| key.path().display().to_string()).unwrap_or_default(), |config, values| {
        let path = one(values, "a file")?;
        config.encryption = if path.is_empty() { None } else { Some(EncryptionKey::read(Path::new(path))?) };
        Ok(())
    };
    "appendonly" "yes|no" LIVE "Keep a log of all writes, and load it at the start. Turned on while the node runs, or behind a full sync, it protects nothing until its first base is written: INFO has aof_current_size then", |config| yes_no(config.appendonly), |config, values| {
        config.appendonly = boolean(values)?;
        Ok(())
    };
    "appenddirname" "NAME" AT_START "Folder of the log, in 'dir'", |config| config.aof.dirname.clone(), |config, values| {
        config.aof.dirname = file_name(values)?;
        Ok(())
    };
    "appendfilename" "NAME" AT_START "What the log's files are called, before their numbers", |config| config.aof.filename.clone(), |config, values| {
        config.aof.filename = file_name(values)?;
        Ok(())
    };
    "appendfsync" "always|everysec|no" LIVE "When the log is brought to disk: before a write is acknowledged, once a second, or when the system likes",
    |config| config.aof.fsync.name().to_owned(), |config, values| {
        config.aof.fsync = one(values, "a word").ok().and_then(AppendFsync::parse).ok_or("always, everysec or no")?;
        Ok(())
    };
    "durability" "none|async|sync" LIVE "What an acknowledged write is promised: nothing; what appendfsync says; to be on disk or on a replica (on a replica for certain with min-replicas-to-write)",
    |config| config.aof.durability.name().to_owned(), |config, values| {
        config.aof.durability = one(values, "a word").ok().and_then(DurabilityMode::parse).ok_or("none, async or sync")?;
        Ok(())
    };
    "auto-aof-rewrite-percentage" "PERCENT" LIVE "Rewrite the log when it has grown by so much since the last time; 0 for never", |config| config.aof.rewrite_percentage.to_string(), |config, values| {
        config.aof.rewrite_percentage = number(values, 0, i64::from(i32::MAX))? as u32;
        Ok(())
    };
    "auto-aof-rewrite-min-size" "SIZE" LIVE "But not below this size", |config| config.aof.rewrite_min_bytes.to_string(), |config, values| {
        config.aof.rewrite_min_bytes = bytes(values)? as u64;
        Ok(())
    };
    "aof-use-rdb-preamble" "yes|no" LIVE "Begin a rewritten log with a snapshot instead of commands", |config| yes_no(config.aof.has_rdb_preamble), |config, values| {
        config.aof.has_rdb_preamble = boolean(values)?;
        Ok(())
    };
    "aof-load-truncated" "yes|no" LIVE "Load a log whose end was cut off, as far as it goes, instead of refusing it", |config| yes_no(config.aof.loads_truncated), |config, values| {
        config.aof.loads_truncated = boolean(values)?;
        Ok(())
    };
    "no-appendfsync-on-rewrite" "yes|no" LIVE "Bring nothing to disk once a second while the log is rewritten", |config| yes_no(config.aof.no_fsync_on_rewrite), |config, values| {
        config.aof.no_fsync_on_rewrite = boolean(values)?;
        Ok(())
    };
    "replicaof" "HOST PORT" AT_START "Follow another node; REPLICAOF changes it while the node runs", |config| {
        config.replicaof.as_ref().map(|address| format!("{} {}", address.host, address.port)).unwrap_or_default()
    }, |config, values| {
        let words: Vec<&str> = values.iter().flat_map(|value| value.split_whitespace()).collect();
        config.replicaof = match words[..] {
            [] | ["no" | "NO", "one" | "ONE"] => None,
            [host, port] => Some(PrimaryAddress { host: host.to_owned(), port: port.parse().map_err(|_| "a host and its port")? }),
            _ => return Err("a host and its port, such as 10.0.0.5 6379".to_owned()),
        };
        Ok(())
    };
    "role-changes" "yes|no" AT_START "Take REPLICAOF and FAILOVER from clients; no: from the controller of a cluster alone, as in one of 'cluster start'", |config| yes_no(config.takes_role_changes), |config, values| {
        config.takes_role_changes = boolean(values)?;
        Ok(())
    };
    "masterauth" "PASSWORD" LIVE "Password that the primary wants", |config| config.masterauth.clone().unwrap_or_default(), |config, values| {
        config.masterauth = text(values)?;
        Ok(())
    };
    "masteruser" "NAME" LIVE "User that the primary knows this node by", |config| config.masteruser.clone().unwrap_or_default(), |config, values| {
        config.masteruser = text(values)?;
        Ok(())
    };
    "replica-read-only" "yes" LIVE "Only yes: a replica's data is its primary's", |_| yes_no(true), |_, values| {
        if boolean(values)? { Ok(()) } else { Err("yes: what is written to a replica alone would be lost with the next sync".to_owned()) }
    };
    "replica-serve-stale-data" "yes|no" LIVE "Answer from what there is while the primary is away", |config| yes_no(config.replica_serve_stale_data), |config, values| {
        config.replica_serve_stale_data = boolean(values)?;
        Ok(())
    };
    "replica-priority" "NUMBER" LIVE "Sentinel promotes the lowest; 0 for never", |config| config.replica_priority.to_string(), |config, values| {
        config.replica_priority = number(values, 0, i64::from(i32::MAX))? as u32;
        Ok(())
    };
    "replica-announce-ip" "ADDRESS" LIVE "Address under which others reach this replica", |config| config.replica_announce_ip.clone().unwrap_or_default(), |config, values| {
        config.replica_announce_ip = text(values)?;
        Ok(())
    };
    "replica-announce-port" "PORT" LIVE "Port under which others reach this replica; 0 for its own", |config| config.replica_announce_port.unwrap_or(0).to_string(), |config, values| {
        config.replica_announce_port = Some(number(values, 0, 65_535)? as u16).filter(|port| *port > 0);
        Ok(())
    };
    "repl-diskless-sync" "yes|no" LIVE "Send snapshots to replicas as they are made; no: from a file", |config| yes_no(config.repl_diskless_sync), |config, values| {
        config.repl_diskless_sync = boolean(values)?;
        Ok(())
    };
    "repl-backlog-size" "SIZE" AT_START "Bytes of the stream kept for replicas that come back", |config| config.repl_backlog_size.to_string(), |config, values| {
        config.repl_backlog_size = bytes(values).ok().filter(|size| *size >= 16 * 1024).ok_or("a size of at least 16kb")?;
        Ok(())
    };
    "repl-timeout" "SECONDS" LIVE "A primary or replica silent for so long is given up", |config| config.repl_timeout.as_secs().to_string(), |config, values| {
        config.repl_timeout = Duration::from_secs(number(values, 1, i64::from(i32::MAX))? as u64);
        Ok(())
    };
    "repl-ping-replica-period" "SECONDS" LIVE "How often replicas are pinged", |config| config.repl_ping_replica_period.as_secs().to_string(), |config, values| {
        config.repl_ping_replica_period = Duration::from_secs(number(values, 1, i64::from(i32::MAX))? as u64);
        Ok(())
    };
    "min-replicas-to-write" "COUNT" LIVE "Refuse writes with fewer replicas; 0 for never", |config| config.min_replicas_to_write.to_string(), |config, values| {
        config.min_replicas_to_write = number(values, 0, 1_000)? as usize;
        Ok(())
    };
    "min-replicas-max-lag" "SECONDS" LIVE "A replica silent for longer does not count; 0 for any", |config| config.min_replicas_max_lag.to_string(), |config, values| {
        config.min_replicas_max_lag = number(values, 0, i64::from(i32::MAX))? as u64;
        Ok(())
    };
    "sync-replicas" "any|all" LIVE "With durability sync: a write must be on one replica (or on disk), or on every one. Under Sentinels, which may promote any of them: all",
    |config| if config.sync_needs_all_replicas { "all" } else { "any" }.to_owned(), |config, values| {
        config.sync_needs_all_replicas = match one(values, "a word")? {
            "any" => false,
            "all" => true,
            _ => return Err("any or all".to_owned()),
        };
        Ok(())
    };
    "sync-grace" "SECONDS" LIVE "With sync-replicas all: a replica that went away or is silent counts for so long", |config| config.sync_grace.as_secs().to_string(), |config, values| {
        config.sync_grace = Duration::from_secs(number(values, 1, 600)? as u64);
        Ok(())
    };
    "daemonize" "no" AT_START "Only no: a supervisor keeps the node running", |_| yes_no(false), |_, values| {
        if boolean(values)? { Err("no: run it under systemd or another supervisor".to_owned()) } else { Ok(()) }
    };
};

/// Spans of a request are 32 bits wide, so one request stays below 4 GB with room to spare.
const MAX_BULK_BYTES: usize = 512 * 1024 * 1024;
const MAX_QUERY_BYTES: usize = 2 * 1024 * 1024 * 1024;

fn one<'a>(values: &[&'a str], expected: &str) -> Result<&'a str, Expected> {
    match values {
        [value] => Ok(value),
        _ => Err(expected.to_owned()),
    }
}

/// A text, or none.
fn text(values: &[&str]) -> Result<Option<String>, Expected> {
    let text = one(values, "a text, or \"\" for none")?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn number(values: &[&str], min: i64, max: i64) -> Result<i64, Expected> {
    let expected = format!("a number from {min} to {max}");
    one(values, &expected)?.parse().ok().filter(|number| (min..=max).contains(number)).ok_or(expected)
}

/// Three quarters of the small entries that shards can tell apart (`keyspace/arena`): keys are not spread evenly, and between entries is room
/// that is free.
const MAXMEMORY_MAX: usize = 192 << 30;

fn bytes(values: &[&str]) -> Result<usize, Expected> {
    let expected = "a size such as 268435456, 256mb or 1gb";
    size::parse(one(values, expected)?).ok_or_else(|| expected.to_owned())
}

/// A name that stays in its folder.
fn file_name(values: &[&str]) -> Result<String, Expected> {
    let expected = "a name without a path, such as appendonly.aof";
    let name = one(values, expected)?;
    let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0', '\n']);
    if is_name { Ok(name.to_owned()) } else { Err(expected.to_owned()) }
}

fn boolean(values: &[&str]) -> Result<bool, Expected> {
    match one(values, "yes or no")?.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("yes or no".to_owned()),
    }
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn address(text: &str) -> Option<IpAddr> {
    // A leading minus means "if the machine has it" in redis.conf.
    match text.strip_prefix('-').unwrap_or(text) {
        "*" => Some(IpAddr::from([0, 0, 0, 0])),
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        other => other.parse().ok(),
    }
}

/// One or more; a text of CONFIG SET may hold several.
fn addresses(values: &[&str]) -> Result<Vec<IpAddr>, Expected> {
    let words = values.iter().flat_map(|value| value.split_whitespace());
    let addresses: Option<Vec<IpAddr>> = words.map(address).collect();
    addresses.filter(|list| !list.is_empty()).ok_or_else(|| "one or more IP addresses, such as 127.0.0.1 or ::1".to_owned())
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn duration(seconds: i64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds as u64))
}

fn seconds(duration: Option<Duration>) -> String {
    duration.unwrap_or_default().as_secs().to_string()
}

#[cfg(test)]
mod tests {
    use super::DIRECTIVES;
    use crate::Config;

    #[test]
    fn what_get_prints_set_takes() {
        let mut config = Config::default();
        for directive in DIRECTIVES {
            let value = (directive.get)(&config);
            let outcome = config.set(directive.name, &[&value]);
            assert!(outcome.is_ok(), "{}: {outcome:?}", directive.name);
            assert_eq!((directive.get)(&config), value, "{}", directive.name);
        }
    }

    #[test]
    fn more_memory_than_a_node_can_tell_apart_is_refused() {
        let mut config = Config::default();
        assert!(config.set("maxmemory", &["192gb"]).is_ok());
        let error = config.set("maxmemory", &["193gb"]).expect_err("too much").to_string();
        assert!(error.contains("192gb at the most"), "{error}");
        assert_eq!(config.maxmemory, 192 << 30);
    }
}
