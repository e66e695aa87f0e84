//! What a command may touch: one database's keys in the shards that it locked.

use std::sync::{Arc, atomic::Ordering};

use crate::keyspace::{
    Change, ChangeSink, Class, Collection, Guards, Keyspace, Kind, Now, Value, WatchFlag, WrongType,
    shard::{Shard, ShardCounters},
    table::{Entry, Table},
};

/// Whether an edit changed anything: only then watchers and listeners are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Yes,
    No,
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Changed {
        if changed { Changed::Yes } else { Changed::No }
    }
}

/// A view of one database at one moment, with the shards of its keys locked. Expired keys are not there: they are removed when met.
pub(crate) struct Keys<'a> {
    keyspace: &'a Keyspace,
    guards: Guards<'a>,
    db: usize,
    now: Now,
    sink: &'a dyn ChangeSink,
}

/// A key's place, valid until the next removal or insertion in its table.
#[derive(Clone, Copy)]
struct Place {
    guard: usize,
    position: usize,
}

impl<'a> Keys<'a> {
    pub(super) fn new(keyspace: &'a Keyspace, guards: Guards<'a>, db: usize, now: Now, sink: &'a dyn ChangeSink) -> Keys<'a> {
        Keys { keyspace, guards, db, now, sink }
    }

    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn db(&self) -> usize {
        self.db
    }

    /// SELECT. `false` when there is no such database.
    pub(crate) fn select(&mut self, db: usize) -> bool {
        let exists = db < self.keyspace.databases();
        if exists {
            self.db = db;
        }
        exists
    }

    /// The value, counted as a hit or a miss and as a use.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<&Value> {
        let place = self.find_used(key)?;
        Some(&self.entry(place).value)
    }

    /// The value if it is of the type asked for; counted as [`Keys::get`].
    pub(crate) fn read<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, WrongType> {
        self.get(key).map(T::of).transpose()
    }

    /// The value, uncounted: OBJECT, TYPE, TTL do not keep a key alive.
    pub(crate) fn peek(&mut self, key: &[u8]) -> Option<&Value> {
        let place = self.find(key)?;
        Some(&self.entry(place).value)
    }

    /// The value, uncounted, and with nothing removed: for several keys side by side, each of which was met before.
    pub(crate) fn look(&self, key: &[u8]) -> Option<&Value> {
        let hash = self.keyspace.hash(key);
        let table = &self.guards[self.guard_of_hash(hash)].1.tables[self.db];
        let entry = table.at(table.position(hash, key)?);
        (!is_expired(entry, self.now)).then_some(&entry.value)
    }

