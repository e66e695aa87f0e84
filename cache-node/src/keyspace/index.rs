//! The hash index of one database's part in one shard: a sorted array with gaps.
//!
//! Slots are 8 bytes, 32 bits of hash and a handle, ordered by hash: Robin Hood hashing with linear probing where the home position
//! is `hash × capacity / 2³²`. A lookup reads one or two cache lines. Growing copies slots in order without looking at an entry, so
//! a factor of 1.2 is cheap and a slot costs 9 to 11 bytes where doubling would cost up to 18. A scan goes by hash: its cursor
//! survives growth, and what is there all the time is visited exactly once.
//!
//! Beside each slot stands a coarse due time of 16 bits. The sweep for expired entries reads only that array: a million of them are
//! 2 MB, a tenth of a millisecond, and a session whose time is extended on each request costs one store.

use crate::keyspace::arena::Handle;

/// Milliseconds per tick of a due time.
pub(super) const TICK_MS: u64 = 250;

/// Ticks ahead that a due time can tell from ticks behind: 2.2 hours. Later ones are looked at then and put off again.
const AHEAD_MAX: u64 = i16::MAX as u64 - 1;

/// Share of the capacity that may be filled, in hundredths, and that is filled after growing or shrinking.
const FILLED_MAX: usize = 88;
const FILLED_AFTER: usize = 73;
const FILLED_MIN: usize = 35;

/// Smallest capacity that is not none.
const CAPACITY_MIN: usize = 32;

/// Slots behind the last home position, so that a run at the end needs no wrapping around; more are added for a longer run.
const TAIL: usize = 64;

/// No time to live.
const NEVER: u16 = 0;

