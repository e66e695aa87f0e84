//! What a command may touch: one database's keys in the shards that it locked.

use std::sync::{Arc, atomic::Ordering};

use crate::keyspace::{
    Change, ChangeSink, Class, Collection, Guards, HashRef, HashedKey, Keyspace, Kind, List, Now, Record, SHARDS, Set, SortedSet,
    Usage, Value, WatchFlag, WrongType,
    entry::{self, Entry, Form},
    garbage::Garbage,
    index::Index,
    index_hash,
    read_ahead::{READ_AHEAD_MAX, read_ahead},
    shard::{NewEntry, NewValue, Shard, ShardCounters},
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

/// A value that is being read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValueRef<'a> {
    Str(&'a [u8]),
    Hash(HashRef<'a>),
    Set(&'a Set),
    SortedSet(&'a SortedSet),
    List(&'a List),
}

impl<'a> ValueRef<'a> {
    /// A value that lies in its entry.
    pub(super) fn of_inline(form: Form, bytes: &'a [u8]) -> ValueRef<'a> {
        match form {
            Form::Hash => ValueRef::Hash(HashRef::packed(bytes)),
            _ => ValueRef::Str(bytes),
        }
    }

    pub(super) fn of_object(value: &'a Value) -> ValueRef<'a> {
        match value {
            Value::Str(string) => ValueRef::Str(&string.0),
            Value::Hash(hash) => ValueRef::Hash(hash.as_ref().into()),
            Value::Set(set) => ValueRef::Set(set),
            Value::SortedSet(set) => ValueRef::SortedSet(set),
            Value::List(list) => ValueRef::List(list),
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            ValueRef::Str(_) => Kind::String,
            ValueRef::Hash(_) => Kind::Hash,
            ValueRef::Set(_) => Kind::Set,
            ValueRef::SortedSet(_) => Kind::SortedSet,
            ValueRef::List(_) => Kind::List,
        }
    }

    pub(crate) fn string(self) -> Result<&'a [u8], WrongType> {
        match self {
            ValueRef::Str(bytes) => Ok(bytes),
            _ => Err(WrongType),
        }
    }

    pub(crate) fn list(self) -> Result<&'a List, WrongType> {
        match self {
            ValueRef::List(list) => Ok(list),
            _ => Err(WrongType),
        }
    }

    /// An error when the value is of another type.
    pub(crate) fn expect(self, kind: Kind) -> Result<(), WrongType> {
        if self.kind() == kind { Ok(()) } else { Err(WrongType) }
    }

    pub(crate) fn set(self) -> Result<&'a Set, WrongType> {
        match self {
            ValueRef::Set(set) => Ok(set),
            _ => Err(WrongType),
        }
    }

    /// A copy that owns its bytes: COPY.
    pub(crate) fn to_value(self) -> Value {
        match self {
            ValueRef::Str(bytes) => Value::string(bytes),
            ValueRef::Hash(hash) => hash.to_hash().into_value(),
            ValueRef::Set(set) => set.clone().into_value(),
            ValueRef::SortedSet(set) => set.clone().into_value(),
            ValueRef::List(list) => list.clone().into_value(),
        }
    }
}

/// A view of one database at one moment, with the shards of its keys locked. Expired keys are not there: they are removed when met.
pub(crate) struct Keys<'a> {
    keyspace: &'a Keyspace,
    guards: Guards<'a>,
    /// Where a shard's guard stands among those.
    guard_of_shard: [u8; SHARDS],
    /// Keys that were hashed for the locks, in the order in which commands will ask for them.
    hashed: &'a [HashedKey<'a>],
    /// The one of them that was asked for last.
    asked: usize,
    db: usize,
    now: Now,
    sink: &'a dyn ChangeSink,
    expiry: Expiry,
    /// Changes by commands through this view: Redis's `server.dirty`.
    changes: u64,
    /// Bytes by which shards grew or shrank with that, until somebody asks.
    resized_bytes: usize,
    /// Requests that do again what was written; `None` when nobody wants them.
    record: Option<Record>,
    /// Whether the command that runs said itself what is to be recorded for it.
    has_recorded: bool,
    /// Whether a command wrote what is recorded; keys that expired do not count.
    has_written: bool,
}

/// What happens to a key whose time has come when it is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// It is removed.
    Remove,
    /// It is not seen: its removal comes by the stream that the node follows.
    Hide,
    /// It is a key like others: for requests of that stream, which meant it while it lived.
    Ignore,
}

/// Whether listeners are told of a key that was not found.
#[derive(Clone, Copy)]
enum Miss {
    Told,
    Untold,
}

/// Mark of a shard without a guard.
const NOT_LOCKED: u8 = u8::MAX;

/// Where a key is, or would be. The position is valid until the next removal or insertion in its table.
#[derive(Clone, Copy)]
struct Place {
    guard: usize,
    position: usize,
}

impl<'a> Keys<'a> {
    /// Locks the shards whose bits are set, in one order for everyone: the lower one first.
    ///
    /// The view is made first and its locks are taken into it: with room for all of them it is too large to be moved.
    #[inline(always)]
    pub(super) fn lock(
        keyspace: &'a Keyspace,
        shards: u32,
        hashed: &'a [HashedKey<'a>],
        db: usize,
        now: Now,
        sink: &'a dyn ChangeSink,
    ) -> Keys<'a> {
        let mut keys = Keys {
            keyspace,
            guards: Guards::new(),
            guard_of_shard: [NOT_LOCKED; SHARDS],
            hashed,
            asked: 0,
            db,
            now,
            sink,
            expiry: Expiry::Remove,
            changes: 0,
            resized_bytes: 0,
            record: None,
            has_recorded: false,
            has_written: false,
        };
        let mut rest = shards;
        while rest != 0 {
            let shard = rest.trailing_zeros() as usize;
            keys.guard_of_shard[shard] = keys.guards.len() as u8;
            keys.guards.push((shard, keyspace.cells[shard].shard.lock()));
            rest &= rest - 1;
        }
        // Both change under all locks.
        if keyspace.is_follower() {
            keys.expiry = Expiry::Hide;
        }
        if sink.wants_records() {
            keys.record = Some(Record::default());
        }
        keys
    }

    /// Makes this a view for requests of a stream that is followed: nothing expires by itself, and nothing is recorded, since whoever
    /// applies the stream has it already.
    pub(crate) fn apply_only(&mut self) {
        self.expiry = Expiry::Ignore;
        self.record = None;
    }

    /// Whether the node followed another one when its shards were locked, and so does as long as they are.
    pub(crate) fn is_follower(&self) -> bool {
        self.expiry == Expiry::Hide
    }

    /// Changes by commands through this view so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Bytes by which shards grew or shrank since this was last asked: a large value that came or went, by expiry too, or an index that
    /// was rebuilt.
    pub(crate) fn take_resized_bytes(&mut self) -> usize {
        std::mem::take(&mut self.resized_bytes)
    }

    /// Whether what is written is recorded: before something is computed only for that.
    pub(crate) fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Says what is to be recorded for the command that runs, where its own words would do something else at another time or place.
    pub(crate) fn record(&mut self, arguments: &[&[u8]]) {
        if let Some(record) = &mut self.record {
            record.push(self.db, arguments.iter().copied());
            self.has_recorded = true;
            self.has_written = true;
        }
    }

    /// Records a command that came to its end by its own words, if it changed something and has not said others.
    #[inline]
    pub(crate) fn record_command<'b>(&mut self, has_changed: bool, arguments: impl ExactSizeIterator<Item = &'b [u8]>) {
        // Those others end with the command, whatever it did: the next one has its own.
        let has_recorded = std::mem::take(&mut self.has_recorded);
        if has_changed
            && !has_recorded
            && let Some(record) = &mut self.record
        {
            record.push(self.db, arguments);
            self.has_written = true;
        }
    }

    /// What is recorded from here on is one transaction.
    pub(crate) fn begin_atomic(&mut self) {
        if let Some(record) = &mut self.record {
            record.make_atomic();
        }
    }

    /// Hands on what was recorded, under the locks that it was written under. Gives the stream's offset behind it, if a command wrote.
    pub(crate) fn commit(&mut self) -> Option<u64> {
        let record = self.record.as_mut().filter(|record| !record.is_empty())?;
        let offset = self.sink.record(record);
        record.clear();
        std::mem::take(&mut self.has_written).then_some(offset)
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

    /// Reads ahead what the hashed keys will need.
    #[inline]
    pub(crate) fn read_ahead(&self) {
        let keys = self.hashed.iter().take(READ_AHEAD_MAX);
        read_ahead(keys.map(|key| (&*self.guards[self.guard_of(key.hash)].1, index_hash(key.hash))), self.db);
    }

    /// The value, counted as a hit or a miss and as a use.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        let (shard, entry) = self.used_entry(key)?;
        Some(value_in(shard, entry))
    }

    /// The string, if it is one; counted as [`Keys::get`].
    pub(crate) fn string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        let Some((shard, entry)) = self.used_entry(key) else { return Ok(None) };
        if entry.form() == Form::String {
            return Ok(Some(entry.value()));
        }
        match value_in(shard, entry) {
            ValueRef::Str(bytes) => Ok(Some(bytes)),
            _ => Err(WrongType),
        }
    }

    /// The hash, if it is one; counted as [`Keys::get`].
    pub(crate) fn hash(&mut self, key: &[u8]) -> Result<Option<HashRef<'_>>, WrongType> {
        let Some((shard, entry)) = self.used_entry(key) else { return Ok(None) };
        if entry.form() == Form::Hash {
            return Ok(Some(HashRef::packed(entry.value())));
        }
        match value_in(shard, entry) {
            ValueRef::Hash(hash) => Ok(Some(hash)),
            _ => Err(WrongType),
        }
    }

    /// A set, sorted set or list, if it is of the type asked for; counted as [`Keys::get`]. Strings and hashes have methods of their
    /// own, since small ones lie in their entries.
    pub(crate) fn read<T: Collection>(&mut self, key: &[u8]) -> Result<Option<&T>, WrongType> {
        let Some((shard, entry)) = self.used_entry(key) else { return Ok(None) };
        if entry.form() != Form::Object {
            return Err(WrongType);
        }
        T::of(shard.object(entry.object())).map(Some)
    }

    /// The value, uncounted: for changes, which count as neither hit nor miss.
    pub(crate) fn peek(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        let place = self.find(key)?;
        Some(self.value(place))
    }

    /// The value, uncounted, and with nothing removed: for several keys side by side, each of which was met before.
    pub(crate) fn look(&self, key: &[u8]) -> Option<ValueRef<'_>> {
        let hash = self.keyspace.hash(key);
        let shard = &self.guards[self.guard_of(hash)].1;
        let position = shard.find(self.db, index_hash(hash), key)?;
        let is_expired = self.expiry != Expiry::Ignore && shard.entry(self.db, position).is_expired(self.now.unix_ms);
        (!is_expired).then(|| value_of(shard, self.db, position))
    }

    pub(crate) fn contains(&mut self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// EXISTS, TOUCH: counted as [`Keys::get`].
    pub(crate) fn touch(&mut self, key: &[u8]) -> bool {
        self.used_entry(key).is_some()
    }

    /// TYPE: counted as [`Keys::get`], and no use.
    pub(crate) fn kind(&mut self, key: &[u8]) -> Option<Kind> {
        let place = self.find_counted(key, Miss::Told)?;
        Some(self.value(place).kind())
    }

    /// `None`: no such key. `Some(None)`: it has no time to live. Otherwise Unix time in milliseconds.
    pub(crate) fn expires_at_ms(&mut self, key: &[u8]) -> Option<Option<u64>> {
        let place = self.find(key)?;
        Some(self.expires_at_ms_of(place))
    }

    /// TTL and its like: as [`Keys::expires_at_ms`], counted as [`Keys::get`], and no use.
    pub(crate) fn read_expires_at_ms(&mut self, key: &[u8]) -> Option<Option<u64>> {
        let place = self.find_counted(key, Miss::Told)?;
        Some(self.expires_at_ms_of(place))
    }

    /// OBJECT: milliseconds since the key was last used, and its LFU counter. Counted as a hit or a miss, of which nobody is told, and no use.
    pub(crate) fn idle_and_frequency(&mut self, key: &[u8]) -> Option<(u64, u32)> {
        let place = self.find_counted(key, Miss::Untold)?;
        let access = self.guards[place.guard].1.entry(self.db, place.position).access();
        Some((access.idle_ms(self.now), access.frequency(self.now)))
    }

    /// Whether uses are counted (LFU) and not timed (LRU).
    pub(crate) fn counts_frequency(&self) -> bool {
        self.keyspace.clock().is_lfu()
    }

    /// Bytes that the key takes with everything that belongs to it.
    pub(crate) fn used_bytes(&mut self, key: &[u8]) -> Option<usize> {
        let place = self.find(key)?;
        Some(self.guards[place.guard].1.entry_bytes(self.db, place.position))
    }

    /// Puts a string in the key's place, whatever was there.
    pub(crate) fn set_string(&mut self, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) {
        self.put(key, NewValue::Inline(Form::String, value), expires_at_ms);
    }

    /// Puts a value in the key's place, whatever was there.
    pub(crate) fn set(&mut self, key: &[u8], value: Value, expires_at_ms: Option<u64>) {
        match value.as_inline() {
            Some((form, bytes)) => self.put(key, NewValue::Inline(form, bytes), expires_at_ms),
            None => self.put(key, NewValue::Object(value), expires_at_ms),
        }
    }

    /// Puts a value that was elsewhere in the key's place: loading, RESTORE.
    pub(crate) fn restore(&mut self, key: &[u8], value: Value, expires_at_ms: Option<u64>, usage: Usage) {
        self.set(key, value, expires_at_ms);
        if usage != Usage::Unknown {
            let access = self.keyspace.clock().restored(usage, self.now);
            if let Some(place) = self.find(key) {
                self.guards[place.guard].1.set_access(self.db, place.position, access);
            }
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
            self.set(key, value.into_value(), None);
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
        let db = self.db;
        let shard: &mut Shard = &mut self.guards[place.guard].1;
        let entry = shard.entry(db, place.position);
        let (changed, result, is_empty) = if entry.form() == Form::Object {
            let number = entry.object();
            let value = T::of_mut(shard.object_mut(db, place.position))?;
            let (changed, result) = edit(value);
            let is_empty = value.is_empty();
            shard.object_changed(number);
            (changed, result, is_empty)
        } else {
            let mut value = T::from_inline(entry.form(), entry.value())?;
            let (expires_at_ms, access) = (entry.expires_at_ms(), entry.access());
            let (changed, result) = edit(&mut value);
            let is_empty = value.is_empty();
            if changed == Changed::Yes && !is_empty {
                // Taken apart only when it does not fit into the entry any more.
                let inline = value.as_inline().map(|(form, bytes)| NewEntry {
                    key,
                    value: NewValue::Inline(form, bytes),
                    expires_at_ms,
                    access,
                });
                match inline {
                    Some(new) => shard.replace(db, place.position, new, self.now),
                    None => {
                        let value = NewValue::Object(value.into_value());
                        shard.replace(db, place.position, NewEntry { key, value, expires_at_ms, access }, self.now);
                    }
                }
            }
            (changed, result, is_empty)
        };
        self.account(place.guard);
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

    /// Removes a key and gives its value and time. Tells watchers; the caller tells the event.
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<(Value, Option<u64>)> {
        let place = self.find(key)?;
        let db = self.db;
        let shard = &mut self.guards[place.guard].1;
        let entry = shard.entry(db, place.position);
        let expires_at_ms = entry.expires_at_ms();
        let value = match entry.form() {
            Form::Object => shard.take_object(db, place.position),
            _ => self.value(place).to_value(),
        };
        self.remove_at(place);
        self.changed(place.guard, key);
        Some((value, expires_at_ms))
    }

    /// DEL: removes a key and tells its event.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let Some(place) = self.find(key) else { return false };
        self.remove_at(place);
        self.changed(place.guard, key);
        self.notify(Class::Generic, "del", key);
        true
    }

    /// Sets or takes away the time to live. `false` when there is no such key. A time that has passed deletes the key.
    pub(crate) fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>) -> bool {
        let Some(place) = self.find(key) else { return false };
        if expires_at_ms.is_some_and(|at| at <= self.now.unix_ms) && self.expiry != Expiry::Ignore {
            return self.delete(key);
        }
        let (db, now) = (self.db, self.now);
        self.guards[place.guard].1.set_expiry(db, place.position, expires_at_ms, now);
        self.changed(place.guard, key);
        true
    }

    /// Marks `flag` when the key changes.
    pub(crate) fn watch(&mut self, key: &[u8], flag: &Arc<WatchFlag>) {
        // An expired key goes first: its removal must not count as a change of what is watched from now on.
        self.find(key);
        let (db, guard) = (self.db, self.guard_of(self.keyspace.hash(key)));
        self.guards[guard].1.watchers.watch(db, key, flag);
    }

    /// Forgets watchers of `key` whose connections hold no flag any more.
    pub(crate) fn unwatch_dead(&mut self, db: usize, key: &[u8]) {
        let guard = self.guard_of(self.keyspace.hash(key));
        self.guards[guard].1.watchers.unwatch_dead(db, key);
    }

    /// Tells an event about a key of this database.
    pub(crate) fn notify(&self, class: Class, event: &str, key: &[u8]) {
        self.sink.take(Change { class, event, db: self.db, key });
    }

    /// Keys of this database in the locked shards, the expired ones that nobody has met yet included (as DBSIZE in Redis).
    pub(crate) fn len(&self) -> usize {
        self.tables().map(Index::len).sum()
    }

    pub(crate) fn volatile_len(&self) -> usize {
        self.tables().map(Index::volatile_len).sum()
    }

    /// Bytes that the pages of the locked shards take from the system, and bytes of them in use.
    pub(crate) fn mapped_and_used_bytes(&self) -> (usize, usize) {
        let shards = self.guards.iter().map(|(_, shard)| (shard.mapped_bytes(), shard.used_bytes()));
        shards.fold((0, 0), |sum, shard| (sum.0 + shard.0, sum.1 + shard.1))
    }

    /// Every live key of this database. O(n), with all shards locked: KEYS.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8])) {
        for (_, shard) in &self.guards {
            let table = &shard.tables[self.db];
            for position in 0..table.positions() {
                if table.at(position).is_some() {
                    let entry = shard.entry(self.db, position);
                    if !entry.is_expired(self.now.unix_ms) {
                        visit(entry.key());
                    }
                }
            }
        }
    }

    /// Visits about `count` entries after `cursor` and gives the cursor to go on with, 0 at the end. A key that is there from the
    /// first call to the last is visited exactly once, whatever is added and removed between: the order is that of the hashes.
    /// Needs all shards.
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], Kind)) -> u64 {
        let mut at = ScanCursor::decode(cursor);
        let mut visited = 0;
        while let Some((_, shard)) = self.guards.get(at.shard) {
            let table = &shard.tables[self.db];
            let mut position = table.first_from(at.hash).unwrap_or(table.positions());
            let mut last = None;
            while position < table.positions() {
                if table.at(position).is_some() {
                    // Entries of one hash are not parted: the cursor could not tell them apart.
                    if visited >= count && last != Some(table.hash_at(position)) {
                        return ScanCursor { shard: at.shard, hash: table.hash_at(position) }.encode();
                    }
                    visited += 1;
                    last = Some(table.hash_at(position));
                    let entry = shard.entry(self.db, position);
                    if !entry.is_expired(self.now.unix_ms) {
                        visit(entry.key(), value_of(shard, self.db, position).kind());
                    }
                }
                position += 1;
            }
            at = ScanCursor { shard: at.shard + 1, hash: 0 };
            if visited >= count && at.shard < self.guards.len() {
                return at.encode();
            }
        }
        0
    }

    /// A key chosen at random among the live ones. Needs all shards. Bounded tries: a database of expired keys gives none.
    pub(crate) fn random_key(&self) -> Option<Vec<u8>> {
        const TRIES_MAX: usize = 100;
        let total = self.len();
        for _ in 0..TRIES_MAX.min(total * 2) {
            let mut number = rand::random_range(0..total);
            for (_, shard) in &self.guards {
                let table = &shard.tables[self.db];
                if number >= table.len() {
                    number -= table.len();
                    continue;
                }
                if let Some(position) = table.random_position() {
                    let entry = shard.entry(self.db, position);
                    if !entry.is_expired(self.now.unix_ms) {
                        return Some(entry.key().to_vec());
                    }
                }
                break;
            }
        }
        None
    }

    /// Empties this database. Needs all shards. Where no other one has keys, the old shards are given back, so that the caller can drop
    /// them without a lock; else the entries go in slices, and their memory with them.
    pub(crate) fn flush(&mut self) -> Garbage {
        let db = self.db;
        let is_only = |shard: &Shard| shard.tables.iter().enumerate().all(|(other, table)| other == db || table.len() == 0);
        if self.guards.iter().all(|(_, shard)| is_only(shard)) {
            return self.flush_all();
        }
        self.sink.take_flush();
        // A flush counts as a change whatever there was, as in Redis.
        self.changes += 1;
        for guard in 0..self.guards.len() {
            self.tell_flushed(guard, db);
            let shard = &mut self.guards[guard].1;
            shard.clear(db);
            self.account(guard);
        }
        self.keyspace.has_leaving.store(true, Ordering::Relaxed);
        Garbage::default()
    }

    /// Empties every database. Needs all shards.
    pub(crate) fn flush_all(&mut self) -> Garbage {
        self.sink.take_flush();
        self.changes += 1;
        let databases = self.keyspace.databases();
        let mut shards = Vec::with_capacity(self.guards.len());
        for guard in 0..self.guards.len() {
            (0..databases).for_each(|db| self.tell_flushed(guard, db));
            let shard: &mut Shard = &mut self.guards[guard].1;
            let mut empty = Shard::new(databases);
            empty.counters = shard.counters;
            empty.epoch = shard.epoch;
            empty.flushed = shard.flushed.take();
            std::mem::swap(&mut empty.watchers, &mut shard.watchers);
            let old = std::mem::replace(shard, empty);
            // What a snapshot still needs goes to it as it is, instead of entry by entry.
            match &old.capture {
                Some(capture) if capture.is_needed() => shard.flushed = Some(Box::new(old)),
                _ => shards.push(old),
            }
            self.account(guard);
        }
        Garbage { shards, values: Vec::new() }
    }

    /// Only watchers of keys that exist see a flush as a change.
    fn tell_flushed(&mut self, guard: usize, db: usize) {
        let keyspace = self.keyspace;
        let shard: &mut Shard = &mut self.guards[guard].1;
        shard.counters.changes += shard.tables[db].len() as u64;
        for key in shard.watchers.keys(db) {
            if shard.find(db, index_hash(keyspace.hash(&key)), &key).is_some() {
                shard.watchers.changed(db, &key);
            }
        }
    }

    pub(crate) fn counters(&self) -> ShardCounters {
        let mut sum = ShardCounters::default();
        for (_, shard) in &self.guards {
            sum.add(shard.counters);
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

    fn put(&mut self, key: &[u8], value: NewValue<'_>, expires_at_ms: Option<u64>) {
        let hash = self.hash_of(key);
        let access = self.keyspace.clock().created(self.now);
        let (db, now) = (self.db, self.now);
        let (guard, mut found) = self.look_up(hash, key);
        let shard: &mut Shard = &mut self.guards[guard].1;
        if self.expiry == Expiry::Hide && found.is_none() {
            found = shard.find(db, index_hash(hash), key);
        }
        let new = NewEntry { key, value, expires_at_ms, access };
        match found {
            Some(position) => shard.replace(db, position, new, now),
            None => shard.insert(db, index_hash(hash), new, now),
        }
        self.account(guard);
        self.changed(guard, key);
        if found.is_none() {
            self.notify(Class::New, "new", key);
        }
    }

    fn find(&mut self, key: &[u8]) -> Option<Place> {
        let hash = self.hash_of(key);
        let (guard, found) = self.look_up(hash, key);
        found.map(|position| Place { guard, position })
    }

    /// As [`Keys::find`], counted as a hit or a miss. It is no use: whoever only looks keeps no key alive.
    fn find_counted(&mut self, key: &[u8], miss: Miss) -> Option<Place> {
        let hash = self.hash_of(key);
        let (guard, found) = self.look_up(hash, key);
        match (found, miss) {
            (Some(_), _) => self.guards[guard].1.counters.hits += 1,
            (None, Miss::Told) => self.miss(guard, key),
            (None, Miss::Untold) => self.guards[guard].1.counters.misses += 1,
        }
        found.map(|position| Place { guard, position })
    }

    fn expires_at_ms_of(&self, place: Place) -> Option<u64> {
        self.guards[place.guard].1.entry(self.db, place.position).expires_at_ms()
    }

    /// The key's shard among the locked ones, and its position if it is there; an expired one is removed.
    fn look_up(&mut self, hash: u64, key: &[u8]) -> (usize, Option<usize>) {
        let guard = self.guard_of(hash);
        let (db, now_ms) = (self.db, self.now.unix_ms);
        let shard: &mut Shard = &mut self.guards[guard].1;
        let Some(position) = shard.find(db, index_hash(hash), key) else { return (guard, None) };
        if self.expiry == Expiry::Ignore || !shard.entry(db, position).is_expired(now_ms) {
            return (guard, Some(position));
        }
        if self.expiry == Expiry::Remove {
            shard.expire(db, position, self.sink);
            self.account(guard);
            if let Some(record) = &mut self.record {
                record.push_removal(db, key);
            }
        }
        (guard, None)
    }

    /// One look at the entry for everything that a read asks of it: this is the way of every GET.
    #[inline(always)]
    fn used_entry(&mut self, key: &[u8]) -> Option<(&Shard, Entry<'_>)> {
        let hash = self.hash_of(key);
        let guard = self.guard_of(hash);
        let now = self.now;
        let shard: &mut Shard = &mut self.guards[guard].1;
        let located = shard.locate(self.db, index_hash(hash), key);
        let is_there = located.is_some();
        let mut found = None;
        if let Some((handle, entry)) = located
            && (self.expiry == Expiry::Ignore || !entry.is_expired(now.unix_ms))
        {
            let access = entry.access();
            let used = self.keyspace.clock().used(access, now);
            // Written only where that changes something: the entry's cache line stays clean otherwise.
            if used != access {
                entry::set_access(shard.slot_of_mut(handle), used);
            }
            shard.counters.hits += 1;
            found = Some(handle);
        }
        let Some(handle) = found else {
            if is_there {
                // Its time has come.
                self.look_up(hash, key);
            }
            self.miss(guard, key);
            return None;
        };
        let shard = &*self.guards[guard].1;
        Some((shard, shard.entry_of(handle)))
    }

    /// Counts a read that found no key, or one whose time has come.
    #[inline(never)]
    fn miss(&mut self, guard: usize, key: &[u8]) {
        self.guards[guard].1.counters.misses += 1;
        self.notify(Class::Miss, "keymiss", key);
    }

    /// As [`Keys::used_entry`] for a change: a use, but no hit and no miss, as in Redis.
    fn find_to_change(&mut self, key: &[u8]) -> Option<Place> {
        let place = self.find(key)?;
        let shard = &mut self.guards[place.guard].1;
        let access = shard.entry(self.db, place.position).access();
        let used = self.keyspace.clock().used(access, self.now);
        if used != access {
            shard.set_access(self.db, place.position, used);
        }
        Some(place)
    }

    fn remove_at(&mut self, place: Place) {
        let db = self.db;
        self.guards[place.guard].1.remove(db, place.position);
        self.account(place.guard);
    }

    fn changed(&mut self, guard: usize, key: &[u8]) {
        let db = self.db;
        self.changes += 1;
        let shard = &mut self.guards[guard].1;
        shard.counters.changes += 1;
        shard.watchers.changed(db, key);
    }

    /// Makes the shard's size readable without its lock.
    fn account(&mut self, guard: usize) {
        let (index, shard) = &self.guards[guard];
        self.resized_bytes += self.keyspace.cells[*index].account(shard);
    }

    fn value(&self, place: Place) -> ValueRef<'_> {
        value_of(&self.guards[place.guard].1, self.db, place.position)
    }

    fn tables(&self) -> impl Iterator<Item = &Index> {
        self.guards.iter().map(|(_, shard)| &shard.tables[self.db])
    }

    /// The key's hash. That a key is the very one that was hashed before its address tells.
    #[inline]
    fn hash_of(&mut self, key: &[u8]) -> u64 {
        for asked in [self.asked, self.asked + 1] {
            if let Some(hashed) = self.hashed.get(asked).filter(|hashed| std::ptr::eq(hashed.key, key)) {
                self.asked = asked;
                return hashed.hash;
            }
        }
        self.keyspace.hash(key)
    }

    #[inline]
    fn guard_of(&self, hash: u64) -> usize {
        let guard = self.guard_of_shard[self.keyspace.shard_of(hash)];
        assert!(guard != NOT_LOCKED, "a command touches only keys that its row in the command table names");
        usize::from(guard)
    }
}

