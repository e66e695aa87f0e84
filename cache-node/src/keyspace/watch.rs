//! Keys under WATCH.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// Set when a watched key changed; EXEC of the connection that holds it then does nothing.
#[derive(Debug, Default)]
pub(crate) struct WatchFlag(AtomicBool);

impl WatchFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Who watches the keys of one shard.
#[derive(Debug, Default)]
pub(super) struct Watchers(HashMap<WatchedKey, Vec<Weak<WatchFlag>>>);

/// A database and a key of it.
type WatchedKey = (usize, Box<[u8]>);

impl Watchers {
    pub(super) fn watch(&mut self, db: usize, key: &[u8], flag: &Arc<WatchFlag>) {
        self.0.entry((db, key.into())).or_default().push(Arc::downgrade(flag));
    }

    /// Forgets flags that nobody holds any more.
    pub(super) fn unwatch_dead(&mut self, db: usize, key: &[u8]) {
        let key = (db, Box::from(key));
        if let Some(watchers) = self.0.get_mut(&key) {
            watchers.retain(|watcher| watcher.strong_count() > 0);
            if watchers.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    pub(super) fn changed(&mut self, db: usize, key: &[u8]) {
        // Asked on every write: nobody watching must cost nothing.
        if self.0.is_empty() {
            return;
        }
        if let Some(watchers) = self.0.remove(&(db, Box::from(key))) {
            watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.set());
        }
    }

    /// Watched keys of a database.
    pub(super) fn keys(&self, db: usize) -> Vec<Box<[u8]>> {
        self.0.keys().filter(|(watched, _)| *watched == db).map(|(_, key)| key.clone()).collect()
    }
}
