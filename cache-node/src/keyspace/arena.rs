//! Memory for entries: pages of equal slots, in size classes 8 bytes apart up to 512 bytes and a 32nd to a 64th apart above.
//!
//! A session of 344 bytes takes 344 bytes. malloc would add a header and round up to 16; jemalloc and mimalloc would round to 384.
//! Pages are anonymous maps of 256 KiB: one that became empty goes back to the system within a tick, and one that is being filled takes only
//! what was touched. Entries are found by handle and never by address, so they can be moved: [`Arena::sparse_page`] names a page
//! worth emptying, and the table that owns the entries moves them.

use memmap2::MmapMut;

use crate::keyspace::garbage::Dismantling;

/// Sizes are multiples of this; handles count in it.
const UNIT_BYTES: usize = 8;

/// Bytes of a page. A class keeps up to a page and a quarter of free slots, in each of 16 shards: with 1 MiB that was 20 MiB for a
/// size that hardly occurs any more. Neighbouring maps count as one for the kernel, which allows 65,530.
const PAGE_BYTES: usize = 256 * 1024;

const UNITS_PER_PAGE: usize = PAGE_BYTES / UNIT_BYTES;

/// From a power of two to the next there are so many classes, where they are not 8 bytes apart: each keeps pages that are partly full, in
/// each shard. Sessions of 1 to 4 KB took 384 classes otherwise.
const CLASSES_PER_DOUBLING: usize = 32;

/// Bytes by which a slot is larger than what was asked for, at the most.
pub(super) const SLOT_BYTES_UNUSED_MAX: usize = SLOT_BYTES_MAX / (2 * CLASSES_PER_DOUBLING) - 1;

/// Largest slot in a page; a larger entry is allocated alone.
const SLOT_BYTES_MAX: usize = 4096;

/// Pages that handles can tell apart: 16 GiB of small entries per shard.
const PAGES_MAX: usize = (ALONE as usize - 1) / UNITS_PER_PAGE;

/// Marks the handle of an entry that is allocated alone.
const ALONE: u32 = 1 << 31;

/// Share of free slots in a class, in eighths, from which its emptiest pages are worth emptying.
const SPARSE_EIGHTHS: usize = 1;

/// No next slot, no page.
const NONE: u32 = u32::MAX;

/// Where an entry lies. Never 0, so that a table's slot can say "empty" with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle(u32);

