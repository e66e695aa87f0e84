//! A snapshot: every entry as it was at one moment, while commands go on.
//!
//! Nothing forks. Each entry carries one bit, its epoch. Beginning a snapshot turns the epoch of every shard over, under all locks, for
//! some microseconds: from then on an entry of the other epoch is one that the snapshot does not have yet. A walk hands entries over in
//! slices, and whoever is about to change one of the other epoch hands it over first, as it is. What is new, or was handed over, has the
//! shard's epoch: no list of keys is kept, and a write costs one look at an `Option` while no snapshot runs.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use crate::keyspace::{
    Keyspace, Now, Usage, ValueRef, entry,
    index::Index,
    keys::value_of,
    shard::{Shard, Sweep},
};

/// Bytes that a slice of the walk hands over per hold of a shard's lock, about 100 µs; one entry more when it is larger.
const SLICE_BYTES_MAX: usize = 32 * 1024;

/// Index positions that a slice looks at.
const SLICE_POSITIONS_MAX: usize = 2_048;

/// An entry as a snapshot gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryRef<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: ValueRef<'a>,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) usage: Usage,
}

/// How entries become bytes. Called with a shard locked: it must not block.
pub(crate) trait Encode: fmt::Debug + Send + Sync {
    /// Says that the entries behind it are of this database.
    fn select_db(&self, db: usize, out: &mut Vec<u8>);
    fn entry(&self, entry: EntryRef<'_>, out: &mut Vec<u8>);
}

/// What a shard has for the snapshot that runs.
#[derive(Debug)]
pub(super) struct Capture {
    encode: Arc<dyn Encode>,
    usage: UsageKind,
    /// The moment of the snapshot.
    now: Now,
    /// What was handed over and not yet taken: with many writes as much as the entries that they changed, each once.
    pending: Vec<u8>,
    pending_db: Option<usize>,
    /// Entries not handed over yet.
    left: usize,
}

/// What a snapshot tells of an entry's use: what `maxmemory-policy` goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageKind {
    None,
    Idle,
    Frequency,
}

/// Keys of a database at the moment of a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DbSize {
    pub(crate) keys: usize,
    pub(crate) volatile: usize,
}

/// A snapshot that runs. One at a time; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    keyspace: &'a Keyspace,
    sizes: Vec<DbSize>,
    changes: u64,
    shard: usize,
    cursor: Sweep,
    /// The shard that a flush took out while it was being walked.
    flushed: Option<Box<Shard>>,
    /// Bytes that were taken last: the room for the next ones.
    chunk: Vec<u8>,
}

impl Keyspace {
    /// Begins a snapshot and calls `cut` in its very moment, with all shards locked. `None` while another one runs.
    pub(crate) fn begin_snapshot<T>(
        &self,
        encode: &Arc<dyn Encode>,
        usage: UsageKind,
        now: Now,
        cut: impl FnOnce() -> T,
    ) -> Option<(Snapshot<'_>, T)> {
        self.has_snapshot.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).ok()?;
        let mut sizes = vec![DbSize::default(); self.databases];
        let mut changes = 0;
        let mut guards: Vec<_> = self.cells.iter().map(|cell| cell.shard.lock()).collect();
        for shard in &mut guards {
            for (size, table) in sizes.iter_mut().zip(&shard.tables) {
                size.keys += table.len();
                size.volatile += table.volatile_len();
            }
            changes += shard.counters.changes;
            shard.begin_capture(encode, usage, now);
        }
        let result = cut();
        drop(guards);
        let snapshot =
            Snapshot { keyspace: self, sizes, changes, shard: 0, cursor: Sweep::default(), flushed: None, chunk: Vec::new() };
        Some((snapshot, result))
    }
}

impl Snapshot<'_> {
    /// How many keys each database has in the snapshot.
    pub(crate) fn sizes(&self) -> &[DbSize] {
        &self.sizes
    }

    /// The keyspace's count of changes at its moment.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The next entries, encoded. `None` at the end. Holds one shard's lock for about 100 µs, longer for a single large collection.
    pub(crate) fn next_chunk(&mut self) -> Option<&[u8]> {
        loop {
            if self.shard == self.keyspace.cells.len() {
                return None;
            }
            let (chunk, is_done) = self.slice();
            self.chunk = chunk;
            if is_done {
                self.shard += 1;
                self.cursor = Sweep::default();
                self.flushed = None;
            }
            if !self.chunk.is_empty() {
                return Some(&self.chunk);
            }
        }
    }

    fn slice(&mut self) -> (Vec<u8>, bool) {
        if let Some(shard) = &mut self.flushed {
            return shard.capture_slice(&mut self.cursor);
        }
        let mut guard = self.keyspace.cells[self.shard].shard.lock();
        self.flushed = guard.flushed.take();
        match &mut self.flushed {
            Some(shard) => {
                drop(guard);
                shard.capture_slice(&mut self.cursor)
            }
            None => guard.capture_slice(&mut self.cursor),
        }
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // An entry that keeps the other epoch would be missing from the next snapshot: the walk goes on to its end for nobody.
        while self.next_chunk().is_some() {}
        self.keyspace.has_snapshot.store(false, Ordering::Release);
    }
}

