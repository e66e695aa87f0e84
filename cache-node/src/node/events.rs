//! What happens to a node.

use serde::Serialize;

use crate::events::Kind;

pub(crate) type Events = crate::events::Events<EventKind>;
#[cfg(feature = "metrics")]
pub(crate) type EventCounts = crate::events::EventCounts<EventKind>;

/// What kind of thing happened; the names are those of ElastiCache's notifications, where it has one, and of a cluster's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum EventKind {
    NodeStarted,
    NodeStartFailed,
    NodeStopping,
    CacheClusterParametersChanged,
    SnapshotComplete,
    SnapshotFailed,
    /// The log's end was cut off, as after a crash: what was whole is loaded.
    LogRepaired,
    LogWriteFailed,
    /// What the log was given may not be on disk.
    LogSyncFailed,
    /// Bringing the log to disk took so long that writes waited for it.
    LogSyncSlow,
    LogRecovered,
    LogRewriteFailed,
    BecamePrimary,
    BecameReplica,
    ReplicaConnected,
    ReplicaLost,
    PrimaryLinkUp,
    PrimaryLinkLost,
    /// FAILOVER was asked for.
    FailoverStarted,
    FailoverComplete,
    FailoverFailed,
    MemoryHigh,
    MemoryNormal,
    EvictionStarted,
    EvictionEnded,
    /// Writes are refused for `maxmemory`.
    OutOfMemory,
    MaxClientsReached,
    /// Writes are refused for what durability needs and is not there.
    WritesRefused,
    WritesAccepted,
}

impl Kind for EventKind {
    fn is_alarm(self) -> bool {
        matches!(
            self,
            EventKind::NodeStartFailed
                | EventKind::SnapshotFailed
                | EventKind::LogRepaired
                | EventKind::LogWriteFailed
                | EventKind::LogSyncFailed
                | EventKind::LogSyncSlow
                | EventKind::LogRewriteFailed
                | EventKind::ReplicaLost
                | EventKind::PrimaryLinkLost
                | EventKind::FailoverFailed
                | EventKind::MemoryHigh
                | EventKind::EvictionStarted
                | EventKind::OutOfMemory
                | EventKind::MaxClientsReached
                | EventKind::WritesRefused
        )
    }
}
