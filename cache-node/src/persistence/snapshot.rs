//! A point-in-time RDB of the whole keyspace, to any writer.

use std::{
    io::{self, Write},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    keyspace::{DbSize, Encode, EvictionPolicy, Now, Snapshot, UsageKind},
    node::Shared,
    persistence::{
        progress::{Counting, Progress},
        rdb::{Encoder, RdbWriter},
        saver::Turn,
    },
    server::now,
};

/// Fields that stand before the keys: names and values.
type Aux = Vec<(&'static str, String)>;

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
    /// The keyspace's count of changes at the moment of the snapshot.
    pub(crate) changes: u64,
}

/// Writes a point-in-time RDB, while commands go on. `cut` is called in the moment of the snapshot, with every shard locked, and gives
/// what belongs to that moment, such as the journal's offset; `aux` makes further fields of it.
///
/// # Errors
/// Those of `writer`. The snapshot is ended then.
pub(crate) fn write_snapshot<W: Write, T>(
    shared: &Shared,
    turn: &Turn<'_>,
    writer: W,
    cut: impl FnOnce() -> T,
    aux: impl FnOnce(&T) -> Aux,
) -> io::Result<(T, Written)> {
    let config = shared.config();
    let encode = Arc::new(Encoder { compresses: config.rdbcompression });
    let usage = match config.maxmemory_policy {
        EvictionPolicy::AllKeysLru | EvictionPolicy::VolatileLru => UsageKind::Idle,
        EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => UsageKind::Frequency,
        _ => UsageKind::None,
    };
    let now = now();
    let (mut snapshot, result) = begin(shared, turn, encode, usage, now, cut)?;
    let mut fields = vec![
        ("redis-ver", crate::REDIS_VERSION.to_owned()),
        ("redis-bits", usize::BITS.to_string()),
        ("ctime", (now.unix_ms / 1000).to_string()),
        ("used-mem", shared.keyspace.used_bytes().to_string()),
    ];
    fields.extend(aux(&result));
    let mut writer = RdbWriter::new(writer, config.rdbchecksum, &fields)?;
    let mut keys = 0;
    for (db, DbSize { keys: count, volatile }) in snapshot.sizes().iter().copied().enumerate() {
        if count > 0 {
            writer.announce_db(db, count, volatile)?;
            keys += count as u64;
        }
    }
    while let Some(chunk) = snapshot.next_chunk() {
        writer.write(chunk)?;
    }
    let bytes = writer.finish()?;
    Ok((result, Written { bytes, keys, changes: snapshot.changes() }))
}

/// A snapshot that runs, and is told of.
pub(super) struct Running<'a> {
    snapshot: Snapshot<'a>,
    progress: Arc<Progress>,
}

impl Running<'_> {
    fn sizes(&self) -> &[DbSize] {
        self.snapshot.sizes()
    }

    fn changes(&self) -> u64 {
        self.snapshot.changes()
    }

    /// The next entries, encoded. `None` at the end.
    pub(super) fn next_chunk(&mut self) -> Option<&[u8]> {
        let chunk = self.snapshot.next_chunk()?;
        self.progress.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Some(chunk)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.progress.reset();
    }
}

/// Begins a snapshot in whose moment `cut` is called, with every shard locked.
pub(super) fn begin<'a, T>(
    shared: &'a Shared,
    _: &Turn<'_>,
    encode: Arc<dyn Encode>,
    usage: UsageKind,
    now: Now,
    cut: impl FnOnce() -> T,
) -> io::Result<(Running<'a>, T)> {
    let progress = Arc::clone(shared.saver.progress());
    progress.reset();
    let encode: Arc<dyn Encode> = Arc::new(Counting { encode, progress: Arc::clone(&progress) });
    let begun = shared.keyspace.begin_snapshot(&encode, usage, now, cut);
    let (snapshot, result) = begun.ok_or_else(|| io::Error::other("another snapshot is being taken"))?;
    let keys: usize = snapshot.sizes().iter().map(|size| size.keys).sum();
    progress.keys_total.store(keys as u64, Ordering::Relaxed);
    Ok((Running { snapshot, progress }, result))
}
