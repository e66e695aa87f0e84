//! Loading a snapshot.

use std::{
    fs::File,
    io::{self, Read},
    time::Instant,
};

use crate::{
    keyspace::Now,
    node::Shared,
    persistence::{
        file,
        rdb::{Decoder, Entry, Item, RdbError},
        saver::path,
        seal,
    },
    replication::PositionFields,
    server::now,
};

/// Keys that are put in place per hold of the locks.
const BATCH_KEYS_MAX: usize = 64;

/// What was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) keys: u64,
    /// Keys whose time had come, and which were left out.
    pub(crate) expired: u64,
}

/// Loads the snapshot that the configuration names, if persistence is configured and the file is there.
///
/// # Errors
/// When the file cannot be read, or is no whole RDB file: a node that started without its data would overwrite it.
pub(crate) fn load_at_start(shared: &Shared) -> io::Result<()> {
    let config = shared.config();
    if !config.has_persistence() {
        return Ok(());
    }
    let path = path(&config);
    let named = |what: String| io::Error::other(format!("cannot load {}: {what}", path.display()));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(named(error.to_string())),
    };
    let started = Instant::now();
    let bytes = file.metadata().map_err(|error| named(error.to_string()))?.len();
    shared.loading.begin(now(), bytes);
    let (reader, _) = seal::open(file::Loading::new(file, &shared.loading), config.encryption.as_ref())
        .map_err(|error| named(error.to_string()))?;
    let mut decoder = Decoder::new(reader, shared.keyspace.databases()).map_err(|error| named(error.to_string()))?;
    let mut fields = PositionFields::default();
    // Nothing expires meanwhile: what goes then would be in no stream.
    shared.keyspace.follow(true);
    let loaded = load_into(shared, &mut decoder, Expired::LeaveOut, |name, value| fields.take(name, value)).map_err(|error| {
        named(format!("{error}. Nothing was changed. Restore the file from a copy, or move it away to start empty."))
    })?;
    if let Some(position) = fields.position() {
        shared.replication.resume(shared, position, now());
    }
    shared.keyspace.follow(shared.replication.primary().is_some());
    shared.saver.loaded(loaded.keys, loaded.expired, shared.keyspace.changes());
    let took = started.elapsed();
    tracing::info!(keys = loaded.keys, expired = loaded.expired, ?took, file = %path.display(), "snapshot loaded");
    Ok(())
}

/// What becomes of keys whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// They are gone. But not where the file is one of a stream: replicas have them as well, and are told by it when they go.
    LeaveOut,
    /// They stay until the primary says so.
    Keep,
}

/// Puts everything that `decoder` reads into the keyspace; `aux` is told what the writer says of itself. Keys that are there already
/// and come again are overwritten.
///
/// # Errors
/// When the stream is no whole RDB; what was read until then stays in the keyspace.
pub(crate) fn load_into(
    shared: &Shared,
    decoder: &mut Decoder<impl Read>,
    expired: Expired,
    aux: impl FnMut(&[u8], &[u8]),
) -> Result<Loaded, RdbError> {
    load_while(shared, decoder, expired, || true, aux)
}

/// As [`load_into`], and ends as soon as `is_wanted` does not hold, which is asked with every shard locked.
///
/// # Errors
/// As [`load_into`], and when it ended so.
pub(crate) fn load_while(
    shared: &Shared,
    decoder: &mut Decoder<impl Read>,
    expired: Expired,
    is_wanted: impl Fn() -> bool,
    mut aux: impl FnMut(&[u8], &[u8]),
) -> Result<Loaded, RdbError> {
    let now = now();
    let mut expired = expired;
    let mut loaded = Loaded::default();
    let mut db = 0;
    let mut batch: Vec<Entry> = Vec::with_capacity(BATCH_KEYS_MAX);
    loop {
        let item = decoder.next()?;
        let is_full = batch.len() == BATCH_KEYS_MAX;
        if is_full || matches!(item, Item::Db(_) | Item::End) {
            put(shared, db, &mut batch, now, &is_wanted)?;
        }
        match item {
            Item::Db(next) => db = next,
            Item::Entry(entry) => {
                if expired == Expired::LeaveOut && entry.expires_at_ms.is_some_and(|at| at <= now.unix_ms) {
                    loaded.expired += 1;
                } else {
                    loaded.keys += 1;
                    batch.push(entry);
                }
            }
            Item::Aux(name, value) => {
                if name == *b"repl-id" {
                    expired = Expired::Keep;
                }
                aux(&name, &value);
            }
            Item::Skipped => {}
            Item::End => return Ok(loaded),
        }
    }
}

fn put(shared: &Shared, db: usize, batch: &mut Vec<Entry>, now: Now, is_wanted: &impl Fn() -> bool) -> Result<(), RdbError> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut keys = shared.keyspace.lock_all(db, now, shared);
    if !is_wanted() {
        return Err(RdbError::NotWanted);
    }
    keys.apply_only();
    for Entry { key, value, expires_at_ms, usage } in batch.drain(..) {
        keys.restore(&key, value, expires_at_ms, usage);
    }
    Ok(())
}
