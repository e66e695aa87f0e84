//! Expiry ahead of access: keys whose time has come go away although nobody asks for them.

use crate::keyspace::{ChangeSink, Keyspace, Now, Record, arena::Storage, garbage::Garbage, index_hash, shard::Sweep};

/// Keys removed per hold of a shard's lock: about 50 µs, so that nobody waits long behind a mass expiry.
const EXPIRED_PER_SLICE_MAX: usize = 200;

/// Index positions looked at per hold of a shard's lock: about 10 µs.
const POSITIONS_PER_SLICE_MAX: usize = 128 * 1024;

/// Chunks whose pages go back at once: about 60 µs.
const RELEASED_PER_SLICE_MAX: usize = 4;

/// Entries moved per hold of a shard's lock, when what holds few of them is emptied.
const MOVED_PER_SLICE_MAX: usize = 200;

impl Keyspace {
    /// One slice of the sweep through a shard: removes the expired keys it meets. `true` when the sweep has not come to its end.
    /// What follows a stream removes what that says, and nothing else.
    pub(crate) fn expire_slice(&self, shard: usize, now: Now, sink: &dyn ChangeSink) -> bool {
        let cell = &self.cells[shard];
        let mut guard = cell.shard.lock();
        // Behind the lock: roles change with every shard locked.
        if self.is_follower() {
            return false;
        }
        let shard = &mut *guard;
        shard.follow_clock(now);
        if shard.sweep == Sweep::default() && !shard.begin_sweep(now) {
            return false;
        }
        let mut record = sink.wants_records().then(Record::default);
        let mut looked_at = 0;
        let mut removed = 0;
        let mut expired = Vec::new();
        while looked_at < POSITIONS_PER_SLICE_MAX && removed < EXPIRED_PER_SLICE_MAX {
            let Sweep { db, hash } = shard.sweep;
            let Some(table) = shard.tables.get(db) else {
                shard.sweep = Sweep::default();
                break;
            };
            // By hash and not by position: an index that shrinks under the sweep moves everything.
            let start = table.first_from(hash).unwrap_or(table.positions());
            let end = (start + POSITIONS_PER_SLICE_MAX - looked_at).min(table.positions()).max(start);
            let mut next = start;
            expired.clear();
            while removed + expired.len() < EXPIRED_PER_SLICE_MAX {
                let Some(due) = shard.tables[db].next_due(next, end, now.unix_ms) else {
                    next = end;
                    break;
                };
                next = due + 1;
                let entry = shard.entry(db, due);
                let expires_at_ms = entry.expires_at_ms();
                if !entry.is_expired(now.unix_ms) {
                    // Further away than the due time could tell.
                    shard.tables[db].set_due(due, expires_at_ms, now.unix_ms);
                    continue;
                }
                if let Some(record) = &mut record {
                    record.push_removal(db, entry.key());
                }
                expired.push(due);
            }
            looked_at += next - start + 1;
            removed += expired.len();
            let hash = shard.tables[db].next_hash(next);
            shard.expire_all(db, &expired, sink);
            shard.sweep = hash.map_or(Sweep { db: db + 1, hash: 0 }, |hash| Sweep { db, hash });
        }
        record.filter(|record| !record.is_empty()).map(|record| sink.record(&record));
        cell.account(shard);
        shard.sweep != Sweep::default()
    }

    /// One slice of giving back the pages of chunks that hold nothing more. `true` when there may be more of them.
    pub(crate) fn release_slice(&self, shard: usize) -> bool {
        let shard = &self.cells[shard].shard;
        // The lock goes first.
        let emptied = shard.lock().take_emptied(RELEASED_PER_SLICE_MAX);
        let count = emptied.len();
        // Those that keep their pages go as a whole.
        let spare: Vec<Storage> = emptied.into_iter().filter_map(|mut chunk| chunk.give_pages_back().then_some(chunk)).collect();
        if !spare.is_empty() {
            shard.lock().keep_spare(spare);
        }
        count == RELEASED_PER_SLICE_MAX
    }

    /// Has large values that were removed freed aside.
    pub(crate) fn free_discarded(&self) {
        let values = self.cells.iter().flat_map(|cell| cell.shard.lock().take_discarded()).collect();
        Garbage { shards: Vec::new(), values }.drop_aside();
    }

    /// One slice of giving memory back: moves entries out of spans and chunks that hold few, so that those serve others or are unmapped. `true` when there
    /// may be more to do.
    pub(crate) fn compact_slice(&self, shard: usize) -> bool {
        let cell = &self.cells[shard];
        let mut shard = cell.shard.lock();
        let has_more = shard.compact(MOVED_PER_SLICE_MAX, |key| index_hash(self.hash(key)));
        cell.account(&shard);
        has_more
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::RangeInclusive, sync::Mutex};

    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use crate::keyspace::{Change, ChangeSink, EvictionPolicy, Keyspace, Now};

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl ChangeSink for Recorder {
        fn take(&self, change: Change<'_>) {
            self.0.lock().expect("no panic while recording").push(change.event.to_owned());
        }
    }

