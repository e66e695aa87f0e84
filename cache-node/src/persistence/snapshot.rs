//! A point-in-time RDB of the whole keyspace, to any writer.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    keyspace::{DbSize, Encode, EvictionPolicy, Now, Snapshot, UsageKind},
    node::Shared,
    persistence::{
        rdb::{Encoder, RdbWriter},
        saver::Turn,
    },
    server::now,
};

/// Fields that stand before the keys: names and values.
pub(crate) type Aux = Vec<(&'static str, String)>;

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
    /// The keyspace's count of changes at the moment of the snapshot.
    pub(crate) changes: u64,
}

/// What a snapshot says of the stream, so that whoever loads it can go on with that.
pub(crate) fn replication_aux(id: &str, offset: u64, db: usize) -> Aux {
    vec![("repl-stream-db", db.to_string()), ("repl-id", id.to_owned()), ("repl-offset", offset.to_string())]
}

/// Writes a point-in-time RDB, while commands go on. `cut` is called in the moment of the snapshot, with every shard locked, and gives
/// what belongs to that moment, such as the journal's offset; `aux` makes further fields of it. `progress` follows the bytes written.
///
/// # Errors
/// Those of `writer`. The snapshot is ended then.
pub(crate) fn write_snapshot<W: Write, T>(
    shared: &Shared,
    turn: &Turn<'_>,
    writer: W,
    progress: &AtomicU64,
    cut: impl FnOnce() -> T,
    aux: impl FnOnce(&T) -> Aux,
) -> io::Result<(T, Written)> {
    let config = shared.config();
    let encode: Arc<dyn Encode> = Arc::new(Encoder { compresses: config.rdbcompression });
    let usage = match config.maxmemory_policy {
        EvictionPolicy::AllKeysLru | EvictionPolicy::VolatileLru => UsageKind::Idle,
        EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => UsageKind::Frequency,
        _ => UsageKind::None,
    };
    let now = now();
    let (mut snapshot, result) = begin(shared, turn, &encode, usage, now, cut)?;
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
        progress.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    let bytes = writer.finish()?;
    Ok((result, Written { bytes, keys, changes: snapshot.changes() }))
}

/// Begins a snapshot in whose moment `cut` is called, with every shard locked.
pub(super) fn begin<'a, T>(
    shared: &'a Shared,
    _: &Turn<'_>,
    encode: &Arc<dyn Encode>,
    usage: UsageKind,
    now: Now,
    cut: impl FnOnce() -> T,
) -> io::Result<(Snapshot<'a>, T)> {
    let begun = shared.keyspace.begin_snapshot(encode, usage, now, cut);
    begun.ok_or_else(|| io::Error::other("another snapshot is being taken"))
}