#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<u64>,
    due: Vec<u16>,
    /// Home positions.
    capacity: usize,
    len: usize,
    volatile: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Entries with a time to live.
    pub(super) fn volatile_len(&self) -> usize {
        self.volatile
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.slots.capacity() * 8 + self.due.capacity() * 2
    }

    /// Positions, the empty ones included.
    pub(super) fn positions(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn at(&self, position: usize) -> Option<Handle> {
        let slot = *self.slots.get(position)?;
        (slot != 0).then(|| Handle::from_bits(slot as u32))
    }

    pub(super) fn hash_at(&self, position: usize) -> u32 {
        (self.slots[position] >> 32) as u32
    }

    /// The position of the entry with this hash for which `is_it` holds.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(Handle) -> bool) -> Option<usize> {
        self.places(hash).find(|(_, handle)| is_it(*handle)).map(|(position, _)| position)
    }

    /// The entries with this hash, by their positions: nearly always one or none.
    #[inline]
    pub(super) fn places(&self, hash: u32) -> impl Iterator<Item = (usize, Handle)> {
        let home = self.home(hash);
        let run = self.slots.get(home..).unwrap_or_default().iter().enumerate();
        let of_hash = run.take_while(move |(_, slot)| **slot != 0 && (**slot >> 32) as u32 <= hash);
        of_hash
            .filter(move |(_, slot)| (**slot >> 32) as u32 == hash)
            .map(move |(offset, slot)| (home + offset, Handle::from_bits(*slot as u32)))
    }

    /// Reads where an entry with this hash would be.
    #[inline]
    pub(super) fn touch(&self, hash: u32) -> u64 {
        self.slots.get(self.home(hash)).copied().unwrap_or(0)
    }

    /// The first filled position with a hash of at least `hash`.
    pub(super) fn first_from(&self, hash: u32) -> Option<usize> {
        let mut position = self.home(hash);
        while position < self.slots.len() {
            if self.slots[position] != 0 && self.hash_at(position) >= hash {
                return Some(position);
            }
            position += 1;
        }
        None
    }

    /// The hash of the first entry at or behind `position`.
    pub(super) fn next_hash(&self, position: usize) -> Option<u32> {
        let rest = self.slots.get(position..)?;
        rest.iter().find(|slot| **slot != 0).map(|slot| (slot >> 32) as u32)
    }

    /// A filled position near a random one. Entries behind a gap come up a little more often: eviction and RANDOMKEY do not mind.
    pub(super) fn random_position(&self) -> Option<usize> {
        near_random(&self.slots, |slot| *slot != 0)
    }

    /// As [`Index::random_position`], of an entry with a time to live.
    pub(super) fn random_volatile_position(&self) -> Option<usize> {
        // Nobody walks through a large index for what is not there.
        if self.volatile == 0 {
            return None;
        }
        near_random(&self.due, |due| *due != NEVER)
    }

    /// Adds an entry that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, handle: Handle, expires_at_ms: Option<u64>, now_ms: u64) {
        if (self.len + 1) * 100 > self.capacity * FILLED_MAX {
            self.resize(self.len + 1);
        }
        let due = due(expires_at_ms, now_ms);
        while !self.place(u64::from(hash) << 32 | u64::from(handle.bits()), due) {
            // A run reached the end: the tail gets longer.
            let longer = self.slots.len() + TAIL;
            self.slots.resize(longer, 0);
            self.due.resize(longer, NEVER);
        }
        self.len += 1;
        self.volatile += usize::from(due != NEVER);
    }

    pub(super) fn remove(&mut self, position: usize) {
        self.volatile -= usize::from(self.due[position] != NEVER);
        // What stands behind moves up, as long as it is not at home already.
        let mut end = position + 1;
        while end < self.slots.len() && self.slots[end] != 0 && self.home(self.hash_at(end)) < end {
            end += 1;
        }
        self.slots.copy_within(position + 1..end, position);
        self.due.copy_within(position + 1..end, position);
        self.slots[end - 1] = 0;
        self.due[end - 1] = NEVER;
        self.len -= 1;
        self.shrink();
    }

    /// Removes the entries at several positions, in rising order. What stands behind moves up once for all of them: in a sweep
    /// [`Index::remove`] would move the rest of a run for each entry of it.
    pub(super) fn remove_all(&mut self, positions: &[usize]) {
        let mut rest = positions.iter().copied().peekable();
        while let Some(first) = rest.next() {
            self.vacate(first);
            let (mut free, mut at) = (first, first + 1);
            while at < self.slots.len() && self.slots[at] != 0 {
                if rest.next_if_eq(&at).is_some() {
                    self.vacate(at);
                } else {
                    let to = self.home(self.hash_at(at)).max(free);
                    if to == at {
                        // At home, and so is what stands behind it.
                        break;
                    }
                    self.slots[to] = std::mem::take(&mut self.slots[at]);
                    self.due[to] = std::mem::replace(&mut self.due[at], NEVER);
                    free = to + 1;
                }
                at += 1;
            }
        }
        self.shrink();
    }

    /// Leaves a gap that is to be closed.
    fn vacate(&mut self, position: usize) {
        self.slots[position] = 0;
        self.volatile -= usize::from(self.due[position] != NEVER);
        self.due[position] = NEVER;
        self.len -= 1;
    }

    fn shrink(&mut self) {
        if self.capacity > CAPACITY_MIN && self.len * 100 < self.capacity * FILLED_MIN {
            self.resize(self.len);
        }
    }

    pub(super) fn set_handle(&mut self, position: usize, handle: Handle) {
        self.slots[position] = self.slots[position] >> 32 << 32 | u64::from(handle.bits());
    }

    pub(super) fn set_due(&mut self, position: usize, expires_at_ms: Option<u64>, now_ms: u64) {
        let new = due(expires_at_ms, now_ms);
        let old = std::mem::replace(&mut self.due[position], new);
        self.volatile = self.volatile + usize::from(new != NEVER) - usize::from(old != NEVER);
    }

    /// The first position from `start` on, below `end`, whose due time has come.
    pub(super) fn next_due(&self, start: usize, end: usize, now_ms: u64) -> Option<usize> {
        let now = tick(now_ms);
        let end = end.min(self.due.len());
        let is_due = |due: &u16| *due != NEVER && due.wrapping_sub(now) as i16 <= 0;
        // Blocks without any are passed over by a loop that the compiler makes eight or sixteen wide.
        const BLOCK: usize = 64;
        let mut position = start;
        while position < end {
            let block = &self.due[position..end.min(position + BLOCK)];
            if block.iter().fold(false, |any, due| any | is_due(due)) {
                return block.iter().position(is_due).map(|offset| position + offset);
            }
            position += block.len();
        }
        None
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.capacity as u64) >> 32) as usize
    }

    /// Puts a slot in its order. `false` when the run reaches the end of the array.
    fn place(&mut self, slot: u64, due: u16) -> bool {
        let mut position = self.home((slot >> 32) as u32);
        while self.slots[position] != 0 && self.slots[position] < slot {
            position += 1;
            if position == self.slots.len() {
                return false;
            }
        }
        let mut end = position;
        while self.slots[end] != 0 {
            end += 1;
            if end == self.slots.len() {
                return false;
            }
        }
        self.slots.copy_within(position..end, position + 1);
        self.due.copy_within(position..end, position + 1);
        self.slots[position] = slot;
        self.due[position] = due;
        true
    }

    fn resize(&mut self, len: usize) {
        self.rebuild((len * 100 / FILLED_AFTER).max(CAPACITY_MIN));
    }

    /// Copies everything into an index of another capacity, in order. O(capacity).
    fn rebuild(&mut self, capacity: usize) {
        self.capacity = capacity;
        let slots = std::mem::replace(&mut self.slots, vec![0; capacity + TAIL]);
        let dues = std::mem::replace(&mut self.due, vec![NEVER; capacity + TAIL]);
        let mut next = 0;
        for (slot, due) in slots.iter().zip(&dues).filter(|(slot, _)| **slot != 0) {
            let position = self.home((*slot >> 32) as u32).max(next);
            if position >= self.slots.len() {
                self.slots.resize(position + TAIL, 0);
                self.due.resize(position + TAIL, NEVER);
            }
            self.slots[position] = *slot;
            self.due[position] = *due;
            next = position + 1;
        }
    }
}

