//! The replicas of a node.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    config::BufferLimit,
    keyspace::Now,
    node::{ClientEntry, Journal},
    replication::{Hints, PrimaryAddress},
};

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaState {
    /// It waits for its snapshot, or is being sent it.
    Sync,
    Online,
}

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) client: Arc<ClientEntry>,
    pub(crate) hints: Hints,
    is_online: AtomicBool,
    /// The offset that it is sent next; `u64::MAX` before its snapshot has one.
    position: AtomicU64,
    confirmed: AtomicU64,
    /// What it has on its own disk.
    synced: AtomicU64,
    /// When it last confirmed something, Unix milliseconds.
    confirmed_ms: AtomicU64,
    /// Since when more waits for it than the soft limit, Unix milliseconds; 0: no more does.
    slow_since_ms: AtomicU64,
}

impl Replica {
    pub(crate) fn new(client: Arc<ClientEntry>, hints: Hints, now: Now) -> Replica {
        Replica {
            client,
            hints,
            is_online: AtomicBool::new(false),
            position: AtomicU64::new(u64::MAX),
            confirmed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            confirmed_ms: AtomicU64::new(now.unix_ms),
            slow_since_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self) -> ReplicaState {
        if self.is_online.load(Ordering::Acquire) { ReplicaState::Online } else { ReplicaState::Sync }
    }

    /// Where it is, as others know it.
    pub(crate) fn place(&self) -> PrimaryAddress {
        PrimaryAddress { host: self.hints.address(self.client.address.ip()), port: self.hints.listening_port }
    }

    fn address(&self) -> String {
        let PrimaryAddress { host, port } = self.place();
        format!("{host}:{port}")
    }

    pub(super) fn come_online(&self, now: Now) {
        self.confirmed_ms.store(now.unix_ms, Ordering::Relaxed);
        self.is_online.store(true, Ordering::Release);
    }

    /// Stream's offset up to which it has applied everything.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    pub(super) fn confirm(&self, offset: u64, synced: Option<u64>, now: Now) {
        self.confirmed.fetch_max(offset, Ordering::AcqRel);
        if let Some(synced) = synced {
            self.synced.fetch_max(synced, Ordering::AcqRel);
        }
        self.confirmed_ms.store(now.unix_ms, Ordering::Relaxed);
    }

    /// Whether more than its limits is still to be sent to it, the stream ending at `end`: more than `bytes_max`, or for too long more than
    /// the soft limit.
    fn is_too_slow(&self, end: u64, bytes_max: u64, limit: BufferLimit, now: Now) -> bool {
        // Before its snapshot has begun nothing waits for it.
        let waiting = match self.position.load(Ordering::Acquire) {
            u64::MAX => 0,
            position => end.saturating_sub(position),
        };
        if limit.soft == 0 || waiting < limit.soft as u64 {
            self.slow_since_ms.store(0, Ordering::Relaxed);
        } else if let Err(since) = self.slow_since_ms.compare_exchange(0, now.unix_ms, Ordering::Relaxed, Ordering::Relaxed)
            && now.unix_ms.saturating_sub(since) > limit.soft_time.as_millis() as u64
        {
            return true;
        }
        waiting > bytes_max
    }

    /// Seconds since it last confirmed something.
    pub(crate) fn lag(&self, now: Now) -> Duration {
        Duration::from_millis(now.unix_ms.saturating_sub(self.confirmed_ms.load(Ordering::Relaxed)))
    }
}

/// All of them, by the number of their connection.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    list: Mutex<BTreeMap<u64, Arc<Replica>>>,
    /// Those that were online and went away: addresses, and when they are forgotten, Unix milliseconds. One may have been promoted,
    /// and others follow it soon: until then nothing is known to be where it will be kept.
    departed: Mutex<Vec<(String, u64)>>,
}

impl Replicas {
    pub(super) fn add(&self, replica: &Arc<Replica>) {
        self.list.lock().insert(replica.client.id, Arc::clone(replica));
    }

    /// `forgotten_at`: until when it still counts as one that must have everything, if it was online.
    pub(super) fn remove(&self, replica: &Replica, journal: &Journal, forgotten_at: Option<Now>) {
        // First: at no moment may it count neither as one that is here nor as one that went away.
        if let Some(at) = forgotten_at.filter(|_| replica.state() == ReplicaState::Online) {
            self.departed.lock().push((replica.address(), at.unix_ms));
        }
        self.list.lock().remove(&replica.client.id);
        self.hold(journal);
    }

    /// It is up to date: that it once went away does not matter any more.
    pub(super) fn came_back(&self, replica: &Replica) {
        let address = replica.address();
        self.departed.lock().retain(|(departed, _)| *departed != address);
    }

    /// Whether one that went away still counts.
    pub(super) fn misses_one(&self, now: Now) -> bool {
        let mut departed = self.departed.lock();
        departed.retain(|(_, at)| *at > now.unix_ms);
        !departed.is_empty()
    }

    /// The role is another one: nobody counts.
    pub(super) fn forget_departed(&self) {
        self.departed.lock().clear();
    }

