//! The state of a node at one moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    command::table::TABLE,
    config::Config,
    keyspace::{Now, Totals},
    node::{EventCounts, Hindrance, Shared},
    persistence::SaveReport,
    replication::{Link, LinkState, ReplicaState},
    stats::{self, CommandTotals},
    usage,
    webhook::{Tallies, TargetCounts},
};

/// What is told of one replica.
#[derive(Clone, Debug)]
pub(super) struct ReplicaSample {
    pub(super) address: String,
    pub(super) is_online: bool,
    pub(super) lag: Duration,
    pub(super) confirmed_offset: u64,
}

/// Everything that `/metrics` tells.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) now: Now,
    pub(super) started: Now,
    pub(super) run_id: String,
    pub(super) config: Arc<Config>,
    pub(super) keyspace: Totals,
    /// In the order of the table.
    pub(super) commands: Vec<CommandTotals>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) connections: u64,
    pub(super) rejected_connections: u64,
    pub(super) failed_authentications: u64,
    pub(super) denied_commands: u64,
    pub(super) denied_keys: u64,
    pub(super) denied_channels: u64,
    pub(super) clients: usize,
    pub(super) subscribers: usize,
    pub(super) in_transaction: usize,
    pub(super) channels: usize,
    pub(super) patterns: usize,
    pub(super) scripts: usize,
    pub(super) is_loading: bool,
    pub(super) takes_writes: bool,
    pub(super) is_ready: bool,
    pub(super) save: SaveReport,
    pub(super) log: LogSample,
    /// `None`: it is a primary.
    pub(super) link: Option<Link>,
    pub(super) replicas: Vec<ReplicaSample>,
    pub(super) offset: u64,
    /// Capacity, and the offset where it begins.
    pub(super) backlog: Option<(usize, u64)>,
    pub(super) syncs_full: u64,
    pub(super) syncs_partial: u64,
    pub(super) syncs_partial_refused: u64,
    pub(super) threads: usize,
    pub(super) engine_seconds: Option<f64>,
    pub(super) processor_seconds: Option<(f64, f64)>,
    pub(super) resident_bytes: Option<usize>,
    pub(super) events: EventCounts,
    pub(super) webhooks: Vec<TargetCounts>,
}

/// What is told of the append-only log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogSample {
    pub(super) is_rewriting: bool,
    pub(super) was_last_write_good: bool,
    pub(super) was_last_rewrite_good: bool,
    pub(super) rewrites: u64,
    /// `None`: there is no log.
    pub(super) kept: Option<KeptLog>,
}

/// A log that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptLog {
    pub(super) bytes: u64,
    pub(super) base_bytes: u64,
    pub(super) syncs: u64,
    pub(super) delayed_syncs: u64,
    /// Bytes of the stream that it does not have yet.
    pub(super) waiting_bytes: u64,
}

impl Sample {
    /// Takes one. Waits for the shards' locks, one after the other.
    pub(super) fn take(shared: &Shared, now: Now) -> Sample {
        let keyspace = shared.keyspace.totals();
        let (bytes_in, bytes_out) = stats::bytes(&shared.workers);
        let (mut subscribers, mut in_transaction) = (0, 0);
        shared.clients.for_each(|entry| {
            subscribers += usize::from(entry.is_subscriber());
            in_transaction += usize::from(entry.is_in_transaction.load(Ordering::Relaxed));
        });
        let replication = &shared.replication;
        let replicas = replication.replicas.all().into_iter().map(|replica| ReplicaSample {
            address: format!("{}:{}", replica.hints.address(replica.client.address.ip()), replica.hints.listening_port),
            is_online: replica.state() == ReplicaState::Online,
            lag: replica.lag(now),
            confirmed_offset: replica.confirmed(),
        });
        let seconds: Vec<f64> = shared.workers.iter().filter_map(stats::WorkerStats::processor_seconds).collect();
        Sample {
            now,
            started: shared.started,
            run_id: shared.run_id.clone(),
            config: shared.config(),
            keyspace,
            commands: (0..TABLE.len()).map(|index| stats::command_totals(&shared.workers, index)).collect(),
            bytes_in,
            bytes_out,
            errors: shared.errors.snapshot(),
            connections: shared.counters.connections.load(Ordering::Relaxed),
            rejected_connections: shared.counters.rejected_connections.load(Ordering::Relaxed),
            failed_authentications: shared.counters.failed_authentications.load(Ordering::Relaxed),
            denied_commands: shared.counters.denied_commands.load(Ordering::Relaxed),
            denied_keys: shared.counters.denied_keys.load(Ordering::Relaxed),
            denied_channels: shared.counters.denied_channels.load(Ordering::Relaxed),
            clients: shared.clients.len(),
            subscribers,
            in_transaction,
            channels: shared.pubsub.channel_count(),
            patterns: shared.pubsub.patterns(),
            scripts: shared.scripts.len(),
            is_loading: shared.gate.has(Hindrance::Loading),
            takes_writes: !shared.gate.has(Hindrance::Loading) && shared.gate.refusal_of_write().is_none(),
            is_ready: super::ready::obstacle(shared).is_none(),
            save: shared.saver.report(),
            log: LogSample::take(shared),
            link: replication.primary().map(|_| replication.link()),
            replicas: replicas.collect(),
            offset: shared.journal.offset(),
            backlog: shared.journal.backlog(),
            syncs_full: replication.counters.sync_full.load(Ordering::Relaxed),
            syncs_partial: replication.counters.sync_partial_ok.load(Ordering::Relaxed),
            syncs_partial_refused: replication.counters.sync_partial_err.load(Ordering::Relaxed),
            threads: shared.workers.len(),
            engine_seconds: (!seconds.is_empty()).then(|| seconds.iter().sum()),
            processor_seconds: usage::processor_seconds(),
            resident_bytes: usage::resident_bytes(),
            events: shared.events.counts(),
            webhooks: shared.webhooks.get().map_or_else(Vec::new, Tallies::counts),
        }
    }

    pub(super) fn is_primary(&self) -> bool {
        self.link.is_none()
    }

    /// The link to the primary, if it is up.
    pub(super) fn link_up(&self) -> Option<&Link> {
        self.link.as_ref().filter(|link| link.state == LinkState::Connected)
    }
}

impl LogSample {
    fn take(shared: &Shared) -> LogSample {
        let log = &shared.log;
        let journal = &shared.journal;
        let kept = log.is_kept.load(Ordering::Acquire).then(|| KeptLog {
            bytes: log.bytes.load(Ordering::Relaxed),
            base_bytes: log.base_bytes.load(Ordering::Relaxed),
            syncs: log.syncs.load(Ordering::Relaxed),
            delayed_syncs: log.delayed_syncs.load(Ordering::Relaxed),
            waiting_bytes: journal.offset().saturating_sub(journal.barrier.written_offset()),
        });
        LogSample {
            is_rewriting: log.is_rewriting.load(Ordering::Acquire),
            was_last_write_good: log.was_last_write_good.load(Ordering::Acquire),
            was_last_rewrite_good: log.was_last_rewrite_good.load(Ordering::Acquire),
            rewrites: log.rewrites.load(Ordering::Relaxed),
            kept,
        }
    }
}
