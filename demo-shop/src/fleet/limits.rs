//! The bounds of the supervisor.

use std::time::Duration;

/// Replicas of one fleet: their names are the letters A to Z.
pub(crate) const REPLICAS_MAX: u8 = 26;
/// Longest time from a process's start to its ready line; migrations of a new database are within it.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The first wait before a dead process is started again, after one immediate try.
pub(crate) const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest wait before a dead process is started again.
pub(crate) const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// A process that ran this long is healthy: its next death starts with an immediate try again.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Failed starts of a replica on its own port before it may take another one: somebody else may hold the port now.
pub(crate) const PORT_TRIES_MAX: u32 = 3;
/// Longest wait for a replica that was told to end, before it is killed.
pub(crate) const REPLICA_STOP_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Longest wait for a cache node that was told to end, before it is killed. What it acknowledged is on disk by then.
pub(crate) const NODE_STOP_TIMEOUT: Duration = Duration::from_millis(2_000);
/// Longest wait for a cluster that was told to end its nodes in order, before its controller is killed. The controller gives the
/// replicas 20 s and then the primary as long; killed before that, it would leave nodes behind.
pub(crate) const CLUSTER_STOP_TIMEOUT: Duration = Duration::from_secs(45);
/// How often a cache node that stands alone is asked whether it answers.
pub(crate) const NODE_PROBE_PERIOD: Duration = Duration::from_millis(500);
/// Longest wait for its answer.
pub(crate) const NODE_PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Questions in a row without an answer before the node is said to give none.
pub(crate) const NODE_PROBE_TIMEOUTS_MAX: u32 = 2;
/// How often the cluster is asked for its nodes.
pub(crate) const CLUSTER_LOOK_PERIOD: Duration = Duration::from_millis(200);
/// Longest wait for the cluster's answer.
pub(crate) const CLUSTER_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of the cluster's answer.
pub(crate) const CLUSTER_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Replicas of the primary cache node in a cluster.
pub(crate) const CLUSTER_REPLICAS: u8 = 2;
/// Longest line of a child's output that is kept together, in bytes.
pub(crate) const LOG_LINE_MAX: u64 = 8 * 1024;
/// Size at which a log file becomes `NAME.log.1` and a new one is begun, in bytes.
pub(crate) const LOG_FILE_MAX: u64 = 8 * 1024 * 1024;
