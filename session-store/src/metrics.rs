//! What is counted and measured, by the `metrics` facade. The names are listed in `lib.md`.
//!
//! Every key is a constant, so that a call costs a few nanoseconds when no recorder is installed, and one look-up of the
//! recorder's when there is one. No label holds an id, a tag or a value; `node` is the address of a node.

use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

macro_rules! operations {
    ($($variant:ident $name:literal,)*) => {
        /// What an operation is for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($variant,)*
        }

        impl Operation {
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            fn measured(self, took: Duration) {
                match self {
                    $(Self::$variant => {
                        histogram!("session_store_operation_duration_seconds", "operation" => $name).record(took);
                    })*
                }
            }

            fn succeeded(self) {
                match self {
                    $(Self::$variant => {
                        counter!("session_store_operations_total", "operation" => $name, "outcome" => "ok").increment(1);
                    })*
                }
            }
        }
    };
}

operations! {
    Read "read",
    ReadCart "read_cart",
    Create "create",
    Commit "commit",
    Rotate "rotate",
    End "end",
    Touch "touch",
    Cart "cart",
    Merge "merge",
    List "list",
    Quarantine "quarantine",
    TakeOver "take_over",
    Ping "ping",
    Other "other",
}

impl Operation {
    /// An operation has ended; `failure` names why it failed.
    pub(crate) fn ended(self, took: Duration, failure: Option<&'static str>) {
        self.measured(took);
        match failure {
            None => self.succeeded(),
            Some(failure) => {
                counter!("session_store_operations_total", "operation" => self.name(), "outcome" => failure).increment(1);
            }
        }
    }

    /// What a command of this name is for.
    pub(crate) fn of_command(name: &[u8]) -> Self {
        match name {
            b"HGETALL" => Self::ReadCart,
            b"HMGET" | b"HGET" => Self::Read,
            b"ZRANGE" | b"ZREM" => Self::List,
            b"PING" => Self::Ping,
            _ => Self::Other,
        }
    }
}

/// Counts an operation as in flight as long as it lives.
#[derive(Debug)]
pub(crate) struct InFlight(());

impl InFlight {
    pub(crate) fn begin() -> Self {
        gauge!("session_store_pool_in_use").increment(1.0);
        Self(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!("session_store_pool_in_use").decrement(1.0);
    }
}

/// Counts an operation as waiting for a place in the pool as long as it lives, and measures that time, also when its
/// deadline passes.
#[derive(Debug)]
pub(crate) struct Waiting(Instant);

impl Waiting {
    pub(crate) fn begin() -> Self {
        gauge!("session_store_pool_waiting").increment(1.0);
        Self(Instant::now())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        gauge!("session_store_pool_waiting").decrement(1.0);
        histogram!("session_store_pool_wait_seconds").record(self.0.elapsed());
    }
}

pub(crate) fn breaker(node: &str, is_open: bool) {
    let state = if is_open { 1.0 } else { 0.0 };
    gauge!("session_store_breaker_open", "node" => node.to_owned()).set(state);
    if is_open {
        counter!("session_store_breaker_opened_total", "node" => node.to_owned()).increment(1);
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By a request of its own.
    Logout,
    /// By a list of its user's sessions, or because there were too many.
    Revoked,
    /// It got a new id.
    Rotated,
    /// A client came with an id that leads nowhere, any more or ever.
    Expired,
}

pub(crate) fn session_created() {
    counter!("session_store_sessions_created_total").increment(1);
}

pub(crate) fn session_ended(reason: End) {
    match reason {
        End::Logout => counter!("session_store_sessions_ended_total", "reason" => "logout"),
        End::Revoked => counter!("session_store_sessions_ended_total", "reason" => "revoked"),
        End::Rotated => counter!("session_store_sessions_ended_total", "reason" => "rotated"),
        End::Expired => counter!("session_store_sessions_ended_total", "reason" => "expired"),
    }
    .increment(1);
}

/// What a request lost against another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    SessionEnded,
    ValueChanged,
    CartChanged,
}

pub(crate) fn conflict(kind: Conflict) {
    match kind {
        Conflict::SessionEnded => counter!("session_store_conflicts_total", "kind" => "session_ended"),
        Conflict::ValueChanged => counter!("session_store_conflicts_total", "kind" => "value_changed"),
        Conflict::CartChanged => counter!("session_store_conflicts_total", "kind" => "cart_changed"),
    }
    .increment(1);
}

pub(crate) fn csrf_refused() {
    counter!("session_store_csrf_refused_total").increment(1);
}

/// What became of a read that a replica was asked for. All but the first went on to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaRead {
    Served,
    /// The client has seen a later revision.
    Behind,
    /// No such session, there or at all.
    Missing,
    /// No replica answered, or not in time.
    Failed,
}