impl Handle {
    pub(super) fn from_bits(bits: u32) -> Handle {
        Handle(bits)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    fn new(page: u32, unit: usize) -> Handle {
        Handle(page * UNITS_PER_PAGE as u32 + unit as u32 + 1)
    }

    /// The entry's number among those allocated alone.
    fn alone(self) -> Option<usize> {
        (self.0 & ALONE != 0).then_some((self.0 & !ALONE) as usize)
    }

    fn page(self) -> usize {
        (self.0 - 1) as usize / UNITS_PER_PAGE
    }

    fn start(self) -> usize {
        (self.0 - 1) as usize % UNITS_PER_PAGE * UNIT_BYTES
    }
}

/// A page's memory.
#[derive(Debug)]
pub(super) enum Storage {
    /// Released; the page's number waits to be used again.
    Nothing,
    Map(MmapMut),
    /// Where the kernel gives no more maps.
    Heap(Box<[u8]>),
}

impl Storage {
    fn new() -> Storage {
        match MmapMut::map_anon(PAGE_BYTES) {
            Ok(map) => Storage::Map(map),
            Err(_) => Storage::Heap(vec![0; PAGE_BYTES].into_boxed_slice()),
        }
    }
}

#[derive(Debug)]
struct Page {
    storage: Storage,
    slot_bytes: usize,
    slots: u32,
    live: u32,
    /// Slots before this one have been used at least once.
    fresh: u32,
    /// First of the free slots, each of which names the next in its first four bytes.
    free: u32,
    /// Its place among the class's pages with room; [`NONE`] while it is full.
    place: u32,
}

/// Pages of one slot size.
#[derive(Debug, Default)]
struct Class {
    with_room: Vec<u32>,
    slots: usize,
    live: usize,
}

/// The memory of one shard's entries.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pages: Vec<Page>,
    released: Vec<u32>,
    classes: Vec<Class>,
    /// Of pages that became empty: to be filled again, or unmapped without a lock, which takes about 30 µs each. The last few of the keys
    /// that expire together empty all of a shard's pages.
    emptied: Vec<Storage>,
    alone: Vec<Box<[u8]>>,
    /// Free places in `alone`.
    alone_free: Vec<u32>,
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
            None => self.add_page(class),
        };
        let page = &mut self.pages[number as usize];
        let slot = page.take();
        let is_full = page.live == page.slots;
        if is_full {
            self.leave_with_room(class, number);
        }
        self.classes[class].live += 1;
        self.live_bytes += slot_bytes;
        Handle::new(number, slot as usize * class)
    }

    /// Gives a slot back. A page that became empty is one to be unmapped, unless it is the class's only one with room.
    pub(super) fn free(&mut self, handle: Handle) {
        if let Some(number) = handle.alone() {
            self.live_bytes -= std::mem::take(&mut self.alone[number]).len();
            self.alone_free.push(number as u32);
            return;
        }
        let number = handle.page();
        let slot_bytes = self.pages[number].slot_bytes;
        self.live_bytes -= slot_bytes;
        let class = slot_bytes / UNIT_BYTES;
        self.classes[class].live -= 1;
        let page = &mut self.pages[number];
        page.give((handle.start() / slot_bytes) as u32);
        let is_empty = page.live == 0;
        if page.place == NONE {
            page.place = self.classes[class].with_room.len() as u32;
            self.classes[class].with_room.push(number as u32);
        }
        if is_empty && self.classes[class].with_room.len() > 1 {
            self.release(class, number as u32);
        }
    }

    pub(super) fn slot(&self, handle: Handle) -> &[u8] {
        if let Some(number) = handle.alone() {
            return &self.alone[number];
        }
        let page = &self.pages[handle.page()];
        let start = handle.start();
        &page.bytes()[start..start + page.slot_bytes]
    }

    pub(super) fn slot_mut(&mut self, handle: Handle) -> &mut [u8] {
        if let Some(number) = handle.alone() {
            return &mut self.alone[number];
        }
        let page = &mut self.pages[handle.page()];
        let start = handle.start();
        let end = start + page.slot_bytes;
        &mut page.bytes_mut()[start..end]
    }

    /// Size of the slot that `bytes` would take: up to 7 more, or above 512 up to a 32nd more; [`SLOT_BYTES_UNUSED_MAX`] at the most.
    pub(super) fn slot_bytes_for(bytes: usize) -> usize {
        let apart = if bytes <= SLOT_BYTES_MAX { bytes.next_power_of_two() / (2 * CLASSES_PER_DOUBLING) } else { 0 };
        bytes.next_multiple_of(apart.max(UNIT_BYTES))
    }

    /// Bytes of all slots in use.
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Bytes of all pages, the free slots included. O(pages).
    pub(super) fn mapped_bytes(&self) -> usize {
        let alone: usize = self.alone.iter().map(|bytes| bytes.len()).sum();
        let emptied = self.emptied.len() * PAGE_BYTES;
        alone + emptied + self.pages.iter().map(|page| page.bytes().len()).sum::<usize>()
    }

    /// Up to `count` of the pages that are to be unmapped, which dropping them does.
    pub(super) fn take_emptied(&mut self, count: usize) -> Vec<Storage> {
        self.emptied.split_off(self.emptied.len().saturating_sub(count))
    }

    /// Frees everything piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        /// To unmap a page takes as long as to free so many allocations.
        const PAGE_ALLOCATIONS: usize = 64;
        freeing.drop_all(self.pages, PAGE_ALLOCATIONS);
        freeing.drop_all(self.emptied, PAGE_ALLOCATIONS);
        freeing.drop_all(self.alone, 1);
    }

    /// Has the empty pages unmapped that were kept for the next entry of their size: after a mass expiry nothing of that size may come for
    /// long. Called now and then, so that a page is not mapped and unmapped at every change of a key that comes and goes.
    /// O(classes).
    pub(super) fn release_empty(&mut self) {
        for class in 0..self.classes.len() {
            let [number] = self.classes[class].with_room[..] else { continue };
            if self.pages[number as usize].live == 0 {
                self.release(class, number);
            }
        }
    }

    /// A page whose entries should be moved elsewhere, so that it can go back to the system. O(pages of the sparsest class).
    pub(super) fn sparse_page(&self) -> Option<SparsePage> {
        let worth = |class: &Class| {
            let free = class.slots - class.live;
            let page = self.pages[*class.with_room.first()? as usize].slots as usize;
            // Elsewhere there must be room for all that the page holds, or a new page would be needed to empty one.
            let has_room = class.with_room.len() > 1 && free > page + page / 4;
            (has_room && free * 8 > class.slots * SPARSE_EIGHTHS).then_some(free)
        };
        let (_, class) = self.classes.iter().filter_map(|class| Some((worth(class)?, class))).max_by_key(|(free, _)| *free)?;
        // Not the last one: that is where new entries go.
        let candidates = &class.with_room[..class.with_room.len() - 1];
        let number = *candidates.iter().min_by_key(|number| self.pages[**number as usize].live)?;
        Some(SparsePage { number, next: 0 })
    }

    /// Live slots of a page from `page.next` on, one per call. `is_live` looks at a slot's bytes: a free slot is told apart by its
    /// owner's mark.
    pub(super) fn next_live(&self, page: &mut SparsePage, is_live: impl Fn(&[u8]) -> bool) -> Option<Handle> {
        let inner = &self.pages[page.number as usize];
        while page.next < inner.fresh {
            let unit = page.next as usize * inner.slot_bytes / UNIT_BYTES;
            page.next += 1;
            let handle = Handle::new(page.number, unit);
            if is_live(self.slot(handle)) {
                return Some(handle);
            }
        }
        None
    }

    /// Copies a slot into another one of its class.
    pub(super) fn copy(&mut self, old: Handle) -> Handle {
        let new = self.allocate(self.slot(old).len());
        let [from, to] = [old, new].map(|handle| (handle.page(), handle.start()));
        let bytes = self.slot(old).len();
        if from.0 == to.0 {
            self.pages[from.0].bytes_mut().copy_within(from.1..from.1 + bytes, to.1);
        } else if let Ok([source, target]) = self.pages.get_disjoint_mut([from.0, to.0]) {
            target.bytes_mut()[to.1..to.1 + bytes].copy_from_slice(&source.bytes()[from.1..from.1 + bytes]);
        }
        new
    }

    /// Takes a page out of those that get new entries, while its own are moved away.
    pub(super) fn retire(&mut self, page: &SparsePage) {
        let class = self.pages[page.number as usize].slot_bytes / UNIT_BYTES;
        let with_room = &mut self.classes[class].with_room;
        let place = self.pages[page.number as usize].place;
        if place != NONE && place != 0 {
            // First in line is last to be used: allocation takes from the end.
            with_room.swap(0, place as usize);
            let (first, other) = (with_room[0], with_room[place as usize]);
            self.pages[first as usize].place = 0;
            self.pages[other as usize].place = place;
        }
    }

    fn allocate_alone(&mut self, slot_bytes: usize) -> Handle {
        self.live_bytes += slot_bytes;
        let bytes = vec![0; slot_bytes].into_boxed_slice();
        let number = match self.alone_free.pop() {
            Some(number) => {
                self.alone[number as usize] = bytes;
                number
            }
            None => {
                self.alone.push(bytes);
                self.alone.len() as u32 - 1
            }
        };
        Handle(ALONE | number)
    }

    fn add_page(&mut self, class: usize) -> u32 {
        let slot_bytes = class * UNIT_BYTES;
        let storage = self.emptied.pop().unwrap_or_else(Storage::new);
        let slots = (PAGE_BYTES / slot_bytes) as u32;
        let place = self.classes[class].with_room.len() as u32;
        let page = Page { storage, slot_bytes, slots, live: 0, fresh: 0, free: NONE, place };
        let number = match self.released.pop() {
            Some(number) => {
                self.pages[number as usize] = page;
                number
            }
            None => {
                assert!(self.pages.len() < PAGES_MAX, "a shard holds at most 16 GiB of small entries; set maxmemory below 256gb");
                self.pages.push(page);
                self.pages.len() as u32 - 1
            }
        };
        self.classes[class].with_room.push(number);
        self.classes[class].slots += slots as usize;
        number
    }

    /// Takes an empty page away from a class.
    fn release(&mut self, class: usize, number: u32) {
        self.leave_with_room(class, number);
        let page = &mut self.pages[number as usize];
        self.classes[class].slots -= page.slots as usize;
        self.emptied.push(std::mem::replace(&mut page.storage, Storage::Nothing));
        // Whoever walks through it finds nothing more.
        page.fresh = 0;
        self.released.push(number);
    }

    fn leave_with_room(&mut self, class: usize, number: u32) {
        let with_room = &mut self.classes[class].with_room;
        let place = std::mem::replace(&mut self.pages[number as usize].place, NONE) as usize;
        with_room.swap_remove(place);
        if let Some(moved) = with_room.get(place) {
            self.pages[*moved as usize].place = place as u32;
        }
    }
}

