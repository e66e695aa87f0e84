//! 128 bits as text: ids in cookies, tags in the names of keys. Each request pays for it, and a codec for base64 of any length takes
//! three times as long.

use tower_sessions::session::Id;

/// Bytes of 128 bits.
pub(crate) const BYTES: usize = 16;
/// Characters of them in base64 without padding: of 6 bits each, and of the last one two are left.
pub(crate) const CHARS: usize = 22;
/// Characters that are one number on the way: as many as fit. There are two of them, and two characters more.
const PART: usize = 10;
/// Bits of such a part.
const PART_BITS: u32 = 60;
/// Bits that the last two characters are for, and those behind them, which are 0.
const LAST_BITS: u32 = 8;
const REST_BITS: u32 = 4;
/// Beyond all values of characters.
const NONE: u8 = 1 << 6;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// As `Id` is parsed: neither padding nor bits that would be lost.
pub(crate) fn parse_id(text: &[u8]) -> Option<Id> {
    let text: &[u8; CHARS] = text.try_into().ok()?;
    let mut seen = 0;
    let mut number = |chars: &[u8]| {
        chars.iter().fold(0, |number: u64, &char| {
            let value = VALUES[usize::from(char)];
            seen |= value;
            number << 6 | u64::from(value)
        })
    };
    let (first, second, last) = (number(&text[..PART]), number(&text[PART..2 * PART]), number(&text[2 * PART..]));
    if seen & NONE != 0 || last.trailing_zeros() < REST_BITS {
        return None;
    }
    let bits = (u128::from(first) << PART_BITS | u128::from(second)) << LAST_BITS | u128::from(last >> REST_BITS);
    Some(Id(i128::from_le_bytes(bits.to_be_bytes())))
}

/// In base64 that may be a part of a URL.
pub(crate) fn text(bytes: [u8; BYTES]) -> [u8; CHARS] {
    let bits = u128::from_be_bytes(bytes);
    let mut text = [0; CHARS];
    let mut write = |at: usize, length: usize, number: u64| {
        let mut number = number;
        for char in text[at..at + length].iter_mut().rev() {
            *char = ALPHABET[(number & 63) as usize];
            number >>= 6;
        }
    };
    write(0, PART, (bits >> (PART_BITS + LAST_BITS)) as u64);
    write(PART, PART, (bits >> LAST_BITS) as u64);
    write(2 * PART, CHARS - 2 * PART, ((bits as u64) << REST_BITS) & ((1 << (LAST_BITS + REST_BITS)) - 1));
    text
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;
    use tower_sessions::session::Id;

    use super::{BYTES, parse_id, text};

    #[test]
    fn bits_are_written_as_ids_are() {
        for bytes in [[0; BYTES], [0xff; BYTES], rand::rng().random()] {
            assert_eq!(text(bytes), *Id(i128::from_le_bytes(bytes)).to_string().as_bytes(), "{bytes:?}");
        }
    }

    /// Texts of ids, changed in one place each.
    const TEXTS: usize = 20_000;

    #[test]
    fn an_id_is_read_as_it_reads_itself() {
        let mut rng = rand::rng();
        let mut read = 0;
        for _ in 0..TEXTS {
            let id = Id(rng.random());
            let mut text = id.to_string().into_bytes();
            assert_eq!(parse_id(&text), Some(id));
            assert_eq!(super::text(id.0.to_le_bytes()), *text);
            match rng.random_range(0..8) {
                0 => drop(text.pop()),
                1 => text.push(b'A'),
                2 => text.extend(b"=="),
                3 => text[21] = rng.random_range(b'-'..=b'z'),
                _ => {
                    let at = rng.random_range(0..text.len());
                    text[at] = rng.random();
                }
            }
            let theirs = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<Id>().ok());
            assert_eq!(parse_id(&text), theirs, "{text:?}");
            read += usize::from(theirs.is_some());
        }
        assert!((TEXTS / 50..TEXTS / 2).contains(&read), "{read} of {TEXTS} are ids still: neither case may be rare");
        for text in
            ["", "A", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAAAQ", "________________________"]
        {
            assert_eq!(parse_id(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }
}
