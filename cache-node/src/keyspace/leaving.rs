//! What FLUSHDB took out of a shard whose other databases stay: nothing finds it any more, and it goes in slices.

use std::sync::atomic::Ordering;

use crate::keyspace::{Keyspace, arena::Handle, index::Index, shard::Shard};

/// Flushed databases whose entries a shard still has. Those of one more go with its flush.
const LEAVING_MAX: usize = 8;

/// Entries freed per hold of a shard's lock.
pub(super) const FREED_PER_SLICE_MAX: usize = 200;

/// The index of a flushed database. Its entries lie among those of the others.
#[derive(Debug)]
pub(super) struct Leaving {
    db: usize,
    index: Index,
    /// Positions before this one are done with.
    next: usize,
    /// The snapshot that runs needs entries of it. They go with its walk: ahead of it, they would wait for it in memory.
    pub(super) is_captured: bool,
}

impl Iterator for Leaving {
    type Item = Handle;

    fn next(&mut self) -> Option<Handle> {
        while self.next < self.index.positions() {
            self.next += 1;
            if let Some(handle) = self.index.at(self.next - 1) {
                return Some(handle);
            }
        }
        None
    }
}

impl Shard {
    /// Takes all entries of a database out of the index. Their memory goes with [`Shard::free_leaving`].
    pub(super) fn clear(&mut self, db: usize) {
        let index = std::mem::take(&mut self.tables[db]);
        let mut leaving = Leaving { db, index, next: 0, is_captured: self.capture.is_some() };
        if leaving.index.len() == 0 || self.leaving.len() == LEAVING_MAX {
            self.free_some(&mut leaving, usize::MAX);
        } else {
            self.leaving.push(leaving);
        }
    }

    /// Frees up to `count` entries of flushed databases, of those that the snapshot needs or of the others. `true` when there are more.
    pub(super) fn free_leaving(&mut self, count: usize, is_captured: bool) -> bool {
        let Some(at) = self.leaving.iter().position(|leaving| leaving.is_captured == is_captured) else { return false };
        let mut leaving = self.leaving.swap_remove(at);
        if self.free_some(&mut leaving, count) {
            self.leaving.push(leaving);
        }
        self.leaving.iter().any(|leaving| leaving.is_captured == is_captured)
    }

    /// `true` when entries of it may be left.
    fn free_some(&mut self, leaving: &mut Leaving, count: usize) -> bool {
        for _ in 0..count {
            let Some(handle) = leaving.next() else {
                self.forget_index(leaving.index.allocated_bytes());
                return false;
            };
            // A snapshot that began after the flush has nothing of it, whatever the entry's epoch says.
            if leaving.is_captured {
                self.preserve(leaving.db, handle);
            }
            self.discard(handle);
        }
        true
    }
}

impl Keyspace {
    /// Frees what was flushed, as far as it takes to get to the target.
    pub(super) fn free_to(&self, target_bytes: usize) {
        if !self.has_leaving.swap(false, Ordering::Relaxed) {
            return;
        }
        for shard in 0..self.cells.len() {
            while self.free_slice(shard) {
                if self.used_bytes() <= target_bytes {
                    self.has_leaving.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// One slice of freeing what was flushed. `true` when there is more of it.
    pub(crate) fn free_slice(&self, shard: usize) -> bool {
        let cell = &self.cells[shard];
        let mut shard = cell.shard.lock();
        let is_more = shard.free_leaving(FREED_PER_SLICE_MAX, false);
        cell.account(&shard);
        is_more
    }
}

#[cfg(test)]
mod tests {
    use super::LEAVING_MAX;
    use crate::keyspace::{Change, ChangeSink, EvictionPolicy, Hash, Keyspace, Now};

    struct Nobody;

    impl ChangeSink for Nobody {
        fn take(&self, _: Change<'_>) {}
    }

    const NOW: Now = Now { unix_ms: 1_795_000_000_000 };
    const KEYS: usize = 8_000;

    /// Writes keys into a database: most are strings of one slot, some are large hashes beside it.
    fn fill(keyspace: &Keyspace, db: usize) {
        let mut keys = keyspace.lock_all(db, NOW, &Nobody);
        for number in 0..KEYS {
            let key = format!("key-{number}");
            keys.set_string(key.as_bytes(), &[b'0' + db as u8; 100], None);
            if number % 100 == 0 {
                let mut hash = Hash::default();
                for field in 0..300_u32 {
                    hash.insert(&field.to_le_bytes(), b"value");
                }
                keys.set(key.as_bytes(), crate::keyspace::Collection::into_value(hash), None);
            }
        }
    }

    fn free_all(keyspace: &Keyspace) {
        (0..keyspace.shard_count()).for_each(|shard| while keyspace.free_slice(shard) {});
    }

    #[test]
    fn a_flushed_database_is_empty_at_once_and_its_memory_comes_back_in_slices() {
        let keyspace = Keyspace::new(3);
        fill(&keyspace, 1);
        let before = keyspace.used_bytes();
        fill(&keyspace, 0);
        let full = keyspace.used_bytes();
        drop(keyspace.lock_all(0, NOW, &Nobody).flush());
        let mut keys = keyspace.lock_all(0, NOW, &Nobody);
        assert_eq!((keys.len(), keys.get(b"key-1").is_some()), (0, false));
        // Of the same name, while the old one is there.
        keys.set_string(b"key-1", b"new", None);
        drop(keys);
        assert!(!keyspace.free_slice(0) || keyspace.used_bytes() > full / 2, "the first slice is a small one");
        free_all(&keyspace);
        assert_eq!(keyspace.lock_all(0, NOW, &Nobody).string(b"key-1"), Ok(Some(&b"new"[..])));
        let mut keys = keyspace.lock_all(1, NOW, &Nobody);
        assert_eq!((keys.len(), keys.string(b"key-1")), (KEYS, Ok(Some(&[b'1'; 100][..]))));
        drop(keys);
        assert!(keyspace.lock_all(0, NOW, &Nobody).delete(b"key-1"));
        assert!(keyspace.used_bytes() < before + before / 50, "{} of {full}, {before} before", keyspace.used_bytes());
    }

    #[test]
    fn nothing_of_another_database_is_evicted_while_what_was_flushed_is_there() {
        let keyspace = Keyspace::new(2);
        fill(&keyspace, 1);
        let target = keyspace.used_bytes() * 11 / 10;
        fill(&keyspace, 0);
        drop(keyspace.lock_all(0, NOW, &Nobody).flush());
        assert!(keyspace.used_bytes() > target);
        assert!(keyspace.evict_to(target, EvictionPolicy::AllKeysLru, 5, NOW, &Nobody));
        assert!(keyspace.used_bytes() <= target);
        assert_eq!(keyspace.lock_all(1, NOW, &Nobody).len(), KEYS);
    }

    #[test]
    fn whoever_flushes_again_and_again_finds_no_memory_gone() {
        let keyspace = Keyspace::new(2);
        keyspace.lock_all(1, NOW, &Nobody).set_string(b"stays", b"v", None);
        fill(&keyspace, 0);
        let one = keyspace.used_bytes();
        for _ in 0..3 * LEAVING_MAX {
            drop(keyspace.lock_all(0, NOW, &Nobody).flush());
            fill(&keyspace, 0);
        }
        assert!(keyspace.used_bytes() < one * (LEAVING_MAX + 2), "{} of {one}", keyspace.used_bytes());
        drop(keyspace.lock_all(0, NOW, &Nobody).flush());
        free_all(&keyspace);
        assert!(keyspace.used_bytes() < one / 50, "{} of {one}", keyspace.used_bytes());
    }
}
