//! How far the snapshot is that is being written, whoever it is for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::keyspace::{Encode, EntryRef};

/// What INFO tells of a snapshot that runs; zeros while none does.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) bytes: AtomicU64,
    pub(crate) keys: AtomicU64,
    pub(crate) keys_total: AtomicU64,
}

impl Progress {
    /// One begins, or has ended.
    pub(super) fn reset(&self) {
        for number in [&self.bytes, &self.keys, &self.keys_total] {
            number.store(0, Ordering::Relaxed);
        }
    }
}

/// Encodes as another does, and counts the keys.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) encode: Arc<dyn Encode>,
    pub(super) progress: Arc<Progress>,
}

impl Encode for Counting {
    fn select_db(&self, db: usize, out: &mut Vec<u8>) {
        self.encode.select_db(db, out);
    }

    fn entry(&self, entry: EntryRef<'_>, out: &mut Vec<u8>) {
        self.encode.entry(entry, out);
        self.progress.keys.fetch_add(1, Ordering::Relaxed);
    }
}