    pub(crate) fn contains(&mut self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// EXISTS, TOUCH: counted as [`Keys::get`].
    pub(crate) fn touch(&mut self, key: &[u8]) -> bool {
        self.find_used(key).is_some()
    }

    pub(crate) fn kind(&mut self, key: &[u8]) -> Option<Kind> {
        self.peek(key).map(Value::kind)
    }

    /// `None`: no such key. `Some(None)`: it has no time to live. Otherwise Unix time in milliseconds.
    pub(crate) fn expires_at_ms(&mut self, key: &[u8]) -> Option<Option<u64>> {
        let place = self.find(key)?;
        Some(self.entry(place).expires_at_ms())
    }

    /// Milliseconds since the key was last used, and its LFU counter.
    pub(crate) fn idle_and_frequency(&mut self, key: &[u8]) -> Option<(u64, u32)> {
        let place = self.find(key)?;
        let access = self.entry(place).access;
        Some((access.idle_ms(self.now), access.frequency(self.now)))
    }

    /// Bytes that the key takes with everything that belongs to it.
    pub(crate) fn used_bytes(&mut self, key: &[u8]) -> Option<usize> {
        let place = self.find(key)?;
        Some(self.entry(place).used_bytes())
    }

    /// Puts a value in the key's place, whatever was there. A time that has passed removes the key, as in Redis.
    pub(crate) fn set(&mut self, key: &[u8], value: Value, expires_at_ms: Option<u64>) {
        let access = self.keyspace.clock().created(self.now);
        match self.find(key) {
            Some(place) => {
                let table = self.table_mut(place.guard);
                let before = table.at(place.position).used_bytes();
                let entry = table.at_mut(place.position);
                entry.value = value;
                entry.access = access;
                table.set_expiry(place.position, expires_at_ms);
                let after = table.at(place.position).used_bytes();
                self.account(place.guard, before, after);
                self.changed(place.guard, key);
            }
            None => self.insert(key, value, expires_at_ms),
        }
    }

    /// Changes a value in place. `Ok(None)`: no such key. A collection that became empty is removed. `event` is told when the edit
    /// says [`Changed::Yes`].
    pub(crate) fn edit<T: Collection, R>(
        &mut self,
        key: &[u8],
        (class, event): (Class, &str),
        edit: impl FnOnce(&mut T) -> (Changed, R),
    ) -> Result<Option<R>, WrongType> {
        let Some(place) = self.find_to_change(key) else { return Ok(None) };
        self.edit_at(place, key, (class, event), edit).map(Some)
    }

    /// As [`Keys::edit`], and makes an empty value first where there is none. A value that stays empty is not kept.
    pub(crate) fn edit_or_create<T: Collection, R>(
        &mut self,
        key: &[u8],
        (class, event): (Class, &str),
        edit: impl FnOnce(&mut T) -> (Changed, R),
    ) -> Result<R, WrongType> {
        if let Some(place) = self.find_to_change(key) {
            return self.edit_at(place, key, (class, event), edit);
        }
        let mut value = T::default();
        let (changed, result) = edit(&mut value);
        if changed == Changed::Yes && !value.is_empty() {
            self.insert(key, value.into_value(), None);
            self.notify(class, event, key);
        }
        Ok(result)
    }

    fn edit_at<T: Collection, R>(
        &mut self,
        place: Place,
        key: &[u8],
        (class, event): (Class, &str),
        edit: impl FnOnce(&mut T) -> (Changed, R),
    ) -> Result<R, WrongType> {
        let table = self.table_mut(place.guard);
        let before = table.at(place.position).used_bytes();
        let value = T::of_mut(&mut table.at_mut(place.position).value)?;
        let (changed, result) = edit(value);
        let is_empty = value.is_empty();
        let after = table.at(place.position).used_bytes();
        self.account(place.guard, before, after);
        if changed == Changed::Yes {
            self.changed(place.guard, key);
            self.notify(class, event, key);
        }
        if is_empty {
            self.remove_at(place);
            self.notify(Class::Generic, "del", key);
        }
        Ok(result)
    }

    /// Removes a key and gives its value. Tells watchers; the caller tells the event.
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<(Value, Option<u64>)> {
        let place = self.find(key)?;
        let entry = self.remove_at(place);
        self.changed(place.guard, key);
        let expires_at_ms = entry.1;
        Some((entry.0, expires_at_ms))
    }

    /// DEL: removes a key and tells its event.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let existed = self.take(key).is_some();
        if existed {
            self.notify(Class::Generic, "del", key);
        }
        existed
    }

