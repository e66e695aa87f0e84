//! Where an entry lies: 31 bits that count in units of 8 bytes over all chunks of a shard.

use crate::keyspace::arena::chunk::CHUNK_BYTES;

/// Sizes of slots are multiples of this; handles count in it.
pub(super) const UNIT_BYTES: usize = 8;

const UNITS_PER_CHUNK: usize = CHUNK_BYTES / UNIT_BYTES;

/// Marks the handle of an entry that is allocated alone.
const ALONE: u32 = 1 << 31;

/// Chunks that handles can tell apart: 16 GiB of small entries per shard.
pub(super) const CHUNKS_MAX: usize = (ALONE as usize - 1) / UNITS_PER_CHUNK;

/// Where an entry lies. Never 0, so that a table's slot can say "empty" with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::keyspace) struct Handle(u32);

impl Handle {
    pub(in crate::keyspace) fn from_bits(bits: u32) -> Handle {
        Handle(bits)
    }

    pub(in crate::keyspace) fn bits(self) -> u32 {
        self.0
    }

    /// Of a slot that begins `start` bytes into a chunk.
    pub(super) fn new(chunk: u32, start: usize) -> Handle {
        Handle(chunk * UNITS_PER_CHUNK as u32 + (start / UNIT_BYTES) as u32 + 1)
    }

    /// Of the entry with this number among those allocated alone.
    pub(super) fn new_alone(number: u32) -> Handle {
        Handle(ALONE | number)
    }

    /// The entry's number among those allocated alone.
    pub(super) fn alone(self) -> Option<usize> {
        (self.0 & ALONE != 0).then_some((self.0 & !ALONE) as usize)
    }

    pub(super) fn chunk(self) -> u32 {
        (self.0 - 1) / UNITS_PER_CHUNK as u32
    }

    /// Bytes from the chunk's beginning to the slot's.
    pub(super) fn start(self) -> usize {
        (self.0 - 1) as usize % UNITS_PER_CHUNK * UNIT_BYTES
    }
}
