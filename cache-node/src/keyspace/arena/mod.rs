//! Memory for entries: spans of equal slots, in size classes 8 bytes apart up to 512 bytes and a 16th to a 32nd apart above.
//!
//! A session of 344 bytes takes 344 bytes. malloc would add a header and round up to 16; jemalloc and mimalloc would round to 384.
//! Chunks are anonymous maps of 128 KiB that are carved into spans. A span that became empty serves any class, and the pages of a chunk that
//! became empty go back to the system within a tick; one that is being filled takes only what was touched. Entries are found by handle and never by
//! address, so they can be moved: [`Arena::next_to_move`] names those whose span or chunk is worth emptying, and the table that owns the
//! entries moves them.

mod chunk;
mod chunks;
mod compaction;
mod handle;
mod span;
mod storage;

pub(super) use compaction::Step;
pub(super) use handle::Handle;
pub(super) use storage::Storage;

use crate::keyspace::{garbage::Dismantling, numbered};
use chunks::Chunks;
use compaction::Compaction;
use handle::UNIT_BYTES;
use span::{Span, granules_for};

/// Up to here classes are 8 bytes apart.
const FINE_BYTES_MAX: usize = 512;

/// Above, there are so many from a power of two to the next: each keeps a span that is partly full, in each shard. Sessions of 1 to 4 KB
/// would take 384 classes otherwise.
const CLASSES_PER_DOUBLING: usize = 16;

/// Bytes by which a slot is larger than what was asked for, at the most.
pub(super) const SLOT_BYTES_UNUSED_MAX: usize = SLOT_BYTES_MAX / (2 * CLASSES_PER_DOUBLING) - 1;

/// Largest slot in a span; a larger entry is allocated alone.
const SLOT_BYTES_MAX: usize = 4096;

/// Of what is used, the share that free memory may be counted as beside it.
const HELD_FREE_SHARE_MAX: usize = 4;

/// In no list: of a span that is full.
const NOWHERE: u32 = u32::MAX;

/// In no list until it is empty: of what is being emptied.
const RETIRED: u32 = u32::MAX - 1;

/// Spans of one slot size.
#[derive(Debug, Default)]
struct Class {
    with_room: Vec<u32>,
    slots: usize,
    live: usize,
}

impl Class {
    /// New entries may go to this span.
    fn enter(&mut self, span: &mut Span, number: u32) {
        span.place = self.with_room.len() as u32;
        self.with_room.push(number);
    }
}

/// The memory of one shard's entries.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Chunks,
    spans: Vec<Span>,
    /// Numbers of spans that are none any more.
    spans_released: Vec<u32>,
    classes: Vec<Class>,
    compaction: Compaction,
    alone: Vec<Box<[u8]>>,
    /// Free places in `alone`.
    alone_free: Vec<u32>,
    alone_bytes: usize,
    live_bytes: usize,
}

