//! A hash: packed while it is small, a table when it grows.
//!
//! A session's hash has a handful of short fields. Packed, it is one allocation, a field and its value one after the other, and
//! reading all of it is a walk over one cache line after the next.

use ahash::RandomState;
use indexmap::{IndexMap, map};

use crate::keyspace::{
    garbage::Dismantling,
    packed::{PACKED_BYTES_MAX, PACKED_COUNT_MAX, Texts, packed_len, push, put, scan_from_end},
};

/// Bytes of a table's entry beside field and value: hash, two boxes, index slot, allocator headers.
const FIELD_OVERHEAD_BYTES: usize = 8 + 16 + 16 + 10 + 2 * 8;

/// A hash value.
#[derive(Clone, Debug)]
pub(crate) enum Hash {
    Packed(Packed),
    Table { fields: Table, bytes: usize },
}

impl Default for Hash {
    fn default() -> Self {
        Hash::Packed(Packed::default())
    }
}

impl Hash {
    /// A hash from the bytes of its packed form, as [`Hash::packed_bytes`] gave them, with room for what is about to be set.
    pub(super) fn from_packed(block: &[u8]) -> Hash {
        const ROOM_BYTES: usize = 256;
        let mut copy = Vec::with_capacity(block.len() + ROOM_BYTES);
        copy.extend_from_slice(block);
        Hash::Packed(Packed { block: copy })
    }

    /// The bytes that say everything, while the hash is packed.
    pub(super) fn packed_bytes(&self) -> Option<&[u8]> {
        match self {
            Hash::Packed(packed) => Some(&packed.block),
            Hash::Table { .. } => None,
        }
    }

    /// Frees it piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        if let Hash::Table { fields, .. } = self {
            freeing.drop_all(fields, 2);
        }
    }

    pub(crate) fn len(&self) -> usize {
        HashRef::from(self).len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Hash::Packed(packed) => packed.block.capacity(),
            Hash::Table { bytes, .. } => *bytes,
        }
    }

    pub(crate) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        HashRef::from(self).get(field)
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

    fn unpack(&mut self) {
        let mut bytes = 0;
        let fields = HashRef::from(&*self)
            .iter()
            .map(|(field, value)| {
                bytes += field.len() + value.len() + FIELD_OVERHEAD_BYTES;
                (field.into(), value.into())
            })
            .collect();
        *self = Hash::Table { fields, bytes };
    }
}

type Table = IndexMap<Box<[u8]>, Box<[u8]>, RandomState>;

/// A hash that is being read, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HashRef<'a> {
    Packed(&'a [u8]),
    Table(&'a Table),
}

impl<'a> From<&'a Hash> for HashRef<'a> {
    fn from(hash: &'a Hash) -> HashRef<'a> {
        match hash {
            Hash::Packed(packed) => HashRef::Packed(&packed.block),
            Hash::Table { fields, .. } => HashRef::Table(fields),
        }
    }
}

impl<'a> HashRef<'a> {
    /// A hash in its packed form.
    pub(super) fn packed(block: &'a [u8]) -> HashRef<'a> {
        HashRef::Packed(block)
    }

    /// A copy that owns its bytes.
    pub(super) fn to_hash(self) -> Hash {
        match self {
            HashRef::Packed(block) => Hash::from_packed(block),
            HashRef::Table(fields) => {
                let bytes = fields.iter().map(|(field, value)| field.len() + value.len() + FIELD_OVERHEAD_BYTES).sum();
                Hash::Table { fields: fields.clone(), bytes }
            }
        }
    }

    pub(crate) fn len(self) -> usize {
        match self {
            HashRef::Packed(block) => block.first().copied().map_or(0, usize::from),
            HashRef::Table(fields) => fields.len(),
        }
    }

    pub(crate) fn get(self, field: &[u8]) -> Option<&'a [u8]> {
        match self {
            HashRef::Packed(block) => pairs(block).find(|pair| pair.field == field).map(|pair| pair.value),
            HashRef::Table(fields) => fields.get(field).map(|value| &**value),
        }
    }

    /// Every field with its value. In the order of insertion as long as nothing is removed.
    pub(crate) fn iter(self) -> Fields<'a> {
        match self {
            HashRef::Packed(block) => Fields::Packed(pairs(block)),
            HashRef::Table(fields) => Fields::Table(fields.iter()),
        }
    }

    /// Every field and its value as they lie one behind the other, while the hash is packed.
    pub(crate) fn texts(self) -> Option<Texts<'a>> {
        match self {
            HashRef::Packed(block) => Some(Texts::new(block, 1)),
            HashRef::Table(_) => None,
        }
    }

    /// The field at `index` of [`Hash::iter`]'s order. O(index) while packed, O(1) in a table.
    pub(crate) fn at(self, index: usize) -> Option<(&'a [u8], &'a [u8])> {
        match self {
            HashRef::Packed(_) => self.iter().nth(index),
            HashRef::Table(fields) => fields.get_index(index).map(|(field, value)| (&**field, &**value)),
        }
    }

    /// HSCAN: visits about `count` fields after `cursor` and gives the next cursor, 0 at the end. A packed hash is visited whole, as
    /// in Redis. A table is walked from its end: removal moves the last field into the gap, so nothing is missed.
    pub(crate) fn scan(self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], &[u8])) -> u64 {
        match self {
            HashRef::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            HashRef::Table(fields) => scan_from_end(fields.len(), cursor, count, |index| {
                if let Some((field, value)) = fields.get_index(index) {
                    visit(field, value);
                }
            }),
        }
    }
}

