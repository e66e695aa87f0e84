//! The metrics that are one number.

use std::time::Duration;

use crate::{
    metrics::{
        format::Number,
        row::{Row, rows},
        sample::{KeptLog, Sample},
    },
    stats::CommandTotals,
    usage,
};

#[rustfmt::skip]
pub(super) static ROWS: &[Row] = rows! {
    "process_start_time" Gauge Seconds "" "", |s| real(s.started.unix_ms as f64 / 1000.0), "Unix time at which the node started.";
    "cache_node_uptime" Gauge Seconds "" "uptime_in_seconds", |s| whole(s.now.unix_ms.saturating_sub(s.started.unix_ms) / 1000), "Seconds since the node started.";
    "cache_node_ready" Gauge Things "" "", |s| flag(s.is_ready), "Whether /readyz says that the node does what it is there for.";
    "cache_node_writes_accepted" Gauge Things "" "", |s| flag(s.takes_writes), "Whether a write would be taken now; 0 on replicas, while loading, and while the disk or replicas that durability needs are missing.";
    "cache_node_loading" Gauge Things "" "loading", |s| flag(s.is_loading), "Whether the node is loading its data.";

    "process_cpu" Counter Seconds "CPUUtilization" "used_cpu_sys + used_cpu_user", |s| s.processor_seconds.map(|(user, system)| Number::Real(user + system)), "Processor time of the process.";
    "cache_node_engine_cpu" Counter Seconds "EngineCPUUtilization" "", |s| s.engine_seconds.map(Number::Real), "Processor time of the threads that serve connections; divide its rate by cache_node_engine_threads.";
    "cache_node_engine_threads" Gauge Things "" "", |s| whole(s.threads), "Threads that serve connections.";
    "process_open_fds" Gauge Things "" "", |_| usage::open_files().and_then(whole), "Open files and sockets.";
    "process_max_fds" Gauge Things "" "", |_| usage::open_files_max().and_then(whole), "Files and sockets that may be open.";

    "cache_node_memory_used" Gauge Bytes "BytesUsedForCache" "used_memory", |s| whole(s.keyspace.used_bytes), "Memory that keys and values take, as maxmemory counts it.";
    "cache_node_memory_max" Gauge Bytes "" "maxmemory", |s| whole(s.config.maxmemory), "maxmemory; 0 for no limit.";
    "cache_node_memory_used" Gauge Ratio "DatabaseMemoryUsagePercentage" "", |s| ratio(s.keyspace.used_bytes as f64, s.config.maxmemory as f64), "Share of maxmemory in use, from 0 to 1; absent without a limit.";
    "cache_node_memory_mapped" Gauge Bytes "" "allocator_active", |s| whole(s.keyspace.mapped_bytes), "Memory that the pages of keys and values take from the system.";
    "process_resident_memory" Gauge Bytes "" "used_memory_rss", |s| s.resident_bytes.and_then(whole), "Memory of the process that is in RAM.";
    "cache_node_memory_fragmentation" Gauge Ratio "MemoryFragmentationRatio" "mem_fragmentation_ratio", |s| s.resident_bytes.and_then(|bytes| real(bytes as f64 / s.keyspace.used_bytes.max(1) as f64)), "Memory of the process that is in RAM, divided by memory used.";
    "cache_node_swap_used" Gauge Bytes "SwapUsage" "", |_| usage::swapped_bytes().and_then(whole), "Memory of the process that was swapped out.";
    "cache_node_machine_memory_available" Gauge Bytes "FreeableMemory" "", |_| usage::machine_available_bytes().and_then(whole), "Memory of the machine that can be taken without swapping.";

    "cache_node_connected_clients" Gauge Things "CurrConnections" "connected_clients", |s| whole(s.clients), "Connections.";
    "cache_node_max_clients" Gauge Things "" "maxclients", |s| whole(s.config.maxclients), "Connections that there may be.";
    "cache_node_pubsub_clients" Gauge Things "" "pubsub_clients", |s| whole(s.subscribers), "Connections that subscribe.";
    "cache_node_clients_in_transaction" Gauge Things "" "clients_in_transaction", |s| whole(s.in_transaction), "Connections between MULTI and EXEC.";
    "cache_node_connections_received" Counter Things "NewConnections" "total_connections_received", |s| whole(s.connections), "Connections that were accepted.";
    "cache_node_connections_rejected" Counter Things "" "rejected_connections", |s| whole(s.rejected_connections), "Connections that were refused for maxclients.";
    "cache_node_auth_failures" Counter Things "AuthenticationFailures" "acl_access_denied_auth", |s| whole(s.failed_authentications), "AUTH and HELLO with a wrong name or password.";
    "cache_node_command_denials" Counter Things "CommandAuthorizationFailures" "acl_access_denied_cmd", |s| whole(s.denied_commands), "Requests whose user may not run the command.";
    "cache_node_key_denials" Counter Things "KeyAuthorizationFailures" "acl_access_denied_key", |s| whole(s.denied_keys), "Requests whose user may not touch a key.";
    "cache_node_channel_denials" Counter Things "ChannelAuthorizationFailures" "acl_access_denied_channel", |s| whole(s.denied_channels), "Requests whose user may not use a channel.";
    "cache_node_net_input" Counter Bytes "NetworkBytesIn" "total_net_input_bytes", |s| whole(s.bytes_in), "Bytes that clients sent.";
    "cache_node_net_output" Counter Bytes "NetworkBytesOut" "total_net_output_bytes", |s| whole(s.bytes_out), "Bytes that clients were sent.";

    "cache_node_commands_processed" Counter Things "" "total_commands_processed", |s| whole(s.commands.iter().map(CommandTotals::calls).sum::<u64>()), "Commands that ran.";
    "cache_node_keyspace_hits" Counter Things "CacheHits" "keyspace_hits", |s| whole(s.keyspace.counters.hits), "Reads that found their key.";
    "cache_node_keyspace_misses" Counter Things "CacheMisses" "keyspace_misses", |s| whole(s.keyspace.counters.misses), "Reads that found no key.";
    "cache_node_keyspace_hit" Gauge Ratio "CacheHitRate" "", |s| ratio(s.keyspace.counters.hits as f64, (s.keyspace.counters.hits + s.keyspace.counters.misses) as f64), "Share of reads that found their key since the start; absent before the first. Over a time: from the rates of hits and misses.";
    "cache_node_evicted_keys" Counter Things "Evictions" "evicted_keys", |s| whole(s.keyspace.counters.evicted), "Keys that went for maxmemory.";
    "cache_node_expired_keys" Counter Things "Reclaimed" "expired_keys", |s| whole(s.keyspace.counters.expired), "Keys whose time to live ended.";
    "cache_node_pubsub_channels" Gauge Things "" "pubsub_channels", |s| whole(s.channels), "Channels with subscribers.";
    "cache_node_pubsub_patterns" Gauge Things "" "pubsub_patterns", |s| whole(s.patterns), "Patterns with subscribers.";
    "cache_node_cached_scripts" Gauge Things "" "number_of_cached_scripts", |s| whole(s.scripts), "Scripts that are kept for EVALSHA.";

    "cache_node_rdb_save_in_progress" Gauge Things "SaveInProgress" "rdb_bgsave_in_progress", |s| flag(s.save.is_running), "Whether a snapshot is being written.";
    "cache_node_rdb_last_save_ok" Gauge Things "" "rdb_last_bgsave_status", |s| flag(s.save.error.is_none()), "Whether the last snapshot was written.";
    "cache_node_rdb_last_save_timestamp" Gauge Seconds "" "rdb_last_save_time", |s| whole(s.save.last_save), "Unix time of the last snapshot, or of the start.";
    "cache_node_rdb_last_save_duration" Gauge Seconds "" "rdb_last_bgsave_time_sec", |s| s.save.last_took.as_ref().map(Duration::as_secs_f64).and_then(real), "Time that the last snapshot took; absent before the first.";
    "cache_node_rdb_saves" Counter Things "" "rdb_saves", |s| whole(s.save.saves), "Snapshots that were written.";
    "cache_node_rdb_changes_since_last_save" Gauge Things "" "rdb_changes_since_last_save", |s| whole(s.keyspace.counters.changes.saturating_sub(s.save.changes_saved)), "Writes that no snapshot has.";
    "cache_node_aof_enabled" Gauge Things "" "aof_enabled", |s| flag(s.config.appendonly), "Whether the append-only log is on.";
    "cache_node_aof_last_write_ok" Gauge Things "" "aof_last_write_status", |s| flag(s.log.was_last_write_good), "Whether the log could be written the last time.";
    "cache_node_aof_last_rewrite_ok" Gauge Things "" "aof_last_bgrewrite_status", |s| flag(s.log.was_last_rewrite_good), "Whether the last rewrite of the log succeeded.";
    "cache_node_aof_rewrite_in_progress" Gauge Things "" "aof_rewrite_in_progress", |s| flag(s.log.is_rewriting), "Whether the log is being rewritten.";
    "cache_node_aof_rewrites" Counter Things "" "aof_rewrites", |s| whole(s.log.rewrites), "Rewrites of the log.";
    "cache_node_aof_size" Gauge Bytes "" "aof_current_size", |s| log(s, |log| log.bytes), "Bytes of the log; absent without one, as the next four.";
    "cache_node_aof_base_size" Gauge Bytes "" "aof_base_size", |s| log(s, |log| log.base_bytes), "Bytes of the log after its last rewrite.";
    "cache_node_aof_buffer" Gauge Bytes "" "aof_buffer_length", |s| log(s, |log| log.waiting_bytes), "Bytes that are still to be written to the log.";
    "cache_node_aof_fsyncs" Counter Things "" "aof_fsyncs", |s| log(s, |log| log.syncs), "Times that the log was brought to disk.";
    "cache_node_aof_delayed_fsyncs" Counter Things "" "aof_delayed_fsync", |s| log(s, |log| log.delayed_syncs), "Times that this took more than two seconds.";

    "cache_node_is_primary" Gauge Things "IsMaster" "role", |s| flag(s.is_primary()), "1 on a primary, 0 on a replica.";
    "cache_node_replication_offset" Gauge Bytes "ReplicationBytes" "master_repl_offset", |s| whole(s.offset), "Bytes of the replication stream so far; its rate is what each replica is sent.";
    "cache_node_connected_replicas" Gauge Things "" "connected_slaves", |s| whole(s.replicas.len()), "Replicas that are connected here.";
    "cache_node_primary_link_up" Gauge Things "" "master_link_status", |s| s.link.as_ref().and_then(|_| flag(s.link_up().is_some())), "Whether the link to the primary is up; absent on primaries, as the next two.";
    "cache_node_primary_link_down" Gauge Seconds "" "master_link_down_since_seconds", |s| s.link.as_ref().and_then(|link| if s.link_up().is_some() { whole(0_u64) } else { since(s, link.down_since_ms) }), "Seconds since the link to the primary went down; 0 while it is up.";
    "cache_node_replication_lag" Gauge Seconds "ReplicationLag" "master_last_io_seconds_ago", |s| s.link_up().and_then(|link| since(s, link.last_io_ms)), "Seconds since something came from the primary, which sends at least a ping each repl-ping-replica-period; absent while the link is down.";
    "cache_node_replication_backlog_size" Gauge Bytes "" "repl_backlog_size", |s| whole(s.backlog.map_or(s.config.repl_backlog_size, |(size, _)| size)), "Bytes of the stream that are kept for replicas which come back.";
    "cache_node_replication_backlog_used" Gauge Bytes "" "repl_backlog_histlen", |s| whole(s.backlog.map_or(0, |(_, start)| s.offset.saturating_sub(start))), "Bytes of the stream that are kept now.";
    "cache_node_replication_full_syncs" Counter Things "" "sync_full", |s| whole(s.syncs_full), "Replicas that were sent a snapshot.";
    "cache_node_replication_partial_syncs" Counter Things "" "sync_partial_ok", |s| whole(s.syncs_partial), "Replicas that went on where they had stopped.";
    "cache_node_replication_partial_syncs_refused" Counter Things "" "sync_partial_err", |s| whole(s.syncs_partial_refused), "Replicas that wanted to go on and could not.";
};