impl Shard {
    fn begin_capture(&mut self, encode: &Arc<dyn Encode>, usage: UsageKind, now: Now) {
        let left = self.tables.iter().map(Index::len).sum();
        self.epoch = !self.epoch;
        self.capture = (left > 0).then(|| {
            let encode = Arc::clone(encode);
            Box::new(Capture { encode, usage, now, pending: Vec::new(), pending_db: None, left })
        });
    }

    /// Hands an entry over to the snapshot that runs, if it does not have it yet. Called before an entry changes.
    pub(super) fn preserve(&mut self, db: usize, position: usize) {
        if self.capture.is_some() {
            self.hand_over(db, position);
        }
    }

    #[cold]
    fn hand_over(&mut self, db: usize, position: usize) {
        if self.entry(db, position).epoch() == self.epoch {
            return;
        }
        let Some(mut capture) = self.capture.take() else { return };
        let entry = self.entry(db, position);
        if capture.pending_db != Some(db) {
            capture.encode.select_db(db, &mut capture.pending);
            capture.pending_db = Some(db);
        }
        let value = value_of(self, db, position);
        let usage = match capture.usage {
            UsageKind::None => Usage::Unknown,
            UsageKind::Idle => Usage::IdleSeconds(entry.access().idle_ms(capture.now) / 1000),
            UsageKind::Frequency => Usage::Frequency(entry.access().frequency(capture.now) as u8),
        };
        let expires_at_ms = entry.expires_at_ms();
        capture.encode.entry(EntryRef { key: entry.key(), value, expires_at_ms, usage }, &mut capture.pending);
        capture.left -= 1;
        self.capture = Some(capture);
        let epoch = self.epoch;
        entry::set_epoch(self.slot_mut(db, position), epoch);
    }

    /// One slice of the walk from `cursor` on: gives what is pending by then, and whether the snapshot has all of this shard.
    fn capture_slice(&mut self, cursor: &mut Sweep) -> (Vec<u8>, bool) {
        let mut looked_at = 0;
        while looked_at < SLICE_POSITIONS_MAX
            && let Some(capture) = &self.capture
            && capture.left > 0
            && capture.pending.len() < SLICE_BYTES_MAX
            && let Some(table) = self.tables.get(cursor.db)
        {
            // By hash and not by position: what is added and removed between slices moves the others.
            let Some(start) = table.first_from(cursor.hash) else {
                *cursor = Sweep { db: cursor.db + 1, hash: 0 };
                continue;
            };
            let mut position = start;
            while looked_at < SLICE_POSITIONS_MAX && self.capture.as_ref().is_some_and(|capture| capture.has_room()) {
                looked_at += 1;
                if self.tables[cursor.db].at(position).is_some() {
                    self.hand_over(cursor.db, position);
                }
                position += 1;
                if position >= self.tables[cursor.db].positions() {
                    break;
                }
            }
            // Others of the last one's hash may stand behind it: that hash is begun again, and those that went are passed over.
            let table = &self.tables[cursor.db];
            *cursor = match table.next_hash(position) {
                Some(hash) => Sweep { db: cursor.db, hash },
                None => Sweep { db: cursor.db + 1, hash: 0 },
            };
        }
        let Some(capture) = &mut self.capture else { return (Vec::new(), true) };
        capture.pending_db = None;
        let pending = std::mem::take(&mut capture.pending);
        let is_done = capture.left == 0 || cursor.db >= self.tables.len();
        if is_done {
            self.capture = None;
        }
        (pending, is_done)
    }
}

impl Capture {
    fn has_room(&self) -> bool {
        self.left > 0 && self.pending.len() < SLICE_BYTES_MAX
    }

