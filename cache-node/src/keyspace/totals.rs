//! What a keyspace holds and counted, for whoever watches the node.

use crate::keyspace::{Keyspace, shard::ShardCounters};

/// Sums over all shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) counters: ShardCounters,
    /// Bytes that keys and values take.
    pub(crate) used_bytes: usize,
    /// Bytes that their pages take from the system.
    pub(crate) mapped_bytes: usize,
    pub(crate) databases: Vec<DbTotals>,
}

/// Keys of one database, those included whose time has come and that nobody has removed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DbTotals {
    pub(crate) keys: usize,
    /// Those with a time to live.
    pub(crate) volatile: usize,
}

impl Keyspace {
    /// Locks one shard after the other, each for some additions: commands on other shards go on meanwhile.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals { databases: vec![DbTotals::default(); self.databases()], ..Totals::default() };
        for cell in &self.cells {
            let shard = cell.shard.lock();
            totals.counters.add(shard.counters);
            totals.used_bytes += shard.used_bytes();
            totals.mapped_bytes += shard.mapped_bytes();
            for (sum, table) in totals.databases.iter_mut().zip(&shard.tables) {
                sum.keys += table.len();
                sum.volatile += table.volatile_len();
            }
        }
        totals
    }
}
