//! A bounded map in two generations: the older one is dropped when the younger one is full.

use std::mem;

use parking_lot::Mutex;

use crate::keys::{Tag, TagMap};

/// Parts with a lock of their own: each read of a session looks into some of these maps, and its thread would wait for others.
const PARTS: usize = 16;

#[derive(Debug)]
pub(crate) struct Generations<V>([Mutex<Part<V>>; PARTS]);

#[derive(Debug)]
struct Part<V> {
    young: TagMap<V>,
    old: TagMap<V>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self([(); PARTS].map(|()| Mutex::new(Part { young: TagMap::default(), old: TagMap::default() })))
    }
}

impl<V: Clone> Generations<V> {
    fn part(&self, key: &Tag) -> &Mutex<Part<V>> {
        &self.0[key.spread() % PARTS]
    }

    pub(crate) fn get(&self, key: &Tag) -> Option<V> {
        let part = self.part(key).lock();
        part.young.get(key).or_else(|| part.old.get(key)).cloned()
    }

    /// `remembered`: how many are kept at least, as evenly as keys are spread; twice as many at most.
    pub(crate) fn insert(&self, key: Tag, value: V, remembered: usize) {
        let mut part = self.part(&key).lock();
        if part.young.insert(key, value).is_none() && part.young.len() >= remembered / PARTS {
            part.old = mem::take(&mut part.young);
        }
    }

    pub(crate) fn remove(&self, key: &Tag) {
        let mut part = self.part(key).lock();
        // Most of the time there is nothing at all.
        if !(part.young.is_empty() && part.old.is_empty()) {
            part.young.remove(key);
            part.old.remove(key);
        }
    }
}
