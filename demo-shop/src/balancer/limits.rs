//! The bounds of the balancer: every wait, buffer and retry of it has its name here.

use std::time::Duration;

/// Time between two probes of one replica.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for the whole answer to a probe; a busy machine may need more than the connect does.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Probes in a row that may time out before a replica counts as down. A refused connection counts at once: nobody
/// listens there. A late answer may only mean that the machine is busy.
pub(crate) const PROBE_TIMEOUTS_MAX: u32 = 2;
/// Longest wait for a TCP connection to a replica.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest wait for the head of one replica's answer to a safe request, before another replica is asked.
pub(crate) const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from a request's arrival to the head of its answer, over all tries.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence within a body, in either direction, before the exchange is given up.
pub(crate) const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Replicas asked for one request, the first one included.
pub(crate) const TRIES_MAX: usize = 4;
/// Largest request body, in bytes (the default of nginx, 1 MiB).
pub(crate) const REQUEST_BODY_MAX: usize = 1024 * 1024;
/// Largest request body that is kept to be sent again, in bytes. A shop's forms are far smaller.
pub(crate) const REQUEST_REPLAY_MAX: usize = 64 * 1024;
/// Largest answer to a safe request that is read whole before its head is passed on, in bytes, so that a replica which
/// dies in the middle of an answer is not noticed. What is larger is streamed.
pub(crate) const RESPONSE_REPLAY_MAX: usize = 256 * 1024;
/// Exchanges with one replica at a time, which bounds its connections too: HTTP/1.1 carries one exchange each.
pub(crate) const EXCHANGES_PER_REPLICA_MAX: usize = 512;
/// Longest wait for a free exchange when every replica that is up is at its maximum.
pub(crate) const EXCHANGE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Connections of clients at a time; further ones wait in the kernel's accept queue. Fewer where the system allows
/// fewer open files: each may need a second one, for its replica.
pub(crate) const CLIENT_CONNECTIONS_MAX: usize = 4_096;
/// Open files that are kept for everything else: listeners, probes, children's pipes, logs.
pub(crate) const OPEN_FILES_RESERVED: usize = 64;
/// Longest time in which a client may send a request's head; an idle kept-alive connection ends after it too.
pub(crate) const HEAD_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time in which a client may take nothing of its answer (nginx's send_timeout is of the same kind).
pub(crate) const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of a connection's read buffer and with it of a request's head, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of one request or answer.
pub(crate) const HEADERS_MAX: usize = 100;
/// Idle connections kept to each replica.
pub(crate) const IDLE_PER_REPLICA_MAX: usize = 64;
/// How long an idle connection to a replica is kept, below any server's own idle limit.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for exchanges in flight when the balancer ends.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// What `Retry-After` tells when no replica is there, in seconds: about the time of a restart.
pub(crate) const RETRY_AFTER_SECONDS: u32 = 1;
