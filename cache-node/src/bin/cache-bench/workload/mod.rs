//! What is measured: one file for each workload.

mod cart;
mod connections;
mod eviction;
mod expiry;
pub(crate) mod hash;
mod memory;
mod mixed;
mod pauses;
pub(crate) mod script;
mod snapshot;
pub(crate) mod string;
mod threads;

use anyhow::Result;
use clap::ValueEnum;

use crate::{Bench, report::Report};

/// A workload by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// A session as one string of 600 bytes: 90 % GET, 10 % SET with EX 1800; beside a server that stores nothing (floor, with --threads 1)
    String,
    /// Throughput of string sessions with two server threads against one, when the load shares their cores
    Threads,
    /// A session as one hash of 10 fields: 90 % HGETALL, 10 % HSET of one field with EXPIRE
    Hash,
    /// HINCRBY of a cart's line
    Cart,
    /// EVALSHA of session-store's commit script
    Script,
    /// Overhead bytes per session
    Memory,
    /// GET latency while a million keys expire, and what becomes of their memory
    Expiry,
    /// Hit ratio of a Zipf trace at the same maxmemory, by policy
    Eviction,
    /// GET and SET latency while BGSAVE writes a million sessions
    Snapshot,
    /// The same while a million sessions are rewritten as a log, sent to a replica or flushed, or a hash of a million fields is unlinked
    Pauses,
    /// Bytes per idle connection
    Connections,
    /// All of the above commands together
    Mixed,
}

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures it on all peers that can do it.
    ///
    /// # Errors
    /// When a server fails or gives a wrong reply.
    pub(crate) fn run(self, bench: &Bench) -> Result<Vec<Report>> {
        match self {
            Workload::String => string::run(bench),
            Workload::Threads => threads::run(bench),
            Workload::Hash => hash::run(bench),
            Workload::Cart => cart::run(bench),
            Workload::Script => script::run(bench),
            Workload::Memory => memory::run(bench),
            Workload::Expiry => expiry::run(bench),
            Workload::Eviction => eviction::run(bench),
            Workload::Snapshot => snapshot::run(bench),
            Workload::Pauses => pauses::run(bench),
            Workload::Connections => connections::run(bench),
            Workload::Mixed => mixed::run(bench),
        }
    }
}
