//! A shard: its part of every database, the memory of its entries, and what it counted.

use crate::keyspace::{
    Change, ChangeSink, Class, Now, Value,
    access::Access,
    arena::{Arena, Handle, Step, Storage},
    entry::{self, Entry, Form, Parts},
    eviction::Pool,
    garbage::Dismantling,
    index::{Index, TICK_MS},
    leaving::Leaving,
    objects::Objects,
    snapshot::Capture,
    watch::Watchers,
};

/// Events since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShardCounters {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    /// Writes: Redis's `rdb_changes_since_last_save`.
    pub(crate) changes: u64,
}

impl ShardCounters {
    pub(super) fn add(&mut self, other: ShardCounters) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.changes += other.changes;
    }
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) tables: Box<[Index]>,
    pub(super) counters: ShardCounters,
    pub(super) watchers: Watchers,
    /// Where the sweep for expired entries goes on.
    pub(super) sweep: Sweep,
    /// The tick in which it last began.
    sweep_tick: Option<u64>,
    /// When the sweep last went on.
    swept: Option<Now>,
    /// Entries of the other epoch are still to be handed over to the snapshot that runs.
    pub(super) epoch: bool,
    pub(super) capture: Option<Box<Capture>>,
    /// What a flush took out, with what the snapshot that runs still needs of it.
    pub(super) flushed: Option<Box<Shard>>,
    /// Databases that were flushed while others stay.
    pub(super) leaving: Vec<Leaving>,
    /// Candidates of eviction.
    pub(super) pool: Pool,
    arena: Arena,
    objects: Objects,
    index_bytes: usize,
}

/// A place in the sweep through a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) db: usize,
    /// Entries with lower hashes have been looked at.
    pub(super) hash: u32,
}

/// What a write puts into an entry.
#[derive(Debug)]
pub(super) enum NewValue<'a> {
    Inline(Form, &'a [u8]),
    Object(Value),
}

/// An entry that is written.
#[derive(Debug)]
pub(super) struct NewEntry<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: NewValue<'a>,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) access: Access,
}

impl Shard {
    pub(super) fn new(databases: usize) -> Shard {
        Shard {
            tables: (0..databases).map(|_| Index::default()).collect(),
            counters: ShardCounters::default(),
            watchers: Watchers::default(),
            sweep: Sweep::default(),
            sweep_tick: None,
            swept: None,
            epoch: false,
            capture: None,
            flushed: None,
            leaving: Vec::new(),
            pool: Pool::default(),
            arena: Arena::default(),
            objects: Objects::default(),
            index_bytes: 0,
        }
    }

    /// Bytes of entries, objects and indexes, and of free memory between entries what is more than there has to be.
    pub(super) fn used_bytes(&self) -> usize {
        self.arena.held_bytes() + self.objects.bytes() + self.index_bytes
    }

    /// Bytes of chunks, free slots included.
    pub(super) fn mapped_bytes(&self) -> usize {
        self.arena.mapped_bytes()
    }

    pub(super) fn find(&self, db: usize, hash: u32, key: &[u8]) -> Option<usize> {
        self.tables[db].find(hash, |handle| Entry(self.arena.slot(handle)).key() == key)
    }

    /// As [`Shard::find`], for who needs the entry alone.
    #[inline]
    pub(super) fn locate(&self, db: usize, hash: u32, key: &[u8]) -> Option<(Handle, Entry<'_>)> {
        for (_, handle) in self.tables[db].places(hash) {
            let entry = Entry(self.arena.slot(handle));
            if entry.key() == key {
                return Some((handle, entry));
            }
        }
        None
    }

    /// The bytes of an entry with this hash, whichever key it has, without a look at them.
    #[inline]
    pub(super) fn slot_by_hash(&self, db: usize, hash: u32) -> Option<&[u8]> {
        let (_, handle) = self.tables[db].places(hash).next()?;
        Some(self.arena.slot(handle))
    }

