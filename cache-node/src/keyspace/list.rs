//! A list: elements with two ends.

use std::{collections::VecDeque, ops::Range};

use crate::keyspace::garbage::Dismantling;

/// Bytes of an element beside its text: its slot and the allocator's header.
const ELEMENT_OVERHEAD_BYTES: usize = 16 + 8;

/// Slots that a list keeps however few elements it has.
const SLOTS_KEPT: usize = 16;

/// One end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Left,
    Right,
}

/// A list value.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    elements: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl List {
    /// Frees it piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        freeing.drop_all(self.elements, 1);
    }

    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, end: End, element: &[u8]) {
        self.bytes += cost(element);
        match end {
            End::Left => self.elements.push_front(element.into()),
            End::Right => self.elements.push_back(element.into()),
        }
    }

    pub(crate) fn pop(&mut self, end: End) -> Option<Box<[u8]>> {
        let element = match end {
            End::Left => self.elements.pop_front(),
            End::Right => self.elements.pop_back(),
        }?;
        self.bytes -= cost(&element);
        self.shrink();
        Some(element)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        self.elements.get(index).map(|element| &**element)
    }

    /// Replaces an element. `false` when there is none at `index`.
    pub(crate) fn set(&mut self, index: usize, element: &[u8]) -> bool {
        let Some(old) = self.elements.get_mut(index) else { return false };
        self.bytes = self.bytes + element.len() - old.len();
        *old = element.into();
        true
    }

    /// Inserts before the element at `index`, which is at most the length. O(n).
    pub(crate) fn insert(&mut self, index: usize, element: &[u8]) {
        self.bytes += cost(element);
        self.elements.insert(index, element.into());
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.elements.iter().map(|element| &**element)
    }

    pub(crate) fn range(&self, indexes: Range<usize>) -> impl Iterator<Item = &[u8]> {
        self.elements.range(indexes).map(|element| &**element)
    }

    /// Keeps the elements of a range within the list.
    pub(crate) fn trim(&mut self, indexes: Range<usize>) {
        let mut removed: usize = self.elements.range(indexes.end..).map(|element| cost(element)).sum();
        self.elements.truncate(indexes.end);
        removed += self.elements.drain(..indexes.start).map(|element| cost(&element)).sum::<usize>();
        self.bytes -= removed;
        self.shrink();
    }

    /// Removes up to `count_max` elements equal to `element`, beginning at `end`, and gives how many there were. O(n).
    pub(crate) fn remove(&mut self, element: &[u8], count_max: usize, end: End) -> usize {
        let equal = self.iter().filter(|known| *known == element).count();
        let removed = equal.min(count_max);
        // Those to stay are the last ones from where the removal begins.
        let mut skipped = if end == End::Right { equal - removed } else { 0 };
        let mut left = removed;
        self.elements.retain(|known| {
            if **known != *element || left == 0 {
                return true;
            }
            if skipped > 0 {
                skipped -= 1;
                return true;
            }
            left -= 1;
            false
        });
        self.bytes -= removed * cost(element);
        self.shrink();
        removed
    }

    /// Gives memory back after many removals; a factor of four keeps a queue that breathes from being copied at each breath.
    fn shrink(&mut self) {
        if self.elements.capacity() > SLOTS_KEPT && self.elements.len() < self.elements.capacity() / 4 {
            self.elements.shrink_to(self.elements.len() * 2);
        }
    }
}

fn cost(element: &[u8]) -> usize {
    element.len() + ELEMENT_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::{End, List, cost};

    #[test]
    fn behaves_like_a_vector() {
        let mut random = SmallRng::seed_from_u64(7);
        let mut list = List::default();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for _ in 0..20_000 {
            let element = format!("{}", random.random_range(0..8)).into_bytes();
            let end = if random.random() { End::Left } else { End::Right };
            let index = random.random_range(0..=model.len());
            match random.random_range(0..12) {
                0..5 => {
                    list.push(end, &element);
                    model.insert(if end == End::Left { 0 } else { model.len() }, element);
                }
                5 | 6 => {
                    let expected = match end {
                        _ if model.is_empty() => None,
                        End::Left => Some(model.remove(0)),
                        End::Right => model.pop(),
                    };
                    assert_eq!(list.pop(end).as_deref(), expected.as_deref());
                }
                7 => {
                    list.insert(index, &element);
                    model.insert(index, element);
                }
                8 => {
                    assert_eq!(list.set(index, &element), index < model.len());
                    if let Some(old) = model.get_mut(index) {
                        *old = element;
                    }
                }
                9 => {
                    let count_max = random.random_range(0..4);
                    let mut left = count_max;
                    let mut keep = |known: &Vec<u8>| {
                        let goes = *known == element && left > 0;
                        left -= usize::from(goes);
                        !goes
                    };
                    if end == End::Left {
                        model.retain(&mut keep);
                    } else {
                        model.reverse();
                        model.retain(&mut keep);
                        model.reverse();
                    }
                    assert_eq!(list.remove(&element, count_max, end), count_max - left);
                }
                10 => assert_eq!(list.get(index), model.get(index).map(Vec::as_slice)),
                _ if random.random_ratio(1, 20) => {
                    let other = random.random_range(0..=model.len());
                    let range = index.min(other)..index.max(other);
                    assert!(list.range(range.clone()).eq(model[range.clone()].iter()));
                    list.trim(range.clone());
                    model = model[range].to_vec();
                }
                _ => {}
            }
            assert_eq!(list.len(), model.len());
        }
        assert!(list.iter().eq(model.iter()));
        assert_eq!(list.heap_bytes(), model.iter().map(|element| cost(element)).sum::<usize>());
    }
}
