//! Replication: who follows whom, in Redis's own protocol. A node is a primary or follows one; either way others may follow it.

mod failover;
mod link;
mod position;
mod primary;
mod replicas;
mod sync;
mod wait;
mod wire;

use failover::Failover;
pub(crate) use failover::{FailoverRequest, FailoverState};
use link::LinkError;
pub(crate) use link::start as start_link;
pub(crate) use position::{Position, PositionFields};
pub(crate) use primary::serve as serve_replica;
pub(crate) use replicas::{Replica, ReplicaState, Replicas};
pub(crate) use sync::{Hints, SyncRequest};
pub(crate) use wait::{Deposed, Wait, WaitFor, wait};

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::{
    config::Config,
    keyspace::{Keys, Now},
    node::{EventKind, Hindrance, Shared},
    protocol::{Args, encode_request},
};

/// How long a replica may confirm nothing and still be one that `durability sync` counts on. Then the log takes its place, if there is one.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Where a primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrimaryAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// How far the link to the primary is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// It is to be tried.
    #[default]
    Connect,
    Connecting,
    Handshake,
    /// A snapshot is being received.
    Sync,
    Connected,
}

impl LinkState {
    /// As ROLE names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LinkState::Connect => "connect",
            LinkState::Connecting => "connecting",
            LinkState::Handshake => "handshake",
            LinkState::Sync => "sync",
            LinkState::Connected => "connected",
        }
    }
}

/// The names of the stream: two nodes that know it by the same name and offset have the same data.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    /// 40 hexadecimal digits.
    pub(crate) id: String,
    /// The name before the last promotion, and the offset up to which it holds.
    pub(crate) former: Option<(String, u64)>,
}

/// Link to the primary, as INFO tells it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(crate) state: LinkState,
    /// When something last came, Unix milliseconds.
    pub(crate) last_io_ms: u64,
    /// Since when it is down, Unix milliseconds.
    pub(crate) down_since_ms: u64,
    /// Bytes of the snapshot that have come.
    pub(crate) sync_bytes: u64,
}

/// Events since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sync_full: AtomicU64,
    pub(crate) sync_partial_ok: AtomicU64,
    pub(crate) sync_partial_err: AtomicU64,
}