    /// Whether the snapshot still needs entries of the shard, or has not taken what they were.
    pub(super) fn is_needed(&self) -> bool {
        self.left > 0 || !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::{Encode, EntryRef, Snapshot, UsageKind};
    use crate::keyspace::{Change, ChangeSink, Changed, Class, Collection as _, Hash, Keys, Keyspace, Now, Set, ValueRef};

    struct Nobody;

    impl ChangeSink for Nobody {
        fn take(&self, _: Change<'_>) {}
    }

    /// Lines of database, key, value and time.
    #[derive(Debug)]
    struct Lines;

    impl Encode for Lines {
        fn select_db(&self, db: usize, out: &mut Vec<u8>) {
            out.extend(format!("db {db}\n").bytes());
        }

        fn entry(&self, entry: EntryRef<'_>, out: &mut Vec<u8>) {
            let value = match entry.value {
                ValueRef::Str(text) => format!("{text:?}"),
                ValueRef::Hash(hash) => format!("{:?}", hash.iter().collect::<BTreeMap<_, _>>()),
                ValueRef::Set(set) => format!("{:?}", set.iter().collect::<std::collections::BTreeSet<_>>()),
                _ => unreachable!("the test has none"),
            };
            let key = String::from_utf8_lossy(entry.key);
            out.extend(format!("{key} {value} {:?}\n", entry.expires_at_ms).bytes());
        }
    }

    type Content = BTreeMap<(usize, String), String>;

    fn add(content: &mut Content, chunk: &[u8]) {
        let mut db = None;
        for line in String::from_utf8_lossy(chunk).lines() {
            match line.strip_prefix("db ") {
                Some(number) => db = Some(number.parse().expect("a number")),
                None => {
                    let (key, rest) = line.split_once(' ').expect("key and value");
                    let before = content.insert((db.expect("a chunk says its database"), key.to_owned()), rest.to_owned());
                    assert_eq!(before, None, "{key} came twice");
                }
            }
        }
    }

    fn rest(mut snapshot: Snapshot<'_>, content: &mut Content) {
        while let Some(chunk) = snapshot.next_chunk() {
            add(content, chunk);
        }
    }

    const NOW: Now = Now { unix_ms: 1_795_000_000_000 };
    const DATABASES: usize = 3;

    fn change(keys: &mut Keys<'_>, random: &mut SmallRng) {
        let key = format!("key-{}", random.random_range(0..1_000));
        let key = key.as_bytes();
        let text = vec![b'v'; random.random_range(0..200)];
        match random.random_range(0..9) {
            0 | 1 => keys.set_string(key, &text, None),
            2 => drop(keys.delete(key)),
            3 => drop(keys.set_expiry(key, Some(NOW.unix_ms + random.random_range(1..100_000)))),
            4 => drop(
                keys.edit_or_create::<Hash, _>(key, (Class::Hash, "hset"), |hash| (Changed::from(hash.insert(&text, b"v")), ())),
            ),
            5 | 6 => {
                let member = random.random_range(0..400_u32).to_string();
                let _ = keys.edit_or_create::<Set, _>(key, (Class::Set, "sadd"), |set| {
                    (Changed::from(set.insert(member.as_bytes())), ())
                });
            }
            7 => drop(keys.take(key)),
            _ => {
                let mut hash = Hash::default();
                for number in 0..random.random_range(110..150_u32) {
                    hash.insert(&number.to_le_bytes(), b"w");
                }
                keys.set(key, hash.into_value(), None);
            }
        }
    }

    /// What a snapshot gives while nothing changes.
    fn content(keyspace: &Keyspace) -> Content {
        let encode: Arc<dyn Encode> = Arc::new(Lines);
        let (snapshot, ()) = keyspace.begin_snapshot(&encode, UsageKind::None, NOW, || ()).expect("no other runs");
        let mut content = Content::new();
        rest(snapshot, &mut content);
        content
    }

    #[test]
    fn it_holds_what_was_there_at_its_moment_whatever_is_written_meanwhile() {
        let encode: Arc<dyn Encode> = Arc::new(Lines);
        for seed in 0..12 {
            let mut random = SmallRng::seed_from_u64(seed);
            let keyspace = Keyspace::new(DATABASES);
            for _ in 0..1_500 {
                change(&mut keyspace.lock_all(random.random_range(0..DATABASES), NOW, &Nobody), &mut random);
            }
            let expected = content(&keyspace);
            let total: usize = (0..DATABASES).map(|db| keyspace.lock_all(db, NOW, &Nobody).len()).sum();
            assert_eq!(expected.len(), total);
            let (mut snapshot, ()) = keyspace.begin_snapshot(&encode, UsageKind::None, NOW, || ()).expect("no other runs");
            assert!(keyspace.begin_snapshot(&encode, UsageKind::None, NOW, || ()).is_none(), "one at a time");
            let mut found = Content::new();
            let mut is_cut_off = false;
            for round in 0.. {
                for _ in 0..random.random_range(0..200) {
                    let mut keys = keyspace.lock_all(random.random_range(0..DATABASES), NOW, &Nobody);
                    match random.random_range(0..4_000) {
                        0 => drop(keys.flush_all()),
                        1 => drop(keys.flush()),
                        _ => change(&mut keys, &mut random),
                    }
                    drop(keys);
                    if random.random_range(0..50) == 0 {
                        keyspace.compact_slice(random.random_range(0..keyspace.shard_count()));
                    }
                }
                // One that is given up halfway leaves nothing behind.
                if seed % 4 == 3 && round == 10 {
                    is_cut_off = true;
                    break;
                }
                match snapshot.next_chunk() {
                    Some(chunk) => add(&mut found, chunk),
                    None => break,
                }
            }
            drop(snapshot);
            if !is_cut_off {
                let differing: Vec<_> = expected.iter().filter(|(key, value)| found.get(*key) != Some(value)).take(3).collect();
                assert!(differing.is_empty(), "seed {seed}: {differing:?}");
                assert_eq!(found.len(), expected.len());
            }
            let after = content(&keyspace);
            let total: usize = (0..DATABASES).map(|db| keyspace.lock_all(db, NOW, &Nobody).len()).sum();
            assert_eq!(after.len(), total, "the next snapshot has every key");
        }
    }
}
