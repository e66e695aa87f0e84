//! What happened to the cluster: a ring that is read later, and a channel that is followed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::cluster::limits::{EVENTS_BEHIND_MAX, EVENTS_KEPT_MAX};

/// What kind of thing happened; the names are those of ElastiCache's notifications, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum EventKind {
    CreateReplicationGroupComplete,
    ControllerStarted,
    RemoveCacheNodeComplete,
    CacheNodesRebooted,
    ReplicationGroupIncreaseReplicaCountStarted,
    ReplicationGroupIncreaseReplicaCountFinished,
    CacheClusterScalingComplete,
    SnapshotComplete,
    SnapshotFailed,
    RestoreComplete,
    RestoreFailed,
    /// `sync` means the primary's own disk, since it has no replica.
    AcknowledgedAlone,
    /// `sync` means a second node again.
    AcknowledgedTogether,
    NodeFailed,
    NodeStartFailed,
    CacheNodeReplaceStarted,
    CacheNodeReplaceComplete,
    FailoverStarted,
    FailoverComplete,
    FailoverFailed,
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Event {
    /// Counts from 1 in the life of the controller.
    pub(super) id: u64,
    /// Milliseconds since 1970.
    pub(super) unix_ms: u64,
    pub(super) kind: EventKind,
    /// The node that it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    /// For people.
    pub(super) text: String,
}

/// The events of the controller's life. Keeps the last [`EVENTS_KEPT_MAX`].
#[derive(Debug)]
pub(super) struct Events {
    ring: Mutex<Ring>,
    followers: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Event>,
    last_id: u64,
    /// Those that the ring has no room for any more.
    dropped: u64,
    counts: BTreeMap<EventKind, u64>,
}

/// How many events there were in the controller's life.
#[derive(Clone, Debug, Default)]
pub(super) struct EventCounts {
    pub(super) by_kind: BTreeMap<EventKind, u64>,
    /// Those that `/v1/events` has no more.
    pub(super) dropped: u64,
}

impl EventCounts {
    pub(super) fn of(&self, kind: EventKind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or_default()
    }
}

impl Default for Events {
    fn default() -> Self {
        Events { ring: Mutex::default(), followers: broadcast::Sender::new(EVENTS_BEHIND_MAX) }
    }
}

impl Events {
    /// Keeps, logs and sends an event.
    pub(super) fn add(&self, kind: EventKind, node: Option<&str>, text: impl Into<String>) {
        let text = text.into();
        match kind {
            EventKind::AcknowledgedAlone
            | EventKind::SnapshotFailed
            | EventKind::RestoreFailed
            | EventKind::NodeFailed
            | EventKind::NodeStartFailed
            | EventKind::FailoverStarted
            | EventKind::FailoverFailed => {
                tracing::warn!(?kind, node, "{text}");
            }
            _ => tracing::info!(?kind, node, "{text}"),
        }
        let mut ring = self.ring.lock();
        ring.last_id += 1;
        *ring.counts.entry(kind).or_default() += 1;
        let event = Event { id: ring.last_id, unix_ms: unix_ms(), kind, node: node.map(str::to_owned), text };
        if ring.kept.len() == EVENTS_KEPT_MAX {
            ring.kept.pop_front();
            ring.dropped += 1;
        }
        ring.kept.push_back(event.clone());
        // Sent below the lock, so that followers see the order of the ring. Nobody may be following.
        let sent = self.followers.send(event);
        drop(sent);
    }

    /// The kept events with an id above `after`, oldest first.
    pub(super) fn since(&self, after: u64) -> Vec<Event> {
        self.ring.lock().kept.iter().filter(|event| event.id > after).cloned().collect()
    }

    pub(super) fn counts(&self) -> EventCounts {
        let ring = self.ring.lock();
        EventCounts { by_kind: ring.counts.clone(), dropped: ring.dropped }
    }

    /// All events, those included that were kept before this call, for one who reads them at his own pace.
    pub(super) fn replay(&self) -> Follower {
        // Followed first: what comes in between is seen twice and told once.
        let events = self.followers.subscribe();
        Follower { kept: self.since(0).into(), events, last_id: 0, dropped: 0 }
    }

    /// Events from now on.
    pub(super) fn follow(&self) -> broadcast::Receiver<Event> {
        self.followers.subscribe()
    }
}

/// Reads events. [`EVENTS_BEHIND_MAX`] wait for it; then the oldest are dropped, and counted.
#[derive(Debug)]
pub(super) struct Follower {
    kept: VecDeque<Event>,
    events: broadcast::Receiver<Event>,
    last_id: u64,
    dropped: u64,
}

impl Follower {
    /// The next event; `None` when there will be none.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            let event = match self.kept.pop_front() {
                Some(event) => event,
                None => match self.events.recv().await {
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Lagged(count)) => {
                        self.dropped += count;
                        continue;
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            if event.id > self.last_id {
                self.last_id = event.id;
                return Some(event);
            }
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The wall clock, in milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::{EVENTS_BEHIND_MAX, EVENTS_KEPT_MAX, EventKind, Events};

    #[tokio::test]
    async fn a_slow_follower_misses_the_oldest_and_knows_how_many() {
        let events = Events::default();
        events.add(EventKind::ControllerStarted, None, "before");
        let mut follower = events.replay();
        for number in 0..EVENTS_BEHIND_MAX + 7 {
            events.add(EventKind::NodeFailed, Some("node-1"), number.to_string());
        }
        assert_eq!(follower.next().await.map(|event| (event.id, event.text)), Some((1, "before".to_owned())));
        assert_eq!(follower.next().await.map(|event| event.text), Some("7".to_owned()));
        assert_eq!(follower.dropped(), 7);
    }

    #[test]
    fn the_ring_keeps_the_latest() {
        let events = Events::default();
        for number in 0..EVENTS_KEPT_MAX + 5 {
            events.add(EventKind::NodeFailed, Some("node-1"), number.to_string());
        }
        let kept = events.since(0);
        assert_eq!((kept.len(), kept[0].id), (EVENTS_KEPT_MAX, 6));
        assert_eq!(events.since(EVENTS_KEPT_MAX as u64 + 4).len(), 1);
        let counts = events.counts();
        assert_eq!((counts.dropped, counts.of(EventKind::NodeFailed)), (5, EVENTS_KEPT_MAX as u64 + 5));
        assert_eq!(counts.of(EventKind::FailoverComplete), 0);
    }
}
