//! INFO: the node's state as Redis prints it. Clients gate on `redis_version` and parse by field name.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    command::{Context, table::TABLE},
    keyspace::Keys,
    node::Hindrance,
    replication::{LinkState, ReplicaState},
    stats, usage,
};

/// Sections of a plain INFO, in Redis's order.
const DEFAULT_SECTIONS: [&str; 9] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cpu", "errorstats", "keyspace"];

/// Those that must be asked for by name, or with `all` or `everything`.
const OTHER_SECTIONS: [&str; 2] = ["commandstats", "latencystats"];

/// The text for the sections asked for; all of the default ones when none is.
pub(crate) fn render(ctx: &Context<'_>, keys: &mut Keys<'_>, asked: &[String]) -> String {
    let wants_all = asked.iter().any(|section| section == "all" || section == "everything");
    let wants_default = asked.is_empty() || asked.iter().any(|section| section == "default");
    let mut text = String::new();
    for section in DEFAULT_SECTIONS.iter().chain(&OTHER_SECTIONS) {
        let is_default = DEFAULT_SECTIONS.contains(section);
        if wants_all || (wants_default && is_default) || asked.iter().any(|name| name == section) {
            if !text.is_empty() {
                text += "\r\n";
            }
            text += &render_section(ctx, keys, section);
        }
    }
    text
}

fn render_section(ctx: &Context<'_>, keys: &mut Keys<'_>, section: &str) -> String {
    match section {
        "server" => server(ctx),
        "clients" => clients(ctx),
        "memory" => memory(ctx, keys),
        "persistence" => persistence(ctx, keys),
        "stats" => statistics(ctx, keys),
        "replication" => replication(ctx),
        "cpu" => cpu(),
        "commandstats" => command_stats(ctx),
        "latencystats" => latency_stats(ctx),
        "errorstats" => error_stats(ctx),
        _ => keyspace(ctx, keys),
    }
}

fn lines(title: &str, fields: &[(&str, String)]) -> String {
    let mut text = format!("# {title}\r\n");
    for (name, value) in fields {
        write!(text, "{name}:{value}\r\n").expect("writing to a String cannot fail");
    }
    text
}

