//! What was taken out of the keyspace, and is freed where it keeps nobody waiting.

use std::thread;

use crate::{
    keyspace::{Value, shard::Shard},
    pace::Pace,
};

/// Allocations freed in one go, some 10 µs.
const FREED_AT_ONCE_MAX: usize = 128;

/// Old shards and large values. To free a million entries takes up to a second.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    pub(super) shards: Vec<Shard>,
    pub(super) values: Vec<Value>,
}

/// Frees things in pieces.
#[derive(Debug, Default)]
pub(super) struct Dismantling {
    pace: Pace,
    freed: usize,
}

impl Garbage {
    /// Frees it on a thread of its own.
    pub(crate) fn drop_aside(self) {
        if self.shards.is_empty() && self.values.is_empty() {
            return;
        }
        let spawned = thread::Builder::new().name("cache-node-free".to_owned()).spawn(move || {
            let mut freeing = Dismantling::default();
            self.shards.into_iter().for_each(|shard| shard.dismantle(&mut freeing));
            self.values.into_iter().for_each(|value| value.dismantle(&mut freeing));
        });
        // Without a thread the closure was dropped already, and the memory with it.
        drop(spawned);
    }
}

impl Dismantling {
    /// Drops things that are about `allocations` each.
    pub(super) fn drop_all<T>(&mut self, things: impl IntoIterator<Item = T>, allocations: usize) {
        for thing in things {
            drop(thing);
            self.freed += allocations;
            if self.freed >= FREED_AT_ONCE_MAX {
                self.freed = 0;
                self.pace.step();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Dismantling, Garbage};

    #[test]
    fn all_is_dropped() {
        let thing = Arc::new(());
        Dismantling::default().drop_all((0..1_000).map(|_| Arc::clone(&thing)), 1);
        assert_eq!(Arc::strong_count(&thing), 1);
        // Nothing, and no thread for it.
        Garbage::default().drop_aside();
    }
}
