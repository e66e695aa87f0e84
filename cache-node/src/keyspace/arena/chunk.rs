//! Memory as it comes from the system and goes back to it: a map that is carved into spans.

use crate::keyspace::arena::storage::Storage;

/// Bytes of a chunk. Small ones become empty sooner and go back.
pub(super) const CHUNK_BYTES: usize = 128 * 1024;

/// Granules of a chunk: as many as its bitmap has bits. A span is some of them in a row.
pub(super) const GRANULES: u32 = u128::BITS;

/// A span wastes less than so much at its end.
pub(super) const GRANULE_BYTES: usize = CHUNK_BYTES / GRANULES as usize;

/// A map, and which span each part of it belongs to.
#[derive(Debug)]
pub(super) struct Chunk {
    storage: Storage,
    /// Which span has it all, unless it is `shared`.
    whole: Part,
    shared: Option<Box<Shared>>,
    /// A bit for each granule that no span has.
    free: u128,
    /// Its place among the chunks with as much room, or a mark; the arena's.
    pub(super) place: u32,
}

/// So many different [`Chunk::room`]s there are.
pub(super) const ROOMS: usize = GRANULES.ilog2() as usize + 1;

#[derive(Clone, Copy, Debug)]
struct Part {
    span: u32,
    slot_bytes: u16,
}

/// For each granule the slot size and the number of its span. A chunk of one span does without: a node of sessions of one size pays
/// nothing for it, and its lookups read one cache line less.
#[derive(Debug)]
struct Shared {
    slot_bytes: [u16; GRANULES as usize],
    spans: [u32; GRANULES as usize],
}

impl Chunk {
    pub(super) fn new(storage: Storage, place: u32) -> Chunk {
        Chunk { storage, whole: Part { span: 0, slot_bytes: 0 }, shared: None, free: u128::MAX, place }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.storage.bytes_mut()
    }

    pub(super) fn take_storage(&mut self) -> Storage {
        self.shared = None;
        std::mem::replace(&mut self.storage, Storage::nothing())
    }

    /// Size of the slot that begins there.
    #[inline]
    pub(super) fn slot_bytes(&self, start: usize) -> usize {
        match &self.shared {
            None => self.whole.slot_bytes.into(),
            Some(shared) => shared.slot_bytes[start / GRANULE_BYTES].into(),
        }
    }

    /// The span of the slot that begins there.
    pub(super) fn span(&self, start: usize) -> u32 {
        match &self.shared {
            None => self.whole.span,
            Some(shared) => shared.spans[start / GRANULE_BYTES],
        }
    }

    pub(super) fn free_granules(&self) -> u32 {
        self.free.count_ones()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free == u128::MAX
    }

    /// How long the longest row of free granules is: the logarithm to base 2, rounded down. `None` without a free one.
    pub(super) fn room(&self) -> Option<usize> {
        let (mut runs, mut room) = (self.free, None);
        // A bit stays where twice as many begin each time.
        for power in 0..ROOMS {
            if runs == 0 {
                break;
            }
            room = Some(power);
            runs &= runs.checked_shr(1 << power).unwrap_or(0);
        }
        room
    }

    /// The first of `granules` free ones in a row.
    pub(super) fn room_for(&self, granules: u32) -> Option<u32> {
        // A bit stays where as many as `found` begin.
        let (mut runs, mut found) = (self.free, 1);
        while found < granules && runs != 0 {
            let step = found.min(granules - found);
            runs &= runs >> step;
            found += step;
        }
        (runs != 0).then(|| runs.trailing_zeros())
    }

    /// Gives free granules to a span.
    pub(super) fn carve(&mut self, first: u32, granules: u32, slot_bytes: u16, span: u32) {
        debug_assert_eq!(self.free & bits(first, granules), bits(first, granules));
        self.free &= !bits(first, granules);
        if granules == GRANULES {
            self.whole = Part { span, slot_bytes };
            self.shared = None;
            return;
        }
        let nobody = || Box::new(Shared { slot_bytes: [0; GRANULES as usize], spans: [0; GRANULES as usize] });
        let shared = self.shared.get_or_insert_with(nobody);
        let range = first as usize..(first + granules) as usize;
        shared.slot_bytes[range.clone()].fill(slot_bytes);
        shared.spans[range].fill(span);
    }

    /// Takes granules back from a span.
    pub(super) fn give_back(&mut self, first: u32, granules: u32) {
        debug_assert_eq!(self.free & bits(first, granules), 0);
        self.free |= bits(first, granules);
    }

    /// The span of the first granule from `granule` on that has one, with that granule.
    pub(super) fn next_span(&self, granule: u32) -> Option<(u32, u32)> {
        let taken = !self.free & u128::MAX.checked_shl(granule).unwrap_or(0);
        (taken != 0).then(|| {
            let granule = taken.trailing_zeros();
            (granule, self.span(granule as usize * GRANULE_BYTES))
        })
    }
}

fn bits(first: u32, granules: u32) -> u128 {
    u128::MAX >> (GRANULES - granules) << first
}

#[cfg(test)]
mod tests {
    use super::{Chunk, GRANULE_BYTES, GRANULES, Storage};

    #[test]
    fn granules_are_given_in_a_row_and_taken_back() {
        let mut chunk = Chunk::new(Storage::nothing(), 0);
        assert_eq!((chunk.room_for(GRANULES), chunk.next_span(0)), (Some(0), None));
        chunk.carve(0, 5, 104, 7);
        chunk.carve(5, 1, 4_096, 8);
        chunk.carve(6, 100, 16, 9);
        assert_eq!((chunk.free_granules(), chunk.room_for(22), chunk.room_for(23)), (22, Some(106), None));
        for (granule, slot_bytes, span) in [(0, 104, 7), (4, 104, 7), (5, 4_096, 8), (6, 16, 9), (105, 16, 9)] {
            assert_eq!(chunk.slot_bytes(granule * GRANULE_BYTES + 1_000), slot_bytes);
            assert_eq!(chunk.span(granule * GRANULE_BYTES), span);
        }
        chunk.give_back(5, 1);
        assert_eq!((chunk.room_for(1), chunk.room_for(2)), (Some(5), Some(106)));
        assert_eq!((chunk.next_span(0), chunk.next_span(5), chunk.next_span(106)), (Some((0, 7)), Some((6, 9)), None));
        chunk.give_back(0, 5);
        assert_eq!(chunk.room_for(6), Some(0));
        chunk.give_back(6, 100);
        assert!(chunk.is_empty());
        assert_eq!(chunk.room(), Some(7));
        chunk.carve(0, GRANULES, 344, 3);
        assert_eq!((chunk.slot_bytes(131_000), chunk.span(0), chunk.room_for(1)), (344, 3, None));
    }
}
