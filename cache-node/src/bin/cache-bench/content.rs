//! What is stored: keys, and values that tell which key they belong to.

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// Bytes of a key: a prefix of 10 and 22 characters, as many as 128 random bits have in base64.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a value where its size is not what is measured.
pub(crate) const VALUE_BYTES: usize = 300;
/// What stands before such a value in a Redis server's reply.
const VALUE_HEADER: &[u8] = b"$300\r\n";
/// Bytes at the beginning of a value that name its key and field.
const TAG_BYTES: usize = 8;
/// Bytes of which every value is a window.
const FILLER_BYTES: usize = 1 << 16;
/// The longest value.
pub(crate) const VALUE_BYTES_MAX: usize = 4096;

/// Keys and values made from a seed: the same in every run, and nowhere stored but in the servers.
#[derive(Debug)]
pub(crate) struct Content {
    keys: Vec<u8>,
    filler: Vec<u8>,
}

impl Content {
    /// `count` keys that begin with `prefix`.
    pub(crate) fn new(prefix: &str, count: usize, seed: u64) -> Content {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut keys = Vec::with_capacity(count * KEY_BYTES);
        for _ in 0..count {
            keys.extend(prefix.bytes().chain(std::iter::repeat(b':')).take(KEY_BYTES - 22));
            let bits = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
            keys.extend((0..22).map(|index| ALPHABET[(bits >> (index * 6 % 122)) as usize & 63]));
        }
        // Printable, as session data are: nothing in it may look like the end of a line.
        let filler = (0..FILLER_BYTES).map(|_| ALPHABET[rng.next_u64() as usize & 63]).collect();
        Content { keys, filler }
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> usize {
        self.keys.len() / KEY_BYTES
    }

    /// Key number `index`.
    pub(crate) fn key(&self, index: u32) -> &[u8] {
        let start = index as usize * KEY_BYTES;
        &self.keys[start..start + KEY_BYTES]
    }

    /// Writes the value that field `field` of key `index` has in this length: at least 8 bytes, [`VALUE_BYTES_MAX`] at the most.
    pub(crate) fn write_value(&self, index: u32, field: u8, out: &mut [u8]) {
        let (tag, rest) = out.split_at_mut(TAG_BYTES);
        tag.copy_from_slice(&tag_of(index, field));
        rest.copy_from_slice(self.window(index, field, rest.len()));
    }

    /// Whether `bytes` is what [`write_value`](Self::write_value) wrote.
    pub(crate) fn is_value(&self, index: u32, field: u8, bytes: &[u8]) -> bool {
        bytes.len() >= TAG_BYTES
            && bytes[..TAG_BYTES] == tag_of(index, field)
            && bytes[TAG_BYTES..] == *self.window(index, field, bytes.len() - TAG_BYTES)
    }

    /// Whether a Redis server's reply to GET is the value of field 0 of key `index`, [`VALUE_BYTES`] long.
    pub(crate) fn is_reply(&self, index: u32, reply: &[u8]) -> bool {
        let value = reply.strip_prefix(VALUE_HEADER).and_then(|rest| rest.strip_suffix(b"\r\n"));
        value.is_some_and(|value| value.len() == VALUE_BYTES && self.is_value(index, 0, value))
    }

    fn window(&self, index: u32, field: u8, length: usize) -> &[u8] {
        let start = (index as usize * 7 + usize::from(field) * 61) % (FILLER_BYTES - VALUE_BYTES_MAX);
        &self.filler[start..start + length]
    }
}

fn tag_of(index: u32, field: u8) -> [u8; TAG_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut number = index << 4 ^ index >> 28 ^ u32::from(field & 15);
    let mut tag = [b'#'; TAG_BYTES];
    for digit in tag.iter_mut().rev() {
        *digit = DIGITS[number as usize & 15];
        number >>= 4;
    }
    tag
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Content, KEY_BYTES, VALUE_BYTES};

    #[test]
    fn keys_are_distinct_repeatable_and_32_bytes_long() {
        let (a, b) = (Content::new("session", 10_000, 1), Content::new("session", 10_000, 1));
        let keys: HashSet<&[u8]> = (0..10_000).map(|index| a.key(index)).collect();
        assert_eq!(keys.len(), 10_000);
        assert!(keys.iter().all(|key| key.len() == KEY_BYTES && key.starts_with(b"session:::")));
        assert_eq!(a.key(77), b.key(77));
    }

    #[test]
    fn a_reply_is_right_with_its_header_and_its_value() {
        let content = Content::new("s", 10, 1);
        let mut reply = format!("${VALUE_BYTES}\r\n").into_bytes();
        let header = reply.len();
        reply.resize(header + VALUE_BYTES, 0);
        content.write_value(3, 0, &mut reply[header..]);
        reply.extend_from_slice(b"\r\n");
        assert!(content.is_reply(3, &reply));
        assert!(!content.is_reply(4, &reply) && !content.is_reply(3, b"$-1\r\n"));
        assert!(!content.is_reply(3, &reply[..reply.len() - 1]));
    }

    #[test]
    fn a_value_of_another_key_field_or_length_is_told_apart() {
        let content = Content::new("s", 10, 1);
        let mut value = [0; 100];
        content.write_value(3, 1, &mut value);
        assert!(content.is_value(3, 1, &value));
        assert!(!content.is_value(4, 1, &value) && !content.is_value(3, 2, &value));
        assert!(!content.is_value(3, 1, &[]));
        value[99] ^= 1;
        assert!(!content.is_value(3, 1, &value));
    }
}