    /// What every one has that is online; `None` while one that went away still counts.
    ///
    /// Looked for before, for one that comes back meanwhile, and behind, for one that goes away: it is missed before it is no longer asked
    /// for, so that whoever was not asked is missed in one of the two.
    pub(super) fn safe_on_all(&self, now: Now) -> Option<u64> {
        if self.misses_one(now) {
            return None;
        }
        let confirmed = {
            let list = self.list.lock();
            list.values().filter(|replica| replica.state() == ReplicaState::Online).map(|replica| replica.confirmed()).min()
        };
        confirmed.filter(|_| !self.misses_one(now))
    }

    /// The replica is sent everything from `offset` on; the stream keeps what the slowest one needs.
    pub(super) fn moved(&self, replica: &Replica, offset: u64, journal: &Journal) {
        replica.position.store(offset, Ordering::Release);
        self.hold(journal);
    }

    fn hold(&self, journal: &Journal) {
        let replicas = self.list.lock();
        let positions = replicas.values().map(|replica| replica.position.load(Ordering::Acquire));
        journal.hold_from(positions.min().filter(|position| *position != u64::MAX));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.list.lock().values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.lock().is_empty()
    }

    /// How many have applied everything before `offset`.
    pub(crate) fn count_at(&self, offset: u64) -> usize {
        self.list.lock().values().filter(|replica| replica.confirmed() >= offset).count()
    }

    /// How many have everything before `offset` on disk.
    pub(crate) fn count_synced_at(&self, offset: u64) -> usize {
        self.list.lock().values().filter(|replica| replica.synced.load(Ordering::Acquire) >= offset).count()
    }

    /// How many are online and confirmed something within `lag_max`, when that is not 0.
    pub(crate) fn good_count(&self, now: Now, lag_max: Duration) -> usize {
        let is_good = |replica: &&Arc<Replica>| {
            replica.state() == ReplicaState::Online && (lag_max.is_zero() || replica.lag(now).as_secs() <= lag_max.as_secs())
        };
        self.list.lock().values().filter(is_good).count()
    }

    pub(super) fn any_must_be_asked(&self) -> bool {
        self.list.lock().values().any(|replica| !replica.hints.confirms)
    }

    pub(super) fn close_all(&self) {
        self.list.lock().values().for_each(|replica| replica.client.outbox.close());
    }

    /// Closes those that take the stream too slowly: `client-output-buffer-limit`. They begin with a snapshot when they come back.
    pub(super) fn close_slow(&self, end: u64, bytes_max: u64, limit: BufferLimit, now: Now) {
        for replica in self.list.lock().values() {
            if replica.is_too_slow(end, bytes_max, limit, now) && !replica.client.outbox.is_closing() {
                tracing::warn!(replica = %replica.client.address, "closing a replica that is behind its client-output-buffer-limit");
                replica.client.outbox.close();
            }
        }
    }

    /// Closes those from which nothing came for too long.
    pub(super) fn close_silent(&self, now: Now, silence_max: Duration) {
        for replica in self.list.lock().values() {
            if replica.state() == ReplicaState::Online && replica.lag(now) > silence_max {
                tracing::warn!(replica = %replica.client.address, "closing a replica that is silent for longer than repl-timeout");
                replica.client.outbox.close();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{net::SocketAddr, thread};

    use super::{Arc, AtomicBool, ClientEntry, Hints, Now, Ordering, Replica, Replicas};
    use crate::{config::Config, node::Shared, server::now};

    #[test]
    fn one_that_goes_away_counts_at_every_moment() {
        const ROUNDS: u64 = 20_000;
        const HERE: u64 = 5;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let shared = Shared::new(Config::for_test(), nowhere, now());
        let replicas = Replicas::default();
        let online = |id: u64, confirmed: u64| {
            let client = Arc::new(ClientEntry::new(id, nowhere, nowhere, now()));
            let hints = Hints { listening_port: id as u16, ..Hints::default() };
            let replica = Arc::new(Replica::new(client, hints, now()));
            replica.confirm(confirmed, None, now());
            replicas.add(&replica);
            replica.come_online(now());
            replicas.came_back(&replica);
            replica
        };
        let later = Now { unix_ms: now().unix_ms + 1_000_000 };
        let is_over = AtomicBool::new(false);
        let _other = online(2, 100);
        let mut replica = online(1, HERE);
        thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut seen = [0, 0];
                while !is_over.load(Ordering::Relaxed) {
                    match replicas.safe_on_all(now()) {
                        None => seen[0] += 1,
                        Some(HERE) => seen[1] += 1,
                        Some(offset) => return Err(offset),
                    }
                }
                Ok(seen)
            });
            for _ in 0..ROUNDS {
                replicas.remove(&replica, &shared.journal, Some(later));
                replica = online(1, HERE);
            }
            is_over.store(true, Ordering::Relaxed);
            let seen = looking.join().unwrap().expect("it counts as one that is here or as one that went away");
            assert!(seen.iter().all(|times| *times > 0), "both were seen: {seen:?}");
        });
    }
}
