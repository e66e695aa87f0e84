//! What is worth moving: entries of spans that are mostly free, so that other classes get those, and of chunks that are mostly free, so that
//! the system does.

use crate::keyspace::arena::{
    Arena, Class, Handle, NOWHERE, RETIRED, UNIT_BYTES,
    chunk::{CHUNK_BYTES, GRANULE_BYTES, GRANULES},
};

/// A class is left in peace while less than this share of its slots is free, and a shard while less of its chunks is.
pub(super) const FREE_SHARE: usize = 16;

/// How much more room there must be elsewhere than for what is moved, as a share of it: something new would be needed to empty something old
/// otherwise.
const SPARE_SHARE: usize = 4;

/// Spans of a class of which the emptiest is chosen: a few µs under the shard's lock, however large it is.
const SPANS_COMPARED_MAX: usize = 1024;

/// What is being emptied.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    span: Option<Moving>,
    chunk: Option<Draining>,
    /// The class that is looked at first.
    class: usize,
    /// A chunk was mapped while one was being emptied.
    has_added: bool,
    /// Free granules with which emptying a chunk took another one: until there are many more, it would again.
    free_granules_min: usize,
    /// Free memory beyond what is left on purpose, when nothing was worth moving.
    surplus_bytes: usize,
}

/// A span that is being emptied.
#[derive(Clone, Copy, Debug)]
struct Moving {
    span: u32,
    /// Slots before this one have been looked at.
    next: u32,
}

/// A chunk that is being emptied, span by span.
#[derive(Clone, Copy, Debug)]
struct Draining {
    chunk: u32,
    /// Granules before this one have been looked at.
    next: u32,
}

/// A step of compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::keyspace) enum Step {
    /// An entry that should be moved to another slot.
    Move(Handle),
    /// A span was gone through: a moment to let others have the lock.
    Pause,
    /// All is as dense as it should be.
    Done,
}

impl Compaction {
    pub(super) fn surplus_bytes(&self) -> usize {
        self.surplus_bytes
    }

    pub(super) fn forget_span(&mut self, number: u32) {
        self.span = self.span.filter(|moving| moving.span != number);
    }

    pub(super) fn chunk_was_added(&mut self) {
        self.has_added |= self.chunk.is_some();
    }

    pub(super) fn forget_chunk(&mut self, number: u32) {
        self.chunk = self.chunk.filter(|draining| draining.chunk != number);
    }
}

impl Arena {
    /// The next entry that should be moved elsewhere, by [`Arena::copy`] and [`Arena::free`]. `is_live` looks at a slot's bytes: a free slot
    /// is told apart by its owner's mark. O(1) for each slot, O(classes) where it begins with another span.
    pub(in crate::keyspace) fn next_to_move(&mut self, is_live: impl Fn(&[u8]) -> bool) -> Step {
        let Some(mut moving) = self.compaction.span.or_else(|| self.begin_span()) else {
            self.compaction.surplus_bytes = self.surplus_bytes();
            return Step::Done;
        };
        let span = &self.spans[moving.span as usize];
        while moving.next < u32::from(span.fresh) {
            let handle = Handle::new(span.chunk, span.start_of(moving.next));
            moving.next += 1;
            if is_live(self.slot(handle)) {
                self.compaction.span = Some(moving);
                return Step::Move(handle);
            }
        }
        self.compaction.span = None;
        self.end_span(moving.span);
        // What is still to be moved is no surplus.
        self.compaction.surplus_bytes = self.compaction.surplus_bytes.min(self.surplus_bytes());
        Step::Pause
    }

    pub(super) fn surplus_bytes(&self) -> usize {
        let used = self.live_bytes - self.alone_bytes;
        self.chunks.bytes().saturating_sub(used + used / FREE_SHARE + CHUNK_BYTES)
    }

    /// Copies a slot into another one of its class.
    pub(in crate::keyspace) fn copy(&mut self, old: Handle) -> Handle {
        let bytes = self.slot(old).len();
        let new = self.allocate(bytes);
        let [from, to] = [old, new].map(|handle| (handle.chunk(), handle.start()));
        self.chunks.copy(from, to, bytes);
        new
    }

