//! What all connections of a node share.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::{
    acl::{Acl, User},
    config::{AppendFsync, Config, ConfigError, DurabilityMode},
    keyspace::{Change, ChangeSink, Keyspace, Now, Record},
    logging,
    node::{
        Clients, Durability, EventKind, Events, Gate, Hindrance, Journal, Loading, LogState, Notifier, Pause, PubSub, SlowLog,
        Topic, Tracking,
    },
    persistence::{LogWriter, Saver},
    replication::{self, Replication},
    script::ScriptCache,
    stats::{ErrorStats, WorkerStats},
    usage,
    webhook::Tallies,
};

/// Counters that no hot path touches.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) rejected_connections: AtomicU64,
    /// Those of them that `maxclients` had no place for.
    pub(crate) turned_away: AtomicU64,
    /// Requests, transactions and commands of scripts that `maxmemory` had no room for.
    pub(crate) out_of_memory: AtomicU64,
    /// AUTH and HELLO with a wrong name or password.
    pub(crate) failed_authentications: AtomicU64,
    /// Requests whose user may not run the command.
    pub(crate) denied_commands: AtomicU64,
    /// Those whose user may not touch a key.
    pub(crate) denied_keys: AtomicU64,
    /// Those whose user may not use a channel.
    pub(crate) denied_channels: AtomicU64,
}

impl Counters {
    /// `maxmemory` had no room.
    pub(crate) fn count_out_of_memory(&self) {
        self.out_of_memory.fetch_add(1, Ordering::Relaxed);
    }

    /// CONFIG RESETSTAT, which leaves failed logins and what users may not do as they are, as in Redis.
    pub(crate) fn reset(&self) {
        self.connections.store(0, Ordering::Relaxed);
        self.rejected_connections.store(0, Ordering::Relaxed);
        self.turned_away.store(0, Ordering::Relaxed);
        self.out_of_memory.store(0, Ordering::Relaxed);
    }
}

/// A node's shared state.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) keyspace: Keyspace,
    pub(crate) acl: Acl,
    pub(crate) clients: Clients,
    pub(crate) pubsub: Arc<PubSub>,
    pub(crate) notifier: Notifier,
    pub(crate) tracking: Tracking,
    pub(crate) journal: Journal,
    pub(crate) gate: Gate,
    pub(crate) pause: Pause,
    pub(crate) saver: Saver,
    pub(crate) log: LogState,
    pub(crate) log_writer: LogWriter,
    pub(crate) loading: Loading,
    pub(crate) replication: Replication,
    pub(crate) scripts: ScriptCache,
    pub(crate) errors: ErrorStats,
    pub(crate) slow_log: SlowLog,
    pub(crate) counters: Counters,
    pub(crate) events: Events,
    /// What became of events, once webhooks are told.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody reads it"))]
    pub(crate) webhooks: OnceLock<Tallies>,
    pub(crate) workers: Box<[WorkerStats]>,
    pub(crate) started: Now,
    /// 40 hexadecimal digits, new at every start.
    pub(crate) run_id: String,
    pub(crate) address: SocketAddr,
    /// Where `/metrics` is, if it is anywhere.
    pub(crate) metrics_address: OnceLock<SocketAddr>,
    /// Whether connections are served by io_uring.
    pub(crate) has_rings: AtomicBool,
    pub(crate) is_stopping: AtomicBool,
    /// Told when a client asks the node to end: SHUTDOWN.
    pub(crate) asked_to_end: Notify,
    /// Whether a last snapshot is to be taken: not after SHUTDOWN NOSAVE.
    pub(crate) saves_at_end: AtomicBool,
    config: RwLock<Arc<Config>>,
    /// Counts changes of the configuration: a worker looks at this number once per batch and not at the lock.
    config_version: AtomicU64,
    changing_config: Mutex<()>,
}