/// A walk over a hash.
#[derive(Debug)]
pub(crate) enum Fields<'a> {
    Packed(Pairs<'a>),
    Table(map::Iter<'a, Box<[u8]>, Box<[u8]>>),
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Fields::Packed(pairs) => pairs.next().map(|pair| (pair.field, pair.value)),
            Fields::Table(fields) => fields.next().map(|(field, value)| (&**field, &**value)),
        }
    }
}

/// Fields and values in one block, behind a byte that counts the fields. Nothing at all while there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    block: Vec<u8>,
}

fn pairs(block: &[u8]) -> Pairs<'_> {
    Pairs(Texts::new(block, 1))
}

/// A walk over the fields of a packed hash.
#[derive(Debug)]
pub(crate) struct Pairs<'a>(Texts<'a>);

#[derive(Debug)]
pub(crate) struct Pair<'a> {
    start: usize,
    end: usize,
    field: &'a [u8],
    value: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    #[inline]
    fn next(&mut self) -> Option<Pair<'a>> {
        let start = self.0.position();
        let field = self.0.next()?;
        let value = self.0.next()?;
        Some(Pair { start, end: self.0.position(), field, value })
    }
}

impl Packed {
    fn has_room(&self, field: &[u8], value: &[u8]) -> bool {
        // Counted as if the field were new: a few bytes early does no harm.
        self.count() < PACKED_COUNT_MAX && self.block.len() + packed_len(field) + packed_len(value) <= PACKED_BYTES_MAX
    }

    fn count(&self) -> usize {
        self.block.first().copied().map_or(0, usize::from)
    }

    fn find(&self, field: &[u8]) -> Option<Pair<'_>> {
        pairs(&self.block).find(|pair| pair.field == field)
    }

    fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        match self.find(field) {
            Some(Pair { end, value: old, .. }) => {
                let start = end - packed_len(old);
                self.resize(start, end, packed_len(value));
                put(&mut self.block[start..], value);
                false
            }
            None => {
                if self.block.is_empty() {
                    self.block.push(0);
                }
                self.block.reserve_exact(packed_len(field) + packed_len(value));
                push(&mut self.block, field);
                push(&mut self.block, value);
                self.block[0] += 1;
                true
            }
        }
    }

    /// Makes the place from `start` to `end` one of `len` bytes, whose content is left to the caller.
    fn resize(&mut self, start: usize, end: usize, len: usize) {
        let (before, after) = (self.block.len(), self.block.len() - (end - start) + len);
        if after > before {
            self.block.reserve_exact(after - before);
            self.block.resize(after, 0);
        }
        self.block.copy_within(end..before, start + len);
        self.block.truncate(after);
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let Some(Pair { start, end, .. }) = self.find(field) else { return false };
        self.block.drain(start..end);
        self.block[0] -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Hash, HashRef};

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
            assert_eq!(HashRef::from(&hash).iter().count(), model.len());
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
            cursor = HashRef::from(&hash).scan(cursor, 10, |field, _| {
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
