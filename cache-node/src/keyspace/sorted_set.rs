//! A sorted set: members in order of their scores, and, once there are many, an index from member to score.

use std::{ops::Range, sync::Arc};

use ahash::RandomState;
use indexmap::IndexMap;

pub(crate) use crate::keyspace::ranks::Member;
use crate::keyspace::{garbage::Dismantling, packed::scan_from_end, ranks::Ranks};

/// Members up to which a score is found by looking at each (Redis: `zset-max-listpack-entries`).
const SMALL_COUNT_MAX: usize = 128;

/// Bytes of a member beside its name: the allocation with its two counts, and its place in a chunk that is three quarters full.
const MEMBER_OVERHEAD_BYTES: usize = 2 * 8 + 8 + 24 * 4 / 3;

/// Bytes of a member in the index: hash, pointer, score, index slot.
const INDEX_OVERHEAD_BYTES: usize = 8 + 16 + 8 + 10;

/// A sorted set value.
#[derive(Clone, Debug, Default)]
pub(crate) struct SortedSet {
    ranks: Ranks,
    /// `None` while small.
    scores: Option<IndexMap<Arc<[u8]>, f64, RandomState>>,
    bytes: usize,
}

impl SortedSet {
    /// Frees it piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        freeing.drop_all(self.scores.into_iter().flatten(), 1);
        freeing.drop_all(self.ranks.into_chunks().flatten(), 1);
    }

    pub(crate) fn len(&self) -> usize {
        self.ranks.len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let index = if self.is_small() { 0 } else { self.len() * INDEX_OVERHEAD_BYTES };
        self.bytes + index
    }

    /// Whether there is no index.
    pub(crate) fn is_small(&self) -> bool {
        self.scores.is_none()
    }

    pub(crate) fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.scores {
            Some(scores) => scores.get(member).copied(),
            None => self.iter().find(|known| *known.name == *member).map(|known| known.score),
        }
    }

    /// Sets a member's score, which must not be NaN, and gives the old one. O(log n + chunks).
    pub(crate) fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        // Redis keeps -0 apart in large sets only; a sum of 0 makes it 0.
        let score = score + 0.0;
        let old = self.score(member);
        let name = match old {
            Some(same) if same == score => return old,
            Some(old) => self.ranks.remove(old, member).expect("every score is in the order").name,
            None => {
                self.bytes += member.len() + MEMBER_OVERHEAD_BYTES;
                member.into()
            }
        };
        if let Some(scores) = &mut self.scores {
            scores.insert(Arc::clone(&name), score);
        }
        self.ranks.insert(Member { score, name });
        if self.is_small() && self.len() > SMALL_COUNT_MAX {
            self.scores = Some(self.iter().map(|member| (Arc::clone(&member.name), member.score)).collect());
        }
        old
    }

    /// Removes a member and gives its score.
    pub(crate) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.score(member)?;
        let removed = self.ranks.remove(score, member).expect("every score is in the order");
        self.forget(&removed);
        Some(score)
    }

    /// Removes the members of a range of ranks and gives them in order.
    pub(crate) fn remove_range(&mut self, ranks: Range<usize>) -> Vec<Member> {
        let removed = self.ranks.remove_range(ranks);
        removed.iter().for_each(|member| self.forget(member));
        removed
    }

    /// A member's place in the order, from 0.
    pub(crate) fn rank(&self, member: &[u8]) -> Option<usize> {
        self.score(member).map(|score| self.ranks.rank(score, member))
    }

    /// The first rank at which `is_before` does not hold; it must hold for a beginning of the order and for nothing behind it.
    pub(crate) fn first(&self, is_before: impl Fn(&Member) -> bool) -> usize {
        self.ranks.first(is_before)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.ranks.range(0..self.len())
    }

    /// The members of a range of ranks within the set, in order.
    pub(crate) fn range(&self, ranks: Range<usize>) -> impl Iterator<Item = &Member> {
        self.ranks.range(ranks)
    }

    /// As [`SortedSet::range`], the last one first.
    pub(crate) fn range_reversed(&self, ranks: Range<usize>) -> impl Iterator<Item = &Member> {
        self.ranks.range_reversed(ranks)
    }

    /// ZSCAN: visits about `count` members after `cursor` and gives the next cursor, 0 at the end; as [`super::Hash::scan`].
    pub(crate) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match &self.scores {
            None => {
                self.iter().for_each(|member| visit(&member.name, member.score));
                0
            }
            Some(scores) => scan_from_end(scores.len(), cursor, count, |index| {
                if let Some((name, score)) = scores.get_index(index) {
                    visit(name, *score);
                }
            }),
        }
    }

    fn forget(&mut self, member: &Member) {
        self.bytes -= member.name.len() + MEMBER_OVERHEAD_BYTES;
        if let Some(scores) = &mut self.scores {
            scores.swap_remove(&member.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::SortedSet;

    /// Scores here are whole numbers, so that a model can order them as integers.
    type Model = BTreeMap<Vec<u8>, i64>;

    fn ordered(model: &Model) -> Vec<(i64, Vec<u8>)> {
        let order: BTreeSet<_> = model.iter().map(|(name, score)| (*score, name.clone())).collect();
        order.into_iter().collect()
    }

    fn assert_same(set: &SortedSet, model: &Model) {
        let order = ordered(model);
        let pairs = |member: &super::Member| (member.score as i64, member.name.to_vec());
        assert_eq!(set.iter().map(pairs).collect::<Vec<_>>(), order);
        let reversed: Vec<_> = set.range_reversed(0..set.len()).map(pairs).collect();
        assert!(reversed.iter().rev().eq(&order));
        for (rank, (score, name)) in order.iter().enumerate() {
            assert_eq!(set.rank(name), Some(rank));
            assert_eq!(set.score(name), Some(*score as f64));
        }
    }

    #[test]
    fn small_and_large_behave_like_a_model() {
        for names in [20_u32, 200, 3_000] {
            let mut random = SmallRng::seed_from_u64(u64::from(names));
            let mut set = SortedSet::default();
            let mut model = Model::new();
            for step in 0..8_000 {
                let name = format!("member-{}", random.random_range(0..names)).into_bytes();
                let score = random.random_range(-50..50_i64);
                match random.random_range(0..20) {
                    0..4 => assert_eq!(set.remove(&name), model.remove(&name).map(|score| score as f64)),
                    4 if step % 100 == 0 => {
                        let (a, b) = (random.random_range(0..=set.len()), random.random_range(0..=set.len()));
                        let ranks = a.min(b)..a.max(b);
                        let expected = ordered(&model)[ranks.clone()].to_vec();
                        let between: Vec<_> =
                            set.range(ranks.clone()).map(|member| (member.score as i64, member.name.to_vec())).collect();
                        assert_eq!(between, expected);
                        assert_eq!(set.remove_range(ranks).len(), expected.len());
                        expected.iter().for_each(|(_, name)| assert!(model.remove(name).is_some()));
                    }
                    5 => {
                        let below = model.values().filter(|known| **known < score).count();
                        assert_eq!(set.first(|member| member.score < score as f64), below);
                    }
                    _ => assert_eq!(set.insert(&name, score as f64), model.insert(name, score).map(|score| score as f64)),
                }
            }
            assert_same(&set, &model);
            assert!(set.heap_bytes() > 0);
            set.remove_range(0..set.len());
            assert_eq!((set.len(), set.heap_bytes()), (0, 0), "what was counted in was counted out");
        }
    }

    #[test]
    fn minus_zero_is_zero() {
        let mut set = SortedSet::default();
        set.insert(b"b", -0.0);
        set.insert(b"a", 0.0);
        assert_eq!((set.rank(b"a"), set.rank(b"b")), (Some(0), Some(1)));
        assert_eq!(set.score(b"b").map(f64::is_sign_negative), Some(false));
        assert_eq!(set.first(|member| member.score < -0.0), 0);
        assert_eq!(set.remove(b"b"), Some(0.0));
        assert_eq!(set.len(), 1);
    }
}