    fn sweep(keyspace: &Keyspace, now: Now, sink: &dyn ChangeSink) {
        for shard in 0..keyspace.shard_count() {
            while keyspace.expire_slice(shard, now, sink) {}
        }
    }

    #[test]
    fn keys_go_when_their_time_has_come_and_their_memory_with_them() {
        let keyspace = Keyspace::new(3);
        let recorder = Recorder::default();
        let start = Now { unix_ms: 1_795_000_000_000 };
        for number in 0..30_000_u64 {
            let key = format!("key-{number}");
            let mut keys = keyspace.lock_all((number % 3) as usize, start, &recorder);
            keys.set_string(key.as_bytes(), &[b'v'; 300], Some(start.unix_ms + 1_000 + number % 10 * 1_000));
        }
        let full = keyspace.used_bytes();
        sweep(&keyspace, start, &recorder);
        assert_eq!(keyspace.used_bytes(), full, "nothing is due yet");
        let later = Now { unix_ms: start.unix_ms + 5_000 };
        sweep(&keyspace, later, &recorder);
        for db in 0..3 {
            let keys = keyspace.lock_all(db, later, &recorder);
            assert_eq!((keys.len(), keys.counters().expired), (5_000, 15_000));
        }
        assert!(keyspace.used_bytes() * 100 < full * 55);
        sweep(&keyspace, Now { unix_ms: start.unix_ms + 20_000 }, &recorder);
        assert!(keyspace.used_bytes() * 100 < full);
        let events = recorder.0.lock().expect("no panic while recording");
        assert_eq!(events.iter().filter(|event| *event == "expired").count(), 30_000);
    }

    #[test]
    fn a_shard_is_swept_once_in_a_tick_and_the_next_one_finds_what_came_since() {
        let keyspace = Keyspace::new(1);
        let recorder = Recorder::default();
        let start = Now { unix_ms: 1_795_000_000_000 };
        sweep(&keyspace, start, &recorder);
        keyspace.lock_all(0, start, &recorder).set_string(b"past", b"v", Some(start.unix_ms - 1));
        let lengths = [0, 200, 249, 250].map(|ms| {
            let now = Now { unix_ms: start.unix_ms + ms };
            sweep(&keyspace, now, &recorder);
            keyspace.lock_all(0, now, &recorder).len()
        });
        assert_eq!(lengths, [1, 1, 1, 0]);
    }

    #[test]
    fn a_clock_that_jumps_keeps_nothing_alive_and_ends_nothing_early() {
        const HOUR_MS: u64 = 3_600_000;
        let keyspace = Keyspace::new(1);
        let recorder = Recorder::default();
        let start = Now { unix_ms: 1_795_000_000_000 };
        for number in 0..2_000_u64 {
            let mut keys = keyspace.lock_all(0, start, &recorder);
            keys.set_string(format!("key-{number}").as_bytes(), b"v", Some(start.unix_ms + number % 2 * 24 * HOUR_MS + HOUR_MS));
        }
        sweep(&keyspace, start, &recorder);
        // Three hours at once: more than a due time of 16 bits can tell.
        let later = Now { unix_ms: start.unix_ms + 4 * HOUR_MS };
        sweep(&keyspace, later, &recorder);
        assert_eq!(keyspace.lock_all(0, later, &recorder).len(), 1_000);
        // And back: nothing comes to life again, nothing that still has time goes.
        sweep(&keyspace, start, &recorder);
        assert_eq!(keyspace.lock_all(0, start, &recorder).len(), 1_000);
        sweep(&keyspace, Now { unix_ms: start.unix_ms + 25 * HOUR_MS }, &recorder);
        assert_eq!(keyspace.lock_all(0, start, &recorder).len(), 0);
    }

