//! Values that do not lie in their entries: sets, lists, sorted sets and large hashes, numbered.

use crate::keyspace::{Str, Value, garbage::Dismantling, numbered};

/// Values of at least so many bytes are not freed where they are removed: a million fields take 100 ms.
const DISCARDED_BYTES_MIN: usize = 64 * 1024;

/// A numbered store of values that keeps count of their bytes.
#[derive(Debug, Default)]
pub(super) struct Objects {
    places: Vec<Place>,
    free: Vec<u32>,
    bytes: usize,
    /// Large ones that were removed, until somebody frees them.
    discarded: Vec<Value>,
}

#[derive(Debug)]
struct Place {
    value: Option<Value>,
    /// As counted in the sum.
    bytes: usize,
}

impl Objects {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, value: Value) -> u32 {
        let bytes = value.heap_bytes() + size_of::<Place>();
        self.bytes += bytes;
        let place = Place { value: Some(value), bytes };
        numbered::put(&mut self.places, &mut self.free, place)
    }

    pub(super) fn get(&self, number: usize) -> &Value {
        self.places[number].value.as_ref().expect("an entry's object is there as long as the entry")
    }

    pub(super) fn get_mut(&mut self, number: usize) -> &mut Value {
        self.places[number].value.as_mut().expect("an entry's object is there as long as the entry")
    }

    pub(super) fn bytes_of(&self, number: usize) -> usize {
        self.places[number].bytes
    }

    /// Counts a value's bytes again.
    pub(super) fn changed(&mut self, number: usize) {
        let place = &mut self.places[number];
        let bytes = place.value.as_ref().map_or(0, Value::heap_bytes) + size_of::<Place>();
        self.bytes = self.bytes + bytes - place.bytes;
        place.bytes = bytes;
    }

    /// Takes a value and leaves an empty one, whose place is freed with its entry.
    pub(super) fn take(&mut self, number: usize) -> Value {
        let value = std::mem::replace(self.get_mut(number), Value::Str(Str::default()));
        self.changed(number);
        value
    }

    pub(super) fn remove(&mut self, number: usize) {
        let Place { value, bytes } = std::mem::replace(&mut self.places[number], Place { value: None, bytes: 0 });
        self.bytes -= bytes;
        self.discarded.extend(value.filter(|_| bytes >= DISCARDED_BYTES_MIN));
        self.free.push(number as u32);
        if self.free.len() == self.places.len() {
            *self = Objects { discarded: self.take_discarded(), ..Objects::default() };
        }
    }

    /// Large values that were removed, to be freed without a lock.
    pub(super) fn take_discarded(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.discarded)
    }

    /// Frees everything piece by piece.
    pub(super) fn dismantle(self, freeing: &mut Dismantling) {
        let values = self.places.into_iter().filter_map(|place| place.value).chain(self.discarded);
        values.for_each(|value| value.dismantle(freeing));
    }
}
