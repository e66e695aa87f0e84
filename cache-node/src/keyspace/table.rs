//! One database's part in one shard: entries in a vector, found through a hash index.
//!
//! Entries stand densely in a vector and removal swaps the last one into the gap. Sampling for eviction is then one random index,
//! and a scan that walks from the end towards the start misses nothing: an entry only ever moves to a lower index, out of the part
//! that was already walked or within the part that is still to come.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use crate::keyspace::{Value, access::Access};

/// Bytes of an entry beside its key and value: the entry itself, its index slot at 7/8 load, and two allocator headers.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<Entry>() + 6 + 2 * 8;

/// Bytes of an entry in the expiry index: 16 in a B-tree node that is two thirds full.
const EXPIRY_OVERHEAD_BYTES: usize = 24;

#[derive(Debug)]
pub(super) struct Entry {
    hash: u64,
    pub(super) key: Box<[u8]>,
    pub(super) value: Value,
    /// Unix time in milliseconds at which the entry ends; `u64::MAX` for never.
    expires_at_ms: u64,
    pub(super) access: Access,
}

const NEVER: u64 = u64::MAX;

impl Entry {
    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        (self.expires_at_ms != NEVER).then_some(self.expires_at_ms)
    }

    pub(super) fn used_bytes(&self) -> usize {
        let expiry = if self.expires_at_ms == NEVER { 0 } else { EXPIRY_OVERHEAD_BYTES };
        ENTRY_OVERHEAD_BYTES + expiry + self.key.len() + self.value.heap_bytes()
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    index: HashTable<u32>,
    /// (time, hash of the key) of every entry with a time to live, soonest first.
    expiries: BTreeSet<(u64, u64)>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries with a time to live.
    pub(super) fn volatile_len(&self) -> usize {
        self.expiries.len()
    }

    pub(super) fn position(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.index.find(hash, |at| *self.entries[*at as usize].key == *key).map(|at| *at as usize)
    }

    pub(super) fn at(&self, position: usize) -> &Entry {
        &self.entries[position]
    }

    pub(super) fn at_mut(&mut self, position: usize) -> &mut Entry {
        &mut self.entries[position]
    }

    /// Adds an entry that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, key: &[u8], value: Value, expires_at_ms: Option<u64>, access: Access) -> &Entry {
        let position = self.entries.len();
        let at = u32::try_from(position).expect("a shard holds fewer than 2^32 entries: memory ends first");
        self.entries.push(Entry { hash, key: key.into(), value, expires_at_ms: NEVER, access });
        let entries = &self.entries;
        self.index.insert_unique(hash, at, |at| entries[*at as usize].hash);
        self.set_expiry(position, expires_at_ms);
        &self.entries[position]
    }

    pub(super) fn set_expiry(&mut self, position: usize, expires_at_ms: Option<u64>) {
        let entry = &mut self.entries[position];
        let new = expires_at_ms.unwrap_or(NEVER);
        if entry.expires_at_ms == new {
            return;
        }
        if entry.expires_at_ms != NEVER {
            self.expiries.remove(&(entry.expires_at_ms, entry.hash));
        }
        if new != NEVER {
            self.expiries.insert((new, entry.hash));
        }
        entry.expires_at_ms = new;
    }

    pub(super) fn remove(&mut self, position: usize) -> Entry {
        self.set_expiry(position, None);
        self.remove_from_index(position);
        let last = self.entries.len() - 1;
        if position != last {
            let moved = self.entries[last].hash;
            let slot = self.index.find_mut(moved, |at| *at as usize == last).expect("every entry is in the index");
            *slot = position as u32;
        }
        let entry = self.entries.swap_remove(position);
        self.shrink();
        entry
    }

    /// Position of the entry that ends first, if that is at or before `now_ms`.
    pub(super) fn next_expired(&self, now_ms: u64) -> Option<usize> {
        let (at_ms, hash) = *self.expiries.first()?;
        if at_ms > now_ms {
            return None;
        }
        let is_it = |at: &u32| {
            let entry = &self.entries[*at as usize];
            entry.hash == hash && entry.expires_at_ms == at_ms
        };
        self.index.find(hash, is_it).map(|at| *at as usize)
    }

    fn remove_from_index(&mut self, position: usize) {
        let hash = self.entries[position].hash;
        let slot = self.index.find_entry(hash, |at| *at as usize == position).ok().expect("every entry is in the index");
        slot.remove();
    }

    /// Gives memory back after a mass removal; a factor of four keeps a table that breathes from being copied at each breath.
    fn shrink(&mut self) {
        const KEPT_MIN: usize = 1024;
        if self.entries.capacity() > KEPT_MIN && self.entries.len() < self.entries.capacity() / 4 {
            let target = self.entries.len() * 2;
            self.entries.shrink_to(target);
            let entries = &self.entries;
            self.index.shrink_to(target, |at| entries[*at as usize].hash);
        }
    }
}
