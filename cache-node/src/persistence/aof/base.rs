//! The base of a log: all data at one moment, as a snapshot or as commands.

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    keyspace::{Encode, EntryRef, SortedSet, UsageKind, ValueRef},
    node::Shared,
    persistence::{
        file::write_whole,
        snapshot::{self, write_snapshot},
    },
    protocol::{encode_request, format_double},
    server::now,
};

/// Elements of one command in a base of commands (Redis: `AOF_REWRITE_ITEMS_PER_CMD`).
const ELEMENTS_MAX: usize = 64;

/// Writes the file at `path`, whole and on disk, and calls `cut` in the moment whose data it holds, with every shard locked. Waits while
/// another snapshot is written.
///
/// # Errors
/// Those of the system; there is no file then.
pub(super) fn write<T>(
    shared: &Shared,
    path: &Path,
    is_rdb: bool,
    is_cancelled: &AtomicBool,
    cut: impl FnOnce() -> T,
) -> io::Result<T> {
    let config = shared.config();
    let turn = shared.saver.turn();
    write_whole(path, config.encryption.as_ref(), |writer| {
        let mut writer = Cancellable { writer, is_cancelled };
        if is_rdb {
            let aux = |_: &T| vec![("aof-base", "1".to_owned())];
            return write_snapshot(shared, &turn, &mut writer, cut, aux).map(|(result, _)| result);
        }
        let (mut snapshot, result) = snapshot::begin(shared, &turn, Arc::new(Commands), UsageKind::None, now(), cut)?;
        while let Some(chunk) = snapshot.next_chunk() {
            writer.write_all(chunk)?;
        }
        Ok(result)
    })
}

/// A writer that ends with an error when nobody wants what is written any more.
struct Cancellable<'a> {
    writer: &'a mut dyn Write,
    is_cancelled: &'a AtomicBool,
}

impl Write for Cancellable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_cancelled.load(Ordering::Acquire) {
            return Err(io::Error::other("the log was ended meanwhile"));
        }
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Entries as the commands that make them.
#[derive(Debug)]
struct Commands;

impl Encode for Commands {
    fn select_db(&self, db: usize, out: &mut Vec<u8>) {
        encode_request(out, [b"SELECT", db.to_string().as_bytes()].into_iter());
    }

    fn entry(&self, entry: EntryRef<'_>, out: &mut Vec<u8>) {
        let key = entry.key;
        match entry.value {
            ValueRef::Str(value) => encode_request(out, [b"SET", key, value].into_iter()),
            ValueRef::Hash(hash) => {
                let fields: Vec<_> = hash.iter().flat_map(|(field, value)| [field, value]).collect();
                put(out, b"HSET", key, &fields, 2 * ELEMENTS_MAX);
            }
            ValueRef::Set(set) => put(out, b"SADD", key, &set.iter().collect::<Vec<_>>(), ELEMENTS_MAX),
            ValueRef::List(list) => put(out, b"RPUSH", key, &list.iter().collect::<Vec<_>>(), ELEMENTS_MAX),
            ValueRef::SortedSet(set) => put_scores(out, key, set),
        }
        if let Some(at) = entry.expires_at_ms {
            encode_request(out, [b"PEXPIREAT", key, at.to_string().as_bytes()].into_iter());
        }
    }
}

fn put(out: &mut Vec<u8>, command: &[u8], key: &[u8], elements: &[&[u8]], count: usize) {
    for some in elements.chunks(count) {
        let request: Vec<&[u8]> = [command, key].into_iter().chain(some.iter().copied()).collect();
        encode_request(out, request.into_iter());
    }
}

fn put_scores(out: &mut Vec<u8>, key: &[u8], set: &SortedSet) {
    let scores: Vec<String> = set.iter().map(|member| format_double(member.score)).collect();
    let pairs: Vec<&[u8]> = scores.iter().zip(set.iter()).flat_map(|(score, member)| [score.as_bytes(), &*member.name]).collect();
    put(out, b"ZADD", key, &pairs, 2 * ELEMENTS_MAX);
}
