//! Every bound and period of the controller, by name.

use std::time::Duration;

/// Replicas that a cluster may have (ElastiCache: 5).
pub(super) const REPLICAS_MAX: u8 = 5;

/// How often each node is asked whether it answers and where it stands.
pub(super) const PROBE_PERIOD: Duration = Duration::from_millis(200);

/// How long a node that uses its processor may go without an answer: a long script is no hang. Redis answers BUSY after as long.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(5);

/// How long a new process may take until it answers anything, `-LOADING` included.
pub(super) const START_MAX: Duration = Duration::from_secs(30);

/// How long one command to a node that answers may take.
pub(super) const CALL_MAX: Duration = Duration::from_millis(500);

/// How long a connection to a node may take.
pub(super) const CONNECT_MAX: Duration = Duration::from_millis(200);

/// How long a candidate may take to apply what the dead primary had already sent.
pub(super) const DRAIN_MAX: Duration = Duration::from_millis(200);

/// Bytes of one answer of a node.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Wait before the second start of a node that ended; doubled up to [`RESTART_DELAY_MAX`].
pub(super) const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest wait between two starts of a node.
pub(super) const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

/// Starts of a replica that end before it answers, after which its folder is set aside and it begins without data.
pub(super) const BAD_STARTS_MAX: u32 = 3;

/// Starts of the first node of a new cluster that end before it answers, after which the mistake is in what the cluster is started with.
/// One alone may have lost its port to another process.
pub(super) const FIRST_STARTS_MAX: u32 = 2;

/// How long a node may take to save its data and end, when it is told to.
pub(super) const STOP_MAX: Duration = Duration::from_secs(20);

/// How long a replica that is restarted may take to end. The controller does nothing else meanwhile; what the replica does not save
/// the primary has.
pub(super) const RESTART_STOP_MAX: Duration = Duration::from_secs(2);

/// How long a primary may be without a replica, in `sync`, before its own disk has to do for acknowledgements. Writes are refused
/// meanwhile.
pub(super) const LONELY_MAX: Duration = Duration::from_secs(2);

/// How long the folder's earlier controller, whose parent was killed, may take to end.
pub(super) const TAKE_OVER_MAX: Duration = Duration::from_secs(20);

/// How often a node that has not ended yet is told again.
pub(super) const STOP_PERIOD: Duration = Duration::from_secs(1);

/// Watchers' words that may wait for the controller.
pub(super) const SIGHTS_MAX: usize = 1024;

/// Commands that may wait for the controller.
pub(super) const ORDERS_MAX: usize = 16;

/// Connections at once, on each endpoint.
pub(super) const PROXY_CONNECTIONS_MAX: usize = 10_000;

/// Bytes on their way in each direction of one proxied connection.
pub(super) const PROXY_BUFFER_BYTES: usize = 16 * 1024;

/// How long a new connection waits for a primary before it is refused.
pub(super) const PRIMARY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Clients of the Sentinel port at once.
pub(super) const SENTINEL_CONNECTIONS_MAX: usize = 1_000;

/// Bytes of one request's argument, and arguments, on the Sentinel port.
pub(super) const SENTINEL_BULK_BYTES_MAX: usize = 64 * 1024;
/// See [`SENTINEL_BULK_BYTES_MAX`].
pub(super) const SENTINEL_ARGUMENTS_MAX: usize = 256;

/// How long a client of the Sentinel port may leave its answers unread.
pub(super) const SENTINEL_STALL_MAX: Duration = Duration::from_secs(10);

/// Connections to the HTTP port at once.
pub(super) const HTTP_CONNECTIONS_MAX: usize = 256;

/// How long a client may take to send the head of a request.
pub(super) const HTTP_HEAD_MAX: Duration = Duration::from_secs(10);

/// Size at which a node's log is set aside when the node starts; one older log is kept.
pub(super) const NODE_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Silence after which a stopped or idle node is taken for hung, when nothing else is said (Sentinel: 30 s).
pub(super) const DOWN_AFTER_DEFAULT: Duration = Duration::from_millis(600);

/// How long a planned failover waits for a replica that has everything.
pub(super) const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// How long a replica may take to serve after it was added or restarted, before the command gives up waiting for it.
pub(super) const SYNC_MAX: Duration = Duration::from_secs(600);

/// How long a snapshot may take.
pub(super) const SNAPSHOT_MAX: Duration = Duration::from_secs(600);

/// How often a command looks how far it is.
pub(super) const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Lines of progress that a slow client of a command may have waiting; more are left out.
pub(super) const PROGRESS_LINES_MAX: usize = 64;

/// How long a slow client of a command may take to make room for its last line.
pub(super) const LAST_LINE_MAX: Duration = Duration::from_secs(10);

/// Bytes of a command's body.
pub(super) const HTTP_BODY_BYTES_MAX: usize = 16 * 1024;

/// Snapshots that are kept in the cluster's folder, when nothing else is said.
pub(super) const SNAPSHOTS_KEPT: usize = 7;
