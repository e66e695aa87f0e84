//! A part of a chunk that holds slots of one size.

use crate::keyspace::arena::chunk::{CHUNK_BYTES, GRANULE_BYTES, GRANULES};

/// A class takes spans of about this share of what it holds: a little at first, and a whole chunk at 2 MiB.
const SPANS_PER_CLASS: usize = 16;

/// A span has at least so many bytes, and room for one slot.
const SPAN_BYTES_MIN: usize = 2 * 1024;

/// A span whose end loses less than this share is good.
const LOST_SHARE_GOOD: usize = 64;

/// No next slot.
const NO_SLOT: u32 = u32::MAX;

/// Granules of the next span for slots of this size, of which the class holds so many bytes.
pub(super) fn granules_for(slot_bytes: usize, class_bytes: usize) -> u32 {
    let wanted = (class_bytes / SPANS_PER_CLASS).max(SPAN_BYTES_MIN).max(slot_bytes).min(CHUNK_BYTES);
    let least = wanted.div_ceil(GRANULE_BYTES).next_power_of_two();
    let lost = |granules: &usize| granules * GRANULE_BYTES % slot_bytes;
    let mut sizes = least..=(2 * least).min(GRANULES as usize);
    let good = sizes.clone().find(|granules| lost(granules) * LOST_SHARE_GOOD <= granules * GRANULE_BYTES);
    good.or_else(|| sizes.by_ref().min_by_key(|granules| lost(granules) * CHUNK_BYTES / granules)).unwrap_or(least) as u32
}

#[derive(Debug)]
pub(super) struct Span {
    pub(super) chunk: u32,
    pub(super) first_granule: u8,
    pub(super) granules: u8,
    pub(super) slot_bytes: u16,
    pub(super) slots: u16,
    pub(super) live: u16,
    /// Slots before this one have been used at least once.
    pub(super) fresh: u16,
    /// First of the free slots, each of which names the next in its first four bytes.
    free: u32,
    /// Its place among the class's spans with room, or a mark; the arena's.
    pub(super) place: u32,
}

impl Span {
    pub(super) fn new(chunk: u32, first_granule: u32, granules: u32, slot_bytes: usize, place: u32) -> Span {
        let slots = (granules as usize * GRANULE_BYTES / slot_bytes) as u16;
        let (first_granule, granules, slot_bytes) = (first_granule as u8, granules as u8, slot_bytes as u16);
        Span { chunk, first_granule, granules, slot_bytes, slots, live: 0, fresh: 0, free: NO_SLOT, place }
    }

    /// Where a slot begins in the chunk.
    pub(super) fn start_of(&self, slot: u32) -> usize {
        usize::from(self.first_granule) * GRANULE_BYTES + slot as usize * usize::from(self.slot_bytes)
    }

    pub(super) fn is_full(&self) -> bool {
        self.live == self.slots
    }

    /// Takes a free slot of the chunk with these bytes, and tells where it begins.
    pub(super) fn take(&mut self, chunk: &[u8]) -> usize {
        self.live += 1;
        if self.free == NO_SLOT {
            self.fresh += 1;
            return self.start_of(u32::from(self.fresh) - 1);
        }
        let start = self.start_of(self.free);
        let next: [u8; 4] = chunk[start..start + 4].try_into().expect("four bytes");
        self.free = u32::from_le_bytes(next);
        start
    }

    /// Gives the slot back that begins there.
    pub(super) fn give(&mut self, chunk: &mut [u8], start: usize) {
        self.live -= 1;
        let slot = (start - self.start_of(0)) as u32 / u32::from(self.slot_bytes);
        chunk[start..start + 4].copy_from_slice(&self.free.to_le_bytes());
        self.free = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, GRANULE_BYTES, GRANULES, granules_for};
    use crate::keyspace::arena::{Arena, SLOT_BYTES_MAX};

    #[test]
    fn spans_lose_little_at_their_end_and_grow_with_their_class() {
        for class_bytes in [0, 64 * 1024, 512 * 1024, 4 * 1024 * 1024] {
            let (mut lost_bytes, mut all_bytes) = (0, 0);
            for slot_bytes in (16..=SLOT_BYTES_MAX).step_by(8).filter(|&bytes| Arena::slot_bytes_for(bytes) == bytes) {
                let granules = granules_for(slot_bytes, class_bytes);
                let bytes = granules as usize * GRANULE_BYTES;
                assert!((1..=GRANULES).contains(&granules) && bytes >= slot_bytes, "{slot_bytes}: {granules}");
                assert!(
                    bytes <= (class_bytes / 4).max(4 * 1024).max(slot_bytes.next_power_of_two() * 2),
                    "{slot_bytes}: {bytes}"
                );
                if class_bytes >= 2 * 1024 * 1024 {
                    assert_eq!(bytes, CHUNK_BYTES);
                }
                lost_bytes += bytes % slot_bytes;
                all_bytes += bytes;
            }
            assert!(lost_bytes * 100 < all_bytes * if class_bytes == 0 { 5 } else { 3 }, "{lost_bytes} of {all_bytes}");
        }
    }
}