impl Drop for Keys<'_> {
    /// What expired under a command that wrote nothing is recorded as well, while the locks are held.
    fn drop(&mut self) {
        self.commit();
    }
}

fn value_of(shard: &Shard, db: usize, position: usize) -> ValueRef<'_> {
    value_in(shard, shard.entry(db, position))
}

#[inline]
fn value_in<'a>(shard: &'a Shard, entry: Entry<'a>) -> ValueRef<'a> {
    match entry.form() {
        Form::Object => ValueRef::of_object(shard.object(entry.object())),
        form => ValueRef::of_inline(form, entry.value()),
    }
}

/// Where a scan goes on: a shard, and the hash from which its entries are still to be visited.
#[derive(Clone, Copy)]
struct ScanCursor {
    shard: usize,
    hash: u32,
}

impl ScanCursor {
    /// The low bit keeps a cursor that is under way from being 0, which means the end.
    fn encode(self) -> u64 {
        u64::from(self.hash) << 16 | (self.shard as u64 & 0x7FFF) << 1 | 1
    }

    fn decode(cursor: u64) -> ScanCursor {
        match cursor {
            0 => ScanCursor { shard: 0, hash: 0 },
            cursor => ScanCursor { shard: (cursor >> 1 & 0x7FFF) as usize, hash: (cursor >> 16) as u32 },
        }
    }
}