/// The first wanted place at or behind a random one, or else before it.
fn near_random<T>(places: &[T], is_wanted: impl Fn(&T) -> bool) -> Option<usize> {
    if places.is_empty() {
        return None;
    }
    let start = rand::random_range(0..places.len());
    let behind = places[start..].iter().position(&is_wanted).map(|offset| start + offset);
    behind.or_else(|| places[..start].iter().position(&is_wanted))
}

/// The tick at or after a time; never [`NEVER`].
fn due(expires_at_ms: Option<u64>, now_ms: u64) -> u16 {
    let Some(at) = expires_at_ms else { return NEVER };
    // A time long past would wrap around to one that is to come.
    let ahead = at.clamp(now_ms, now_ms + AHEAD_MAX * TICK_MS);
    (ahead.div_ceil(TICK_MS) as u16).max(NEVER + 1)
}

/// 0 means never. Of the times around it, one that is due counts as a tick later and now as a tick earlier: an entry is looked at 250 ms
/// late then and never early, since a sweep that finds an entry with time left, and cannot put it off, would not get past it.
fn tick(now_ms: u64) -> u16 {
    match (now_ms / TICK_MS) as u16 {
        NEVER => u16::MAX,
        tick => tick,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, btree_map::Entry};

    use super::{AHEAD_MAX, Index, TICK_MS};
    use crate::keyspace::arena::Handle;

    #[test]
    fn it_behaves_like_a_map_while_it_grows_and_shrinks() {
        let mut index = Index::default();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        let mut seed = 7_u32;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed
        };
        for step in 0..60_000_u32 {
            let grows = (step / 15_000) % 2 == 0;
            // Few distinct high bits, so that runs get long and reach the end.
            let hash = if random() % 40 == 0 { random() | 0xFFFF_0000 } else { random() };
            let handle = step + 1;
            if grows || model.is_empty() {
                if model.insert(hash, handle).is_none() {
                    index.insert(hash, Handle::from_bits(handle), None, 0);
                } else {
                    let position = index.find(hash, |_| true).expect("it is there");
                    index.set_handle(position, Handle::from_bits(handle));
                }
            } else {
                let hash = model.range(hash..).next().or_else(|| model.iter().next()).map(|(hash, _)| *hash).expect("not empty");
                model.remove(&hash);
                let position = index.find(hash, |_| true).expect("it is there");
                index.remove(position);
                assert!(index.find(hash, |_| true).is_none());
            }
            assert_eq!(index.len(), model.len());
        }
        let listed: Vec<(u32, u32)> =
            (0..index.positions()).filter_map(|position| Some((index.hash_at(position), index.at(position)?.bits()))).collect();
        assert_eq!(listed, model.into_iter().collect::<Vec<_>>(), "in order of hash");
    }

    #[test]
    fn many_removed_at_once_leave_what_one_after_the_other_leaves() {
        let mut seed = 11_u32;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed
        };
        for round in 0..300 {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for handle in 1..=500_u32 {
                // Now and then all hashes lie together, so that runs are long and reach the end.
                let hash = if round % 3 == 0 { random() | 0xFFF0_0000 } else { random() };
                if let Entry::Vacant(place) = model.entry(hash) {
                    place.insert(handle);
                    index.insert(hash, Handle::from_bits(handle), (handle % 2 == 0).then_some(1_000), 0);
                }
            }
            let share = round % 10 + 1;
            let positions: Vec<usize> =
                (0..index.positions()).filter(|position| index.at(*position).is_some() && random() % 10 < share).collect();
            for position in &positions {
                model.remove(&index.hash_at(*position));
            }
            index.remove_all(&positions);
            assert_eq!(index.len(), model.len());
            for (hash, handle) in &model {
                let found = index.find(*hash, |_| true).and_then(|position| index.at(position));
                assert_eq!(found.map(Handle::bits), Some(*handle), "round {round}");
            }
            let due = (0..index.positions()).filter(|position| index.next_due(*position, position + 1, 10_000).is_some()).count();
            assert_eq!((due, index.volatile_len()), (due, due));
            assert_eq!(due, model.values().filter(|handle| *handle % 2 == 0).count());
        }
    }

    #[test]
    fn entries_of_one_hash_are_told_apart_by_their_handle() {
        let mut index = Index::default();
        for handle in 1..=50 {
            index.insert(u32::MAX, Handle::from_bits(handle), None, 0);
        }
        for handle in 1..=50 {
            assert!(index.find(u32::MAX, |there| there.bits() == handle).is_some());
        }
    }

    #[test]
    fn nothing_is_due_before_its_time_where_the_ticks_wrap_around() {
        for now in (1..4).flat_map(|tick| [0, 1, 249].map(|ms| (65_536 * 6_900 + tick) * TICK_MS - 2 * TICK_MS + ms)) {
            for ahead in 1..600 {
                let mut index = Index::default();
                index.insert(1, Handle::from_bits(1), Some(now + ahead), now);
                assert_eq!(index.next_due(0, usize::MAX, now), None, "{now} + {ahead}");
                assert!(index.next_due(0, usize::MAX, now + ahead + 2 * TICK_MS).is_some(), "{now} + {ahead}");
            }
        }
    }

    #[test]
    fn due_times_come_in_order_and_far_ones_are_put_off() {
        let now = 1_795_000_000_000;
        let mut index = Index::default();
        index.insert(1, Handle::from_bits(1), Some(now + 1_000), now);
        index.insert(2, Handle::from_bits(2), Some(now + AHEAD_MAX * TICK_MS * 10), now);
        index.insert(3, Handle::from_bits(3), None, now);
        assert_eq!(index.volatile_len(), 2);
        assert_eq!(index.next_due(0, usize::MAX, now + 700), None);
        let due = index.next_due(0, usize::MAX, now + 1_250).and_then(|position| index.at(position));
        assert_eq!(due, Some(Handle::from_bits(1)));
        // The far one is looked at when its 16 bits say so, long before its time.
        let position = index.find(1, |_| true).expect("it is there");
        index.remove(position);
        let later = now + (AHEAD_MAX + 1) * TICK_MS;
        let due = index.next_due(0, usize::MAX, later).and_then(|position| index.at(position));
        assert_eq!(due, Some(Handle::from_bits(2)));
    }
}
