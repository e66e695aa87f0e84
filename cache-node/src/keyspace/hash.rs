//! A hash: packed while it is small, a table when it grows.
//!
//! A session's hash has a handful of short fields. Packed, it is one allocation, `field length, field, value length, value` one after
//! the other, and reading all of it is a walk over one cache line after the next.

use ahash::RandomState;
use indexmap::IndexMap;

/// Fields up to which a hash stays packed (Redis: `hash-max-listpack-entries`).
const PACKED_FIELDS_MAX: usize = 128;

/// Bytes up to which a hash stays packed: what a change in the middle may have to move.
const PACKED_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a table's entry beside field and value: hash, two boxes, index slot, allocator headers.
const FIELD_OVERHEAD_BYTES: usize = 8 + 16 + 16 + 10 + 2 * 8;

/// A hash value.
#[derive(Clone, Debug)]
pub(crate) enum Hash {
    Packed(Packed),
    Table { fields: IndexMap<Box<[u8]>, Box<[u8]>, RandomState>, bytes: usize },
}

impl Default for Hash {
    fn default() -> Self {
        Hash::Packed(Packed::default())
    }
}

impl Hash {
    pub(crate) fn len(&self) -> usize {
        match self {
            Hash::Packed(packed) => packed.count,
            Hash::Table { fields, .. } => fields.len(),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Hash::Packed(packed) => packed.bytes.capacity(),
            Hash::Table { bytes, .. } => *bytes,
        }
    }

    pub(crate) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match self {
            Hash::Packed(packed) => packed.find(field).map(|pair| pair.value),
            Hash::Table { fields, .. } => fields.get(field).map(|value| &**value),
        }
    }

    /// Sets a field. `true` when it is new.
    pub(crate) fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        if let Hash::Packed(packed) = self {
            if packed.has_room(field, value) {
                return packed.insert(field, value);
            }
            self.unpack();
        }
        let Hash::Table { fields, bytes } = self else { unreachable!("unpacked just above") };
        match fields.get_mut(field) {
            Some(old) => {
                *bytes = *bytes + value.len() - old.len();
                *old = value.into();
                false
            }
            None => {
                *bytes += field.len() + value.len() + FIELD_OVERHEAD_BYTES;
                fields.insert(field.into(), value.into());
                true
            }
        }
    }

    /// Removes a field. `true` when it was there.
    pub(crate) fn remove(&mut self, field: &[u8]) -> bool {
        match self {
            Hash::Packed(packed) => packed.remove(field),
            Hash::Table { fields, bytes } => match fields.swap_remove(field) {
                Some(value) => {
                    *bytes -= field.len() + value.len() + FIELD_OVERHEAD_BYTES;
                    true
                }
                None => false,
            },
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (&[u8], &[u8])> + '_> {
        match self {
            Hash::Packed(packed) => Box::new(packed.iter().map(|pair| (pair.field, pair.value))),
            Hash::Table { fields, .. } => Box::new(fields.iter().map(|(field, value)| (&**field, &**value))),
        }
    }

    /// HSCAN: visits about `count` fields after `cursor` and gives the next cursor, 0 at the end. A packed hash is visited whole, as
    /// in Redis. A table is walked from its end: removal moves the last field into the gap, so nothing is missed.
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], &[u8])) -> u64 {
        match self {
            Hash::Packed(packed) => {
                packed.iter().for_each(|pair| visit(pair.field, pair.value));
                0
            }
            Hash::Table { fields, .. } => scan_from_end(fields.len(), cursor, count, |index| {
                if let Some((field, value)) = fields.get_index(index) {
                    visit(field, value);
                }
            }),
        }
    }

    fn unpack(&mut self) {
        let mut bytes = 0;
        let fields = self
            .iter()
            .map(|(field, value)| {
                bytes += field.len() + value.len() + FIELD_OVERHEAD_BYTES;
                (field.into(), value.into())
            })
            .collect();
        *self = Hash::Table { fields, bytes };
    }
}

/// Walks indexes below `cursor` (0: all) downwards, about `count` of them, and gives the next cursor.
pub(super) fn scan_from_end(len: usize, cursor: u64, count: usize, mut visit: impl FnMut(usize)) -> u64 {
    let start = if cursor == 0 { len } else { usize::try_from(cursor).unwrap_or(usize::MAX).min(len) };
    let end = start.saturating_sub(count.max(1));
    (end..start).rev().for_each(&mut visit);
    end as u64
}