fn server(ctx: &Context<'_>) -> String {
    let uptime = ctx.now.unix_ms.saturating_sub(ctx.shared.started.unix_ms) / 1000;
    let mut fields = vec![
        ("redis_version", crate::REDIS_VERSION.to_owned()),
        ("cache_node_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("os", std::env::consts::OS.to_owned()),
        ("arch_bits", usize::BITS.to_string()),
        ("multiplexing_api", multiplexing_api(ctx.shared.has_rings.load(Ordering::Acquire)).to_owned()),
        ("process_id", std::process::id().to_string()),
        ("run_id", ctx.shared.run_id.clone()),
        ("tcp_port", ctx.shared.address.port().to_string()),
        ("server_time_usec", (ctx.now.unix_ms * 1000).to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
        ("io_threads_active", u8::from(ctx.shared.workers.len() > 1).to_string()),
    ];
    if let Some(address) = ctx.shared.metrics_address.get() {
        fields.push(("metrics_port", address.port().to_string()));
    }
    lines("Server", &fields)
}

/// How the node hears of its sockets, in Redis's words.
fn multiplexing_api(has_rings: bool) -> &'static str {
    if has_rings {
        "io_uring"
    } else if cfg!(any(target_os = "linux", target_os = "android")) {
        "epoll"
    } else {
        "kqueue"
    }
}

fn clients(ctx: &Context<'_>) -> String {
    let (mut subscribers, mut in_transaction) = (0, 0);
    ctx.shared.clients.for_each(|entry| {
        subscribers += usize::from(entry.is_subscriber());
        in_transaction += usize::from(entry.is_in_transaction.load(Ordering::Relaxed));
    });
    let fields = [
        ("connected_clients", ctx.shared.clients.len().to_string()),
        ("maxclients", ctx.config.maxclients.to_string()),
        ("blocked_clients", "0".to_owned()),
        ("pubsub_clients", subscribers.to_string()),
        ("clients_in_transaction", in_transaction.to_string()),
    ];
    lines("Clients", &fields)
}

fn memory(ctx: &Context<'_>, keys: &Keys<'_>) -> String {
    let (mapped, used) = keys.mapped_and_used_bytes();
    let resident = usage::resident_bytes().unwrap_or(used);
    let fields = [
        ("used_memory", used.to_string()),
        ("used_memory_human", human(used)),
        ("used_memory_dataset", used.to_string()),
        ("used_memory_rss", resident.to_string()),
        ("used_memory_rss_human", human(resident)),
        ("allocator_active", mapped.to_string()),
        ("maxmemory", ctx.config.maxmemory.to_string()),
        ("maxmemory_human", human(ctx.config.maxmemory)),
        ("maxmemory_policy", ctx.config.maxmemory_policy.name().to_owned()),
        ("mem_fragmentation_ratio", format!("{:.2}", resident as f64 / used.max(1) as f64)),
        ("number_of_cached_scripts", ctx.shared.scripts.len().to_string()),
    ];
    lines("Memory", &fields)
}

fn human(bytes: usize) -> String {
    let units = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}

fn persistence(ctx: &Context<'_>, keys: &Keys<'_>) -> String {
    let report = ctx.shared.saver.report();
    let changes = keys.counters().changes.saturating_sub(report.changes_saved);
    let seconds = |time: Option<Duration>| time.map_or("-1".to_owned(), |time| time.as_secs().to_string());
    let (log, loading) = (&ctx.shared.log, &ctx.shared.loading);
    let number = |number: &AtomicU64| number.load(Ordering::Relaxed).to_string();
    let progress = ctx.shared.saver.progress();
    let status = |is_good: &AtomicBool| if is_good.load(Ordering::Acquire) { "ok" } else { "err" }.to_owned();
    let is_loading = ctx.shared.gate.has(Hindrance::Loading);
    let is_rewriting = log.is_rewriting.load(Ordering::Acquire);
    let began_ms = log.rewrite_began_ms.load(Ordering::Relaxed);
    let rewrite_seconds = if is_rewriting { (ctx.now.unix_ms.saturating_sub(began_ms) / 1000) as i64 } else { -1 };
    let mut fields = vec![
        ("loading", u8::from(is_loading).to_string()),
        ("async_loading", "0".to_owned()),
        ("current_cow_peak", "0".to_owned()),
        ("current_cow_size", "0".to_owned()),
        ("current_cow_size_age", "0".to_owned()),
        ("current_fork_perc", format!("{:.2}", percent(&progress.keys, &progress.keys_total))),
        ("current_save_keys_processed", number(&progress.keys)),
        ("current_save_keys_total", number(&progress.keys_total)),
        ("rdb_changes_since_last_save", changes.to_string()),
        ("rdb_bgsave_in_progress", u8::from(report.is_running).to_string()),
        ("rdb_last_save_time", report.last_save.to_string()),
        ("rdb_last_bgsave_status", if report.error.is_none() { "ok" } else { "err" }.to_owned()),
        ("rdb_last_bgsave_time_sec", seconds(report.last_took)),
        ("rdb_current_bgsave_time_sec", seconds(report.running_for)),
        ("rdb_saves", report.saves.to_string()),
        ("rdb_last_cow_size", "0".to_owned()),
        ("rdb_current_bgsave_bytes", if report.is_running { number(&progress.bytes) } else { "0".to_owned() }),
        ("rdb_last_load_keys_expired", report.keys_expired.to_string()),
        ("rdb_last_load_keys_loaded", report.keys_loaded.to_string()),
        ("aof_enabled", u8::from(ctx.config.appendonly).to_string()),
        ("aof_rewrite_in_progress", u8::from(is_rewriting).to_string()),
        ("aof_rewrite_scheduled", u8::from(log.is_rewrite_wanted() && !is_rewriting).to_string()),
        ("aof_last_rewrite_time_sec", log.last_rewrite_seconds.load(Ordering::Relaxed).to_string()),
        ("aof_current_rewrite_time_sec", rewrite_seconds.to_string()),
        ("aof_last_bgrewrite_status", status(&log.was_last_rewrite_good)),
        ("aof_rewrites", number(&log.rewrites)),
        ("aof_rewrites_consecutive_failures", number(&log.failed_rewrites_in_a_row)),
        ("aof_last_write_status", status(&log.was_last_write_good)),
        ("aof_last_cow_size", "0".to_owned()),
    ];
    if log.is_kept.load(Ordering::Acquire) {
        let waiting = ctx.shared.journal.offset().saturating_sub(ctx.shared.journal.barrier.written_offset());
        let pending = ctx.shared.journal.offset().saturating_sub(ctx.shared.journal.barrier.synced_offset());
        fields.extend([
            ("aof_current_size", number(&log.bytes)),
            ("aof_base_size", number(&log.base_bytes)),
            ("aof_pending_rewrite", "0".to_owned()),
            ("aof_buffer_length", waiting.to_string()),
            ("aof_pending_bio_fsync", u8::from(pending > 0).to_string()),
            ("aof_fsyncs", number(&log.syncs)),
            ("aof_delayed_fsync", number(&log.delayed_syncs)),
        ]);
    }
    if is_loading {
        fields.extend([
            ("loading_start_time", number(&loading.began)),
            ("loading_total_bytes", number(&loading.total_bytes)),
            ("loading_loaded_bytes", number(&loading.loaded_bytes)),
            ("loading_loaded_perc", format!("{:.2}", percent(&loading.loaded_bytes, &loading.total_bytes))),
        ]);
    }
    lines("Persistence", &fields)
}

/// How much is done of what there is to do; 0 while that is not known.
fn percent(done: &AtomicU64, total: &AtomicU64) -> f64 {
    match total.load(Ordering::Relaxed) {
        0 => 0.0,
        total => done.load(Ordering::Relaxed) as f64 * 100.0 / total as f64,
    }
}

fn statistics(ctx: &Context<'_>, keys: &mut Keys<'_>) -> String {
    let counters = keys.counters();
    let workers = &ctx.shared.workers;
    let (bytes_in, bytes_out) = stats::bytes(workers);
    let errors: u64 = ctx.shared.errors.snapshot().values().sum();
    let fields = [
        ("total_connections_received", ctx.shared.counters.connections.load(Ordering::Relaxed).to_string()),
        ("total_commands_processed", stats::calls(workers).to_string()),
        ("total_net_input_bytes", bytes_in.to_string()),
        ("total_net_output_bytes", bytes_out.to_string()),
        ("rejected_connections", ctx.shared.counters.rejected_connections.load(Ordering::Relaxed).to_string()),
        ("sync_full", ctx.shared.replication.counters.sync_full.load(Ordering::Relaxed).to_string()),
        ("sync_partial_ok", ctx.shared.replication.counters.sync_partial_ok.load(Ordering::Relaxed).to_string()),
        ("sync_partial_err", ctx.shared.replication.counters.sync_partial_err.load(Ordering::Relaxed).to_string()),
        ("expired_keys", counters.expired.to_string()),
        ("evicted_keys", counters.evicted.to_string()),
        ("keyspace_hits", counters.hits.to_string()),
        ("keyspace_misses", counters.misses.to_string()),
        ("pubsub_channels", ctx.shared.pubsub.channel_count().to_string()),
        ("pubsub_patterns", ctx.shared.pubsub.patterns().to_string()),
        ("acl_access_denied_auth", ctx.shared.counters.failed_authentications.load(Ordering::Relaxed).to_string()),
        ("acl_access_denied_cmd", ctx.shared.counters.denied_commands.load(Ordering::Relaxed).to_string()),
        ("acl_access_denied_key", ctx.shared.counters.denied_keys.load(Ordering::Relaxed).to_string()),
        ("acl_access_denied_channel", ctx.shared.counters.denied_channels.load(Ordering::Relaxed).to_string()),
        ("total_error_replies", errors.to_string()),
    ];
    lines("Stats", &fields)
}

fn replication(ctx: &Context<'_>) -> String {
    let shared = ctx.shared;
    let replication = &shared.replication;
    let now = ctx.now;
    let mut fields: Vec<(&str, String)> = Vec::new();
    let offset = shared.journal.offset();
    let seconds_since = |at_ms: u64| (now.unix_ms.saturating_sub(at_ms) / 1000).to_string();
    match replication.primary() {
        None => fields.push(("role", "master".to_owned())),
        Some(primary) => {
            let link = replication.link();
            let is_up = link.state == LinkState::Connected;
            let is_syncing = link.state == LinkState::Sync;
            fields.extend([
                ("role", "slave".to_owned()),
                ("master_host", primary.host),
                ("master_port", primary.port.to_string()),
                ("master_link_status", if is_up { "up" } else { "down" }.to_owned()),
                ("master_last_io_seconds_ago", if is_up { seconds_since(link.last_io_ms) } else { "-1".to_owned() }),
                ("master_sync_in_progress", u8::from(is_syncing).to_string()),
                ("slave_read_repl_offset", offset.to_string()),
                ("slave_repl_offset", offset.to_string()),
            ]);
            if replication.lacks_data() {
                fields.push(("master_sync_incomplete", "1".to_owned()));
            }
            if is_syncing {
                let total = &shared.loading.total_bytes;
                let left = total.load(Ordering::Relaxed).saturating_sub(link.sync_bytes);
                fields.push(("master_sync_total_bytes", total.load(Ordering::Relaxed).to_string()));
                fields.push(("master_sync_read_bytes", link.sync_bytes.to_string()));
                fields.push(("master_sync_left_bytes", left.to_string()));
                fields.push(("master_sync_perc", format!("{:.2}", percent(&AtomicU64::new(link.sync_bytes), total))));
                fields.push(("master_sync_last_io_seconds_ago", seconds_since(link.last_io_ms)));
            }
            if !is_up {
                fields.push(("master_link_down_since_seconds", seconds_since(link.down_since_ms)));
            }
            fields.extend([
                ("slave_priority", ctx.config.replica_priority.to_string()),
                ("slave_read_only", "1".to_owned()),
                ("replica_announced", "1".to_owned()),
            ]);
        }
    }
    let replicas = replication.replicas.all();
    fields.push(("connected_slaves", replicas.len().to_string()));
    if ctx.config.min_replicas_to_write > 0 && ctx.config.min_replicas_max_lag > 0 {
        let lag_max = Duration::from_secs(ctx.config.min_replicas_max_lag);
        fields.push(("min_slaves_good_slaves", replication.replicas.good_count(now, lag_max).to_string()));
    }
    let names: Vec<String> = (0..replicas.len()).map(|number| format!("slave{number}")).collect();
    for (name, replica) in names.iter().zip(&replicas) {
        let state = match replica.state() {
            ReplicaState::Online => "online",
            ReplicaState::Sync => "send_bulk",
        };
        let value = format!(
            "ip={},port={},state={state},offset={},lag={}",
            replica.hints.address(replica.client.address.ip()),
            replica.hints.listening_port,
            replica.confirmed(),
            replica.lag(now).as_secs()
        );
        fields.push((name, value));
    }
    let ids = replication.ids();
    let (former, second_offset) = match ids.former {
        // The first offset that does not hold under that name: they count from 1.
        Some((former, end)) => (former, (end + 1).to_string()),
        None => ("0".repeat(40), "-1".to_owned()),
    };
    let backlog = shared.journal.backlog();
    let (size, start) = backlog.unwrap_or((ctx.config.repl_backlog_size, offset));
    fields.extend([
        ("master_failover_state", replication.failover_state().name().to_owned()),
        ("master_replid", ids.id),
        ("master_replid2", former),
        ("master_repl_offset", offset.to_string()),
        ("second_repl_offset", second_offset),
        ("repl_backlog_active", u8::from(backlog.is_some()).to_string()),
        ("repl_backlog_size", size.to_string()),
        ("repl_backlog_first_byte_offset", backlog.map_or(0, |_| start + 1).to_string()),
        ("repl_backlog_histlen", (offset - start).to_string()),
    ]);
    lines("Replication", &fields)
}

fn cpu() -> String {
    let (user, system) = usage::processor_seconds().unwrap_or_default();
    lines("CPU", &[("used_cpu_sys", format!("{system:.6}")), ("used_cpu_user", format!("{user:.6}"))])
}

fn command_stats(ctx: &Context<'_>) -> String {
    let mut text = "# Commandstats\r\n".to_owned();
    for (index, spec) in TABLE.iter().enumerate() {
        let totals = stats::command_totals(&ctx.shared.workers, index);
        let (calls, microseconds) = (totals.calls(), totals.nanoseconds / 1000);
        let (rejected, failed) = (totals.rejected, totals.failed);
        if calls + rejected > 0 {
            let per_call = microseconds as f64 / calls.max(1) as f64;
            let name = spec.name.to_ascii_lowercase();
            write!(text, "cmdstat_{name}:calls={calls},usec={microseconds},usec_per_call={per_call:.2},rejected_calls={rejected},failed_calls={failed}\r\n")
                .expect("writing to a String cannot fail");
        }
    }
    text
}

/// Percentiles that Redis tells where nobody asks for others.
fn latency_stats(ctx: &Context<'_>) -> String {
    let mut text = "# Latencystats\r\n".to_owned();
    for (index, spec) in TABLE.iter().enumerate() {
        let totals = stats::command_totals(&ctx.shared.workers, index);
        let at = |percent| totals.percentile_us(percent);
        if let (Some(half), Some(most), Some(nearly_all)) = (at(50.0), at(99.0), at(99.9)) {
            let name = spec.name.to_ascii_lowercase();
            write!(text, "latency_percentiles_usec_{name}:p50={half:.3},p99={most:.3},p99.9={nearly_all:.3}\r\n")
                .expect("writing to a String cannot fail");
        }
    }
    text
}

fn error_stats(ctx: &Context<'_>) -> String {
    let counts = ctx.shared.errors.snapshot();
    // A script makes up what it likes, and whoever reads this takes it for a field of its own: Sentinel for the role.
    let safe = |prefix: &str| prefix.replace([':', '#', '\r', '\n'], "_");
    let fields: Vec<(String, String)> =
        counts.iter().map(|(prefix, count)| (format!("errorstat_{}", safe(prefix)), format!("count={count}"))).collect();
    let fields: Vec<(&str, String)> = fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    lines("Errorstats", &fields)
}

fn keyspace(ctx: &Context<'_>, keys: &mut Keys<'_>) -> String {
    let mut text = "# Keyspace\r\n".to_owned();
    let selected = keys.db();
    for db in 0..ctx.shared.keyspace.databases() {
        keys.select(db);
        let (total, volatile) = (keys.len(), keys.volatile_len());
        if total > 0 {
            write!(text, "db{db}:keys={total},expires={volatile},avg_ttl=0\r\n").expect("writing to a String cannot fail");
        }
    }
    keys.select(selected);
    text
}