impl Counters {
    /// CONFIG RESETSTAT.
    pub(crate) fn reset(&self) {
        for counter in [&self.sync_full, &self.sync_partial_ok, &self.sync_partial_err] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Where a role as primary ended whose writes a replica had confirmed by then, all of them.
#[derive(Clone, Copy, Debug)]
struct HandedOver {
    epoch: u64,
    offset: u64,
}

/// A node's replication.
///
/// Its mutexes are locked behind shards and never before them.
#[derive(Debug)]
pub(crate) struct Replication {
    ids: Mutex<Ids>,
    primary: Mutex<Option<PrimaryAddress>>,
    /// Told when the primary is another one, or the node ends.
    changed: Condvar,
    /// Counts changes of the primary. What comes over the link of an earlier one is not applied any more: it is compared with shards
    /// locked, and changed with all of them locked.
    epoch: AtomicU64,
    link: Mutex<Link>,
    /// A snapshot of the primary is on its way, or did not arrive whole: what was here before is gone from memory.
    lacks_data: AtomicBool,
    failover: Mutex<Failover>,
    handed_over: Mutex<Option<HandedOver>>,
    /// The database that the stream of the primary has selected.
    stream_db: AtomicUsize,
    pub(crate) replicas: Replicas,
    /// Told when a replica has confirmed more.
    pub(crate) acknowledged: Notify,
    pub(crate) counters: Counters,
    last_ping_ms: AtomicU64,
    /// The stream's offset when replicas were last asked to confirm.
    asked_at: AtomicU64,
    /// Held while the gate is set by what is so: what was read before a change is not to be told behind it. Locked before the other
    /// mutexes.
    judging: Mutex<()>,
}

impl Replication {
    pub(crate) fn new(primary: Option<PrimaryAddress>, now: Now) -> Replication {
        Replication {
            ids: Mutex::new(Ids { id: new_id(), former: None }),
            primary: Mutex::new(primary),
            changed: Condvar::new(),
            epoch: AtomicU64::new(0),
            link: Mutex::new(Link { last_io_ms: now.unix_ms, down_since_ms: now.unix_ms, ..Link::default() }),
            lacks_data: AtomicBool::new(false),
            failover: Mutex::default(),
            handed_over: Mutex::default(),
            stream_db: AtomicUsize::new(0),
            replicas: Replicas::default(),
            acknowledged: Notify::new(),
            counters: Counters::default(),
            last_ping_ms: AtomicU64::new(now.unix_ms),
            asked_at: AtomicU64::new(0),
            judging: Mutex::new(()),
        }
    }

    /// Whom this node follows; `None`: it is a primary.
    pub(crate) fn primary(&self) -> Option<PrimaryAddress> {
        self.primary.lock().clone()
    }

    pub(crate) fn ids(&self) -> Ids {
        self.ids.lock().clone()
    }

    pub(crate) fn link(&self) -> Link {
        *self.link.lock()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether what was written before `offset`, in the role of `epoch`, is this node's still, or with whom it has given that role to.
    pub(crate) fn keeps(&self, epoch: u64, offset: u64) -> bool {
        self.epoch() == epoch || self.handed_over.lock().is_some_and(|over| over.epoch == epoch && offset <= over.offset)
    }

    pub(crate) fn stream_db(&self) -> usize {
        self.stream_db.load(Ordering::Relaxed)
    }

    /// The database that the stream of the primary has selected, if one is followed.
    pub(crate) fn followed_db(&self) -> Option<usize> {
        self.primary.lock().is_some().then(|| self.stream_db())
    }

    pub(crate) fn set_stream_db(&self, db: usize) {
        self.stream_db.store(db, Ordering::Relaxed);
    }

    fn change_link(&self, change: impl FnOnce(&mut Link)) {
        change(&mut self.link.lock());
    }

    fn change_sync_bytes(&self, count: usize) {
        self.link.lock().sync_bytes += count as u64;
    }

    /// Whether there is neither the data of before a sync nor that of the primary. What is on disk then stays as it is.
    pub(crate) fn lacks_data(&self) -> bool {
        self.lacks_data.load(Ordering::Acquire)
    }

    pub(crate) fn set_lacks_data(&self, lacks_data: bool) {
        self.lacks_data.store(lacks_data, Ordering::Release);
    }

    /// Whether this node has a primary's stream that it can hand on.
    fn has_stream(&self) -> bool {
        self.link().state == LinkState::Connected
    }

    /// Opens the backlog for replicas, if there is none yet. With every shard locked. The stream gets a new name then: what was written
    /// before is in no stream, so nobody can go on from an offset of it.
    pub(crate) fn open_backlog(&self, shared: &Shared) {
        if shared.journal.backlog().is_none() {
            shared.journal.open_backlog(shared.config().repl_backlog_size);
            if self.primary().is_none() {
                let id = new_id();
                shared.journal.name(&id);
                *self.ids.lock() = Ids { id, former: None };
            }
        }
    }

    /// Follows another node, or none, and has CONFIG REWRITE write that. `keys` have every shard locked.
    pub(crate) fn take_role(&self, shared: &Shared, keys: &mut Keys<'_>, primary: Option<PrimaryAddress>, now: Now) {
        self.follow(shared, keys, primary.clone(), now);
        let changed = shared.change_config(|config| {
            config.replicaof = primary;
            Ok(())
        });
        // Nothing in it can be wrong.
        drop(changed);
    }

    fn follow(&self, shared: &Shared, keys: &mut Keys<'_>, primary: Option<PrimaryAddress>, now: Now) {
        let mut current = self.primary.lock();
        if *current == primary {
            return;
        }
        let was_replica = current.is_some();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        // Nobody confirms any more what was written until now.
        self.acknowledged.notify_waiters();
        shared.keyspace.follow(primary.is_some());
        match &primary {
            Some(address) => {
                shared.tell(EventKind::BecameReplica, format!("following a primary: {}:{}", address.host, address.port));
                self.change_link(|link| {
                    *link = Link { last_io_ms: now.unix_ms, down_since_ms: now.unix_ms, ..Link::default() };
                });
            }
            None if was_replica => {
                shared.tell(EventKind::BecamePrimary, "following nobody: this node is a primary now");
                // What replicas have up to here holds under both names.
                let mut ids = self.ids.lock();
                let former = std::mem::replace(&mut ids.id, new_id());
                ids.former = Some((former, shared.journal.offset()));
                shared.journal.name(&ids.id);
                shared.journal.forget_database();
                if self.lacks_data.swap(false, Ordering::AcqRel) {
                    // A part of a snapshot is no data. The log still has what was here before: from here on it is gone there as well.
                    keys.flush_all().drop_aside();
                    keys.record(&[b"FLUSHALL"]);
                    // No client waits for it.
                    let _offset = keys.commit();
                    shared.journal.log_goes_on();
                    // It may wait for data to begin with.
                    shared.journal.call_log();
                }
                shared.gate.set(Hindrance::Loading, false);
            }
            None => {}
        }
        *current = primary;
        drop(current);
        // They ask again and learn the name under which the stream goes on.
        self.replicas.close_all();
        self.replicas.forget_departed();
        self.judge(shared, now);
        self.changed.notify_all();
    }

    /// The link's thread waits here until there is a primary to follow. `None` when the node ends.
    fn wait_for_primary(&self, shared: &Shared) -> Option<(PrimaryAddress, u64)> {
        const LOOK: Duration = Duration::from_millis(200);
        let mut primary = self.primary.lock();
        loop {
            if shared.is_stopping.load(Ordering::Acquire) {
                return None;
            }
            if let Some(address) = &*primary {
                return Some((address.clone(), self.epoch()));
            }
            self.changed.wait_for(&mut primary, LOOK);
        }
    }

    /// Waits for `pause`, or until the primary is another one.
    fn pause(&self, epoch: u64, pause: Duration) {
        let mut primary = self.primary.lock();
        if self.epoch() == epoch {
            self.changed.wait_for(&mut primary, pause);
        }
    }

    /// The stream now is that of the primary, under its name. `offset`: behind a snapshot, and everything starts anew there.
    fn adopt(&self, shared: &Shared, id: &str, offset: Option<u64>) {
        let mut ids = self.ids.lock();
        match offset {
            Some(offset) => {
                *ids = Ids { id: id.to_owned(), former: None };
                shared.journal.restart_at(offset);
                self.asked_at.store(0, Ordering::Relaxed);
            }
            None if ids.id != id => {
                let former = std::mem::replace(&mut ids.id, id.to_owned());
                ids.former = Some((former, shared.journal.offset()));
            }
            None => return,
        }
        shared.journal.name(&ids.id);
        drop(ids);
        self.replicas.close_all();
    }

    /// Whether a replica that knows the stream by `id` can go on at `offset`.
    fn can_go_on(&self, shared: &Shared, id: &str, offset: u64) -> bool {
        let ids = self.ids.lock();
        let is_known = ids.id == id || ids.former.as_ref().is_some_and(|(former, end)| former == id && offset <= *end);
        is_known && shared.journal.read_from(offset, 1).is_some()
    }

    /// Sends a PUBLISH of a client to the subscribers of replicas. One that a replica was sent goes no further, as in Redis.
    pub(crate) fn hand_on_message(&self, shared: &Shared, request: Args<'_>) {
        if !self.replicas.is_empty() && !shared.keyspace.is_follower() {
            let mut bytes = Vec::new();
            encode_request(&mut bytes, request.iter());
            shared.journal.append_raw(&bytes, false);
        }
    }

    /// Asks replicas to confirm what they have, if they do not by themselves and were not asked since the last write.
    pub(crate) fn ask_to_confirm(&self, shared: &Shared) {
        let offset = shared.journal.offset();
        if self.primary.lock().is_some() || !self.replicas.any_must_be_asked() || self.asked_at.load(Ordering::Relaxed) >= offset
        {
            return;
        }
        let mut request = Vec::new();
        encode_request(&mut request, [b"REPLCONF".as_slice(), b"GETACK", b"*"].into_iter());
        let behind = shared.journal.append_raw(&request, false);
        self.asked_at.store(behind, Ordering::Relaxed);
    }

    /// Bytes that may wait for a replica. What the backlog keeps anyway costs nothing more, as in Redis.
    pub(crate) fn replica_bytes_max(&self, config: &Config) -> u64 {
        match config.replica_buffer_limit.hard {
            0 => u64::MAX,
            hard => hard.max(config.repl_backlog_size) as u64,
        }
    }

    /// What is done now and then: PING for replicas, those that are silent closed, writes allowed or not.
    pub(crate) fn tick(&self, shared: &Shared, now: Now) {
        let config = shared.config();
        if !self.replicas.is_empty() {
            let since = now.unix_ms.saturating_sub(self.last_ping_ms.load(Ordering::Relaxed));
            let is_handing_over = self.failover_state() != FailoverState::None;
            let may_ping = !is_handing_over && self.primary.lock().is_none();
            if may_ping && since >= config.repl_ping_replica_period.as_millis() as u64 {
                self.last_ping_ms.store(now.unix_ms, Ordering::Relaxed);
                let mut request = Vec::new();
                encode_request(&mut request, [b"PING".as_slice()].into_iter());
                shared.journal.append_raw(&request, false);
            }
            let silence_max =
                if config.sync_needs_all_replicas { config.sync_grace.min(config.repl_timeout) } else { config.repl_timeout };
            self.replicas.close_silent(now, silence_max);
            self.replicas.close_slow(shared.journal.offset(), self.replica_bytes_max(&config), config.replica_buffer_limit, now);
        }
        self.judge(shared, now);
        shared.pause.tick(&shared.gate, now);
        self.continue_failover(shared);
    }

    /// Opens and closes the gate for what the role and the replicas allow.
    pub(crate) fn judge(&self, shared: &Shared, now: Now) {
        let _one_at_a_time = self.judging.lock();
        let config: &Config = &shared.config();
        let is_replica = self.primary.lock().is_some();
        let gate = &shared.gate;
        gate.set(Hindrance::ReadOnly, is_replica);
        let is_stale = is_replica && !config.replica_serve_stale_data && self.link().state != LinkState::Connected;
        gate.set(Hindrance::Stale, is_stale);
        let wanted = config.min_replicas_to_write;
        let has_too_few =
            wanted > 0 && !is_replica && self.replicas.good_count(now, Duration::from_secs(config.min_replicas_max_lag)) < wanted;
        gate.set(Hindrance::TooFewReplicas, has_too_few);
        let misses_one = config.sync_needs_all_replicas && self.replicas.misses_one(now);
        shared.journal.set_replicas(self.replicas.good_count(now, SILENCE_MAX) + usize::from(misses_one));
        shared.look_for_safety();
        self.tell_safe(shared, config, now);
    }

    /// Tells the barrier what is on replicas: on one, or on every one, as `sync-replicas` says.
    fn tell_safe(&self, shared: &Shared, config: &Config, now: Now) {
        if !config.sync_needs_all_replicas || self.primary.lock().is_some() {
            return;
        }
        if let Some(offset) = self.replicas.safe_on_all(now) {
            shared.journal.barrier.replicated(offset);
        }
    }

    /// A replica has everything before `offset`.
    fn confirmed(&self, shared: &Shared, offset: u64, now: Now) {
        let config = shared.config();
        if config.sync_needs_all_replicas {
            self.tell_safe(shared, &config, now);
        } else {
            shared.journal.barrier.replicated(offset);
        }
        self.acknowledged.notify_waiters();
        self.continue_failover(shared);
    }

    /// Wakes the link's thread, so that it sees that the node ends.
    pub(crate) fn end(&self) {
        self.changed.notify_all();
    }
}

/// A node that was told in its configuration whom to follow begins to, once what it kept is loaded.
pub(crate) fn begin(shared: &Shared, now: Now) {
    let keys = shared.keyspace.lock_all(0, now, shared);
    shared.keyspace.follow(shared.replication.primary().is_some());
    drop(keys);
    shared.replication.judge(shared, now);
}

/// 40 random hexadecimal digits: the name of a stream, or of a run of a node.
pub(crate) fn new_id() -> String {
    (0..40).map(|_| char::from(b"0123456789abcdef"[rand::random_range(0..16)])).collect()
}