    #[test]
    fn pages_that_a_mass_removal_left_sparse_are_given_back() {
        let keyspace = Keyspace::new(2);
        let recorder = Recorder::default();
        let start = Now { unix_ms: 1_795_000_000_000 };
        let ends = start.unix_ms + 1_000;
        for number in 0..40_000_u64 {
            // Large entries, so that each shard has several pages of them.
            let key = format!("key-{number:02000}");
            let mut keys = keyspace.lock_all((number % 2) as usize, start, &recorder);
            keys.set_string(key.as_bytes(), &key.as_bytes()[1_900..], (number % 10 != 0).then_some(ends));
            if number % 1_000 == 0 {
                let mut hash = crate::keyspace::Hash::default();
                hash.insert(b"field", b"value");
                keys.set(format!("hash-{number}").as_bytes(), crate::keyspace::Collection::into_value(hash), None);
            }
        }
        sweep(&keyspace, Now { unix_ms: ends }, &recorder);
        let (before, _) = keyspace.lock_all(0, start, &recorder).mapped_and_used_bytes();
        let mut slices = 0;
        for shard in 0..keyspace.shard_count() {
            while keyspace.compact_slice(shard) || keyspace.release_slice(shard) {
                slices += 1;
                assert!(slices < 10_000, "it comes to an end");
            }
        }
        let (after, _) = keyspace.lock_all(0, start, &recorder).mapped_and_used_bytes();
        assert!(after * 2 < before, "{after} {before}");
        for db in 0..2 {
            let mut keys = keyspace.lock_all(db, Now { unix_ms: ends }, &recorder);
            for number in (0..40_000_u64).step_by(10).filter(|number| (number % 2) as usize == db) {
                let key = format!("key-{number:02000}");
                assert_eq!(keys.string(key.as_bytes()), Ok(Some(&key.as_bytes()[1_900..])));
                if number % 1_000 == 0 {
                    let hash = keys.hash(format!("hash-{number}").as_bytes()).expect("a hash").expect("it has no time to live");
                    assert_eq!(hash.get(b"field"), Some(&b"value"[..]));
                }
            }
        }
    }

    #[test]
    fn an_expired_key_is_absent_before_anyone_swept() {
        let keyspace = Keyspace::new(1);
        let recorder = Recorder::default();
        let mut keys = keyspace.lock_all(0, Now { unix_ms: 1_000 }, &recorder);
        keys.set_string(b"k", b"v", Some(1_500));
        assert!(keys.get(b"k").is_some());
        drop(keys);
        let mut keys = keyspace.lock_all(0, Now { unix_ms: 1_500 }, &recorder);
        assert!(keys.get(b"k").is_none());
        assert_eq!(keys.len(), 0);
    }

    /// Gives back what a tick of the worker threads would.
    fn upkeep(keyspace: &Keyspace) {
        for shard in 0..keyspace.shard_count() {
            let mut slices = 0;
            while slices < 10 && keyspace.compact_slice(shard) {
                slices += 1;
            }
            while keyspace.release_slice(shard) {}
        }
    }

    /// What the sizes of one time leave behind serves those of the next, and what it cannot serve does not have all evicted.
    #[test]
    fn memory_follows_what_is_used_while_sizes_change() {
        // The smaller a shard is, the more of it are chunks and spans that are partly full.
        for (bytes_max, mapped_percent_max, found_percent_min) in [(32 << 20, 118, 80), (4 << 20, 200, 65)] {
            let (mapped, found) = churn(bytes_max);
            assert!(mapped * 100 < bytes_max * mapped_percent_max, "{mapped} bytes mapped of {bytes_max}");
            assert!(found * 100 > bytes_max * found_percent_min, "{found} bytes are left of {bytes_max}");
        }
    }

    /// Writes values of many sizes, that change with the time, into so much memory. Gives the bytes that are mapped at the most when a
    /// time ends, and the bytes of values that are there at the end.
    fn churn(bytes_max: usize) -> (usize, usize) {
        const SIZES: [RangeInclusive<usize>; 2] = [1_000..=4_096, 100..=1_000];
        let policy = EvictionPolicy::AllKeysRandom;
        let keyspace = Keyspace::new(1);
        let recorder = Recorder::default();
        let now = Now { unix_ms: 1_795_000_000_000 };
        let mut random = SmallRng::seed_from_u64(1);
        let value_of = |number: u64, bytes: usize| [number.to_le_bytes()[0]].repeat(bytes);
        let (mut sizes, mut mapped_max) = (Vec::new(), 0);
        for time in 0..4 {
            let mut written = 0;
            while written < bytes_max {
                assert!(keyspace.evict_to(bytes_max, policy, 5, now, &recorder));
                let bytes = random.random_range(SIZES[time % 2].clone());
                let key = format!("session-{}", sizes.len());
                let value = value_of(sizes.len() as u64, bytes);
                keyspace.lock([key.as_bytes()].into_iter(), 0, now, &recorder).set_string(key.as_bytes(), &value, None);
                sizes.push(bytes);
                written += bytes;
                if sizes.len() % 200 == 0 {
                    upkeep(&keyspace);
                }
            }
            upkeep(&keyspace);
            mapped_max = mapped_max.max(keyspace.lock_all(0, now, &recorder).mapped_and_used_bytes().0);
        }
        let mut keys = keyspace.lock_all(0, now, &recorder);
        let (mut found, mut found_bytes) = (0, 0);
        for (number, bytes) in sizes.into_iter().enumerate() {
            if let Some(value) = keys.string(format!("session-{number}").as_bytes()).expect("a string") {
                assert!(value == value_of(number as u64, bytes), "session-{number}");
                (found, found_bytes) = (found + 1, found_bytes + bytes);
            }
        }
        assert_eq!(found, keys.len());
        (mapped_max, found_bytes)
    }
}
