//! The order of a sorted set: members by score, then by name, in chunks of a bounded size.
//!
//! Chunks instead of a skip list or a B-tree: a rank is a sum over chunk lengths, a range is a walk over slices, and both need no
//! counts kept in inner nodes. With a million members that sum has some 5,000 terms: a few microseconds.

use std::{cmp::Ordering, ops::Range, sync::Arc};

/// Members of a chunk at the most: what an insertion may have to move, 12 KB.
const CHUNK_LEN_MAX: usize = 512;

/// A member with its score.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Never NaN.
    pub(crate) score: f64,
    pub(crate) name: Arc<[u8]>,
}

impl Member {
    /// By score, where 0 and -0 are the same, then by the bytes of the name.
    fn cmp(&self, score: f64, name: &[u8]) -> Ordering {
        compare(self.score, score).then_with(|| (*self.name).cmp(name))
    }
}

/// The order of scores. Not `total_cmp`: 0 and -0 are equal, as in Redis.
pub(super) fn compare(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).expect("scores are checked for NaN before they come here")
}

/// Members in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranks {
    /// None of them is empty.
    chunks: Vec<Vec<Member>>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: usize,
    index: usize,
}

impl Ranks {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a member whose name is not there yet.
    pub(super) fn insert(&mut self, member: Member) {
        let mut place = self.first_place(|other| other.cmp(member.score, &member.name) == Ordering::Less);
        if place.chunk == self.chunks.len() {
            // Behind the last one: it goes on there, so that members that come in order fill whole chunks.
            match self.chunks.last() {
                Some(last) if last.len() < CHUNK_LEN_MAX => place = Place { chunk: place.chunk - 1, index: last.len() },
                _ => self.chunks.push(Vec::new()),
            }
        }
        if self.chunks[place.chunk].len() == CHUNK_LEN_MAX {
            const HALF: usize = CHUNK_LEN_MAX / 2;
            let tail = self.chunks[place.chunk].split_off(HALF);
            self.chunks.insert(place.chunk + 1, tail);
            if place.index > HALF {
                place = Place { chunk: place.chunk + 1, index: place.index - HALF };
            }
        }
        self.chunks[place.chunk].insert(place.index, member);
        self.len += 1;
    }

    /// All members, in chunks.
    pub(super) fn into_chunks(self) -> impl Iterator<Item = Vec<Member>> {
        self.chunks.into_iter()
    }

    /// Removes the member that has this score and name.
    pub(super) fn remove(&mut self, score: f64, name: &[u8]) -> Option<Member> {
        let place = self.first_place(|other| other.cmp(score, name) == Ordering::Less);
        let chunk = self.chunks.get_mut(place.chunk)?;
        if chunk.get(place.index)?.cmp(score, name) != Ordering::Equal {
            return None;
        }
        let member = chunk.remove(place.index);
        if chunk.is_empty() {
            self.chunks.remove(place.chunk);
        }
        self.len -= 1;
        Some(member)
    }

    /// Removes the members of a range of ranks and gives them.
    pub(super) fn remove_range(&mut self, ranks: Range<usize>) -> Vec<Member> {
        let mut removed = Vec::with_capacity(ranks.len());
        let Place { mut chunk, mut index } = self.place(ranks.start);
        while removed.len() < ranks.len() {
            let members = &mut self.chunks[chunk];
            let end = members.len().min(index + ranks.len() - removed.len());
            removed.extend(members.drain(index..end));
            chunk += 1;
            index = 0;
        }
        self.chunks.retain(|members| !members.is_empty());
        self.len -= removed.len();
        removed
    }

    /// The first rank at which `is_before` does not hold; it must hold for a beginning of the order. O(log n + chunks).
    pub(super) fn first(&self, is_before: impl Fn(&Member) -> bool) -> usize {
        let place = self.first_place(is_before);
        self.chunks[..place.chunk].iter().map(Vec::len).sum::<usize>() + place.index
    }

    /// The rank of the member that has this score and name. O(log n + chunks).
    pub(super) fn rank(&self, score: f64, name: &[u8]) -> usize {
        self.first(|other| other.cmp(score, name) == Ordering::Less)
    }

    /// The members of a range of ranks, which must lie within the order. O(chunks) to begin.
    pub(super) fn range(&self, ranks: Range<usize>) -> impl Iterator<Item = &Member> {
        let Place { chunk, index } = self.place(ranks.start);
        let first = self.chunks.get(chunk).map_or(&[][..], |members| &members[index..]);
        let rest = self.chunks.get(chunk + 1..).unwrap_or_default();
        first.iter().chain(rest.iter().flatten()).take(ranks.len())
    }

    /// As [`Ranks::range`], the last one first.
    pub(super) fn range_reversed(&self, ranks: Range<usize>) -> impl Iterator<Item = &Member> {
        let Place { chunk, index } = self.place(ranks.end);
        let first = self.chunks.get(chunk).map_or(&[][..], |members| &members[..index]);
        let rest = &self.chunks[..chunk];
        first.iter().rev().chain(rest.iter().rev().flat_map(|members| members.iter().rev())).take(ranks.len())
    }

    fn first_place(&self, is_before: impl Fn(&Member) -> bool) -> Place {
        let chunk = self.chunks.partition_point(|members| members.last().is_some_and(&is_before));
        let index = self.chunks.get(chunk).map_or(0, |members| members.partition_point(is_before));
        Place { chunk, index }
    }

    fn place(&self, rank: usize) -> Place {
        let mut index = rank;
        for (chunk, members) in self.chunks.iter().enumerate() {
            if index < members.len() {
                return Place { chunk, index };
            }
            index -= members.len();
        }
        Place { chunk: self.chunks.len(), index: 0 }
    }
}