/// Fields and values in one block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    count: usize,
}

struct Pair<'a> {
    start: usize,
    end: usize,
    field: &'a [u8],
    value: &'a [u8],
}

impl Packed {
    fn has_room(&self, field: &[u8], value: &[u8]) -> bool {
        // Counted as if the field were new: a few bytes early does no harm.
        self.count < PACKED_FIELDS_MAX && self.bytes.len() + field.len() + value.len() + 10 <= PACKED_BYTES_MAX
    }

    fn iter(&self) -> impl Iterator<Item = Pair<'_>> {
        let mut position = 0;
        std::iter::from_fn(move || {
            if position >= self.bytes.len() {
                return None;
            }
            let start = position;
            let field = self.take(&mut position);
            let value = self.take(&mut position);
            Some(Pair { start, end: position, field, value })
        })
    }

    fn find(&self, field: &[u8]) -> Option<Pair<'_>> {
        self.iter().find(|pair| pair.field == field)
    }

    fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        match self.find(field) {
            Some(Pair { end, value: old, .. }) if old.len() == value.len() => {
                self.bytes[end - value.len()..end].copy_from_slice(value);
                false
            }
            Some(Pair { start, end, .. }) => {
                let mut pair = Vec::with_capacity(field.len() + value.len() + 10);
                push(&mut pair, field);
                push(&mut pair, value);
                self.bytes.splice(start..end, pair);
                false
            }
            None => {
                // Grown to fit, not doubled: thousands of small hashes keep no empty tails.
                self.bytes.reserve_exact(field.len() + value.len() + length_bytes(field) + length_bytes(value));
                push(&mut self.bytes, field);
                push(&mut self.bytes, value);
                self.count += 1;
                true
            }
        }
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let Some(Pair { start, end, .. }) = self.find(field) else { return false };
        self.bytes.drain(start..end);
        self.count -= 1;
        true
    }

    fn take(&self, position: &mut usize) -> &[u8] {
        let (length, header) = match self.bytes[*position] {
            LONG => {
                let digits = &self.bytes[*position + 1..*position + 5];
                (u32::from_le_bytes(digits.try_into().expect("four bytes")) as usize, 5)
            }
            short => (usize::from(short), 1),
        };
        let start = *position + header;
        *position = start + length;
        &self.bytes[start..start + length]
    }
}

/// A length of 255 or more: four bytes follow.
const LONG: u8 = 0xFF;

fn length_bytes(text: &[u8]) -> usize {
    if text.len() < usize::from(LONG) { 1 } else { 5 }
}

fn push(bytes: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(length) if length < LONG => bytes.push(length),
        _ => {
            bytes.push(LONG);
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        }
    }
    bytes.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::Hash;

    #[test]
    fn packed_and_table_behave_like_a_map() {
        for fields in [5_u32, 100, 1_000] {
            let mut hash = Hash::default();
            let mut model = HashMap::new();
            let mut seed = 12_345_u32;
            for step in 0..5_000_u32 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let field = format!("field-{}", (seed >> 8) % fields).into_bytes();
                let value = vec![b'v'; (seed >> 16) as usize % 300];
                if step % 3 == 0 {
                    assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                } else {
                    assert_eq!(hash.insert(&field, &value), model.insert(field, value).is_none());
                }
            }
            assert_eq!(hash.len(), model.len());
            for (field, value) in &model {
                assert_eq!(hash.get(field), Some(&value[..]));
            }
            assert_eq!(hash.iter().count(), model.len());
        }
    }

    #[test]
    fn a_scan_misses_no_field_that_stays() {
        let mut hash = Hash::default();
        for number in 0..1_000 {
            hash.insert(format!("{number}").as_bytes(), b"v");
        }
        let mut seen = std::collections::HashSet::new();
        let (mut cursor, mut removed) = (0, 0);
        loop {
            cursor = hash.scan(cursor, 10, |field, _| {
                seen.insert(field.to_vec());
            });
            if cursor == 0 {
                break;
            }
            // Odd fields are removed while the scan runs.
            for _ in 0..3 {
                removed += 1;
                hash.remove(format!("{}", removed * 2 - 1).as_bytes());
            }
        }
        for number in (0..1_000).step_by(2) {
            assert!(seen.contains(format!("{number}").as_bytes()), "{number}");
        }
    }
}