fn whole(value: impl TryInto<u64>) -> Option<Number> {
    value.try_into().ok().map(Number::Whole)
}

fn real(value: f64) -> Option<Number> {
    Some(Number::Real(value))
}

fn flag(is_set: bool) -> Option<Number> {
    Some(Number::Whole(u64::from(is_set)))
}

/// `None` where there is nothing to divide by.
fn ratio(part: f64, whole: f64) -> Option<Number> {
    (whole > 0.0).then(|| Number::Real(part / whole))
}

fn since(sample: &Sample, unix_ms: u64) -> Option<Number> {
    real(sample.now.unix_ms.saturating_sub(unix_ms) as f64 / 1000.0)
}

fn log(sample: &Sample, read: fn(&KeptLog) -> u64) -> Option<Number> {
    sample.log.kept.as_ref().map(|log| Number::Whole(read(log)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ROWS;

    const PAGE: &str = include_str!("../../watching/metrics.md");

    /// The checklist, less what has no meaning on a machine of one's own.
    const CLOUDWATCH: [&str; 31] = [
        "EngineCPUUtilization",
        "CPUUtilization",
        "FreeableMemory",
        "SwapUsage",
        "BytesUsedForCache",
        "DatabaseMemoryUsagePercentage",
        "MemoryFragmentationRatio",
        "CacheHits",
        "CacheMisses",
        "CacheHitRate",
        "CurrItems",
        "CurrVolatileItems",
        "Evictions",
        "Reclaimed",
        "CurrConnections",
        "NewConnections",
        "TrafficManagementActive",
        "ReplicationLag",
        "ReplicationBytes",
        "IsMaster",
        "SaveInProgress",
        "SuccessfulReadRequestLatency",
        "SuccessfulWriteRequestLatency",
        "AuthenticationFailures",
        "CommandAuthorizationFailures",
        "KeyAuthorizationFailures",
        "NetworkBytesIn",
        "NetworkBytesOut",
        "GetTypeCmds",
        "SetTypeCmds",
        "GetTypeCmdsLatency",
    ];

    #[test]
    fn the_page_has_every_row_as_it_is() {
        let quoted = |name: &str| if name.is_empty() { String::new() } else { format!("`{name}`") };
        let missing: Vec<String> = ROWS
            .iter()
            .map(|row| format!("| `{}` | {} | {} | {} |", row.series(), quoted(row.info), row.cloudwatch, row.help))
            .filter(|line| !PAGE.lines().any(|known| known == line))
            .collect();
        assert!(missing.is_empty(), "watching/metrics.md lacks:\n{}", missing.join("\n"));
    }

    #[test]
    fn the_page_says_of_every_metric_of_the_checklist_what_it_is_here() {
        let cells: BTreeSet<&str> = PAGE.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('|')).collect();
        let words: BTreeSet<&str> = cells.iter().flat_map(|cell| cell.split(',')).map(str::trim).collect();
        let missing: Vec<&&str> = CLOUDWATCH.iter().filter(|name| !words.contains(**name)).collect();
        assert!(missing.is_empty(), "watching/metrics.md lacks {missing:?}");
    }

    #[test]
    fn names_are_different_and_in_prometheus_style() {
        let names: BTreeSet<String> = ROWS.iter().map(super::Row::series).collect();
        assert_eq!(names.len(), ROWS.len(), "a name stands twice");
        for row in ROWS {
            assert!(row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", row.name);
            assert!(row.help.ends_with('.') && !row.help.contains('|'), "{}", row.name);
        }
    }
}
