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

use parking_lot::MutexGuard;

use crate::{
    keyspace::{
        Keyspace, Now, Usage, ValueRef,
        arena::Handle,
        entry::{self, Entry, Form},
        garbage::Dismantling,
        index::Index,
        leaving::FREED_PER_SLICE_MAX,
        shard::{Shard, Sweep},
    },
    pace::Pace,
};

/// Bytes that a slice of the walk hands over per hold of a shard's lock, about 20 µs; one entry more when it is larger.
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

/// How entries become bytes. May be called with a shard locked: it must not block.
pub(crate) trait Encode: fmt::Debug + Send + Sync {
    /// Says that the entries behind it are of this database.
    fn select_db(&self, db: usize, out: &mut Vec<u8>);
    fn entry(&self, entry: EntryRef<'_>, out: &mut Vec<u8>);
}

/// What a shard has for the snapshot that runs.
#[derive(Debug)]
pub(super) struct Capture {
    form: EntryForm,
    /// What was handed over and not yet taken: with many writes as much as the entries that they changed, each once.
    pending: Pending,
    /// Entries not handed over yet.
    left: usize,
}

/// How a snapshot wants its entries.
#[derive(Clone, Debug)]
struct EntryForm {
    encode: Arc<dyn Encode>,
    usage: UsageKind,
    /// The moment of the snapshot.
    now: Now,
}

/// Entries that were handed over. Those that lie in one slot are copied as they are, and encoded when no lock is held: that takes ten
/// times as long.
#[derive(Debug, Default)]
struct Pending {
    slots: Vec<u8>,
    /// Database and length of each.
    lengths: Vec<(u32, u32)>,
    /// Entries with an object beside them, encoded.
    encoded: Vec<u8>,
    encoded_db: Option<usize>,
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
    form: EntryForm,
    pace: Pace,
    /// What was taken last: the room for the next ones.
    taken: Pending,
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
        let form = EntryForm { encode: Arc::clone(encode), usage, now };
        let mut sizes = vec![DbSize::default(); self.databases];
        let mut changes = 0;
        let mut guards: Vec<_> = self.cells.iter().map(|cell| cell.shard.lock()).collect();
        for shard in &mut guards {
            for (size, table) in sizes.iter_mut().zip(&shard.tables) {
                size.keys += table.len();
                size.volatile += table.volatile_len();
            }
            changes += shard.counters.changes;
            shard.begin_capture(&form);
        }
        let result = cut();
        drop(guards);
        let snapshot = Snapshot {
            keyspace: self,
            sizes,
            changes,
            shard: 0,
            cursor: Sweep::default(),
            flushed: None,
            form,
            pace: Pace::default(),
            taken: Pending::default(),
            chunk: Vec::new(),
        };
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

    /// The next entries, encoded. `None` at the end. Holds one shard's lock for about 20 µs, longer for a single large collection, and
    /// gives the core up before and after it encodes, which takes about 100 µs.
    pub(crate) fn next_chunk(&mut self) -> Option<&[u8]> {
        while self.advance() {
            self.taken.encode(&self.form, &mut self.chunk);
            self.pace.step();
            if !self.chunk.is_empty() {
                return Some(&self.chunk);
            }
        }
        None
    }

    /// Takes one slice more. `false` at the end of the keyspace.
    fn advance(&mut self) -> bool {
        if self.shard == self.keyspace.cells.len() {
            return false;
        }
        if self.slice() {
            self.shard += 1;
            self.cursor = Sweep::default();
            if let Some(shard) = self.flushed.take() {
                shard.dismantle(&mut Dismantling::default());
            }
        }
        true
    }

    /// Takes what is pending after one more slice. `true` when the shard has nothing more.
    fn slice(&mut self) -> bool {
        self.taken.clear();
        if self.flushed.is_none() {
            let mut guard = self.keyspace.cells[self.shard].shard.lock();
            self.flushed = guard.flushed.take();
            if self.flushed.is_none() {
                let is_done = guard.capture_slice(&mut self.cursor, &mut self.taken);
                self.keyspace.cells[self.shard].account(&guard);
                // Whoever waits is next: the walk comes back within microseconds and would go first again and again.
                MutexGuard::unlock_fair(guard);
                self.pace.step();
                return is_done;
            }
        }
        self.flushed.as_mut().is_none_or(|shard| shard.capture_slice(&mut self.cursor, &mut self.taken))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // An entry that keeps the other epoch would be missing from the next snapshot: the walk goes on to its end, and encodes nothing.
        while self.advance() {}
        self.keyspace.has_snapshot.store(false, Ordering::Release);
    }
}

impl Shard {
    fn begin_capture(&mut self, form: &EntryForm) {
        let left = self.tables.iter().map(Index::len).sum();
        self.epoch = !self.epoch;
        self.capture = (left > 0).then(|| Box::new(Capture { form: form.clone(), pending: Pending::default(), left }));
    }

    /// Hands an entry over to the snapshot that runs, if it does not have it yet. Called before an entry changes.
    pub(super) fn preserve(&mut self, db: usize, handle: Handle) {
        if self.capture.is_some() {
            self.hand_over(db, handle);
        }
    }