impl Arena {
    /// A slot of [`Arena::slot_bytes_for`] as many bytes. Its contents are those of whoever had it
    /// before. O(1). Ends the process when the system gives no memory, as any allocation does.
    pub(super) fn allocate(&mut self, bytes: usize) -> Handle {
        let slot_bytes = Arena::slot_bytes_for(bytes);
        if slot_bytes > SLOT_BYTES_MAX {
            return self.allocate_alone(slot_bytes);
        }
        let class = slot_bytes / UNIT_BYTES;
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Class::default);
        }
        let number = match self.classes[class].with_room.last() {
            Some(number) => *number,
            None => self.add_span(class),
        };
        let span = &mut self.spans[number as usize];
        let chunk = span.chunk;
        let start = span.take(self.chunks.get(chunk).bytes());
        if span.is_full() {
            self.leave_with_room(class, number);
        }
        self.classes[class].live += 1;
        self.live_bytes += slot_bytes;
        Handle::new(chunk, start)
    }

    /// Gives a slot back. A span that became empty serves any class then, unless it is the only one of its class with room.
    pub(super) fn free(&mut self, handle: Handle) {
        if let Some(number) = handle.alone() {
            let bytes = std::mem::take(&mut self.alone[number]).len();
            self.live_bytes -= bytes;
            self.alone_bytes -= bytes;
            self.alone_free.push(number as u32);
            return;
        }
        let chunk = self.chunks.get_mut(handle.chunk());
        let number = chunk.span(handle.start());
        let span = &mut self.spans[number as usize];
        span.give(chunk.bytes_mut(), handle.start());
        let slot_bytes = usize::from(span.slot_bytes);
        let class = &mut self.classes[slot_bytes / UNIT_BYTES];
        self.live_bytes -= slot_bytes;
        class.live -= 1;
        if span.place == NOWHERE {
            class.enter(span, number);
        }
        if span.live == 0 && (span.place == RETIRED || class.with_room.len() > 1) {
            self.release(number);
        }
    }

    #[inline]
    pub(super) fn slot(&self, handle: Handle) -> &[u8] {
        if let Some(number) = handle.alone() {
            return &self.alone[number];
        }
        let (chunk, start) = (self.chunks.get(handle.chunk()), handle.start());
        &chunk.bytes()[start..start + chunk.slot_bytes(start)]
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, handle: Handle) -> &mut [u8] {
        if let Some(number) = handle.alone() {
            return &mut self.alone[number];
        }
        let (chunk, start) = (self.chunks.get_mut(handle.chunk()), handle.start());
        let end = start + chunk.slot_bytes(start);
        &mut chunk.bytes_mut()[start..end]
    }

    /// Size of the slot that `bytes` would take: up to 7 more, or above 512 up to a 16th more; [`SLOT_BYTES_UNUSED_MAX`] at the most.
    pub(super) fn slot_bytes_for(bytes: usize) -> usize {
        let is_fine = bytes <= FINE_BYTES_MAX || bytes > SLOT_BYTES_MAX;
        let apart = if is_fine { UNIT_BYTES } else { bytes.next_power_of_two() / (2 * CLASSES_PER_DOUBLING) };
        bytes.next_multiple_of(apart)
    }

    /// Bytes of all slots in use, and of free memory what compaction could not make less: more than a [`FREE_SHARE`]th of the used and a
    /// chunk. No more than a quarter of the used is counted, so that whoever removes entries until this is small enough comes to an
    /// end, although memory does not go back in the same moment.
    ///
    /// [`FREE_SHARE`]: compaction::FREE_SHARE
    pub(super) fn held_bytes(&self) -> usize {
        // What was written since then may lie in what was free.
        let surplus = self.compaction.surplus_bytes().min(self.surplus_bytes());
        self.live_bytes + surplus.min(self.live_bytes / HELD_FREE_SHARE_MAX)
    }

    /// Bytes of all chunks, the free slots included, and of entries that are alone.
    pub(super) fn mapped_bytes(&self) -> usize {
        self.chunks.bytes() + self.chunks.emptied_bytes() + self.alone_bytes
    }

    /// Up to `count` of the chunks that became empty, whose pages are to go back.
    pub(super) fn take_emptied(&mut self, count: usize) -> Vec<Storage> {
        self.chunks.take_emptied(count)
    }

    /// Keeps maps of such chunks, whose pages went back.
    pub(super) fn keep_spare(&mut self, spare: Vec<Storage>) {
        spare.into_iter().for_each(|storage| self.chunks.keep_spare(storage));
    }

    /// Frees everything piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        self.chunks.dismantle(freeing);
        freeing.drop_all(self.alone, 1);
    }

    #[cold]
    fn allocate_alone(&mut self, slot_bytes: usize) -> Handle {
        self.live_bytes += slot_bytes;
        self.alone_bytes += slot_bytes;
        let bytes = vec![0; slot_bytes].into_boxed_slice();
        Handle::new_alone(numbered::put(&mut self.alone, &mut self.alone_free, bytes))
    }

    #[cold]
    fn add_span(&mut self, class: usize) -> u32 {
        let slot_bytes = class * UNIT_BYTES;
        let (chunk, first, granules) = self.place_for_span(class);
        let span = Span::new(chunk, first, granules, slot_bytes, NOWHERE);
        let number = numbered::put(&mut self.spans, &mut self.spans_released, span);
        let (span, class) = (&mut self.spans[number as usize], &mut self.classes[class]);
        class.slots += usize::from(span.slots);
        class.enter(span, number);
        self.chunks.change(chunk, |chunk| chunk.carve(first, granules, slot_bytes as u16, number));
        number
    }

    /// A chunk, the first granule and how many, for a span of this class.
    fn place_for_span(&mut self, class: usize) -> (u32, u32, u32) {
        let (slot_bytes, class_bytes) = (class * UNIT_BYTES, self.classes[class].live * class * UNIT_BYTES);
        self.chunks.place_for(slot_bytes, class_bytes).unwrap_or_else(|| {
            self.compaction.chunk_was_added();
            (self.chunks.add(), 0, granules_for(slot_bytes, class_bytes))
        })
    }

    /// Takes an empty span away from its class, and its chunk, if that is empty then, out of use.
    #[cold]
    fn release(&mut self, number: u32) {
        let span = &self.spans[number as usize];
        let class = usize::from(span.slot_bytes) / UNIT_BYTES;
        self.classes[class].slots -= usize::from(span.slots);
        let (chunk, first, granules, place) = (span.chunk, span.first_granule, span.granules, span.place);
        if place < RETIRED {
            self.leave_with_room(class, number);
        }
        self.compaction.forget_span(number);
        self.spans_released.push(number);
        self.chunks.change(chunk, |chunk| chunk.give_back(first.into(), granules.into()));
        if self.chunks.get(chunk).is_empty() {
            self.chunks.release(chunk);
            self.compaction.forget_chunk(chunk);
        }
    }

    fn leave_with_room(&mut self, class: usize, number: u32) {
        let with_room = &mut self.classes[class].with_room;
        let place = std::mem::replace(&mut self.spans[number as usize].place, NOWHERE) as usize;
        with_room.swap_remove(place);
        if let Some(moved) = with_room.get(place) {
            self.spans[*moved as usize].place = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Arena, Handle, SLOT_BYTES_MAX, SLOT_BYTES_UNUSED_MAX, Step, Storage};

    /// Where a live entry has its mark, as those of the keyspace do.
    const MARK_AT: usize = 9;

    fn allocate(arena: &mut Arena, bytes: usize, content: u32) -> Handle {
        assert!(bytes - 4 > MARK_AT, "the content would lie on the mark");
        let handle = arena.allocate(bytes);
        let slot = arena.slot_mut(handle);
        slot[MARK_AT] = 1;
        slot[bytes - 4..bytes].copy_from_slice(&content.to_le_bytes());
        handle
    }

    fn free(arena: &mut Arena, handle: Handle) {
        arena.slot_mut(handle)[MARK_AT] = 0;
        arena.free(handle);
    }

    /// Moves all that is worth it. Entries are found in `live` by their handles.
    fn compact(arena: &mut Arena, live: &mut [(Handle, u32, usize)]) -> usize {
        let mut moved = 0;
        for _ in 0..1_000_000 {
            match arena.next_to_move(|slot| slot[MARK_AT] != 0) {
                Step::Move(old) => {
                    let new = arena.copy(old);
                    free(arena, old);
                    live.iter_mut().find(|entry| entry.0 == old).expect("it lives").0 = new;
                    moved += 1;
                }
                Step::Pause => {}
                Step::Done => return moved,
            }
        }
        panic!("compaction has no end");
    }

    /// Gives back what is empty, and keeps its maps.
    fn give_back(arena: &mut Arena) {
        loop {
            let mut emptied = arena.take_emptied(2);
            if emptied.is_empty() {
                break;
            }
            assert!(emptied.iter_mut().all(Storage::give_pages_back));
            arena.keep_spare(emptied);
        }
    }

    fn random(seed: &mut u32) -> u32 {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *seed >> 8
    }

    #[test]
    fn classes_are_apart_by_their_size_and_an_entry_that_is_moved_keeps_its_slot() {
        let mut classes = BTreeSet::new();
        for bytes in 11..=SLOT_BYTES_MAX {
            let slot = Arena::slot_bytes_for(bytes);
            assert!(slot >= bytes && slot - bytes <= (bytes / 16).max(7), "{bytes}: {slot}");
            assert!(slot - bytes <= SLOT_BYTES_UNUSED_MAX && slot.is_multiple_of(8) && slot <= SLOT_BYTES_MAX);
            assert_eq!(Arena::slot_bytes_for(slot), slot);
            classes.insert(slot);
        }
        assert_eq!(classes.len(), 64 - 1 + 3 * 16);
        assert_eq!([343, 513, 10_001].map(Arena::slot_bytes_for), [344, 544, 10_008]);
    }

    #[test]
    fn free_memory_that_is_used_again_counts_once() {
        let (mut arena, mut seed) = (Arena::default(), 1);
        let mut fill = |arena: &mut Arena, count: u32| -> Vec<(Handle, u32, usize)> {
            let sizes = (0..count).map(|number| (number, 100 + random(&mut seed) as usize % 3_900)).collect::<Vec<_>>();
            sizes.into_iter().map(|(number, size)| (allocate(arena, size, number), number, size)).collect()
        };
        let mut live = fill(&mut arena, 1_000);
        live.retain(|(handle, number, _)| {
            let stays = number % 3 == 0;
            if !stays {
                free(&mut arena, *handle);
            }
            stays
        });
        compact(&mut arena, &mut live);
        let (held, used) = (arena.held_bytes(), arena.live_bytes);
        assert!(held > used);
        fill(&mut arena, 15);
        assert!(arena.live_bytes > used);
        assert_eq!(arena.held_bytes().max(held) - held, 0, "{used} bytes were used");
    }

    #[test]
    fn slots_keep_what_was_written_and_all_goes_back() {
        let mut arena = Arena::default();
        let mut live: Vec<(Handle, u32, usize)> = Vec::new();
        let mut seed = 1;
        for step in 0..200_000_u32 {
            let size = match random(&mut seed) % 97 {
                0 => 10_000,
                1..20 => 500 + random(&mut seed) as usize % 3_596,
                _ => 16 + random(&mut seed) as usize % 400,
            };
            // Rising and falling, so that chunks go and come.
            let wanted = 3_000 + 2_500 * (step as usize / 20_000 % 2);
            if live.len() > wanted || (random(&mut seed).is_multiple_of(4) && !live.is_empty()) {
                let (handle, content, size) = live.swap_remove(random(&mut seed) as usize % live.len());
                assert_eq!(&arena.slot(handle)[size - 4..size], content.to_le_bytes());
                free(&mut arena, handle);
            } else {
                let handle = allocate(&mut arena, size, step);
                assert_eq!(arena.slot(handle).len(), Arena::slot_bytes_for(size));
                live.push((handle, step, size));
            }
            if step % 10_000 == 0 {
                compact(&mut arena, &mut live);
                give_back(&mut arena);
            }
        }
        let handles: BTreeSet<u32> = live.iter().map(|entry| entry.0.bits()).collect();
        assert_eq!(handles.len(), live.len());
        assert_eq!(arena.live_bytes, live.iter().map(|entry| Arena::slot_bytes_for(entry.2)).sum::<usize>());
        for (handle, content, size) in live {
            assert_eq!(&arena.slot(handle)[size - 4..size], content.to_le_bytes());
            free(&mut arena, handle);
        }
        assert_eq!(arena.live_bytes, 0);
        assert!(arena.mapped_bytes() > 0);
        compact(&mut arena, &mut []);
        arena.release_empty();
        give_back(&mut arena);
        assert_eq!(arena.mapped_bytes(), 0);
        assert_eq!(arena.chunks.free_granules(), 0);
        assert!(arena.classes.iter().all(|class| class.slots == 0 && class.live == 0));
        let handle = arena.allocate(100);
        assert_eq!(arena.slot(handle).len(), 104);
    }

    #[test]
    fn an_empty_span_serves_another_class() {
        let mut arena = Arena::default();
        let old: Vec<_> = (0..2_000).map(|number| allocate(&mut arena, 344, number)).collect();
        // One entry of another size holds a chunk.
        allocate(&mut arena, 16, 0);
        let full = arena.mapped_bytes();
        old.into_iter().for_each(|handle| free(&mut arena, handle));
        arena.release_empty();
        let chunks = arena.chunks.bytes();
        assert!(chunks < full);
        for number in 0..90 {
            allocate(&mut arena, 1_000, number);
        }
        assert_eq!(arena.chunks.bytes(), chunks, "there was room");
    }

    #[test]
    fn what_a_mass_removal_left_sparse_is_emptied() {
        let mut arena = Arena::default();
        let mut seed = 7;
        let mut live: Vec<_> = (0..20_000)
            .map(|number| {
                let size = 50 + random(&mut seed) as usize % 1_950;
                (allocate(&mut arena, size, number), number, size)
            })
            .collect();
        compact(&mut arena, &mut live);
        let full = arena.live_bytes;
        assert!(arena.mapped_bytes() * 100 < full * 110, "{} of {full}", arena.mapped_bytes());
        live.retain(|(handle, number, _)| {
            let stays = number % 10 == 0;
            if !stays {
                free(&mut arena, *handle);
            }
            stays
        });
        let moved = compact(&mut arena, &mut live);
        assert!(moved < 2 * live.len(), "{moved} of {}", live.len());
        arena.release_empty();
        give_back(&mut arena);
        let (mapped, used) = (arena.mapped_bytes(), arena.live_bytes);
        assert!(mapped * 100 < used * 130, "{mapped} of {used}");
        for (handle, content, size) in live {
            assert_eq!(&arena.slot(handle)[size - 4..size], content.to_le_bytes());
        }
    }
}