pub(crate) fn replica_read(outcome: ReplicaRead) {
    match outcome {
        ReplicaRead::Served => counter!("session_store_replica_reads_total", "outcome" => "served"),
        ReplicaRead::Behind => counter!("session_store_replica_reads_total", "outcome" => "behind"),
        ReplicaRead::Missing => counter!("session_store_replica_reads_total", "outcome" => "missing"),
        ReplicaRead::Failed => counter!("session_store_replica_reads_total", "outcome" => "failed"),
    }
    .increment(1);
}

/// What the near cache was asked for.
pub(crate) fn near_cache_read(is_hit: bool) {
    match is_hit {
        true => counter!("session_store_near_cache_reads_total", "outcome" => "hit"),
        false => counter!("session_store_near_cache_reads_total", "outcome" => "miss"),
    }
    .increment(1);
}

pub(crate) fn near_cache_invalidated() {
    counter!("session_store_near_cache_invalidations_total").increment(1);
}

pub(crate) fn near_cache_dropped() {
    counter!("session_store_near_cache_drops_total").increment(1);
}

/// How much is in the near cache. Those that a process has besides are not added up: one store has one.
pub(crate) fn near_cache_holds(entries: usize, bytes: usize) {
    gauge!("session_store_near_cache_entries").set(entries as f64);
    gauge!("session_store_near_cache_bytes").set(bytes as f64);
}

pub(crate) fn quarantined() {
    counter!("session_store_quarantined_total").increment(1);
}

pub(crate) fn cart_line_unreadable() {
    counter!("session_store_cart_lines_unreadable_total").increment(1);
}

pub(crate) fn cart_merged(units_dropped: u64) {
    counter!("session_store_carts_merged_total").increment(1);
    cart_units_dropped(units_dropped);
}

pub(crate) fn cart_units_dropped(units: u64) {
    if units > 0 {
        counter!("session_store_cart_units_dropped_total").increment(units);
        tracing::debug!(units, "a merged cart reached its limits");
    }
}

/// Tells the recorder, when there is one already, what the names mean.
pub(crate) fn describe() {
    describe_counter!("session_store_operations_total", "Operations of the store, by what they are for and how they ended");
    describe_histogram!(
        "session_store_operation_duration_seconds",
        Unit::Seconds,
        "Time of an operation, waiting for the pool and retries included"
    );
    describe_gauge!("session_store_pool_in_use", "Operations in flight");
    describe_gauge!("session_store_pool_waiting", "Operations that wait for a place in the pool");
    describe_histogram!(
        "session_store_pool_wait_seconds",
        Unit::Seconds,
        "Time that an operation waited for a place in the pool"
    );
    describe_gauge!("session_store_breaker_open", "Whether requests to a node are refused because it is out of reach: 0 or 1");
    describe_counter!("session_store_breaker_opened_total", "How often a node went out of reach");
    describe_counter!("session_store_sessions_created_total", "Sessions that began");
    describe_counter!("session_store_sessions_ended_total", "Sessions that ended, by reason");
    describe_counter!("session_store_conflicts_total", "Requests that lost against another one, by what they lost");
    describe_counter!("session_store_csrf_refused_total", "Requests that were refused because they had no valid CSRF token");
    describe_counter!("session_store_replica_reads_total", "Reads that replicas were asked for, by what became of them");
    describe_counter!("session_store_near_cache_reads_total", "Reads of safe requests, by whether the near cache served them");
    describe_counter!("session_store_near_cache_invalidations_total", "Sessions that were named to the near cache as changed");
    describe_counter!("session_store_near_cache_drops_total", "How often the near cache dropped everything");
    describe_gauge!("session_store_near_cache_entries", "Sessions in the near cache");
    describe_gauge!("session_store_near_cache_bytes", Unit::Bytes, "Bytes of the sessions in the near cache");
    describe_counter!("session_store_quarantined_total", "Sessions that could not be read and were put in quarantine");
    describe_counter!(
        "session_store_cart_lines_unreadable_total",
        "Lines of carts that no key of this process opens, or that are damaged"
    );
    describe_counter!("session_store_carts_merged_total", "Logins with an anonymous cart");
    describe_counter!("session_store_cart_units_dropped_total", "Units that found no room in a merged cart");
}