impl Shared {
    pub(crate) fn new(config: Config, address: SocketAddr, now: Now) -> Shared {
        let pubsub = Arc::new(PubSub::default());
        let shared = Shared {
            keyspace: Keyspace::new(config.databases),
            acl: Acl::new(config.requirepass.as_deref()),
            clients: Clients::default(),
            notifier: Notifier::new(Arc::clone(&pubsub)),
            tracking: Tracking::default(),
            pubsub,
            journal: Journal::default(),
            gate: Gate::default(),
            pause: Pause::default(),
            saver: Saver::new(now),
            log: LogState::default(),
            log_writer: LogWriter::default(),
            loading: Loading::default(),
            replication: Replication::new(config.replicaof.clone(), now),
            scripts: ScriptCache::default(),
            errors: ErrorStats::default(),
            slow_log: SlowLog::default(),
            counters: Counters::default(),
            events: Events::new(Some(name(&config, address))),
            webhooks: OnceLock::new(),
            workers: (0..config.io_threads.max(1)).map(|_| WorkerStats::new()).collect(),
            started: now,
            run_id: replication::new_id(),
            address,
            metrics_address: OnceLock::new(),
            has_rings: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            asked_to_end: Notify::new(),
            saves_at_end: AtomicBool::new(true),
            config: RwLock::new(Arc::new(config)),
            config_version: AtomicU64::new(0),
            changing_config: Mutex::new(()),
        };
        shared.loading.begin(now, 0);
        shared.follow_config();
        shared
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    pub(crate) fn config_version(&self) -> u64 {
        self.config_version.load(Ordering::Acquire)
    }

    /// Applies `change` to a copy of the configuration and puts it in place, if all of it is right.
    pub(crate) fn change_config(&self, change: impl FnOnce(&mut Config) -> Result<(), ConfigError>) -> Result<(), ConfigError> {
        let _one_at_a_time = self.changing_config.lock();
        let before = self.config();
        let mut config = Config::clone(&before);
        change(&mut config)?;
        if config.requirepass != before.requirepass {
            self.acl.require(config.requirepass.as_deref());
        }
        *self.config.write() = Arc::new(config);
        self.follow_config();
        self.config_version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Something happened to the node. Waits for no client and no receiver, and may be called with anything locked.
    pub(crate) fn tell(&self, kind: EventKind, text: impl Into<String>) {
        self.events.add_paced(kind, text);
    }

    /// Ends the node: workers answer what has arrived and stop.
    pub(crate) fn end(&self, saves: bool) {
        self.saves_at_end.store(saves, Ordering::Release);
        if !self.is_stopping.swap(true, Ordering::AcqRel) {
            self.events.tell_held(true);
            self.tell(EventKind::NodeStopping, "the node ends");
        }
        self.clients.close_all();
        self.saver.end();
        self.replication.end();
        self.asked_to_end.notify_one();
    }

    /// Ends the connections of a user that subscribe to what it may not subscribe to any more, but for the connection `me`: whether it is one
    /// of them.
    pub(crate) fn end_subscribers(&self, user: &User, me: u64) -> bool {
        self.pubsub.close_where(me, |entry, topic| {
            entry.user() == user.id
                && !match topic {
                    Topic::Channel(name) => user.permits_channel(name, false),
                    Topic::Pattern(name) => user.permits_channel(name, true),
                }
        })
    }

    /// Looks whether there is a place where writes can be safe; called when the log or a replica comes or goes.
    pub(crate) fn look_for_safety(&self) {
        let needs_place = self.config().aof.durability == DurabilityMode::Sync;
        let has_place = self.log.is_kept.load(Ordering::Acquire) || self.journal.barrier.has_replicas();
        self.gate.set(Hindrance::NowhereSafe, needs_place && !has_place);
    }

    fn follow_config(&self) {
        let config = self.config();
        self.journal.barrier.promise(match config.aof.durability {
            DurabilityMode::Sync if config.waits_for_replica() => Durability::Replica,
            DurabilityMode::Sync => Durability::ReplicaOrDisk,
            DurabilityMode::Async if config.aof.fsync == AppendFsync::Always => Durability::Disk,
            DurabilityMode::Async => Durability::Written,
            DurabilityMode::None => Durability::Memory,
        });
        self.look_for_safety();
        logging::follow(&config.loglevel);
        // The log's own thread follows as well.
        self.journal.call_log();
        self.keyspace.clock().follow(config.maxmemory_policy);
        self.notifier.follow(config.notify_keyspace_events, config.pubsub_buffer_limit);
        self.tracking.follow(config.pubsub_buffer_limit);
        self.journal.hold_at_most(self.replication.replica_bytes_max(&config));
        self.saver.follow_config(&config, &self.gate);
    }
}

/// What the node is called in its events: the address that it announces, or else its host's name, since many listen on 127.0.0.1 or on all.
fn name(config: &Config, address: SocketAddr) -> String {
    let host = config.replica_announce_ip.clone().or_else(usage::hostname).unwrap_or_else(|| address.ip().to_string());
    format!("{host}:{}", config.replica_announce_port.unwrap_or(address.port()))
}

/// Changes go to whoever watches the channels, and as requests to the stream.
impl ChangeSink for Shared {
    fn take(&self, change: Change<'_>) {
        self.notifier.take(change);
        self.tracking.take(change);
    }

    fn take_flush(&self) {
        self.tracking.take_flush();
    }

    fn wants_records(&self) -> bool {
        self.journal.is_wanted()
    }

    fn record(&self, record: &Record) -> u64 {
        self.journal.append(record)
    }
}
