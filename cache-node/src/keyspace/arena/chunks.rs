//! All chunks of a shard: where there is room for a span, and which went back.

use std::iter;

use crate::keyspace::{
    arena::{
        NOWHERE, RETIRED,
        chunk::{CHUNK_BYTES, Chunk, GRANULE_BYTES, ROOMS},
        handle::CHUNKS_MAX,
        span::granules_for,
        storage::Storage,
    },
    garbage::Dismantling,
    numbered,
};

/// Chunks of one [`Chunk::room`] that are looked at for a span's place.
const TRIED_MAX: usize = 64;

/// Chunks of which the emptiest is chosen to be emptied: a few µs under the shard's lock, however large it is.
const COMPARED_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Chunks {
    list: Vec<Chunk>,
    /// Numbers of those that went back.
    released: Vec<u32>,
    /// Those that spans can still be carved from, by their [`Chunk::room`].
    with_room: [Vec<u32>; ROOMS],
    /// Free granules of those.
    free_granules: usize,
    /// Of those that became empty: to be filled again, or to have their pages given back without a lock, which takes about 15 µs each. The last
    /// few of the keys that expire together empty all of a shard's chunks.
    emptied: Vec<Storage>,
    /// Of those whose pages went back: maps to be used again.
    spare: Vec<Storage>,
}

impl Chunks {
    #[inline]
    pub(super) fn get(&self, number: u32) -> &Chunk {
        &self.list[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Chunk {
        &mut self.list[number as usize]
    }

    /// Bytes of those in use.
    pub(super) fn bytes(&self) -> usize {
        (self.list.len() - self.released.len()) * CHUNK_BYTES
    }

    /// Bytes of those that became empty and have their pages still.
    pub(super) fn emptied_bytes(&self) -> usize {
        self.emptied.len() * CHUNK_BYTES
    }

    /// Granules that spans can be carved from.
    pub(super) fn free_granules(&self) -> usize {
        self.free_granules
    }

    /// Up to `count` of the empty ones, whose pages are to go back.
    pub(super) fn take_emptied(&mut self, count: usize) -> Vec<Storage> {
        self.emptied.split_off(self.emptied.len().saturating_sub(count))
    }

    /// Keeps a map without pages.
    pub(super) fn keep_spare(&mut self, storage: Storage) {
        self.spare.push(storage);
    }

    /// Frees everything piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        /// To unmap a chunk takes as long as to free so many allocations.
        const ALLOCATIONS: usize = 32;
        freeing.drop_all(self.list, ALLOCATIONS);
        freeing.drop_all(self.emptied, ALLOCATIONS);
        freeing.drop_all(self.spare, 1);
    }

    /// A chunk, the first granule and how many, for a span of a class that holds so many bytes. While there is room in a chunk that is
    /// there already, none is mapped: rather than that a class gets a smaller span than it should, at last one of a single slot.
    pub(super) fn place_for(&self, slot_bytes: usize, class_bytes: usize) -> Option<(u32, u32, u32)> {
        let halved = iter::successors(Some(class_bytes), |bytes| (*bytes > 0).then_some(bytes / 2));
        let sizes = halved.map(|bytes| granules_for(slot_bytes, bytes)).chain([slot_bytes.div_ceil(GRANULE_BYTES) as u32]);
        let mut tried = 0;
        for granules in sizes {
            // A class with little has the least size for several of its halves.
            if granules == tried {
                continue;
            }
            tried = granules;
            if let Some((chunk, first)) = self.fullest_for(granules) {
                return Some((chunk, first, granules));
            }
        }
        None
    }

    /// The fuller a chunk is, the sooner it is taken: the others may become empty.
    fn fullest_for(&self, granules: u32) -> Option<(u32, u32)> {
        if self.free_granules < granules as usize {
            return None;
        }
        let rooms = &self.with_room[granules.ilog2() as usize..];
        rooms.iter().find_map(|chunks| {
            let tried = chunks.iter().rev().take(TRIED_MAX);
            let fitting = tried.filter_map(|number| Some((*number, self.list[*number as usize].room_for(granules)?)));
            fitting.min_by_key(|(number, _)| self.list[*number as usize].free_granules())
        })
    }

    /// Maps one, or takes one that became empty.
    pub(super) fn add(&mut self) -> u32 {
        let storage = self.emptied.pop().or_else(|| self.spare.pop()).unwrap_or_else(Storage::new);
        let chunk = Chunk::new(storage, NOWHERE);
        let has_number = !self.released.is_empty() || self.list.len() < CHUNKS_MAX;
        assert!(has_number, "a shard holds at most 16 GiB of small entries; set maxmemory to 192gb or less");
        let number = numbered::put(&mut self.list, &mut self.released, chunk);
        self.enter(number);
        number
    }

    /// The one with the most free granules of those with the longest rows of them.
    pub(super) fn emptiest(&self) -> Option<u32> {
        let roomiest_first = self.with_room.iter().rev().flatten().copied();
        roomiest_first.take(COMPARED_MAX).max_by_key(|number| self.get(*number).free_granules())
    }

    /// Lets no more spans be carved from it.
    pub(super) fn retire(&mut self, number: u32) {
        self.leave(number);
        self.get_mut(number).place = RETIRED;
    }

    /// Copies bytes from one place to another, each a chunk and where they begin in it.
    pub(super) fn copy(&mut self, from: (u32, usize), to: (u32, usize), bytes: usize) {
        if from.0 == to.0 {
            self.get_mut(from.0).bytes_mut().copy_within(from.1..from.1 + bytes, to.1);
        } else if let Ok([source, target]) = self.list.get_disjoint_mut([from.0 as usize, to.0 as usize]) {
            target.bytes_mut()[to.1..to.1 + bytes].copy_from_slice(&source.bytes()[from.1..from.1 + bytes]);
        }
    }

    /// Takes an empty one out of use.
    pub(super) fn release(&mut self, number: u32) {
        self.leave(number);
        self.emptied.push(self.list[number as usize].take_storage());
        self.released.push(number);
    }

    /// Keeps a chunk where it belongs while its granules change.
    pub(super) fn change(&mut self, number: u32, change: impl FnOnce(&mut Chunk)) {
        let is_retired = self.list[number as usize].place == RETIRED;
        self.leave(number);
        change(&mut self.list[number as usize]);
        if is_retired {
            self.list[number as usize].place = RETIRED;
        } else {
            self.enter(number);
        }
    }

    /// Lets spans be carved from it.
    pub(super) fn enter(&mut self, number: u32) {
        let chunk = &mut self.list[number as usize];
        self.free_granules += chunk.free_granules() as usize;
        if let Some(room) = chunk.room() {
            chunk.place = self.with_room[room].len() as u32;
            self.with_room[room].push(number);
        }
    }

    fn leave(&mut self, number: u32) {
        let chunk = &mut self.list[number as usize];
        let place = std::mem::replace(&mut chunk.place, NOWHERE);
        let Some(room) = chunk.room().filter(|_| place < RETIRED) else { return };
        self.free_granules -= chunk.free_granules() as usize;
        self.with_room[room].swap_remove(place as usize);
        if let Some(moved) = self.with_room[room].get(place as usize) {
            self.list[*moved as usize].place = place;
        }
    }
}
