//! The replicas the balancer knows, and which of them is next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::balancer::limits::EXCHANGES_PER_REPLICA_MAX;
use crate::balancer::status::{ReplicaStatus, State};

/// One replica: its name stays, its process and even its address may change.
#[derive(Debug)]
pub(crate) struct Replica {
    name: String,
    place: RwLock<Place>,
    requests: AtomicU64,
    probe_timeouts: AtomicU32,
    exchanges: Arc<Semaphore>,
    probe_wanted: Notify,
    silence: Notify,
    announces: bool,
}

/// Where a replica is now, and whether requests may go there.
#[derive(Debug, Clone, Copy)]
struct Place {
    address: Option<SocketAddr>,
    pid: Option<u32>,
    state: State,
}

impl Replica {
    /// A replica of which nothing is known yet: it gets requests after its first good probe, or `set_ready`.
    pub(crate) fn at(name: &str, address: SocketAddr) -> Self {
        Self { announces: true, ..Self::supervised(name) }.with_address(address)
    }

    /// A replica whose supervisor tells where it is, and tells the operator of its deaths.
    pub(crate) fn supervised(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            place: RwLock::new(Place { address: None, pid: None, state: State::Starting }),
            requests: AtomicU64::new(0),
            probe_timeouts: AtomicU32::new(0),
            exchanges: Arc::new(Semaphore::new(EXCHANGES_PER_REPLICA_MAX)),
            probe_wanted: Notify::new(),
            silence: Notify::new(),
            announces: false,
        }
    }

    fn with_address(self, address: SocketAddr) -> Self {
        self.place.write().address = Some(address);
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.place.read().address
    }

    pub(crate) fn is_up(&self) -> bool {
        self.place.read().state == State::Up
    }

    /// A supervisor's word that the process listens: no need to wait for the next probe.
    pub(crate) fn set_ready(&self, address: SocketAddr, pid: u32) {
        self.probe_timeouts.store(0, Ordering::Relaxed);
        *self.place.write() = Place { address: Some(address), pid: Some(pid), state: State::Up };
    }

    /// A supervisor's word that the process is gone.
    pub(crate) fn set_gone(&self) {
        let mut place = self.place.write();
        place.state = State::Down;
        place.pid = None;
    }

    /// Notes a good probe of `address`.
    pub(crate) fn mark_up(&self, address: SocketAddr) {
        self.probe_timeouts.store(0, Ordering::Relaxed);
        let mut place = self.place.write();
        // The answer may be of a process that was replaced while it came.
        let news = place.address == Some(address) && place.state != State::Up;
        if news {
            place.state = State::Up;
            if self.announces {
                tracing::info!(replica = self.name, %address, "up");
            }
        }
    }

    /// Notes that `address` refuses to serve.
    pub(crate) fn mark_down(&self, address: SocketAddr) {
        self.mark_lost(address, State::Down, "down: it refuses connections");
    }

    /// Notes that `address` takes connections and answers nothing: its process hangs.
    pub(crate) fn mark_silent(&self, address: SocketAddr) {
        self.mark_lost(address, State::Silent, "not answering");
        self.silence.notify_waiters();
    }

    fn mark_lost(&self, address: SocketAddr, state: State, news: &str) {
        let mut place = self.place.write();
        let was_up = place.state == State::Up;
        // One that was never up stays what it is: it may be starting.
        let is_known = was_up || place.state == State::Silent;
        if place.address == Some(address) && is_known {
            place.state = state;
            if was_up && self.announces {
                tracing::info!(replica = self.name, %address, "{news}");
            }
        }
    }

    /// Resolves with the next probe by which the process hangs; there is one after the other as long as it does.
    pub(crate) async fn silence(&self) {
        self.silence.notified().await;
    }

    /// Notes a probe that timed out; returns how many did so in a row.
    pub(crate) fn count_probe_timeout(&self) -> u32 {
        self.probe_timeouts.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Counts one request that is about to be sent.
    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks for a probe now, because an exchange broke.
    pub(crate) fn want_probe(&self) {
        self.probe_wanted.notify_one();
    }

    /// Resolves when somebody asked for a probe.
    pub(crate) async fn probe_wanted(&self) {
        self.probe_wanted.notified().await;
    }

    /// A place among the exchanges of this replica, if one is free.
    pub(crate) fn try_exchange(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.exchanges).try_acquire_owned().ok()
    }

    /// A place among the exchanges of this replica, when one becomes free. The caller bounds the wait.
    pub(crate) async fn exchange(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.exchanges).acquire_owned().await.ok()
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        let place = *self.place.read();
        ReplicaStatus {
            name: self.name.clone(),
            pid: place.pid,
            address: place.address.map(|address| address.to_string()).unwrap_or_default(),
            state: place.state,
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

/// All replicas, in the order of their names, and the turn.
#[derive(Debug)]
pub(crate) struct ReplicaSet {
    replicas: Vec<Arc<Replica>>,
    turn: AtomicUsize,
}

impl ReplicaSet {
    pub(crate) fn new(replicas: Vec<Arc<Replica>>) -> Self {
        Self { replicas, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.replicas.iter()
    }

    /// Whether one is up that is not in `tried`.
    pub(crate) fn has_other(&self, tried: &[Arc<Replica>]) -> bool {
        self.replicas.iter().any(|replica| replica.is_up() && !tried.iter().any(|one| Arc::ptr_eq(one, replica)))
    }

    /// The next replica in turn among those that are up and not in `tried`.
    ///
    /// The turn goes over the candidates and not over the whole list: otherwise the one after a dead replica would get
    /// a double share. O(number of replicas).
    pub(crate) fn next(&self, tried: &[Arc<Replica>]) -> Option<Arc<Replica>> {
        let candidates =
            || self.replicas.iter().filter(|replica| replica.is_up() && !tried.iter().any(|one| Arc::ptr_eq(one, replica)));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let place = turn.checked_rem(candidates().count())?;
        // A candidate may have gone down since it was counted; the first one then is as good as any.
        candidates().nth(place).or_else(|| candidates().next()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use crate::balancer::replicas::{Replica, ReplicaSet};

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn set_of(names: &[&str]) -> ReplicaSet {
        let replicas = names.iter().zip(1..).map(|(name, port)| {
            let replica = Replica::supervised(name);
            replica.set_ready(address(port), 1);
            Arc::new(replica)
        });
        ReplicaSet::new(replicas.collect())
    }

    fn turns(set: &ReplicaSet, count: usize) -> Vec<String> {
        (0..count).filter_map(|_| set.next(&[])).map(|replica| replica.name().to_owned()).collect()
    }

    #[test]
    fn each_in_turn() {
        assert_eq!(turns(&set_of(&["A", "B", "C"]), 6), ["A", "B", "C", "A", "B", "C"]);
    }

    #[test]
    fn a_dead_replica_leaves_equal_shares_to_the_others() {
        let set = set_of(&["A", "B", "C"]);
        set.iter().nth(1).expect("three replicas").mark_down(address(2));
        let turns = turns(&set, 100);
        assert_eq!(turns.iter().filter(|name| *name == "A").count(), 50);
        assert_eq!(turns.iter().filter(|name| *name == "C").count(), 50);
    }

    #[test]
    fn none_is_given_twice_and_none_when_all_are_down() {
        let set = set_of(&["A", "B"]);
        let mut tried = Vec::new();
        while let Some(replica) = set.next(&tried) {
            tried.push(replica);
        }
        assert_eq!(tried.len(), 2);
        for replica in set.iter() {
            replica.set_gone();
        }
        assert!(set.next(&[]).is_none());
    }

    #[test]
    fn news_of_an_old_address_change_nothing() {
        let replica = Replica::supervised("A");
        replica.set_ready(address(2), 7);
        replica.mark_down(address(1));
        assert!(replica.is_up());
        replica.set_gone();
        replica.mark_up(address(1));
        assert!(!replica.is_up());
    }
}