    /// Sets or takes away the time to live. `false` when there is no such key. A time that has passed deletes the key.
    pub(crate) fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>) -> bool {
        let Some(place) = self.find(key) else { return false };
        if expires_at_ms.is_some_and(|at| at <= self.now.unix_ms) {
            return self.delete(key);
        }
        let table = self.table_mut(place.guard);
        let before = table.at(place.position).used_bytes();
        table.set_expiry(place.position, expires_at_ms);
        let after = table.at(place.position).used_bytes();
        self.account(place.guard, before, after);
        self.changed(place.guard, key);
        true
    }

    /// Marks `flag` when the key changes; gives whether the key is there now.
    pub(crate) fn watch(&mut self, key: &[u8], flag: &Arc<WatchFlag>) {
        // An expired key goes first: its removal must not count as a change of what is watched from now on.
        self.find(key);
        let db = self.db;
        let guard = self.guard_of(key);
        self.guards[guard].1.watch(db, key, flag);
    }

    /// Forgets watchers of `key` whose connections hold no flag any more.
    pub(crate) fn unwatch_dead(&mut self, db: usize, key: &[u8]) {
        let guard = self.guard_of(key);
        self.guards[guard].1.unwatch_dead(db, key);
    }

    /// Tells an event about a key of this database.
    pub(crate) fn notify(&self, class: Class, event: &str, key: &[u8]) {
        self.sink.take(Change { class, event, db: self.db, key });
    }

    /// Keys of this database in the locked shards, the expired ones that nobody has met yet included (as DBSIZE in Redis).
    pub(crate) fn len(&self) -> usize {
        self.tables().map(Table::len).sum()
    }

    pub(crate) fn volatile_len(&self) -> usize {
        self.tables().map(Table::volatile_len).sum()
    }

    /// Every live key of this database. O(n), with all shards locked: KEYS.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8])) {
        for table in self.tables() {
            for position in 0..table.len() {
                let entry = table.at(position);
                if !is_expired(entry, self.now) {
                    visit(&entry.key);
                }
            }
        }
    }

    /// Visits about `count` entries after `cursor` and gives the cursor to go on with, 0 at the end. A key that is there from the
    /// first call to the last is visited at least once, whatever is added and removed between. Needs all shards.
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], Kind)) -> u64 {
        let mut at = ScanCursor::decode(cursor);
        let mut visited = 0;
        while let Some((_, guard)) = self.guards.get(at.shard) {
            let table = &guard.tables[self.db];
            let mut position = at.below.min(table.len());
            while position > 0 && visited < count {
                position -= 1;
                visited += 1;
                let entry = table.at(position);
                if !is_expired(entry, self.now) {
                    visit(&entry.key, entry.value.kind());
                }
            }
            if position > 0 {
                return ScanCursor { shard: at.shard, below: position }.encode();
            }
            at = ScanCursor { shard: at.shard + 1, below: ScanCursor::WHOLE };
            if visited >= count && at.shard < self.guards.len() {
                return at.encode();
            }
        }
        0
    }

    /// A key chosen at random among the live ones. Needs all shards. Bounded tries: a database of expired keys gives none.
    pub(crate) fn random_key(&mut self) -> Option<Vec<u8>> {
        const TRIES_MAX: usize = 100;
        let total = self.len();
        for _ in 0..TRIES_MAX.min(total * 2) {
            let mut index = rand::random_range(0..total);
            for table in self.tables() {
                if index < table.len() {
                    let entry = table.at(index);
                    if !is_expired(entry, self.now) {
                        return Some(entry.key.to_vec());
                    }
                    break;
                }
                index -= table.len();
            }
        }
        None
    }

    /// Empties this database. Needs all shards. The old tables are given back, so that the caller can drop them without a lock.
    pub(crate) fn flush(&mut self) -> Flushed {
        let db = self.db;
        Flushed { _tables: (0..self.guards.len()).map(|guard| self.flush_table(guard, db)).collect() }
    }

    /// Empties every database. Needs all shards.
    pub(crate) fn flush_all(&mut self) -> Flushed {
        let databases = self.keyspace.databases();
        let tables = (0..self.guards.len()).flat_map(|guard| (0..databases).map(move |db| (guard, db)));
        Flushed { _tables: tables.collect::<Vec<_>>().into_iter().map(|(guard, db)| self.flush_table(guard, db)).collect() }
    }

    fn flush_table(&mut self, guard: usize, db: usize) -> Table {
        let keyspace = self.keyspace;
        let (index, shard) = &mut self.guards[guard];
        let table = std::mem::take(&mut shard.tables[db]);
        shard.flushed(db, |key| table.position(keyspace.hash(key), key).is_some());
        let bytes: usize = (0..table.len()).map(|position| table.at(position).used_bytes()).sum();
        shard.used_bytes -= bytes;
        shard.counters.changes += table.len() as u64;
        keyspace.cells[*index].used_bytes.store(shard.used_bytes, Ordering::Relaxed);
        table
    }

    pub(crate) fn counters(&self) -> ShardCounters {
        let mut sum = ShardCounters::default();
        for (_, shard) in &self.guards {
            let counters = shard.counters;
            sum.hits += counters.hits;
            sum.misses += counters.misses;
            sum.expired += counters.expired;
            sum.evicted += counters.evicted;
            sum.changes += counters.changes;
        }
        sum
    }

    /// CONFIG RESETSTAT. Needs all shards.
    pub(crate) fn reset_counters(&mut self) {
        for (_, shard) in &mut self.guards {
            let changes = shard.counters.changes;
            shard.counters = ShardCounters { changes, ..ShardCounters::default() };
        }
    }

    fn insert(&mut self, key: &[u8], value: Value, expires_at_ms: Option<u64>) {
        let access = self.keyspace.clock().created(self.now);
        let hash = self.keyspace.hash(key);
        let guard = self.guard_of_hash(hash);
        let bytes = self.table_mut(guard).insert(hash, key, value, expires_at_ms, access).used_bytes();
        self.account(guard, 0, bytes);
        self.changed(guard, key);
        self.notify(Class::New, "new", key);
    }

    fn find(&mut self, key: &[u8]) -> Option<Place> {
        let hash = self.keyspace.hash(key);
        let guard = self.guard_of_hash(hash);
        let db = self.db;
        let shard: &mut Shard = &mut self.guards[guard].1;
        let position = shard.tables[db].position(hash, key)?;
        let place = Place { guard, position };
        if is_expired(shard.tables[db].at(position), self.now) {
            self.expire_at(place, key);
            return None;
        }
        Some(place)
    }

    fn find_used(&mut self, key: &[u8]) -> Option<Place> {
        let place = self.find(key);
        let now = self.now;
        let clock = self.keyspace.clock();
        match place {
            Some(place) => {
                let db = self.db;
                let shard = &mut self.guards[place.guard].1;
                shard.counters.hits += 1;
                let entry = shard.tables[db].at_mut(place.position);
                entry.access = clock.used(entry.access, now);
            }
            None => {
                let guard = self.guard_of(key);
                self.guards[guard].1.counters.misses += 1;
                self.notify(Class::Miss, "keymiss", key);
            }
        }
        place
    }

    /// As [`Keys::find_used`] for a change: a use, but no hit and no miss, as in Redis.
    fn find_to_change(&mut self, key: &[u8]) -> Option<Place> {
        let place = self.find(key)?;
        let (db, now) = (self.db, self.now);
        let clock = self.keyspace.clock();
        let entry = self.guards[place.guard].1.tables[db].at_mut(place.position);
        entry.access = clock.used(entry.access, now);
        Some(place)
    }

    fn expire_at(&mut self, place: Place, key: &[u8]) {
        self.remove_at(place);
        self.guards[place.guard].1.counters.expired += 1;
        self.changed(place.guard, key);
        self.notify(Class::Expired, "expired", key);
    }

    fn remove_at(&mut self, place: Place) -> (Value, Option<u64>) {
        let table = self.table_mut(place.guard);
        let bytes = table.at(place.position).used_bytes();
        let expires_at_ms = table.at(place.position).expires_at_ms();
        let entry = table.remove(place.position);
        self.account(place.guard, bytes, 0);
        (entry.value, expires_at_ms)
    }

    fn changed(&mut self, guard: usize, key: &[u8]) {
        let db = self.db;
        self.guards[guard].1.changed(db, key);
    }

    fn account(&mut self, guard: usize, before: usize, after: usize) {
        let (index, shard) = &mut self.guards[guard];
        shard.used_bytes = shard.used_bytes + after - before;
        self.keyspace.cells[*index].used_bytes.store(shard.used_bytes, Ordering::Relaxed);
    }

    fn entry(&self, place: Place) -> &Entry {
        self.guards[place.guard].1.tables[self.db].at(place.position)
    }

    fn table_mut(&mut self, guard: usize) -> &mut Table {
        let db = self.db;
        &mut self.guards[guard].1.tables[db]
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.guards.iter().map(|(_, shard)| &shard.tables[self.db])
    }

    fn guard_of(&self, key: &[u8]) -> usize {
        self.guard_of_hash(self.keyspace.hash(key))
    }

    fn guard_of_hash(&self, hash: u64) -> usize {
        let shard = self.keyspace.shard_of(hash);
        if self.guards.len() == self.keyspace.shard_count() {
            return shard;
        }
        let found = self.guards.iter().position(|(index, _)| *index == shard);
        found.expect("a command touches only keys that its row in the command table names")
    }
}

/// Tables that a flush took out, to be dropped where it keeps nobody waiting.
#[derive(Debug)]
pub(crate) struct Flushed {
    _tables: Vec<Table>,
}

fn is_expired(entry: &Entry, now: Now) -> bool {
    entry.expires_at_ms().is_some_and(|at| at <= now.unix_ms)
}

/// Where a scan goes on: a shard, and the positions of it that are still to be visited.
#[derive(Clone, Copy)]
struct ScanCursor {
    shard: usize,
    below: usize,
}

impl ScanCursor {
    const WHOLE: usize = (1 << 47) - 1;

    /// The low bit keeps a cursor that is under way from being 0, which means the end.
    fn encode(self) -> u64 {
        (self.below as u64) << 16 | (self.shard as u64 & 0x7FFF) << 1 | 1
    }

    fn decode(cursor: u64) -> ScanCursor {
        match cursor {
            0 => ScanCursor { shard: 0, below: ScanCursor::WHOLE },
            cursor => ScanCursor { shard: (cursor >> 1 & 0x7FFF) as usize, below: (cursor >> 16) as usize },
        }
    }
}
