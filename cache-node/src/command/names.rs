//! Which row of the table a name means, in any case: looked up for each request.

use std::sync::LazyLock;

use crate::command::table::TABLE;

/// A command's name in capitals, filled up with zeros, as numbers: they are compared and mixed faster than bytes.
type Name = [u64; 3];

/// Longest name of a command: longer ones are unknown without a look.
const NAME_BYTES_MAX: usize = size_of::<Name>();

/// Slots of [`INDEX`]: a power of two, and so many that probing is rare.
const INDEX_SLOTS: usize = 1024;

#[derive(Clone, Copy, Default)]
struct IndexSlot {
    name: Name,
    name_bytes: usize,
    /// Place in [`TABLE`] plus one; 0 is free.
    place: usize,
}

/// Where the names stand in [`TABLE`], by [`slot`]. They are ours, so nobody can choose ones that collide.
static INDEX: LazyLock<Box<[IndexSlot]>> = LazyLock::new(|| {
    let mut index = vec![IndexSlot::default(); INDEX_SLOTS].into_boxed_slice();
    for (place, spec) in TABLE.iter().enumerate() {
        let bytes = spec.name.as_bytes();
        let name = capitals(bytes);
        let mut at = slot(&name);
        while index[at].place != 0 {
            at = (at + 1) % INDEX_SLOTS;
        }
        index[at] = IndexSlot { name, name_bytes: bytes.len(), place: place + 1 };
    }
    index
});

#[inline]
fn slot([first, second, third]: &Name) -> usize {
    let mixed = (first ^ second.rotate_left(29) ^ third.rotate_left(43)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 54) as usize % INDEX_SLOTS
}

/// Of up to [`NAME_BYTES_MAX`] bytes.
#[inline(always)]
fn capitals(bytes: &[u8]) -> Name {
    let mut name = Name::default();
    if bytes.len() <= size_of::<u64>() {
        // Nearly all of those that are sent.
        name[0] = uppercase(word_of(bytes));
        return name;
    }
    for (word, part) in name.iter_mut().zip(bytes.chunks(8)) {
        *word = uppercase(word_of(part));
    }
    name
}

/// Up to eight bytes as a number, without a loop or a call.
fn word_of(bytes: &[u8]) -> u64 {
    let shifted = |at: usize| u64::from(bytes[at]) << (8 * at);
    match bytes {
        [] => 0,
        [_] | [_, _] | [_, _, _] => shifted(0) | shifted(bytes.len() / 2) | shifted(bytes.len() - 1),
        [first @ .., a, b, c, d] => {
            // The two halves overlap where there are fewer than eight, with the same bytes.
            let low: [u8; 4] = bytes[..4].try_into().expect("four bytes");
            u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes([*a, *b, *c, *d])) << (8 * first.len())
        }
    }
}

/// Eight ASCII letters at once: each byte's high bit tells whether it is between `a` and `z`, and takes 32 from it.
fn uppercase(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (0x7F * EACH);
    let from_a = low_bits + (0x80 - u64::from(b'a')) * EACH;
    let behind_z = low_bits + (0x7F - u64::from(b'z')) * EACH;
    let is_small = (from_a ^ behind_z) & !word & (0x80 * EACH);
    word ^ is_small >> 2
}

/// A command's place in [`TABLE`], by its name in any case. O(1), no allocation.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    if bytes.len() > NAME_BYTES_MAX {
        return None;
    }
    let (index, name) = (&INDEX[..], capitals(bytes));
    let mut at = slot(&name);
    loop {
        let there = &index[at];
        let place = there.place.checked_sub(1)?;
        // A zero that was sent is not one that fills up.
        if there.name == name && there.name_bytes == bytes.len() {
            return Some(place);
        }
        at = (at + 1) % INDEX_SLOTS;
    }
}

#[cfg(test)]
mod tests {
    use super::{NAME_BYTES_MAX, TABLE, capitals, find};

    #[test]
    fn every_row_is_found_by_its_name_in_any_case() {
        for (index, spec) in TABLE.iter().enumerate() {
            assert!(spec.name.len() <= NAME_BYTES_MAX && spec.name == spec.name.to_ascii_uppercase(), "{}", spec.name);
            assert_eq!(find(spec.name.to_ascii_lowercase().as_bytes()), Some(index), "{} stands twice", spec.name);
        }
        assert_eq!(find(b"NOSUCHCOMMAND"), None);
        assert_eq!(find(&[b'A'; 1000]), None);
        assert_eq!([&b""[..], b"GET\0", b"\0", b"G\xC5T", b"G%T", &[0xE7, b'e', b't']].map(find), [None; 6]);
    }

    #[test]
    fn letters_become_capitals_and_nothing_else_changes() {
        for length in 0..=NAME_BYTES_MAX {
            for byte in 0..=u8::MAX {
                for at in 0..length {
                    let mut bytes = vec![b'q'; length];
                    bytes[at] = byte;
                    let mut expected = bytes.to_ascii_uppercase();
                    expected.resize(NAME_BYTES_MAX, 0);
                    assert_eq!(capitals(&bytes).map(u64::to_le_bytes).concat(), expected, "{bytes:?}");
                }
            }
        }
    }
}