    #[inline]
    pub(super) fn entry(&self, db: usize, position: usize) -> Entry<'_> {
        Entry(self.arena.slot(self.handle(db, position)))
    }

    #[inline]
    pub(super) fn entry_of(&self, handle: Handle) -> Entry<'_> {
        Entry(self.arena.slot(handle))
    }

    /// The object of an entry of [`Form::Object`].
    pub(super) fn object(&self, number: usize) -> &Value {
        self.objects.get(number)
    }

    /// The object of an entry of [`Form::Object`], to be changed.
    pub(super) fn object_mut(&mut self, db: usize, position: usize) -> &mut Value {
        self.preserve(db, self.handle(db, position));
        let number = self.entry(db, position).object();
        self.objects.get_mut(number)
    }

    /// Counts an object's bytes again after it was changed.
    pub(super) fn object_changed(&mut self, number: usize) {
        self.objects.changed(number);
    }

    /// Bytes of an entry with all that belongs to it.
    pub(super) fn entry_bytes(&self, db: usize, position: usize) -> usize {
        /// An index slot at its usual load.
        const INDEX_BYTES: usize = 12;
        let entry = self.entry(db, position);
        let object = if entry.form() == Form::Object { self.objects.bytes_of(entry.object()) } else { 0 };
        entry.0.len() + INDEX_BYTES + object
    }

    pub(super) fn insert(&mut self, db: usize, hash: u32, new: NewEntry<'_>, now: Now) {
        let expires_at_ms = new.expires_at_ms;
        let handle = self.with_parts(new, Shard::write);
        self.change_index(db, |table| table.insert(hash, handle, expires_at_ms, now.unix_ms));
    }

    /// Puts another value in an entry's place. Its position stays.
    pub(super) fn replace(&mut self, db: usize, position: usize, new: NewEntry<'_>, now: Now) {
        let handle = self.handle(db, position);
        self.preserve(db, handle);
        self.drop_object(handle);
        let expires_at_ms = new.expires_at_ms;
        self.with_parts(new, |shard, parts| shard.rewrite(db, position, parts));
        self.tables[db].set_due(position, expires_at_ms, now.unix_ms);
    }

    pub(super) fn set_expiry(&mut self, db: usize, position: usize, expires_at_ms: Option<u64>, now: Now) {
        self.preserve(db, self.handle(db, position));
        entry::set_expires_at_ms(self.slot_mut(db, position), expires_at_ms);
        self.tables[db].set_due(position, expires_at_ms, now.unix_ms);
    }

    pub(super) fn set_access(&mut self, db: usize, position: usize, access: Access) {
        entry::set_access(self.slot_mut(db, position), access);
    }

    /// Begins a sweep from its place, unless one began in this tick: what that left, and what came since, is due in a later one.
    pub(super) fn begin_sweep(&mut self, now: Now) -> bool {
        let tick = now.unix_ms / TICK_MS;
        self.sweep_tick.replace(tick) != Some(tick)
    }

    /// Counts due times anew when the clock has jumped: they tell only a few hours ahead from behind, so after a machine slept, or its
    /// clock was set, what is long due could look far away. O(entries), and rare.
    pub(super) fn follow_clock(&mut self, now: Now) {
        const JUMP_MS: u64 = 30 * 60 * 1000;
        let swept = self.swept.replace(now).unwrap_or(now);
        if now.unix_ms.abs_diff(swept.unix_ms) < JUMP_MS {
            return;
        }
        for db in 0..self.tables.len() {
            for position in 0..self.tables[db].positions() {
                if self.tables[db].at(position).is_some() {
                    let expires_at_ms = self.entry(db, position).expires_at_ms();
                    self.tables[db].set_due(position, expires_at_ms, now.unix_ms);
                }
            }
        }
    }

    /// Takes an entry out, its object with it.
    pub(super) fn remove(&mut self, db: usize, position: usize) {
        self.empty(db, position);
        self.change_index(db, |table| table.remove(position));
    }

    /// Gives back what belongs to an entry that is about to leave the index.
    fn empty(&mut self, db: usize, position: usize) {
        let handle = self.handle(db, position);
        self.preserve(db, handle);
        self.discard(handle);
    }

    /// Frees an entry and what belongs to it.
    pub(super) fn discard(&mut self, handle: Handle) {
        self.drop_object(handle);
        self.free(handle);
    }

    /// An index that is dropped.
    pub(super) fn forget_index(&mut self, bytes: usize) {
        self.index_bytes -= bytes;
    }

    fn change_index(&mut self, db: usize, change: impl FnOnce(&mut Index)) {
        let table = &mut self.tables[db];
        let before = table.allocated_bytes();
        change(table);
        self.index_bytes = self.index_bytes + table.allocated_bytes() - before;
    }

    /// Takes an entry's object out and leaves the entry with none; only before [`Shard::remove`] or [`Shard::replace`].
    pub(super) fn take_object(&mut self, db: usize, position: usize) -> Value {
        self.preserve(db, self.handle(db, position));
        let number = self.entry(db, position).object();
        self.objects.take(number)
    }

    /// An expired entry goes: counted, watchers and listeners told.
    pub(super) fn expire(&mut self, db: usize, position: usize, sink: &dyn ChangeSink) {
        self.expire_all(db, &[position], sink);
    }

    /// As [`Shard::expire`], for several in rising order.
    pub(super) fn expire_all(&mut self, db: usize, positions: &[usize], sink: &dyn ChangeSink) {
        for position in positions.iter().copied() {
            self.counters.expired += 1;
            self.tell(db, position, (Class::Expired, "expired"), sink);
            self.empty(db, position);
        }
        self.change_index(db, |table| table.remove_all(positions));
    }

    /// Removes an entry and tells `event` with its key.
    pub(super) fn remove_and_tell(&mut self, db: usize, position: usize, event: (Class, &str), sink: &dyn ChangeSink) {
        self.tell(db, position, event, sink);
        self.remove(db, position);
    }

    fn tell(&mut self, db: usize, position: usize, (class, event): (Class, &str), sink: &dyn ChangeSink) {
        self.counters.changes += 1;
        let key = Entry(self.arena.slot(self.handle(db, position))).key();
        self.watchers.changed(db, key);
        sink.take(Change { class, event, db, key });
    }

    /// Moves up to `count` entries out of spans and chunks with few of them. `true` when there may be more to do. `hash` gives a key's
    /// hash.
    pub(super) fn compact(&mut self, count: usize, hash: impl Fn(&[u8]) -> u32) -> bool {
        // What nothing finds cannot be moved, and will have gone in a moment.
        if !self.leaving.is_empty() {
            return false;
        }
        for _ in 0..count {
            let old = match self.arena.next_to_move(entry::is_live) {
                Step::Move(old) => old,
                Step::Pause => return true,
                Step::Done => {
                    self.arena.release_empty();
                    return false;
                }
            };
            let hash = hash(Entry(self.arena.slot(old)).key());
            let found =
                self.tables.iter().enumerate().find_map(|(db, table)| Some((db, table.find(hash, |handle| handle == old)?)));
            let Some((db, position)) = found else { continue };
            let new = self.arena.copy(old);
            self.free(old);
            self.tables[db].set_handle(position, new);
        }
        true
    }

    /// Up to `count` chunks that hold nothing more, whose pages are to go back without a lock.
    pub(super) fn take_emptied(&mut self, count: usize) -> Vec<Storage> {
        self.arena.take_emptied(count)
    }

    /// Keeps maps of such chunks, whose pages went back.
    pub(super) fn keep_spare(&mut self, spare: Vec<Storage>) {
        self.arena.keep_spare(spare);
    }

    /// Large values that nothing holds any more, to be dropped without a lock.
    pub(super) fn take_discarded(&mut self) -> Vec<Value> {
        self.objects.take_discarded()
    }

    /// Frees everything piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        self.arena.dismantle(freeing);
        self.objects.dismantle(freeing);
    }

    pub(super) fn slot_mut(&mut self, db: usize, position: usize) -> &mut [u8] {
        let handle = self.handle(db, position);
        self.slot_of_mut(handle)
    }

    pub(super) fn slot_of_mut(&mut self, handle: Handle) -> &mut [u8] {
        self.arena.slot_mut(handle)
    }

    #[inline]
    pub(super) fn handle(&self, db: usize, position: usize) -> Handle {
        self.tables[db].at(position).expect("callers pass positions of entries")
    }

    /// Gives `write` what the entry is made of; an object is put in its place first.
    fn with_parts<R>(&mut self, new: NewEntry<'_>, write: impl FnOnce(&mut Shard, Parts<'_>) -> R) -> R {
        let NewEntry { key, value, expires_at_ms, access } = new;
        let epoch = self.epoch;
        match value {
            NewValue::Inline(form, value) => write(self, Parts { key, form, value, expires_at_ms, access, epoch }),
            NewValue::Object(object) => {
                let number = self.objects.add(object).to_le_bytes();
                write(self, Parts { key, form: Form::Object, value: &number, expires_at_ms, access, epoch })
            }
        }
    }

    /// Writes an entry into a slot of its own.
    fn write(&mut self, parts: Parts<'_>) -> Handle {
        let handle = self.arena.allocate(parts.bytes());
        parts.write(self.arena.slot_mut(handle));
        handle
    }

    /// Gives an entry's slot back, marked as one that holds none.
    fn free(&mut self, handle: Handle) {
        entry::mark_free(self.arena.slot_mut(handle));
        self.arena.free(handle);
    }

    /// Writes over the old entry where the size fits exactly, else into a new slot.
    fn rewrite(&mut self, db: usize, position: usize, parts: Parts<'_>) {
        let old = self.handle(db, position);
        if self.arena.slot(old).len() == Arena::slot_bytes_for(parts.bytes()) {
            parts.write(self.arena.slot_mut(old));
            return;
        }
        let new = self.write(parts);
        self.free(old);
        self.tables[db].set_handle(position, new);
    }

    fn drop_object(&mut self, handle: Handle) {
        let entry = self.entry_of(handle);
        if entry.form() == Form::Object {
            let number = entry.object();
            self.objects.remove(number);
        }
    }
}