    /// Has empty spans serve other classes that were kept for the next entry of their size: after a mass expiry nothing of that size may
    /// come for long. Called now and then, so that a span is not carved and released at every change of a key that comes and goes.
    /// O(classes).
    pub(in crate::keyspace) fn release_empty(&mut self) {
        for class in 0..self.classes.len() {
            let [number] = self.classes[class].with_room[..] else { continue };
            if self.spans[number as usize].live == 0 {
                self.release(number);
            }
        }
    }

    /// Takes a span out of those that get new entries.
    fn begin_span(&mut self) -> Option<Moving> {
        let number = self.next_of_chunk().or_else(|| self.sparse_span()).or_else(|| {
            self.begin_chunk()?;
            self.next_of_chunk()
        })?;
        let span = &self.spans[number as usize];
        if span.place < RETIRED {
            self.leave_with_room(usize::from(span.slot_bytes) / UNIT_BYTES, number);
        }
        self.spans[number as usize].place = RETIRED;
        Some(Moving { span: number, next: 0 })
    }

    /// A span that still has entries is used again: nothing finds those, or they came back meanwhile.
    fn end_span(&mut self, number: u32) {
        let span = &mut self.spans[number as usize];
        if span.live == 0 {
            self.release(number);
            return;
        }
        span.place = NOWHERE;
        if !span.is_full() {
            self.classes[usize::from(span.slot_bytes) / UNIT_BYTES].enter(span, number);
        }
    }

    /// The emptiest span of the next class that has more free slots than it should.
    fn sparse_span(&mut self) -> Option<u32> {
        let classes = self.classes.len();
        let (before, from) = (0..self.compaction.class.min(classes), self.compaction.class.min(classes)..classes);
        let (class, number) = from.chain(before).find_map(|class| Some((class, self.sparse_span_of(&self.classes[class])?)))?;
        self.compaction.class = class;
        Some(number)
    }

    fn sparse_span_of(&self, class: &Class) -> Option<u32> {
        let free = class.slots - class.live;
        if class.with_room.len() < 2 || free * FREE_SHARE <= class.slots {
            return None;
        }
        let spans = class.with_room.iter().take(SPANS_COMPARED_MAX).map(|number| (*number, &self.spans[*number as usize]));
        let (number, span) = spans.min_by_key(|(_, span)| u32::from(span.live) * 1024 / u32::from(span.slots))?;
        let (slots, live) = (usize::from(span.slots), usize::from(span.live));
        (free > slots + slots / SPARE_SHARE || live == 0).then_some(number)
    }

    /// The next span of the chunk that is being emptied.
    fn next_of_chunk(&mut self) -> Option<u32> {
        let draining = self.compaction.chunk.as_mut()?;
        let chunk = self.chunks.get(draining.chunk);
        if let Some((granule, number)) = chunk.next_span(draining.next) {
            draining.next = granule + u32::from(self.spans[number as usize].granules);
            return Some(number);
        }
        // Some of it could not be moved.
        let number = draining.chunk;
        self.compaction.chunk = None;
        self.chunks.enter(number);
        None
    }

    /// Begins to empty the chunk that it takes the least for.
    fn begin_chunk(&mut self) -> Option<()> {
        let (free, all) = (self.chunks.free_granules(), self.chunks.bytes() / GRANULE_BYTES);
        let compaction = &mut self.compaction;
        let has_added = std::mem::take(&mut compaction.has_added);
        compaction.free_granules_min = if has_added { free } else { compaction.free_granules_min.min(free) };
        if free * FREE_SHARE <= all || free < compaction.free_granules_min + GRANULES as usize {
            return None;
        }
        let number = self.chunks.emptiest()?;
        let free_here = self.chunks.get(number).free_granules() as usize;
        let (used, elsewhere) = (GRANULES as usize - free_here, free - free_here);
        if elsewhere < used + GRANULES as usize / SPARE_SHARE {
            return None;
        }
        self.chunks.retire(number);
        self.compaction.chunk = Some(Draining { chunk: number, next: 0 });
        Some(())
    }
}