    #[cold]
    fn hand_over(&mut self, db: usize, handle: Handle) {
        if self.entry_of(handle).epoch() == self.epoch {
            return;
        }
        let Some(mut capture) = self.capture.take() else { return };
        let entry = self.entry_of(handle);
        let Capture { form, pending, left } = &mut *capture;
        match entry.form() {
            Form::Object => {
                form.select_db(db, &mut pending.encoded_db, &mut pending.encoded);
                form.encode(entry, ValueRef::of_object(self.object(entry.object())), &mut pending.encoded);
            }
            _ => {
                pending.slots.extend_from_slice(entry.0);
                pending.lengths.push((db as u32, entry.0.len() as u32));
            }
        }
        *left -= 1;
        self.capture = Some(capture);
        let epoch = self.epoch;
        entry::set_epoch(self.slot_of_mut(handle), epoch);
    }

    /// One slice of the walk from `cursor` on. `taken`, which is empty, gets what is pending by then. `true` when the snapshot has all of
    /// this shard.
    fn capture_slice(&mut self, cursor: &mut Sweep, taken: &mut Pending) -> bool {
        let mut looked_at = 0;
        while looked_at < SLICE_POSITIONS_MAX
            && self.capture.as_ref().is_some_and(|capture| capture.has_room())
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
                if let Some(handle) = self.tables[cursor.db].at(position) {
                    self.hand_over(cursor.db, handle);
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
        let is_behind_tables = cursor.db >= self.tables.len();
        // What was flushed meanwhile comes last, and is freed in the same go.
        let mut is_more = is_behind_tables;
        for _ in 0..FREED_PER_SLICE_MAX {
            if !is_more || !self.capture.as_ref().is_some_and(|capture| capture.has_room()) {
                break;
            }
            is_more = self.free_leaving(1, true);
        }
        let Some(capture) = &mut self.capture else { return true };
        std::mem::swap(&mut capture.pending, taken);
        let is_done = capture.left == 0 || is_behind_tables && !is_more;
        if is_done {
            self.capture = None;
            self.leaving.iter_mut().for_each(|leaving| leaving.is_captured = false);
        }
        is_done
    }
}

impl Capture {
    fn has_room(&self) -> bool {
        self.left > 0 && self.pending.bytes() < SLICE_BYTES_MAX
    }

    /// Whether the snapshot still needs entries of the shard, or has not taken what they were.
    pub(super) fn is_needed(&self) -> bool {
        self.left > 0 || self.pending.bytes() > 0
    }
}

impl EntryForm {
    fn select_db(&self, db: usize, selected: &mut Option<usize>, out: &mut Vec<u8>) {
        if *selected != Some(db) {
            *selected = Some(db);
            self.encode.select_db(db, out);
        }
    }

    fn encode(&self, entry: Entry<'_>, value: ValueRef<'_>, out: &mut Vec<u8>) {
        let usage = match self.usage {
            UsageKind::None => Usage::Unknown,
            UsageKind::Idle => Usage::IdleSeconds(entry.access().idle_ms(self.now) / 1000),
            UsageKind::Frequency => Usage::Frequency(entry.access().frequency(self.now) as u8),
        };
        self.encode.entry(EntryRef { key: entry.key(), value, expires_at_ms: entry.expires_at_ms(), usage }, out);
    }
}

impl Pending {
    fn bytes(&self) -> usize {
        self.slots.len() + self.encoded.len()
    }

    fn clear(&mut self) {
        /// What a burst of writes left is given back.
        const CAPACITY_KEPT: usize = 4 * SLICE_BYTES_MAX;
        let Pending { slots, lengths, encoded, encoded_db } = self;
        for bytes in [slots, encoded] {
            bytes.clear();
            bytes.shrink_to(CAPACITY_KEPT);
        }
        lengths.clear();
        lengths.shrink_to(CAPACITY_KEPT);
        *encoded_db = None;
    }

    /// Encodes everything into `out`, in the place of what is there.
    fn encode(&self, form: &EntryForm, out: &mut Vec<u8>) {
        out.clear();
        let mut selected = None;
        let mut rest = &*self.slots;
        for (db, length) in &self.lengths {
            let (slot, behind) = rest.split_at(*length as usize);
            rest = behind;
            form.select_db(*db as usize, &mut selected, out);
            let entry = Entry(slot);
            form.encode(entry, ValueRef::of_inline(entry.form(), entry.value()), out);
        }
        // It begins with the database that it is for.
        out.extend_from_slice(&self.encoded);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::{Encode, EntryRef, Snapshot, UsageKind};
    use crate::keyspace::{Change, ChangeSink, Changed, Class, Collection as _, Hash, Keys, Keyspace, Now, Set, Str, ValueRef};

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
        match random.random_range(0..10) {
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
            8 => {
                let piece = vec![b'a'; random.random_range(1..3_000)];
                let _ = keys.edit_or_create::<Str, _>(key, (Class::String, "append"), |string| {
                    string.append(&piece);
                    (Changed::Yes, ())
                });
            }
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
            for number in 0..1_500 {
                let mut keys = keyspace.lock_all(random.random_range(0..DATABASES), NOW, &Nobody);
                change(&mut keys, &mut random);
                // What was flushed before the snapshot is in memory while it runs.
                if number % 400 == 399 {
                    drop(keys.flush());
                }
            }
            let expected = content(&keyspace);
            if seed % 2 == 0 {
                assert_eq!(content(&keyspace), expected, "it changes nothing but which epoch is whose");
            }
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
                        1..10 => drop(keys.flush()),
                        _ => change(&mut keys, &mut random),
                    }
                    drop(keys);
                    if random.random_range(0..50) == 0 {
                        keyspace.compact_slice(random.random_range(0..keyspace.shard_count()));
                    }
                    if random.random_range(0..50) == 0 {
                        keyspace.free_slice(random.random_range(0..keyspace.shard_count()));
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
