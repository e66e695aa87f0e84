//! Texts in one block of bytes: `length, text` one after the other.
//!
//! What small hashes and sets are made of: one allocation, and a walk over one cache line after the next.

/// Elements up to which a collection stays packed (Redis: `hash-max-listpack-entries`).
pub(super) const PACKED_COUNT_MAX: usize = 128;

/// Bytes up to which a collection stays packed: what a change in the middle may have to move.
pub(super) const PACKED_BYTES_MAX: usize = 8 * 1024;

/// A length of 255 or more: four bytes follow.
const LONG: u8 = 0xFF;

/// Bytes that a text takes in a block.
pub(super) fn packed_len(text: &[u8]) -> usize {
    let header = if text.len() < usize::from(LONG) { 1 } else { 5 };
    header + text.len()
}

/// Appends a text. The caller has made room: a block grows to fit and not by doubling, so that thousands of small collections keep
/// no empty tails.
pub(super) fn push(block: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(length) if length < LONG => block.push(length),
        _ => {
            block.push(LONG);
            block.extend_from_slice(&(text.len() as u32).to_le_bytes());
        }
    }
    block.extend_from_slice(text);
}

/// Writes a text to the start of `place`, which has room for it.
pub(super) fn put(place: &mut [u8], text: &[u8]) {
    let header = packed_len(text) - text.len();
    place[0] = if header == 1 { text.len() as u8 } else { LONG };
    if header > 1 {
        place[1..header].copy_from_slice(&(text.len() as u32).to_le_bytes());
    }
    place[header..header + text.len()].copy_from_slice(text);
}

/// A walk over a block.
#[derive(Clone, Debug)]
pub(crate) struct Texts<'a> {
    block: &'a [u8],
    position: usize,
}

impl<'a> Texts<'a> {
    /// From `start` on, where the first text begins.
    pub(super) fn new(block: &'a [u8], start: usize) -> Texts<'a> {
        Texts { block, position: start }
    }

    /// Where the next text starts in the block.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Bytes of what is left, lengths included.
    pub(crate) fn bytes(&self) -> usize {
        self.block.len() - self.position
    }

    /// The next text as the beginning of what is left of the block, and its length.
    #[inline]
    pub(crate) fn next_in_place(&mut self) -> Option<(&'a [u8], usize)> {
        let (start, length) = self.next_place()?;
        Some((&self.block[start..], length))
    }

    /// Where the next text begins behind its length, and that.
    #[inline]
    fn next_place(&mut self) -> Option<(usize, usize)> {
        let (start, length) = match *self.block.get(self.position)? {
            LONG => self.long_place(),
            short => (self.position + 1, usize::from(short)),
        };
        self.position = start + length;
        Some((start, length))
    }

    /// Apart, so that a walk over short texts is a short loop.
    #[cold]
    fn long_place(&self) -> (usize, usize) {
        let start = self.position + 5;
        let digits = &self.block[self.position + 1..start];
        (start, u32::from_le_bytes(digits.try_into().expect("four bytes")) as usize)
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (start, length) = self.next_place()?;
        Some(&self.block[start..start + length])
    }
}

/// Walks indexes below `cursor` (0: all) downwards, about `count` of them, and gives the next cursor, 0 at the end. Where removal
/// moves the last element into the gap, such a walk misses nothing that stays.
pub(super) fn scan_from_end(len: usize, cursor: u64, count: usize, visit: impl FnMut(usize)) -> u64 {
    let start = if cursor == 0 { len } else { usize::try_from(cursor).unwrap_or(usize::MAX).min(len) };
    let end = start.saturating_sub(count.max(1));
    (end..start).rev().for_each(visit);
    end as u64
}

#[cfg(test)]
mod tests {
    use super::{Texts, packed_len, push};

    #[test]
    fn texts_of_every_length_read_back() {
        let texts: Vec<Vec<u8>> = [0, 1, 253, 254, 255, 256, 70_000].iter().map(|length| vec![b'x'; *length]).collect();
        let mut block = Vec::new();
        texts.iter().for_each(|text| push(&mut block, text));
        assert_eq!(block.len(), texts.iter().map(|text| packed_len(text)).sum::<usize>());
        assert_eq!(Texts::new(&block, 0).collect::<Vec<_>>(), texts);
    }
}
