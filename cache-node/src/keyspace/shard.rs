//! A shard: its part of every database, who watches its keys, and what it counted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::keyspace::table::Table;

/// Set when a watched key changed; EXEC of the connection that holds it then does nothing.
#[derive(Debug, Default)]
pub(crate) struct WatchFlag(AtomicBool);

impl WatchFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Events since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShardCounters {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    /// Writes: Redis's `rdb_changes_since_last_save`.
    pub(crate) changes: u64,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) tables: Box<[Table]>,
    pub(super) counters: ShardCounters,
    pub(super) used_bytes: usize,
    watchers: HashMap<(usize, Box<[u8]>), Vec<Weak<WatchFlag>>>,
}

impl Shard {
    pub(super) fn new(databases: usize) -> Shard {
        Shard {
            tables: (0..databases).map(|_| Table::default()).collect(),
            counters: ShardCounters::default(),
            used_bytes: 0,
            watchers: HashMap::new(),
        }
    }

    pub(super) fn watch(&mut self, db: usize, key: &[u8], flag: &Arc<WatchFlag>) {
        let watchers = self.watchers.entry((db, key.into())).or_default();
        // Connections that went away or ran EXEC leave dead references: bounded by the live watchers of this key.
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(flag));
    }

    /// Forgets flags that nobody holds any more.
    pub(super) fn unwatch_dead(&mut self, db: usize, key: &[u8]) {
        let key = (db, Box::from(key));
        if let Some(watchers) = self.watchers.get_mut(&key) {
            watchers.retain(|watcher| watcher.strong_count() > 0);
            if watchers.is_empty() {
                self.watchers.remove(&key);
            }
        }
    }

    pub(super) fn changed(&mut self, db: usize, key: &[u8]) {
        self.counters.changes += 1;
        if self.watchers.is_empty() {
            return;
        }
        if let Some(watchers) = self.watchers.remove(&(db, Box::from(key))) {
            for watcher in watchers.iter().filter_map(Weak::upgrade) {
                watcher.set();
            }
        }
    }

    /// FLUSHDB, FLUSHALL: only watchers of keys that exist see a change.
    pub(super) fn flushed(&mut self, db: usize, existed: impl Fn(&[u8]) -> bool) {
        let keys: Vec<_> = self.watchers.keys().filter(|(watched, key)| *watched == db && existed(key)).cloned().collect();
        for (_, key) in keys {
            self.changed(db, &key);
        }
    }
}