/// A page that is being emptied.
#[derive(Debug)]
pub(super) struct SparsePage {
    number: u32,
    next: u32,
}

impl Page {
    fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Nothing => &[],
            Storage::Map(map) => map,
            Storage::Heap(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.storage {
            Storage::Nothing => &mut [],
            Storage::Map(map) => map,
            Storage::Heap(bytes) => bytes,
        }
    }

    fn take(&mut self) -> u32 {
        self.live += 1;
        if self.free == NONE {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let slot = self.free;
        let start = slot as usize * self.slot_bytes;
        let next: [u8; 4] = self.bytes()[start..start + 4].try_into().expect("four bytes");
        self.free = u32::from_le_bytes(next);
        slot
    }

    fn give(&mut self, slot: u32) {
        self.live -= 1;
        let start = slot as usize * self.slot_bytes;
        let next = self.free.to_le_bytes();
        self.bytes_mut()[start..start + 4].copy_from_slice(&next);
        self.free = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, PAGE_BYTES, SLOT_BYTES_MAX, SLOT_BYTES_UNUSED_MAX};

    #[test]
    fn classes_are_apart_by_their_size_and_an_entry_that_is_moved_keeps_its_slot() {
        let mut classes = std::collections::BTreeSet::new();
        for bytes in 11..=SLOT_BYTES_MAX {
            let slot = Arena::slot_bytes_for(bytes);
            assert!(slot >= bytes && slot - bytes <= (bytes / 32).max(7), "{bytes}: {slot}");
            assert!(slot - bytes <= SLOT_BYTES_UNUSED_MAX && slot.is_multiple_of(8) && slot <= SLOT_BYTES_MAX);
            assert_eq!(Arena::slot_bytes_for(slot), slot);
            classes.insert(slot);
        }
        assert_eq!(classes.len(), 64 - 1 + 3 * 32);
        assert_eq!([343, 513, 10_001].map(Arena::slot_bytes_for), [344, 528, 10_008]);
    }

    #[test]
    fn slots_keep_what_was_written_and_empty_pages_go_back() {
        let mut arena = Arena::default();
        let mut live = Vec::new();
        let mut seed = 1_u32;
        for step in 0..200_000_u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if live.len() > 5_000 || (seed >> 30 == 0 && !live.is_empty()) {
                let (handle, mark, size): (_, u32, usize) = live.swap_remove(seed as usize % live.len());
                assert_eq!(&arena.slot(handle)[size - 4..size], mark.to_le_bytes());
                arena.free(handle);
            } else {
                let size = if seed.is_multiple_of(97) { 10_000 } else { 16 + (seed >> 8) as usize % 400 };
                let handle = arena.allocate(size);
                assert!(arena.slot(handle).len() - size < 8);
                arena.slot_mut(handle)[size - 4..size].copy_from_slice(&step.to_le_bytes());
                live.push((handle, step, size));
            }
        }
        for (handle, mark, size) in live {
            assert_eq!(&arena.slot(handle)[size - 4..size], mark.to_le_bytes());
            arena.free(handle);
        }
        assert_eq!(arena.live_bytes(), 0);
        assert!(arena.mapped_bytes() > 0);
        while !arena.take_emptied(2).is_empty() {}
        // One page per class stays for the next entry.
        assert!(arena.mapped_bytes() <= 60 * PAGE_BYTES, "{}", arena.mapped_bytes());
        arena.release_empty();
        while !arena.take_emptied(2).is_empty() {}
        assert_eq!(arena.mapped_bytes(), 0);
        let handle = arena.allocate(100);
        assert_eq!(arena.slot(handle).len(), 104);
    }

    #[test]
    fn a_page_with_few_entries_is_named() {
        let mut arena = Arena::default();
        let handles: Vec<_> = (0..30_000).map(|_| arena.allocate(344)).collect();
        assert!(arena.sparse_page().is_none());
        for (index, handle) in handles.iter().enumerate() {
            arena.slot_mut(*handle)[9] = 1;
            if index % 4 != 0 {
                arena.slot_mut(*handle)[9] = 0;
                arena.free(*handle);
            }
        }
        let mut page = arena.sparse_page().expect("three quarters are free");
        let mut live = 0;
        while arena.next_live(&mut page, |slot| slot[9] != 0).is_some() {
            live += 1;
        }
        assert!((1..250).contains(&live), "{live}");
    }
}
