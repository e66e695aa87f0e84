//! The last bytes of the stream, for replicas: those that come back, and those that are sent it right now.

use std::collections::VecDeque;

/// Bytes of a block: what is given back at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// Bytes with the stream's offsets, in blocks. Memory is taken as bytes come in.
#[derive(Debug)]
pub(super) struct Backlog {
    blocks: VecDeque<Block>,
    capacity: usize,
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Block {
    /// The offset of its first byte.
    start: u64,
    bytes: Vec<u8>,
}

impl Backlog {
    pub(super) fn new(capacity: usize, offset: u64) -> Backlog {
        Backlog { blocks: VecDeque::new(), capacity: capacity.max(1), start: offset, end: offset }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The oldest offset that can be read.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Adds bytes, and forgets those before the last [`Backlog::capacity`], but none from `held_from` on, which someone is still to read,
    /// as long as those are no more than `held_max`.
    pub(super) fn push(&mut self, bytes: &[u8], held_from: u64, held_max: u64) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.blocks.back().is_none_or(|block| block.bytes.len() == BLOCK_BYTES) {
                self.blocks.push_back(Block { start: self.end, bytes: Vec::new() });
            }
            let Some(block) = self.blocks.back_mut() else { return };
            let (part, behind) = rest.split_at(rest.len().min(BLOCK_BYTES - block.bytes.len()));
            block.bytes.extend_from_slice(part);
            self.end += part.len() as u64;
            rest = behind;
        }
        let wanted = self.end.saturating_sub(self.capacity as u64);
        let held = held_from.max(self.end.saturating_sub(held_max));
        self.start = self.start.max(wanted.min(held));
        while self.blocks.front().is_some_and(|block| block.start + block.bytes.len() as u64 <= self.start) {
            self.blocks.pop_front();
        }
    }

    /// Up to `bytes_max` bytes from `offset` on; `None` when they are not there.
    pub(super) fn read(&self, offset: u64, bytes_max: usize) -> Option<Vec<u8>> {
        if offset < self.start || offset > self.end {
            return None;
        }
        let length = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(bytes_max);
        let mut bytes = Vec::with_capacity(length);
        let first = self.blocks.partition_point(|block| block.start + block.bytes.len() as u64 <= offset);
        for block in self.blocks.range(first..) {
            let from = offset.saturating_sub(block.start) as usize;
            let part = &block.bytes[from..];
            bytes.extend_from_slice(&part[..part.len().min(length - bytes.len())]);
            if bytes.len() == length {
                break;
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Backlog};

    const NOBODY: u64 = u64::MAX;

    #[test]
    fn every_offset_of_the_last_bytes_reads_what_was_pushed_there() {
        const START: u64 = 1_000;
        for (capacity, scale) in [(1, 1), (7, 1), (16, 1), (100, 1), (BLOCK_BYTES - 1, 2_000), (3 * BLOCK_BYTES, 9_000)] {
            let mut backlog = Backlog::new(capacity, START);
            let mut stream: Vec<u8> = Vec::new();
            for round in 0..200_usize {
                let piece: Vec<u8> = (0..round * 7 % 23 * scale).map(|index| (round * 31 + index) as u8).collect();
                stream.extend_from_slice(&piece);
                backlog.push(&piece, NOBODY, 0);
                let end = START + stream.len() as u64;
                let kept = stream.len().min(capacity);
                assert!(backlog.start() >= START && end - backlog.start() == kept as u64, "{capacity} {round}");
                for behind in (0..=kept).step_by(scale) {
                    let from = &stream[stream.len() - behind..];
                    assert_eq!(backlog.read(end - behind as u64, usize::MAX).as_deref(), Some(from));
                    assert_eq!(backlog.read(end - behind as u64, 3).as_deref(), Some(&from[..behind.min(3)]));
                }
                assert_eq!(backlog.read(end + 1, 1), None, "not written yet");
                assert_eq!(backlog.read(backlog.start() - 1, 1), None, "forgotten, or before the beginning");
            }
        }
    }

    #[test]
    fn what_someone_is_still_to_read_stays() {
        let mut backlog = Backlog::new(100, 0);
        for _ in 0..50 {
            backlog.push(&[7; 10_000], 20_000, 480_000);
        }
        assert_eq!(backlog.start(), 20_000);
        assert_eq!(backlog.read(20_000, usize::MAX).map(|bytes| bytes.len()), Some(480_000));
        // It has fallen too far behind.
        backlog.push(b"x", 20_000, 480_000);
        assert_eq!((backlog.start(), backlog.read(20_000, 1)), (20_001, None));
        backlog.push(b"x", NOBODY, 480_000);
        assert_eq!(backlog.start(), 500_002 - 100);
    }
}
