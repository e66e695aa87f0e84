//! What happens to a cluster.

use serde::{Deserialize, Serialize};

use crate::events::Kind;

pub(super) type Event = crate::events::Event<EventKind>;
pub(super) type Events = crate::events::Events<EventKind>;
pub(super) type EventCounts = crate::events::EventCounts<EventKind>;
pub(super) type Follower = crate::events::Follower<EventKind>;

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

impl Kind for EventKind {
    fn is_alarm(self) -> bool {
        matches!(
            self,
            EventKind::AcknowledgedAlone
                | EventKind::SnapshotFailed
                | EventKind::RestoreFailed
                | EventKind::NodeFailed
                | EventKind::NodeStartFailed
                | EventKind::FailoverStarted
                | EventKind::FailoverFailed
        )
    }
}
