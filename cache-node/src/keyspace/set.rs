//! A set: packed while it is small, a table when it grows.

use ahash::RandomState;
use indexmap::{IndexSet, set};

use crate::keyspace::{
    garbage::Dismantling,
    packed::{PACKED_BYTES_MAX, PACKED_COUNT_MAX, Texts, packed_len, push, scan_from_end},
};

/// Bytes of a table's entry beside the member: hash, box, index slot, allocator header.
const MEMBER_OVERHEAD_BYTES: usize = 8 + 16 + 10 + 8;

/// A set value.
#[derive(Clone, Debug)]
pub(crate) enum Set {
    Packed { block: Vec<u8>, count: usize },
    Table { members: IndexSet<Box<[u8]>, RandomState>, bytes: usize },
}

impl Default for Set {
    fn default() -> Self {
        Set::Packed { block: Vec::new(), count: 0 }
    }
}

impl Set {
    /// Frees it piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        if let Set::Table { members, .. } = self {
            freeing.drop_all(members, 1);
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Set::Packed { count, .. } => *count,
            Set::Table { members, .. } => members.len(),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Set::Packed { block, .. } => block.capacity(),
            Set::Table { bytes, .. } => *bytes,
        }
    }

    pub(crate) fn contains(&self, member: &[u8]) -> bool {
        match self {
            Set::Packed { block, .. } => Texts::new(block, 0).any(|text| text == member),
            Set::Table { members, .. } => members.contains(member),
        }
    }

    /// Adds a member. `true` when it is new.
    pub(crate) fn insert(&mut self, member: &[u8]) -> bool {
        if self.contains(member) {
            return false;
        }
        if let Set::Packed { block, count } = self {
            if *count < PACKED_COUNT_MAX && block.len() + packed_len(member) <= PACKED_BYTES_MAX {
                block.reserve_exact(packed_len(member));
                push(block, member);
                *count += 1;
                return true;
            }
            self.unpack();
        }
        let Set::Table { members, bytes } = self else { unreachable!("unpacked just above") };
        members.insert(member.into());
        *bytes += member.len() + MEMBER_OVERHEAD_BYTES;
        true
    }

    /// Removes a member. `true` when it was there.
    pub(crate) fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Set::Packed { block, count } => {
                let mut texts = Texts::new(block, 0);
                let mut start = 0;
                while let Some(text) = texts.next() {
                    if text == member {
                        let end = texts.position();
                        block.drain(start..end);
                        *count -= 1;
                        return true;
                    }
                    start = texts.position();
                }
                false
            }
            Set::Table { members, bytes } => {
                let was_there = members.swap_remove(member);
                if was_there {
                    *bytes -= member.len() + MEMBER_OVERHEAD_BYTES;
                }
                was_there
            }
        }
    }

    /// Every member, in the order of insertion as long as nothing is removed.
    pub(crate) fn iter(&self) -> Members<'_> {
        match self {
            Set::Packed { block, .. } => Members::Packed(Texts::new(block, 0)),
            Set::Table { members, .. } => Members::Table(members.iter()),
        }
    }

    /// The member at `index` of [`Set::iter`]'s order. O(index) while packed, O(1) in a table.
    pub(crate) fn at(&self, index: usize) -> Option<&[u8]> {
        match self {
            Set::Packed { block, .. } => Texts::new(block, 0).nth(index),
            Set::Table { members, .. } => members.get_index(index).map(|member| &**member),
        }
    }

    /// SSCAN: visits about `count` members after `cursor` and gives the next cursor, 0 at the end; as [`super::Hash::scan`].
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8])) -> u64 {
        match self {
            Set::Packed { .. } => {
                self.iter().for_each(visit);
                0
            }
            Set::Table { members, .. } => scan_from_end(members.len(), cursor, count, |index| {
                if let Some(member) = members.get_index(index) {
                    visit(member);
                }
            }),
        }
    }

    fn unpack(&mut self) {
        let mut bytes = 0;
        let members = self
            .iter()
            .map(|member| {
                bytes += member.len() + MEMBER_OVERHEAD_BYTES;
                member.into()
            })
            .collect();
        *self = Set::Table { members, bytes };
    }
}

impl<'a> FromIterator<&'a [u8]> for Set {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(members: I) -> Self {
        let mut set = Set::default();
        for member in members {
            set.insert(member);
        }
        set
    }
}

/// A walk over a set.
#[derive(Debug)]
pub(crate) enum Members<'a> {
    Packed(Texts<'a>),
    Table(set::Iter<'a, Box<[u8]>>),
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Members::Packed(texts) => texts.next(),
            Members::Table(members) => members.next().map(|member| &**member),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::Set;

    #[test]
    fn packed_and_table_behave_like_a_set() {
        for (range, length_max) in [(5_u32, 20), (100, 300), (1_000, 40)] {
            let mut random = SmallRng::seed_from_u64(u64::from(range));
            let mut set = Set::default();
            let mut model = HashSet::new();
            for _ in 0..5_000 {
                let number = random.random_range(0..range);
                // The length follows from the number, so that the same member comes again.
                let member = format!("{number:0length$}", length = 1 + number as usize * 7 % length_max).into_bytes();
                match random.random_range(0..3) {
                    0 => assert_eq!(set.remove(&member), model.remove(&member)),
                    1 => assert_eq!(set.insert(&member), model.insert(member)),
                    _ => assert_eq!(set.contains(&member), model.contains(&member)),
                }
                assert_eq!(set.len(), model.len());
            }
            assert_eq!(set.iter().map(<[u8]>::to_vec).collect::<HashSet<_>>(), model);
            let by_index = (0..set.len()).map(|index| set.at(index).expect("below the length").to_vec());
            assert_eq!(by_index.collect::<HashSet<_>>(), model);
            let members: Vec<Vec<u8>> = model.into_iter().collect();
            members.iter().for_each(|member| assert!(set.remove(member)));
            let Set::Table { bytes, .. } = set else { continue };
            assert_eq!(bytes, 0, "what was counted in was counted out");
        }
    }

    #[test]
    fn a_scan_misses_no_member_that_stays() {
        let mut set: Set = (0..1_000).map(|number| number.to_string()).collect::<Vec<_>>().iter().map(String::as_bytes).collect();
        let mut seen = HashSet::new();
        let (mut cursor, mut removed) = (0, 0);
        loop {
            cursor = set.scan(cursor, 10, |member| {
                seen.insert(member.to_vec());
            });
            if cursor == 0 {
                break;
            }
            for _ in 0..3 {
                removed += 1;
                set.remove(format!("{}", removed * 2 - 1).as_bytes());
            }
        }
        assert!((0..1_000).step_by(2).all(|number| seen.contains(number.to_string().as_bytes())));
    }
}
